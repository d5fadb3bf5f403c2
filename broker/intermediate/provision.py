"""A provision as the provider lives it: asked about persons, each then provided, refused, or held.

The answer and its provision record are one unit: what was disclosed is recorded, by construction (R-147 to
R-154). The data itself is not copied: `sources` are the positions of the replica events that were read.
Persons are places (from 0) among those of the inquiry. Who stands in one unit is answered together; units do
not wait for each other. What an officer says about held persons is decided in `approval`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from broker.ledger.events import event, personal
from schemas.errors import Refusal
from schemas.law.approval import AFTERWARDS, leaves_by_itself
from schemas.messages import AnswerSubject

PART = 500
"""Persons of one answer; a larger unit is an answer of its own."""
APPROVAL = "approval_required"
"""The reason of a hold where the work itself is approved by hand, and no hold was set."""
MessageId = Callable[[int], str]
"""The id of the answer of this number (from 0) within a provision."""


@dataclass(frozen=True)
@event("provision.requested", retention="provision_record")
class ProvisionRequested:
    """The network told this agency that it was asked (Act art. 21(2)). `persons` are blind, "" if unknown.

    `units` says how many persons stand together; `codes` why the network did not permit a person, or "".
    """

    processing_number: str
    inquiry_message: str
    persons: tuple[str, ...]
    units: tuple[int, ...]
    codes: tuple[str, ...]
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
    requested_at: str
    valid_until: str
    non_disclosure: bool
    subjects: tuple[str, ...] = personal()
    link_codes: tuple[str, ...] = personal()
    fiscal_years: tuple[str, ...] = personal()


@dataclass(frozen=True)
@event("provision.held", retention="provision_record")
class ProvisionHeld:
    """Automatic answering is barred for these persons: an officer decides until `valid_until` (R-102).

    `reasons` says for each why; it is empty for those who only stand in one unit with somebody held. `codes`
    are what the look-up of each link code ended with (I-201, I-202), or "".
    """

    persons: tuple[int, ...]
    reasons: tuple[tuple[str, ...], ...]
    codes: tuple[str, ...]
    valid_until: str
    code: str


@dataclass(frozen=True)
@event("provision.provided", retention="provision_record")
class InformationProvided:
    """Answered about `persons`: for each a code ("" where provided) and the position of what was read.

    `omitted` are the items of each that were asked for and not provided. `review` tells that an officer looks
    at it afterwards (R-096).
    """

    answer_message: str
    provided_at: str
    non_disclosure: bool
    persons: tuple[int, ...]
    codes: tuple[str, ...]
    sources: tuple[int, ...]
    review: bool
    omitted: tuple[tuple[str, ...], ...] = personal()


@dataclass(frozen=True)
@event("provision.refused", retention="provision_record")
class ProvisionRefused:
    """Nothing was provided about `persons`, for the reason that the code names."""

    answer_message: str
    decided_at: str
    persons: tuple[int, ...]
    code: str


@dataclass(frozen=True)
@event("provision.not_relayed", retention="provision_record")
class AnswerNotRelayed:
    """The network did not let an answer pass (N-109: too late), so nothing was provided after all."""

    answer_message: str
    code: str
    decided_at: str


@dataclass(frozen=True)
@event("provision.decision_proposed", retention="provision_record")
class DecisionProposed:
    """A first officer would let these held persons go; a second one has to release them (four eyes)."""

    decided_at: str
    persons: tuple[int, ...]
    withheld_persons: tuple[int, ...]
    withheld_items: tuple[str, ...]
    staff_id: str = personal()
    purpose: str = personal()


@dataclass(frozen=True)
@event("provision.released", retention="provision_record")
class ProvisionReleased:
    """An officer let these held persons go, save those withheld, and save the items withheld (R-106)."""

    decided_at: str
    persons: tuple[int, ...]
    withheld_persons: tuple[int, ...]
    withheld_items: tuple[str, ...]
    staff_id: str = personal()
    purpose: str = personal()


@dataclass(frozen=True)
@event("provision.denied", retention="provision_record")
class ProvisionDenied:
    """An officer decided that nothing goes about these held persons."""

    decided_at: str
    persons: tuple[int, ...]
    staff_id: str = personal()
    purpose: str = personal()


@dataclass(frozen=True)
@event("provision.reviewed", retention="provision_record")
class ProvisionReviewed:
    """An officer looked afterwards at what was answered automatically, and found it right or not (R-096)."""

    reviewed_at: str
    approved: bool
    staff_id: str = personal()
    purpose: str = personal()


@dataclass(frozen=True)
@event("provision.withdrawn", retention="provision_record")
class ProvisionWithdrawn:
    """The inquirer withdrew what was still open (取りやめ)."""

    at: str


@dataclass(frozen=True)
@event("provision.expired", retention="provision_record")
class ProvisionExpired:
    """The permit lapsed while persons were held (ordinance art. 41(3)): nothing is provided about them."""

    at: str


EVENTS = (
    ProvisionRequested,
    ProvisionHeld,
    InformationProvided,
    ProvisionRefused,
    AnswerNotRelayed,
    DecisionProposed,
    ProvisionReleased,
    ProvisionDenied,
    ProvisionReviewed,
    ProvisionWithdrawn,
    ProvisionExpired,
)

ASKED, NOT_PERMITTED, HELD, PROVIDED, REFUSED = "asked", "not_permitted", "held", "provided", "refused"
RELEASED, DENIED, WITHDRAWN, EXPIRED = "released", "denied", "withdrawn", "expired"

# What an event is for one person, and what follows. From held, data goes out by a release alone.
_STEPS = {
    (ASKED, "hold"): HELD,
    (ASKED, "provide"): PROVIDED,
    (ASKED, "refuse"): REFUSED,
    (ASKED, "withdraw"): WITHDRAWN,
    (HELD, "propose"): HELD,
    (HELD, "release"): RELEASED,
    (HELD, "deny"): DENIED,
    (HELD, "withdraw"): WITHDRAWN,
    (HELD, "expire"): EXPIRED,
    (RELEASED, "provide"): PROVIDED,
    (RELEASED, "refuse"): REFUSED,
    (DENIED, "refuse"): REFUSED,
    (PROVIDED, "not relay"): REFUSED,
}


@dataclass(frozen=True)
class State:
    """What was asked and how it stands with each person.

    `held` are the reasons and the code of each who was held, `answers` the persons of each answer,
    `proposal` what a first officer proposed, `review` whether an officer still has to look at it afterwards.
    """

    request: ProvisionRequested | None = None
    persons: tuple[str, ...] = ()
    held: Mapping[int, tuple[tuple[str, ...], str]] = field(default_factory=dict)
    answers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    proposal: DecisionProposed | None = None
    review: bool = False
    withdrawn_at: str = ""

    def places(self, *standing: str) -> tuple[int, ...]:
        """The persons of whom this is so."""
        return tuple(place for place, step in enumerate(self.persons) if step in standing)


def stream(processing_number: str) -> str:
    return f"provision/{processing_number}"


def evolve(state: State, happened: Any) -> State:
    """Raises KeyError for a step that cannot follow."""
    if isinstance(happened, ProvisionRequested):
        if state.request is not None:
            raise KeyError("requested twice")
        steps = tuple(NOT_PERMITTED if code else ASKED for code in happened.codes)
        return replace(state, request=happened, persons=steps)
    if isinstance(happened, ProvisionWithdrawn):  # it may even overtake the inquiry on its way
        state = replace(state, withdrawn_at=happened.at)
    elif state.request is None:
        raise KeyError("not requested")
    persons = list(state.persons)
    for place, what in _steps(state, happened):
        persons[place] = _STEPS[persons[place], what]
    state = replace(state, persons=tuple(persons))
    match happened:
        case ProvisionHeld():
            found = zip(happened.persons, happened.reasons, happened.codes, strict=True)
            return replace(state, held={**state.held, **{p: (why, code) for p, why, code in found}})
        case InformationProvided() | ProvisionRefused():
            answers = {**state.answers, happened.answer_message: happened.persons}
            review = state.review or (isinstance(happened, InformationProvided) and happened.review)
            return replace(state, answers=answers, review=review)
        case DecisionProposed():
            return replace(state, proposal=happened)
        case ProvisionReleased() | ProvisionDenied() | ProvisionWithdrawn() | ProvisionExpired():
            return replace(state, proposal=None)
        case ProvisionReviewed():
            if not state.review:
                raise KeyError("nothing to review")
            return replace(state, review=False)
    return state


def _steps(state: State, happened: Any) -> Iterator[tuple[int, str]]:
    """Which persons an event is about, and what it is for each."""
    match happened:
        case ProvisionHeld():
            yield from ((place, "hold") for place in happened.persons)
        case DecisionProposed():
            yield from ((place, "propose") for place in happened.persons)
        case ProvisionReleased():
            withheld = frozenset(happened.withheld_persons)
            yield from ((place, "deny" if place in withheld else "release") for place in happened.persons)
        case ProvisionDenied():
            yield from ((place, "deny") for place in happened.persons)
        case InformationProvided():
            for place, code in zip(happened.persons, happened.codes, strict=True):
                yield place, "refuse" if code else "provide"
        case ProvisionRefused():
            yield from ((place, "refuse") for place in happened.persons)
        case AnswerNotRelayed():
            answered = state.answers[happened.answer_message]
            yield from ((place, "not relay") for place in answered if state.persons[place] == PROVIDED)
        case ProvisionWithdrawn():
            yield from ((place, "withdraw") for place in state.places(ASKED, HELD))
        case ProvisionExpired():
            yield from ((place, "expire") for place in state.places(HELD))


@dataclass(frozen=True)
class SubjectFacts:
    """What was looked up about one subject before deciding.

    `person` is blind and "" where the link code is unknown; `guard_fits` is the comparison of R-086;
    `reasons` are those of the holds that bar an automatic answer; `source` is the position of the replica
    (0: none), `payload` its asked items and `omitted` those asked items that it should have and has not;
    `non_disclosure` is the flag of R-107.
    """

    person: str
    guard_fits: bool
    reasons: tuple[str, ...]
    source: int
    payload: Mapping[str, Any]
    omitted: tuple[str, ...] = ()
    non_disclosure: bool = False

    @property
    def wrong(self) -> str:
        """Why this is not the person, or nobody here, or ""."""
        return "" if self.person and self.guard_fits else "I-202" if self.person else "I-201"

    def said(self) -> "Said":
        """What an answer says. The order of the checks is the way the data goes."""
        code = self.wrong or ("" if self.source else "I-204")
        if code:
            return Said(code)
        return Said("", self.source, self.payload, self.omitted, self.non_disclosure)


NOBODY = SubjectFacts("", False, (), 0, {})


@dataclass(frozen=True)
class Said:
    """What an answer says about one person: a code, or the payload with its source."""

    code: str
    source: int = 0
    payload: Mapping[str, Any] = field(default_factory=dict)
    omitted: tuple[str, ...] = ()
    non_disclosure: bool = False


@dataclass(frozen=True)
class Answer:
    """An answer to be sent, about `persons`; with a code there are no subjects."""

    message_id: str
    code: str
    persons: tuple[int, ...]
    non_disclosure: bool
    subjects: tuple[AnswerSubject, ...]


@dataclass(frozen=True)
class Decided:
    """Events of a provision, and the answers that go out in one unit with them."""

    events: tuple[Any, ...]
    answers: tuple[Answer, ...] = ()


def units_of(units: Iterable[int]) -> Iterator[tuple[int, ...]]:
    """The places of the persons of each unit."""
    first = 0
    for size in units:
        yield tuple(range(first, first + size))
        first += size


def decide_provide(
    state: State,
    facts: Sequence[SubjectFacts],
    mode: Callable[[tuple[str, ...]], str],
    refused: str,
    now: str,
    message_id: MessageId,
) -> Decided | Refusal:
    """Provide, refuse or hold, unit by unit. A held person holds her unit: nothing of it may tell her apart.

    `facts` has everybody whom the inquiry is about, and `mode` how the agency approves an answer that these
    reasons bar. `refused` is why the inquiry itself is refused whomever it is about, or "". A hold counts
    only after the wrong-person guard, so that a wrong inquiry learns nothing.
    """
    if state.request is None or ASKED not in state.persons or state.withdrawn_at:
        return Refusal("L-107", "provision is not open")
    held: list[tuple[int, tuple[str, ...]]] = []
    free: dict[bool, list[tuple[int, ...]]] = {}
    for unit in units_of(state.request.units):
        if state.persons[unit[0]] != ASKED:  # the network permits whole units
            continue
        # What is refused whomever it is about is refused before anything is looked at.
        reasons = [facts[p].reasons if not refused and not facts[p].wrong else () for p in unit]
        how = mode(tuple(sorted({reason for each in reasons for reason in each})))
        if refused or leaves_by_itself(how) or all(facts[p].wrong for p in unit):
            free.setdefault(how == AFTERWARDS, []).append(unit)
            continue
        if not any(reasons):
            reasons = [() if facts[p].wrong else (APPROVAL,) for p in unit]
        held += zip(unit, reasons, strict=True)
    events: tuple[Any, ...] = ()
    if held:
        codes = tuple(facts[place].wrong for place, _ in held)
        places = tuple(place for place, _ in held)
        why = tuple(reasons for _, reasons in held)
        events = (ProvisionHeld(places, why, codes, state.request.valid_until, "I-203"),)
    decided = Decided(events)
    for review, units in free.items():
        said = {p: Said(refused) if refused else facts[p].said() for unit in units for p in unit}
        more = answered(state, units, said, now, message_id, review=review, before=len(decided.answers))
        decided = Decided(decided.events + more.events, decided.answers + more.answers)
    return decided


def answered(
    state: State,
    units: Iterable[tuple[int, ...]],
    said: Mapping[int, Said],
    now: str,
    message_id: MessageId,
    *,
    review: bool = False,
    before: int = 0,
) -> Decided:
    """The answers about these units, in parts, with what is recorded of them.

    A unit of which nothing can be provided is refused by its first code. What falls under non-disclosure goes
    apart, since a message says so of all its persons (ordinance art. 46(3)1).
    """
    request = state.request
    if request is None:
        raise ValueError("nothing was requested")
    alike: dict[tuple[str, bool], list[tuple[int, ...]]] = {}
    for unit in units:
        codes = [said[place].code for place in unit]
        refused = codes[0] if all(codes) else ""
        hidden = request.non_disclosure or any(said[place].non_disclosure for place in unit)
        alike.setdefault((refused, hidden), []).append(unit)
    events: list[Any] = []
    answers: list[Answer] = []
    for (code, hidden), together in alike.items():
        for places in _parts(together):
            name = message_id(len(state.answers) + before + len(answers))
            if code:
                events.append(ProvisionRefused(name, now, places, code))
                answers.append(Answer(name, code, places, hidden, ()))
                continue
            each = [said[place] for place in places]
            events.append(
                InformationProvided(
                    name,
                    now,
                    hidden,
                    places,
                    tuple(one.code for one in each),
                    tuple(one.source for one in each),
                    review,
                    tuple(one.omitted for one in each),
                )
            )
            subjects = tuple(AnswerSubject(one.code, one.payload, one.omitted) for one in each)
            answers.append(Answer(name, "", places, hidden, subjects))
    return Decided(tuple(events), tuple(answers))


def _parts(units: Iterable[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    """Whole units together, as many as go into one answer."""
    part: tuple[int, ...] = ()
    for unit in units:
        if part and len(part) + len(unit) > PART:
            yield part
            part = ()
        part += unit
    if part:
        yield part


def decide_withdraw(state: State, now: str) -> tuple[ProvisionWithdrawn, ...]:
    """The inquirer withdrew: what is not answered ends. What was answered stays so."""
    waits = state.request is None or state.places(ASKED, HELD)
    return (ProvisionWithdrawn(now),) if waits and not state.withdrawn_at else ()


def decide_expire(state: State, now: str) -> tuple[ProvisionExpired, ...]:
    """The permit lapsed while persons were held."""
    return (ProvisionExpired(now),) if state.places(HELD) else ()


def decide_not_relayed(
    state: State, message_id: str, code: str, decided_at: str
) -> tuple[AnswerNotRelayed, ...]:
    """The network refused a message: if it was one that provides, nothing was provided."""
    if PROVIDED not in {state.persons[place] for place in state.answers.get(message_id, ())}:
        return ()
    return (AnswerNotRelayed(message_id, code, decided_at),)
