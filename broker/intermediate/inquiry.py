"""Inquiries as the inquirer lives them: asked, permitted or refused, answered person by person.

Every inquiry leaves a record, also one that never left the house (R-154). An inquiry has one or many units (a
person, a household), each of which somebody ordered under a request id of its own. The stream of a request id
is the inquiry itself where it asks alone, or says in which inquiry it is asked together with others (一括).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, TypeAlias

from broker.ledger.events import event, personal
from schemas.errors import Refusal
from schemas.messages import NetworkVerdict, ReceivedAnswer


@dataclass(frozen=True)
@event("inquiry.requested", retention="provision_record")
class InquiryRequested:
    """Someone of this agency asked. All that article 23 wants of a request is here.

    `units` says how many persons stand together, one number for each of `request_ids`, `case_numbers`
    (事案番号, "" for none), `repeats` (the request that it asks again, "" for none) and `digests`; a digest
    tells a repeated request from one that uses its id again for something else. `persons` are blind, in the
    order of `subjects` (integrated address numbers). `fiscal_year` selects the record asked for. Before
    `not_before` (ISO 8601, "" for at once) nothing is sent.
    """

    inquiry_id: str
    request_ids: tuple[str, ...]
    case_numbers: tuple[str, ...]
    repeats: tuple[str, ...]
    units: tuple[int, ...]
    persons: tuple[str, ...]
    office: str
    official_role: str
    inquirer: str
    inquirer_name: str
    provider: str
    provider_name: str
    basis: str
    law_version: str
    law_row: str
    affair: str
    information: str
    layout: str
    items: tuple[str, ...]
    fiscal_year: str
    requested_at: str
    not_before: str
    non_disclosure: bool
    digests: tuple[str, ...]
    staff_id: str = personal()
    terminal: str = personal()
    subjects: tuple[str, ...] = personal()


@dataclass(frozen=True)
@event("inquiry.joined", retention="provision_record")
class RequestJoined:
    """In the stream of a request id: it is asked as unit `unit` (from 0) of the inquiry `inquiry_id`."""

    inquiry_id: str
    unit: int
    digest: str


@dataclass(frozen=True)
@event("inquiry.released", retention="provision_record")
class InquiryReleased:
    """The time that an inquiry waited for has come: it goes on its way."""

    at: str


@dataclass(frozen=True)
@event("inquiry.permitted", retention="provision_record")
class InquiryPermitted:
    """The network let the inquiry pass: its processing number and until when it may be answered.

    `codes` says for each person why the network did not permit this one, or "".
    """

    processing_number: str
    decided_at: str
    valid_until: str
    codes: tuple[str, ...]


@dataclass(frozen=True)
@event("inquiry.refused", retention="provision_record")
class InquiryRefused:
    """Refused by this agency itself ("here"), by the network or by the provider, with a catalogue code.

    It ends what is open. `codes` has a code for each person where they differ.
    """

    by: str
    code: str
    processing_number: str
    decided_at: str
    codes: tuple[str, ...] = ()


@dataclass(frozen=True)
@event("inquiry.answered", retention="provision_record")
class InquiryAnswered:
    """An answer of the provider about the persons at the places `persons`.

    For each a code ("" where provided) and, sealed, the payload and the items that were `omitted` from it.
    """

    processing_number: str
    answer_message: str
    provided_at: str
    non_disclosure: bool
    persons: tuple[int, ...]
    codes: tuple[str, ...]
    omitted: tuple[tuple[str, ...], ...] = personal()
    payloads: tuple[Mapping[str, Any], ...] = personal()


@dataclass(frozen=True)
@event("inquiry.withdrawal_requested", retention="provision_record")
class InquiryWithdrawalRequested:
    """Someone of this agency wants the answer no more (取りやめ, R-089). The network has the word."""

    requested_at: str
    staff_id: str = personal()
    reason: str = personal()


@dataclass(frozen=True)
@event("inquiry.withdrawn", retention="provision_record")
class InquiryWithdrawn:
    """Withdrawn by the network or, where nothing had been sent yet, "here". It ends what is open."""

    by: str
    code: str
    decided_at: str


@dataclass(frozen=True)
@event("inquiry.not_withdrawn", retention="provision_record")
class InquiryNotWithdrawn:
    """The network did not withdraw it (N-110: it is answered already): what was open goes on waiting."""

    code: str
    decided_at: str


@dataclass(frozen=True)
@event("inquiry.expired", retention="provision_record")
class InquiryExpired:
    """The permit lapsed (N-109) before an answer about those who are open came."""

    code: str
    decided_at: str


EVENTS = (
    InquiryRequested,
    RequestJoined,
    InquiryReleased,
    InquiryPermitted,
    InquiryRefused,
    InquiryAnswered,
    InquiryWithdrawalRequested,
    InquiryWithdrawn,
    InquiryNotWithdrawn,
    InquiryExpired,
)

NONE, JOINED, DEFERRED, ASKED, WAITING = "none", "joined", "deferred", "asked", "waiting"
WITHDRAWING, WITHDRAWN, EXPIRED, ANSWERED, REFUSED = (
    "withdrawing",
    "withdrawn",
    "expired",
    "answered",
    "refused",
)
OPEN = (DEFERRED, ASKED, WAITING, WITHDRAWING)
MARGIN = timedelta(minutes=15)
"""So long after its end a permit counts as lapsed here: an answer relayed just in time is on its way."""

_WITHDRAWN, _LATE, _NOT_OPEN, _LAPSED = "I-111", "I-114", "I-113", "N-109"

# Where nobody is open any more, the inquiry ends instead as answered, or as refused if all are refused.
_STEPS = {
    (NONE, RequestJoined): JOINED,
    (NONE, InquiryRequested): ASKED,
    (DEFERRED, InquiryReleased): ASKED,
    (DEFERRED, InquiryRefused): REFUSED,
    (DEFERRED, InquiryWithdrawalRequested): WITHDRAWING,
    (ASKED, InquiryPermitted): WAITING,
    (ASKED, InquiryRefused): REFUSED,
    # An answer may overtake the network's verdict when that was lost on its way and is asked for again.
    (ASKED, InquiryAnswered): ASKED,
    (ASKED, InquiryWithdrawalRequested): WITHDRAWING,
    (WAITING, InquiryRefused): REFUSED,
    (WAITING, InquiryAnswered): WAITING,
    (WAITING, InquiryWithdrawalRequested): WITHDRAWING,
    (WAITING, InquiryExpired): EXPIRED,
    (WITHDRAWING, InquiryPermitted): WITHDRAWING,
    (WITHDRAWING, InquiryRefused): REFUSED,
    (WITHDRAWING, InquiryAnswered): WITHDRAWING,
    (WITHDRAWING, InquiryWithdrawn): WITHDRAWN,
    (WITHDRAWING, InquiryNotWithdrawn): WAITING,
    (WITHDRAWING, InquiryExpired): EXPIRED,
    # What the network relayed before the withdrawal, or before the permit lapsed, is taken when it comes.
    (WITHDRAWN, InquiryAnswered): WITHDRAWN,
    (EXPIRED, InquiryAnswered): EXPIRED,
}

Closing: TypeAlias = InquiryRefused | InquiryWithdrawn | InquiryExpired


@dataclass(frozen=True)
class Said:
    """What was said about one person: a code, or "" with the payload and the items omitted from it."""

    code: str
    payload: Mapping[str, Any]
    omitted: tuple[str, ...] = ()


@dataclass(frozen=True)
class State:
    """Where an inquiry stands: the request, the permit, what was said by place, and what ended the rest."""

    step: str = NONE
    request: InquiryRequested | None = None
    joined: RequestJoined | None = None
    permit: InquiryPermitted | None = None
    said: Mapping[int, Said] = field(default_factory=lambda: MappingProxyType({}))
    closing: Closing | None = None

    @property
    def open(self) -> tuple[int, ...]:
        """The places of persons of whom nothing was said."""
        count = len(self.request.persons) if self.request is not None else 0
        return tuple(place for place in range(count) if place not in self.said)


@dataclass(frozen=True)
class UnitResult:
    """What became of one unit: a state, the code of a refusal, and what was said of each person."""

    state: str
    code: str
    codes: tuple[str, ...]
    payloads: tuple[Mapping[str, Any], ...]
    omitted: tuple[tuple[str, ...], ...] = ()


def stream(inquiry_id: str) -> str:
    return f"inquiry/{inquiry_id}"


def evolve(state: State, happened: Any) -> State:
    """Raises KeyError for a step that cannot follow."""
    step = _STEPS[state.step, type(happened)]
    match happened:
        case InquiryRequested():
            return State(DEFERRED if happened.not_before else step, happened)
        case RequestJoined():
            return State(step, joined=happened)
        case InquiryPermitted():
            refused = {place: Said(code, {}) for place, code in enumerate(happened.codes) if code}
            return _settled(replace(state, step=step, permit=happened, said={**state.said, **refused}))
        case InquiryAnswered():
            told = map(Said, happened.codes, happened.payloads, happened.omitted)
            said = {**state.said, **dict(zip(happened.persons, told, strict=True))}
            return _settled(replace(state, step=step, said=said))
        case InquiryRefused():
            codes = happened.codes or (happened.code,) * len(state.request.persons if state.request else ())
            said = {**state.said, **{place: Said(codes[place], {}) for place in state.open}}
            return _settled(replace(state, step=step, said=said, closing=happened))
        case InquiryWithdrawn() | InquiryExpired():
            return replace(state, step=step, closing=happened)
    return replace(state, step=step)


def _settled(state: State) -> State:
    """The end, where something was said of everybody."""
    if state.open:
        return state
    return replace(state, step=REFUSED if all(each.code for each in state.said.values()) else ANSWERED)


def units(sizes: Sequence[int]) -> Iterator[range]:
    """The places of each unit."""
    first = 0
    for size in sizes:
        yield range(first, first + size)
        first += size


def unit_result(state: State, places: Sequence[int]) -> UnitResult:
    """What became of the unit at these places of the inquiry."""
    rest = state.closing.code if state.closing is not None else ""
    said = [state.said.get(place) or (Said(rest, {}) if rest else None) for place in places]
    told = [each for each in said if each is not None]
    if len(told) < len(said) or not said:
        refused = state.closing is not None and not said
        return UnitResult(REFUSED if refused else state.step, rest if refused else "", (), ())
    codes = tuple(each.code for each in told)
    if not all(codes):
        payloads = tuple(each.payload for each in told)
        return UnitResult(ANSWERED, "", codes, payloads, tuple(each.omitted for each in told))
    silent = all(place not in state.said for place in places)
    return UnitResult(state.step if silent else REFUSED, codes[0], codes, ())


def repeated(state: State, digest: str) -> Refusal | None:
    """Was this request recorded before (I-105), or its id used for something else (B-008)?"""
    if state.joined is not None:
        return Refusal("I-105" if state.joined.digest == digest else "B-008")
    if state.request is None:
        return None
    return Refusal("I-105" if state.request.digests == (digest,) else "B-008")


def decide_again(ended: UnitResult) -> Refusal | None:
    """May a new request ask again what this one asked (R-201)? I-115 where there is none, I-116 while it is
    open or where it was answered."""
    if ended.state == NONE:
        return Refusal("I-115")
    return None if ended.state in (REFUSED, WITHDRAWN, EXPIRED) else Refusal("I-116")


def decide_request(
    request: InquiryRequested, refusal: Refusal | None
) -> tuple[InquiryRequested | InquiryRefused, ...]:
    """Record a request, and with it the refusal if a check of this house failed."""
    if refusal is None:
        return (request,)
    return (replace(request, not_before=""), InquiryRefused("here", refusal.code, "", request.requested_at))


def decide_release(
    state: State, at: str, refusal: Refusal | None
) -> tuple[InquiryReleased | InquiryRefused, ...]:
    """The time to send has come; or a check of this house, made again now, failed."""
    if state.step != DEFERRED:
        return ()
    return (InquiryRefused("here", refusal.code, "", at) if refusal is not None else InquiryReleased(at),)


def decide_verdict(state: State, verdict: NetworkVerdict) -> tuple[InquiryPermitted | InquiryRefused, ...]:
    """The network's verdict; one that comes late or twice changes nothing."""
    if state.step not in (ASKED, WITHDRAWING) or state.permit is not None or state.request is None:
        return ()
    number, at = verdict.processing_number, verdict.decided_at
    # Whoever was answered about before was permitted, whatever the verdict says now.
    given = verdict.codes if len(verdict.codes) == len(state.request.persons) else ()
    codes = tuple("" if place in state.said else code or verdict.code for place, code in enumerate(given))
    if verdict.code:
        differ = codes if len(set(codes)) > 1 else ()
        return (InquiryRefused("network", verdict.code, number, at, differ),)
    return (InquiryPermitted(number, at, verdict.valid_until, codes),)


