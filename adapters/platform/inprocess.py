"""Both interfaces of one agency in one process, over one ledger.

What one interface decides and the message that the other makes of it are one unit: there is no moment at
which an answer is recorded and not queued, or queued and not recorded.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Protocol, TypeVar
from uuid import NAMESPACE_URL, uuid5

from broker.intermediate import hold, inquiry, link_code, provision, replica, staff
from broker.intermediate.records import ProvisionRecord, record
from broker.ledger.events import Recorded
from broker.ledger.ledger import Change, Ledger, StreamMoved, Unit
from broker.ledger.projections import Follower
from broker.ledger.store import Outcome
from broker.linkage import incoming, outgoing
from broker.linkage.interface import (
    INWARD,
    REPLAY,
    Failed,
    LinkageInterface,
    answer_id,
    received_event,
    refused_event,
)
from schemas.errors import Refusal
from schemas.items import layout, layouts, validate
from schemas.law import table_at
from schemas.law.necessity import necessary_items
from schemas.messages import (
    AnswerRequest,
    Delivery,
    InquiryRequest,
    InquirySubject,
    NetworkVerdict,
    ReceivedAnswer,
    ReceivedInquiry,
)

S = TypeVar("S")
# What may only mean that our directory is old, or after a start not there yet: nothing is refused for that.
_STALE = frozenset(("L-101", "L-102", "L-105", "L-303"))
GUARD_SALT = 16
BUSINESS_SALT = 32


class AddressingPort(Protocol):
    """What the intermediate interface may ask of addressing; an individual number is not among it."""

    async def guard(self, integrated_number: str, salt: bytes) -> bytes | None: ...
    async def knows(self, integrated_number: str) -> bool: ...


@dataclass(frozen=True)
class InquiryOrder:
    """What a business system orders: one question about one or several persons (integrated numbers)."""

    request_id: str
    staff_id: str
    provider: str
    row: str
    information: str
    layout: str
    fiscal_year: str
    subjects: tuple[str, ...]


@dataclass(frozen=True)
class InquiryResult:
    """What became of an order: state, code of a refusal, and for an answer what is said of each subject."""

    request_id: str
    state: str
    code: str
    codes: tuple[str, ...]
    payloads: tuple[Any, ...]


class Platform:
    """The working half of an agency. Clock and randomness are injected."""

    def __init__(
        self,
        ledger: Ledger,
        follower: Follower,
        linkage: LinkageInterface,
        addressing: AddressingPort,
        clock: Callable[[], datetime],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.ledger = ledger
        self.follower = follower
        self.linkage = linkage
        self.addressing = addressing
        self._clock = clock
        self._random = random_bytes
        self._refresh: Callable[[], Awaitable[None]] | None = None

    def refresh_by(self, refresh: Callable[[], Awaitable[None]]) -> None:
        """How to fetch the directory anew when a partner is not in it."""
        self._refresh = refresh

    async def _know(self, code: str) -> None:
        directory = self.linkage.directory
        if self._refresh is not None and (directory is None or code not in directory.partners):
            await self._refresh()

    # -- what the agency holds ------------------------------------------------------------------------

    def person(self, integrated_number: str) -> str:
        """The blind index of a person in this agency's ledger."""
        return self.ledger.vault.blind("person", integrated_number)

    async def grant(self, granted: staff.AuthorityGranted) -> None:
        await self._change(
            staff.stream(granted.staff_id),
            None,
            staff.evolve,
            lambda state: staff.decide_grant(state, granted),
        )

    async def set_hold(self, integrated_number: str, wanted: bool, reason: str) -> None:
        who = self.person(integrated_number)
        await self._change(
            hold.stream(who), False, hold.evolve, lambda held: hold.decide(held, wanted, who, reason)
        )

    async def register_replica(
        self, integrated_number: str, layout_key: str, fiscal_year: str, payload: dict[str, Any]
    ) -> Refusal | None:
        """Take a record into the reference database. Refusals: B-007, and B codes of the first fault."""
        try:
            faults = validate(layout(layout_key), payload)
        except ValueError:
            return Refusal("I-206")
        if faults:
            return Refusal(faults[0].code, faults[0].item)
        if not await self.addressing.knows(integrated_number):
            return Refusal("B-007")
        who = self.person(integrated_number)
        wanted = replica.ReplicaRegistered(who, layout_key, fiscal_year, integrated_number, payload)
        await self._change(
            replica.stream(who, layout_key, fiscal_year),
            None,
            replica.evolve,
            lambda state: replica.decide_register(state, wanted),
        )
        return None

    async def acquire_code(self, integrated_number: str, code: str) -> None:
        who, index = self.person(integrated_number), self.ledger.vault.blind("link_code", code)
        acquired = link_code.LinkCodeAcquired(who, index, code, integrated_number)
        await self._change(
            link_code.stream(who),
            None,
            link_code.evolve,
            lambda state: link_code.decide_acquire(state, acquired),
        )

    # -- the inquirer's side --------------------------------------------------------------------------

    def inquiry_id(self, request_id: str) -> str:
        """The same request always is the same inquiry, in every process and at any time."""
        return uuid5(NAMESPACE_URL, f"renkei/{self.linkage.agency.code}/{request_id}").hex

    async def inquire(self, order: InquiryOrder) -> Refusal | None:
        """Record an order and queue its message. A refusal is recorded too, save I-105 and B-008."""
        inquiry_id = self.inquiry_id(order.request_id)
        digest = self.ledger.vault.blind("order", repr(order))
        state = await self._inquiry(inquiry_id)
        earlier = inquiry.repeated(state, digest)
        if earlier is not None:
            return earlier
        await self._know(order.provider)
        now = self._clock()
        at = now.isoformat(timespec="microseconds")
        authority, refusal = await self._authority(order, at)
        codes: tuple[str, ...] = ()
        if refusal is None:
            codes, refusal = await self._codes_of(order.subjects)
        request = self._request(order, inquiry_id, at, digest, authority)
        if refusal is None and request.layout not in _layouts_of(order.information):
            refusal = Refusal("I-206")
        message: outgoing.MessageQueued | outgoing.MessageNotSent | None = None
        if refusal is None:
            sent = self.linkage.send_inquiry(
                await self._inquiry_request(order, request, codes), now, self._random(BUSINESS_SALT)
            )
            if isinstance(sent, Failed):
                refusal = sent.refusal
                message = outgoing.MessageNotSent(
                    inquiry_id, "inquiry", order.provider, sent.refusal.code, sent.step
                )
            else:
                message = sent
        decided = inquiry.decide_request(state, request, refusal)
        if isinstance(decided, Refusal):
            return decided
        changes = [Change(inquiry.stream(inquiry_id), 0, decided)]
        if message is not None:
            changes.append(Change(outgoing.stream(inquiry_id), 0, (message,)))
        outcome = await self.ledger.append(Unit(f"inquiry/{inquiry_id}", tuple(changes)))
        if outcome.repeated:  # the same request id came in twice at once, and the other one was first
            return inquiry.repeated(await self._inquiry(inquiry_id), digest)
        return refusal

    async def _inquiry(self, inquiry_id: str) -> inquiry.State:
        return inquiry_state(await self.ledger.stream(inquiry.stream(inquiry_id)))

    async def settle(self, verdict: NetworkVerdict) -> None:
        """The network's word on a message that was sent: both interfaces learn it together."""
        out = outgoing.stream(verdict.message_id)
        while True:
            sent = await self.ledger.stream(out)
            if not sent or isinstance(sent[-1].event, outgoing.MessageSettled):
                return
            state = "none"
            for happened in sent:
                state = outgoing.evolve(state, happened.event)
            settled = outgoing.decide_settle(state, verdict)
            if isinstance(settled, Refusal):
                return
            changes = [Change(out, len(sent), settled)]
            if sent[0].event.kind == "inquiry":
                key = inquiry.stream(verdict.message_id)
                recorded = await self.ledger.stream(key)
                decided = inquiry.decide_verdict(
                    inquiry_state(recorded),
                    verdict.processing_number,
                    verdict.code,
                    verdict.decided_at,
                    verdict.valid_until,
                )
                changes.append(Change(key, len(recorded), decided))
            elif verdict.code:
                changes.append(await self._not_relayed(sent[0].event.processing_number, verdict))
            if await self._try(Unit(f"verdict/{verdict.message_id}", tuple(changes))):
                return

    async def _not_relayed(self, processing_number: str, verdict: NetworkVerdict) -> Change:
        """An answer that the network refused was no provision: the record says so."""
        key = provision.stream(processing_number)
        recorded = await self.ledger.stream(key)
        state = provision.State()
        for happened in recorded:
            state = provision.evolve(state, happened.event)
        decided = provision.decide_not_relayed(state, verdict.message_id, verdict.code, verdict.decided_at)
        return Change(key, len(recorded), decided)

    async def results(self, request_ids: Sequence[str]) -> list[InquiryResult]:
        """What became of orders; the asking system fetches it when it wants to (R-085)."""
        found = []
        for request_id in request_ids:
            state = await self._inquiry(self.inquiry_id(request_id))
            if isinstance(state.outcome, inquiry.InquiryAnswered):
                answer = state.outcome
                found.append(InquiryResult(request_id, state.step, "", answer.codes, answer.payloads))
            else:
                code = state.outcome.code if state.outcome is not None else ""
                found.append(InquiryResult(request_id, state.step, code, (), ()))
        return found

    async def open_inquiries(self, request_ids: Sequence[str]) -> int:
        """How many of these orders wait for a verdict or an answer."""
        await self.follower.reach(self.ledger.position)
        waiting = await self.follower.query(
            "SELECT stream FROM processing_status WHERE state IN ('asked', 'waiting')"
        )
        streams = {stream for (stream,) in waiting}
        return sum(inquiry.stream(self.inquiry_id(r)) in streams for r in request_ids)

    # -- what the network delivers --------------------------------------------------------------------

    async def receive(self, delivery: Delivery) -> Refusal | None:
        """Check one item of the mailbox and pass it inward; every outcome is in the linkage log."""
        now = self._clock()
        opened = self._check(delivery, now)
        if isinstance(opened, Failed) and opened.refusal.code in _STALE and self._refresh is not None:
            await self._refresh()
            opened = self._check(delivery, now)
        if isinstance(opened, Failed):
            return await self._refuse(delivery, opened, now)
        control = opened.control
        sender = opened.permit.inquirer if isinstance(opened, ReceivedInquiry) else opened.control.provider
        number = (
            opened.permit.processing_number
            if isinstance(opened, ReceivedInquiry)
            else opened.control.processing_number
        )
        entry = received_event(delivery, sender, control.message_id, number)
        key = incoming.stream(sender, control.message_id)
        while True:
            recorded = await self.ledger.stream(key)
            state = incoming.State()
            for happened in recorded:
                state = incoming.evolve(state, happened.event)
            decided = incoming.decide_receive(state, entry)
            if isinstance(decided, Refusal):
                return await self._refuse(delivery, Failed(REPLAY, decided), now)
            logged = Change(key, len(recorded), decided)
            if isinstance(decided[0], incoming.MessageRepeated):
                await self._try(Unit(f"repeated/{delivery.position}", (logged,)))
                return None
            if isinstance(opened, ReceivedInquiry):
                changes = await self._provide(opened, now)
            else:
                changes = await self._take(opened)
            if isinstance(changes, Failed):
                return await self._refuse(delivery, changes, now)
            if await self._try(Unit(f"received/{entry.digest}", (logged, *changes))):
                return None

    def _check(self, delivery: Delivery, now: datetime) -> ReceivedInquiry | ReceivedAnswer | Failed:
        if delivery.kind == "inquiry":
            return self.linkage.receive_inquiry(delivery, now)
        return self.linkage.receive_answer(delivery, now)

    async def _refuse(self, delivery: Delivery, failed: Failed, now: datetime) -> Refusal:
        """Log a refusal; where the network's permit is good, the inquirer is told the code."""
        event = refused_event(delivery, failed)
        key = incoming.refusal_stream(event.digest)
        changes = [Change(key, 0, (event,))]
        answer = self.linkage.refusing_answer(delivery, failed, now, self._random(BUSINESS_SALT))
        if answer is not None:
            changes.append(Change(outgoing.stream(answer.message_id), 0, (answer,)))
        await self._try(Unit(key, tuple(changes)))
        return failed.refusal

    # -- the provider's side --------------------------------------------------------------------------

    async def _provide(self, opened: ReceivedInquiry, now: datetime) -> list[Change] | Failed:
        """Look up, decide, and make the answer: the changes of one unit."""
        at = now.isoformat(timespec="microseconds")
        control, permit = opened.control, opened.permit
        answer_message = answer_id(permit.processing_number)
        found = [
            await self._subject(c, s, control)
            for c, s in zip(permit.link_codes, opened.subjects, strict=True)
        ]
        request = self._provision_request(opened, tuple(number for number, _, _ in found))
        key = provision.stream(permit.processing_number)
        if await self.ledger.stream(key):
            return Failed(REPLAY, Refusal("L-304", "processing_number"))
        asked = provision.evolve(provision.State(), request)
        decided = provision.decide_provide(
            asked,
            answer_message,
            tuple(facts for _, facts, _ in found),
            control.layout in _layouts_of(control.information),
            at,
        )
        if isinstance(decided, Refusal):
            return Failed(INWARD, decided)
        changes = [Change(key, 0, (request, *decided.events))]
        # The holds that were read must not have moved when the answer becomes durable.
        guards = {guard.stream: guard for _, _, guard in found if guard is not None}
        changes += guards.values()
        if not decided.held:
            answer = AnswerRequest(
                message_id=answer_message,
                in_reply_to=control.message_id,
                processing_number=permit.processing_number,
                inquirer=control.inquirer,
                office=control.office,
                official_role="automatic_response",
                law_version=control.law_version,
                law_row=control.law_row,
                information=control.information,
                code=decided.code,
                answered_at=at,
                non_disclosure=control.non_disclosure,
                link_codes=permit.link_codes,
                subjects=decided.subjects,
            )
            sent = self.linkage.send_answer(answer, now, self._random(BUSINESS_SALT))
            if isinstance(sent, Failed):
                return sent
            changes.append(Change(outgoing.stream(answer_message), 0, (sent,)))
        return changes

    async def _subject(
        self, code: str, subject: InquirySubject, control: Any
    ) -> tuple[str, provision.SubjectFacts, Change | None]:
        """Everything to be known about one subject: link code to number, guard, hold, reference database."""
        await self.follower.reach(self.ledger.position)
        rows = await self.follower.query(
            "SELECT person, position FROM code_conversion WHERE code_index = ?",
            (self.ledger.vault.blind("link_code", code),),
        )
        if not rows:
            return "", provision.SubjectFacts("", False, False, 0, {}), None
        who, position = rows[0]
        number = (await self.ledger.at([position]))[0].event.integrated_number
        fits = await self.addressing.guard(number, subject.guard_salt) == subject.guard
        held_stream = await self.ledger.stream(hold.stream(who))
        held = False
        for happened in held_stream:
            held = hold.evolve(held, happened.event)
        records = await self.follower.query(
            "SELECT position FROM reference_database WHERE person = ? AND layout = ? AND fiscal_year = ?",
            (who, control.layout, subject.fiscal_year),
        )
        source, payload = 0, {}
        if records:
            source = records[0][0]
            held_payload = (await self.ledger.at([source]))[0].event.payload
            payload = {item: held_payload[item] for item in control.items if item in held_payload}
        facts = provision.SubjectFacts(who, fits, held, source, payload)
        return number, facts, Change(hold.stream(who), len(held_stream))

    async def _take(self, opened: ReceivedAnswer) -> list[Change] | Failed:
        """An answer comes home: to the inquiry that it replies to, if its content fits the layout."""
        key = inquiry.stream(opened.control.in_reply_to)
        recorded = await self.ledger.stream(key)
        state = inquiry_state(recorded)
        if state.request is None or state.request.provider != opened.control.provider:
            return Failed(INWARD, Refusal("L-107", "in_reply_to"))
        faults = tuple(
            "I-301"
            if not s.code and validate(layout(state.request.layout), s.payload, state.request.items)
            else ""
            for s in opened.subjects
        )
        decided = inquiry.decide_answer(state, opened, faults)
        if isinstance(decided, Refusal):
            return Failed(INWARD, decided)
        return [Change(key, len(recorded), decided)]

    # -- provision records ----------------------------------------------------------------------------

    async def records(self, integrated_number: str) -> list[ProvisionRecord]:
        """The provision records of a person, the latest first (Act art. 23)."""
        await self.follower.reach(self.ledger.position)
        rows = await self.follower.query(
            "SELECT request, subject, side, outcome FROM provision_record WHERE person = ? "
            "ORDER BY requested_at DESC, request DESC",
            (self.person(integrated_number),),
        )
        wanted = {position for row in rows for position in (row[0], row[3]) if position}
        opened = {r.position: r for r in await self.ledger.at(sorted(wanted))}
        return [
            record(subject, side, opened[request], opened[outcome].event if outcome else None)
            for request, subject, side, outcome in rows
        ]

    # -- how things are done --------------------------------------------------------------------------

    async def _authority(
        self, order: InquiryOrder, at: str
    ) -> tuple[staff.AuthorityGranted | None, Refusal | None]:
        granted: staff.State = None
        for happened in await self.ledger.stream(staff.stream(order.staff_id)):
            granted = staff.evolve(granted, happened.event)
        return granted, staff.authorise(granted, order.row, at[:10])

    async def _codes_of(self, subjects: Sequence[str]) -> tuple[tuple[str, ...], Refusal | None]:
        codes: list[str] = []
        for number in subjects:
            if not await self.addressing.knows(number):
                return (), Refusal("I-104")
            acquired = await self.ledger.stream(link_code.stream(self.person(number)))
            if not acquired:
                return (), Refusal("I-103")
            codes.append(acquired[-1].event.link_code)
        return tuple(codes), None

    def _request(
        self,
        order: InquiryOrder,
        inquiry_id: str,
        at: str,
        digest: str,
        authority: staff.AuthorityGranted | None,
    ) -> inquiry.InquiryRequested:
        own = self.linkage.agency
        directory = self.linkage.directory
        partner = directory.partners.get(order.provider) if directory is not None else None
        table = table_at(date.fromisoformat(at[:10]))
        rows = [row for row in table.rows if row.row == order.row]
        known = order.layout in _layouts_of(order.information)
        return inquiry.InquiryRequested(
            inquiry_id=inquiry_id,
            persons=tuple(self.person(number) for number in order.subjects),
            staff_id=order.staff_id,
            office=authority.office if authority is not None else "",
            official_role=authority.official_role if authority is not None else "",
            inquirer=own.code,
            inquirer_name=own.name,
            provider=order.provider,
            provider_name=partner.agency.name if partner is not None else order.provider,
            law_version=table.version,
            law_row=order.row,
            affair=rows[0].affair if rows else "",
            information=order.information,
            layout=order.layout,
            items=necessary_items(order.row, layout(order.layout)) if known else (),
            fiscal_year=order.fiscal_year,
            requested_at=at,
            non_disclosure=False,
            digest=digest,
            subjects=order.subjects,
        )

    async def _inquiry_request(
        self, order: InquiryOrder, request: inquiry.InquiryRequested, codes: tuple[str, ...]
    ) -> InquiryRequest:
        subjects = []
        for number in order.subjects:
            salt = self._random(GUARD_SALT)
            guard = await self.addressing.guard(number, salt)
            subjects.append(InquirySubject(salt, guard or b"", order.fiscal_year))
        return InquiryRequest(
            message_id=request.inquiry_id,
            office=request.office,
            official_role=request.official_role,
            provider=request.provider,
            law_version=request.law_version,
            law_row=request.law_row,
            information=request.information,
            layout=request.layout,
            items=request.items,
            requested_at=request.requested_at,
            non_disclosure=request.non_disclosure,
            link_codes=codes,
            subjects=tuple(subjects),
        )

    def _provision_request(
        self, opened: ReceivedInquiry, numbers: tuple[str, ...]
    ) -> provision.ProvisionRequested:
        control, permit = opened.control, opened.permit
        directory = self.linkage.directory
        partner = directory.partners.get(control.inquirer) if directory is not None else None
        table = table_at(date.fromisoformat(control.requested_at[:10]))
        return provision.ProvisionRequested(
            processing_number=permit.processing_number,
            inquiry_message=control.message_id,
            persons=tuple(self.person(number) if number else "" for number in numbers),
            office=control.office,
            official_role=control.official_role,
            inquirer=control.inquirer,
            inquirer_name=partner.agency.name if partner is not None else "",
            provider=self.linkage.agency.code,
            provider_name=self.linkage.agency.name,
            law_version=control.law_version,
            law_row=control.law_row,
            affair=next(row.affair for row in table.rows if row.row == control.law_row),
            information=control.information,
            layout=control.layout,
            items=control.items,
            requested_at=control.requested_at,
            valid_until=permit.valid_until,
            non_disclosure=control.non_disclosure,
            subjects=numbers,
            link_codes=permit.link_codes,
            fiscal_years=tuple(subject.fiscal_year for subject in opened.subjects),
        )

    async def _change(
        self,
        key: str,
        start: S,
        evolve: Callable[[S, Any], S],
        decide: Callable[[S], tuple[Any, ...]],
    ) -> None:
        """Load a stream, decide, append; again if somebody was faster."""
        while True:
            recorded = await self.ledger.stream(key)
            state = start
            for happened in recorded:
                state = evolve(state, happened.event)
            decided = decide(state)
            if not decided or await self._try(
                Unit(
                    f"{key}#{len(recorded) + 1}/{self._random(8).hex()}",
                    (Change(key, len(recorded), decided),),
                )
            ):
                return

    async def _try(self, unit: Unit) -> Outcome | None:
        """None when a stream moved meanwhile: look again and decide again."""
        try:
            return await self.ledger.append(unit)
        except StreamMoved:
            return None


def inquiry_state(recorded: Sequence[Recorded]) -> inquiry.State:
    """The state of an inquiry from its events."""
    state = inquiry.State()
    for happened in recorded:
        state = inquiry.evolve(state, happened.event)
    return state


def _layouts_of(information: str) -> frozenset[str]:
    """Keys of the layouts that carry a kind of information of the law."""
    return frozenset(known.key for known in layouts() if known.information == information)
