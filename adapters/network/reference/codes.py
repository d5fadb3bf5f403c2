"""Link codes as the network makes and translates them (Act art. 21-2, Order arts. 26(6) and 27(5)).

A code is a keyed one-way function of the resident record code and the agency: it cannot be turned back, it
differs from agency to agency, and nobody without the key can tell that two codes mean one person.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from hmac import digest
from typing import Any, ClassVar

from broker.ledger.events import Recorded, event, personal
from broker.ledger.projections import Rows


def link_code(key: bytes, agency: str, resident_record_code: str) -> str:
    """32 hexadecimal digits; `key` is 32 secret bytes of the network."""
    return digest(key, f"code/{agency}/{resident_record_code}".encode(), sha256).hex()[:32]


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


State = LinkCodeIssued | None


def stream(agency: str, person: str) -> str:
    return f"code/{agency}/{person}"


def evolve(state: State, happened: Any) -> State:
    return happened if isinstance(happened, LinkCodeIssued) else state


def decide_issue(state: State, wanted: LinkCodeIssued) -> tuple[LinkCodeIssued, ...]:
    """One code for a person and agency (Order art. 27(5)3 and 4)."""
    return () if state is not None else (wanted,)


class IssuedCodes:
    """The way from a code to the person and on to another agency's code (Order art. 26(6))."""

    name: ClassVar[str] = "issued_codes"
    tables: ClassVar[Mapping[str, str]] = {
        "issued_code": "code_index TEXT PRIMARY KEY, agency TEXT, person TEXT, position INTEGER",
        "issued_person": "person TEXT, agency TEXT, position INTEGER, PRIMARY KEY (person, agency)",
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        if isinstance(recorded.event, LinkCodeIssued):
            e = recorded.event
            rows.execute(
                "INSERT INTO issued_code VALUES (?, ?, ?, ?)",
                (e.code_index, e.agency, e.person, recorded.position),
            )
            rows.execute(
                "INSERT INTO issued_person VALUES (?, ?, ?)", (e.person, e.agency, recorded.position)
            )
