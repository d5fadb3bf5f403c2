"""The inquirer's side of an agency: orders in, messages queued, answers taken, results fetched."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from adapters.platform.desk import BUSINESS_SALT, Desk, layouts_of
from broker.intermediate import inquiry, link_code, staff
from broker.ledger.events import Recorded
from broker.ledger.ledger import Change, Unit
from broker.linkage import outgoing
from broker.linkage.interface import (
    INWARD,
    Failed,
)
from schemas.errors import Refusal
from schemas.items import layout, validate
from schemas.law import table_at
from schemas.law.necessity import necessary_items
from schemas.messages import (
    InquiryRequest,
    InquirySubject,
    ReceivedAnswer,
)

GUARD_SALT = 16


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


class Asking(Desk):
    """An order and its queued message are one unit."""

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
        if refusal is None and request.layout not in layouts_of(order.information):
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

    async def results(self, request_ids: Sequence[str]) -> list[InquiryResult]:
        """What became of orders; the asking system fetches it when it wants to (R-085)."""
        found = []
        for request_id in request_ids:
            recorded = await self.ledger.stream(inquiry.stream(self.inquiry_id(request_id)))
            state = inquiry_state(recorded)
            if isinstance(state.outcome, inquiry.InquiryAnswered):
                answer = state.outcome
                if recorded[-1].erased:
                    codes = tuple(code or "I-207" for code in answer.codes)
                    nothing: tuple[Any, ...] = ({},) * len(codes)
                    found.append(InquiryResult(request_id, state.step, "", codes, nothing))
                    continue
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
            if not acquired or acquired[-1].erased:
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
        known = order.layout in layouts_of(order.information)
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


def inquiry_state(recorded: Sequence[Recorded]) -> inquiry.State:
    """The state of an inquiry from its events."""
    state = inquiry.State()
    for happened in recorded:
        state = inquiry.evolve(state, happened.event)
    return state
