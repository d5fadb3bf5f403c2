"""Parked events, and projections that are built anew beside the live ones and take their place."""

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import msgpack
import pytest
import trio
import trio.testing
from eventsourcing.persistence import Notification, PersistenceError, StoredEvent
from structlog.testing import capture_logs

from broker.ledger.events import Recorded, Registry, event
from broker.ledger.generations import Generations
from broker.ledger.ledger import Change, Ledger, Unit
from broker.ledger.postgres import PostgresDatabase
from broker.ledger.projections import (
    BATCH,
    Follower,
    Lag,
    Parked,
    Projection,
    ProjectionMismatch,
    ProjectionTables,
    RebuildUnderWay,
    Rows,
    StillParked,
    rebuild,
)
from broker.ledger.store import MemoryStore, Store, StoredUnit
from broker.ledger.vault import Vault
from ops.postgresql import Server
from tests.ledger.places import open_sqlite, sign, stored
from tests.ledger.rebuilding import FULL, STEPS, outcome
from tests.ledger.samples import REGISTRY, Counted, Noted, Seen, Totals, clock
from tests.ledger.test_projections import fill, positions
from tests.servers import QUICK, VERSIONS, new_ledger, programs

NAME = "連携 太郎"
BROKEN = {3, 150, 200}


@dataclass(frozen=True)
@event("later", retention="sample")
class Later:
    """What only the next version of the software knows."""


class Picky:
    """Keeps positions, and fails at some of them after it has written a row and named a person."""

    name: ClassVar[str] = "picky"
    tables: ClassVar[Mapping[str, str]] = {"picked": "position INTEGER PRIMARY KEY, since INTEGER"}

    def __init__(self, broken: set[int]) -> None:
        self.broken = broken

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        # Each row tells how many came before: whatever is applied late is not what it should be.
        rows.execute("INSERT INTO picked SELECT ?, COUNT(*) FROM picked", (recorded.position,))
        if recorded.position in self.broken:
            raise LookupError(NAME)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(sign)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tables" / "projections.sqlite"


def digests(path: Path, projections: Sequence[Projection]) -> dict[str, str]:
    with closing(ProjectionTables(path, projections)) as tables:
        return tables.digests()


def fresh(tmp_path: Path, store: Store, projections: Sequence[Projection]) -> dict[str, str]:
    """What the projections are, built from nothing."""
    with closing(ProjectionTables(tmp_path / "fresh.sqlite", projections)) as tables:
        tables.catch_up(store, REGISTRY)
        return tables.digests()


def files(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir())


async def said(logs: Sequence[Mapping[str, Any]], what: str) -> None:
    """Wait until it is in the log."""
    while what not in [entry["event"] for entry in logs]:  # noqa: ASYNC110 # a list tells nobody
        await trio.sleep(0.02)


# -- parked events ------------------------------------------------------------------------------------


def test_an_event_that_cannot_be_applied_stops_neither_the_others_nor_the_rest(
    store: MemoryStore, vault: Vault, path: Path
) -> None:
    fill(store, vault, 300)
    with closing(ProjectionTables(path, [Seen(), Picky(BROKEN)])) as tables, capture_logs() as logs:
        assert tables.catch_up(store, REGISTRY) == 300
        assert positions(tables) == list(range(1, 301))
        picked = [row[0] for row in tables.query("SELECT position FROM picked ORDER BY 1")]
        assert picked == [p for p in range(1, 301) if p not in BROKEN]
        assert tables.parked() == [Parked("picky", p, "S-132 LookupError") for p in sorted(BROKEN)]
        assert tables.tracking()["picky"] == (300, store.head().frontier)
    assert [(entry["event"], entry["code"], entry["position"]) for entry in logs] == [
        ("parked", "S-132", p) for p in sorted(BROKEN)
    ]
    assert NAME not in str(logs)
    assert NAME.encode() not in path.read_bytes()


