"""お知らせ (notices to residents) of an agency: published and withdrawn by offices, read by their persons."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from adapters.platform.desk import Desk
from adapters.platform.staffing import Staffing
from broker.intermediate import office, resident_notice, staff
from broker.intermediate.operation import Officer
from broker.intermediate.resident_notice import State
from broker.ledger.ledger import Change, StreamMoved, Unit
from schemas.errors import Refusal

_NOTICE = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True)
class ResidentNoticeOrder:
    """A notice to one person, as a business system orders it; see NoticePublished for the fields."""

    notice_id: str
    staff_id: str
    integrated_number: str
    kind: str = field(repr=False)
    status: str = field(repr=False)
    title: str = field(repr=False)
    text: str = field(repr=False)
    choices: tuple[str, ...] = field(repr=False)
    free_text: bool
    valid_until: str


@dataclass(frozen=True)
class Cancellation:
    """The withdrawal of a notice; its person reads the reason."""

    notice_id: str
    staff_id: str
    reason: str = field(repr=False)


@dataclass(frozen=True)
class ResidentNoticeResult:
    """What became of a notice: times in ISO 8601, "" for what did not happen.

    `state` is a step of the notice, "expired", or "erased" where the reply can no longer be read.
    """

    notice_id: str
    state: str
    published_at: str = ""
    valid_until: str = ""
    opened_at: str = ""
    replied_at: str = ""
    choice: str = field(default="", repr=False)
    text: str = field(default="", repr=False)
    cancelled_at: str = ""


class ResidentNotices:
    """Each call loads the stream of a notice, decides and appends; what changes nothing leaves no event."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def notice(self, notice_id: str) -> str:
        """By what the notice of this id is found, here and in the addresses of the residents' page."""
        return self._desk.ledger.vault.blind("resident_notice", notice_id)

    async def publish(self, order: ResidentNoticeOrder) -> Refusal | None:
        """Publish a notice. The same order again: nothing more happens.

        Refusals: B codes and I-243 of the order itself, I-101, I-104, I-241.
        """
        notice, desk = self.notice(order.notice_id), self._desk
        at = self._now()
        name, noted = "", tuple[Change, ...]()
        if (await self._state(notice)).published is None:
            member = staff.authority(await staff_state(desk, order.staff_id), at[:10])
            if member is None:
                return Refusal("I-101")
            name = await self._name(member.office)
            noted = (self._operation("publish_notice", order.staff_id, member, order.title, notice),)
            if not await desk.addressing.knows(order.integrated_number):
                return Refusal("I-104")
        published = resident_notice.NoticePublished(
            **vars(order),
            notice=notice,
            person=desk.person(order.integrated_number),
            office=name,
            published_at=at,
            digest=desk.ledger.vault.blind("order", repr(vars(order))),
        )
        return await self._decide(
            notice, lambda state: resident_notice.decide_publish(state, published), noted
        )

    async def cancel(self, order: Cancellation) -> Refusal | None:
        """Withdraw a notice. Refusals: I-101, I-242, B-002 and B-004 of the reason."""
        at = self._now()
        member = staff.authority(await staff_state(self._desk, order.staff_id), at[:10])
        if member is None:
            return Refusal("I-101")
        notice = self.notice(order.notice_id)
        name = await self._name(member.office)
        cancelled = resident_notice.NoticeCancelled(name, at, order.staff_id, order.reason)
        noted = self._operation("cancel_notice", order.staff_id, member, order.reason, notice)
        return await self._decide(
            notice, lambda state: resident_notice.decide_cancel(state, cancelled), (noted,)
        )

    async def _name(self, code: str) -> str:
        """How residents call an office; an agency need not have registered it."""
        state: office.State = None
        own = self._desk.linkage.agency.code
        for happened in await self._desk.ledger.stream(office.stream(own, code)):
            state = office.evolve(state, happened.event)
        return state.name if state is not None else code

    def _operation(
        self, word: str, staff_id: str, member: staff.AuthorityGranted, purpose: str, notice: str
    ) -> Change:
        officer = Officer(staff_id, member.office, member.official_role, "", purpose)
        return Staffing(self._desk).operation(word, officer, (), notice)

    async def results(self, notice_ids: Sequence[str]) -> list[ResidentNoticeResult]:
        """What became of notices, for the agency (R-360, R-363)."""
        return [self._result(i, await self._state(self.notice(i))) for i in notice_ids]

    async def of_resident(self, integrated_number: str) -> list[State]:
        """The notices of a person, the latest first; those that were erased are left out."""
        desk = self._desk
        await desk.follower.reach(desk.ledger.position)
        rows = await desk.follower.query(
            "SELECT notice FROM resident_notice WHERE person = ? ORDER BY published_at DESC, notice",
            (desk.person(integrated_number),),
        )
        found = [await self._state(notice) for (notice,) in rows]
        return [state for state in found if not state.erased]

    async def open(self, integrated_number: str, notice: str) -> State | None:
        """The notice for its person to read, after the reading is on record; None if it is not hers."""
        state = await self._own(integrated_number, notice)
        if state is None:
            return None
        await self._decide(notice, lambda now: resident_notice.decide_open(now, self._now()))
        return await self._state(notice)

    async def reply(self, integrated_number: str, notice: str, choice: str, text: str) -> Refusal | None:
        """The person's reply. Refusals: I-242 (also for a notice of somebody else), I-243, I-244, I-246."""
        if await self._own(integrated_number, notice) is None:
            return Refusal("I-242")
        at = self._now()
        return await self._decide(notice, lambda state: resident_notice.decide_reply(state, choice, text, at))

    async def _own(self, integrated_number: str, notice: str) -> State | None:
        """The notice if it is of this person and can be read."""
        if _NOTICE.fullmatch(notice) is None:
            return None
        state = await self._state(notice)
        own = state.published is not None and state.published.person == self._desk.person(integrated_number)
        return state if own and not state.erased else None

    async def _state(self, notice: str) -> State:
        return resident_notice.state_of(await self._desk.ledger.stream(resident_notice.stream(notice)))

    async def _decide(
        self,
        notice: str,
        decide: Callable[[State], tuple[Any, ...] | Refusal],
        beside: tuple[Change, ...] = (),
    ) -> Refusal | None:
        """Load, decide, append with what goes `beside` it; again if somebody was faster."""
        key = resident_notice.stream(notice)
        while True:
            recorded = await self._desk.ledger.stream(key)
            decided = decide(resident_notice.state_of(recorded))
            if isinstance(decided, Refusal):
                return decided
            if not decided:
                return None
            try:
                outcome = await self._desk.ledger.append(
                    Unit(f"{key}#{len(recorded) + 1}", (Change(key, len(recorded), decided), *beside))
                )
            except StreamMoved:
                continue
            if not outcome.repeated:
                return None

    def _result(self, notice_id: str, state: State) -> ResidentNoticeResult:
        published = state.published
        if published is None:
            return ResidentNoticeResult(notice_id, state.step)
        replied = state.replied
        readable = replied is not None and not state.erased
        return ResidentNoticeResult(
            notice_id,
            "erased" if state.erased else state.standing(self._now()[:10]),
            published.published_at,
            published.valid_until,
            state.opened.opened_at if state.opened is not None else "",
            replied.replied_at if replied is not None else "",
            replied.choice if replied is not None and readable else "",
            replied.text if replied is not None and readable else "",
            state.cancelled.cancelled_at if state.cancelled is not None else "",
        )

    def _now(self) -> str:
        return self._desk.clock().isoformat(timespec="microseconds")


async def staff_state(desk: Desk, staff_id: str) -> staff.State:
    """What a member of staff may do; nothing for one that was never granted anything."""
    granted = staff.NOBODY
    for happened in await desk.ledger.stream(staff.stream(staff_id)):
        granted = staff.evolve(granted, happened.event)
    return granted
