"""The business system's end of the agency's door."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import trio

from adapters.business.records import (
    InquiryRecord,
    OfficeRecord,
    ReplicaRecord,
    ResidentRecord,
    RevocationRecord,
    StaffRecord,
)
from adapters.http import Client, Unreachable
from adapters.platform.asking import InquiryResult, InquiryStatus
from adapters.platform.holdings import HoldOrder, NonDisclosureOrder, PublicationOrder, Recipient
from adapters.platform.notices import Acknowledgement, InboxNotice, NoticeOrder, NoticeResult
from adapters.platform.officer import DecisionOrder, InquiryContent, Waiting, WaitingPerson
from adapters.platform.provision_records import CorrectionOrder, Request
from adapters.platform.resident_notices import Cancellation, ResidentNoticeOrder, ResidentNoticeResult
from adapters.platform.staffing import Caller, LogEntry, Search
from broker.intermediate.correction import Correction
from broker.intermediate.records import ProvisionRecord
from schemas.accounts import Sides, sides_from
from schemas.errors import Refusal, Refused
from schemas.messages import Malformed, pack, unpack

PATHS = {
    ResidentRecord: "/v1/residents",
    ReplicaRecord: "/v1/replicas",
    StaffRecord: "/v1/staff",
    RevocationRecord: "/v1/revocations",
    OfficeRecord: "/v1/offices",
    InquiryRecord: "/v1/inquiries",
    HoldOrder: "/v1/holds",
    NonDisclosureOrder: "/v1/non-disclosure",
    PublicationOrder: "/v1/publications",
    ResidentNoticeOrder: "/v1/notices",
    Cancellation: "/v1/notices/cancel",
    NoticeOrder: "/v1/agency-notices",
    Acknowledgement: "/v1/inbox/acknowledge",
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

    async def inquire(self, orders: Sequence[InquiryRecord]) -> list[tuple[str, str]]:
        """Orders of one submission (一括) -> (code, detail) each; "" where taken."""
        verdicts = await self._ask("/v1/inquiries/together", [vars(order) for order in orders])
        if len(verdicts) != len(orders):
            raise Unreachable("another number of verdicts than orders")
        return [(code, detail) for code, detail in verdicts]

    async def open_inquiries(self, request_ids: Sequence[str], wait: float) -> int:
        """How many of these requests are open after `wait` seconds, or as soon as none is."""
        asked = {"requests": list(request_ids), "wait": wait}
        return int(await self._ask("/v1/inquiries/open", asked, wait + 30))

    async def inquiry_status(self, request_ids: Sequence[str]) -> list[InquiryStatus]:
        """Where requests stand; those that were never recorded are left out (R-090)."""
        values = await self._ask("/v1/inquiries/state", list(request_ids))
        return [_made(InquiryStatus, value) for value in values]

    async def of_case(self, case_number: str) -> list[str]:
        """The request ids of a case (事案番号)."""
        return [str(request_id) for request_id in await self._ask("/v1/case", case_number)]

    async def withdraw(self, caller: Caller, request_ids: Sequence[str]) -> list[tuple[str, str]]:
        """Withdraw requests (取りやめ) -> (code, detail) each; "" where it is withdrawn or asked for."""
        asked = {"caller": vars(caller), "requests": list(request_ids)}
        return [(code, detail) for code, detail in await self._ask("/v1/inquiries/withdraw", asked)]

    async def results(self, request_ids: Sequence[str], wait: float) -> list[InquiryResult]:
        """What became of requests; waits up to `wait` seconds until none is open."""
        values = await self._ask("/v1/results", {"requests": list(request_ids), "wait": wait}, wait + 30)
        return [_made(InquiryResult, value) for value in values]

    async def records(
        self, caller: Caller, numbers: Sequence[str], since: str = "", until: str = ""
    ) -> list[list[ProvisionRecord]] | Refusal:
        """The provision records of each of these persons; the reading is recorded (R-160)."""
        asked = {"caller": vars(caller), "numbers": list(numbers), "since": since, "until": until}
        values = await self._ask("/v1/records", asked)
        if values["code"]:
            return Refusal(values["code"], values["detail"])
        return [[_record(value) for value in records] for records in values["found"]]

    async def ask_about_records(self, caller: Caller, request: Request) -> list[ProvisionRecord] | Refusal:
        """What a person, or somebody for her, asks about her records (R-162, R-163)."""
        values = await self._ask("/v1/records/ask", {"caller": vars(caller), "request": vars(request)})
        if values["code"]:
            return Refusal(values["code"], values["detail"])
        return [_record(value) for value in values["found"]]

    async def correct_record(self, caller: Caller, order: CorrectionOrder, act: str = "") -> Refusal | None:
        """Correct a record, or with `act` confirm what another proposed."""
        asked = {"caller": vars(caller), "order": vars(order), "act": act}
        values = await self._ask("/v1/records/correct", asked)
        return Refusal(values["code"], values["detail"]) if values["code"] else None

    async def accounts(self, which: str, after: int, since: str, until: str) -> tuple[int, list[Sides]]:
        """A page of exchanges beside the network's records, and where the next begins (0: none).

        Raises Refused where the network is away (S-103) or does not admit this agency.
        """
        asked = {"which": which, "after": after, "since": since, "until": until}
        values = await self._ask("/v1/records/accounts", asked)
        if values["code"]:
            raise Refused(Refusal(values["code"], values["detail"]))
        try:
            following, found = values["found"]
            return int(following), [sides_from(value) for value in found]
        except (Malformed, TypeError, ValueError) as error:
            raise Unreachable("the daemon's answer cannot be read") from error

    async def operations(
        self, caller: Caller, search: Search, act: str = "", *, confirm: bool = False
    ) -> list[LogEntry] | Refusal:
        """The intermediate log, or why not; with `confirm` a second person agrees to a reading."""
        values = await self._ask(
            "/v1/operations", {"caller": vars(caller), "search": vars(search), "act": act, "confirm": confirm}
        )
        if values["code"]:
            return Refusal(values["code"], values["detail"])
        return [_made(LogEntry, value) for value in values["entries"]]

    async def sign(self, caller: Caller, direction: str) -> str:
        """Sign a member of staff "in" or "out" at a terminal; the code of a refusal, or ""."""
        return str(await self._ask(f"/v1/sign-{direction}", vars(caller)))

    async def holds(self) -> list[HoldOrder]:
        """Every hold that stands (R-105)."""
        return [_made(HoldOrder, value) for value in await self._ask("/v1/holds/state", None)]

    async def hold(self, caller: Caller, order: HoldOrder, act: str = "") -> tuple[str, str]:
        """Set or release a hold by hand: (code, detail), "" where it was done."""
        asked = {"caller": vars(caller), "order": vars(order), "act": act}
        code, detail = await self._ask("/v1/hold", asked)
        return str(code), str(detail)

    async def recipients(self, integrated_number: str, layout: str, fiscal_year: str) -> list[Recipient]:
        """To whom a record was provided (R-140)."""
        asked = {"integrated_number": integrated_number, "layout": layout, "fiscal_year": fiscal_year}
        return [_made(Recipient, value) for value in await self._ask("/v1/recipients", asked)]

    async def held(self, caller: Caller) -> list[Waiting] | Refusal:
        """What waits for this officer."""
        values = await self._ask("/v1/held", {"caller": vars(caller), "processing_number": ""})
        if values["code"]:
            return Refusal(values["code"])
        return [_made(Waiting, value) for value in values["found"]]

    async def held_content(self, caller: Caller, processing_number: str) -> InquiryContent | Refusal:
        """What was asked and what would be sent; the reading is recorded (R-108)."""
        asked = {"caller": vars(caller), "processing_number": processing_number}
        values = await self._ask("/v1/held", asked)
        if values["code"]:
            return Refusal(values["code"])
        found = _made(InquiryContent, values["found"])
        persons = values["found"]["persons"]
        return replace(
            found,
            waiting=_made(Waiting, values["found"]["waiting"]),
            persons=tuple(_made(WaitingPerson, person) for person in persons),
        )

    async def decide(self, caller: Caller, orders: Sequence[DecisionOrder]) -> list[tuple[str, str]]:
        """(code, detail) for each decision, "" where it was carried out."""
        asked = {"caller": vars(caller), "orders": [vars(order) for order in orders]}
        return [(code, detail) for code, detail in await self._ask("/v1/decide", asked)]

    async def resident_notices(self, notice_ids: Sequence[str]) -> list[ResidentNoticeResult]:
        """What became of notices to residents."""
        values = await self._ask("/v1/notices/results", list(notice_ids))
        return [_made(ResidentNoticeResult, value) for value in values]

    async def notices(self, notice_ids: Sequence[str]) -> list[NoticeResult]:
        """What became of notices to other agencies."""
        values = await self._ask("/v1/agency-notices/results", list(notice_ids))
        return [_made(NoticeResult, value) for value in values]

    async def inbox(self, caller: Caller, office: str) -> list[InboxNotice] | Refusal:
        """The notices in the inbox of an office, "" for the common one; the reading is recorded."""
        values = await self._ask("/v1/inbox", {"caller": vars(caller), "office": office})
        if values["code"]:
            return Refusal(values["code"])
        return [_made(InboxNotice, value) for value in values["found"]]

    async def portal_link(self, integrated_number: str) -> str:
        """A one-time address for the resident."""
        return str(await self._ask("/v1/portal/link", integrated_number))

    async def codes(self, call: str, values: Any) -> Any:
        """One of the calls below /v1/codes (adapters.business.code_door)."""
        return await self._ask(f"/v1/codes/{call}", values)

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


def _record(values: Any) -> ProvisionRecord:
    made = _made(ProvisionRecord, values)
    return replace(made, corrections=tuple(_made(Correction, each) for each in values["corrections"]))


def _made(kind: type[T], values: Any) -> T:
    try:
        return kind(**{f.name: values[f.name] for f in fields(kind)})  # type: ignore[arg-type] # both are dataclasses
    except (KeyError, TypeError) as error:
        raise Unreachable("the daemon's answer cannot be read") from error