def append_unknown(store: Store, stream: str) -> None:
    """An event of a type that came with a later version."""
    state = msgpack.packb([stream, "2026-11-21T00:30:00.000000+00:00", {}, None, None])
    later = StoredEvent(originator_id=stream, originator_version=1, topic="later/1", state=state)
    stored(store, StoredUnit(stream, {stream: 0}, (later,)))


def test_an_event_of_a_later_version_is_parked_for_every_projection(
    store: MemoryStore, vault: Vault, path: Path
) -> None:
    fill(store, vault, 10)
    append_unknown(store, "later")
    fill(store, vault, 10)
    with closing(ProjectionTables(path, [Seen(), Totals()])) as tables:
        assert tables.catch_up(store, REGISTRY) == 21
        assert positions(tables) == [p for p in range(1, 22) if p != 11]
        assert tables.parked() == [
            Parked("seen", 11, "S-131 UnreadableEvent"),
            Parked("totals", 11, "S-131 UnreadableEvent"),
        ]
    told: list[int] = []
    with pytest.raises(StillParked, match="later/1"):
        rebuild(path, [Seen(), Totals()], store, REGISTRY, whole=True, progress=told.append)
    assert told == []  # it is known before anything was built
    rebuild(path, [Seen(), Totals()], store, Registry((Noted, Counted, Later)), whole=True)
    with closing(ProjectionTables(path, [Seen(), Totals()])) as tables:
        assert positions(tables) == list(range(1, 22))
        assert tables.parked() == []


async def test_what_was_parked_is_applied_once_the_software_can(
    store: MemoryStore, vault: Vault, path: Path, tmp_path: Path
) -> None:
    """A daemon with the mended software builds the projection anew when it starts, and only this one."""
    fill(store, vault, BATCH + 300)
    with closing(ProjectionTables(path, [Seen(), Picky(BROKEN)])) as tables:
        tables.catch_up(store, REGISTRY)
        tables._rows.execute("INSERT INTO seen VALUES (0, 'by hand')")
    fill(store, vault, 5)
    mended: list[Projection] = [Seen(), Picky(set())]
    with closing(ProjectionTables(path, mended)) as tables:
        follower = Follower(Ledger("test", store, REGISTRY, vault, clock), tables)
        with capture_logs() as logs:
            async with trio.open_nursery() as nursery:
                await nursery.start(follower.run)
                await said(logs, "parked events applied")
                nursery.cancel_scope.cancel()
        assert [entry["event"] for entry in logs] == ["parked events applied"]
        assert await follower.query("SELECT * FROM parked") == []
        assert await follower.query("SELECT COUNT(*) FROM seen WHERE position = 0") == [(1,)]
    assert digests(path, mended)["picky"] == fresh(tmp_path, store, mended)["picky"]


async def test_what_still_cannot_be_applied_leaves_everything_as_it_is(
    store: MemoryStore, vault: Vault, path: Path
) -> None:
    """A part of it mended is not enough; an operator may rebuild all the same."""
    fill(store, vault, 300)
    with closing(ProjectionTables(path, [Picky(BROKEN)])) as tables:
        tables.catch_up(store, REGISTRY)
    half: list[Projection] = [Picky({200})]
    before = digests(path, half)
    with closing(ProjectionTables(path, half)) as tables:
        ledger = Ledger("test", store, REGISTRY, vault, clock)
        follower = Follower(ledger, tables)
        with capture_logs() as logs:
            async with trio.open_nursery() as nursery:
                await nursery.start(ledger.run)
                await nursery.start(follower.run)
                await said(logs, "still parked")
                outcome = await ledger.append(Unit("new", (Change("new", 0, (Counted(1),)),)))
                await follower.reach(outcome.last)
                nursery.cancel_scope.cancel()
        assert len(tables.parked()) == 3
        assert len(await follower.query("SELECT * FROM picked")) == 298
    with pytest.raises(StillParked, match="picky"):
        rebuild(path, half, store, REGISTRY, whole=True)
    assert digests(path, half) != before  # of the event that was appended
    rebuild(path, half, store, REGISTRY)
    with closing(ProjectionTables(path, half)) as tables:
        assert [parked.position for parked in tables.parked()] == [200]


