"""The agency's door for its own business systems: HTTP over mutual TLS, batches with a verdict per record.

Numbers of persons travel in bodies, never in a path or query.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import trio

from adapters.business.code_door import CodeDoor
from adapters.business.inquiry_door import InquiryDoor
from adapters.business.notice_door import NoticeDoor
from adapters.business.provision_door import ProvisionDoor
from adapters.business.record_door import RecordDoor
from adapters.http import Request, Response, Unreachable
from adapters.platform.inprocess import Platform
from adapters.platform.provision_records import NetworkAccounts
from adapters.platform.staffing import Caller, LogEntry, Search, Staffing
from broker.addressing.office import Addressing
from broker.intermediate.office import OfficeOpened
from broker.intermediate.staff import AuthorityGranted, AuthorityRevoked
from broker.ledger.ledger import STORE_TROUBLE, trouble_code
from broker.linkage.crypto import CertificateInvalid, identity
from schemas.errors import Refusal, Refused
from schemas.messages import Malformed, build, pack, unpack

Take = Callable[[Any], Awaitable[Refusal | None]]


class BusinessServer:
    """What a business system may ask of its agency; `issue_link` makes a one-time login to the portal.

    Where `signed_in` is not zero, staff act at a terminal only while they are signed in there, for so long.
    `network` is where the network's own records are fetched, to be laid beside ours.
    """

    def __init__(
        self,
        platform: Platform,
        addressing: Addressing,
        issue_link: Callable[[str], str] | None,
        signed_in: timedelta = timedelta(0),
        network: NetworkAccounts | None = None,
    ) -> None:
        self._platform = platform
        self._staffing = Staffing(platform)
        self._signed_in = signed_in
        self._addressing = addressing
        self._issue_link = issue_link
        self._caller = f"urn:renkei:business:{platform.linkage.agency.code}"
        self._routes: dict[str, Callable[[Any], Awaitable[Any]]] = {
            "/v1/residents": lambda batch: self._each(self._resident, batch),
            "/v1/replicas": lambda batch: self._each(self._replica, batch),
            "/v1/staff": lambda batch: self._each(self._staff, batch),
            "/v1/revocations": lambda batch: self._each(self._revocation, batch),
            "/v1/offices": lambda batch: self._each(self._office, batch),
            "/v1/operations": self._operations,
            "/v1/sign-in": self._sign_in,
            "/v1/sign-out": self._sign_out,
            "/v1/portal/link": self._link,
            "/v1/status": self._status,
            **CodeDoor(platform, addressing, self._absent).routes,
            **ProvisionDoor(platform, self._staffing, self._absent).routes(self._each),
            **InquiryDoor(platform, self._absent).routes(self._each),
            **NoticeDoor(platform).routes(self._each),
            **RecordDoor(platform, network, self._absent).routes(),
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

    async def _staff(self, values: Any) -> Refusal | None:
        return await self._staffing.grant(build(AuthorityGranted, values))

    async def _revocation(self, values: Any) -> Refusal | None:
        return await self._staffing.revoke(build(AuthorityRevoked, values))

    async def _office(self, values: Any) -> Refusal | None:
        return await self._staffing.open_office(build(OfficeOpened, values))

    async def _sign_in(self, values: Any) -> str:
        """The business system authenticated somebody at a terminal (R-091); the code of a refusal, or ""."""
        refusal = await self._staffing.sign_in(build(Caller, values), self._signed_in)
        return refusal.code if refusal is not None else ""

    async def _sign_out(self, values: Any) -> str:
        await self._staffing.sign_out(build(Caller, values))
        return ""

    async def _absent(self, caller: Caller) -> Refusal | None:
        """I-128 for a member of staff who is not signed in, where the configuration asks for it (R-091)."""
        return await self._staffing.present(caller) if self._signed_in else None

    async def _operations(self, values: Any) -> dict[str, Any]:
        """Read the intermediate log; the log about a person waits for a second person first (I-129)."""
        caller, search = build(Caller, values["caller"]), build(Search, values["search"])
        if (refusal := await self._absent(caller)) is not None:
            return {"code": refusal.code, "detail": refusal.detail, "entries": []}
        staffing, act_id = self._staffing, str(values["act"])
        found: list[LogEntry] | str | Refusal | None
        if values["confirm"]:
            found = await staffing.agree_to_read(caller, search, act_id)
        elif search.integrated_number and not act_id:
            found = await staffing.ask_to_read(caller, search)
        else:
            found = await staffing.read_log(caller, search, act_id)
        if isinstance(found, str):
            found = Refusal("I-129", found)
        if isinstance(found, Refusal):
            return {"code": found.code, "detail": found.detail, "entries": []}
        return {"code": "", "detail": "", "entries": [vars(entry) for entry in found or ()]}

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
            "configured_until": directory.counts_until.isoformat() if directory is not None else "",
            "waiting_for_codes": open_codes[0][0],
            "outbox": outbox[0][0],
            "processing": [list(state) for state in states],
        }
