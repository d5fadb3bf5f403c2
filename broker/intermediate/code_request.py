"""Requests to acquire a link code (Order art. 26(3)): the provider had none, and the inquirer asked for one.

Both sides keep a stream under the processing number of the exchange. The inquirer names the person by the
four basic items, because the two have no code in common; the provider finds the person by them, or an officer
does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from broker.ledger.events import Recorded, event, personal
from broker.ledger.projections import Rows
from schemas.errors import Refusal

NO_CODE = "N-106"
LISTED = ("I-221", "I-222")
"""Persons whom an officer has to look at: nobody, or several, have these items."""


@dataclass(frozen=True)
@event("code_request.sent", retention="linkage_log")
class CodeRequestSent:
    """The inquirer asks the provider to acquire codes; `persons` are blind, in the order of the letter."""

    processing_number: str
    message_id: str
    provider: str
    persons: tuple[str, ...]
    sent_at: str
    staff_id: str = personal()


@dataclass(frozen=True)
@event("code_request.settled", retention="linkage_log")
class CodeRequestSettled:
    """The network relayed the request (code "") or refused it."""

    message_id: str
    code: str
    decided_at: str


@dataclass(frozen=True)
@event("code_request.received", retention="linkage_log")
class CodeRequestReceived:
    """The provider got a request. `codes` say what became of each person: "" where a code is acquired now.

    `persons` are blind ("" where nobody was found), and `items` what the inquirer wrote about them.
    """

    processing_number: str
    message_id: str
    inquirer: str
    received_at: str
    persons: tuple[str, ...]
    codes: tuple[str, ...]
    items: tuple[Mapping[str, str], ...] = personal()


@dataclass(frozen=True)
@event("code_request.decided", retention="linkage_log")
class CodeRequestDecided:
    """An officer said who the person at a place is (code "", and a code is acquired), or that there is no
    such person here (I-223)."""

    place: int
    person: str
    code: str
    decided_at: str
    staff_id: str = personal()


EVENTS = (CodeRequestSent, CodeRequestSettled, CodeRequestReceived, CodeRequestDecided)


@dataclass(frozen=True)
class State:
    """The request as it stands on this side; `settled` is the network's word (None: none yet)."""

    sent: CodeRequestSent | None = None
    settled: CodeRequestSettled | None = None
    letters: int = 0
    received: CodeRequestReceived | None = None
    codes: tuple[str, ...] = ()


def stream(processing_number: str) -> str:
    return f"code_request/{processing_number}"


def evolve(state: State, happened: Any) -> State:
    """Raises KeyError for a step that cannot follow."""
    match happened:
        case CodeRequestSent() if _may_send(state):
            return replace(state, sent=happened, settled=None, letters=state.letters + 1)
        case CodeRequestSettled() if state.sent is not None and state.settled is None:
            return replace(state, settled=happened)
        case CodeRequestReceived() if state.sent is None:
            return replace(state, received=happened, codes=happened.codes)
        case CodeRequestDecided(place=place) if place < len(state.codes) and state.codes[place] in LISTED:
            codes = (*state.codes[:place], happened.code, *state.codes[place + 1 :])
            return replace(state, codes=codes)
    raise KeyError(type(happened).__name__)


def _may_send(state: State) -> bool:
    """There is one request for an exchange, and another one only where the network refused the last."""
    return state.received is None and (
        state.sent is None or (state.settled is not None and state.settled.code != "")
    )


def decide_send(state: State, wanted: CodeRequestSent, provider_kind: str) -> tuple[Any, ...] | Refusal:
    """Ask the provider. I-225: the Minister of Justice as a provider is not asked (Order art. 26(3)); I-226:
    nobody of this exchange lacks a code; I-105: it was asked already."""
    if not wanted.persons:
        return Refusal("I-226")
    if provider_kind == "minister_of_justice":
        return Refusal("I-225")
    return (wanted,) if _may_send(state) else Refusal("I-105")


def decide_settle(state: State, settled: CodeRequestSettled) -> tuple[CodeRequestSettled, ...]:
    sent = state.sent
    fits = sent is not None and sent.message_id == settled.message_id and state.settled is None
    return (settled,) if fits else ()


def decide_receive(state: State, received: CodeRequestReceived) -> tuple[CodeRequestReceived, ...] | Refusal:
    """Take a request in; a second one about the same exchange replaces the first. L-107: it is our own."""
    return Refusal("L-107", "processing_number") if state.sent is not None else (received,)


def decide_person(state: State, decided: CodeRequestDecided) -> tuple[CodeRequestDecided, ...] | Refusal:
    """An officer's word on a person of the list. I-227: there is no such place on it."""
    listed = 0 <= decided.place < len(state.codes) and state.codes[decided.place] in LISTED
    return (decided,) if listed else Refusal("I-227")


class CodeRequests:
    """The requests that wait for an officer, one row for each person; the items are in the event."""

    name: ClassVar[str] = "code_requests"
    tables: ClassVar[Mapping[str, str]] = {
        "code_request": "stream TEXT, place INTEGER, inquirer TEXT, received_at TEXT, code TEXT, "
        "position INTEGER, PRIMARY KEY (stream, place)"
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        match recorded.event:
            case CodeRequestReceived() as e:
                rows.execute("DELETE FROM code_request WHERE stream = ?", (recorded.stream,))
                rows.executemany(
                    "INSERT INTO code_request VALUES (?, ?, ?, ?, ?, ?)",
                    [
                        (recorded.stream, place, e.inquirer, e.received_at, code, recorded.position)
                        for place, code in enumerate(e.codes)
                        if code in LISTED
                    ],
                )
            case CodeRequestDecided() as e:
                rows.execute(
                    "DELETE FROM code_request WHERE stream = ? AND place = ?", (recorded.stream, e.place)
                )


PROJECTIONS = (CodeRequests(),)
