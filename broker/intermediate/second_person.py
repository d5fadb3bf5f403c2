"""Acts that need a second person (四眼原則): one proposes, another looks at the same and confirms.

Each act has a stream. The confirmation is appended in one unit with what is done, so that an act is confirmed
and done together, once. What the act is about is known here by its digest alone: who confirms gives the
digest of what he saw.
"""

from dataclasses import dataclass
from typing import Any

from broker.ledger.events import event, personal
from schemas.errors import Refusal
from schemas.law.roles import second_person_acts


@dataclass(frozen=True)
@event("act.proposed", retention="staff")
class ActProposed:
    """`act` is a word of second_person.tsv; `staff` blind; to be confirmed until `valid_until` (ISO time)."""

    act_id: str
    act: str
    digest: str
    staff: str
    proposed_at: str
    valid_until: str
    staff_id: str = personal()
    purpose: str = personal()


@dataclass(frozen=True)
@event("act.confirmed", retention="staff")
class ActConfirmed:
    """Another member of staff saw the same and confirmed; done in the same unit."""

    staff: str
    confirmed_at: str
    staff_id: str = personal()


@dataclass(frozen=True)
@event("act.declined", retention="staff")
class ActDeclined:
    """It is not to be done: said by a second person, or taken back by the first."""

    staff: str
    declined_at: str
    staff_id: str = personal()


EVENTS = (ActProposed, ActConfirmed, ActDeclined)

NONE, PROPOSED, CONFIRMED, DECLINED = "none", "proposed", "confirmed", "declined"

_STEPS = {
    (NONE, ActProposed): PROPOSED,
    (PROPOSED, ActConfirmed): CONFIRMED,
    (PROPOSED, ActDeclined): DECLINED,
}


@dataclass(frozen=True)
class State:
    """How far an act has come, and what was proposed."""

    step: str = NONE
    proposed: ActProposed | None = None


def stream(act_id: str) -> str:
    return f"act/{act_id}"


def evolve(state: State, happened: Any) -> State:
    """Raises KeyError for a step that cannot follow."""
    proposed = happened if isinstance(happened, ActProposed) else state.proposed
    return State(_STEPS[state.step, type(happened)], proposed)


def needed(act: str) -> bool:
    """Does the policy want a second person for this act?"""
    return act in second_person_acts()


def decide_propose(state: State, wanted: ActProposed) -> tuple[ActProposed, ...] | Refusal:
    """Proposing the same again changes nothing; I-123 where the id stands for something else."""
    if state.proposed is None:
        return (wanted,)
    earlier = state.proposed
    same = (earlier.act, earlier.digest, earlier.staff) == (wanted.act, wanted.digest, wanted.staff)
    return () if same else Refusal("I-123")


def decide_confirm(
    state: State, act: str, digest: str, entitlements: tuple[Refusal | None, ...], confirmed: ActConfirmed
) -> tuple[ActConfirmed, ...] | Refusal:
    """A second person confirms.

    `entitlements` are the checks of both persons' authority as it stands now. Refusals: I-124 for an act that
    does not wait (any longer), I-121 for the one who proposed it, I-122, I-123 for anything but what was
    proposed.
    """
    waiting = _waiting(state, confirmed.confirmed_at)
    if isinstance(waiting, Refusal):
        return waiting
    if waiting.staff == confirmed.staff:
        return Refusal("I-121")
    for refusal in entitlements:
        if refusal is not None:
            return refusal
    if (waiting.act, waiting.digest) != (act, digest):
        return Refusal("I-123")
    return (confirmed,)


def decide_decline(
    state: State, entitlement: Refusal | None, declined: ActDeclined
) -> tuple[ActDeclined, ...] | Refusal:
    """Decline, or take back one's own proposal. Refusals: I-124, and I-122 for others without the role."""
    waiting = _waiting(state, declined.declined_at)
    if isinstance(waiting, Refusal):
        return waiting
    if entitlement is not None and waiting.staff != declined.staff:
        return entitlement
    return (declined,)


def usable(state: State, act: str, digest: str, staff: str, now: str) -> Refusal | None:
    """May the one who proposed an act do it himself, now that another confirmed it?

    For acts that are not done in the unit of their confirmation, such as a reading. Refusals: I-124 where it
    is not confirmed or has lapsed, I-123 for anything but what was proposed.
    """
    if state.step != CONFIRMED or state.proposed is None or now > state.proposed.valid_until:
        return Refusal("I-124")
    same = (state.proposed.act, state.proposed.digest, state.proposed.staff) == (act, digest, staff)
    return None if same else Refusal("I-123")


def _waiting(state: State, now: str) -> ActProposed | Refusal:
    if state.step != PROPOSED or state.proposed is None or now > state.proposed.valid_until:
        return Refusal("I-124")
    return state.proposed
