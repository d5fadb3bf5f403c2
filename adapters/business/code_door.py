"""What offices and operators may do about link codes, at the agency's door for business systems."""

from collections.abc import Awaitable, Callable
from typing import Any

from adapters.platform.code_requests import CodeRequests
from adapters.platform.inprocess import Platform
from adapters.platform.link_codes import LinkCodes
from adapters.platform.staffing import Caller
from adapters.registry.acquirer import AcquisitionDesk
from broker.addressing.office import Addressing
from broker.intermediate.link_code import REASONS
from schemas.errors import Refusal
from schemas.messages import build

BY_OFFICE = REASONS[:3]
"""For these reasons an office may retire a code: the person died, moved, or is to be erased."""


class CodeDoor:
    """The routes below /v1/codes. Refusals are texts: a code of the catalogue, or "".

    `absent` says why a member of staff may not act at a terminal now (R-079, R-091), or None.
    """

    def __init__(
        self,
        platform: Platform,
        addressing: Addressing,
        absent: Callable[[Caller], Awaitable[Refusal | None]],
    ) -> None:
        codes = LinkCodes(platform.ledger, platform.follower)
        self._platform = platform
        self._absent = absent
        self._addressing = addressing
        self._desk = AcquisitionDesk(addressing, codes)
        self._requests = CodeRequests(platform, addressing, codes)
        self.routes: dict[str, Callable[[Any], Awaitable[Any]]] = {
            "/v1/codes/request": lambda after: addressing.page(int(after)),
            "/v1/codes/settle": self._settle,
            "/v1/codes/progress": self._progress,
            "/v1/codes/refused": lambda after: addressing.refused(int(after)),
            "/v1/codes/retire": self._retire,
            "/v1/codes/ask": self._ask,
            "/v1/codes/asked": self._asked,
            "/v1/codes/decide": self._decide,
        }

    async def _settle(self, verdicts: Any) -> None:
        await self._desk.settle([(str(number), str(code)) for number, code in verdicts])

    async def _progress(self, _values: Any) -> dict[str, Any]:
        return vars(await self._addressing.progress())

    async def _retire(self, values: Any) -> str:
        number, reason = str(values["integrated_number"]), str(values["reason"])
        if reason not in BY_OFFICE:
            raise ValueError("no reason to retire a code")
        if not await self._addressing.knows(number):
            return "B-007"
        await self._desk.retire(number, reason)
        return ""

    async def _ask(self, values: Any) -> str:
        caller = build(Caller, values["caller"])
        inquiry_id = self._platform.inquiry_id(str(values["request_id"]))
        return _code(await self._absent(caller) or await self._requests.ask(inquiry_id, caller.staff_id))

    async def _asked(self, values: Any) -> tuple[str, list[dict[str, Any]]]:
        if (refusal := await self._absent(build(Caller, values["caller"]))) is not None:
            return refusal.code, []
        return "", [vars(each) for each in await self._requests.open_requests()]

    async def _decide(self, values: Any) -> str:
        caller = build(Caller, values["caller"])
        number, place = str(values["processing_number"]), int(values["place"])
        person = str(values["integrated_number"])
        return _code(
            await self._absent(caller) or await self._requests.decide(number, place, person, caller.staff_id)
        )


def _code(refusal: Refusal | None) -> str:
    return refusal.code if refusal is not None else ""
