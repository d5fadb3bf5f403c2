"""A person as addressing knows them: numbers, the four basic items, and how far the link code has come."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from broker.ledger.events import Recorded, event, personal
from broker.ledger.projections import Rows
from schemas.errors import Refusal


@dataclass(frozen=True)
@event("person.registered", retention="addressing", per_person=True)
class PersonRegistered:
    """Registered, or registered again with changed items. `person` and `number_index` are blind."""

    person: str
    number_index: str
    integrated_number: str = personal()
    individual_number: str = personal()
    name: str = personal()
    kana: str = personal()
    birth_date: str = personal()
    sex: str = personal()
    address: str = personal()


@dataclass(frozen=True)
@event("person.number_claimed", retention="addressing")
class NumberClaimed:
    """In the stream of an individual number (blind): whose it is here. One number, one person (R-241)."""

    person: str


@dataclass(frozen=True)
@event("person.code_settled", retention="addressing")
class CodeSettled:
    """The acquisition of a link code ended: with a code of the catalogue, or "" when it was acquired."""

    person: str
    code: str


EVENTS = (PersonRegistered, NumberClaimed, CodeSettled)


@dataclass(frozen=True)
class State:
    """A person's last registration, and whether a link code was acquired or refused."""

    registered: PersonRegistered | None = None
    settled: bool = False


def stream(person: str) -> str:
    return f"person/{person}"


def number_stream(number_index: str) -> str:
    return f"number/{number_index}"


def evolve(state: State, happened: Any) -> State:
    """A new registration with another individual number makes a new acquisition necessary (R-120)."""
    if isinstance(happened, PersonRegistered):
        same = state.registered is not None and state.registered.number_index == happened.number_index
        return State(happened, state.settled and same)
    if isinstance(happened, CodeSettled):
        return State(state.registered, True)
    return state


def decide_register(
    state: State, owner: str, wanted: PersonRegistered
) -> tuple[PersonRegistered, ...] | Refusal:
    """Register a person. `owner` is whose the individual number is here so far ("" for nobody's)."""
    if owner not in ("", wanted.person):
        return Refusal("A-103")
    return () if state.registered == wanted else (wanted,)


def decide_settle(state: State, person: str, code: str) -> tuple[CodeSettled, ...]:
    """End an acquisition, once."""
    return () if state.settled else (CodeSettled(person, code),)


class Acquisition:
    """Who is registered and still lacks a link code: what the registry must be asked for (R-118, R-119)."""

    name: ClassVar[str] = "acquisition"
    tables: ClassVar[Mapping[str, str]] = {
        "acquisition": "person TEXT PRIMARY KEY, number_index TEXT, settled INTEGER, position INTEGER"
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        match recorded.event:
            case PersonRegistered() as e:
                rows.execute(
                    "INSERT INTO acquisition VALUES (?, ?, 0, ?) ON CONFLICT DO UPDATE SET "
                    "settled = settled * (number_index = excluded.number_index), "
                    "number_index = excluded.number_index, position = excluded.position",
                    (e.person, e.number_index, recorded.position),
                )
            case CodeSettled() as e:
                rows.execute("UPDATE acquisition SET settled = 1 WHERE person = ?", (e.person,))


PROJECTIONS = (Acquisition(),)
