"""ID conversion (ID変換機能): the link code of a person in this agency and the number it stands for here.

The pair is sealed per person; what finds it are blind indexes, so the code conversion table shows neither
(R-109 to R-114). At most one code is valid for a person, and a code stands for one person; an individual
number never comes here (R-113).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from broker.ledger.events import Recorded, event, personal
from broker.ledger.projections import Rows
from schemas.errors import Refusal

REASONS = ("died", "moved", "erased", "replaced", "withdrawn")
"""Why a code was retired: the person died, moved, is to be erased, got another code; the network's order."""


@dataclass(frozen=True)
@event("link_code.acquired", retention="code_mapping", per_person=True)
class LinkCodeAcquired:
    """The network gave this agency its own code for a person. `code_index` is blind, `person` too."""

    person: str
    code_index: str
    link_code: str = personal()
    integrated_number: str = personal()


@dataclass(frozen=True)
@event("link_code.tied", retention="code_mapping")
class LinkCodeTied:
    """In the stream of a code (blind): whose it is here. One code, one person."""

    person: str


@dataclass(frozen=True)
@event("link_code.retired", retention="code_mapping")
class LinkCodeRetired:
    """The code is converted no longer, either way; `reason` is one of REASONS."""

    person: str
    code_index: str
    reason: str


@dataclass(frozen=True)
@event("link_code.retirement_told", retention="code_mapping")
class RetirementTold:
    """The network knows that the code is retired."""

    person: str
    code_index: str


EVENTS = (LinkCodeAcquired, LinkCodeTied, LinkCodeRetired, RetirementTold)


@dataclass(frozen=True)
class State:
    """The valid code of a person, and those retired that the network has still to be told of."""

    acquired: LinkCodeAcquired | None = None
    untold: tuple[str, ...] = ()


def stream(person: str) -> str:
    return f"link_code/{person}"


def code_stream(code_index: str) -> str:
    return f"code/{code_index}"


def evolve(state: State, happened: Any) -> State:
    """Raises KeyError for a step that cannot follow."""
    valid = state.acquired.code_index if state.acquired is not None else ""
    match happened:
        case LinkCodeAcquired() if not valid:
            return State(happened, state.untold)
        case LinkCodeRetired(code_index=index) if index == valid:
            return State(None, (*state.untold, index))
        case RetirementTold(code_index=index) if index in state.untold:
            return State(state.acquired, tuple(one for one in state.untold if one != index))
    raise KeyError(type(happened).__name__)


def valid(recorded: Sequence[Recorded]) -> LinkCodeAcquired | None:
    """The valid code of a person, by the events of the person's stream; None, too, where it was erased."""
    state = State()
    for happened in recorded:
        state = evolve(state, happened.event)
    readable = any(state.acquired is r.event and not r.erased for r in recorded)
    return state.acquired if readable else None


def decide_lost(state: State, readable: bool) -> tuple[Any, ...]:
    """The key of the valid code was destroyed: it is retired, and nobody can name it to the network."""
    if state.acquired is None or readable:
        return ()
    place = (state.acquired.person, state.acquired.code_index)
    return LinkCodeRetired(*place, "erased"), RetirementTold(*place)


def decide_tie(owner: str, person: str) -> tuple[LinkCodeTied, ...] | Refusal:
    """`owner` is whose the code is here so far ("" for nobody's). I-224: another person's."""
    if owner not in ("", person):
        return Refusal("I-224")
    return () if owner else (LinkCodeTied(person),)


def decide_acquire(state: State, wanted: LinkCodeAcquired) -> tuple[Any, ...]:
    """The same code again changes nothing; another one retires the one that was valid."""
    if state.acquired is None:
        return (wanted,)
    if state.acquired.code_index == wanted.code_index:
        return ()
    return (*decide_retire(state, state.acquired.code_index, "replaced"), wanted)


def decide_retire(state: State, code_index: str, reason: str) -> tuple[LinkCodeRetired, ...]:
    """Retire a code, once."""
    if state.acquired is None or state.acquired.code_index != code_index:
        return ()
    return (LinkCodeRetired(state.acquired.person, code_index, reason),)


def decide_told(state: State, person: str, code_index: str) -> tuple[RetirementTold, ...]:
    return (RetirementTold(person, code_index),) if code_index in state.untold else ()


class CodeConversionTable:
    """コード変換テーブル: both directions by blind index; the codes themselves stay in the events.

    `retired_code` holds those that the network has still to be told of.
    """

    name: ClassVar[str] = "code_conversion"
    tables: ClassVar[Mapping[str, str]] = {
        "code_conversion": "person TEXT PRIMARY KEY, code_index TEXT UNIQUE, position INTEGER",
        "retired_code": "code_index TEXT PRIMARY KEY, person TEXT, position INTEGER",
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        match recorded.event:
            case LinkCodeAcquired() as e:
                rows.execute(
                    "INSERT INTO code_conversion VALUES (?, ?, ?)",
                    (e.person, e.code_index, recorded.position),
                )
            case LinkCodeRetired() as e:
                rows.execute(
                    "INSERT INTO retired_code SELECT code_index, person, position FROM code_conversion "
                    "WHERE person = ? AND code_index = ?",
                    (e.person, e.code_index),
                )
                rows.execute("DELETE FROM code_conversion WHERE person = ?", (e.person,))
            case RetirementTold() as e:
                rows.execute("DELETE FROM retired_code WHERE code_index = ?", (e.code_index,))