def decide_answer(
    state: State, answer: ReceivedAnswer, faults: tuple[str, ...]
) -> tuple[InquiryRefused | InquiryAnswered, ...] | Refusal:
    """Take an answer in. `faults` gives for each of its subjects I-301 where its payload does not fit.

    Each person is answered about once, and a unit as a whole. What the network relayed before a withdrawal or
    the end of the permit is taken whenever it comes; later ones are refused (I-114, L-106).
    """
    control = answer.control
    if state.request is None or state.step not in (ASKED, WAITING, WITHDRAWING, WITHDRAWN, EXPIRED):
        return Refusal("L-107", f"inquiry is {state.step}")
    named, waiting = set(control.persons), set(state.open)
    if not named or not named <= waiting:
        return Refusal("L-107", "persons")
    if any(named.intersection(unit) and not named.issuperset(unit) for unit in units(state.request.units)):
        return Refusal("L-107", "units")
    late = _too_late(state, answer.note.relayed_at)
    if late is not None:
        return late
    number, at = control.processing_number, control.answered_at
    if control.code and named == waiting and state.step in OPEN:
        return (InquiryRefused("provider", control.code, number, at),)
    said = (Said(control.code, {}),) * len(control.persons)
    if not control.code:
        coded = zip(answer.subjects, faults, strict=True)
        said = tuple(
            Said(code, {}) if (code := each.code or fault) else Said("", each.payload, each.omitted)
            for each, fault in coded
        )
    return (
        InquiryAnswered(
            number,
            control.message_id,
            at,
            control.non_disclosure,
            control.persons,
            tuple(each.code for each in said),
            tuple(each.omitted for each in said),
            tuple(each.payload for each in said),
        ),
    )


