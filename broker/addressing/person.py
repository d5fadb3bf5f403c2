"""A person as addressing knows them: numbers, the four basic items, and how far the link code has come."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from unicodedata import normalize

from broker.ledger.events import Recorded, event, personal
from broker.ledger.projections import Rows
from schemas.errors import Refusal


@dataclass(frozen=True)
@event("person.registered", retention="addressing", per_person=True)
class PersonRegistered:
    """Registered, or registered again with changed items.

    `person` and `number_index` are blind, and so is `items_index`, by which a person is found by the four
    basic items ("" in what was registered before there was one).
    """

    person: str
    number_index: str
    integrated_number: str = personal()
    individual_number: str = personal()
    name: str = personal()
    kana: str = personal()
    birth_date: str = personal()
    sex: str = personal()
    address: str = personal()
    items_index: str = ""


@dataclass(frozen=True)
@event("person.number_claimed", retention="addressing")
class NumberClaimed:
    """In the stream of an individual number (blind): whose it is here. One number, one person (R-241)."""

    person: str


@dataclass(frozen=True)
@event("person.number_released", retention="addressing")
class NumberReleased:
    """The person has another individual number now, because it was changed or had been mistyped."""

    person: str


@dataclass(frozen=True)
@event("person.code_settled", retention="addressing")
class CodeSettled:
    """The acquisition of a link code ended: with a code of the catalogue, or "" when it was acquired."""

    person: str
    code: str


@dataclass(frozen=True)
@event("person.code_wanted", retention="addressing")
class CodeWanted:
    """A link code has to be acquired (again) although nothing about the person changed here."""

    person: str


@dataclass(frozen=True)
@event("person.left", retention="addressing")
class PersonLeft:
    """No link code is acquired for the person any longer: `reason` is died, moved or erased."""

    person: str
    reason: str


EVENTS = (PersonRegistered, NumberClaimed, NumberReleased, CodeSettled, CodeWanted, PersonLeft)
ACQUIRED = ("", "N-201")
"""How a settled acquisition says that the agency has a code: given now, or already before."""


@dataclass(frozen=True)
class State:
    """A person's last registration, whether a link code was acquired or refused, and whether they left."""

    registered: PersonRegistered | None = None
    settled: bool = False
    left: bool = False


def stream(person: str) -> str:
    return f"person/{person}"


def number_stream(number_index: str) -> str:
    return f"number/{number_index}"


def evolve(state: State, happened: Any) -> State:
    """A new registration with another individual number makes a new acquisition necessary (R-120), and so
    does one of a person who had left (R-421)."""
    match happened:
        case PersonRegistered():
            same = state.registered is not None and state.registered.number_index == happened.number_index
            return State(happened, state.settled and same and not state.left)
        case CodeSettled():
            return replace(state, settled=True)
        case CodeWanted():
            return replace(state, settled=False)
        case PersonLeft():
            return replace(state, settled=True, left=True)
    return state


def owner(happened: Iterable[Any]) -> str:
    """Whose an individual number is, by the events of its stream; "" for nobody's."""
    person = ""
    for claimed in happened:
        person = claimed.person if isinstance(claimed, NumberClaimed) else ""
    return person


_DASHES = re.compile("[\u2010-\u2015\u2212\uff0d\uff70\u30fc\u2500-]")
_SPACES = re.compile(r"\s")


def basic_items(name: str, birth_date: str, sex: str, address: str) -> str:
    """The four basic items (基本4情報) in a form in which two ways of writing them are equal: full and half
    width, spaces, and the many dashes of addresses. Characters are not taken for each other."""
    texts = (_DASHES.sub("-", normalize("NFKC", text)) for text in (name, birth_date, sex, address))
    return "\x1f".join(_SPACES.sub("", text).casefold() for text in texts)


