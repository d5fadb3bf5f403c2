"""The reference network at work, without its sockets: registration, codes, messages, mailboxes."""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import Any

import trio
from cryptography import x509

from adapters.network.reference import accounts, codes, exchange, letters, registration
from adapters.network.reference.exchange import (
    AnswerRefused,
    ExchangeAnswered,
    ExchangePermitted,
    ExchangeRefused,
)
from adapters.network.reference.issuing import CodeOffice
from adapters.network.reference.letters import LetterFacts, LetterRefused, LetterRelayed
from adapters.network.reference.registration import AgencyRegistered, Configurations, Terms, Trust
from broker.addressing.staging import Staging
from broker.ledger.folder import LedgerFolder
from broker.ledger.ledger import Change, StreamMoved, Unit
from broker.linkage.crypto import CertificateInvalid, check_certificate, check_sealing_key, identity
from broker.linkage.partners import agency_uri
from schemas.errors import Refusal
from schemas.law import Agency, LawTable, table_at, tables
from schemas.law.assessments import Assessments, read_assessments
from schemas.law.judgement import affair_of
from schemas.law.lines import joined
from schemas.law.ordinances import ordinances_of
from schemas.messages import (
    AnswerControl,
    Delivery,
    DeliveryNote,
    Envelope,
    InquiryControl,
    LetterControl,
    LetterNote,
    Malformed,
    NetworkVerdict,
    Permit,
    decode,
    encode,
)

EVENTS = (*registration.EVENTS, *codes.EVENTS, *exchange.EVENTS, *letters.EVENTS)
PROJECTIONS = (
    registration.Agencies(),
    codes.IssuedCodes(),
    letters.Mailboxes(),
    exchange.Exchanges(),
    accounts.Parties(),
)
MAILBOX_BATCH = 100
MAILBOX_BYTES = 4 << 20
READ_AT_ONCE = 10


@dataclass(frozen=True)
class Sent:
    """A message as it came in: from whom (by the line), of which kind, and when.

    `digest` tells a repeated message from another one of the same id.
    """

    sender: str
    kind: str
    envelope: Envelope
    link_codes: tuple[str, ...]
    now: datetime
    digest: str

    @property
    def at(self) -> str:
        return self.now.isoformat(timespec="microseconds")