def _too_late(state: State, relayed_at: str) -> Refusal | None:
    relayed = datetime.fromisoformat(relayed_at)
    if isinstance(state.closing, InquiryWithdrawn) and (
        state.closing.by == "here" or relayed > datetime.fromisoformat(state.closing.decided_at)
    ):
        return Refusal(_LATE)
    if state.permit is not None and relayed > datetime.fromisoformat(state.permit.valid_until):
        return Refusal("L-106")
    return None


def decide_withdraw(
    state: State, wanted: InquiryWithdrawalRequested, *, sent: bool
) -> tuple[InquiryWithdrawalRequested | InquiryWithdrawn, ...] | Refusal:
    """Withdraw what is open (R-089); I-113 where nothing is. What was not `sent` needs no verdict."""
    if state.step == WITHDRAWING:
        return ()
    if state.step not in OPEN:
        return Refusal(_NOT_OPEN)
    if sent:
        return (wanted,)
    return (wanted, InquiryWithdrawn("here", _WITHDRAWN, wanted.requested_at))


def decide_withdrawn(
    state: State, code: str, decided_at: str
) -> tuple[InquiryWithdrawn | InquiryNotWithdrawn, ...]:
    """The network's word on the withdrawal; once everything is answered it changes nothing."""
    if state.step != WITHDRAWING:
        return ()
    if code:
        return (InquiryNotWithdrawn(code, decided_at),)
    return (InquiryWithdrawn("network", _WITHDRAWN, decided_at),)


def decide_expire(state: State, now: datetime) -> tuple[InquiryExpired, ...]:
    """End what is open MARGIN after the end of its permit."""
    if state.permit is None or state.step not in (WAITING, WITHDRAWING):
        return ()
    if now <= datetime.fromisoformat(state.permit.valid_until) + MARGIN:
        return ()
    return (InquiryExpired(_LAPSED, now.isoformat(timespec="microseconds")),)
