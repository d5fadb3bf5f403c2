"""An inquiry as the inquirer lives it: asked, permitted or refused by the network, answered or refused.

Every inquiry leaves a record, also one that never left the house (R-154).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.ledger.events import event, personal
from schemas.errors import Refusal
from schemas.messages import ReceivedAnswer


@dataclass(frozen=True)
@event("inquiry.requested", retention="provision_record")
class InquiryRequested:
    """Someone of this agency asked. All that article 23 wants of a request is here.

    `persons` are blind, in the order of `subjects` (integrated address numbers). `digest` tells a repeated
    request from one that uses its id again for something else. `fiscal_year` selects the record asked for.
    """

    inquiry_id: str
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
    fiscal_year: str
    requested_at: str
    non_disclosure: bool
    digest: str
    staff_id: str = personal()
    subjects: tuple[str, ...] = personal()


@dataclass(frozen=True)
@event("inquiry.permitted", retention="provision_record")
class InquiryPermitted:
    """The network let the inquiry pass: its processing number and until when it may be answered."""

    processing_number: str
    decided_at: str
    valid_until: str


@dataclass(frozen=True)
@event("inquiry.refused", retention="provision_record")
class InquiryRefused:
    """Refused by this agency itself ("here"), by the network or by the provider, with a catalogue code."""

    by: str
    code: str
    processing_number: str
    decided_at: str


@dataclass(frozen=True)
@event("inquiry.answered", retention="provision_record")
class InquiryAnswered:
    """The provider's answer: for each subject a code ("" where provided) and, sealed, the payload."""

    processing_number: str
    provided_at: str
    non_disclosure: bool
    codes: tuple[str, ...]
    payloads: tuple[Mapping[str, Any], ...] = personal()


EVENTS = (InquiryRequested, InquiryPermitted, InquiryRefused, InquiryAnswered)

NONE, ASKED, WAITING, ANSWERED, REFUSED = "none", "asked", "waiting", "answered", "refused"

_STEPS = {
    (NONE, InquiryRequested): ASKED,
    (ASKED, InquiryPermitted): WAITING,
    (ASKED, InquiryRefused): REFUSED,
    (WAITING, InquiryRefused): REFUSED,
    (WAITING, InquiryAnswered): ANSWERED,
    # An answer may overtake the network's verdict when that was lost on its way and is asked for again.
    (ASKED, InquiryAnswered): ANSWERED,
}


@dataclass(frozen=True)
class State:
    """Where an inquiry stands, with the request and what closed it."""

    step: str = NONE
    request: InquiryRequested | None = None
    outcome: InquiryRefused | InquiryAnswered | None = None


def stream(inquiry_id: str) -> str:
    return f"inquiry/{inquiry_id}"


def evolve(state: State, happened: Any) -> State:
    """Raises KeyError for a step that cannot follow."""
    step = _STEPS[state.step, type(happened)]
    if isinstance(happened, InquiryRequested):
        return State(step, happened)
    closed = happened if isinstance(happened, (InquiryRefused, InquiryAnswered)) else None
    return State(step, state.request, closed)


def repeated(state: State, digest: str) -> Refusal | None:
    """Was this request recorded before (I-105), or its id used for something else (B-008)?"""
    if state.request is None:
        return None
    return Refusal("I-105" if state.request.digest == digest else "B-008")


def decide_request(
    state: State, request: InquiryRequested, refusal: Refusal | None
) -> tuple[InquiryRequested | InquiryRefused, ...] | Refusal:
    """Record the request, and with it the refusal if a check of this house failed; or I-105, B-008."""
    earlier = repeated(state, request.digest)
    if earlier is not None:
        return earlier
    if refusal is None:
        return (request,)
    return (request, InquiryRefused("here", refusal.code, "", request.requested_at))


def decide_verdict(
    state: State, processing_number: str, code: str, decided_at: str, valid_until: str
) -> tuple[InquiryPermitted | InquiryRefused, ...]:
    """The network's verdict; one that comes late or twice changes nothing."""
    if state.step != ASKED:
        return ()
    if code:
        return (InquiryRefused("network", code, processing_number, decided_at),)
    return (InquiryPermitted(processing_number, decided_at, valid_until),)


def decide_answer(
    state: State, answer: ReceivedAnswer, faults: tuple[str, ...]
) -> tuple[InquiryRefused | InquiryAnswered, ...] | Refusal:
    """Take an answer in. `faults` gives for each subject I-301 where its payload does not fit the layout.

    An answer about another number of persons closes the inquiry, too: no other answer will come.
    """
    if state.step not in (ASKED, WAITING) or state.request is None:
        return Refusal("L-107", f"inquiry is {state.step}")
    control = answer.control
    if control.code:
        return (InquiryRefused("provider", control.code, control.processing_number, control.answered_at),)
    if len(answer.subjects) != len(state.request.persons):
        return (InquiryRefused("here", "I-301", control.processing_number, control.answered_at),)
    codes = tuple(subject.code or fault for subject, fault in zip(answer.subjects, faults, strict=True))
    return (
        InquiryAnswered(
            control.processing_number,
            control.answered_at,
            control.non_disclosure,
            codes,
            tuple({} if code else s.payload for s, code in zip(answer.subjects, codes, strict=True)),
        ),
    )