class NetworkCore:
    """All that the network decides and records. `admitted` are the agencies that may register, by code."""

    def __init__(
        self,
        folder: LedgerFolder,
        staging: Staging,
        trust: Trust,
        admitted: Mapping[str, Agency],
        permit_life: timedelta,
        terms: Terms,
        clock: Callable[[], datetime],
    ) -> None:
        self.ledger = folder.ledger
        self.follower = folder.follower
        self._trust = trust
        self._admitted = admitted
        self._permit_life = permit_life
        self._clock = clock
        self._configurations = Configurations(self.ledger, self.follower, trust, terms, admitted, clock)
        self._assessments = Assessments(read_assessments(joined(terms.assessments))[0])
        self._ordinances = ordinances_of(terms.ordinances, admitted, tables())
        self._polls: set[trio.CancelScope] = set()
        self._mail: dict[str, trio.Event] = {}  # agency -> set once something new lies in its mailbox
        self.accounts = accounts.Accounts(self.ledger, self.follower, self._number)
        key = folder.vault.secret("link_code", lambda: secrets.token_bytes(32))
        self.codes = CodeOffice(self.ledger, self.follower, staging, key, admitted, self._poll)

    def stop_polls(self) -> None:
        """Answer every long poll at once: the network is about to stop."""
        for poll in self._polls:
            poll.cancel()

    @contextmanager
    def _poll(self) -> Iterator[trio.CancelScope]:
        """A long poll looks before it waits: its caller sets the deadline in between."""
        with trio.CancelScope() as scope:
            self._polls.add(scope)
            try:
                yield scope
            finally:
                self._polls.discard(scope)

    # -- registration ---------------------------------------------------------------------------------

    async def register(self, sender: str, certificate: bytes, sealing_key: bytes) -> Refusal | None:
        """Take an agency's keys. Refusals: N-101; N-111 for keys that cannot be read; N-102 for another's;
        N-122 for a certificate that does not count now."""
        agency = self._admitted.get(sender)
        if agency is None:
            return Refusal("N-101")
        try:
            who = identity(x509.load_der_x509_certificate(certificate))
            check_sealing_key(sealing_key)
        except (CertificateInvalid, ValueError, TypeError):
            return Refusal("N-111")
        if who.uri != agency_uri(sender):
            return Refusal("N-102")
        try:
            revocations = self._trust.revocations()
            check_certificate(who, self._trust.authority, who.uri, self._clock(), revocations)
        except CertificateInvalid as error:
            return Refusal("N-122", str(error))
        capacities = tuple(sorted(agency.capacities))
        wanted = AgencyRegistered(agency.code, agency.name, agency.kind, certificate, sealing_key, capacities)
        key = registration.stream(sender)
        while True:
            recorded = await self.ledger.stream(key)
            state = recorded[-1].event if recorded else None
            decided = registration.decide_register(state, wanted)
            if not decided:
                return None
            try:
                await self.ledger.append(
                    Unit(f"{key}/{len(recorded) + 1}", (Change(key, len(recorded), decided),))
                )
            except StreamMoved:
                continue
            return None

    async def directory(self) -> bytes:
        """The signed configuration as it stands."""
        return await self._configurations.current()

    async def _agencies(self, *codes: str) -> list[Agency | None]:
        """The registered agencies of these codes, None for one that may not take part."""
        keys = [registration.stream(code) for code in codes]
        registered = await self.ledger.streams(keys)
        found: list[Agency | None] = []
        for code, key in zip(codes, keys, strict=True):
            last = registered[key][-1].event if registered[key] and code in self._admitted else None
            found.append(last and Agency(last.code, last.name, last.kind, frozenset(last.capacities)))
        return found

    # -- messages -------------------------------------------------------------------------------------

    async def submit(
        self, sender: str, kind: str, envelope: Envelope, link_codes: tuple[str, ...]
    ) -> NetworkVerdict:
        """Take a message; the same message again gets its first verdict."""
        sent = Sent(sender, kind, envelope, link_codes, self._clock(), _digest(envelope, link_codes))
        try:
            if kind == "inquiry":
                return await self._inquiry(sent, decode(InquiryControl, envelope.control))
            if kind == "answer":
                return await self._answer(sent, decode(AnswerControl, envelope.control))
            return await self._letter(sent, decode(LetterControl, envelope.control))
        except Malformed:
            return NetworkVerdict("", "", "N-111", sent.at, "", ())

    def _number(self, inquirer: str, message_id: str) -> str:
        """The processing number of an inquiry."""
        return self.ledger.vault.blind("processing", f"{inquirer}/{message_id}")[:20]

    async def _inquiry(self, sent: Sent, control: InquiryControl) -> NetworkVerdict:
        number = self._number(sent.sender, control.message_id)
        persons, provider_codes = await self.codes.translate(sent.link_codes, sent.sender, control.provider)
        inquirer, provider = await self._agencies(sent.sender, control.provider)
        codes = exchange.decide_permit(
            control,
            sent.sender,
            inquirer,
            provider,
            self._ordinances,
            self._assessments,
            persons,
            provider_codes,
        )
        happened: ExchangePermitted | ExchangeRefused
        if isinstance(codes, Refusal):
            happened = ExchangeRefused(
                **_shared(ExchangeRefused, control) | {"inquirer": sent.sender},
                processing_number=number,
                decided_at=sent.at,
                code=codes.code,
                persons=persons,
                codes=(),
                digest=sent.digest,
            )
        else:
            permit = Permit(
                **_shared(Permit, control),
                processing_number=number,
                issued_at=sent.at,
                valid_until=(sent.now + self._permit_life).isoformat(timespec="microseconds"),
                codes=codes,
                link_codes=tuple(
                    "" if code else theirs for code, theirs in zip(codes, provider_codes, strict=True)
                ),
            )
            note = encode(permit)
            day = date.fromisoformat(control.requested_at[:10])
            happened = ExchangePermitted(
                **_shared(ExchangePermitted, control),
                processing_number=number,
                affair=affair_of(
                    control.basis, sent.sender, control.law_row, day, ordinances=self._ordinances
                ),
                decided_at=sent.at,
                valid_until=permit.valid_until,
                persons=persons,
                codes=codes,
                digest=sent.digest,
                control=sent.envelope.control,
                sealed=sent.envelope.sealed,
                signature=sent.envelope.signature,
                permit=note,
                permit_signature=self._trust.signer().sign(note),
                inquirer_codes=sent.link_codes,
            )
        change = Change(exchange.stream(number), 0, (happened,))
        first = await self._record(f"inquiry/{sent.sender}/{control.message_id}", (change,))
        if first.digest != sent.digest:
            return NetworkVerdict(control.message_id, "", "N-107", sent.at, "", ())
        if isinstance(first, ExchangePermitted):
            return NetworkVerdict(
                control.message_id, number, "", first.decided_at, first.valid_until, first.codes
            )
        return NetworkVerdict(control.message_id, number, first.code, first.decided_at, "", ())

    async def _answer(self, sent: Sent, control: AnswerControl) -> NetworkVerdict:
        number = control.processing_number
        while True:
            seen, state = await self._exchange(number)
            done = state.answered.get(control.message_id)
            if done is not None and done.digest == sent.digest:
                return NetworkVerdict(control.message_id, number, "", done.decided_at, "", ())
            refusal = exchange.decide_answer(state, control, sent.sender, sent.link_codes, sent.now)
            if refusal is not None or state.permitted is None:
                code = refusal.code if refusal is not None else "N-108"
                lost = AnswerRefused(number, control.message_id, sent.sender, code, sent.at, sent.digest)
                key = f"refused_answer/{sent.sender}/{sent.digest}"
                await self.ledger.append(Unit(key, (Change(key, 0, (lost,)),)))
                return NetworkVerdict(control.message_id, number, code, sent.at, "", ())
            note = encode(
                DeliveryNote(
                    **_shared(DeliveryNote, control) | {"provider": sent.sender},
                    relayed_at=sent.at,
                    link_codes=tuple(state.permitted.inquirer_codes[place] for place in control.persons),
                )
            )
            happened = ExchangeAnswered(
                **_shared(ExchangeAnswered, control) | {"provider": sent.sender},
                decided_at=sent.at,
                digest=sent.digest,
                control=sent.envelope.control,
                sealed=sent.envelope.sealed,
                signature=sent.envelope.signature,
                note=note,
                note_signature=self._trust.signer().sign(note),
            )
            try:
                change = Change(exchange.stream(number), seen, (happened,))
                first = await self._record(f"answer/{sent.sender}/{control.message_id}", (change,))
            except StreamMoved:
                continue
            if first.digest != sent.digest:
                return NetworkVerdict(control.message_id, number, "N-107", sent.at, "", ())
            return NetworkVerdict(control.message_id, number, "", first.decided_at, "", ())

    async def _letter(self, sent: Sent, control: LetterControl) -> NetworkVerdict:
        number = control.processing_number
        message_id = f"letter/{sent.sender}/{control.message_id}"
        key = letters.stream(sent.sender, control.message_id)
        while True:
            earlier = await self.ledger.stream(key)
            if earlier and earlier[0].event.digest == sent.digest:
                first = earlier[0].event
                code = getattr(first, "code", "")
                return NetworkVerdict(control.message_id, number, code, first.decided_at, "", ())
            if earlier:
                return NetworkVerdict(control.message_id, number, "N-107", sent.at, "", ())
            seen, state = await self._exchange(number) if number else (0, exchange.State())
            persons, receiver_codes = await self.codes.translate(
                sent.link_codes, sent.sender, control.receiver
            )
            sender, receiver = await self._agencies(sent.sender, control.receiver)
            facts = LetterFacts(
                sender,
                receiver,
                _table(control.sent_at),
                persons,
                receiver_codes,
                state,
                await self._replied(control),
            )
            refusal = letters.decide_relay(control, sent.kind, sent.sender, facts)
            changes: list[Change]
            if refusal is not None:
                lost = LetterRefused(
                    **_shared(LetterRefused, control) | {"sender": sent.sender},
                    decided_at=sent.at,
                    code=refusal.code,
                    digest=sent.digest,
                )
                changes = [Change(key, 0, (lost,))]
            else:
                note = encode(
                    LetterNote(**_shared(LetterNote, control), relayed_at=sent.at, link_codes=receiver_codes)
                )
                relayed = LetterRelayed(
                    **_shared(LetterRelayed, control),
                    decided_at=sent.at,
                    persons=persons,
                    digest=sent.digest,
                    control=sent.envelope.control,
                    sealed=sent.envelope.sealed,
                    signature=sent.envelope.signature,
                    note=note,
                    note_signature=self._trust.signer().sign(note),
                )
                changes = [Change(key, 0, (relayed,))]
                if happened := letters.in_exchange(control, state, sent.at):
                    changes.append(Change(exchange.stream(number), seen, happened))
            try:
                await self._record(message_id, tuple(changes))
            except StreamMoved:
                continue
            code = refusal.code if refusal is not None else ""
            return NetworkVerdict(control.message_id, number, code, sent.at, "", ())

    async def _replied(self, control: LetterControl) -> LetterRelayed | None:
        """The letter to which a receipt replies."""
        recorded = await self.ledger.stream(letters.stream(control.receiver, control.letter_to))
        first = recorded[0].event if control.kind == "receipt" and recorded else None
        return first if isinstance(first, LetterRelayed) else None

    async def _exchange(self, number: str) -> tuple[int, exchange.State]:
        """How many events an exchange has, and its state."""
        recorded = await self.ledger.stream(exchange.stream(number))
        state = exchange.State()
        for earlier in recorded:
            # A permit that was erased permits nothing any longer (N-108).
            if not (earlier.erased and isinstance(earlier.event, ExchangePermitted)):
                state = exchange.evolve(state, earlier.event)
        return len(recorded), state

    async def _record(self, message_id: str, changes: tuple[Change, ...]) -> Any:
        """Append, and return the event that stands: the first of these, or of the message's first time."""
        try:
            outcome = await self.ledger.append(Unit(message_id, changes))
        finally:  # also where the outcome is unknown: only those for whom it is are woken
            for happened in (happened for change in changes for happened in change.events):
                if (mail := self._mail.pop(letters.addressee(happened), None)) is not None:
                    mail.set()
        return (await self.ledger.at([outcome.first]))[0].event if outcome.repeated else changes[0].events[0]

    # -- mailboxes ------------------------------------------------------------------------------------

    async def mailbox(self, agency: str, after: int, wait: float) -> list[Delivery]:
        """What lies in a mailbox behind a position; waits `wait` seconds at most for the first item."""
        found: list[Delivery] = []
        with self._poll() as poll:
            mail = self._mail.setdefault(agency, trio.Event())
            found = await self._lying(agency, after, self.ledger.position)
            poll.deadline = trio.current_time() + wait
            while not found:
                await mail.wait()
                mail = self._mail.setdefault(agency, trio.Event())
                found = await self._lying(agency, after, self.ledger.position)
        return found

    async def _lying(self, agency: str, after: int, end: int) -> list[Delivery]:
        await self.follower.reach(end)
        while True:
            rows = await self.follower.query(
                "SELECT position FROM mailbox WHERE agency = ? AND position > ? ORDER BY position LIMIT ?",
                (agency, after, MAILBOX_BATCH),
            )
            found = await self._opened([row[0] for row in rows])
            if found or not rows:
                return found
            after = rows[-1][0]  # all of these were erased before anybody fetched them

    async def _opened(self, positions: Sequence[int]) -> list[Delivery]:
        """The first of these items, as many as one answer should carry."""
        found: list[Delivery] = []
        size = 0
        for start in range(0, len(positions), READ_AT_ONCE):
            for recorded in await self.ledger.at(positions[start : start + READ_AT_ONCE]):
                if not recorded.erased:
                    found.append(_delivery(recorded))
                    size += len(recorded.event.sealed)
                if size > MAILBOX_BYTES:
                    return found
        return found


def _delivery(recorded: Any) -> Delivery:
    e = recorded.event
    envelope = Envelope(e.control, e.sealed, e.signature)
    if isinstance(e, ExchangePermitted):
        return Delivery(recorded.position, "inquiry", e.permit, e.permit_signature, envelope)
    kind = "answer" if isinstance(e, ExchangeAnswered) else e.kind
    return Delivery(recorded.position, kind, e.note, e.note_signature, envelope)


def _digest(envelope: Envelope, link_codes: tuple[str, ...]) -> str:
    parts = (envelope.control, envelope.sealed, envelope.signature, *map(str.encode, link_codes))
    return sha256(b"".join(sha256(part).digest() for part in parts)).hexdigest()


def _shared(kind: type[Any], control: Any) -> dict[str, Any]:
    """The items that an event or note has in common with a control part."""
    return {f.name: getattr(control, f.name) for f in fields(kind) if hasattr(control, f.name)}


def _table(requested_at: str) -> LawTable | None:
    try:
        return table_at(date.fromisoformat(requested_at[:10]))
    except ValueError:
        return None
