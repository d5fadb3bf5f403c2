"""連絡 (notices to authorities) of one agency: sent, received into the inboxes of offices, with receipts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from adapters.platform.desk import layouts_of
from adapters.platform.inprocess import Platform
from adapters.platform.link_codes import LinkCodes
from adapters.platform.resident_notices import staff_state
from adapters.platform.staffing import Caller, Staffing
from broker.intermediate import notice, office, received_notice, staff
from broker.intermediate.notice import NoticeSent
from broker.intermediate.operation import Officer
from broker.intermediate.provision import SubjectFacts
from broker.intermediate.received_notice import NoticeReceived
from broker.ledger.events import Recorded
from broker.ledger.ledger import Change, StreamMoved, Unit
from broker.linkage import outgoing
from broker.linkage.interface import INWARD, Failed
from schemas.errors import Refusal
from schemas.items import layout, validate
from schemas.law import table_at
from schemas.law.necessity import necessary_items
from schemas.law.roles import roles
from schemas.messages import (
    MAX_RECORDS,
    LetterBody,
    LetterRequest,
    Malformed,
    NetworkVerdict,
    ReceivedLetter,
    build,
)

GUARD_SALT = 16
AUTOMATIC = "automatic_response"


@dataclass(frozen=True)
class NoticeOrder:
    """A notice to an office of another agency, as a business system orders it.

    With `subjects` (integrated address numbers) it discloses what our record of `layout` and `fiscal_year`
    has of them, as far as the receiver needs it under `row`; without, `row` to `fiscal_year` are "".
    """

    notice_id: str
    staff_id: str
    receiver: str
    to_office: str
    title: str = field(repr=False)
    text: str = field(repr=False)
    row: str = ""
    information: str = ""
    layout: str = ""
    fiscal_year: str = ""
    subjects: tuple[str, ...] = ()

    def fault(self) -> Refusal | None:
        """What is wrong with an order that did not come from a file, where the form has checked it."""
        about = (self.row, self.information, self.layout)
        if not (self.notice_id and self.title and self.text) or any(about) != bool(self.subjects):
            return Refusal("B-002")
        if len(self.title) > notice.TITLE_CHARACTERS or len(self.text) > notice.TEXT_CHARACTERS:
            return Refusal("B-004", "text")
        if len(set(self.subjects)) < len(self.subjects) or len(self.subjects) > MAX_RECORDS:
            return Refusal("B-011", "subjects")
        return None


@dataclass(frozen=True)
class NoticeResult:
    """What became of a notice that we sent: times in ISO 8601, "" for what did not happen.

    `code` is why it was refused, or I-247 where the receiver has no such office; `codes` tells of each person
    what was wrong with the information at the receiver, or "".
    """

    notice_id: str
    state: str
    code: str = ""
    codes: tuple[str, ...] = ()
    sent_at: str = ""
    delivered_at: str = ""
    acknowledged_at: str = ""
    office: str = ""


@dataclass(frozen=True)
class InboxNotice:
    """A notice that we received, as an officer of its inbox reads it."""

    sender: str
    notice: str
    sender_name: str
    sender_office: str
    to_office: str
    inbox: str
    code: str
    state: str
    sent_at: str
    received_at: str
    title: str = field(repr=False)
    text: str = field(repr=False)
    information: str
    layout: str
    codes: tuple[str, ...]
    subjects: tuple[str, ...] = field(repr=False)
    payloads: tuple[Mapping[str, Any], ...] = field(repr=False)


@dataclass(frozen=True)
class Acknowledgement:
    """An officer has read a notice in the inbox."""

    sender: str
    notice: str
    staff_id: str


@dataclass(frozen=True)
class _Content:
    """The first body of a notice; what it says about persons stands in `subject` of each body."""

    title: str
    text: str
    layout: str


@dataclass(frozen=True)
class _Subject:
    """What a notice says about one person, with the salted digest of R-086 against a wrong one."""

    guard_salt: bytes
    guard: bytes
    non_disclosure: bool
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class _Receipt:
    """What a receipt says: `step` is "delivered" or "acknowledged"."""

    step: str
    at: str
    office: str
    code: str
    codes: tuple[str, ...]


_RECEIPTS: Mapping[str, Callable[[_Receipt], notice.NoticeDelivered | notice.NoticeAcknowledged]] = {
    notice.DELIVERED: lambda said: notice.NoticeDelivered(said.at, said.code, said.codes),
    notice.ACKNOWLEDGED: lambda said: notice.NoticeAcknowledged(said.at, said.office),
}


class Notices:
    """Takes the letters of its kinds from the platform; each decision and its message are one unit."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._codes = LinkCodes(platform.ledger, platform.follower)
        self._staffing = Staffing(platform)
        platform.letters |= {"notice": self._take_notice, "receipt": self._take_receipt}
        platform.verdicts["notice"] = self._take_verdict

    # the sender's side

    async def send(self, order: NoticeOrder) -> Refusal | None:
        """Record a notice and queue its message. The same order again: the first outcome.

        A refusal is recorded too, save B codes and I-241. Other refusals: I-101, I-102, I-103, I-104, I-126,
        I-204, I-206, I-245, and what the linkage interface refuses.
        """
        wrong = order.fault()
        if wrong is not None:
            return wrong
        ledger = self._platform.ledger
        message_id = self._id("notice", order.notice_id)
        key = notice.stream(message_id)
        digest = ledger.vault.blind("order", repr(vars(order)))
        while True:
            state = notice.state_of(r.event for r in await ledger.stream(key))
            if state.sent is not None:
                return notice.repeated(state, digest)
            changes, refusal = await self._sending(order, message_id, digest)
            try:
                outcome = await ledger.append(Unit(f"notice/{message_id}", tuple(changes)))
            except StreamMoved:
                continue
            if not outcome.repeated:
                return refusal

    async def _sending(
        self, order: NoticeOrder, message_id: str, digest: str
    ) -> tuple[list[Change], Refusal | None]:
        """The changes that send a notice, or those that record why it was not sent."""
        now = self._platform.clock()
        granted, refusal = await self._authority(order, now.isoformat()[:10])
        sent = self._notice(order, message_id, digest, granted, now)
        seen: list[Change] = []
        letter = None
        if refusal is None:
            facts, seen = await self._facts(sent)
            sent = replace(
                sent,
                sources=tuple(each.source for each in facts),
                non_disclosure=any(each.non_disclosure for each in facts),
            )
            letter, refusal = await self._letter(sent, facts, now)
        changes = [Change(notice.stream(message_id), 0, notice.decide_send(sent, refusal)), *seen]
        if letter is not None:
            changes.append(Change(outgoing.stream(message_id), 0, (letter,)))
        if refusal is None and granted is not None:
            officer = Officer(order.staff_id, granted.office, granted.official_role, "", order.title)
            changes.append(self._staffing.operation("notify", officer, order.subjects, sent.notice))
        return changes, refusal

    async def _authority(
        self, order: NoticeOrder, day: str
    ) -> tuple[staff.AuthorityGranted | None, Refusal | None]:
        """Who says something about persons has to be in charge of the affair (R-059); else, of anything."""
        if order.subjects:
            granted, refusal = await self._staffing.authority(order.staff_id, order.row, day, "answer")
            if refusal is None and order.layout not in layouts_of(order.information):
                refusal = Refusal("I-206")
            return granted, refusal
        granted = staff.authority(await staff_state(self._platform, order.staff_id), day)
        return granted, None if granted is not None else Refusal("I-101")

    def _notice(
        self,
        order: NoticeOrder,
        message_id: str,
        digest: str,
        granted: staff.AuthorityGranted | None,
        now: datetime,
    ) -> NoticeSent:
        platform = self._platform
        own, directory = platform.linkage.agency, platform.linkage.directory
        partner = directory.partners.get(order.receiver) if directory is not None else None
        at = now.isoformat(timespec="microseconds")
        table = table_at(date.fromisoformat(at[:10]))
        known = order.layout in layouts_of(order.information)
        return NoticeSent(
            notice=message_id,
            persons=tuple(platform.person(number) for number in order.subjects),
            sender=own.code,
            sender_name=own.name,
            receiver=order.receiver,
            receiver_name=partner.agency.name if partner is not None else order.receiver,
            sender_office=granted.office if granted is not None else "",
            official_role=granted.official_role if granted is not None else "",
            to_office=order.to_office,
            law_version=table.version if order.subjects else "",
            law_row=order.row,
            affair=next((row.affair for row in table.rows if row.row == order.row), ""),
            information=order.information,
            layout=order.layout,
            items=necessary_items(order.row, layout(order.layout)) if known else (),
            sent_at=at,
            non_disclosure=False,
            sources=(),
            digest=digest,
            notice_id=order.notice_id,
            staff_id=order.staff_id,
            fiscal_year=order.fiscal_year,
            subjects=order.subjects,
            title=order.title,
            text=order.text,
        )

    async def _facts(self, sent: NoticeSent) -> tuple[Sequence[SubjectFacts], list[Change]]:
        """What is held of everybody, and that the holds that were read must not move meanwhile."""
        if not sent.persons:
            return (), []
        # Our own numbers are whom they are; the guard is for the receiver.
        return await self._platform.facts(sent, [True] * len(sent.persons), sent.sent_at[:10])

    async def _letter(
        self, sent: NoticeSent, facts: Sequence[SubjectFacts], now: datetime
    ) -> tuple[outgoing.MessageQueued | outgoing.MessageNotSent | None, Refusal | None]:
        salts = [self._platform._random(GUARD_SALT) for _ in sent.subjects]
        guards = await self._platform.addressing.guards(list(zip(sent.subjects, salts, strict=True)))
        codes = [await self._codes.valid(number) for number in sent.subjects]
        for guard, code, each in zip(guards, codes, facts, strict=True):
            if guard is None or not code:
                return None, Refusal("I-104" if guard is None else "I-103")
            if each.reasons or not each.source:
                # What is held leaves on an inquiry alone, by an officer's release.
                return None, Refusal("I-245" if each.reasons else "I-204")
        content = vars(_Content(sent.title, sent.text, sent.layout))
        subjects = [
            vars(_Subject(salt, guard or b"", each.non_disclosure, each.payload))
            for salt, guard, each in zip(salts, guards, facts, strict=True)
        ]
        first = subjects[0] if subjects else None
        bodies = [LetterBody({**content, "subject": first})]
        bodies += [LetterBody({"subject": subject}) for subject in subjects[1:]]
        letter = await self._platform.letter(
            LetterRequest(
                message_id=sent.notice,
                kind="notice",
                office=sent.sender_office,
                official_role=sent.official_role,
                receiver=sent.receiver,
                to_office=sent.to_office,
                processing_number="",
                letter_to="",
                law_version=sent.law_version,
                law_row=sent.law_row,
                information=sent.information,
                sent_at=sent.sent_at,
                link_codes=tuple(codes),
                bodies=tuple(bodies),
            ),
            now,
        )
        if isinstance(letter, Failed):
            code = letter.refusal.code
            return outgoing.MessageNotSent(
                sent.notice, "notice", sent.receiver, code, letter.step
            ), letter.refusal
        return letter, None

    async def _take_verdict(self, verdict: NetworkVerdict) -> list[Change]:
        key = notice.stream(verdict.message_id)
        recorded = await self._platform.ledger.stream(key)
        decided = notice.decide_verdict(notice.state_of(r.event for r in recorded), verdict)
        return [Change(key, len(recorded), decided)]

    async def _take_receipt(self, letter: ReceivedLetter, _now: datetime) -> list[Change] | Failed:
        control = letter.control
        try:
            said = build(_Receipt, letter.bodies[0].content)
            receipt = _RECEIPTS[said.step](said)
        except (Malformed, IndexError, KeyError):
            return Failed(INWARD, Refusal("L-305", "receipt"))
        key = notice.stream(control.letter_to)
        recorded = await self._platform.ledger.stream(key)
        state = notice.state_of(r.event for r in recorded)
        decided = notice.decide_receipt(state, receipt, control.sender)
        if isinstance(decided, Refusal):
            return Failed(INWARD, decided)
        return [Change(key, len(recorded), decided)]

    async def results(self, notice_ids: Sequence[str]) -> list[NoticeResult]:
        """What became of notices that we sent."""
        keys = [notice.stream(self._id("notice", notice_id)) for notice_id in notice_ids]
        found = await self._platform.ledger.streams(keys)
        return [
            _result(notice_id, notice.state_of(r.event for r in found[key]))
            for notice_id, key in zip(notice_ids, keys, strict=True)
        ]

    # the receiver's side

    async def _take_notice(self, letter: ReceivedLetter, now: datetime) -> list[Change] | Failed:
        """Into the inbox of the office that it is for; the sender learns at once that it is there."""
        control = letter.control
        try:
            first = dict(letter.bodies[0].content)
            first_subject = first.pop("subject")
            content = build(_Content, first)
            bodies = [first_subject, *(body.content["subject"] for body in letter.bodies[1:])]
            subjects = [build(_Subject, each) for each in bodies if each is not None]
        except (Malformed, IndexError, KeyError, TypeError):
            return Failed(INWARD, Refusal("L-305", "notice"))
        if len(subjects) != len(letter.note.link_codes):
            return Failed(INWARD, Refusal("L-107", "link_codes"))
        received = await self._received(letter, content, subjects, now)
        key = received_notice.stream(control.sender, control.message_id)
        receipt = await self._receipt(
            received,
            _Receipt(notice.DELIVERED, received.received_at, received.inbox, received.code, received.codes),
            ("", AUTOMATIC),
            now,
        )
        return [Change(key, 0, (received,)), *receipt]

    async def _received(
        self, letter: ReceivedLetter, content: _Content, subjects: Sequence[_Subject], now: datetime
    ) -> NoticeReceived:
        platform, control = self._platform, letter.control
        at = now.isoformat(timespec="microseconds")
        own, directory = platform.linkage.agency, platform.linkage.directory
        partner = directory.partners.get(control.sender) if directory is not None else None
        table = table_at(date.fromisoformat(control.sent_at[:10]))
        known = content.layout in layouts_of(control.information)
        items = necessary_items(control.law_row, layout(content.layout)) if known else ()
        converted = await self._codes.persons(letter.note.link_codes)
        numbers = tuple(converted.get(code, "") for code in letter.note.link_codes)
        guards = await platform.addressing.guards(
            [(number, each.guard_salt) for number, each in zip(numbers, subjects, strict=True)]
        )
        codes = tuple(
            ""
            if known and guard == each.guard and not validate(layout(content.layout), each.payload, items)
            else "I-248"
            for guard, each in zip(guards, subjects, strict=True)
        )
        inbox, code = await self._inbox(control.to_office, at[:10])
        return NoticeReceived(
            notice=control.message_id,
            persons=tuple(platform.person(number) if number else "" for number in numbers),
            sender=control.sender,
            sender_name=partner.agency.name if partner is not None else control.sender,
            receiver=own.code,
            receiver_name=own.name,
            sender_office=control.office,
            official_role=control.official_role,
            to_office=control.to_office,
            law_version=control.law_version,
            law_row=control.law_row,
            affair=next((row.affair for row in table.rows if row.row == control.law_row), ""),
            information=control.information,
            layout=content.layout,
            items=items,
            sent_at=control.sent_at,
            non_disclosure=any(each.non_disclosure for each in subjects),
            inbox=inbox,
            code=code,
            codes=codes,
            received_at=at,
            title=content.title,
            text=content.text,
            subjects=numbers,
            payloads=tuple({} if code else e.payload for e, code in zip(subjects, codes, strict=True)),
        )

    async def _inbox(self, to_office: str, day: str) -> tuple[str, str]:
        """The inbox for an office, and I-247 where it is none of ours (R-088)."""
        own = self._platform.linkage.agency.code
        state: office.State = None
        for happened in await self._platform.ledger.stream(office.stream(own, to_office)):
            state = office.evolve(state, happened.event)
        if office.destination(state, day) is None:
            return to_office, ""
        return received_notice.COMMON, "I-247"

    async def _receipt(
        self, received: NoticeReceived, said: _Receipt, acting: tuple[str, str], now: datetime
    ) -> list[Change]:
        """The queued receipt; `acting` is who gives it: office and official role."""
        message_id = self._id(f"receipt/{received.sender}/{received.notice}", said.step)
        letter = await self._platform.letter(
            LetterRequest(
                message_id=message_id,
                kind="receipt",
                office=acting[0],
                official_role=acting[1],
                receiver=received.sender,
                to_office=received.sender_office,
                processing_number="",
                letter_to=received.notice,
                law_version="",
                law_row="",
                information="",
                sent_at=now.isoformat(timespec="microseconds"),
                link_codes=(),
                bodies=(LetterBody(vars(said)),),
            ),
            now,
        )
        if isinstance(letter, Failed):  # what was received stays so, whether the sender can be told or not
            code, step = letter.refusal.code, letter.step
            not_sent = outgoing.MessageNotSent(message_id, "receipt", received.sender, code, step)
            return [Change(outgoing.stream(message_id), 0, (not_sent,))]
        return [Change(outgoing.stream(message_id), 0, (letter,))]

    async def inbox(self, caller: Caller, inbox: str) -> list[InboxNotice] | Refusal:
        """What lies in the inbox of an office (received_notice.COMMON: that of none), the latest first.

        That the officer read it is on record. Refusal: I-249 not an officer of that office.
        """
        platform = self._platform
        granted = await self._officer(caller.staff_id, inbox)
        if granted is None:
            return Refusal("I-249")
        await platform.follower.reach(platform.ledger.position)
        rows = await platform.follower.query(
            "SELECT stream FROM inbox WHERE office = ? ORDER BY received_at DESC, stream", (inbox,)
        )
        found = await platform.ledger.streams([key for (key,) in rows])
        shown = [_shown(recorded) for recorded in found.values() if recorded[0].erased is None]
        about = [number for each in shown for number in each.subjects if number]
        officer = Officer(
            caller.staff_id, granted.office, granted.official_role, caller.terminal, caller.purpose
        )
        noted = self._staffing.operation("read_notice", officer, about, inbox)
        await platform.ledger.append(Unit(noted.stream, (noted,)))
        return shown

    async def _officer(self, staff_id: str, inbox: str) -> staff.AuthorityGranted | None:
        """The authority of somebody who may handle what lies in this inbox today."""
        day = self._platform.clock().isoformat()[:10]
        granted = staff.authority(await staff_state(self._platform, staff_id), day)
        if granted is None or inbox not in (granted.office, received_notice.COMMON):
            return None
        role = roles().get(granted.official_role)
        return granted if role is not None and role.may_answer else None

    async def acknowledge(self, order: Acknowledgement) -> Refusal | None:
        """An officer of the inbox has read a notice: the sender is told. Again: nothing more happens.

        Refusals: I-242 no such notice, I-249 not an officer of that office.
        """
        ledger = self._platform.ledger
        key = received_notice.stream(order.sender, order.notice)
        while True:
            now = self._platform.clock()
            at = now.isoformat(timespec="microseconds")
            recorded = await ledger.stream(key)
            received = received_notice.state_of(r.event for r in recorded).received
            if received is None:
                return Refusal("I-242")
            granted = await self._officer(order.staff_id, received.inbox)
            if granted is None:
                return Refusal("I-249")
            decided = received_notice.decide_acknowledge(
                received_notice.state_of(r.event for r in recorded),
                received_notice.ReceivedNoticeAcknowledged(granted.office, at, order.staff_id),
            )
            if not decided:
                return None
            receipt = await self._receipt(
                received,
                _Receipt(notice.ACKNOWLEDGED, at, granted.office, "", ()),
                (granted.office, granted.official_role),
                now,
            )
            officer = Officer(order.staff_id, granted.office, granted.official_role, "", received.title)
            numbers = [number for number in received.subjects if number]
            noted = self._staffing.operation("acknowledge_notice", officer, numbers, received.notice)
            changes = (Change(key, len(recorded), decided), *receipt, noted)
            try:
                await ledger.append(Unit(f"{key}/read", changes))
            except StreamMoved:
                continue
            return None

    def _id(self, kind: str, name: str) -> str:
        """The same notice always is the same message, in every process and at any time."""
        return uuid5(NAMESPACE_URL, f"renkei/{self._platform.linkage.agency.code}/{kind}/{name}").hex


