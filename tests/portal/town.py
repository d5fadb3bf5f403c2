"""連携市 with a real ledger, and exchanges written into it as the interfaces write them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import trio
from cryptography import x509

from adapters.platform.inprocess import Platform
from adapters.portal.article23 import JST
from adapters.portal.login import Links
from broker.intermediate import (
    disclosure,
    hold,
    inquiry,
    link_code,
    notice,
    provision,
    received_notice,
    records,
    replica,
    resident_notice,
    staff,
)
from broker.intermediate.inquiry import InquiryAnswered, InquiryPermitted, InquiryRefused, InquiryRequested
from broker.intermediate.provision import ProvisionHeld, ProvisionRefused, ProvisionRequested
from broker.ledger.folder import VERIFIER_KEY, LedgerFolder
from broker.ledger.ledger import Change, Unit
from broker.linkage import incoming, log, outgoing
from broker.linkage.crypto import SealingKey, Signer, new_sealing_secret
from broker.linkage.interface import LinkageInterface
from ops.certificates import create_authority, issue
from schemas.codes import integrated_number
from schemas.items import layout
from schemas.law import Agency, table_at
from schemas.law.necessity import necessary_items

TYPES = tuple(
    kind
    for room in (
        outgoing,
        incoming,
        staff,
        link_code,
        replica,
        hold,
        inquiry,
        provision,
        notice,
        received_notice,
        resident_notice,
    )
    for kind in room.EVENTS
)
NUMBERS = [number for serial in range(1, 20) if (number := integrated_number(serial)) is not None]
HANAKO, TARO, NOBODY = NUMBERS[:3]
LAYOUT = layout("income_tax_certificate/1")
ITEMS = necessary_items("81", LAYOUT)
NOW = datetime(2026, 11, 21, 9, 30, tzinfo=JST)


class Clock:
    """Stands still until told to go on."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def text(self) -> str:
        return self.now.isoformat(timespec="microseconds")


