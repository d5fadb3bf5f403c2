"""Both interfaces of one agency in one process, over one ledger.

What one interface decides and the message that the other makes of it are one unit: there is no moment at
which an answer is recorded and not queued, or queued and not recorded.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

import trio
from cryptography.hazmat.primitives.serialization import Encoding

from adapters.platform.answering import Answering
from adapters.platform.asking import Asking
from adapters.platform.holdings import Holdings
from adapters.platform.pending import Pending
from broker.intermediate import correction, disclosure
from broker.intermediate.records import ProvisionRecord, record, with_corrections
from broker.ledger.ledger import Change, Unit
from broker.linkage import incoming, outgoing
from broker.linkage.crypto import Identity
from broker.linkage.interface import (
    INWARD,
    REPLAY,
    Failed,
    received_event,
    refused_event,
)
from schemas.errors import Refusal
from schemas.messages import (
    AnswerControl,
    Delivery,
    NetworkVerdict,
    ReceivedAnswer,
    ReceivedInquiry,
    ReceivedLetter,
)

# What may only mean that our directory is old, or after a start not there yet: nothing is refused for that.
_STALE = frozenset(("L-101", "L-102", "L-105", "L-122", "L-303"))


_SENDER = {"inquiry": "inquirer", "answer": "provider"}

Received: TypeAlias = ReceivedInquiry | ReceivedAnswer | ReceivedLetter


class Platform(Holdings, Asking, Answering):
    """The working half of an agency: what the network says goes to the side that it is for."""

    def _begin(self) -> None:
        super()._begin()
        self.pending = Pending(self)
        self._turns: WeakValueDictionary[str, trio.Lock] = WeakValueDictionary()
        self._kept: set[str] = set()  # fingerprints of certificates that are in the ledger

    async def settle(self, verdict: NetworkVerdict) -> None:
        """The network's word on a message that was sent: both interfaces learn it together."""
        out = outgoing.stream(verdict.message_id)
        while True:
            sent = await self.ledger.stream(out)
            if not sent or isinstance(sent[-1].event, outgoing.MessageSettled):
                return
            state = "none"
            for happened in sent:
                state = outgoing.evolve(state, happened.event)
            settled = outgoing.decide_settle(state, verdict)
            if isinstance(settled, Refusal):
                return
            changes = [Change(out, len(sent), settled), *await self._concerned(sent[0].event, verdict)]
            if await self._try(Unit(f"verdict/{verdict.message_id}", tuple(changes))):
                return

    async def _concerned(self, message: Any, verdict: NetworkVerdict) -> list[Change]:
        """What the network's word changes beside the message itself."""
        if message.kind == "inquiry":
            return await self._permitted(verdict)
        if message.kind == "answer":
            return await self._not_relayed(message.processing_number, verdict) if verdict.code else []
        take = self.verdicts.get(message.kind)
        return await take(verdict) if take is not None else []

    async def receive(self, delivery: Delivery) -> Refusal | None:
        """Check one item of the mailbox and pass it inward; every outcome is in the linkage log."""
        now = self._clock()
        opened = self._check(delivery, now)
        if isinstance(opened, Failed) and opened.refusal.code in _STALE and self._refresh is not None:
            await self._refresh()
            opened = self._check(delivery, now)
        if isinstance(opened, Failed):
            return await self._refuse(delivery, opened, now)
        # Answers to one inquiry come at once and touch one stream: in turns none is decided twice.
        async with self._turns.setdefault(_exchange(opened), trio.Lock()):
            return await self._take_in(delivery, opened, now)

    async def _take_in(self, delivery: Delivery, opened: Received, now: datetime) -> Refusal | None:
        control = opened.control
        sender = getattr(control, _SENDER.get(delivery.kind, "sender"))
        noted = opened.permit if isinstance(opened, ReceivedInquiry) else opened.control
        entry = received_event(delivery, sender, control.message_id, noted.processing_number)
        key = incoming.stream(sender, control.message_id)
        await self._keep_signer(sender, control.signer)
        while True:
            recorded = await self.ledger.stream(key)
            state = incoming.State()
            for happened in recorded:
                state = incoming.evolve(state, happened.event)
            decided = incoming.decide_receive(state, entry)
            if isinstance(decided, Refusal):
                return await self._refuse(delivery, Failed(REPLAY, decided), now)
            logged = Change(key, len(recorded), decided)
            if isinstance(decided[0], incoming.MessageRepeated):
                await self._try(Unit(f"repeated/{delivery.position}", (logged,)))
                return None
            changes = await self._inward(opened, now)
            if isinstance(changes, Failed):
                if len(await self.ledger.stream(key)) != len(recorded):
                    continue  # the same delivery was taken in meanwhile, and that is why it failed
                return await self._refuse(delivery, changes, now)
            if await self._try(Unit(f"received/{entry.digest}", (logged, *changes))):
                return None

    async def _keep_signer(self, sender: str, fingerprint: str) -> None:
        directory = self.linkage.directory
        partner = directory.partners.get(sender) if directory is not None else None
        for who in partner.identities if partner is not None else ():
            if who.fingerprint == fingerprint:
                await self.keep_certificate(sender, who)

    async def keep_certificate(self, holder: str, who: Identity) -> None:
        """Keep a certificate by which somebody signs: what was signed proves nothing without it."""
        if who.fingerprint in self._kept:
            return
        key = incoming.certificate_stream(who.fingerprint)
        if not await self.ledger.stream(key):
            der = who.certificate.public_bytes(Encoding.DER)
            kept = incoming.CertificateKept(holder, who.fingerprint, der)
            await self._try(Unit(key, (Change(key, 0, (kept,)),)))
        self._kept.add(who.fingerprint)

    def _check(self, delivery: Delivery, now: datetime) -> Received | Failed:
        if delivery.kind == "inquiry":
            return self.linkage.receive_inquiry(delivery, now)
        if delivery.kind == "answer":
            return self.linkage.receive_answer(delivery, now)
        return self.linkage.receive_letter(delivery, now)

    async def _inward(self, opened: Received, now: datetime) -> list[Change] | Failed:
        """To the side of the house that it is for."""
        if isinstance(opened, ReceivedInquiry):
            return await self._provide(opened, now)
        if isinstance(opened, ReceivedAnswer):
            return await self._take(opened)
        take = self.letters.get(opened.control.kind)
        return await take(opened, now) if take else Failed(INWARD, Refusal("L-305", "kind"))

    async def _refuse(self, delivery: Delivery, failed: Failed, now: datetime) -> Refusal:
        """Log a refusal; where the network's permit is good, the inquirer is told the code."""
        event = refused_event(delivery, failed)
        key = incoming.refusal_stream(event.digest)
        changes = [Change(key, 0, (event,))]
        answer = self.linkage.refusing_answer(delivery, failed, now, self._random)
        if answer is not None:
            changes.append(Change(outgoing.stream(answer.message_id), 0, (answer,)))
        await self._try(Unit(key, tuple(changes)))
        return failed.refusal

    async def records(self, integrated_number: str) -> list[ProvisionRecord]:
        """The provision records of a person, the latest first (Act art. 23)."""
        await self.follower.reach(self.ledger.position)
        rows = await self.follower.query(
            "SELECT request, subject, side, outcome FROM provision_record WHERE person = ? "
            "ORDER BY requested_at DESC, request DESC",
            (self.person(integrated_number),),
        )
        wanted = {position for row in rows for position in (row[0], row[3]) if position}
        opened = {r.position: r for r in await self.ledger.at(sorted(wanted))}
        flags = await self.flags(integrated_number)
        later = await self.ledger.streams(sorted({correction.stream(opened[row[0]].stream) for row in rows}))
        found = []
        for request, subject, side, outcome in rows:
            asked, closed = opened[request], opened[outcome] if outcome else None
            erased = asked.erased or (closed.erased if closed is not None else None)
            made = record(subject, side, asked, closed.event if closed is not None else None, erased)
            made = with_corrections(made, later[correction.stream(asked.stream)])
            year = disclosure.fiscal_year(asked.event, subject)
            hidden = any(disclosure.hides(flag, made.layout, year) for flag in flags)
            found.append(replace(made, non_disclosure=made.non_disclosure or hidden))
        return found


def _exchange(opened: Received) -> str:
    """The message with which it began: what belongs to one exchange touches the same streams."""
    control = opened.control
    return control.in_reply_to if isinstance(control, AnswerControl) else control.message_id
