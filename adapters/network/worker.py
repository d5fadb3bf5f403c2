"""The agency's loops to the network: keep the directory, send what is queued, take in what is delivered.

Every loop goes on by itself when the network comes back; what was not finished is done again, and doing it
again changes nothing.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime

import structlog
import trio
from cryptography import x509

from adapters.http import Unreachable
from adapters.network.client import NetworkClient
from adapters.platform.inprocess import Platform
from broker.ledger.ledger import STORE_TROUBLE, Change, Unit, trouble_code
from broker.linkage.crypto import CertificateInvalid
from broker.linkage.incoming import MailboxRead, mailbox_stream
from broker.linkage.outgoing import MessageQueued
from broker.linkage.partners import read_directory
from schemas.errors import Refused
from schemas.messages import Delivery, Malformed, NetworkVerdict

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
AT_ONCE = 100
DIRECTORY_LIFE = 60.0
_TROUBLE = (Unreachable, Refused, Malformed, CertificateInvalid, *STORE_TROUBLE)

log = structlog.get_logger(__name__)


async def persist(name: str, step: Callable[[], Awaitable[None]]) -> None:
    """Repeat a step for ever; after trouble with the other side or the store, pause longer and longer."""
    pause = FIRST_PAUSE
    while True:
        try:
            await step()
            pause = FIRST_PAUSE
        except* _TROUBLE as group:
            trouble = group.exceptions[0]
            while isinstance(trouble, BaseExceptionGroup):
                trouble = trouble.exceptions[0]
            log.warning("retry", loop=name, code=_code(trouble), cause=str(trouble), pause=pause)
            await trio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)


def _code(trouble: BaseException) -> str:
    if isinstance(trouble, Refused):
        return trouble.refusal.code
    return trouble_code(trouble) if isinstance(trouble, STORE_TROUBLE) else "S-103"


class NetworkWorker:
    """All that one agency does with the network, until cancelled."""

    def __init__(
        self,
        platform: Platform,
        client: NetworkClient,
        authority: x509.Certificate,
        clock: Callable[[], datetime],
    ) -> None:
        self._platform = platform
        self._client = client
        self._authority = authority
        self._clock = clock
        self._turn = trio.Lock()
        self._begun = self._done = 0  # refreshes of the directory, counted
        platform.refresh_by(self.refresh)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(persist, "directory", self._keep_directory)
            nursery.start_soon(persist, "outbox", self._send)
            nursery.start_soon(persist, "mailbox", self._poll)

    async def refresh(self) -> None:
        """Register with our present keys and read the directory, as it stands now or later.

        Many messages may ask for it at once: a refresh that began after one of them asked serves it, too.
        """
        asked = self._begun
        async with self._turn:
            if self._done > asked:
                return
            self._begun = current = self._begun + 1
            linkage = self._platform.linkage
            await self._client.register(linkage.signer.certificate, linkage.sealing_key.public)
            data = await self._client.directory()
            linkage.directory = read_directory(data, self._authority, self._clock())
            self._done = current

    async def _keep_directory(self) -> None:
        await self.refresh()
        await trio.sleep(DIRECTORY_LIFE)

    async def _send(self) -> None:
        """Send the oldest queued messages in one request and record the verdicts."""
        ledger, follower = self._platform.ledger, self._platform.follower
        end = ledger.position
        await follower.reach(end)
        rows = await follower.query("SELECT position FROM outbox ORDER BY position LIMIT ?", (AT_ONCE,))
        if not rows:
            await ledger.wait_beyond(end)
            return
        queued = await ledger.at([row[0] for row in rows])
        erased: list[MessageQueued] = [r.event for r in queued if r.erased]
        for message in erased:
            at = self._clock().isoformat(timespec="microseconds")
            await self._settle(message, NetworkVerdict(message.message_id, "", "L-306", at, ""))
        if erased:
            return
        messages: list[MessageQueued] = [r.event for r in queued]
        verdicts = await self._client.submit(messages)
        async with trio.open_nursery() as nursery:
            for message, verdict in zip(messages, verdicts, strict=True):
                nursery.start_soon(self._settle, message, verdict)

    async def _settle(self, message: MessageQueued, verdict: NetworkVerdict) -> None:
        # A message that the network could not read has no id in its verdict; the order tells which it is.
        await self._platform.settle(replace(verdict, message_id=message.message_id))
        if verdict.code:
            log.info("message_refused", code=verdict.code, message_id=message.message_id)

    async def _poll(self) -> None:
        """Take in what lies behind the place that was last read to the end, many at a time."""
        ledger, follower = self._platform.ledger, self._platform.follower
        await follower.reach(ledger.position)
        rows = await follower.query("SELECT position FROM mailbox_place")
        deliveries = await self._client.mailbox(rows[0][0] if rows else 0)
        async with trio.open_nursery() as nursery:
            for delivery in deliveries:
                nursery.start_soon(self._receive, delivery)
        if deliveries:
            place = max(delivery.position for delivery in deliveries)
            key = mailbox_stream(place)
            await ledger.append(Unit(key, (Change(key, 0, (MailboxRead(place),)),)))

    async def _receive(self, delivery: Delivery) -> None:
        refusal = await self._platform.receive(delivery)
        if refusal is not None:
            log.warning("delivery_refused", code=refusal.code, position=delivery.position)
