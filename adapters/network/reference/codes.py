"""Link codes as the network makes and translates them (Act art. 21-2, Order arts. 26(6) and 27(5)).

A code is a keyed one-way function of the resident record code and the agency: it cannot be turned back, it
differs from agency to agency, and nobody without the key can tell that two codes mean one person.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from hmac import digest
from typing import Any, ClassVar

from broker.ledger.events import Recorded, event, personal
from broker.ledger.projections import Rows
from schemas.errors import Refusal


def link_code(key: bytes, agency: str, resident_record_code: str, retired: int = 0) -> str:
    """32 hexadecimal digits; `key` is 32 secret bytes of the network.

    After a retirement the next code is another one: `retired` counts those before it (Order art. 27(5)3).
    """
    text = f"code/{agency}/{resident_record_code}/{retired}"
    return digest(key, text.encode(), sha256).hex()[:32]


def person_mark(key: bytes, resident_record_code: str) -> str:
    """What the network knows a person by in its own records (ordinance art. 47(3))."""
    return digest(key, f"person/{resident_record_code}".encode(), sha256).hex()[:32]


@dataclass(frozen=True)
@event("link_code.issued", retention="code_mapping", per_person=True)
class LinkCodeIssued:
    """An agency was given its code for a person. `code_index` is blind."""

    agency: str
    person: str
    code_index: str
    link_code: str = personal()


@dataclass(frozen=True)
@event("link_code.taken", retention="code_mapping")
class LinkCodeTaken:
    """The agency says that it has recorded the code: from now on it has acquired it (ordinance art. 44)."""

    agency: str
    person: str
    code_index: str


@dataclass(frozen=True)
@event("link_code.withdrawn", retention="code_mapping")
class LinkCodeWithdrawn:
    """The code is valid no longer. `by` says why: agency (it does without), network (it was ordered), or
    record_code (the person has another resident record code).

    `successor` is the person's mark under a new resident record code, or "": so that records made under the
    two can still be told to be of one person (Order art. 26(6)).
    """

    agency: str
    person: str
    code_index: str
    by: str
    successor: str


@dataclass(frozen=True)
@event("link_code.withdrawal_known", retention="code_mapping")
class WithdrawalKnown:
    """The agency knows that the code is retired, and has retired it on its side."""

    agency: str
    person: str
    code_index: str


EVENTS = (LinkCodeIssued, LinkCodeTaken, LinkCodeWithdrawn, WithdrawalKnown)


@dataclass(frozen=True)
class State:
    """One agency and one person: the valid code, whether the agency has it, how many were retired before it,
    and which of those the agency has still to be told of."""

    issued: LinkCodeIssued | None = None
    taken: bool = False
    retired: int = 0
    untold: tuple[str, ...] = ()


def stream(agency: str, person: str) -> str:
    return f"code/{agency}/{person}"


def evolve(state: State, happened: Any) -> State:
    """Raises KeyError for a step that cannot follow."""
    valid = state.issued.code_index if state.issued is not None else ""
    match happened:
        case LinkCodeIssued() if not valid:
            return replace(state, issued=happened, taken=False)
        case LinkCodeTaken(code_index=index) if index == valid:
            return replace(state, taken=True)
        case LinkCodeWithdrawn(code_index=index) if index == valid:
            return State(None, False, state.retired + 1, (*state.untold, index))
        case WithdrawalKnown(code_index=index) if index in state.untold:
            return replace(state, untold=tuple(one for one in state.untold if one != index))
    raise KeyError(type(happened).__name__)


def decide_lost(state: State, erased: Collection[str]) -> tuple[Any, ...]:
    """The key of the valid code was destroyed: nobody can read it or be told it, so it is retired."""
    issued = state.issued
    if issued is None or issued.code_index not in erased:
        return ()
    return _withdrawn_and_known(issued, "network")


def decide_issue(state: State, wanted: LinkCodeIssued) -> tuple[LinkCodeIssued, ...] | Refusal:
    """One valid code for a person and agency. N-201 where the agency has it (ordinance art. 44(2)).

    As long as the agency has not said so, the same code is given again: whatever broke in between.
    """
    if state.issued is None:
        return (wanted,)
    return Refusal("N-201") if state.taken else ()


def decide_take(state: State, code_index: str) -> tuple[LinkCodeTaken, ...]:
    issued = state.issued
    if issued is None or state.taken or issued.code_index != code_index:
        return ()
    return (LinkCodeTaken(issued.agency, issued.person, code_index),)


def decide_withdraw(state: State, code_index: str, by: str, successor: str = "") -> tuple[Any, ...]:
    """Retire the valid code. What the agency itself retires, it need not be told of."""
    issued = state.issued
    if issued is None or issued.code_index != code_index:
        return ()
    if by == "agency":
        return _withdrawn_and_known(issued, by)
    return (LinkCodeWithdrawn(issued.agency, issued.person, code_index, by, successor),)


def _withdrawn_and_known(issued: LinkCodeIssued, by: str) -> tuple[LinkCodeWithdrawn, WithdrawalKnown]:
    place = (issued.agency, issued.person, issued.code_index)
    return LinkCodeWithdrawn(*place, by, ""), WithdrawalKnown(*place)


def decide_known(state: State, agency: str, person: str, code_index: str) -> tuple[WithdrawalKnown, ...]:
    return (WithdrawalKnown(agency, person, code_index),) if code_index in state.untold else ()


class IssuedCodes:
    """The way from a code to the person and on to another agency's code (Order art. 26(6)).

    `state` of a code: valid, withdrawn (the agency is still to be told), known. `issued_person` has the valid
    ones.
    """

    name: ClassVar[str] = "issued_codes"
    tables: ClassVar[Mapping[str, str]] = {
        "issued_code": "code_index TEXT PRIMARY KEY, agency TEXT, person TEXT, position INTEGER, state TEXT",
        "issued_person": "person TEXT, agency TEXT, position INTEGER, PRIMARY KEY (person, agency)",
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        match recorded.event:
            case LinkCodeIssued() as e:
                rows.execute(
                    "INSERT INTO issued_code VALUES (?, ?, ?, ?, 'valid')",
                    (e.code_index, e.agency, e.person, recorded.position),
                )
                rows.execute(
                    "INSERT INTO issued_person VALUES (?, ?, ?)", (e.person, e.agency, recorded.position)
                )
            case LinkCodeWithdrawn() as e:
                rows.execute(
                    "UPDATE issued_code SET state = 'withdrawn' WHERE code_index = ?", (e.code_index,)
                )
                rows.execute(
                    "DELETE FROM issued_person WHERE person = ? AND agency = ?", (e.person, e.agency)
                )
            case WithdrawalKnown() as e:
                rows.execute("UPDATE issued_code SET state = 'known' WHERE code_index = ?", (e.code_index,))
