"""The ledger under trio: group commit, and the truth for each unit whatever happens to writer or store."""

import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from broker.ledger.events import SEALED, event
from broker.ledger.ledger import (
    FEW,
    MAX_BYTES,
    MAX_EVENTS,
    SHORT,
    Change,
    Ledger,
    NotStored,
    StreamMoved,
    Unit,
)
from broker.ledger.ledger import OutcomeUnknown as Unknown
from broker.ledger.postgres import PostgresStore
from broker.ledger.sqlite import SQLiteStore
from broker.ledger.store import MemoryStore, Outcome
from broker.ledger.vault import Vault
from broker.ledger.verify import verify_file
from tests.ledger.places import SIGNER, Place, open_sqlite, sign
from tests.ledger.processes import SHARED, WRITERS, events_of, start, tell, told
from tests.ledger.samples import REGISTRY, Counted, Known, Noted, clock


@dataclass(frozen=True)
@event("sample.foreign", retention="sample")
class Foreign:
    """An event type that is not in the registry."""


@pytest.fixture
def ledger(place: Place, vault: Vault) -> Ledger:
    return Ledger("test", place.store, REGISTRY, vault, clock)


@pytest.fixture
def on_file(sqlite_place: Place, vault: Vault) -> Ledger:
    return Ledger("test", sqlite_place.store, REGISTRY, vault, clock)


def one(name: str, *events: Any, seen: int = 0) -> Unit:
    """A unit of one stream, both of this name."""
    return Unit(name, (Change(name, seen, events or (Counted(1),)),))


def commits(ledger: Ledger) -> list[int]:
    """How many events each commit stored: every commit makes one checkpoint."""
    sizes = [0, *(head.size for head in ledger.store.checkpoints())]
    return [after - before for before, after in pairwise(sizes)]


class Results:
    """What became of units that were appended at the same time, by message id."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.of: dict[str, Outcome | Exception] = {}

    async def append(self, unit: Unit) -> None:
        try:
            self.of[unit.message_id] = await self._ledger.append(unit)
        except (StreamMoved, NotStored, Unknown) as error:
            self.of[unit.message_id] = error

    async def append_all(self, *units: Unit) -> dict[str, Outcome | Exception]:
        async with trio.open_nursery() as nursery:
            for each in units:
                nursery.start_soon(self.append, each)
        return self.of


class Meanwhile:
    """Signs checkpoints, and once does something first: in the writer's thread, inside its transaction."""

    def __init__(self, ledger: Ledger) -> None:
        assert isinstance(ledger.store, MemoryStore | SQLiteStore | PostgresStore)
        ledger.store._sign = self
        self.do: Callable[[], object] = lambda: None

    def __call__(self, size: int, root: bytes) -> str:
        do, self.do = self.do, lambda: None
        do()
        return sign(size, root)


@pytest.fixture
def meanwhile(ledger: Ledger) -> Meanwhile:
    return Meanwhile(ledger)


async def test_what_is_appended_can_be_read_opened(ledger: Ledger, nursery: trio.Nursery) -> None:
    await nursery.start(ledger.run)
    outcome = await ledger.append(one("a", Noted("x", "秘密"), Counted(3)))
    assert outcome == Outcome(1, 2)
    (noted, counted) = await ledger.stream("a")
    assert (noted.position, noted.stream, noted.version, noted.message_id) == (1, "a", 1, "a")
    assert noted.at == "2026-11-21T00:30:00.000000+00:00"
    assert noted.event == Noted("x", "秘密")
    assert (counted.version, counted.event) == (2, Counted(3))
    assert await ledger.at([2, 1]) == [noted, counted]
    assert await ledger.stream("b") == []


async def test_writers_at_one_time_share_a_commit(ledger: Ledger, nursery: trio.Nursery) -> None:
    await nursery.start(ledger.run)
    results = await Results(ledger).append_all(*(one(f"m{i}") for i in range(64)))
    outcomes = [result for result in results.values() if isinstance(result, Outcome)]
    assert sorted(outcome.first for outcome in outcomes) == list(range(1, 65))
    assert len(commits(ledger)) <= 2


