"""The agency's loops to the network: keep the directory, send what is queued, take in what is delivered.

Every loop goes on by itself when the network comes back; what was not finished is done again, and doing it
again changes nothing.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from random import random

import structlog
import trio
from cryptography import x509

from adapters.http import Unreachable
from adapters.network.client import NetworkClient
from adapters.network.schedule import BACKOFF, BULK, NO_SCHEDULE, Backoff, Schedule
from adapters.platform.inprocess import Platform
from adapters.platform.pending import AT_ONCE as PENDING_AT_ONCE
from broker.ledger.ledger import STORE_TROUBLE, Change, Unit, trouble_code
from broker.linkage.crypto import CertificateInvalid, Signer
from broker.linkage.incoming import MailboxRead, mailbox_stream
from broker.linkage.outgoing import MessageQueued, MessageSettled
from broker.linkage.partners import read_directory
from schemas.errors import Refused
from schemas.messages import Delivery, Malformed, NetworkVerdict

AT_ONCE = 100
DIRECTORY_LIFE = 60.0
LOOK_SOONEST = 0.5  # seconds between two looks at the configuration, however short its validity
LOOK_AGAIN = 10.0  # seconds between two looks at what waits for a time
_TROUBLE = (Unreachable, Refused, Malformed, CertificateInvalid, *STORE_TROUBLE)
_OF_THE_OUTBOX = (MessageQueued, MessageSettled)

log = structlog.get_logger(__name__)


async def persist(
    name: str,
    step: Callable[[], Awaitable[None]],
    backoff: Backoff = BACKOFF,
    chance: Callable[[], float] = random,
) -> None:
    """Repeat a step for ever; after trouble with the other side or the store, pause longer and longer."""
    failures = 0
    while True:
        try:
            await step()
            failures = 0
        except* _TROUBLE as group:
            trouble = group.exceptions[0]
            while isinstance(trouble, BaseExceptionGroup):
                trouble = trouble.exceptions[0]
            failures += 1
            pause = backoff.pause(failures, chance())
            log.warning("retry", loop=name, code=_code(trouble), cause=str(trouble), pause=pause)
            await trio.sleep(pause)


def _code(trouble: BaseException) -> str:
    if isinstance(trouble, Refused):
        return trouble.refusal.code
    return trouble_code(trouble) if isinstance(trouble, STORE_TROUBLE) else "S-103"


class NetworkWorker:
    """All that one agency does with the network, until cancelled. `signer` gives its present signing key."""

    def __init__(
        self,
        platform: Platform,
        client: NetworkClient,
        authority: x509.Certificate,
        signer: Callable[[], Signer],
        clock: Callable[[], datetime],
        schedule: Schedule = NO_SCHEDULE,
    ) -> None:
        self._schedule = schedule
        self._free_at = clock()
        self._platform = platform
        self._client = client
        self._authority = authority
        self._signer = signer
        self._clock = clock
        self._turn = trio.Lock()
        self._begun = self._done = 0  # refreshes of the directory, counted
        platform.refresh_by(self.refresh)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(persist, "directory", self._keep_directory)
            nursery.start_soon(persist, "outbox", self._send)
            nursery.start_soon(persist, "bulk", self._send_bulk)
            nursery.start_soon(persist, "pending", self._tend)
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
            signer = self._signer()
            await self._client.register(signer.certificate, linkage.sealing_key.public)
            await self._platform.keep_certificate(linkage.agency.code, signer.identity)
            linkage.signer = signer  # a renewed one only now: partners that do not know it find it there
            data = await self._client.directory()
            linkage.directory = read_directory(data, self._authority, self._clock(), linkage.directory)
            self._done = current

    async def _keep_directory(self) -> None:
        """Look often enough for a configuration of short validity, too: it is issued anew at half of it."""
        await self.refresh()
        directory, now = self._platform.linkage.directory, self._clock()
        left = (directory.valid_until - now).total_seconds() if directory is not None else DIRECTORY_LIFE
        await trio.sleep(min(DIRECTORY_LIFE, max(left / 2, LOOK_SOONEST)))

    async def _send(self) -> None:
        """Send the oldest messages about one person or household in one request; they wait for no bulk."""
        ledger = self._platform.ledger
        end = ledger.position
        messages = await self._outbox("records <= ?", AT_ONCE)
        if not messages:
            await ledger.wait_beyond(end, of=_OF_THE_OUTBOX)
            return
        await self._submit(messages)

    async def _send_bulk(self) -> None:
        """Send the oldest bulk message when the schedule lets it (R-200)."""
        ledger, now = self._platform.ledger, self._clock()
        end = ledger.position
        pause = (self._schedule.leaves_at(self._free_at, now) - now).total_seconds()
        if pause > 0:
            await trio.sleep(min(pause, LOOK_AGAIN))
            return
        messages = await self._outbox("records > ?", 1)
        if not messages:
            await ledger.wait_beyond(end, of=_OF_THE_OUTBOX)
            return
        self._free_at = self._schedule.free_at(sum(len(m.control) + len(m.sealed) for m in messages), now)
        await self._submit(messages)

    async def _outbox(self, which: str, limit: int) -> list[MessageQueued]:
        """The oldest queued messages of one sort that may leave; what keeps one back ends with an event."""
        ledger, follower = self._platform.ledger, self._platform.follower
        await follower.reach(ledger.position)
        rows = await follower.query(
            f"SELECT position FROM outbox WHERE {which} ORDER BY position LIMIT ?",  # noqa: S608 # ours
            (BULK, limit),
        )
        messages: list[MessageQueued] = []
        for queued in await ledger.at([row[0] for row in rows]):
            message = queued.event
            if queued.erased:
                at = self._clock().isoformat(timespec="microseconds")
                await self._settle(message, NetworkVerdict(message.message_id, "", "L-306", at, "", ()))
            elif message.kind != "inquiry" or self._platform.pending.may_leave(message.message_id):
                messages.append(message)
        return messages

    async def _submit(self, messages: Sequence[MessageQueued]) -> None:
        verdicts = await self._client.submit(messages)
        async with trio.open_nursery() as nursery:
            for message, verdict in zip(messages, verdicts, strict=True):
                nursery.start_soon(self._settle, message, verdict)

    async def _tend(self) -> None:
        """Inquiries whose time has come, and those that nobody answered."""
        while await self._platform.pending.tend(self._clock()) == PENDING_AT_ONCE:
            pass
        await trio.sleep(LOOK_AGAIN)

    async def _settle(self, message: MessageQueued, verdict: NetworkVerdict) -> None:
        # A message that the network could not read has no id in its verdict; the order tells which it is.
        await self._platform.settle(replace(verdict, message_id=message.message_id))
        self._platform.pending.free(message.message_id)
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
