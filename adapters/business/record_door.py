"""What the agency's door takes and tells about provision records; see adapters.business.server for the
door.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from adapters.http import Unreachable
from adapters.platform.inprocess import Platform
from adapters.platform.provision_records import (
    CorrectionOrder,
    NetworkAccounts,
    ProvisionRecordsDesk,
    Request,
)
from adapters.platform.staffing import Caller
from schemas.errors import Refusal, Refused
from schemas.messages import build

Absent = Callable[[Caller], Awaitable[Refusal | None]]


class RecordDoor:
    """Reading, disclosing and correcting records, in somebody's name; `absent` tells who is not signed in."""

    def __init__(self, platform: Platform, network: NetworkAccounts | None, absent: Absent) -> None:
        self._desk = ProvisionRecordsDesk(platform, network)
        self._absent = absent

    def routes(self) -> dict[str, Callable[[Any], Awaitable[Any]]]:
        return {
            "/v1/records": self._read,
            "/v1/records/ask": self._ask,
            "/v1/records/correct": self._correct,
            "/v1/records/accounts": self._accounts,
        }

    async def _read(self, values: Any) -> dict[str, Any]:
        caller = await self._caller(values)
        if isinstance(caller, Refusal):
            return _answer(caller)
        numbers = [str(number) for number in values["numbers"]]
        return _answer(await self._desk.read(caller, numbers, str(values["since"]), str(values["until"])))

    async def _ask(self, values: Any) -> dict[str, Any]:
        caller = await self._caller(values)
        return _answer(
            caller
            if isinstance(caller, Refusal)
            else await self._desk.ask(caller, build(Request, values["request"]))
        )

    async def _correct(self, values: Any) -> dict[str, Any]:
        caller = await self._caller(values)
        if isinstance(caller, Refusal):
            return _answer(caller)
        order = build(CorrectionOrder, values["order"])
        return _answer(await self._desk.correct(caller, order, str(values["act"])))

    async def _accounts(self, values: Any) -> dict[str, Any]:
        """A page of exchanges beside the network's; nothing personal is in it."""
        since, until = str(values["since"]), str(values["until"])
        try:
            return _answer(
                await self._desk.accounts(str(values["which"]), int(values["after"]), since, until)
            )
        except Refused as refused:
            return _answer(refused.refusal)
        except Unreachable:
            return _answer(Refusal("S-103"))

    async def _caller(self, values: Mapping[str, Any]) -> Caller | Refusal:
        caller = build(Caller, values["caller"])
        return await self._absent(caller) or caller


def _answer(found: Any) -> dict[str, Any]:
    if isinstance(found, Refusal):
        return {"code": found.code, "detail": found.detail, "found": None}
    return {"code": "", "detail": "", "found": found}
