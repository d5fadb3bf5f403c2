"""Both interfaces of one agency in one process, over one ledger.

What one interface decides and the message that the other makes of it are one unit: there is no moment at
which an answer is recorded and not queued, or queued and not recorded.
"""

from datetime import datetime

from adapters.platform.answering import Answering
from adapters.platform.asking import Asking, inquiry_state
from adapters.platform.desk import BUSINESS_SALT
from adapters.platform.holdings import Holdings
from broker.intermediate import inquiry, provision
from broker.intermediate.records import ProvisionRecord, record
from broker.ledger.ledger import Change, Unit
from broker.linkage import incoming, outgoing
from broker.linkage.interface import REPLAY, Failed, received_event, refused_event
from schemas.errors import Refusal
from schemas.messages import Delivery, NetworkVerdict, ReceivedAnswer, ReceivedInquiry

# What may only mean that our directory is old, or after a start not there yet: nothing is refused for that.
_STALE = frozenset(("L-101", "L-102", "L-105", "L-303"))


class Platform(Holdings, Asking, Answering):
    """The working half of an agency: what the network says goes to the side that it is for."""

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
            changes = [Change(out, len(sent), settled)]
            if sent[0].event.kind == "inquiry":
                key = inquiry.stream(verdict.message_id)
                recorded = await self.ledger.stream(key)
                decided = inquiry.decide_verdict(
                    inquiry_state(recorded),
                    verdict.processing_number,
                    verdict.code,
                    verdict.decided_at,
                    verdict.valid_until,
                )
                changes.append(Change(key, len(recorded), decided))
            elif verdict.code:
                changes.append(await self._not_relayed(sent[0].event.processing_number, verdict))
            if await self._try(Unit(f"verdict/{verdict.message_id}", tuple(changes))):
                return

    async def _not_relayed(self, processing_number: str, verdict: NetworkVerdict) -> Change:
        """An answer that the network refused was no provision: the record says so."""
        key = provision.stream(processing_number)
        recorded = await self.ledger.stream(key)
        state = provision.State()
        for happened in recorded:
            state = provision.evolve(state, happened.event)
        decided = provision.decide_not_relayed(state, verdict.message_id, verdict.code, verdict.decided_at)
        return Change(key, len(recorded), decided)

    async def receive(self, delivery: Delivery) -> Refusal | None:
        """Check one item of the mailbox and pass it inward; every outcome is in the linkage log."""
        now = self._clock()
        opened = self._check(delivery, now)
        if isinstance(opened, Failed) and opened.refusal.code in _STALE and self._refresh is not None:
            await self._refresh()
            opened = self._check(delivery, now)
        if isinstance(opened, Failed):
            return await self._refuse(delivery, opened, now)
        control = opened.control
        sender = opened.permit.inquirer if isinstance(opened, ReceivedInquiry) else opened.control.provider
        number = (
            opened.permit.processing_number
            if isinstance(opened, ReceivedInquiry)
            else opened.control.processing_number
        )
        entry = received_event(delivery, sender, control.message_id, number)
        key = incoming.stream(sender, control.message_id)
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
            if isinstance(opened, ReceivedInquiry):
                changes = await self._provide(opened, now)
            else:
                changes = await self._take(opened)
            if isinstance(changes, Failed):
                if len(await self.ledger.stream(key)) != len(recorded):
                    continue  # the same delivery was taken in meanwhile, and that is why it failed
                return await self._refuse(delivery, changes, now)
            if await self._try(Unit(f"received/{entry.digest}", (logged, *changes))):
                return None

    def _check(self, delivery: Delivery, now: datetime) -> ReceivedInquiry | ReceivedAnswer | Failed:
        if delivery.kind == "inquiry":
            return self.linkage.receive_inquiry(delivery, now)
        return self.linkage.receive_answer(delivery, now)

    async def _refuse(self, delivery: Delivery, failed: Failed, now: datetime) -> Refusal:
        """Log a refusal; where the network's permit is good, the inquirer is told the code."""
        event = refused_event(delivery, failed)
        key = incoming.refusal_stream(event.digest)
        changes = [Change(key, 0, (event,))]
        answer = self.linkage.refusing_answer(delivery, failed, now, self._random(BUSINESS_SALT))
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
        found = []
        for request, subject, side, outcome in rows:
            asked, closed = opened[request], opened[outcome] if outcome else None
            erased = asked.erased or (closed.erased if closed is not None else None)
            found.append(record(subject, side, asked, closed.event if closed is not None else None, erased))
        return found
