"""A provision as the provider lives it: asked, then provided, refused, or held for an officer.

The answer and its provision record are one unit: what was disclosed is recorded, by construction (R-147 to
R-154). The data itself is not copied: `sources` are the positions of the replica events that were read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.ledger.events import event, personal
from schemas.errors import Refusal
from schemas.messages import AnswerSubject


@dataclass(frozen=True)
@event("provision.requested", retention="provision_record")
class ProvisionRequested:
    """The network told this agency that it was asked (Act art. 21(2)). `persons` are blind, "" if unknown."""

    processing_number: str
    inquiry_message: str
    persons: tuple[str, ...]
    office: str
    official_role: str
    inquirer: str
    inquirer_name: str
    provider: str
    provider_name: str
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
    """Automatic answering is barred for someone asked about: an officer decides (R-102)."""

    code: str


@dataclass(frozen=True)
@event("provision.provided", retention="provision_record")
class InformationProvided:
    """Answered; for each subject a code ("" where provided) and the position of the replica that was read."""

    answer_message: str
    provided_at: str
    non_disclosure: bool
    codes: tuple[str, ...]
    sources: tuple[int, ...]


@dataclass(frozen=True)
@event("provision.refused", retention="provision_record")
class ProvisionRefused:
    """Nothing was provided, for the reason that the code names."""

    answer_message: str
    decided_at: str
    code: str


@dataclass(frozen=True)
@event("provision.not_relayed", retention="provision_record")
class AnswerNotRelayed:
    """The network did not let the answer pass (N-109: too late), so nothing was provided after all."""

    code: str
    decided_at: str


EVENTS = (ProvisionRequested, ProvisionHeld, InformationProvided, ProvisionRefused, AnswerNotRelayed)

NONE, ASKED, HELD, PROVIDED, REFUSED = "none", "asked", "held", "provided", "refused"

_STEPS = {
    (NONE, ProvisionRequested): ASKED,
    (ASKED, ProvisionHeld): HELD,
    (ASKED, InformationProvided): PROVIDED,
    (ASKED, ProvisionRefused): REFUSED,
    (HELD, InformationProvided): PROVIDED,
    (HELD, ProvisionRefused): REFUSED,
    (PROVIDED, AnswerNotRelayed): REFUSED,
}


@dataclass(frozen=True)
class State:
    """Where a provision stands, what was asked, and the message that provided it."""

    step: str = NONE
    request: ProvisionRequested | None = None
    answer_message: str = ""


def stream(processing_number: str) -> str:
    return f"provision/{processing_number}"


def evolve(state: State, happened: Any) -> State:
    """Raises KeyError for a step that cannot follow."""
    step = _STEPS[state.step, type(happened)]
    if isinstance(happened, ProvisionRequested):
        return State(step, happened)
    provided = isinstance(happened, InformationProvided)
    return State(step, state.request, happened.answer_message if provided else state.answer_message)


@dataclass(frozen=True)
class SubjectFacts:
    """What was looked up about one subject before deciding.

    `person` is blind and "" where the link code is unknown; `guard_fits` is the comparison of R-086;
    `held` the flag of R-104; `source` the position of the replica (0: none) and `payload` its asked items.
    """

    person: str
    guard_fits: bool
    held: bool
    source: int
    payload: Mapping[str, Any]

    def code(self) -> str:
        """Why nothing is provided about this subject, or "". The order is the way the data goes."""
        if not self.person:
            return "I-201"
        if not self.guard_fits:
            return "I-202"
        return "" if self.source else "I-204"


@dataclass(frozen=True)
class Decided:
    """The events of a provision after its request, and what the answer says about each subject."""

    events: tuple[ProvisionHeld | InformationProvided | ProvisionRefused, ...]
    code: str
    subjects: tuple[AnswerSubject, ...]

    @property
    def held(self) -> bool:
        return isinstance(self.events[0], ProvisionHeld)


def decide_provide(
    state: State, answer_message: str, facts: tuple[SubjectFacts, ...], layout_known: bool, now: str
) -> Decided | Refusal:
    """Provide, refuse or hold. A held person holds the whole answer: nothing about her may be told apart.

    A hold counts for a subject only after the wrong-person guard, so that a wrong inquiry learns nothing.
    """
    if state.step != ASKED or state.request is None:
        return Refusal("L-107", f"provision is {state.step}")
    if not layout_known:
        return _refused("I-206", answer_message, now)
    codes = tuple(subject.code() for subject in facts)
    if any(f.held and f.person and f.guard_fits for f in facts):
        return Decided((ProvisionHeld("I-203"),), "I-203", ())
    if all(codes):
        return _refused(codes[0], answer_message, now)
    provided = InformationProvided(
        answer_message,
        now,
        state.request.non_disclosure,
        codes,
        tuple(0 if code else f.source for f, code in zip(facts, codes, strict=True)),
    )
    subjects = tuple(
        AnswerSubject(code, {} if code else f.payload) for f, code in zip(facts, codes, strict=True)
    )
    return Decided((provided,), "", subjects)


def decide_not_relayed(
    state: State, message_id: str, code: str, decided_at: str
) -> tuple[AnswerNotRelayed, ...]:
    """The network refused a message: if it was the one that provides, nothing was provided."""
    if state.step != PROVIDED or state.answer_message != message_id:
        return ()
    return (AnswerNotRelayed(code, decided_at),)


def _refused(code: str, answer_message: str, now: str) -> Decided:
    return Decided((ProvisionRefused(answer_message, now, code),), code, ())
