"""What the agency's door takes and tells about notices; see adapters.business.server for the door itself."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from adapters.platform.inprocess import Platform
from adapters.platform.notices import Acknowledgement, NoticeOrder, Notices
from adapters.platform.resident_notices import Cancellation, ResidentNoticeOrder, ResidentNotices
from adapters.platform.staffing import Caller
from schemas.errors import Refusal
from schemas.messages import build

Take = Callable[[Any], Awaitable[Refusal | None]]
Each = Callable[[Take, Sequence[Any]], Awaitable[list[tuple[str, str]]]]
Call = Callable[[Any], Awaitable[Any]]


class NoticeDoor:
    """Notices to residents, and to and from offices of other agencies."""

    def __init__(self, platform: Platform) -> None:
        self._notices = Notices(platform)
        self._residents = ResidentNotices(platform)

    def routes(self, each: Each) -> dict[str, Call]:
        """By path; `each` takes a batch and gives a verdict for every record."""
        return {
            "/v1/notices": lambda batch: each(self._publish, batch),
            "/v1/notices/cancel": lambda batch: each(self._cancel, batch),
            "/v1/notices/results": self._resident_results,
            "/v1/agency-notices": lambda batch: each(self._send, batch),
            "/v1/agency-notices/results": self._results,
            "/v1/inbox": self._inbox,
            "/v1/inbox/acknowledge": lambda batch: each(self._acknowledge, batch),
        }

    async def _publish(self, values: Any) -> Refusal | None:
        return await self._residents.publish(build(ResidentNoticeOrder, values))

    async def _cancel(self, values: Any) -> Refusal | None:
        return await self._residents.cancel(build(Cancellation, values))

    async def _resident_results(self, notice_ids: Any) -> list[dict[str, Any]]:
        return [vars(result) for result in await self._residents.results(list(notice_ids))]

    async def _send(self, values: Any) -> Refusal | None:
        return await self._notices.send(build(NoticeOrder, values))

    async def _results(self, notice_ids: Any) -> list[dict[str, Any]]:
        return [vars(result) for result in await self._notices.results(list(notice_ids))]

    async def _inbox(self, values: Any) -> dict[str, Any]:
        found = await self._notices.inbox(build(Caller, values["caller"]), str(values["office"]))
        if isinstance(found, Refusal):
            return {"code": found.code, "found": []}
        return {"code": "", "found": [vars(each) for each in found]}

    async def _acknowledge(self, values: Any) -> Refusal | None:
        return await self._notices.acknowledge(build(Acknowledgement, values))
