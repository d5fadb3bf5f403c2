"""Holds (自動応答不可フラグ): what bars automatic answering (R-102, R-104 to R-106).

A hold is a pattern; what it leaves open ("") fits anything. It may name a person, a record of the person
(layout and fiscal year), a work (row of the law table), an item asked for, or a value that the record has for
an item, and any of them together. Several holds may stand on one thing, each with its own reason: who
releases one does not release the others.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from broker.ledger.events import Recorded, event, personal
from broker.ledger.projections import Rows

EVERYBODY = "hold/everybody"
Key = tuple[str, ...]


@dataclass(frozen=True)
class Scope:
    """What a hold is on, and why: `reason` is a word of the policy, never free text.

    `person` is blind. `value_index` is the blind index of an item with its value, "" for any value: then the
    hold is on inquiries that ask for the item.
    """

    person: str
    layout: str
    fiscal_year: str
    law_row: str
    item: str
    value_index: str
    reason: str

    @property
    def key(self) -> Key:
        return tuple(getattr(self, name) for name in COLUMNS)

    @property
    def stream(self) -> str:
        """Holds on one person stand in one stream, all others in another."""
        return stream(self.person)


COLUMNS = ("person", "layout", "fiscal_year", "law_row", "item", "value_index", "reason")


@dataclass(frozen=True)
@event("hold.set", retention="reference_data")
class HoldSet(Scope):
    """Days are ISO, both included, "" open. Setting it again with other days replaces the days."""

    starts: str
    ends: str
    integrated_number: str = personal()
    value: str = personal()


@dataclass(frozen=True)
@event("hold.released", retention="reference_data")
class HoldReleased(Scope):
    """From here on it bars nothing any more; what is held already still waits for its officer."""


EVENTS = (HoldSet, HoldReleased)

State = Mapping[Key, HoldSet]


def stream(person: str) -> str:
    return f"hold/{person}" if person else EVERYBODY


def evolve(state: State, happened: Any) -> State:
    """Raises KeyError for the release of what is not set."""
    if isinstance(happened, HoldSet):
        return {**state, happened.key: happened}
    released = state[happened.key]
    return {key: each for key, each in state.items() if each is not released}


def decide_set(state: State, wanted: HoldSet) -> tuple[HoldSet, ...]:
    """Setting what is set leaves no event."""
    return () if state.get(wanted.key) == wanted else (wanted,)


def decide_release(state: State, scope: Scope) -> tuple[HoldReleased, ...]:
    """Releasing what is free leaves no event."""
    return (HoldReleased(*scope.key),) if scope.key in state else ()


@dataclass(frozen=True)
class Asked:
    """What is asked about one person. `values` are the blind indexes of those items of the record, with their
    values, that holds are on."""

    person: str
    layout: str
    fiscal_year: str
    law_row: str
    items: tuple[str, ...]
    values: frozenset[str]


def barring(holds: Iterable[HoldSet], asked: Asked, day: str) -> tuple[str, ...]:
    """The reasons for which no answer leaves by itself on this day; none where it may."""
    return tuple(sorted({each.reason for each in holds if _applies(each, asked, day)}))


def _applies(hold: HoldSet, asked: Asked, day: str) -> bool:
    if not hold.starts <= day <= (hold.ends or day):
        return False
    for name in ("person", "layout", "fiscal_year", "law_row"):
        if getattr(hold, name) not in ("", getattr(asked, name)):
            return False
    if hold.value_index:
        return hold.value_index in asked.values
    return hold.item in ("", *asked.items)


class Holds:
    """自動応答不可フラグ設定状況: every hold that stands (R-105), and how far each stream has come."""

    name: ClassVar[str] = "holds"
    tables: ClassVar[Mapping[str, str]] = {
        "hold": ", ".join(f"{name} TEXT" for name in COLUMNS)
        + f", starts TEXT, ends TEXT, position INTEGER, PRIMARY KEY ({', '.join(COLUMNS)})",
        "hold_stream": "stream TEXT PRIMARY KEY, version INTEGER",
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        e = recorded.event
        if not isinstance(e, (HoldSet, HoldReleased)):
            return
        rows.execute(
            "INSERT INTO hold_stream VALUES (?, ?) ON CONFLICT DO UPDATE SET version = excluded.version",
            (recorded.stream, recorded.version),
        )
        if isinstance(e, HoldSet):
            rows.execute(
                "INSERT INTO hold VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "starts = excluded.starts, ends = excluded.ends, position = excluded.position",
                (*e.key, e.starts, e.ends, recorded.position),
            )
        else:
            fitting = " AND ".join(f"{name} = ?" for name in COLUMNS)
            rows.execute(f"DELETE FROM hold WHERE {fitting}", e.key)  # noqa: S608 # names of columns only


PROJECTIONS = (Holds(),)