class NoAddressing:
    """The portal shows records without asking who anybody is."""

    async def guard(self, integrated_number: str, salt: bytes) -> bytes | None:
        raise AssertionError("the portal asked addressing for a guard")

    async def guards(self, asked: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        raise AssertionError("the portal asked addressing for guards")

    async def knows(self, integrated_number: str) -> bool:
        raise AssertionError("the portal asked addressing for a person")


class Town:
    """One agency; each method writes one exchange about `residents` and returns its first position."""

    def __init__(self, folder: LedgerFolder, platform: Platform, clock: Clock, vkey: str) -> None:
        numbers = count(1)
        self.platform = platform
        self.clock = clock
        self.vkey = vkey
        self.links = Links(clock, lambda: f"token-{next(numbers):026d}")
        self._folder = folder
        self._exchanges = count(1)

    async def answered(self, *residents: str, codes: Sequence[str] = (), **changes: Any) -> int:
        """連携市 asked 見本市, which answered."""
        request = self._inquiry(residents, **changes)
        answer = InquiryAnswered(
            "P-1",
            "A-1",
            "2026-11-20T14:05:30.000000+09:00",
            False,
            tuple(range(len(residents))),
            tuple(codes) or ("",) * len(residents),
            ((),) * len(residents),
            tuple({"fiscal_year": "2026", "total_income": "8642097"} for _ in residents),
        )
        permit = InquiryPermitted(
            "P-1", request.requested_at, "2026-11-27T14:05:10.000000+09:00", ("",) * len(residents)
        )
        return await self._append(inquiry.stream(request.inquiry_id), request, permit, answer)

    async def turned_down(self, *residents: str, code: str = "L-104", **changes: Any) -> int:
        """連携市 wanted to ask, and its own check refused."""
        request = self._inquiry(residents, **changes)
        refused = InquiryRefused("here", code, "", request.requested_at)
        return await self._append(inquiry.stream(request.inquiry_id), request, refused)

    async def asked(self, *residents: str, **changes: Any) -> int:
        """連携市 asked 見本市, and there is no answer yet."""
        request = self._inquiry(residents, **changes)
        return await self._append(inquiry.stream(request.inquiry_id), request)

    async def refused(self, *residents: str, **changes: Any) -> int:
        """見本市 asked 連携市, which holds no such information."""
        request = self._request(residents, **changes)
        decided = ProvisionRefused(
            "A-1", "2026-11-18T10:00:01.000000+09:00", tuple(range(len(residents))), "I-204"
        )
        return await self._append(provision.stream(request.processing_number), request, decided)

    async def held(self, *residents: str, **changes: Any) -> int:
        """見本市 asked 連携市 about a protected person."""
        request = self._request(residents, requested_at="2026-11-21T09:12:00.000000+09:00", **changes)
        size = len(residents)
        reasons = (("protected_person",),) * size
        held = ProvisionHeld(tuple(range(size)), reasons, ("",) * size, request.valid_until, "I-203")
        return await self._append(provision.stream(request.processing_number), request, held)

    async def _append(self, stream: str, *events: Any) -> int:
        outcome = await self.platform.ledger.append(Unit(f"test/{stream}", (Change(stream, 0, events),)))
        return outcome.first

    def _inquiry(self, residents: Sequence[str], **changes: Any) -> InquiryRequested:
        request = InquiryRequested(
            inquiry_id=f"inquiry-{next(self._exchanges)}",
            request_ids=("q-1",),
            case_numbers=("",),
            repeats=("",),
            units=(len(residents),),
            persons=tuple(self.platform.person(number) for number in residents),
            staff_id="S-0001",
            terminal="窓口1",
            office="福祉部子育て支援課",
            official_role="affair_officer",
            inquirer="990019",
            inquirer_name="連携市",
            provider="990027",
            provider_name="見本市",
            basis="19-8",
            law_version=table_at(NOW.date()).version,
            law_row="81",
            affair="児童扶養手当法による児童扶養手当の支給に関する事務",
            information=LAYOUT.information,
            layout=LAYOUT.key,
            items=ITEMS,
            fiscal_year="2026",
            requested_at="2026-11-20T14:05:10.000000+09:00",
            not_before="",
            non_disclosure=False,
            digests=("digest",),
            subjects=tuple(residents),
        )
        return replace(request, **changes)

    def _request(self, residents: Sequence[str], **changes: Any) -> ProvisionRequested:
        request = ProvisionRequested(
            processing_number=f"P-{next(self._exchanges):04d}",
            inquiry_message="M-1",
            persons=tuple(self.platform.person(number) for number in residents),
            units=(len(residents),),
            codes=("",) * len(residents),
            office="健康福祉部障がい福祉課",
            official_role="affair_officer",
            inquirer="990027",
            inquirer_name="見本市",
            provider="990019",
            provider_name="連携市",
            basis="19-8",
            law_version=table_at(NOW.date()).version,
            law_row="81",
            affair="児童扶養手当法による児童扶養手当の支給に関する事務",
            information=LAYOUT.information,
            layout=LAYOUT.key,
            items=("fiscal_year", "total_income"),
            requested_at="2026-11-18T10:00:00.000000+09:00",
            valid_until="2026-11-25T10:00:00.000000+09:00",
            non_disclosure=False,
            subjects=tuple(residents),
            link_codes=tuple(f"code-of-{number}" for number in residents),
            fiscal_years=("2026",) * len(residents),
        )
        return replace(request, **changes)


@asynccontextmanager
async def open_town(path: Path) -> AsyncIterator[Town]:
    """The agency at work in a folder."""
    create_authority(path / "keys")
    issue(path / "keys", "city", "urn:renkei:agency:990019", purpose="signing")
    keys = {name: (path / "keys" / name).read_bytes() for name in ("city-signing.pem", "city-signing.key")}
    linkage = LinkageInterface(
        Agency("990019", "連携市", "city"),
        Signer(keys["city-signing.pem"], keys["city-signing.key"]),
        SealingKey(new_sealing_secret()),
        x509.load_pem_x509_certificate((path / "keys" / "ca.pem").read_bytes()),
    )
    clock = Clock()
    folder = LedgerFolder(
        path / "data",
        "renkei/990019",
        TYPES,
        (*records.PROJECTIONS, *disclosure.PROJECTIONS, *resident_notice.PROJECTIONS, *log.PROJECTIONS),
        clock,
    )
    platform = Platform(folder.ledger, folder.follower, linkage, NoAddressing(), clock, lambda n: bytes(n))
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(folder.ledger.run)
            await nursery.start(folder.follower.run)
            yield Town(folder, platform, clock, (path / "data" / VERIFIER_KEY).read_text())
            nursery.cancel_scope.cancel()
    finally:
        folder.close()


def later(clock: Clock, minutes: float) -> None:
    clock.now += timedelta(minutes=minutes)