def decide_register(
    state: State, owner: str, wanted: PersonRegistered
) -> tuple[PersonRegistered, ...] | Refusal:
    """Register a person. `owner` is whose the individual number is here so far ("" for nobody's)."""
    if owner not in ("", wanted.person):
        return Refusal("A-103")
    return () if state.registered == wanted and not state.left else (wanted,)


def decide_settle(state: State, person: str, number_index: str, code: str) -> tuple[CodeSettled, ...]:
    """End an acquisition, once. One made with another individual number than the person has now is void."""
    if state.settled or state.registered is None or state.registered.number_index != number_index:
        return ()
    return (CodeSettled(person, code),)


def decide_want(state: State) -> tuple[CodeWanted, ...]:
    """Acquire a code (again); whoever waits for one already is waiting."""
    return (CodeWanted(state.registered.person),) if state.registered and state.settled else ()


def decide_leave(state: State, person: str, reason: str) -> tuple[PersonLeft, ...]:
    return () if state.left else (PersonLeft(person, reason),)


class Acquisition:
    """Who is registered and still lacks a link code: what the registry must be asked for (R-118, R-119).

    `code` tells how a settled acquisition ended; `gone` is 1 for those who left. A row points to the
    registration. In the queue stands, too, with which individual number (blind) the code has to be acquired.
    """

    name: ClassVar[str] = "acquisition"
    tables: ClassVar[Mapping[str, str]] = {
        "acquisition": "person TEXT PRIMARY KEY, number_index TEXT, settled INTEGER, position INTEGER, "
        "code TEXT, gone INTEGER",
        "acquisition_queue": "position INTEGER PRIMARY KEY, owner TEXT",
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        e = recorded.event
        if not isinstance(e, PersonRegistered | CodeSettled | CodeWanted | PersonLeft):
            return
        rows.execute(
            "DELETE FROM acquisition_queue WHERE position = "
            "(SELECT position FROM acquisition WHERE person = ?)",
            (e.person,),
        )
        match e:
            case PersonRegistered():
                rows.execute(
                    "INSERT INTO acquisition VALUES (?, ?, 0, ?, '', 0) ON CONFLICT DO UPDATE SET "
                    "settled = settled * (1 - gone) * (number_index = excluded.number_index), "
                    "number_index = excluded.number_index, position = excluded.position, gone = 0",
                    (e.person, e.number_index, recorded.position),
                )
            case CodeSettled():
                rows.execute(
                    "UPDATE acquisition SET settled = 1, code = ? WHERE person = ?", (e.code, e.person)
                )
            case CodeWanted():
                rows.execute("UPDATE acquisition SET settled = 0 WHERE person = ?", (e.person,))
            case PersonLeft():
                rows.execute("UPDATE acquisition SET settled = 1, gone = 1 WHERE person = ?", (e.person,))
        rows.execute(
            "INSERT INTO acquisition_queue SELECT position, person || '/' || number_index FROM acquisition "
            "WHERE person = ? AND settled = 0",
            (e.person,),
        )


class ResidentIndex:
    """Who has these four basic items, by their blind index."""

    name: ClassVar[str] = "resident_index"
    tables: ClassVar[Mapping[str, str]] = {
        "resident": "person TEXT PRIMARY KEY, items_index TEXT, position INTEGER",
        "resident_items": "items_index TEXT, person TEXT, PRIMARY KEY (items_index, person)",
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        if not isinstance(recorded.event, PersonRegistered):
            return
        e = recorded.event
        rows.execute(
            "DELETE FROM resident_items WHERE person = ? "
            "AND items_index = (SELECT items_index FROM resident WHERE person = ?)",
            (e.person, e.person),
        )
        rows.execute(
            "INSERT INTO resident VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET "
            "items_index = excluded.items_index, position = excluded.position",
            (e.person, e.items_index, recorded.position),
        )
        rows.execute("INSERT INTO resident_items VALUES (?, ?)", (e.items_index, e.person))


PROJECTIONS = (Acquisition(), ResidentIndex())