def _result(notice_id: str, state: notice.State) -> NoticeResult:
    if state.sent is None:
        return NoticeResult(notice_id, state.step)
    delivered, acknowledged = state.delivered, state.acknowledged
    code = (
        state.refused.code if state.refused is not None else delivered.code if delivered is not None else ""
    )
    return NoticeResult(
        notice_id,
        state.step,
        code,
        delivered.codes if delivered is not None else (),
        state.sent.sent_at,
        delivered.delivered_at if delivered is not None else "",
        acknowledged.acknowledged_at if acknowledged is not None else "",
        acknowledged.office if acknowledged is not None else "",
    )


def _shown(recorded: Sequence[Recorded]) -> InboxNotice:
    state = received_notice.state_of(r.event for r in recorded)
    received = state.received
    if received is None:
        raise ValueError("nothing was received")
    return InboxNotice(
        sender=received.sender,
        notice=received.notice,
        sender_name=received.sender_name,
        sender_office=received.sender_office,
        to_office=received.to_office,
        inbox=received.inbox,
        code=received.code,
        state=state.step,
        sent_at=received.sent_at,
        received_at=received.received_at,
        title=received.title,
        text=received.text,
        information=received.information,
        layout=received.layout,
        codes=received.codes,
        subjects=received.subjects,
        payloads=received.payloads,
    )