# -- rebuild and swap ---------------------------------------------------------------------------------


def test_a_rebuild_takes_the_place_of_the_live_tables(store: MemoryStore, vault: Vault, path: Path) -> None:
    fill(store, vault, 500)
    projections: list[Projection] = [Totals(), Seen()]
    with closing(ProjectionTables(path, projections)) as tables:
        tables.catch_up(store, REGISTRY)
        right = tables.digests()
        tables._rows.execute("UPDATE seen SET what = '' WHERE position = 7")
    assert digests(path, projections) != right
    for generation in (1, 2):
        rebuild(path, projections, store, REGISTRY)
        assert digests(path, projections) == right
        assert files(path) == [f"projections.{generation}.sqlite", "projections.sqlite"]
        assert (path.parent / f"projections.{generation}.sqlite").stat().st_mode & 0o777 == 0o600
    with closing(ProjectionTables(path, projections)) as tables:
        assert tables.tracking() == dict.fromkeys(right, (500, store.head().frontier))
        fill(store, vault, 1)
        assert tables.catch_up(store, REGISTRY) == 501


def test_one_projection_is_rebuilt_and_the_others_are_kept(
    store: MemoryStore, vault: Vault, path: Path
) -> None:
    fill(store, vault, 300)
    projections: list[Projection] = [Totals(), Seen(), Picky({9})]
    with closing(ProjectionTables(path, projections)) as tables:
        tables.catch_up(store, REGISTRY)
        right = tables.digests()
        tables._rows.execute("DELETE FROM seen WHERE position = 7")
        tables._rows.execute("UPDATE total SET amount = 0")
    fill(store, vault, 1)
    rebuild(path, projections, store, REGISTRY, ["seen"])
    with closing(ProjectionTables(path, projections)) as tables:
        assert positions(tables) == list(range(1, 302))
        assert tables.query("SELECT amount FROM total") == [(0,)]
        assert [parked.position for parked in tables.parked()] == [9]
        assert tables.digests()["totals"] != right["totals"]


def test_who_follows_the_tables_moves_over(store: MemoryStore, vault: Vault, path: Path) -> None:
    """As in another process: nothing but the files tells of the swap."""
    fill(store, vault, 100)
    with closing(ProjectionTables(path, [Seen()])) as tables:
        tables.catch_up(store, REGISTRY)
        rebuild(path, [Seen()], store, REGISTRY)
        assert positions(tables) == list(range(1, 101))
        fill(store, vault, 10)
        assert tables.catch_up(store, REGISTRY) == 110
        assert positions(tables) == list(range(1, 111))
    assert files(path) == ["projections.1.sqlite", "projections.sqlite"]


async def test_reads_and_writes_go_on_during_a_rebuild(
    store: MemoryStore, vault: Vault, path: Path, tmp_path: Path, nursery: trio.Nursery
) -> None:
    """Nobody ever sees less than they saw before, nor waits for more than their own event."""
    fill(store, vault, 2 * BATCH)
    projections: list[Projection] = [Totals(), Seen()]
    tables = ProjectionTables(path, projections)
    ledger = Ledger("test", store, REGISTRY, vault, clock)
    follower = Follower(ledger, tables)
    await nursery.start(ledger.run)
    await nursery.start(follower.run)
    done = False
    seen = 0

    async def write_and_read(name: str) -> None:
        nonlocal seen
        number = 0
        while not done:
            outcome = await ledger.append(Unit(f"{name}{number}", (Change(name, number, (Counted(1),)),)))
            await follower.reach(outcome.last)
            expected = max(outcome.last, seen)
            ((last, count),) = await follower.query("SELECT MAX(position), COUNT(*) FROM seen")
            assert last == count >= expected
            seen = max(seen, count)
            number += 1

    async with trio.open_nursery() as busy:
        for name in ("a", "b"):
            busy.start_soon(write_and_read, name)
        for _ in range(4):
            told: list[int] = []
            await follower.rebuild(progress=told.append)
            assert told[0] == BATCH
        await follower.rebuild(["totals"])
        done = True
    nursery.cancel_scope.cancel()
    assert tables.digests() == fresh(tmp_path, store, projections)
    assert files(path)[0] == "projections.5.sqlite"
    tables.close()


