"""Provision records at an agency's desk: read, corrected, disclosed, and laid beside the network's.

Everything here is recorded before it is shown or done: who read whose records for which purpose (R-160), what
was corrected and who was told (R-161), what was disclosed to whom (R-163) and what was refused (R-162).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Protocol
from uuid import NAMESPACE_URL, uuid5

from adapters.http import Unreachable
from adapters.platform.answering import AUTOMATIC
from adapters.platform.inprocess import Platform
from adapters.platform.staffing import Caller, Staffing
from broker.intermediate import (
    accounts,
    correction,
    hold,
    inquiry,
    notice,
    provision,
    received_notice,
    second_person,
)
from broker.intermediate.correction import (
    PURPOSES,
    CorrectionReceived,
    CorrectionSettled,
    RecordCorrected,
    RecordRequestRefused,
    RecordsDisclosed,
)
from broker.intermediate.operation import Officer
from broker.intermediate.records import ProvisionRecord
from broker.ledger.ledger import Change, StreamMoved, Unit
from broker.linkage import outgoing
from broker.linkage.interface import INWARD, Failed
from schemas.accounts import INQUIRER, NETWORK, PROVIDER, Account, Name, Sides
from schemas.errors import Refusal
from schemas.messages import (
    LetterBody,
    LetterControl,
    LetterRequest,
    Malformed,
    NetworkVerdict,
    ReceivedLetter,
    build,
    decode,
)

PAGE = 50
"""Exchanges of one page of accounts: one of them may be about MAX_RECORDS persons."""
ACT = "correct_record"
PROTECTED = "protected_person"


class NetworkAccounts(Protocol):
    """The network's own records of this agency's exchanges. Raises Unreachable, Refused."""

    async def accounts(self, after: int, since: str, until: str) -> tuple[int, list[Account]]: ...
    async def accounts_of(self, names: Sequence[Name]) -> list[Account | None]: ...


@dataclass(frozen=True)
class Request:
    """What somebody asks about the records of a person: `kind` and the rest are words of `correction`.

    `representative` is the name of who asks for another.
    """

    kind: str
    integrated_number: str = field(repr=False)
    quality: str
    identity: str
    entitlement: str = ""
    representative: str = field(default="", repr=False)


@dataclass(frozen=True)
class CorrectionOrder:
    """Correct one item of one record. `record` is its number (ProvisionRecord.number).

    Where somebody asked for it (R-163), `quality` and what follows say who, and how that was checked, as in
    Request; all of it is "" where the office itself found the fault.
    """

    integrated_number: str = field(repr=False)
    record: str
    item: str
    new: str = field(repr=False)
    reason: str = field(repr=False)
    quality: str = ""
    identity: str = ""
    entitlement: str = ""
    representative: str = field(default="", repr=False)

    @property
    def request(self) -> Request | None:
        """What somebody asked, or None."""
        asked = (self.quality, self.identity, self.entitlement, self.representative)
        return Request(correction.CORRECTION, self.integrated_number, *asked) if any(asked) else None

    @property
    def content(self) -> str:
        """What a second person confirms: the same, word for word."""
        return "\n".join(map(str, asdict(self).values()))


@dataclass(frozen=True)
class _Told:
    """What the letter of a correction says."""

    subject: int
    item: str
    old: str
    new: str
    corrected_at: str


class ProvisionRecordsDesk:
    """Takes the platform; letters of correction and the network's verdicts on ours come here."""

    def __init__(self, platform: Platform, network: NetworkAccounts | None = None) -> None:
        self._platform = platform
        self._staffing = Staffing(platform)
        self._network = network
        platform.letters["correction"] = self._take
        platform.verdicts["correction"] = self._verdict

    # 閲覧

    async def read(
        self, caller: Caller, numbers: Sequence[str], since: str = "", until: str = ""
    ) -> list[list[ProvisionRecord]] | Refusal:
        """The records of each of these persons, the latest first; the reading is recorded before.

        Days are ISO, both included, "" open. Refusals: I-259 for a purpose that is none of PURPOSES, I-122.
        """
        officer = await self._reader(caller)
        if isinstance(officer, Refusal):
            return officer
        noted = self._staffing.operation("read_records", officer, numbers)
        await self._platform.ledger.append(Unit(noted.stream, (noted,)))
        last = f"{until}U" if until else "~"  # after every T of that day
        found = [await self._platform.records(number) for number in numbers]
        return [[r for r in records if since <= r.requested_at < last] for records in found]

    async def _reader(self, caller: Caller, what: str = "answer") -> Officer | Refusal:
        """Who reads, with the purpose in the words of the log."""
        if caller.purpose not in PURPOSES:
            return Refusal("I-259")
        return await self._staffing.officer(replace(caller, purpose=PURPOSES[caller.purpose][0]), what)

    # 開示・利用停止・移送

    async def ask(self, caller: Caller, request: Request) -> list[ProvisionRecord] | Refusal:
        """What a person, or somebody for her, asks: the records to be disclosed, item by item of article 23.

        Those whose fact falls under non-disclosure (Act art. 23(2)) are left out, and nothing tells so.
        Disclosed or refused, it is recorded first. Refusals: B-007, I-122, and those of
        correction.decide_request.
        """
        number, platform = request.integrated_number, self._platform
        officer = await self._staffing.officer(caller, "answer")
        if isinstance(officer, Refusal):
            return officer
        if not await platform.addressing.knows(number):
            return Refusal("B-007")
        refusal = await self._barred(request)
        if refusal is not None:
            return await self._refuse(officer, request, refusal)
        records = await platform.records(number)
        shown = [r for r in records if not r.non_disclosure and not r.erased_at]
        disclosed = RecordsDisclosed(
            person=platform.person(number),
            disclosed_at=_text(platform.clock()),
            shown=len(shown),
            withheld=len(records) - len(shown),
            **_asked(officer, request),
        )
        await self._note(officer, request, disclosed)
        return shown

    async def _refuse(self, officer: Officer, request: Request, refusal: Refusal) -> Refusal:
        refused = RecordRequestRefused(
            person=self._platform.person(request.integrated_number),
            kind=request.kind,
            code=refusal.code,
            decided_at=_text(self._platform.clock()),
            **_asked(officer, request),
        )
        await self._note(officer, request, refused)
        return refusal

    async def _note(
        self, officer: Officer, request: Request, done: RecordsDisclosed | RecordRequestRefused
    ) -> None:
        """Record what became of a request, and who decided it."""
        key = correction.request_stream(self._platform._random(16).hex())
        noted = self._staffing.operation("read_records", officer, (request.integrated_number,), key)
        await self._platform.ledger.append(Unit(key, (Change(key, 0, (done,)), noted)))

    async def _barred(self, request: Request) -> Refusal | None:
        protected = await self._protected(request.integrated_number)
        named = request.quality == correction.PERSON or bool(request.representative.strip())
        return correction.decide_request(
            request.kind,
            request.quality if named else "",
            request.identity,
            request.entitlement,
            protected=protected,
        )

    async def _protected(self, integrated_number: str) -> bool:
        """Whether a hold protects this person now."""
        platform, today = self._platform, _text(self._platform.clock())[:10]
        state: hold.State = {}
        for happened in await platform.ledger.stream(hold.stream(platform.person(integrated_number))):
            state = hold.evolve(state, happened.event)
        return any(
            each.reason == PROTECTED and each.starts <= today <= (each.ends or "~") for each in state.values()
        )

    # 訂正

    async def correct(self, caller: Caller, order: CorrectionOrder, act_id: str = "") -> Refusal | None:
        """Correct a record. Where the policy wants a second person it is proposed first (I-129, with the id
        of the act as detail), and corrected when another confirms the same order under that id.

        Refusals: I-251 no such record, I-252, I-253, I-254, I-255, I-121 to I-124, and L codes where the
        other party cannot be told.
        """
        request = order.request
        barred = await self._barred(request) if request is not None else None
        if request is not None and barred is not None:
            officer = await self._staffing.officer(caller, "answer")
            return officer if isinstance(officer, Refusal) else await self._refuse(officer, request, barred)
        while True:
            decided = await self._correcting(caller, order, act_id)
            if isinstance(decided, Refusal):
                return decided
            try:
                first = decided[0]
                unit = Unit(f"{first.stream}#{first.seen + 1}/{act_id}", tuple(decided))
                await self._platform.ledger.append(unit)
            except StreamMoved:
                continue
            return None

    async def _correcting(
        self, caller: Caller, order: CorrectionOrder, act_id: str
    ) -> list[Change] | Refusal:
        """The changes of one unit: the correction with its notice, who confirmed and who did it."""
        platform, now = self._platform, self._platform.clock()
        records = {r.number: r for r in await platform.records(order.integrated_number) if not r.erased_at}
        record = records.get(order.record)
        if record is None:
            return Refusal("I-251")
        if order.item not in correction.ITEMS:
            return Refusal("I-252", "item")
        key = correction.stream(record.exchange)
        corrected = await platform.ledger.stream(key)
        own = await platform.ledger.stream(record.exchange)
        account = accounts.account(own)
        number = account.processing_number if account is not None else ""
        wanted = RecordCorrected(
            correction_id=self._id(f"{record.exchange}/{act_id or len(corrected)}"),
            exchange=record.exchange,
            processing_number=number,
            subject=record.subject,
            item=order.item,
            quality=order.quality,
            identity=order.identity,
            entitlement=order.entitlement,
            act_id=act_id,
            corrected_at=_text(now),
            notified=bool(number),
            old=correction.now_said(getattr(record, order.item), order.item, record.corrections),
            new=order.new,
            reason=order.reason,
            staff_id=caller.staff_id,
            representative=order.representative,
        )
        decided = correction.decide_correct(correction.state_of(corrected), wanted, record.layout)
        if isinstance(decided, Refusal):
            return decided
        entitled = await self._entitled(caller, order, act_id)
        if isinstance(entitled, Refusal):
            return entitled
        officer, changes = entitled
        changes = [Change(key, len(corrected), decided), *changes]
        if account is not None and number:
            letter = await self._letter(wanted, account, officer, now)
            if isinstance(letter, Failed):
                return letter.refusal
            changes.append(Change(outgoing.stream(wanted.correction_id), 0, (letter,)))
        noted = self._staffing.operation(ACT, officer, (order.integrated_number,), record.exchange)
        return [*changes, noted]

    async def _entitled(
        self, caller: Caller, order: CorrectionOrder, act_id: str
    ) -> tuple[Officer, list[Change]] | Refusal:
        """Who corrects, and what belongs into the unit where a second person confirms; I-129 where one has
        to.
        """
        if not second_person.needed(ACT):
            officer = await self._staffing.officer(caller, "answer")
            return officer if isinstance(officer, Refusal) else (officer, [])
        if not act_id:
            proposed = await self._staffing.propose(caller, ACT, order.content)
            return proposed if isinstance(proposed, Refusal) else Refusal("I-129", proposed)
        confirmed = await self._staffing.confirmation(caller, act_id, ACT, order.content)
        if isinstance(confirmed, Refusal):
            return confirmed
        officer = await self._staffing.officer(caller, "approve")
        return officer if isinstance(officer, Refusal) else (officer, confirmed)

    async def _letter(
        self, wanted: RecordCorrected, account: Account, officer: Officer, now: datetime
    ) -> outgoing.MessageQueued | Failed:
        """The notice to the other party; the network notes it as it passes on its way."""
        told = _Told(wanted.subject, wanted.item, wanted.old, wanted.new, wanted.corrected_at)
        return await self._platform.letter(
            LetterRequest(
                message_id=wanted.correction_id,
                kind="correction",
                office=officer.office,
                official_role=AUTOMATIC[1],  # the notice follows from the correction by itself
                receiver=account.inquirer if account.side == PROVIDER else account.provider,
                to_office="",
                processing_number=account.processing_number,
                letter_to=account.message_id,
                law_version="",
                law_row="",
                information="",
                sent_at=wanted.corrected_at,
                link_codes=(),
                bodies=(LetterBody(vars(told)),),
            ),
            now,
        )

    async def _take(self, letter: ReceivedLetter, now: datetime) -> list[Change] | Failed:
        """The other party corrected its record: that stands beside ours from now on.

        Of an exchange that the network did not permit we have no record of our own, and keep the notice
        alone.
        """
        control = letter.control
        try:
            told = build(_Told, letter.bodies[0].content)
        except (Malformed, IndexError):
            return Failed(INWARD, Refusal("L-305", "correction"))
        exchange, account = await self._exchange(control)
        received = CorrectionReceived(
            control.message_id,
            control.sender,
            told.subject,
            told.item,
            told.corrected_at,
            _text(now),
            told.old,
            told.new,
        )
        key = correction.stream(exchange)
        recorded = await self._platform.ledger.stream(key)
        decided = correction.decide_receive(
            correction.state_of(recorded), received, len(account.persons) if account is not None else 0
        )
        if isinstance(decided, Refusal):
            return Failed(INWARD, decided)
        return [Change(key, len(recorded), decided)]

    async def _exchange(self, control: LetterControl) -> tuple[str, Account | None]:
        """The stream of an exchange with another party here, ours as the inquirer if there is one."""
        keys = (inquiry.stream(control.letter_to), provision.stream(control.processing_number))
        found = await self._platform.ledger.streams(keys)
        for key in keys:
            account = accounts.account(found[key])
            if account is not None and account.processing_number == control.processing_number:
                return key, account
        return keys[1], None

    async def _verdict(self, verdict: NetworkVerdict) -> list[Change]:
        """The network's word on a notice of ours."""
        letter = await self._platform.ledger.stream(outgoing.stream(verdict.message_id))
        exchange, _ = await self._exchange(decode(LetterControl, letter[0].event.control))
        key = correction.stream(exchange)
        recorded = await self._platform.ledger.stream(key)
        settled = CorrectionSettled(verdict.message_id, verdict.code, verdict.decided_at)
        return [Change(key, len(recorded), correction.decide_settle(correction.state_of(recorded), settled))]

    def _id(self, name: str) -> str:
        return uuid5(NAMESPACE_URL, f"renkei/{self._platform.linkage.agency.code}/correction/{name}").hex

    # 照合

    async def accounts(self, which: str, after: int, since: str, until: str) -> tuple[int, list[Sides]]:
        """A page of exchanges behind a position, requested from one day to another (both included, "" open).

        "own": ours, with the network's account of each. "network": those of the network's that we have not.
        Gives where the next page begins, 0 for none. Raises Unreachable where no network is connected.
        """
        if self._network is None:
            raise Unreachable("no network")
        last = f"{until}U" if until else ""
        if which == "network":
            following, found = await self._network.accounts(after, since, last)
            ours = await self._ours([_stream(self._platform.linkage.agency.code, each) for each in found])
            lacking = [theirs for theirs, own in zip(found, ours, strict=True) if own is None]
            return following, [await self._sides(None, theirs) for theirs in lacking]
        await self._platform.follower.reach(self._platform.ledger.position)
        rows = await self._platform.follower.query(
            "SELECT request, stream FROM provision_record WHERE request > ? AND subject = 0 "
            "AND requested_at >= ? AND (? = '' OR requested_at < ?) ORDER BY request LIMIT ?",
            (after, since, last, last, PAGE),
        )
        own = [each for each in await self._ours([key for _, key in rows]) if each is not None]
        theirs = await self._network.accounts_of([each.name for each in own])
        beside = [await self._sides(*pair) for pair in zip(own, theirs, strict=True)]
        return (rows[-1][0] if len(rows) == PAGE else 0), beside

    async def _ours(self, keys: Sequence[str]) -> list[Account | None]:
        later = [correction.stream(key) for key in keys]
        found = await self._platform.ledger.streams([*keys, *later])
        return [accounts.account(found[key], found[beside]) for key, beside in zip(keys, later, strict=True)]

    async def _sides(self, own: Account | None, theirs: Account | None) -> Sides:
        account = own or theirs
        if account is None:
            raise ValueError("nobody has it")
        side = own.side if own is not None else self._side(account)
        ids = [account.message_id, *account.corrections, *(said.answer for said in account.persons)]
        waiting = await self._platform.follower.query(
            "SELECT COUNT(*) FROM outbox WHERE message_id IN (SELECT value FROM json_each(?))",
            (json.dumps(ids),),
        )
        refused: Sequence[tuple[str]] = ()
        if own is None:
            refused = await self._platform.follower.query(
                "SELECT code FROM linkage_log WHERE direction = 'in' AND kind IN ('inquiry', 'notice') "
                "AND message_id = ? AND code <> ''",
                (account.message_id,),
            )
        return Sides(
            tuple(each for each in (own, theirs) if each is not None),
            (side, NETWORK),
            bool(waiting[0][0]),
            refused[0][0] if refused else "",
        )

    def _side(self, account: Account) -> str:
        return INQUIRER if account.inquirer == self._platform.linkage.agency.code else PROVIDER


def _stream(agency: str, account: Account) -> str:
    """Where an exchange of the network's stands here."""
    if account.unasked and account.provider == agency:
        return notice.stream(account.message_id)
    if account.unasked:
        return received_notice.stream(account.provider, account.message_id)
    if account.inquirer == agency:
        return inquiry.stream(account.message_id)
    return provision.stream(account.processing_number)


def _asked(officer: Officer, request: Request) -> dict[str, str]:
    """What the events of a request have in common: who asked, and who decided."""
    return {
        "quality": request.quality,
        "identity": request.identity,
        "entitlement": request.entitlement,
        "subject": request.integrated_number,
        "representative": request.representative,
        "staff_id": officer.staff_id,
        "purpose": officer.purpose,
    }


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")
