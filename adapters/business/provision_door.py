"""The door for what an agency provides: holds, flags, ends of publication, and the officer's desk."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from adapters.business.inquiry_door import Each
from adapters.platform.holdings import HoldOrder, NonDisclosureOrder, PublicationOrder, Recipient
from adapters.platform.inprocess import Platform
from adapters.platform.officer import DecisionOrder, OfficersDesk
from adapters.platform.staffing import Caller, Staffing
from schemas.errors import Refusal
from schemas.messages import build


class ProvisionDoor:
    """`absent` says why a member of staff may not act at a terminal now (R-079, R-091), or None."""

    def __init__(
        self,
        platform: Platform,
        staffing: Staffing,
        absent: Callable[[Caller], Awaitable[Refusal | None]],
    ) -> None:
        self._platform = platform
        self._officers = OfficersDesk(platform, staffing)
        self._absent = absent

    def routes(self, each: Each) -> dict[str, Callable[[Any], Awaitable[Any]]]:
        return {
            "/v1/holds": lambda batch: each(self._hold, batch),
            "/v1/holds/state": self._holds,
            "/v1/hold": self._by_hand,
            "/v1/non-disclosure": lambda batch: each(self._non_disclosure, batch),
            "/v1/publications": lambda batch: each(self._publication, batch),
            "/v1/recipients": self._recipients,
            "/v1/held": self._held,
            "/v1/decide": self._decide,
        }

    async def _hold(self, values: Any) -> Refusal | None:
        return await self._platform.hold(build(HoldOrder, values))

    async def _by_hand(self, values: Any) -> tuple[str, str]:
        """(code, detail) of a hold set or released by an officer; "" where it was done."""
        caller, order = build(Caller, values["caller"]), build(HoldOrder, values["order"])
        refusal = await self._absent(caller) or await self._officers.hold(caller, order, str(values["act"]))
        return (refusal.code, refusal.detail) if refusal is not None else ("", "")

    async def _holds(self, _values: Any) -> Sequence[HoldOrder]:
        return await self._platform.holds()

    async def _non_disclosure(self, values: Any) -> Refusal | None:
        return await self._platform.set_non_disclosure(build(NonDisclosureOrder, values))

    async def _publication(self, values: Any) -> Refusal | None:
        return await self._platform.set_publication(build(PublicationOrder, values))

    async def _recipients(self, values: Any) -> Sequence[Recipient]:
        return await self._platform.recipients(
            values["integrated_number"], values["layout"], values["fiscal_year"]
        )

    async def _held(self, values: Any) -> dict[str, Any]:
        """What waits for an officer, or with a processing number the content of one."""
        caller, number = build(Caller, values["caller"]), str(values["processing_number"])
        found: Any = await self._absent(caller)
        if found is None:
            found = await (self._officers.show(caller, number) if number else self._officers.waiting(caller))
        if isinstance(found, Refusal):
            return {"code": found.code, "found": None}
        return {"code": "", "found": found}

    async def _decide(self, values: Any) -> list[tuple[str, str]]:
        """(code, detail) for each decision, "" where it was carried out."""
        caller = build(Caller, values["caller"])
        orders = [build(DecisionOrder, order) for order in values["orders"]]
        absent = await self._absent(caller)
        if absent is not None:
            return [(absent.code, absent.detail)] * len(orders)
        outcomes = await self._officers.decide(caller, orders)
        return [(refusal.code, refusal.detail) if refusal else ("", "") for refusal in outcomes]
