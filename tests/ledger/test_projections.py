"""Projections follow their ledger, apply each event exactly once, and notice when it is not their ledger."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
import trio

from broker.ledger.events import Recorded
from broker.ledger.ledger import Change, Ledger, Unit
from broker.ledger.projections import BATCH, Follower, Projection, ProjectionMismatch, ProjectionTables, Rows
from broker.ledger.store import MemoryStore, Store, StoredUnit
from broker.ledger.vault import Vault
from tests.ledger.places import open_sqlite, sign, stored
from tests.ledger.processes import start
from tests.ledger.samples import REGISTRY, Counted, Noted, Seen, Totals, clock

AT = "2026-11-21T09:30:00.000000+09:00"
SECRET_NAME = "連携 太郎"  # noqa: S105 # a resident's, not a password
NEVER = 3_600.0

Open = Callable[..., ProjectionTables]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(sign)


@pytest.fixture
def open_tables(tmp_path: Path) -> Iterator[Open]:
    """Opens the projections' file, again and again if need be."""
    opened: list[ProjectionTables] = []

    def open_again(*projections: Projection, name: str = "projections.sqlite") -> ProjectionTables:
        for tables in opened:
            tables.close()
        opened.append(ProjectionTables(tmp_path / name, projections))
        return opened[-1]

    yield open_again
    for tables in opened:
        tables.close()


def fill(store: Store, vault: Vault, count: int, *, label: str = "x", batch: int = 500) -> None:
    """Append units of one event each: alternately a note with a sealed name and a count."""
    vault.ensure([f"sample/{AT[:7]}"])
    start = store.head().size
    for first in range(start, start + count, batch):
        units = []
        for number in range(first, min(first + batch, start + count)):
            event = Counted(number) if number % 2 else Noted(f"{label}{number % 3}", SECRET_NAME)
            encoded = REGISTRY.encode(f"s{number}", 1, event, f"m{number}", AT, vault)
            units.append(StoredUnit(f"m{number}", {f"s{number}": 0}, (encoded,)))
        stored(store, *units)


def positions(tables: ProjectionTables) -> list[int]:
    return [row[0] for row in tables.query("SELECT position FROM seen ORDER BY position")]


async def test_a_follower_applies_what_is_appended(
    store: MemoryStore, vault: Vault, open_tables: Open, nursery: trio.Nursery
) -> None:
    ledger = Ledger("test", store, REGISTRY, vault, clock)
    fill(store, vault, 10)
    follower = Follower(ledger, open_tables(Totals(), Seen()))
    await nursery.start(ledger.run)
    await nursery.start(follower.run)
    # It is ready only when it has caught up with what was there before.
    assert follower.position == 10
    assert await follower.query("SELECT amount FROM total") == [(1 + 3 + 5 + 7 + 9,)]
    for number in range(5):
        outcome = await ledger.append(Unit(f"n{number}", (Change(f"n{number}", 0, (Counted(100),)),)))
        await follower.reach(outcome.last)
        assert await follower.query("SELECT amount FROM total") == [(25 + 100 * (number + 1),)]
    assert positions(follower.tables) == list(range(1, 16))


async def test_who_waits_for_a_position_reads_what_they_wrote(
    store: MemoryStore, vault: Vault, open_tables: Open, nursery: trio.Nursery
) -> None:
    """Many at once, each asking only for their own row."""
    ledger = Ledger("test", store, REGISTRY, vault, clock)
    follower = Follower(ledger, open_tables(Totals()))
    await nursery.start(ledger.run)
    await nursery.start(follower.run)
    found: dict[str, list[tuple[Any, ...]]] = {}

    async def write_and_read(name: str) -> None:
        outcome = await ledger.append(Unit(name, (Change(name, 0, (Noted(name, name), Noted(name, name))),)))
        await follower.reach(outcome.last)
        found[name] = await follower.query("SELECT times FROM label WHERE name = ?", (name,))

    async with trio.open_nursery() as writers:
        for number in range(30):
            writers.start_soon(write_and_read, f"n{number}")
    assert found == {f"n{number}": [(2,)] for number in range(30)}
    with trio.move_on_after(NEVER) as scope:
        scope.cancel()
        await follower.reach(61)
    assert scope.cancelled_caught


async def test_a_follower_stopped_and_started_goes_on(
    store: MemoryStore, vault: Vault, open_tables: Open
) -> None:
    ledger = Ledger("test", store, REGISTRY, vault, clock)
    for expected in (7, 14, 21):
        fill(store, vault, 7)
        follower = Follower(ledger, open_tables(Seen()))
        assert follower.position == expected - 7
        async with trio.open_nursery() as nursery:
            await nursery.start(follower.run)
            await follower.reach(expected)
            nursery.cancel_scope.cancel()
        assert positions(follower.tables) == list(range(1, expected + 1))


