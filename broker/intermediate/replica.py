"""Replica records (副本): what this agency holds ready to answer with, and the reference database over it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from broker.ledger.events import Recorded, event, personal
from broker.ledger.projections import Rows


@dataclass(frozen=True)
@event("replica.registered", retention="reference_data", per_person=True)
class ReplicaRegistered:
    """A copy of an original record was registered or changed. `person` is blind; the payload is sealed."""

    person: str
    layout: str
    fiscal_year: str
    integrated_number: str = personal()
    payload: Mapping[str, Any] = personal()


@dataclass(frozen=True)
@event("replica.publication_ends", retention="reference_data")
class PublicationEnds:
    """Until `until` (ISO day, included) the record is answered with; "" means without an end (公開終了日)."""

    person: str
    layout: str
    fiscal_year: str
    until: str


EVENTS = (ReplicaRegistered, PublicationEnds)

State = ReplicaRegistered | None


def stream(person: str, layout: str, fiscal_year: str) -> str:
    return f"replica/{person}/{layout}/{fiscal_year}"


def publication_stream(person: str, layout: str, fiscal_year: str) -> str:
    """A stream of its own: an end may be set before the record comes, and stays when it changes (R-139)."""
    return f"publication/{person}/{layout}/{fiscal_year}"


def decide_publication(state: str, wanted: PublicationEnds) -> tuple[PublicationEnds, ...]:
    """The state is the last day set so far, "" for none. Setting the same leaves no event."""
    return () if state == wanted.until else (wanted,)


def evolve(state: State, happened: Any) -> State:
    return happened if isinstance(happened, ReplicaRegistered) else state


def decide_register(state: State, record: ReplicaRegistered) -> tuple[ReplicaRegistered, ...]:
    """A record equal to the one held leaves no event, so that a file may be loaded again."""
    return () if state == record else (record,)


class ReferenceDatabase:
    """参照用DB: the present record by person, layout and year (R-122, R-123). The data is in the event."""

    name: ClassVar[str] = "reference_database"
    tables: ClassVar[Mapping[str, str]] = {
        "reference_database": "person TEXT, layout TEXT, fiscal_year TEXT, position INTEGER, "
        "PRIMARY KEY (person, layout, fiscal_year)",
        "publication": "person TEXT, layout TEXT, fiscal_year TEXT, until TEXT, "
        "PRIMARY KEY (person, layout, fiscal_year)",
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        e = recorded.event
        if isinstance(e, ReplicaRegistered):
            rows.execute(
                "INSERT INTO reference_database VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET position = excluded.position",
                (e.person, e.layout, e.fiscal_year, recorded.position),
            )
        elif isinstance(e, PublicationEnds):
            rows.execute(
                "INSERT INTO publication VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET until = excluded.until",
                (e.person, e.layout, e.fiscal_year, e.until),
            )
