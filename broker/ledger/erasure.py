"""The destruction of a key, and with it of all that it sealed: two persons, and a record of each step.

Each key has a stream. A first person asks, a second one confirms; then the key is removed from the vault, and
that is recorded, too. The record comes before the deed: a crash leaves a confirmed request, and confirming
it again carries it out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import normalize

import trio

from broker.ledger.events import Destroyed, DestructionAsked, DestructionConfirmed, Recorded
from broker.ledger.ledger import Change, Clock, Ledger, StreamMoved, Unit
from broker.ledger.vault import Erased, KeyMissing
from schemas.errors import Refusal, Refused

NONE, ASKED, CONFIRMED, DESTROYED = "none", "asked", "confirmed", "destroyed"

_STEPS = {
    (NONE, DestructionAsked): ASKED,
    (ASKED, DestructionConfirmed): CONFIRMED,
    (CONFIRMED, Destroyed): DESTROYED,
}


@dataclass(frozen=True)
class State:
    """How far the destruction of a key has come, and who asked for it."""

    step: str = NONE
    asked: DestructionAsked | None = None


def stream(key_id: str) -> str:
    return f"key/{key_id}"


def evolve(state: State, happened: Any) -> State:
    """Raises KeyError for a step that cannot follow."""
    asked = happened if isinstance(happened, DestructionAsked) else state.asked
    return State(_STEPS[state.step, type(happened)], asked)


def decide_ask(state: State, wanted: DestructionAsked) -> tuple[DestructionAsked, ...] | Refusal:
    """A first person asks. Asking for the same again changes nothing; S-111 where another request stands."""
    if state.asked is None:
        return (wanted,)
    same = (state.asked.rule, _person(state.asked.by)) == (wanted.rule, _person(wanted.by))
    return () if same else Refusal("S-111", state.asked.request)


def decide_confirm(state: State, request: str, by: str) -> tuple[DestructionConfirmed, ...] | Refusal:
    """A second person confirms. S-113 for a request that is not there, S-112 for the one who asked."""
    if state.asked is None or state.asked.request != request:
        return Refusal("S-113", request)
    if _person(state.asked.by) == _person(by):
        return Refusal("S-112", by)
    return (DestructionConfirmed(state.asked.key, request, by),) if state.step == ASKED else ()


def _person(name: str) -> str:
    """Names that are only written differently are one person's."""
    return normalize("NFKC", name).strip().casefold()


async def ask(ledger: Ledger, key_id: str, rule: str, by: str, request: str) -> str:
    """Record a request and close the key: it opens what it sealed, and seals nothing more.

    `request` is a new random text; returned is the request that stands. Raises Refused: S-110 for a key that
    the vault does not have, S-111.
    """
    if all(known.id != key_id for known in await trio.to_thread.run_sync(ledger.vault.states)):
        raise Refused(Refusal("S-110", key_id))
    wanted = DestructionAsked(key_id, request, rule, by)
    asked = (await _change(ledger, key_id, lambda state: decide_ask(state, wanted))).asked or wanted
    await _retire(ledger, asked)
    return asked.request


async def confirm(ledger: Ledger, key_id: str, request: str, by: str, clock: Clock) -> Erased:
    """Confirm a request, destroy the key and record that it is gone; again: whatever is left to do.

    Raises Refused: S-112, S-113; S-110 for a key that the vault does not know any longer.
    """
    state = await _change(ledger, key_id, lambda state: decide_confirm(state, request, by))
    if state.asked is not None:  # always so: what was confirmed was asked for
        await _retire(ledger, state.asked)
    at = clock().isoformat(timespec="microseconds")
    erased = await trio.to_thread.run_sync(ledger.vault.destroy, key_id, at)
    done = Destroyed(key_id, request, erased.rule, erased.at)
    await _change(ledger, key_id, lambda state: () if state.step == DESTROYED else (done,))
    return erased


async def _retire(ledger: Ledger, asked: DestructionAsked) -> None:
    try:
        await trio.to_thread.run_sync(ledger.vault.retire, asked.key, asked.rule)
    except KeyMissing as error:
        raise Refused(Refusal("S-110", asked.key)) from error


async def state_of(ledger: Ledger, key_id: str) -> State:
    """How far the destruction of a key has come."""
    return _state(await ledger.stream(stream(key_id)))


async def _change(ledger: Ledger, key_id: str, decide: Callable[[State], Sequence[Any] | Refusal]) -> State:
    """Decide on the stream of a key and append; returns the state that follows. Raises Refused."""
    while True:
        recorded = await ledger.stream(stream(key_id))
        state = _state(recorded)
        decided = decide(state)
        if isinstance(decided, Refusal):
            raise Refused(decided)
        if not decided:
            return state
        change = Change(stream(key_id), len(recorded), tuple(decided))
        try:
            await ledger.append(Unit(f"{stream(key_id)}/{len(recorded) + 1}", (change,)))
        except StreamMoved:
            continue


def _state(recorded: Sequence[Recorded]) -> State:
    state = State()
    for happened in recorded:
        state = evolve(state, happened.event)
    return state