def test_a_ledger_of_several_batches(store: MemoryStore, vault: Vault, open_tables: Open) -> None:
    fill(store, vault, 2 * BATCH + 100)
    tables = open_tables(Seen())
    told: list[int] = []
    assert tables.catch_up(store, REGISTRY, progress=told.append) == 2 * BATCH + 100
    assert told == [BATCH, 2 * BATCH, 2 * BATCH + 100]
    assert positions(tables) == list(range(1, 2 * BATCH + 101))
    assert tables.catch_up(store, REGISTRY, progress=told.append) == 2 * BATCH + 100
    assert len(told) == 3


def test_catching_up_to_a_position_only(store: MemoryStore, vault: Vault, open_tables: Open) -> None:
    fill(store, vault, 50)
    tables = open_tables(Seen())
    assert tables.catch_up(store, REGISTRY, upto=20) == 20
    assert positions(tables) == list(range(1, 21))
    assert tables.catch_up(store, REGISTRY, upto=10) == 20
    assert tables.catch_up(store, REGISTRY, upto=1_000) == 50


class _FailsOnce(Seen):
    """Fails at a position, once, after it has written its row."""

    def __init__(self, position: int) -> None:
        self.position = position

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        super().apply(rows, recorded)
        if recorded.position == self.position:
            self.position = 0
            raise ArithmeticError("in the middle of a batch")


def test_a_batch_that_fails_is_applied_exactly_once(
    store: MemoryStore, vault: Vault, open_tables: Open
) -> None:
    """It is applied again, event by event; what the first attempt did is not there."""
    fill(store, vault, 300)
    tables = open_tables(Totals(), _FailsOnce(150))
    assert tables.catch_up(store, REGISTRY) == 300
    assert positions(tables) == list(range(1, 301))
    assert tables.query("SELECT amount FROM total") == [(sum(range(1, 300, 2)),)]
    assert tables.parked() == []


def test_a_full_disk_parks_nothing(store: MemoryStore, vault: Vault, open_tables: Open) -> None:
    """It is no event's fault. Nothing of the batch is there, and with room again all of it is applied."""
    fill(store, vault, 1_000)
    tables = open_tables(Totals(), Seen())
    tables.catch_up(store, REGISTRY, upto=10)
    before = tables.digests()
    tables._rows.execute("PRAGMA max_page_count = 12")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        tables.catch_up(store, REGISTRY)
    assert (tables.digests(), tables.parked()) == (before, [])
    tables._rows.execute("PRAGMA max_page_count = 100000")
    assert tables.catch_up(store, REGISTRY) == 1_000
    assert positions(tables) == list(range(1, 1_001))


def test_two_that_keep_up_the_same_tables_apply_each_event_once(
    store: MemoryStore, vault: Vault, tmp_path: Path
) -> None:
    """As two processes on one folder do. Seen fails, and so would park, if an event came to it twice."""
    fill(store, vault, 100)
    both = [ProjectionTables(tmp_path / "projections.sqlite", [Totals(), Seen()]) for _ in range(2)]
    ends: list[int] = []

    def keep_up(tables: ProjectionTables) -> None:
        while (end := tables.catch_up(store, REGISTRY)) < 4 * BATCH:
            assert end <= store.head().size
        ends.append(end)

    threads = [Thread(target=keep_up, args=(tables,)) for tables in both]
    for thread in threads:
        thread.start()
    while store.head().size < 4 * BATCH:
        fill(store, vault, min(700, 4 * BATCH - store.head().size))
    for thread in threads:
        thread.join()
    assert ends == [4 * BATCH] * 2
    assert positions(both[0]) == list(range(1, 4 * BATCH + 1))
    assert both[0].parked() == []
    for tables in both:
        tables.close()


def test_a_process_killed_in_the_middle_of_a_batch(tmp_path: Path, vault: Vault, open_tables: Open) -> None:
    store = open_sqlite(tmp_path / "events.sqlite")
    fill(store, vault, BATCH + 500)
    store.close()
    with start("project", tmp_path, str(BATCH + 250)) as process:
        assert process.wait() == -9
    store = open_sqlite(tmp_path / "events.sqlite")
    tables = open_tables(Seen())
    assert tables.tracking()["seen"][0] == BATCH
    assert positions(tables) == list(range(1, BATCH + 1))
    assert tables.catch_up(store, REGISTRY) == BATCH + 500
    assert positions(tables) == list(range(1, BATCH + 501))
    store.close()


