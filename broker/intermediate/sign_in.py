"""Staff at their terminals (職員認証との連携, R-079, R-091): who is signed in where, and until when.

The business system authenticates its staff and says so at the agency's door; this is the record of it.
"""

from dataclasses import dataclass
from typing import Any

from broker.ledger.events import event, personal
from schemas.errors import Refusal


@dataclass(frozen=True)
@event("staff.signed_in", retention="staff")
class StaffSignedIn:
    """`terminal` is blind; elsewhere this ends it. It lapses at `until` (ISO time)."""

    terminal: str
    until: str
    staff_id: str = personal()
    terminal_id: str = personal()


@dataclass(frozen=True)
@event("staff.signed_out", retention="staff")
class StaffSignedOut:
    """From here on nothing is done in this name at any terminal."""

    staff_id: str = personal()


EVENTS = (StaffSignedIn, StaffSignedOut)

State = StaffSignedIn | None


def stream(staff: str) -> str:
    """`staff` is blind."""
    return f"sign_in/{staff}"


def evolve(_state: State, happened: Any) -> State:
    return happened if isinstance(happened, StaffSignedIn) else None


def decide_sign_out(state: State, staff_id: str) -> tuple[StaffSignedOut, ...]:
    """Who is not signed in leaves no event."""
    return (StaffSignedOut(staff_id),) if state is not None else ()


def present(state: State, terminal: str, now: str) -> Refusal | None:
    """Is the member of staff signed in at this terminal (blind) now? I-128."""
    here = state is not None and state.terminal == terminal and now < state.until
    return None if here else Refusal("I-128")
