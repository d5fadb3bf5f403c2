"""The agency's door for its own business systems: HTTP over mutual TLS, batches with a verdict per record.

Numbers of persons travel in bodies, never in a path or query.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

from adapters.http import Request, Response, Unreachable
from adapters.platform.asking import InquiryOrder
from adapters.platform.inprocess import Platform
from broker.addressing.office import Addressing
from broker.intermediate.staff import AuthorityGranted
from broker.ledger.ledger import STORE_TROUBLE, trouble_code
from broker.linkage.crypto import CertificateInvalid, identity
from schemas.errors import Refusal, Refused
from schemas.messages import Malformed, build, pack, unpack

MAX_WAIT = 60.0
Take = Callable[[Any], Awaitable[Refusal | None]]


class BusinessServer:
    """What a business system may ask of its agency; `issue_link` makes a one-time login to the portal."""

    def __init__(
        self, platform: Platform, addressing: Addressing, issue_link: Callable[[str], str] | None
    ) -> None:
        self._platform = platform
        self._addressing = addressing
        self._issue_link = issue_link
        self._caller = f"urn:renkei:business:{platform.linkage.agency.code}"
        self._routes: dict[str, Callable[[Any], Awaitable[Any]]] = {
            "/v1/residents": lambda batch: self._each(self._resident, batch),
            "/v1/replicas": lambda batch: self._each(self._replica, batch),
            "/v1/staff": lambda batch: self._each(self._staff, batch),
            "/v1/inquiries": lambda batch: self._each(self._inquiry, batch),
            "/v1/results": self._results,
            "/v1/records": self._platform.records,
            "/v1/portal/link": self._link,
            "/v1/status": self._status,
        }

    async def handle(self, request: Request) -> Response:
        call = self._routes.get(request.path)
        if call is None or request.method != "POST":
            return Response(404)
        try:
            if identity(request.peer.certificate).uri != self._caller:
                return Response(403)
            return Response(200, pack(await call(unpack(request.body))))
        except CertificateInvalid:
            return Response(403)
        except (Malformed, KeyError, TypeError, ValueError):
            return Response(400)
        except STORE_TROUBLE:
            return Response(503)

    async def _each(self, take: Take, batch: Sequence[Any]) -> list[tuple[str, str]]:
        """(code, detail) for every record, "" where it was taken; one bad record never stops another."""
        verdicts: dict[int, tuple[str, str]] = {}

        async def one(index: int, values: Any) -> None:
            try:
                refusal = await take(values)
            except Refused as error:
                refusal = error.refusal
            except Unreachable:
                refusal = Refusal("S-103")
            except STORE_TROUBLE as error:
                refusal = Refusal(trouble_code(error))
            except (Malformed, KeyError, TypeError, ValueError):
                refusal = Refusal("B-001")
            verdicts[index] = (refusal.code, refusal.detail) if refusal is not None else ("", "")

        async with trio.open_nursery() as nursery:
            for index, values in enumerate(batch):
                nursery.start_soon(one, index, values)
        return [verdicts[index] for index in range(len(batch))]

    async def _resident(self, values: Any) -> Refusal | None:
        refusal = await self._addressing.register(values)
        if refusal is None:
            await self._platform.set_hold(
                values["integrated_number"], bool(values["protected"]), "protected_person"
            )
        return refusal

    async def _replica(self, values: Any) -> Refusal | None:
        return await self._platform.register_replica(
            values["integrated_number"], values["layout_key"], values["fiscal_year"], values["payload"]
        )

    async def _staff(self, values: Any) -> None:
        await self._platform.grant(build(AuthorityGranted, values))

    async def _inquiry(self, values: Any) -> Refusal | None:
        return await self._platform.inquire(build(InquiryOrder, values))

    async def _results(self, values: Any) -> Any:
        """Results of requests; given `wait` seconds, as soon as none is open or the time is up."""
        requests, platform = list(values["requests"]), self._platform
        with trio.move_on_after(min(float(values["wait"]), MAX_WAIT)):
            end = platform.ledger.position
            while await platform.open_inquiries(requests):
                end = await platform.ledger.wait_beyond(end)
        return await platform.results(requests)

    async def _link(self, integrated_number: Any) -> str:
        if self._issue_link is None or not isinstance(integrated_number, str):
            raise ValueError("no portal")
        return self._issue_link(integrated_number)

    async def _status(self, _values: Any) -> dict[str, Any]:
        platform = self._platform
        follower = self._addressing.follower
        await platform.follower.reach(platform.ledger.position)
        await follower.reach(self._addressing.ledger.position)
        open_codes = await follower.query("SELECT COUNT(*) FROM acquisition WHERE settled = 0")
        outbox = await platform.follower.query("SELECT COUNT(*) FROM outbox")
        states = await platform.follower.query(
            "SELECT SUBSTR(stream, 1, INSTR(stream, '/') - 1), state, code, COUNT(*) "
            "FROM processing_status GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        )
        directory = platform.linkage.directory
        return {
            "agency": platform.linkage.agency.code,
            "position": platform.ledger.position,
            "partners": sorted(directory.partners) if directory is not None else [],
            "waiting_for_codes": open_codes[0][0],
            "outbox": outbox[0][0],
            "processing": [list(state) for state in states],
        }