def test_what_is_rebuilt_equals_what_was_followed(
    store: MemoryStore, vault: Vault, open_tables: Open
) -> None:
    live = open_tables(Totals(), Seen())
    for count in (1, 30, 2, 400, 7):
        fill(store, vault, count)
        live.catch_up(store, REGISTRY)
    followed, tracked = live.digests(), live.tracking()
    rebuilt = open_tables(Totals(), Seen(), name="beside.sqlite")
    rebuilt.catch_up(store, REGISTRY)
    assert rebuilt.digests() == followed
    assert rebuilt.tracking() == tracked
    assert rebuilt.tracking()["totals"] == (440, store.head().frontier)
    fill(store, vault, 1)
    rebuilt.catch_up(store, REGISTRY)
    assert rebuilt.digests()["seen"] != followed["seen"]


class _Mixed:
    """Rows in which SQLite orders by type before value, and which Python cannot compare."""

    name: ClassVar[str] = "mixed"
    tables: ClassVar[Mapping[str, str]] = {"loose": "a, b", "empty": "a"}

    def __init__(self, rows: list[tuple[Any, Any]]) -> None:
        self._content = rows

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        rows.executemany("INSERT INTO loose VALUES (?, ?)", self._content)


def test_a_digest_does_not_depend_on_the_order_or_kind_of_rows(
    store: MemoryStore, vault: Vault, open_tables: Open
) -> None:
    fill(store, vault, 1)
    content = [
        (None, 1),
        (None, None),
        (1, "x"),
        ("1", "x"),
        (b"1", "x"),
        (1.5, ""),
        (-(2**60), "連"),
        (1, "x"),
    ]
    digests = []
    for number, rows in enumerate((content, content[::-1], content[:-1], [*content[1:], (None, 2)])):
        tables = open_tables(_Mixed(rows), name=f"{number}.sqlite")
        tables.catch_up(store, REGISTRY)
        digests.append(tables.digests()["mixed"])
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_projection_never_gets_what_is_personal(tmp_path: Path, vault: Vault, open_tables: Open) -> None:
    """Not to the projection, and so not into the file: neither as text nor under a key."""
    store = open_sqlite(tmp_path / "events.sqlite")
    fill(store, vault, 40)
    tables = open_tables(Seen())
    tables.catch_up(store, REGISTRY)
    (what,) = tables.query("SELECT what FROM seen WHERE position = 1")[0]
    assert what == "Noted(label='x0') {'label': 'x0', 'secret': SEALED}"
    for path in tmp_path.iterdir():
        if path.is_file():
            assert SECRET_NAME.encode() not in path.read_bytes(), path.name
    store.close()


def test_projecting_needs_no_keys(tmp_path: Path, vault: Vault, open_tables: Open) -> None:
    store = open_sqlite(tmp_path / "events.sqlite")
    fill(store, vault, 10)
    vault._rows.execute("DELETE FROM key")
    assert open_tables(Seen()).catch_up(store, REGISTRY) == 10
    store.close()


def test_a_second_projection_catches_up_alone(store: MemoryStore, vault: Vault, open_tables: Open) -> None:
    fill(store, vault, BATCH + 300)
    open_tables(Seen()).catch_up(store, REGISTRY)
    fill(store, vault, 50)
    both = open_tables(Seen(), Totals())
    # Seen would fail if any event came to it again.
    told: list[int] = []
    assert both.catch_up(store, REGISTRY, progress=told.append) == BATCH + 350
    # From where it meets the other they go on together: nothing is read twice.
    assert told == [BATCH, BATCH + 300, BATCH + 350]
    assert positions(both) == list(range(1, BATCH + 351))
    assert both.query("SELECT amount FROM total") == [(sum(range(1, BATCH + 350, 2)),)]
    alone = open_tables(Totals(), name="alone.sqlite")
    alone.catch_up(store, REGISTRY)
    assert alone.digests()["totals"] == open_tables(Seen(), Totals()).digests()["totals"]


def test_a_projection_that_is_no_longer_kept(store: MemoryStore, vault: Vault, open_tables: Open) -> None:
    """What it left in the file must not hold back, nor be taken for, what is still kept."""
    fill(store, vault, 10)
    open_tables(Totals(), Seen()).catch_up(store, REGISTRY)
    fill(store, vault, 10)
    one = open_tables(Seen())
    told: list[int] = []

    def progress(position: int) -> None:
        told.append(position)
        assert len(told) < 5, "it goes round and round"

    assert one.catch_up(store, REGISTRY, progress=progress) == 20
    assert told == [20]
    assert one.tracking().keys() == {"seen"}


