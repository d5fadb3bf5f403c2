"""Projections as they stood at a moment, what changed between two, and the life of a message."""

import secrets
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import msgpack
import pytest
import trio

from broker.addressing import person
from broker.ledger import projections as projections_module
from broker.ledger.events import Recorded
from broker.ledger.folder import PROJECTIONS, VERIFIER_KEY, LedgerFolder
from broker.ledger.ledger import Change, Unit
from broker.ledger.postgres import PostgresDatabase
from broker.ledger.projections import ProjectionTables, Rows
from broker.ledger.store import MemoryStore, StoredUnit
from broker.ledger.vault import Vault
from ops.audit import evidence
from ops.cli import main
from ops.replay import Change as RowChange
from ops.replay import changes
from ops.trace import SEALED_TEXT, traced
from tests.ledger.places import sign
from tests.ledger.samples import REGISTRY, Counted
from tests.servers import VERSIONS, running

JST = timedelta(hours=9)
START = datetime(2026, 11, 21, 0, 0, tzinfo=UTC)
PEOPLE = 20


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresDatabase]:
    with running(VERSIONS[-1]) as database:
        yield database


@dataclass
class Town:
    """A ledger of addressing that lives for an hour: a register, a copy of its projections, and a change."""

    folder: Path
    store: str
    open: LedgerFolder
    now: datetime = START
    then: str = ""
    position: int = 0

    async def live(self) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.open.ledger.run)
            await nursery.start(self.open.follower.run)
            for number in range(PEOPLE):
                await self._append(f"p{number}", 0, _registered(number, "a"))
            for number in range(0, PEOPLE, 2):
                await self._append(f"p{number}", 1, person.CodeSettled(f"p{number}", ""))
            self.position = self.open.ledger.position
            await self.open.follower.reach(self.position)
            self.then = (self.now + JST).replace(tzinfo=None).isoformat() + "+09:00"
            await trio.to_thread.run_sync(self._copy)
            for number in range(0, PEOPLE, 4):
                await self._append(f"p{number}", 2, _registered(number, "b"))
            for number in range(PEOPLE, PEOPLE + 5):
                await self._append(f"p{number}", 0, _registered(number, "a"))
            await self.open.follower.reach(self.open.ledger.position)
            nursery.cancel_scope.cancel()

    async def _append(self, name: str, seen: int, happened: object) -> None:
        self.now += timedelta(seconds=20)
        await self.open.ledger.append(Unit(f"{name}/{seen}", (Change(f"person/{name}", seen, (happened,)),)))

    def _copy(self) -> None:
        with (
            closing(sqlite3.connect(self.folder / PROJECTIONS)) as live,
            closing(sqlite3.connect(self.folder / "then.sqlite")) as copy,
        ):
            live.backup(copy)

    def then_and(self, other: Path) -> tuple[dict[str, str], dict[str, str]]:
        """The digests of the copy and of other tables."""
        return digests(self.folder / "then.sqlite"), digests(other)


def _registered(number: int, index: str) -> person.PersonRegistered:
    secret = ("12345678", "個人番号", "連携 太郎", "レンケイ", "1990-01-01", "1", "連携市")
    return person.PersonRegistered(f"p{number}", f"{index}{number}", *secret)


def digests(path: Path) -> dict[str, str]:
    with closing(ProjectionTables(path, person.PROJECTIONS)) as tables:
        return tables.digests()


@pytest.fixture(scope="module", params=["sqlite", VERSIONS[-1]])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Town:
    """Made once for each store; nobody may change anything in its folder."""
    folder, origin = tmp_path_factory.mktemp("made") / "town", f"renkei/{secrets.token_hex(6)}/addressing"
    open_store, store = None, "sqlite"
    if request.param != "sqlite":
        database: PostgresDatabase = request.getfixturevalue("database")
        database.migrate(origin)
        open_store, store = database.store, database.url
    opened = LedgerFolder(folder, origin, person.EVENTS, person.PROJECTIONS, lambda: living.now, open_store)
    living = Town(folder, store, opened)
    trio.run(living.live)
    opened.close()
    return living


