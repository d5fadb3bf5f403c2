"""Offices (所属): of the agency itself, with the affairs in their charge, and of partners, as destinations.

A notice has to reach an office and not only an authority (R-075, R-088).
"""

from dataclasses import dataclass, replace
from typing import Any

from broker.ledger.events import event
from schemas.errors import Refusal


@dataclass(frozen=True)
@event("office.opened", retention="staff")
class OfficeOpened:
    """An office with its code and name; `rows` of the law table are in its charge (a partner's: none known).

    Dates are ISO, both ends included. Opening again replaces what was registered before.
    """

    agency: str
    office: str
    name: str
    rows: tuple[str, ...]
    valid_from: str
    valid_until: str


@dataclass(frozen=True)
@event("office.closed", retention="staff")
class OfficeClosed:
    """The office is there until `last_day` (ISO, included)."""

    agency: str
    office: str
    last_day: str


EVENTS = (OfficeOpened, OfficeClosed)

State = OfficeOpened | None


def stream(agency: str, office: str) -> str:
    return f"office/{agency}/{office}"


def evolve(state: State, happened: Any) -> State:
    """Raises ValueError for the closing of an office that was never opened."""
    if isinstance(happened, OfficeOpened):
        return happened
    if state is None:
        raise ValueError("closed before it was opened")
    return replace(state, valid_until=min(state.valid_until, happened.last_day))


def decide_open(state: State, wanted: OfficeOpened) -> tuple[OfficeOpened, ...]:
    """An office registered as it is leaves no event."""
    return () if state == wanted else (wanted,)


def decide_close(state: State, closed: OfficeClosed) -> tuple[OfficeClosed, ...] | Refusal:
    """Closing what is closed leaves no event. I-126 for an office that is not registered."""
    if state is None:
        return Refusal("I-126", closed.office)
    return (closed,) if state.valid_until > closed.last_day else ()


def destination(state: State, day: str) -> Refusal | None:
    """Can something be sent to this office on this day (R-088)? I-126 if it is unknown or not open."""
    if state is None or not state.valid_from <= day <= state.valid_until:
        return Refusal("I-126", state.office if state is not None else "")
    return None


def in_charge(state: State, row: str, day: str) -> Refusal | None:
    """Is this office in charge of the affair on this day (R-066, R-097)? I-126.

    An office of which nothing is registered is judged by the authority alone: no agency has to keep offices.
    """
    if state is None:
        return None
    return destination(state, day) or (None if row in state.rows else Refusal("I-126", row))


def covers(state: State, rows: tuple[str, ...]) -> Refusal | None:
    """May somebody of this office be granted these rows? I-126 names the first that the office has not."""
    strange = [row for row in rows if state is not None and row not in state.rows]
    return Refusal("I-126", strange[0]) if strange else None
