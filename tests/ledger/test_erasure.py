"""Destroying a key takes two persons, leaves a record of each step, and is finished after any crash."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.ledger import erasure
from broker.ledger.erasure import ASKED, DESTROYED, NONE, State, evolve
from broker.ledger.events import Destroyed, DestructionAsked, DestructionConfirmed, key_of
from broker.ledger.folder import EVENTS, VERIFIER_KEY, LedgerFolder
from broker.ledger.ledger import Change, Ledger, NotStored, Unit
from broker.ledger.vault import Erased, KeyState
from broker.ledger.verify import verify_file
from schemas.errors import Refused
from tests.ledger.dying import FIRST, KEY, REQUEST, RULE, SECOND, died
from tests.ledger.samples import Counted, Known, Noted, Totals, clock

SECRET = "秘密の値 86753091"  # noqa: S105 # what is sealed
LATER = datetime(2033, 12, 1, 0, 30, tzinfo=UTC)
STEPS = [DestructionAsked, DestructionConfirmed, Destroyed]


def open_folder(folder: Path, at: Callable[[], datetime] = clock) -> LedgerFolder:
    return LedgerFolder(folder, "test/erasure", (Noted, Counted, Known), [Totals()], at)


@asynccontextmanager
async def running(folder: LedgerFolder) -> AsyncIterator[Ledger]:
    async with trio.open_nursery() as nursery:
        await nursery.start(folder.ledger.run)
        yield folder.ledger
        nursery.cancel_scope.cancel()


async def write(ledger: Ledger, stream: str, *events: Any) -> None:
    seen = len(await ledger.stream(stream))
    await ledger.append(Unit(f"{stream}-{seen}", (Change(stream, seen, events),)))


async def kinds(ledger: Ledger, key: str = KEY) -> list[type]:
    return [type(r.event) for r in await ledger.stream(erasure.stream(key))]


def wrapped(folder: Path, key: str = KEY) -> bytes:
    with closing(sqlite3.connect(folder / "vault" / "vault.sqlite")) as rows:
        found: bytes = rows.execute("SELECT wrapped FROM key WHERE id = ?", (key,)).fetchone()[0]
        return found


def holds(folder: Path, needle: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and needle in path.read_bytes()]


async def refused(code: str, call: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(Refused) as caught:
        await call(*arguments)
    assert caught.value.refusal.code == code
    return caught.value.refusal.detail


async def test_two_persons_destroy_a_key_and_each_step_is_an_event(tmp_path: Path) -> None:
    with closing(open_folder(tmp_path)) as folder:
        async with running(folder) as ledger:
            await write(ledger, "s", Noted("x", SECRET), Counted(3))
            await write(ledger, "other", Known("P1", SECRET))
            raw = wrapped(tmp_path)
            assert await erasure.ask(ledger, KEY, RULE, FIRST, REQUEST) == REQUEST
            assert await kinds(ledger) == STEPS[:1]
            assert (await ledger.stream("s"))[0].event == Noted("x", SECRET)
            erased = await erasure.confirm(ledger, KEY, REQUEST, SECOND, lambda: LATER)
            assert erased == Erased(RULE, "2033-12-01T00:30:00.000000+00:00")
            assert [r.event for r in await ledger.stream(erasure.stream(KEY))] == [
                DestructionAsked(KEY, REQUEST, RULE, FIRST),
                DestructionConfirmed(KEY, REQUEST, SECOND),
                Destroyed(KEY, REQUEST, RULE, erased.at),
            ]
            noted, counted = await ledger.stream("s")
            assert noted.event.label == "x"
            assert noted.event.secret is noted.erased
            assert noted.erased == erased
            assert (counted.event, counted.erased) == (Counted(3), None)
            assert (await ledger.at([1, 2])) == [noted, counted]
            assert (await ledger.stream("other"))[0].event == Known("P1", SECRET)
    assert holds(tmp_path, raw) == []
    assert verify_file(tmp_path / EVENTS, (tmp_path / VERIFIER_KEY).read_text()).ok


async def test_the_person_who_asked_cannot_confirm(tmp_path: Path) -> None:
    with closing(open_folder(tmp_path)) as folder:
        async with running(folder) as ledger:
            await write(ledger, "s", Noted("x", SECRET))
            await erasure.ask(ledger, KEY, RULE, FIRST, REQUEST)
            for same in (FIRST, f" {FIRST.upper()} ", "ｏｐｅｒａｔｏｒ－ａ"):
                await refused("S-112", erasure.confirm, ledger, KEY, REQUEST, same, clock)
            assert await kinds(ledger) == STEPS[:1]
            assert (await ledger.stream("s"))[0].event == Noted("x", SECRET)


async def test_a_confirmation_is_for_one_request_of_one_key(tmp_path: Path) -> None:
    with closing(open_folder(tmp_path)) as folder:
        async with running(folder) as ledger:
            await write(ledger, "s", Noted("x", SECRET), Known("P1", SECRET))
            await refused("S-113", erasure.confirm, ledger, KEY, REQUEST, SECOND, clock)
            await erasure.ask(ledger, KEY, RULE, FIRST, REQUEST)
            await refused("S-113", erasure.confirm, ledger, KEY, "another", SECOND, clock)
            await refused("S-113", erasure.confirm, ledger, "person/P1", REQUEST, SECOND, clock)
            await refused("S-110", erasure.ask, ledger, "sample/1999-01", RULE, FIRST, "r")
            await refused("S-110", erasure.ask, ledger, "secret/log", RULE, FIRST, "r")
            assert [r.event for r in await ledger.stream("s")] == [Noted("x", SECRET), Known("P1", SECRET)]
            assert await kinds(ledger, "sample/1999-01") == []


async def test_a_request_stands_once(tmp_path: Path) -> None:
    with closing(open_folder(tmp_path)) as folder:
        async with running(folder) as ledger:
            await write(ledger, "s", Noted("x", SECRET))
            assert await erasure.ask(ledger, KEY, RULE, FIRST, REQUEST) == REQUEST
            assert await erasure.ask(ledger, KEY, RULE, FIRST, "another") == REQUEST
            assert await refused("S-111", erasure.ask, ledger, KEY, "rule", FIRST, "another") == REQUEST
            assert await refused("S-111", erasure.ask, ledger, KEY, RULE, SECOND, "another") == REQUEST
            assert await kinds(ledger) == STEPS[:1]


async def test_what_comes_after_the_request_is_sealed_by_the_next_generation(tmp_path: Path) -> None:
    with closing(open_folder(tmp_path)) as folder:
        async with running(folder) as ledger:
            await write(ledger, "s", Noted("x", "1"), Known("P1", "1"))
            for number, key in enumerate((KEY, f"{KEY}~2", "person/P1", "person/P1~2")):
                await erasure.ask(ledger, key, RULE, FIRST, f"r{number}")
                await write(ledger, "s", Noted("x", "2"), Known("P1", "2"))
                await erasure.confirm(ledger, key, f"r{number}", SECOND, clock)
                await write(ledger, "s", Noted("x", "3"), Known("P1", "3"))
            recorded = await ledger.stream("s")
            assert [key_of(stored.state) for stored in folder.ledger.store.stream("s")] == [
                *(KEY, "person/P1"),
                *(f"{KEY}~2", "person/P1") * 2,
                *(f"{KEY}~3", "person/P1") * 2,
                *(f"{KEY}~3", "person/P1~2") * 2,
                *(f"{KEY}~3", "person/P1~3") * 2,
            ]
            assert [r.erased is None for r in recorded] == [False, False] * 3 + [True, False] * 4 + [True] * 4
            at = clock().isoformat(timespec="microseconds")
            assert folder.vault.states() == [
                *(KeyState(key, RULE, at) for key in ("person/P1", "person/P1~2")),
                KeyState("person/P1~3", "", ""),
                *(KeyState(key, RULE, at) for key in (KEY, f"{KEY}~2")),
                KeyState(f"{KEY}~3", "", ""),
            ]


async def test_a_person_s_mark_cannot_pass_for_a_generation(tmp_path: Path) -> None:
    """The unit is refused alone, whatever is in the batch with it."""
    with closing(open_folder(tmp_path)) as folder:
        async with running(folder) as ledger, trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(write, ledger, f"s{number}", Known(f"P{number}", SECRET))
            with pytest.raises(NotStored, match="ValueError"):
                await write(ledger, "s", Known("P1~2", SECRET))
        assert [stored.id for stored in folder.ledger.store.events(0, 10)] == [1, 2, 3]
        assert {state.id for state in folder.vault.states()} == {"person/P0", "person/P1", "person/P2"}


async def test_a_ledger_that_runs_elsewhere_neither_opens_nor_uses_a_destroyed_key(tmp_path: Path) -> None:
    with closing(open_folder(tmp_path)) as daemon, closing(open_folder(tmp_path)) as command:
        async with running(daemon) as ledger, running(command) as elsewhere:
            await write(ledger, "s", Noted("x", SECRET))
            assert (await ledger.stream("s"))[0].event == Noted("x", SECRET)
            await erasure.ask(elsewhere, KEY, RULE, FIRST, REQUEST)
            await write(ledger, "s", Noted("y", SECRET))
            await erasure.confirm(elsewhere, KEY, REQUEST, SECOND, clock)
            first, second = await ledger.stream("s")
            assert first.erased is not None
            assert second.event == Noted("y", SECRET)


async def test_two_who_ask_at_once_get_one_request(tmp_path: Path) -> None:
    answers: list[str] = []
    with closing(open_folder(tmp_path)) as one, closing(open_folder(tmp_path)) as two:
        async with running(one) as first, running(two) as second:
            await write(first, "s", Noted("x", SECRET))

            async def ask(ledger: Ledger, request: str) -> None:
                answers.append(await erasure.ask(ledger, KEY, RULE, FIRST, request))

            async with trio.open_nursery() as nursery:
                for number, ledger in enumerate((first, second) * 3):
                    nursery.start_soon(ask, ledger, f"r{number}")
            assert len(set(answers)) == 1
            assert await kinds(first) == STEPS[:1]


async def test_replay_needs_no_key_and_is_the_same_as_before(tmp_path: Path) -> None:
    with closing(open_folder(tmp_path)) as folder:
        async with running(folder) as ledger:
            await write(ledger, "s", Noted("x", SECRET), Counted(3))
            await erasure.ask(ledger, KEY, RULE, FIRST, REQUEST)
            await erasure.confirm(ledger, KEY, REQUEST, SECOND, clock)
            folder.tables.catch_up(ledger.store, ledger.registry)
            assert folder.tables.query("SELECT * FROM label") == [("x", 1)]


def test_a_step_that_cannot_follow_is_a_miss() -> None:
    asked = DestructionAsked(KEY, REQUEST, RULE, FIRST)
    assert evolve(State(), asked) == State(ASKED, asked)
    for state, happened in (
        (State(), DestructionConfirmed(KEY, REQUEST, SECOND)),
        (State(ASKED, asked), Destroyed(KEY, REQUEST, RULE, "")),
        (State(DESTROYED, asked), asked),
    ):
        with pytest.raises(KeyError):
            evolve(state, happened)


# -- crashes ------------------------------------------------------------------------------------------

APPEND = "broker.ledger.sqlite:SQLiteStore.append"
CRASHES = [
    ("ask", APPEND, 1),
    ("ask", "broker.ledger.vault:Vault.retire", 1),
    ("ask", "INSERT INTO closed", 1),
    ("ask", "COMMIT", 1),
    ("confirm", APPEND, 1),
    ("confirm", "broker.ledger.vault:Vault.destroy", 1),
    ("confirm", "DELETE FROM key", 1),
    ("confirm", "UPDATE closed", 1),
    ("confirm", "COMMIT", 2),
    ("confirm", "VACUUM", 1),
    ("confirm", APPEND, 2),
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("work", "step", "number"), CRASHES)
async def test_a_destruction_that_is_killed_is_finished_by_repeating_it(
    tmp_path: Path, work: str, step: str, number: int, when: str
) -> None:
    with closing(open_folder(tmp_path)) as folder:
        async with running(folder) as ledger:
            await write(ledger, "s", Noted("x", SECRET))
            await write(ledger, "other", Known("P1", SECRET))
            if work == "confirm":
                await erasure.ask(ledger, KEY, RULE, FIRST, REQUEST)
    raw = wrapped(tmp_path)
    assert await trio.to_thread.run_sync(died, work, tmp_path, step, when, number)
    with closing(open_folder(tmp_path)) as folder:
        async with running(folder) as ledger:
            before = await kinds(ledger)
            gone = (await ledger.stream("s"))[0].erased is not None
            if work == "ask":
                assert before == STEPS[: len(before)]
                assert not gone
            else:
                assert before[0] is DestructionAsked
                # The record of the confirmation comes before the deed, that of the deed after it.
                assert not gone or DestructionConfirmed in before
                assert gone or Destroyed not in before
            # Nobody but a second person finishes it.
            await refused("S-112" if before else "S-113", erasure.confirm, ledger, KEY, REQUEST, FIRST, clock)
            if work == "ask":
                assert await erasure.ask(ledger, KEY, RULE, FIRST, REQUEST) == REQUEST
            for _ in range(2):
                erased = await erasure.confirm(ledger, KEY, REQUEST, SECOND, lambda: LATER)
            assert await kinds(ledger) == STEPS
            assert (await ledger.stream("s"))[0].erased == erased
            assert (await ledger.stream("other"))[0].event == Known("P1", SECRET)
            assert (await erasure.state_of(ledger, KEY)).step == DESTROYED != NONE
            await write(ledger, "s", Noted("y", SECRET))
            assert (await ledger.stream("s"))[1].event == Noted("y", SECRET)
    assert holds(tmp_path, raw) == []
    assert {path.name for path in (tmp_path / "vault").iterdir()} == {"kek", "vault.sqlite"}
    assert verify_file(tmp_path / EVENTS, (tmp_path / VERIFIER_KEY).read_text()).ok