@pytest.fixture
def town(made: Town, tmp_path: Path) -> Town:
    shutil.copytree(made.folder, tmp_path / "town")
    return replace(made, folder=tmp_path / "town")


def command(town: Town, *arguments: object) -> int:
    return main([*map(str, arguments), "--store", town.store])


# -- replay -------------------------------------------------------------------------------------------


def test_a_replay_to_a_moment_equals_the_copy_taken_then(town: Town, tmp_path: Path) -> None:
    for name, moment in (("time", town.then), ("position", town.position)):
        assert command(town, "replay", town.folder, "--into", tmp_path / name, "--to", moment) == 0
        then, restored = town.then_and(tmp_path / name / "town" / PROJECTIONS)
        assert restored == then
        assert restored != digests(town.folder / PROJECTIONS)
        with closing(sqlite3.connect(tmp_path / name / "town" / PROJECTIONS)) as rows:
            assert rows.execute("SELECT COUNT(*), SUM(settled) FROM acquisition").fetchone() == (
                PEOPLE,
                PEOPLE // 2,
            )


def test_moments_before_the_first_event_and_behind_the_last(
    town: Town, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, moment in (("before", START.isoformat()), ("zero", 0)):
        assert command(town, "replay", town.folder, "--into", tmp_path / name, "--to", moment) == 0
        assert "acquisition @0 " in capsys.readouterr().out
    assert (
        command(town, "replay", town.folder, "--into", tmp_path / "after", "--to", "2030-01-01T00:00Z") == 0
    )
    assert digests(tmp_path / "after" / "town" / PROJECTIONS) == digests(town.folder / PROJECTIONS)


def test_without_a_moment_it_is_compared_with_the_live_ones(
    town: Town, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(town, "audit", "verify", town.folder) == 0
    assert command(town, "replay", town.folder, "--into", tmp_path / "right") == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("OK      town acquisition @")
    with closing(sqlite3.connect(town.folder / PROJECTIONS)) as rows, rows:
        rows.execute("UPDATE acquisition SET settled = 1 WHERE person = 'p7'")
    assert command(town, "replay", town.folder, "--into", tmp_path / "wrong") == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("DIFFERS town acquisition @")
    assert "S-105" in printed.err


def test_an_interrupted_replay_goes_on_where_it_stopped(
    town: Town, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = projections_module.ProjectionTables._apply

    def stop_at_20(tables: ProjectionTables, batch: projections_module._Batch) -> bool:
        if batch.events[0].id > 20:
            raise KeyboardInterrupt
        return whole(tables, batch)

    arguments = ("replay", town.folder, "--into", tmp_path / "into", "--to", town.then)
    with monkeypatch.context() as patch:
        patch.setattr(projections_module, "BATCH", 10)
        patch.setattr(ProjectionTables, "_apply", stop_at_20)
        assert command(town, *arguments) == 130
    assert "続きから" in capsys.readouterr().out
    assert command(town, *arguments) == 0
    assert "@20 から" in capsys.readouterr().out
    then, restored = town.then_and(tmp_path / "into" / "town" / PROJECTIONS)
    assert restored == then
    # What is there already is not done again, and to go back in it is refused.
    assert command(town, *arguments) == 0
    assert command(town, *arguments[:-1], 5) == 1
    assert "S-136" in capsys.readouterr().err


def test_a_target_of_another_ledger_is_refused(
    town: Town, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    another = MemoryStore(sign)
    vault = Vault(tmp_path / "vault")
    for number in range(20):
        stored = REGISTRY.encode(f"s{number}", 1, Counted(1), f"m{number}", START.isoformat(), vault)
        another.append([StoredUnit(f"m{number}", {f"s{number}": 0}, (stored,))], START.isoformat())
    vault.close()
    target = tmp_path / "into" / "town" / PROJECTIONS
    with closing(ProjectionTables(target, person.PROJECTIONS)) as tables:
        tables.catch_up(another, REGISTRY)
    before = digests(target)
    assert command(town, "replay", town.folder, "--into", tmp_path / "into", "--to", town.then) == 1
    assert "S-105" in capsys.readouterr().err
    assert digests(target) == before


@pytest.mark.parametrize("moment", ["2026-11-21T09:30:00", "yesterday", "1000000", "-1"])
def test_a_moment_that_is_none_is_refused(
    town: Town, tmp_path: Path, capsys: pytest.CaptureFixture[str], moment: str
) -> None:
    assert command(town, "replay", town.folder, "--into", tmp_path / "into", f"--to={moment}") == 1
    assert "S-134" in capsys.readouterr().err


def test_a_position_belongs_to_one_ledger(
    demo_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(demo_copy), "--into", str(tmp_path / "a"), "--to", "20"]) == 1
    assert "S-135" in capsys.readouterr().err
    assert main(["replay", str(demo_copy / "990019"), "--into", str(tmp_path / "b"), "--to", "20"]) == 0
    # The ledger of addressing lies below that of the agency, and is not the one that is meant.
    restored = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("RESTORED")]
    assert {(name, position) for _, name, _, position, _ in restored} == {("990019", "@20")}


# -- diff ---------------------------------------------------------------------------------------------


class Moving:
    """Rows that are replaced, renamed, removed and put back."""

    name: ClassVar[str] = "moving"
    tables: ClassVar[Mapping[str, str]] = {
        "moved": "name TEXT PRIMARY KEY, amount INTEGER, raw BLOB",
        "plain": "amount INTEGER",
    }
    steps: ClassVar[Mapping[int, tuple[str, ...]]] = {
        1: ("INSERT INTO moved VALUES ('a', 1, NULL)", "INSERT INTO moved VALUES ('b', 1, x'00ff')"),
        2: ("INSERT INTO moved VALUES ('c', 1, NULL)", "INSERT INTO plain VALUES (1)"),
        3: ("INSERT OR REPLACE INTO moved VALUES ('a', 3, NULL)",),
        4: ("UPDATE moved SET name = 'd' WHERE name = 'b'",),
        5: ("DELETE FROM moved WHERE name = 'c'", "INSERT INTO moved VALUES ('e', 5, NULL)"),
        6: ("INSERT INTO moved VALUES ('c', 1, NULL)", "UPDATE moved SET amount = 6 WHERE name = 'a'"),
        7: ("DELETE FROM moved WHERE name = 'e'", "UPDATE plain SET amount = '1'"),
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        for step in self.steps[recorded.position]:
            rows.execute(step)


def test_what_changed_between_two_positions_and_by_which_events(tmp_path: Path) -> None:
    """Net: what was there again at the end is not told. A row under another key is another row."""
    store = MemoryStore(sign)
    vault = Vault(tmp_path / "vault")
    for number in range(1, 8):
        stored = REGISTRY.encode("s", number, Counted(1), f"m{number}", START.isoformat(), vault)
        store.append([StoredUnit(f"m{number}", {"s": number - 1}, (stored,))], START.isoformat())
    vault.close()
    columns, topic = ("name", "amount", "raw"), "sample.counted/1"
    assert [*changes(tmp_path / "work", store, REGISTRY, [Moving()], 2, 7)] == [
        RowChange(
            "moved", columns, ("'a'",), ("'a'", "1", "NULL"), ("'a'", "6", "NULL"), ((3, topic), (6, topic))
        ),
        RowChange("moved", columns, ("'b'",), ("'b'", "1", "X'00FF'"), None, ((4, topic),)),
        RowChange("moved", columns, ("'d'",), None, ("'d'", "1", "X'00FF'"), ((4, topic),)),
    ]
    assert [*changes(tmp_path / "none", store, REGISTRY, [Moving()], 7, 7)] == []
    assert len([*changes(tmp_path / "all", store, REGISTRY, [Moving()], 0, 7)]) == 4


def test_a_diff_is_printed_row_by_row(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    end = town.position + PEOPLE // 4 + 5
    for until in (str(end), "2030-01-01T00:00:00Z"):
        assert command(town, "audit", "diff", town.folder, "--from", town.then, "--to", until) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"town @{town.position} → @{end}"
        assert len([line for line in lines if line.startswith("  + acquisition ['p2")]) == 5
        assert (
            "  ~ acquisition ['p8'] number_index: 'a8' → 'b8', settled: 1 → 0, position: 9 → 33  "
            "(@33 person.registered/1)"
        ) in lines
        # Five came: in four tables. Five got other numbers: changed in two, and waiting in the queue.
        assert lines[-1] == "  追加 25 変更 10 削除 0 (added, changed, removed)"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--from", "0", "--to", "5", "--projection", "nothing"), "S-137"),
        (("--from", "5", "--to", "4"), "S-134"),
        (("--from", "then", "--to", "4"), "S-134"),
    ],
)
def test_a_diff_that_is_none_is_refused(
    town: Town, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: str
) -> None:
    assert command(town, "audit", "diff", town.folder, *arguments) == 1
    assert code in capsys.readouterr().err


# -- trace --------------------------------------------------------------------------------------------


def test_the_life_of_a_message_is_found_across_ledgers(
    demo_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the number that the network gave: in both cities and the network, from the request to the answer."""
    with closing(sqlite3.connect(demo_copy / "990019" / "events.sqlite")) as rows:
        query = "SELECT state FROM stored_events WHERE topic LIKE 'inquiry.answered/%' ORDER BY rowid LIMIT 1"
        (state,) = rows.execute(query).fetchone()
    number = msgpack.unpackb(state)[2]["processing_number"]
    with evidence(demo_copy, "sqlite") as found:
        events = traced(number, found)
    assert [event.at for event in events] == sorted(event.at for event in events)
    assert {event.ledger for event in events} == {"renkei/990019", "renkei/990027", "renkei/network"}
    topics = [event.topic.rpartition("/")[0] for event in events]
    for earlier, later in (
        ("inquiry.requested", "exchange.permitted"),
        ("exchange.permitted", "provision.requested"),
        ("provision.requested", "exchange.answered"),
        ("exchange.answered", "inquiry.answered"),
    ):
        assert topics.index(earlier) < topics.index(later)
    # The request was made before the network gave the number: it is there as it shares the stream.
    requested = events[topics.index("inquiry.requested")]
    assert not requested.named
    assert requested.fields["subjects"] == SEALED_TEXT
    assert events[topics.index("inquiry.answered")].named
    assert main(["audit", "trace", number, str(demo_copy)]) == 0
    printed = capsys.readouterr().out
    assert f"{number}: {len(events)} 件" in printed
    assert SEALED_TEXT in printed
    assert "+09:00" in printed


def test_a_trace_by_stream_and_message_id(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    with evidence(town.folder, town.store) as found:
        by_stream = traced("person/p8", found)
        by_message = traced("p8/1", found)
    assert [event.position for event in by_stream] == [9, PEOPLE + 5, 33]
    assert [event.named for event in by_stream] == [True] * 3
    assert [(event.position, event.named) for event in by_message] == [
        (9, False),
        (PEOPLE + 5, True),
        (33, False),
    ]
    assert by_stream[0].fields["name"] == SEALED_TEXT
    assert command(town, "audit", "trace", "連携 太郎", town.folder) == 1
    assert "S-138" in capsys.readouterr().err


# -- status and rebuild -------------------------------------------------------------------------------


def test_a_folder_without_events_is_said_to_be_one(
    tmp_path: Path, demo_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ledger").mkdir()
    shutil.copy(demo_copy / "network" / VERIFIER_KEY, tmp_path / "ledger" / VERIFIER_KEY)
    for arguments in (["replay", "--into", str(tmp_path / "into"), "--to", "1"], ["audit", "trace", "x"]):
        assert main([*arguments, str(tmp_path / "ledger")]) == 1
        assert "S-104" in capsys.readouterr().err
    assert main(["audit", "verify", str(tmp_path / "ledger")]) == 1
    assert not (tmp_path / "ledger" / "events.sqlite").exists()
