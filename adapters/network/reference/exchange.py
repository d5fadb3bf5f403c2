"""One exchange at the network: permitted or refused, then answered. These are its own records (Act 23(3))."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any, ClassVar

from broker.ledger.events import Recorded, event, personal
from broker.ledger.projections import Rows
from schemas.errors import Refusal
from schemas.law import Agency
from schemas.law.assessments import Assessments
from schemas.law.judgement import judge
from schemas.law.ordinances import Ordinances
from schemas.messages import MAX_RECORDS, AnswerControl, InquiryControl, Permit, decode


@dataclass(frozen=True)
@event("exchange.permitted", retention="provision_record")
class ExchangePermitted:
    """The provider is told that it was asked (Act art. 21(2)). `persons` are the network's own marks.

    `codes` says for each person why this one is not permitted, or ""; a unit is permitted as a whole.
    """

    processing_number: str
    message_id: str
    inquirer: str
    provider: str
    office: str
    basis: str
    law_version: str
    law_row: str
    affair: str
    information: str
    items: tuple[str, ...]
    requested_at: str
    decided_at: str
    valid_until: str
    persons: tuple[str, ...]
    units: tuple[int, ...]
    codes: tuple[str, ...]
    digest: str
    control: bytes
    signature: bytes
    sealed: bytes = personal()
    permit: bytes = personal()
    permit_signature: bytes = personal()
    inquirer_codes: tuple[str, ...] = personal()


@dataclass(frozen=True)
@event("exchange.refused", retention="provision_record")
class ExchangeRefused:
    """The inquiry was not permitted; it is recorded all the same (ordinance art. 47(1)2)."""

    processing_number: str
    message_id: str
    inquirer: str
    provider: str
    office: str
    basis: str
    law_version: str
    law_row: str
    information: str
    items: tuple[str, ...]
    requested_at: str
    decided_at: str
    code: str
    persons: tuple[str, ...]
    codes: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
@event("exchange.answered", retention="provision_record")
class ExchangeAnswered:
    """The provider answered (code "") or refused with a code; the answer goes to the inquirer's mailbox.

    `persons` are the places, among the persons of the inquiry, of those whom it answers about.
    """

    processing_number: str
    message_id: str
    inquirer: str
    provider: str
    code: str
    persons: tuple[int, ...]
    answered_at: str
    decided_at: str
    digest: str
    control: bytes
    signature: bytes
    sealed: bytes = personal()
    note: bytes = personal()
    note_signature: bytes = personal()


@dataclass(frozen=True)
@event("exchange.answer_refused", retention="linkage_log")
class AnswerRefused:
    """A message that claimed to be an answer was not let pass."""

    processing_number: str
    message_id: str
    sender: str
    code: str
    decided_at: str
    digest: str


@dataclass(frozen=True)
@event("exchange.withdrawn", retention="provision_record")
class ExchangeWithdrawn:
    """The inquirer withdrew what was still open (places of persons): no answer about them passes any more."""

    processing_number: str
    message_id: str
    persons: tuple[int, ...]
    decided_at: str


@dataclass(frozen=True)
@event("exchange.corrected", retention="provision_record")
class ExchangeCorrected:
    """A party corrected its record of this exchange and told so (Act art. 31(1) with R-161)."""

    processing_number: str
    message_id: str
    sender: str
    decided_at: str


EVENTS = (
    ExchangePermitted,
    ExchangeRefused,
    ExchangeAnswered,
    AnswerRefused,
    ExchangeWithdrawn,
    ExchangeCorrected,
)


@dataclass(frozen=True)
class State:
    """What is known of a processing number: its verdict, and the places of persons who are done with."""

    permitted: ExchangePermitted | None = None
    refused: ExchangeRefused | None = None
    answered: Mapping[str, ExchangeAnswered] = field(default_factory=dict)
    closed: frozenset[int] = frozenset()
    withdrawn: frozenset[int] = frozenset()

    @property
    def open(self) -> tuple[int, ...]:
        """The places of persons about whom an answer may still pass."""
        if self.permitted is None:
            return ()
        return tuple(place for place in range(len(self.permitted.codes)) if place not in self.closed)


def stream(processing_number: str) -> str:
    return f"exchange/{processing_number}"


def evolve(state: State, happened: Any) -> State:
    match happened:
        case ExchangePermitted():
            not_permitted = (place for place, code in enumerate(happened.codes) if code)
            return State(happened, closed=frozenset(not_permitted))
        case ExchangeRefused():
            return State(refused=happened)
        case ExchangeAnswered():
            answered = {**state.answered, happened.message_id: happened}
            return replace(state, answered=answered, closed=state.closed | frozenset(happened.persons))
        case ExchangeWithdrawn():
            gone = frozenset(happened.persons)
            return replace(state, closed=state.closed | gone, withdrawn=state.withdrawn | gone)
    return state


def decide_permit(
    control: InquiryControl,
    sender: str,
    inquirer: Agency | None,
    provider: Agency | None,
    ordinances: Mapping[str, Ordinances],
    assessments: Assessments,
    persons: tuple[str, ...],
    provider_codes: tuple[str, ...],
) -> tuple[str, ...] | Refusal:
    """May this inquiry pass? A code for each person, "" where permitted; a refusal where nothing may pass.

    Looked up before: the law of its day, the persons behind the inquirer's codes ("" for an unknown code) and
    the provider's codes for them ("" for none). A unit with one person who is not permitted is not permitted.
    """
    if inquirer is None:
        return Refusal("N-101")
    if control.inquirer != sender:
        return Refusal("N-102")
    if provider is None:
        return Refusal("N-104")
    try:
        day = date.fromisoformat(control.requested_at[:10])
    except ValueError:
        return Refusal("N-103", "requested_at")
    found = judge(
        control.basis,
        inquirer,
        provider,
        control.law_row,
        control.information,
        day,
        version=control.law_version,
        ordinances=ordinances,
    )
    if isinstance(found, Refusal):
        return Refusal("N-103", found.detail)
    unpublished = assessments.refuse(inquirer.code, provider.code, control.law_row, control.information, day)
    if unpublished is not None:
        return Refusal("N-115", unpublished.detail)
    if not control.units or min(control.units) < 1 or sum(control.units) > MAX_RECORDS:
        return Refusal("N-111", "units")
    if len(persons) != sum(control.units):
        return Refusal("N-105")
    codes: list[str] = []
    for size in control.units:
        unit = range(len(codes), len(codes) + size)
        known = all(persons[place] for place in unit)
        code = "N-105" if not known else "" if all(provider_codes[place] for place in unit) else "N-106"
        codes += [code] * size
    return Refusal(codes[0]) if all(codes) else tuple(codes)


def decide_answer(
    state: State, control: AnswerControl, sender: str, link_codes: tuple[str, ...], now: datetime
) -> Refusal | None:
    """May this answer pass? Only under a permit of this provider, in time, about whole units, and once.

    `link_codes` are what the answer says are the provider's codes of its persons.
    """
    permitted = state.permitted
    if control.provider != sender:
        return Refusal("N-102")
    if (
        permitted is None
        or permitted.provider != sender
        or (permitted.message_id, permitted.inquirer) != (control.in_reply_to, control.inquirer)
    ):
        return Refusal("N-108")
    persons = frozenset(control.persons)
    if persons & state.withdrawn:
        return Refusal("N-113")
    if persons & state.closed:
        return Refusal("N-110")
    if now > datetime.fromisoformat(permitted.valid_until):
        return Refusal("N-109")
    if not persons or len(persons) != len(control.persons) or not _whole(persons, permitted.units):
        return Refusal("N-111", "persons")
    ours = decode(Permit, permitted.permit).link_codes
    return None if link_codes == tuple(ours[place] for place in control.persons) else Refusal("N-112")


def _whole(persons: frozenset[int], units: tuple[int, ...]) -> bool:
    """Are these places whole units, and all of them places of the inquiry?"""
    first, seen = 0, 0
    for size in units:
        inside = sum(place in persons for place in range(first, first + size))
        if inside not in (0, size):
            return False
        first, seen = first + size, seen + inside
    return seen == len(persons)


def decide_withdraw(state: State, message_id: str, sender: str, now: str) -> ExchangeWithdrawn | Refusal:
    """The inquirer withdraws what is still open (R-089); N-108 for another's, N-110 where nothing is."""
    if state.permitted is None or state.permitted.inquirer != sender:
        return Refusal("N-108")
    if not state.open:
        return Refusal("N-110")
    return ExchangeWithdrawn(state.permitted.processing_number, message_id, state.open, now)


class Exchanges:
    """The network's record of each request, permitted or not, and its answer (Act art. 23(3))."""

    name: ClassVar[str] = "exchanges"
    tables: ClassVar[Mapping[str, str]] = {
        "exchange": "processing_number TEXT PRIMARY KEY, message_id TEXT, inquirer TEXT, provider TEXT, "
        "law_row TEXT, information TEXT, requested_at TEXT, code TEXT, answered_at TEXT, answer_code TEXT, "
        "position INTEGER"
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        match recorded.event:
            case ExchangePermitted() | ExchangeRefused() as e:
                rows.execute(
                    "INSERT INTO exchange VALUES (?, ?, ?, ?, ?, ?, ?, ?, '', '', ?)",
                    (
                        e.processing_number,
                        e.message_id,
                        e.inquirer,
                        e.provider,
                        e.law_row,
                        e.information,
                        e.requested_at,
                        e.code if isinstance(e, ExchangeRefused) else "",
                        recorded.position,
                    ),
                )
            case ExchangeAnswered() as e:
                rows.execute(
                    "UPDATE exchange SET answered_at = ?, answer_code = ? WHERE processing_number = ?",
                    (e.answered_at, e.code, e.processing_number),
                )