def test_only_one_rebuild_at_a_time(store: MemoryStore, vault: Vault, path: Path) -> None:
    """And who opens the tables meanwhile does not remove what is being built."""
    fill(store, vault, 10)
    met: list[list[str]] = []

    def meanwhile(_position: int) -> None:
        with pytest.raises(RebuildUnderWay):
            rebuild(path, [Seen()], store, REGISTRY)
        ProjectionTables(path, [Seen()]).close()
        met.append(files(path))

    rebuild(path, [Seen()], store, REGISTRY, progress=meanwhile)
    assert "projections.1.sqlite" in met[0]
    assert files(path) == ["projections.1.sqlite", "projections.sqlite"]


async def test_a_rebuild_is_given_up_when_the_daemon_stops(
    store: MemoryStore, vault: Vault, path: Path
) -> None:
    fill(store, vault, 3 * BATCH)
    with closing(ProjectionTables(path, [Seen()])) as tables:
        follower = Follower(Ledger("test", store, REGISTRY, vault, clock), tables)
        with trio.CancelScope() as scope:
            await follower.rebuild(progress=lambda position: trio.from_thread.run_sync(scope.cancel))
        assert scope.cancelled_caught
    assert [name for name in files(path) if "-" not in name] == ["projections.sqlite"]


@pytest.fixture
def on_disk(tmp_path: Path, vault: Vault) -> Iterator[Store]:
    """Events for a process of its own, and tables that follow them."""
    store = open_sqlite(tmp_path / "events.sqlite")
    fill(store, vault, 800)
    with closing(ProjectionTables(tmp_path / "projections.sqlite", [Totals(), Seen()])) as tables:
        tables.catch_up(store, REGISTRY)
    fill(store, vault, 10)
    yield store
    store.close()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_process_killed_at_any_step_leaves_the_old_tables_or_the_new_ones(
    on_disk: Store, tmp_path: Path, step: str, when: str
) -> None:
    assert outcome(tmp_path, f"{step} {when}") == -signal.SIGKILL
    with closing(ProjectionTables(tmp_path / "projections.sqlite", [Totals(), Seen()])) as tables:
        swapped = (step, when) in {("switch", "after"), ("replace", "after"), ("remove", "after")}
        # The one step that comes after the swap as well as before it is the removal of what is not in use.
        if step != "remove":
            assert (tables.tracking()["seen"][0] == 810) == swapped
        assert tables.catch_up(on_disk, REGISTRY) == 810
        assert tables.digests() == fresh(tmp_path, on_disk, [Totals(), Seen()])
    left = {name for name in files(tmp_path / "events.sqlite") if name.startswith("projections")}
    assert left in ({"projections.sqlite"}, {"projections.sqlite", "projections.1.sqlite"})
    assert (len(left) == 2) == (tmp_path / "projections.sqlite").is_symlink()


def test_no_room_for_a_rebuild_leaves_the_tables_as_they_are(on_disk: Store, tmp_path: Path) -> None:
    before = digests(tmp_path / "projections.sqlite", [Totals(), Seen()])
    assert outcome(tmp_path, "full") == FULL
    assert digests(tmp_path / "projections.sqlite", [Totals(), Seen()]) == before
    assert not [name for name in files(tmp_path / "events.sqlite") if name.startswith("projections.1")]
    rebuild(tmp_path / "projections.sqlite", [Totals(), Seen()], on_disk, REGISTRY)
    assert digests(tmp_path / "projections.sqlite", [Totals(), Seen()]) == fresh(
        tmp_path, on_disk, [Totals(), Seen()]
    )


