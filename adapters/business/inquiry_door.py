"""The door for inquiries: orders singly and together, their states and results, their withdrawal."""

from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Any

import trio

from adapters.platform.asking import InquiryOrder, InquiryResult, InquiryStatus
from adapters.platform.inprocess import Platform
from adapters.platform.staffing import Caller
from broker.intermediate.inquiry import (
    InquiryAnswered,
    InquiryExpired,
    InquiryPermitted,
    InquiryRefused,
    InquiryWithdrawn,
)
from schemas.errors import Refusal
from schemas.messages import Malformed, build

MAX_WAIT = 60.0
_FEW = 32
_ENDING = (InquiryPermitted, InquiryRefused, InquiryAnswered, InquiryWithdrawn, InquiryExpired)
Take = Callable[[Any], Awaitable[Refusal | None]]
Each = Callable[[Take, Sequence[Any]], Awaitable[list[tuple[str, str]]]]


class _Waiting:
    """Somebody who waits for the end of requests: those still open, and what wakes them to look again."""

    def __init__(self, requests: Sequence[str]) -> None:
        self.open = set(requests)
        self.woken = trio.Event()


class _Ends:
    """Tells those who wait for the end of requests: one of them looks for all, as long as it waits itself."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._waiting: dict[_Waiting, None] = {}
        self._looker: _Waiting | None = None

    async def reached(self, requests: Sequence[str]) -> None:
        """Until none of these requests is open."""
        ledger, own = self._platform.ledger, _Waiting(requests)
        self._waiting[own] = None
        try:
            # Whoever looks now may have looked before these were among those who wait.
            end = ledger.position
            still = await self._platform.still_open(requests)
            own.open &= still
            while own.open:
                self._looker = self._looker or own
                if self._looker is own:
                    await ledger.wait_beyond(end, of=_ENDING)
                    end = ledger.position
                    await self._look()
                else:
                    await own.woken.wait()
        finally:
            del self._waiting[own]
            if self._looker is own:
                self._looker = next(iter(self._waiting), None)
                if self._looker is not None:
                    self._looker.woken.set()

    async def _look(self) -> None:
        """Who has a file of requests is asked about a few of them, and about all once these are closed."""
        asked = {each: set(islice(each.open, _FEW)) for each in self._waiting}
        while asked:
            still = await self._platform.still_open(set().union(*asked.values()))
            for each, some in asked.items():
                each.open -= some - still
                if not each.open:
                    each.woken.set()
            asked = {each: set(each.open) for each, some in asked.items() if each.open and not some & still}


class InquiryDoor:
    """`absent` says why a member of staff may not order at a terminal now (R-079, R-091), or None."""

    def __init__(self, platform: Platform, absent: Callable[[Caller], Awaitable[Refusal | None]]) -> None:
        self._platform = platform
        self._absent = absent
        self._ends = _Ends(platform)

    def routes(self, each: Each) -> dict[str, Callable[[Any], Awaitable[Any]]]:
        return {
            "/v1/inquiries": lambda batch: each(self._one, batch),
            "/v1/inquiries/together": self._together,
            "/v1/inquiries/state": self._state,
            "/v1/inquiries/open": self._open,
            "/v1/inquiries/withdraw": self._withdraw,
            "/v1/case": self._platform.of_case,
            "/v1/results": self._results,
        }

    async def _one(self, values: Any) -> Refusal | None:
        order = build(InquiryOrder, values)
        return await self._absent(_caller(order)) or await self._platform.inquire(order)

    async def _together(self, batch: Sequence[Any]) -> list[tuple[str, str]]:
        """(code, detail) for every order of one submission, "" where it was taken."""
        verdicts: dict[int, Refusal | None] = {}
        orders: dict[int, InquiryOrder] = {}
        present: dict[Caller, Refusal | None] = {}
        for place, values in enumerate(batch):
            try:
                order = build(InquiryOrder, values)
                caller = _caller(order)
            except (Malformed, TypeError, ValueError):
                verdicts[place] = Refusal("B-001")
                continue
            if caller not in present:
                present[caller] = await self._absent(caller)
            if present[caller] is None:
                orders[place] = order
            else:
                verdicts[place] = present[caller]
        taken = await self._platform.inquire_many(list(orders.values()))
        verdicts |= dict(zip(orders, taken, strict=True))
        return _told([verdicts[place] for place in range(len(batch))])

    async def _state(self, requests: Sequence[str]) -> list[InquiryStatus]:
        return await self._platform.inquiry_status(requests)

    async def _open(self, values: Any) -> int:
        """How many of these requests are open, told `wait` seconds later or as soon as none is."""
        requests = list(values["requests"])
        await self._closed(requests, float(values["wait"]))
        return await self._platform.open_inquiries(requests)

    async def _results(self, values: Any) -> list[InquiryResult]:
        """Results of requests; given `wait` seconds, as soon as none is open or the time is up."""
        requests = list(values["requests"])
        await self._closed(requests, float(values["wait"]))
        return await self._platform.results(requests)

    async def _closed(self, requests: Sequence[str], wait: float) -> None:
        with trio.move_on_after(min(wait, MAX_WAIT)):
            await self._ends.reached(requests)

    async def _withdraw(self, values: Any) -> list[tuple[str, str]]:
        caller, requests = build(Caller, values["caller"]), list(values["requests"])
        if (refusal := await self._absent(caller)) is not None:
            return _told([refusal] * len(requests))
        return _told(await self._platform.pending.withdraw(requests, caller))


def _caller(order: InquiryOrder) -> Caller:
    return Caller(order.staff_id, order.terminal, "inquire")


def _told(refusals: Sequence[Refusal | None]) -> list[tuple[str, str]]:
    return [(refusal.code, refusal.detail) if refusal is not None else ("", "") for refusal in refusals]
