"""Staff authority (職員権限): who may do what, under which rows, in which office (R-076, R-097)."""

from dataclasses import dataclass, replace
from typing import Any

from broker.ledger.events import event
from schemas.errors import Refusal
from schemas.law.roles import roles


@dataclass(frozen=True)
@event("staff.authority_granted", retention="staff")
class AuthorityGranted:
    """Dates are ISO, both ends included. Within them it replaces what was granted before."""

    staff_id: str
    office: str
    official_role: str
    rows: tuple[str, ...]
    valid_from: str
    valid_until: str


@dataclass(frozen=True)
@event("staff.authority_revoked", retention="staff")
class AuthorityRevoked:
    """All that was granted so far ends with `last_day` (ISO, included), also what would have begun later."""

    staff_id: str
    last_day: str


EVENTS = (AuthorityGranted, AuthorityRevoked)

State = tuple[AuthorityGranted, ...]
"""Grants in the order of their first days: a change is registered before the day on which it happens."""

NOBODY: State = ()


def stream(staff_id: str) -> str:
    return f"staff/{staff_id}"


def evolve(state: State, happened: Any) -> State:
    """A grant takes the place of all that begins within its span; a revocation ends them all."""
    if isinstance(happened, AuthorityRevoked):
        return tuple(replace(g, valid_until=min(g.valid_until, happened.last_day)) for g in state)
    before = tuple(g for g in state if g.valid_from < happened.valid_from)
    later = tuple(g for g in state if g.valid_from > max(happened.valid_from, happened.valid_until))
    return (*before, happened, *later)


def decide_grant(state: State, grant: AuthorityGranted) -> tuple[AuthorityGranted, ...]:
    """A grant that changes nothing leaves no event."""
    return () if evolve(state, grant) == state else (grant,)


def decide_revoke(state: State, revoked: AuthorityRevoked) -> tuple[AuthorityRevoked, ...] | Refusal:
    """A revocation that ends nothing leaves no event. I-127 for somebody who was never granted anything."""
    if not state:
        return Refusal("I-127")
    return (revoked,) if any(g.valid_until > revoked.last_day for g in state) else ()


def authority(state: State, day: str) -> AuthorityGranted | None:
    """What holds on this day: the grant that began last, unless it has ended."""
    begun = [g for g in state if g.valid_from <= day]
    return begun[-1] if begun and day <= begun[-1].valid_until else None


def authorise(state: State, row: str, day: str, what: str = "inquire", basis: str = "19-8") -> Refusal | None:
    """May this member of staff inquire, or answer, under this row of the law table on this day (R-059)?

    I-101: nothing is granted for the day. I-102: the role does not fit the legal basis, or the row is another
    one's.
    """
    granted = authority(state, day)
    if granted is None:
        return Refusal("I-101")
    role = roles().get(granted.official_role)
    fits = role is not None and what in role.may and basis in role.bases
    return None if fits and row in granted.rows else Refusal("I-102", row)


def entitled(state: State, what: str, day: str) -> Refusal | None:
    """May this member of staff approve, administer or audit on this day, whatever the affair (I-122)?"""
    granted = authority(state, day)
    role = roles().get(granted.official_role) if granted is not None else None
    return None if role is not None and what in role.may else Refusal("I-122")
