"""Holds (自動応答不可フラグ): a person for whom no answer leaves without an officer (R-102 to R-104)."""

from dataclasses import dataclass
from typing import Any

from broker.ledger.events import event


@dataclass(frozen=True)
@event("hold.set", retention="reference_data")
class HoldSet:
    """`person` is blind; `reason` is a word of the policy such as protected_person, never free text."""

    person: str
    reason: str


@dataclass(frozen=True)
@event("hold.released", retention="reference_data")
class HoldReleased:
    """From here on answers for the person are automatic again."""

    person: str


EVENTS = (HoldSet, HoldReleased)

_STEPS = {(False, HoldSet): True, (True, HoldReleased): False}


def stream(person: str) -> str:
    return f"hold/{person}"


def evolve(held: bool, happened: Any) -> bool:
    """Raises KeyError for a step that cannot follow."""
    return _STEPS[held, type(happened)]


def decide(held: bool, wanted: bool, person: str, reason: str) -> tuple[HoldSet | HoldReleased, ...]:
    """Setting what is set, or releasing what is free, leaves no event."""
    if held == wanted:
        return ()
    return (HoldSet(person, reason),) if wanted else (HoldReleased(person),)
