"""Staff authority (職員権限): who may ask under which rows of the law (R-076, R-097)."""

from dataclasses import dataclass
from typing import Any

from broker.ledger.events import event
from schemas.errors import Refusal


@dataclass(frozen=True)
@event("staff.authority_granted", retention="staff")
class AuthorityGranted:
    """Dates are ISO, both ends included. Granting again replaces what was granted before."""

    staff_id: str
    office: str
    official_role: str
    rows: tuple[str, ...]
    valid_from: str
    valid_until: str


EVENTS = (AuthorityGranted,)

State = AuthorityGranted | None


def stream(staff_id: str) -> str:
    return f"staff/{staff_id}"


def evolve(state: State, happened: Any) -> State:
    """The last grant holds."""
    return happened if isinstance(happened, AuthorityGranted) else state


def decide_grant(state: State, grant: AuthorityGranted) -> tuple[AuthorityGranted, ...]:
    """A grant that changes nothing leaves no event."""
    return () if state == grant else (grant,)


def authorise(state: State, row: str, day: str) -> Refusal | None:
    """May this member of staff ask under this row of the law table on this day (R-059)?"""
    if state is None or not state.valid_from <= day <= state.valid_until:
        return Refusal("I-101")
    return None if row in state.rows else Refusal("I-102", row)
