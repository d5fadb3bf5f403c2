"""The business system's end of the agency's door."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

import trio

from adapters.business.records import InquiryRecord, ReplicaRecord, ResidentRecord, StaffRecord
from adapters.http import Client, Unreachable
from adapters.platform.asking import InquiryResult
from broker.intermediate.records import ProvisionRecord
from schemas.messages import Malformed, pack, unpack

PATHS = {
    ResidentRecord: "/v1/residents",
    ReplicaRecord: "/v1/replicas",
    StaffRecord: "/v1/staff",
    InquiryRecord: "/v1/inquiries",
}
T = TypeVar("T")


class BusinessClient(trio.abc.AsyncResource):
    """Raises Unreachable where the daemon gives no whole, sensible answer."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def aclose(self) -> None:
        await self._client.aclose()

    async def send(self, records: Sequence[Any]) -> list[tuple[str, str]]:
        """Records of one kind -> (code, detail) each; "" where taken."""
        verdicts = await self._ask(PATHS[type(records[0])], [vars(record) for record in records])
        if len(verdicts) != len(records):
            raise Unreachable("another number of verdicts than records")
        return [(code, detail) for code, detail in verdicts]

    async def results(self, request_ids: Sequence[str], wait: float) -> list[InquiryResult]:
        """What became of requests; waits up to `wait` seconds until none is open."""
        values = await self._ask("/v1/results", {"requests": list(request_ids), "wait": wait}, wait + 30)
        return [_made(InquiryResult, value) for value in values]

    async def records(self, integrated_number: str) -> list[ProvisionRecord]:
        return [_made(ProvisionRecord, value) for value in await self._ask("/v1/records", integrated_number)]

    async def portal_link(self, integrated_number: str) -> str:
        """A one-time address for the resident."""
        return str(await self._ask("/v1/portal/link", integrated_number))

    async def status(self) -> dict[str, Any]:
        values: dict[str, Any] = await self._ask("/v1/status", None)
        return values

    async def _ask(self, path: str, body: Any, patience: float = 120.0) -> Any:
        response = await self._client.request("POST", path, pack(body), timeout=patience)
        if response.status != 200:
            raise Unreachable(f"the daemon answered {response.status}")
        try:
            return unpack(response.body)
        except Malformed as error:
            raise Unreachable("the daemon's answer cannot be read") from error


def _made(kind: type[T], values: Any) -> T:
    try:
        return kind(**{f.name: values[f.name] for f in fields(kind)})  # type: ignore[arg-type] # both are dataclasses
    except (KeyError, TypeError) as error:
        raise Unreachable("the daemon's answer cannot be read") from error