def test_a_damaged_file_is_said_to_be_one_and_can_be_rebuilt(
    store: MemoryStore, vault: Vault, path: Path
) -> None:
    fill(store, vault, 300)
    with closing(ProjectionTables(path, [Seen()])) as tables:
        tables.catch_up(store, REGISTRY)
        right = tables.digests()
    path.write_bytes(b"no database at all" * 300)
    with pytest.raises(ProjectionMismatch, match="damaged"):
        ProjectionTables(path, [Seen()])
    rebuild(path, [Seen()], store, REGISTRY)
    assert digests(path, [Seen()]) == right
    assert files(path) == ["projections.1.sqlite", "projections.sqlite"]


def test_a_rebuild_repairs_tables_of_another_ledger(store: MemoryStore, vault: Vault, path: Path) -> None:
    """As after a restore of the events alone. But what would be kept must fit."""
    another = MemoryStore(sign)
    fill(another, vault, 30, label="y")
    projections: list[Projection] = [Totals(), Seen()]
    with closing(ProjectionTables(path, projections)) as tables:
        tables.catch_up(another, REGISTRY)
    fill(store, vault, 20)
    with pytest.raises(ProjectionMismatch):
        rebuild(path, projections, store, REGISTRY, ["seen"])
    rebuild(path, projections, store, REGISTRY)
    with closing(ProjectionTables(path, projections)) as tables:
        assert tables.catch_up(store, REGISTRY) == 20


def test_a_copy_of_a_folder_that_follows_links_is_whole(
    store: MemoryStore, vault: Vault, path: Path, tmp_path: Path
) -> None:
    fill(store, vault, 50)
    rebuild(path, [Seen()], store, REGISTRY)
    copy = tmp_path / "copy" / path.name
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    (copy.parent / "projections.1.sqlite").write_bytes(path.read_bytes())
    (copy.parent / "projections.notes.sqlite").write_bytes(b"not ours")
    fill(store, vault, 50)
    with closing(ProjectionTables(copy, [Seen()])) as tables:
        assert tables.catch_up(store, REGISTRY) == 100
    assert files(copy) == ["projections.notes.sqlite", "projections.sqlite"]
    rebuild(copy, [Seen()], store, REGISTRY)
    assert Generations(copy).live().name == "projections.1.sqlite"
    assert digests(copy, [Seen()]) == fresh(tmp_path, store, [Seen()])


def test_a_table_that_changed_its_columns_is_made_anew(store: MemoryStore, vault: Vault, path: Path) -> None:
    class Wider(Seen):
        tables: ClassVar[Mapping[str, str]] = {"seen": "position INTEGER PRIMARY KEY, what TEXT, more TEXT"}

        def apply(self, rows: Rows, recorded: Recorded) -> None:
            rows.execute("INSERT INTO seen VALUES (?, '', 'more')", (recorded.position,))

    fill(store, vault, 20)
    with closing(ProjectionTables(path, [Seen(), Totals()])) as tables:
        tables.catch_up(store, REGISTRY)
    rebuild(path, [Wider(), Totals()], store, REGISTRY, ["seen"])
    with closing(ProjectionTables(path, [Wider(), Totals()])) as tables:
        assert tables.query("SELECT DISTINCT more FROM seen") == [("more",)]


# -- how far behind -----------------------------------------------------------------------------------


