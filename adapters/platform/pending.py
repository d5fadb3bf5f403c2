"""What happens to inquiries while they are open: released when their time has come, withdrawn, ended."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

from adapters.platform.asking import Asking, inquiry_state
from adapters.platform.staffing import Caller, Staffing
from broker.intermediate import inquiry
from broker.intermediate.inquiry import InquiryWithdrawalRequested, InquiryWithdrawn
from broker.ledger.events import Recorded
from broker.ledger.ledger import Change, StreamMoved, Unit, utc
from broker.linkage import outgoing
from broker.linkage.interface import Failed
from schemas.errors import Refusal
from schemas.messages import LetterControl, NetworkVerdict, decode

AT_ONCE = 100


class Pending:
    """The open inquiries of an agency; the network's verdicts on withdrawals come here.

    A queued inquiry either leaves or is withdrawn: `_taken` says for which of the two somebody has it.
    """

    def __init__(self, desk: Asking) -> None:
        self._desk = desk
        self._begun = desk.ledger.position
        self._taken: dict[str, str] = {}
        desk.verdicts["withdrawal"] = self._verdict

    def may_leave(self, message_id: str) -> bool:
        """The outbox asks before it hands an inquiry to the network: False if it is being withdrawn."""
        return self._taken.setdefault(message_id, "network") == "network"

    def free(self, message_id: str) -> None:
        """The outbox says that the message is settled."""
        self._taken.pop(message_id, None)

    def _stays(self, queued: Recorded) -> bool:
        """False if a queued inquiry may have left, in an earlier run of this process, too."""
        message_id = queued.event.message_id
        return queued.position > self._begun and self._taken.setdefault(message_id, "desk") == "desk"

    async def withdraw(self, request_ids: Sequence[str], caller: Caller) -> list[Refusal | None]:
        """Withdraw orders that wait for an answer (取りやめ, R-089): a verdict for each.

        The purpose of the caller is the reason. What was sent is withdrawn by the network, whose word comes
        later. What was sent together is withdrawn together (I-112). Other refusals: I-101, I-102, I-113 and
        I-126, and L codes where no letter can be sent.
        """
        named: dict[str, set[int]] = defaultdict(set)
        states, keys = {}, []
        for at in await self._desk.whereabouts(request_ids):
            key = inquiry.stream(at.state.request.inquiry_id) if at.state.request is not None else ""
            keys.append(key)
            states[key] = at.state
            named[key] |= set(at.places)
        verdicts = {
            key: Refusal("I-113")
            if states[key].step not in inquiry.OPEN
            else Refusal("I-112")
            if not named[key].issuperset(states[key].open)
            else await self._withdraw(key, caller)
            for key in named
        }
        return [verdicts[key] for key in keys]

    async def _withdraw(self, key: str, caller: Caller) -> Refusal | None:
        desk, staffing = self._desk, Staffing(self._desk)
        while True:
            recorded = await desk.ledger.stream(key)
            state, now = inquiry_state(recorded), desk.clock()
            request = state.request
            if request is None or state.step not in inquiry.OPEN:
                return Refusal("I-113")
            _, refusal = await desk.authorised(caller.staff_id, request.law_row, request.basis, now)
            officer = await staffing.officer(caller, "inquire")
            if refusal is not None or isinstance(officer, Refusal):
                return refusal or Refusal("I-101")
            queued = await desk.ledger.stream(outgoing.stream(request.inquiry_id))
            sent = bool(queued) and not (len(queued) == 1 and self._stays(queued[0]))
            at = now.isoformat(timespec="microseconds")
            wanted = InquiryWithdrawalRequested(at, caller.staff_id, caller.purpose)
            decided = inquiry.decide_withdraw(state, wanted, sent=sent)
            if isinstance(decided, Refusal):
                return decided
            if not decided:
                return None
            numbers = () if recorded[0].erased else request.subjects
            changes = [
                Change(key, len(recorded), decided),
                staffing.operation("withdraw", officer, numbers, request.inquiry_id),
            ]
            if queued and not sent:
                changes.append(_not_sent(queued[0], decided[-1]))
            elif state.permit is not None:
                letter = await desk.withdrawal(request, state.permit.processing_number, now)
                if isinstance(letter, Failed):
                    return letter.refusal
                changes.append(Change(outgoing.stream(letter.message_id), 0, (letter,)))
            try:
                await desk.ledger.append(Unit(f"withdraw/{key}#{len(recorded)}", tuple(changes)))
            except Exception as error:
                if not sent:
                    self.free(request.inquiry_id)
                if isinstance(error, StreamMoved):
                    continue
                raise
            return None

    async def _verdict(self, verdict: NetworkVerdict) -> list[Change]:
        """The network's word on a withdrawal of ours."""
        letter = await self._desk.ledger.stream(outgoing.stream(verdict.message_id))
        key = inquiry.stream(decode(LetterControl, letter[0].event.control).letter_to)
        recorded = await self._desk.ledger.stream(key)
        decided = inquiry.decide_withdrawn(inquiry_state(recorded), verdict.code, verdict.decided_at)
        return [Change(key, len(recorded), decided)]

    async def tend(self, now: datetime) -> int:
        """Send what waited for this time (R-082), and end what nobody answered while the permit lasted.

        Returns for how many inquiries there was something to do; there may be more when it is AT_ONCE.
        """
        desk = self._desk
        await desk.follower.reach(desk.ledger.position)
        rows = await desk.follower.query(
            "SELECT stream FROM inquiry_pending WHERE due <> '' AND due < ? ORDER BY due LIMIT ?",
            (utc(now), AT_ONCE),
        )
        for key, recorded in (await desk.ledger.streams([row[0] for row in rows])).items():
            state = inquiry_state(recorded)
            if state.step == inquiry.DEFERRED:
                changes = await self._release(key, recorded, now)
            else:
                changes = [Change(key, len(recorded), inquiry.decide_expire(state, now))]
            with suppress(StreamMoved):  # whatever moved it: it is looked at again next time
                await desk.ledger.append(Unit(f"due/{key}#{len(recorded)}", tuple(changes)))
        return len(rows)

    async def _release(self, key: str, recorded: Sequence[Recorded], now: datetime) -> list[Change]:
        """On its way with codes, keys and authority of today. The network refuses whoever has no code."""
        desk, state = self._desk, inquiry_state(recorded)
        request = state.request
        if request is None:
            raise ValueError(f"{key} is no inquiry")
        _, refusal = await desk.authorised(request.staff_id, request.law_row, request.basis, now)
        changes = []
        if recorded[0].erased:
            refusal = Refusal("L-306")
        if refusal is None:
            sent = desk.message(request, await desk.persons(request.subjects), now)
            if isinstance(sent, Failed):
                refusal = sent.refusal
            else:
                changes.append(Change(outgoing.stream(request.inquiry_id), 0, (sent,)))
        at = now.isoformat(timespec="microseconds")
        return [Change(key, len(recorded), inquiry.decide_release(state, at, refusal)), *changes]


def _not_sent(queued: Recorded, withdrawn: object) -> Change:
    """The message that was not sent is settled without the network."""
    if not isinstance(withdrawn, InquiryWithdrawn):
        raise TypeError("a message stays without a withdrawal")
    message_id = queued.event.message_id
    verdict = NetworkVerdict(message_id, "", withdrawn.code, withdrawn.decided_at, "", ())
    settled = outgoing.decide_settle("queued", verdict)
    if isinstance(settled, Refusal):
        raise TypeError("settled already")
    return Change(queued.stream, 1, settled)