@pytest.mark.parametrize("others", [20, 19, 21, 0, BATCH + 21])
def test_a_projection_of_another_ledger(
    store: MemoryStore, vault: Vault, open_tables: Open, others: int
) -> None:
    """Shorter, longer or of the same length: as after a restore of the events without the projections."""
    fill(store, vault, 20)
    open_tables(Seen()).catch_up(store, REGISTRY)
    another = MemoryStore(sign)
    fill(another, vault, others, label="y")
    with pytest.raises(ProjectionMismatch):
        open_tables(Seen()).catch_up(another, REGISTRY)


@pytest.mark.parametrize("others", [15, 20, 30])
def test_a_projection_of_another_ledger_beside_a_new_one(
    store: MemoryStore, vault: Vault, open_tables: Open, others: int
) -> None:
    """The new one, at position 0, must not lead the old one past where it would have been found out."""
    fill(store, vault, 20)
    open_tables(Seen()).catch_up(store, REGISTRY)
    another = MemoryStore(sign)
    fill(another, vault, others, label="y")
    with pytest.raises(ProjectionMismatch):
        open_tables(Seen(), Totals()).catch_up(another, REGISTRY)


TAMPERING = {
    "changed": "UPDATE stored_events SET state = CAST(replace(state, 'x', 'y') AS BLOB) WHERE rowid = 11",
    "unreadable": "UPDATE stored_events SET state = x'00' WHERE rowid = 11",
    "renamed": "UPDATE stored_events SET originator_id = 'another' WHERE rowid = 11",
    "deleted": "DELETE FROM stored_events WHERE rowid = 11",
    "cut": "DELETE FROM stored_events WHERE rowid = 20",
    "emptied": "DELETE FROM stored_events WHERE rowid > 10",
}


@pytest.mark.parametrize("tampering", TAMPERING)
async def test_a_follower_notices_history_that_was_changed(
    tmp_path: Path, vault: Vault, open_tables: Open, tampering: str
) -> None:
    """And shows nothing of it: what it had before stays as it was."""
    store = open_sqlite(tmp_path / "events.sqlite")
    fill(store, vault, 10)
    tables = open_tables(Seen(), Totals())
    tables.catch_up(store, REGISTRY)
    before = tables.digests()
    fill(store, vault, 10)
    with closing(sqlite3.connect(tmp_path / "events.sqlite", isolation_level=None)) as rows:
        rows.execute(TAMPERING[tampering])
        assert rows.total_changes > 0
    follower = Follower(Ledger("test", store, REGISTRY, vault, clock), tables)
    with pytest.raises(ProjectionMismatch):
        await follower.run()
    assert tables.digests() == before
    store.close()


def test_a_rebuild_notices_history_that_was_changed(tmp_path: Path, vault: Vault, open_tables: Open) -> None:
    """What was projected long ago is not read again by a follower, but by a rebuild."""
    store = open_sqlite(tmp_path / "events.sqlite")
    fill(store, vault, BATCH + 20)
    with closing(sqlite3.connect(tmp_path / "events.sqlite", isolation_level=None)) as rows:
        rows.execute(TAMPERING["changed"])
    with pytest.raises(ProjectionMismatch):
        open_tables(Seen()).catch_up(store, REGISTRY)
    store.close()


def test_readers_do_not_wait_for_a_batch(store: MemoryStore, vault: Vault, open_tables: Open) -> None:
    """They see the tables as they were before it."""
    fill(store, vault, 10)
    seen_inside: list[list[int]] = []

    class Curious(Seen):
        def apply(self, rows: Rows, recorded: Recorded) -> None:
            super().apply(rows, recorded)
            seen_inside.append(positions(tables))

    tables = open_tables(Curious())
    tables.catch_up(store, REGISTRY)
    assert seen_inside == [[]] * 10
    assert positions(tables) == list(range(1, 11))


def test_a_reader_cannot_write(open_tables: Open, tmp_path: Path) -> None:
    odd = tmp_path / "100% of #1? 連携"
    odd.mkdir()
    tables = open_tables(Seen(), name=f"{odd.name}/projections.sqlite")
    assert positions(tables) == []
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        tables.query("DELETE FROM seen")


async def test_a_long_question_is_answered_like_a_short_one(
    store: MemoryStore, vault: Vault, open_tables: Open, nursery: trio.Nursery
) -> None:
    """A glance gives up where it would take long, and the connection is good for the next question."""
    ledger = Ledger("test", store, REGISTRY, vault, clock)
    follower = Follower(ledger, open_tables(Totals()))
    await nursery.start(follower.run)
    numbers = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT COUNT(*) FROM n"
    )
    assert follower.tables.glance(numbers, (10,)) == [(10,)]
    assert follower.tables.glance(numbers, (100_000,)) is None
    assert follower.tables.glance(numbers, (10,)) == [(10,)]
    assert await follower.query(numbers, (100_000,)) == [(100_000,)]
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        follower.tables.glance("SELECT * FROM nowhere")
