"""Exclusive editing (排他制御): one officer edits a person's record, others may read it meanwhile (R-100)."""

from dataclasses import dataclass
from typing import Any

from broker.ledger.events import event, personal
from schemas.errors import Refusal


@dataclass(frozen=True)
@event("edit.begun", retention="staff")
class EditBegun:
    """`person` and `staff` are blind. Whoever forgets to end it loses it at `until` (ISO time)."""

    person: str
    staff: str
    until: str
    staff_id: str = personal()


@dataclass(frozen=True)
@event("edit.ended", retention="staff")
class EditEnded:
    """The record is free again."""

    person: str


EVENTS = (EditBegun, EditEnded)

State = EditBegun | None


def stream(person: str) -> str:
    return f"edit/{person}"


def evolve(_state: State, happened: Any) -> State:
    """Who edits now, if not too long ago."""
    return happened if isinstance(happened, EditBegun) else None


def barred(state: State, staff: str, now: str) -> Refusal | None:
    """May this member of staff change the record now (ISO time)? I-125 while another edits it."""
    others = state is not None and state.staff != staff and now < state.until
    return Refusal("I-125") if others else None


def decide_begin(state: State, wanted: EditBegun, now: str) -> tuple[EditBegun, ...] | Refusal:
    """Begin, or go on for longer. Refusal: I-125."""
    return barred(state, wanted.staff, now) or (wanted,)


def decide_end(state: State, staff: str) -> tuple[EditEnded, ...]:
    """Only who edits ends it; for others there is nothing to end."""
    return (EditEnded(state.person),) if state is not None and state.staff == staff else ()
