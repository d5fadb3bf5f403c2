"""Event types that belong to no domain, for the tests of the ledger."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

from broker.ledger.events import Recorded, Registry, event, personal
from broker.ledger.projections import Rows


@dataclass(frozen=True)
@event("sample.noted", retention="sample")
class Noted:
    label: str
    secret: str = personal()


@dataclass(frozen=True)
@event("sample.counted", retention="sample")
class Counted:
    amount: int


@dataclass(frozen=True)
@event("sample.known", retention="sample", per_person=True)
class Known:
    person: str
    secret: str = personal()


REGISTRY = Registry((Noted, Counted, Known))


def clock() -> datetime:
    return datetime(2026, 11, 21, 0, 30, tzinfo=UTC)


class Totals:
    """How often each label was noted, and the sum of what was counted."""

    name: ClassVar[str] = "totals"
    tables: ClassVar[Mapping[str, str]] = {
        "label": "name TEXT PRIMARY KEY, times INTEGER",
        "total": "id INTEGER PRIMARY KEY, amount INTEGER",
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        if isinstance(recorded.event, Noted):
            rows.execute(
                "INSERT INTO label VALUES (?, 1) ON CONFLICT DO UPDATE SET times = times + 1",
                (recorded.event.label,),
            )
        elif isinstance(recorded.event, Counted):
            rows.execute(
                "INSERT INTO total VALUES (1, ?) ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
                (recorded.event.amount,),
            )


class Seen:
    """Every event at its position. It has no answer to an event that is applied twice but to fail."""

    name: ClassVar[str] = "seen"
    tables: ClassVar[Mapping[str, str]] = {"seen": "position INTEGER PRIMARY KEY, what TEXT"}

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        what = f"{recorded.event!r} {vars(recorded.event)}"
        rows.execute("INSERT INTO seen VALUES (?, ?)", (recorded.position, what))
