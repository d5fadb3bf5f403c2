"""The door for inquiries: orders singly and together, their states and results, their withdrawal."""

from collections.abc import Awaitable, Callable, Sequence
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
_ENDING = (InquiryPermitted, InquiryRefused, InquiryAnswered, InquiryWithdrawn, InquiryExpired)
Take = Callable[[Any], Awaitable[Refusal | None]]
Each = Callable[[Take, Sequence[Any]], Awaitable[list[tuple[str, str]]]]


class _Ends:
    """Tells those who wait for the end of requests: one of them looks for all, as long as it waits itself."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._waiting: dict[trio.Event, set[str]] = {}
        self._turn = trio.Lock()

    async def reached(self, requests: Sequence[str]) -> None:
        """Until none of these requests is open."""
        ended = trio.Event()
        self._waiting[ended] = set(requests)
        try:
            # Whoever looks now may have looked before these were among those who wait.
            if not await self._platform.still_open(requests):
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._look)
                await ended.wait()
                nursery.cancel_scope.cancel()
        finally:
            del self._waiting[ended]

    async def _look(self) -> None:
        async with self._turn:
            ledger = self._platform.ledger
            while True:
                end, waiting = ledger.position, dict(self._waiting)
                still = await self._platform.still_open(set().union(*waiting.values()))
                for ended, requests in waiting.items():
                    requests &= still
                    if not requests:
                        ended.set()
                await ledger.wait_beyond(end, of=_ENDING)


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
