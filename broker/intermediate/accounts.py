"""What an agency has on record of an exchange, to be laid beside what the others have.

Made from the clear parts of a stream alone: nobody needs a key to compare records.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from broker.intermediate import inquiry, notice, provision
from broker.intermediate.correction import CorrectionReceived, RecordCorrected
from broker.intermediate.inquiry import InquiryRequested
from broker.intermediate.notice import Disclosure, NoticeSent
from broker.intermediate.provision import ProvisionRequested
from broker.intermediate.received_notice import NoticeReceived
from broker.ledger.events import Recorded
from schemas.accounts import (
    ANSWERED,
    EXPIRED,
    HELD,
    INQUIRER,
    NOT_PERMITTED,
    OPEN,
    PROVIDER,
    WITHDRAWN,
    Account,
    Said,
)

# What an answer that the network did not relay is instead: a provision that never was.
_NOT_RELAYED = {"N-109": EXPIRED, "N-113": WITHDRAWN}


def account(recorded: Sequence[Recorded], corrections: Iterable[Recorded] = ()) -> Account | None:
    """The account of an inquiry, of a provision, or of a notice sent or received, from the events of its
    stream; None for one that tells of no person.
    """
    found: Account | None = None
    for happened in recorded:
        e = happened.event
        if isinstance(e, InquiryRequested | ProvisionRequested):
            found = _begun(e)
        elif isinstance(e, NoticeSent | NoticeReceived):
            found = _told(e) if e.persons else None
        elif found is not None and found.unasked:
            found = _noticed(found, e)
        elif found is not None:
            told = _inquired(found, e) if found.side == INQUIRER else _provided(found, e)
            found = replace(found, persons=_said(found.persons, told), **_numbers(e))
    if found is None:
        return None
    later = list(corrections)
    known = (c.event for c in later if isinstance(c.event, RecordCorrected | CorrectionReceived))
    return replace(
        found,
        corrections=tuple(sorted(c.correction_id for c in known if c.notified)),
        changed_at=[*recorded, *later][-1].at,
    )


def _begun(e: InquiryRequested | ProvisionRequested) -> Account:
    asked = isinstance(e, ProvisionRequested)
    codes = e.codes if isinstance(e, ProvisionRequested) else ("",) * len(e.persons)
    return Account(
        side=PROVIDER if asked else INQUIRER,
        inquirer=e.inquirer,
        provider=e.provider,
        message_id=e.inquiry_message if isinstance(e, ProvisionRequested) else e.inquiry_id,
        processing_number=e.processing_number if isinstance(e, ProvisionRequested) else "",
        requested_at=e.requested_at,
        valid_until=e.valid_until if isinstance(e, ProvisionRequested) else "",
        left=asked,
        basis=e.basis,
        law_version=e.law_version,
        law_row=e.law_row,
        information=e.information,
        office=e.office,
        items=e.items,
        units=e.units,
        non_disclosure=e.non_disclosure,
        persons=tuple(Said(NOT_PERMITTED, code) if code else Said() for code in codes),
        corrections=(),
        changed_at="",
    )


def _told(e: NoticeSent | NoticeReceived) -> Account:
    """A notice about persons: sent, it waits for the network's word."""
    sent = isinstance(e, NoticeSent)
    codes = ("",) * len(e.persons) if isinstance(e, NoticeSent) else e.codes
    disclosed: Disclosure = e
    return Account(
        side=PROVIDER if sent else INQUIRER,
        inquirer=disclosed.receiver,
        provider=disclosed.sender,
        message_id=disclosed.notice,
        processing_number="",
        requested_at=disclosed.sent_at,
        valid_until="",
        left=not sent,
        basis="",
        law_version=disclosed.law_version,
        law_row=disclosed.law_row,
        information=disclosed.information,
        office=disclosed.office,
        items=disclosed.items,
        units=(),
        non_disclosure=disclosed.non_disclosure,
        persons=tuple(Said() if sent else Said(ANSWERED, code, disclosed.sent_at) for code in codes),
        corrections=(),
        changed_at="",
        unasked=True,
    )


def _noticed(found: Account, e: Any) -> Account:
    """What becomes of a notice that was sent; its receiver tells of whom it could not take something in."""
    count = len(found.persons)
    match e:
        case notice.NoticeRefused():
            return replace(found, persons=(Said(NOT_PERMITTED, e.code),) * count)
        case notice.NoticeDelivered():
            persons = tuple(Said(ANSWERED, code, found.requested_at) for code in e.codes)
            return replace(found, left=True, persons=persons)
        case notice.NoticePermitted() | notice.NoticeAcknowledged() if not found.left:
            return replace(found, left=True, persons=(Said(ANSWERED, "", found.requested_at),) * count)
    return found


def _numbers(e: Any) -> dict[str, Any]:
    """What the network's verdict adds to the request."""
    if isinstance(e, inquiry.InquiryPermitted):
        return {"processing_number": e.processing_number, "valid_until": e.valid_until, "left": True}
    if isinstance(e, inquiry.InquiryRefused) and e.processing_number:
        return {"processing_number": e.processing_number, "left": True}
    return {}


def _said(persons: tuple[Said, ...], told: dict[int, Said]) -> tuple[Said, ...]:
    return tuple(told.get(place, said) for place, said in enumerate(persons))


def _answers(e: Any, at: str) -> dict[int, Said]:
    flag = e.non_disclosure
    codes = zip(e.persons, e.codes, strict=True)
    return {place: Said(ANSWERED, code, at, e.answer_message, flag) for place, code in codes}


def _where(found: Account, *states: str) -> list[int]:
    return [place for place, said in enumerate(found.persons) if said.state in states]


def _inquired(found: Account, e: Any) -> dict[int, Said]:
    """What an event of the inquirer says about persons. A late answer comes after what ended the waiting."""
    match e:
        case inquiry.InquiryPermitted():
            return {place: Said(NOT_PERMITTED, code) for place, code in enumerate(e.codes) if code}
        case inquiry.InquiryAnswered():
            return _answers(e, e.provided_at)
        case inquiry.InquiryRefused():
            codes = e.codes or (e.code,) * len(found.persons)
            places = _where(found, OPEN, WITHDRAWN, EXPIRED)
            if e.by == "provider":
                return {place: Said(ANSWERED, codes[place], e.decided_at) for place in places}
            return {place: Said(NOT_PERMITTED, codes[place]) for place in places}
        case inquiry.InquiryWithdrawn():
            return dict.fromkeys(_where(found, OPEN), Said(WITHDRAWN))
        case inquiry.InquiryExpired():
            return dict.fromkeys(_where(found, OPEN), Said(EXPIRED))
    return {}


def _provided(found: Account, e: Any) -> dict[int, Said]:
    """What an event of the provider says about persons."""
    match e:
        case provision.ProvisionHeld():
            return dict.fromkeys(e.persons, Said(HELD, e.code))
        case provision.InformationProvided():
            return _answers(e, e.provided_at)
        case provision.ProvisionRefused():
            return dict.fromkeys(e.persons, Said(ANSWERED, e.code, e.decided_at, e.answer_message))
        case provision.AnswerNotRelayed():
            instead = Said(_NOT_RELAYED.get(e.code, OPEN), e.code)
            answered = enumerate(found.persons)
            return {place: instead for place, said in answered if said.answer == e.answer_message}
        case provision.ProvisionWithdrawn():
            return dict.fromkeys(_where(found, OPEN, HELD), Said(WITHDRAWN))
        case provision.ProvisionExpired():
            return dict.fromkeys(_where(found, HELD), Said(EXPIRED))
    return {}
