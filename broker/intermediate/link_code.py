"""ID conversion (ID変換機能): the link code of a person in this agency and the number it stands for here.

The pair is sealed per person; what finds it are blind indexes, so the code conversion table shows neither
(R-109 to R-114). At most one code is valid for a person; an individual number never comes here (R-113).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from broker.ledger.events import Recorded, event, personal
from broker.ledger.projections import Rows


@dataclass(frozen=True)
@event("link_code.acquired", retention="code_mapping", per_person=True)
class LinkCodeAcquired:
    """The network gave this agency its own code for a person. `code_index` is blind, `person` too."""

    person: str
    code_index: str
    link_code: str = personal()
    integrated_number: str = personal()


EVENTS = (LinkCodeAcquired,)

State = LinkCodeAcquired | None


def stream(person: str) -> str:
    return f"link_code/{person}"


def evolve(state: State, happened: Any) -> State:
    """The last code acquired is the valid one."""
    return happened if isinstance(happened, LinkCodeAcquired) else state


def decide_acquire(state: State, acquired: LinkCodeAcquired) -> tuple[LinkCodeAcquired, ...]:
    """The same code again changes nothing; another one takes the place of the old one."""
    return () if state == acquired else (acquired,)


class CodeConversionTable:
    """コード変換テーブル: both directions by blind index; the codes themselves stay in the events."""

    name: ClassVar[str] = "code_conversion"
    tables: ClassVar[Mapping[str, str]] = {
        "code_conversion": "person TEXT PRIMARY KEY, code_index TEXT UNIQUE, position INTEGER"
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        if isinstance(recorded.event, LinkCodeAcquired):
            rows.execute(
                "INSERT INTO code_conversion VALUES (?, ?, ?) ON CONFLICT (person) DO UPDATE "
                "SET code_index = excluded.code_index, position = excluded.position",
                (recorded.event.person, recorded.event.code_index, recorded.position),
            )
