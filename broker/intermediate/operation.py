"""The record of what officers do (操作記録): who, when, at which terminal, about whom and what for (R-098).

Together with the events of inquiry, provision, conversion and storage these entries are the intermediate log
(ログ管理機能（中間IF）, R-156, R-157). It belongs to one agency (R-159), and to its personal information
(R-158): who acted and on whom is sealed, the projection finds entries by blind indexes alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from broker.ledger.events import Recorded, event, personal
from broker.ledger.projections import Rows
from schemas.law.roles import operation_words


@dataclass(frozen=True)
class Officer:
    """Who acts: a member of staff with office and official role, at a terminal, for a purpose (R-079)."""

    staff_id: str = field(repr=False)
    office: str
    official_role: str
    terminal: str = field(repr=False)
    purpose: str = field(repr=False)


@dataclass(frozen=True)
@event("operation.recorded", retention="staff")
class OperationRecorded:
    """One operation. `operation` is a word of operations.tsv, `log` the half of the log that it belongs to.

    `staff` and `persons` are blind; `target` is the stream or id that it was about, or "". `subjects` are the
    integrated address numbers of `persons`.
    """

    operation: str
    log: str
    staff: str
    office: str
    official_role: str
    persons: tuple[str, ...]
    target: str
    at: str
    staff_id: str = personal()
    terminal: str = personal()
    purpose: str = personal()
    subjects: tuple[str, ...] = personal()


EVENTS = (OperationRecorded,)


def stream(operation_id: str) -> str:
    """A stream for each: no operation waits for another one's."""
    return f"operation/{operation_id}"


def recorded(
    operation: str,
    officer: Officer,
    staff: str,
    people: Mapping[str, str],
    target: str,
    at: str,
) -> OperationRecorded:
    """The entry for an operation about `people` (integrated address number to blind index).

    Raises KeyError for a word that operations.tsv does not have.
    """
    return OperationRecorded(
        operation=operation,
        log=operation_words()[operation].log,
        staff=staff,
        office=officer.office,
        official_role=officer.official_role,
        persons=tuple(people.values()),
        target=target,
        at=at,
        staff_id=officer.staff_id,
        terminal=officer.terminal,
        purpose=officer.purpose,
        subjects=tuple(people),
    )


class Operations:
    """中間ログ: the operations by member of staff, by person and by time; the entry itself is the event."""

    name: ClassVar[str] = "operations"
    tables: ClassVar[Mapping[str, str]] = {
        "operation": "at TEXT, position INTEGER, staff TEXT, PRIMARY KEY (at, position)",
        "operation_person": "person TEXT, position INTEGER, PRIMARY KEY (person, position)",
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        e = recorded.event
        if isinstance(e, OperationRecorded):
            rows.execute("INSERT INTO operation VALUES (?, ?, ?)", (e.at, recorded.position, e.staff))
            rows.executemany(
                "INSERT INTO operation_person VALUES (?, ?)",
                [(person, recorded.position) for person in dict.fromkeys(e.persons)],
            )


PROJECTIONS = (Operations(),)