async def test_what_arrives_during_a_commit_goes_into_the_next(
    ledger: Ledger, meanwhile: Meanwhile, nursery: trio.Nursery
) -> None:
    await nursery.start(ledger.run)
    results = Results(ledger)

    def arrive() -> None:
        for i in range(10):
            trio.from_thread.run_sync(nursery.start_soon, results.append, one(f"late{i}"))
        trio.from_thread.run(wait_all_tasks_blocked)

    meanwhile.do = arrive
    await ledger.append(one("first"))
    await ledger.append(one("last"))
    await wait_all_tasks_blocked()
    assert len(results.of) == 10
    assert commits(ledger) in ([1, 10, 1], [1, 11])


async def test_a_commit_is_bounded_in_events(ledger: Ledger, nursery: trio.Nursery) -> None:
    await nursery.start(ledger.run)
    each = tuple(Counted(i) for i in range(MAX_EVENTS * 2 // 5))
    results = await Results(ledger).append_all(*(one(f"m{i}", *each) for i in range(7)))
    assert all(isinstance(result, Outcome) for result in results.values())
    assert commits(ledger) == [len(each) * 3, len(each) * 3, len(each)]


async def test_a_commit_is_bounded_in_bytes(ledger: Ledger, nursery: trio.Nursery) -> None:
    await nursery.start(ledger.run)
    large, huge = Noted("x" * (MAX_BYTES * 2 // 5), "y"), Noted("x" * (MAX_BYTES * 2), "y")
    units = [one(f"m{i}", large) for i in range(5)] + [one("huge", huge), one("small")]
    results = await Results(ledger).append_all(*units)
    assert all(isinstance(result, Outcome) for result in results.values())
    weights = [len(stored.state) for stored in ledger.store.events(0, 10)]
    for size in commits(ledger):
        together, weights = weights[:size], weights[size:]
        assert size == 1 or sum(together) <= MAX_BYTES
    assert len(commits(ledger)) <= 5


async def test_of_two_that_saw_the_same_one_has_to_decide_again(
    ledger: Ledger, nursery: trio.Nursery
) -> None:
    await nursery.start(ledger.run)
    await ledger.append(one("s"))
    racing = [Unit(name, (Change("s", 1, (Noted(name, name),)),)) for name in ("a", "b")]
    results = await Results(ledger).append_all(*racing)
    (winner,) = (name for name, result in results.items() if isinstance(result, Outcome))
    (loser,) = {"a", "b"} - {winner}
    moved = results[loser]
    assert isinstance(moved, StreamMoved)
    assert (moved.conflict.stream, moved.conflict.expected, moved.conflict.actual) == ("s", 1, 2)
    again = await ledger.append(Unit(loser, (Change("s", 2, (Noted(loser, loser),)),)))
    assert again == Outcome(3, 3)
    assert [each.event.label for each in (await ledger.stream("s"))[1:]] == [winner, loser]


async def test_a_stream_that_a_decision_rested_on_must_stand(ledger: Ledger, nursery: trio.Nursery) -> None:
    await nursery.start(ledger.run)
    await ledger.append(one("authority"))
    guarded = Unit("m", (Change("s", 0, (Counted(1),)), Change("authority", 0)))
    with pytest.raises(StreamMoved, match="authority at 1, expected 0"):
        await ledger.append(guarded)
    assert await ledger.stream("s") == []


async def test_the_same_message_id_again(ledger: Ledger, nursery: trio.Nursery) -> None:
    await nursery.start(ledger.run)
    first = await ledger.append(one("m", Noted("x", "y")))
    again = await ledger.append(one("m", Noted("x", "y")))
    assert again == Outcome(first.first, first.last, repeated=True)
    assert len(await ledger.stream("m")) == 1


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Foreign(), "KeyError"),
        ("no event at all", "AttributeError"),
        (Noted("x", secret={1, 2}), "TypeError"),  # type: ignore[arg-type] # what a careless caller passes
        (Counted(1 << 64), "OverflowError"),
        (Noted("\ud800", "lone surrogate"), "UnicodeEncodeError"),
    ],
)
async def test_a_unit_that_cannot_be_written_down_fails_alone(
    ledger: Ledger, nursery: trio.Nursery, bad: Any, reason: str
) -> None:
    await nursery.start(ledger.run)
    results = await Results(ledger).append_all(
        one("a", Known("P", "p")), one("bad", Counted(1), bad), one("b", Noted("x", "y")), one("c")
    )
    refused = results.pop("bad")
    assert isinstance(refused, NotStored)
    assert str(refused) == f"{reason} while sealing"
    assert refused.__cause__ is not None
    assert sorted(r.first for r in results.values() if isinstance(r, Outcome)) == [1, 2, 3]
    assert await ledger.stream("bad") == []
    assert len(commits(ledger)) == 1


def test_what_no_unit_can_be() -> None:
    with pytest.raises(ValueError, match="one stream twice"):
        Unit("m", (Change("s", 0, (Counted(1),)), Change("s", 0, (Counted(2),))))
    for message_id, stream in (("\ud800", "s"), ("m", "\ud800")):
        with pytest.raises(UnicodeEncodeError):
            Unit(message_id, (Change(stream, 0),))


async def test_a_vault_that_cannot_make_keys(on_file: Ledger, nursery: trio.Nursery, tmp_path: Path) -> None:
    """Nothing may be stored under a key that is not durable; what needs no key is stored."""
    await nursery.start(on_file.run)
    on_file.vault._rows.execute("PRAGMA busy_timeout=1")
    with closing(sqlite3.connect(tmp_path / "vault" / "vault.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        results = await Results(on_file).append_all(one("a", Known("P", "p")), one("b", Noted("x", "y")))
        assert {str(result) for result in results.values()} == {"OperationalError while sealing"}
        assert results["a"] is not results["b"]
        assert await on_file.append(one("c")) == Outcome(1, 1)
        other.execute("ROLLBACK")
    assert await on_file.append(one("a", Known("P", "p"))) == Outcome(2, 2)
    assert (await on_file.at([2]))[0].event == Known("P", "p")


async def test_a_commit_that_has_begun_is_finished(
    ledger: Ledger, meanwhile: Meanwhile, nursery: trio.Nursery
) -> None:
    """Cancelled in the middle of a commit, the writer tells each unit the truth: stored, or never begun."""
    results = Results(ledger)

    running = trio.CancelScope()

    async def writer(*, task_status: trio.TaskStatus[None]) -> None:
        with running:
            await ledger.run(task_status=task_status)

    await nursery.start(writer)

    def cancel() -> None:
        trio.from_thread.run_sync(nursery.start_soon, results.append, one("late"))
        trio.from_thread.run(wait_all_tasks_blocked)
        trio.from_thread.run_sync(running.cancel)

    meanwhile.do = cancel
    begun = Results(ledger)
    await begun.append_all(one("a"), one("b"))
    assert {begun.of["a"], begun.of["b"]} == {Outcome(1, 1), Outcome(2, 2)}
    await wait_all_tasks_blocked()
    assert running.cancelled_caught
    assert isinstance(results.of["late"], NotStored)
    with pytest.raises(NotStored, match="the writer has stopped"):
        await ledger.append(one("later"))
    assert ledger.store.head().size == 2


async def test_a_writer_cancelled_at_any_moment_knows_what_it_did(place: Place, vault: Vault) -> None:
    """Also between taking a unit and beginning its commit: which comes first, trio decides by lot."""
    kinds: set[type] = set()
    for number in range(40):
        ledger = Ledger("test", place.store, REGISTRY, vault, clock)
        results = Results(ledger)
        name = f"m{number}"
        async with trio.open_nursery() as outer, trio.open_nursery() as inner:
            await inner.start(ledger.run)
            outer.start_soon(results.append, one(name))
            outer.start_soon(_cancel, inner.cancel_scope)
        result = results.of[name]
        assert not isinstance(result, Unknown)
        assert (name in place.store.outcomes([name])) == isinstance(result, Outcome)
        kinds.add(type(result))
    assert kinds == {Outcome, NotStored}


async def _cancel(scope: trio.CancelScope) -> None:
    scope.cancel()


async def test_waiting_for_the_ledger_to_grow(on_file: Ledger, nursery: trio.Nursery, tmp_path: Path) -> None:
    await nursery.start(on_file.run)
    reached: list[int] = []

    async def wait(position: int) -> None:
        reached.append(await on_file.wait_beyond(position, poll=3_600))

    async with trio.open_nursery() as waiting:
        waiting.start_soon(wait, 0)
        waiting.start_soon(wait, 1)
        await wait_all_tasks_blocked()
        await on_file.append(one("a"))
        await wait_all_tasks_blocked()
        assert reached == [1]
        await on_file.append(one("b"))
    assert reached == [1, 2]
    # Another process's append is found by asking.
    other = open_sqlite(tmp_path / "events.sqlite")
    other_ledger = Ledger("test", other, REGISTRY, on_file.vault, clock)
    await nursery.start(other_ledger.run)
    await other_ledger.append(one("c"))
    assert await on_file.wait_beyond(2, poll=0.001) == 3
    other.close()


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """A disk that is full: the operating system refuses to let any file of this process grow further."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk(on_file: Ledger, nursery: trio.Nursery, tmp_path: Path) -> None:
    await nursery.start(on_file.run)
    await on_file.append(one("a"))
    unit = one("m", Noted("x" * 2_000_000, "y"))
    with files_no_larger_than(400_000):
        with pytest.raises(NotStored, match="OperationalError"):
            await on_file.append(unit)
        assert await on_file.append(one("b")) == Outcome(2, 2)
    assert await on_file.append(unit) == Outcome(3, 3)
    assert await on_file.append(unit) == Outcome(3, 3, repeated=True)
    assert verify_file(tmp_path / "events.sqlite", SIGNER.verifier_key).ok


async def test_a_store_locked_by_another(on_file: Ledger, nursery: trio.Nursery, tmp_path: Path) -> None:
    assert isinstance(on_file.store, SQLiteStore)
    with on_file.store.datastore.get_connection(commit=True) as connection:
        connection.cursor().execute("PRAGMA busy_timeout=1")
    await nursery.start(on_file.run)
    await on_file.append(one("before"))
    with closing(sqlite3.connect(tmp_path / "events.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        results = await Results(on_file).append_all(one("a"), one("b"), one("before"))
        other.execute("ROLLBACK")
    for name in ("a", "b"):
        assert isinstance(results[name], NotStored)
        assert "locked" in str(results[name])
    # This one had been stored earlier, and the store can still be read: its outcome is known.
    assert results["before"] == Outcome(1, 1)
    assert [await on_file.append(one(name)) for name in ("a", "b")] == [Outcome(2, 2), Outcome(3, 3)]


async def test_a_store_that_cannot_be_read_either(
    on_file: Ledger, nursery: trio.Nursery, tmp_path: Path
) -> None:
    """Neither a yes nor a no: the caller is told so, and asks again later under the same message id."""
    await nursery.start(on_file.run)
    await on_file.append(one("a"))
    with closing(sqlite3.connect(tmp_path / "events.sqlite", isolation_level=None)) as other:
        other.execute("ALTER TABLE unit RENAME TO hidden")
        results = await Results(on_file).append_all(one("b"), one("c"))
        assert all(isinstance(result, Unknown) for result in results.values())
        assert results["b"] is not results["c"]
        other.execute("ALTER TABLE hidden RENAME TO unit")
    assert await on_file.append(one("b")) == Outcome(2, 2)


async def test_a_writer_that_breaks_leaves_nobody_waiting(on_file: Ledger) -> None:
    """A fault nobody foresaw stops the ledger; the units of that commit hear that nothing is known."""

    def fail() -> None:
        raise ArithmeticError("no signature today")

    Meanwhile(on_file).do = fail
    results = Results(on_file)
    with pytest.RaisesGroup(ArithmeticError):
        async with trio.open_nursery() as nursery:
            await nursery.start(on_file.run)
            with trio.CancelScope(shield=True):
                await results.append_all(one("a"), one("b"))
    assert [type(result) for result in results.of.values()] == [Unknown, Unknown]
    assert on_file.store.outcomes(["a", "b"]) == {}


def test_after_a_kill_all_that_was_acknowledged_is_there(tmp_path: Path) -> None:
    acknowledged: dict[str, Outcome] = {}
    with start("append", tmp_path, "w") as process:
        assert told(process) == "ready"
        tell(process, "\n" * 10_000)
        while line := told(process):
            message_id, first, last = line.split()
            acknowledged[message_id] = Outcome(int(first), int(last))
            if len(acknowledged) == 100:
                process.kill()
    assert process.returncode == -9
    assert 100 <= len(acknowledged) < 10_000 * WRITERS

    store = open_sqlite(tmp_path / "events.sqlite")
    vault = Vault(tmp_path / "vault")
    ledger = Ledger("test", store, REGISTRY, vault, clock)
    assert verify_file(tmp_path / "events.sqlite", SIGNER.verifier_key).ok
    assert store.outcomes(list(acknowledged)) == acknowledged
    before = store.head()

    async def repeat() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(ledger.run)
            for message_id, outcome in acknowledged.items():
                stream, number = message_id.rsplit("-", 1)
                events = events_of(stream, int(number))
                assert [each.event for each in await ledger.at([outcome.first, outcome.first + 1])] == [
                    *events
                ]
                change = Change(stream, int(number) * len(events), events)
                again = await ledger.append(Unit(message_id, (change, Change(SHARED, 0, (Counted(1),)))))
                assert again == Outcome(outcome.first, outcome.last, repeated=True)
            nursery.cancel_scope.cancel()

    trio.run(repeat)
    assert store.head() == before
    store.close()
    vault.close()


async def test_what_is_read_is_the_same_however_much_it_is(ledger: Ledger, nursery: trio.Nursery) -> None:
    """A short look is made at once and a long one in a thread; outlines leave closed what is sealed."""
    await nursery.start(ledger.run)
    many = [f"s{number:02d}" for number in range(FEW + 1)]
    for name in many:
        await ledger.append(one(name, Noted(name, "秘密" * (SHORT if name == "s00" else 1))))
    for names in (many[1:3], many[:1], many):
        found = await ledger.streams(names)
        assert {name: [r.event.label for r in recorded] for name, recorded in found.items()} == {
            name: [name] for name in names
        }
        assert all(r.event.secret.startswith("秘密") for recorded in found.values() for r in recorded)
        outlined = await ledger.outlines(names)
        assert [r.event for recorded in outlined.values() for r in recorded] == [
            Noted(name, SEALED) for name in names
        ]
    assert len((await ledger.stream("s00"))[0].event.secret) == 2 * SHORT
    assert await ledger.streams([]) == await ledger.outlines([]) == {}
    assert await ledger.at([]) == []


async def test_who_waits_for_events_of_a_type_is_woken_by_these_alone(
    ledger: Ledger, nursery: trio.Nursery
) -> None:
    await nursery.start(ledger.run)
    woken: list[int] = []

    async def wait() -> None:
        woken.append(await ledger.wait_beyond(1, of=(Noted, Known), poll=3_600))

    await ledger.append(one("a", Noted("x", "y")))
    nursery.start_soon(wait)
    await ledger.append(one("b"))
    await ledger.append(one("a", Noted("x", "y")))  # repeated: it is the first one still
    await wait_all_tasks_blocked()
    assert woken == []
    await ledger.append(one("c", Counted(1), Noted("x", "y")))
    await wait_all_tasks_blocked()
    assert woken == [4]
    assert await ledger.wait_beyond(2, of=(Noted,)) == 4


async def test_what_another_process_appends_may_be_of_any_type(
    sqlite_place: Place, vault: Vault, nursery: trio.Nursery
) -> None:
    """Seen by polling, and also where an append of one's own came after it and hides it from the position."""
    ledger, other = (Ledger("test", sqlite_place.store, REGISTRY, vault, clock) for _ in range(2))
    await nursery.start(ledger.run)
    await nursery.start(other.run)
    await other.append(one("theirs"))
    assert await ledger.wait_beyond(0, of=(Noted,), poll=0.01) == 1
    await other.append(one("theirs too"))
    await ledger.append(one("ours"))
    assert await ledger.wait_beyond(1, of=(Noted,), poll=3_600) == 3
    with trio.move_on_after(0.1) as scope:
        await ledger.wait_beyond(2, of=(Noted,), poll=0.01)
    assert scope.cancelled_caught