def test_how_far_a_projection_is_behind(store: MemoryStore, vault: Vault, path: Path) -> None:
    start = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
    vault.ensure(["sample/2026-11"])
    for minute in range(4):
        at = (start + timedelta(minutes=minute)).isoformat(timespec="microseconds")
        events = [REGISTRY.encode(f"s{minute}", v, Counted(v), f"m{minute}", at, vault) for v in (1, 2)]
        store.append([StoredUnit(f"m{minute}", {f"s{minute}": 0}, tuple(events))], at)
    now = start + timedelta(minutes=10)
    with closing(ProjectionTables(path, [Totals(), Picky({2})])) as tables:
        assert tables.lags(store, now) == [Lag(n, 0, 8, 600.0, 0) for n in ("totals", "picky")]
        tables.catch_up(store, REGISTRY, upto=3)
        # The oldest event that is missing is the second one of the second commit.
        assert tables.lags(store, now)[0] == Lag("totals", 3, 5, 540.0, 0)
        tables.catch_up(store, REGISTRY)
        assert tables.lags(store, now) == [Lag("totals", 8, 0, 0.0, 0), Lag("picky", 8, 0, 0.0, 1)]


# -- a store that is away -----------------------------------------------------------------------------


class Away(MemoryStore):
    """Its answers fail as often as one wants."""

    failures = 0

    def _answer(self) -> None:
        if self.failures:
            self.failures -= 1
            raise PersistenceError("57P01: terminating connection")

    def head(self) -> Any:
        self._answer()
        return super().head()

    def events(self, after: int, limit: int) -> list[Notification]:
        self._answer()
        return super().events(after, limit)


async def test_a_follower_waits_for_a_store_that_is_away(
    vault: Vault, path: Path, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    store = Away(sign)
    fill(store, vault, 10)
    ledger = Ledger("test", store, REGISTRY, vault, clock)
    tables = ProjectionTables(path, [Seen()])
    follower = Follower(ledger, tables)
    store.failures = 8
    with capture_logs() as logs:
        started = trio.current_time()
        await nursery.start(follower.run)
        # 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5: never longer than five seconds
        assert trio.current_time() - started == pytest.approx(16.3, abs=0.01)
        fill(store, vault, 10)
        store.failures = 3
        await follower.reach(20)
    assert positions(tables) == list(range(1, 21))
    assert {entry["event"] for entry in logs} == {"projections wait"}
    assert len(logs) == 11
    nursery.cancel_scope.cancel()
    tables.close()


async def test_a_follower_waits_for_room(
    store: MemoryStore,
    vault: Vault,
    path: Path,
    autojump_clock: trio.testing.MockClock,
    nursery: trio.Nursery,
) -> None:
    tables = ProjectionTables(path, [Seen()])
    follower = Follower(Ledger("test", store, REGISTRY, vault, clock), tables)
    await nursery.start(follower.run)
    tables._rows.execute("PRAGMA max_page_count = 12")
    fill(store, vault, 1_000)
    with capture_logs() as logs:
        await said(logs, "projections wait")
        assert "full" in logs[0]["error"]
        assert await follower.query("SELECT * FROM seen") == []
        tables._rows.execute("PRAGMA max_page_count = 100000")
        await follower.reach(1_000)
    assert positions(tables) == list(range(1, 1_001))
    nursery.cancel_scope.cancel()
    tables.close()


async def test_a_follower_goes_on_when_its_database_was_restarted(vault: Vault, path: Path) -> None:
    with (
        Server(programs(VERSIONS[-1]), settings=QUICK) as server,
        closing(PostgresDatabase(server.url)) as database,
        closing(ProjectionTables(path, [Seen()])) as tables,
    ):
        store = new_ledger(database, sign)()
        fill(store, vault, 10)
        follower = Follower(Ledger("test", store, REGISTRY, vault, clock), tables)
        with capture_logs() as logs:
            async with trio.open_nursery() as nursery:
                await nursery.start(follower.run)
                await trio.to_thread.run_sync(server.stop)
                await said(logs, "projections wait")
                await trio.to_thread.run_sync(server.start)
                await trio.to_thread.run_sync(fill, store, vault, 10)
                await follower.reach(20)
                nursery.cancel_scope.cancel()
        assert positions(tables) == list(range(1, 21))
