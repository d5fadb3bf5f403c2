"""The reference network at work, without its sockets: registration, codes, messages, mailboxes."""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import Any

import trio
from cryptography import x509

from adapters.network.reference import codes, exchange, registration
from adapters.network.reference.exchange import (
    AnswerRefused,
    ExchangeAnswered,
    ExchangePermitted,
    ExchangeRefused,
)
from adapters.network.reference.registration import AgencyRegistered
from broker.addressing.staging import Staging
from broker.ledger.folder import LedgerFolder
from broker.ledger.ledger import Change, StreamMoved, Unit
from broker.linkage.crypto import CertificateInvalid, Signer, check_sealing_key, identity
from broker.linkage.partners import DirectoryEntry, agency_uri, sign_directory
from schemas.errors import Refusal
from schemas.law import Agency, LawTable, table_at
from schemas.messages import (
    AnswerControl,
    Delivery,
    DeliveryNote,
    Envelope,
    InquiryControl,
    Malformed,
    NetworkVerdict,
    Permit,
    decode,
    encode,
)

EVENTS = (AgencyRegistered, codes.LinkCodeIssued, *exchange.EVENTS)
PROJECTIONS = (registration.Agencies(), codes.IssuedCodes(), exchange.Mailboxes(), exchange.Exchanges())
MAILBOX_BATCH = 100


class NetworkCore:
    """All that the network decides and records. `admitted` are the agencies that may register, by code."""

    def __init__(
        self,
        folder: LedgerFolder,
        staging: Staging,
        signer: Signer,
        admitted: Mapping[str, Agency],
        permit_life: timedelta,
        clock: Callable[[], datetime],
    ) -> None:
        self.ledger = folder.ledger
        self.follower = folder.follower
        self._staging = staging
        self._signer = signer
        self._admitted = admitted
        self._permit_life = permit_life
        self._clock = clock
        self._key = folder.vault.secret("link_code", lambda: secrets.token_bytes(32))
        self._staged = trio.Event()
        self._polls: set[trio.CancelScope] = set()

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
        """Take an agency's keys. Refusals: N-101; N-111 for keys that cannot be read; N-102 for another's."""
        agency = self._admitted.get(sender)
        if agency is None:
            return Refusal("N-101")
        try:
            named = identity(x509.load_der_x509_certificate(certificate)).uri
            check_sealing_key(sealing_key)
        except (CertificateInvalid, ValueError, TypeError):
            return Refusal("N-111")
        if named != agency_uri(sender):
            return Refusal("N-102")
        wanted = AgencyRegistered(agency.code, agency.name, agency.kind, certificate, sealing_key)
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
        await self.follower.reach(self.ledger.position)
        rows = await self.follower.query("SELECT position FROM agency ORDER BY code")
        entries = [
            DirectoryEntry(e.code, e.name, e.kind, e.certificate, e.sealing_key)
            for e in (r.event for r in await self.ledger.at([row[0] for row in rows]))
        ]
        return sign_directory(entries, self._signer)

    async def _agency(self, code: str) -> Agency | None:
        recorded = await self.ledger.stream(registration.stream(code))
        if not recorded or code not in self._admitted:
            return None
        e = recorded[-1].event
        return Agency(e.code, e.name, e.kind)

    # -- link codes -----------------------------------------------------------------------------------

    async def issue(self, requests: Sequence[tuple[str, str, str]]) -> list[str]:
        """From the registry: (agency, acquisition number, resident record code); a verdict for each.

        A crash between recording a code and staging its number loses neither: the registry had no verdict,
        asks again, and the code is the same.
        """
        rows, units = [], []
        verdicts = []
        for agency, number, record_code in requests:
            if agency not in self._admitted:
                verdicts.append("N-101")
                continue
            person = codes.person_mark(self._key, record_code)
            code = codes.link_code(self._key, agency, record_code)
            index = self.ledger.vault.blind("link_code", code)
            rows.append((number, agency, code))
            issued = codes.LinkCodeIssued(agency, person, index, code)
            key = codes.stream(agency, person)
            units.append(Unit(f"issue/{agency}/{index}", (Change(key, 0, (issued,)),)))
            verdicts.append("")
        async with trio.open_nursery() as nursery:
            for unit in units:
                nursery.start_soon(self.ledger.append, unit)
        await trio.to_thread.run_sync(self._staging.put, rows)
        self._staged.set()
        self._staged = trio.Event()
        return verdicts

    async def issued_codes(self, agency: str, wait: float) -> list[tuple[str, str]]:
        """(acquisition number, link code) that wait for an agency; `wait` seconds at most for the first."""
        found: list[tuple[str, str]] = []
        with self._poll() as poll:
            signal = self._staged
            found = await self._staged_for(agency)
            poll.deadline = trio.current_time() + wait
            while not found:
                await signal.wait()
                signal = self._staged
                found = await self._staged_for(agency)
        return found

    async def _staged_for(self, agency: str) -> list[tuple[str, str]]:
        return await trio.to_thread.run_sync(self._staging.of, agency)

    async def forget_numbers(self, agency: str, numbers: Sequence[str]) -> None:
        """The agency has its codes: the acquisition numbers are not kept any longer (Act art. 21-2(3))."""
        own = {number for number, _ in await self._staged_for(agency)}
        await trio.to_thread.run_sync(self._staging.drop, [n for n in numbers if n in own])

    # -- messages -------------------------------------------------------------------------------------

    async def submit(
        self, sender: str, kind: str, envelope: Envelope, link_codes: tuple[str, ...]
    ) -> NetworkVerdict:
        """Take a message; the same message again gets its first verdict."""
        try:
            if kind == "inquiry":
                return await self._inquiry(
                    sender, decode(InquiryControl, envelope.control), envelope, link_codes
                )
            return await self._answer(sender, decode(AnswerControl, envelope.control), envelope, link_codes)
        except Malformed:
            return NetworkVerdict("", "", "N-111", self._clock().isoformat(timespec="microseconds"), "")

    async def _inquiry(
        self, sender: str, control: InquiryControl, envelope: Envelope, link_codes: tuple[str, ...]
    ) -> NetworkVerdict:
        now = self._clock()
        at = now.isoformat(timespec="microseconds")
        number = self.ledger.vault.blind("processing", f"{sender}/{control.message_id}")[:20]
        digest = _digest(envelope, link_codes)
        persons, provider_codes = await self._translate(link_codes, sender, control.provider)
        inquirer, provider = await self._agency(sender), await self._agency(control.provider)
        table = _table(control.requested_at)
        refusal = exchange.decide_permit(control, sender, inquirer, provider, table, persons, provider_codes)
        happened: ExchangePermitted | ExchangeRefused
        if refusal is not None or inquirer is None or provider is None or table is None:
            code = refusal.code if refusal is not None else "N-103"
            happened = ExchangeRefused(
                processing_number=number,
                message_id=control.message_id,
                inquirer=sender,
                provider=control.provider,
                office=control.office,
                law_version=control.law_version,
                law_row=control.law_row,
                information=control.information,
                items=control.items,
                requested_at=control.requested_at,
                decided_at=at,
                code=code,
                digest=digest,
            )
        else:
            line = table.permits(inquirer, provider, control.law_row, control.information)
            permit = Permit(
                processing_number=number,
                message_id=control.message_id,
                inquirer=sender,
                provider=control.provider,
                law_version=control.law_version,
                law_row=control.law_row,
                information=control.information,
                items=control.items,
                issued_at=at,
                valid_until=(now + self._permit_life).isoformat(timespec="microseconds"),
                link_codes=provider_codes,
            )
            note = encode(permit)
            happened = ExchangePermitted(
                processing_number=number,
                message_id=control.message_id,
                inquirer=sender,
                provider=control.provider,
                office=control.office,
                law_version=control.law_version,
                law_row=control.law_row,
                affair=line.affair if line is not None else "",
                information=control.information,
                items=control.items,
                requested_at=control.requested_at,
                decided_at=at,
                valid_until=permit.valid_until,
                persons=persons,
                digest=digest,
                control=envelope.control,
                sealed=envelope.sealed,
                signature=envelope.signature,
                permit=note,
                permit_signature=self._signer.sign(note),
                inquirer_codes=link_codes,
            )
        first = await self._record(f"inquiry/{sender}/{control.message_id}", number, 0, happened)
        if first.digest != digest:
            return NetworkVerdict(control.message_id, "", "N-107", at, "")
        return NetworkVerdict(
            control.message_id,
            number,
            getattr(first, "code", ""),
            first.decided_at,
            getattr(first, "valid_until", ""),
        )

    async def _answer(
        self, sender: str, control: AnswerControl, envelope: Envelope, link_codes: tuple[str, ...]
    ) -> NetworkVerdict:
        now = self._clock()
        at = now.isoformat(timespec="microseconds")
        number = control.processing_number
        digest = _digest(envelope, link_codes)
        while True:
            recorded = await self.ledger.stream(exchange.stream(number))
            state = exchange.State()
            for earlier in recorded:
                # A permit that was erased permits nothing any longer (N-108).
                if not (earlier.erased and isinstance(earlier.event, ExchangePermitted)):
                    state = exchange.evolve(state, earlier.event)
            done = state.answered
            if done is not None and (done.message_id, done.digest) == (control.message_id, digest):
                return NetworkVerdict(control.message_id, number, "", done.decided_at, "")
            refusal = exchange.decide_answer(state, control, sender, now)
            if refusal is not None or state.permitted is None:
                code = refusal.code if refusal is not None else "N-108"
                lost = AnswerRefused(number, control.message_id, sender, code, at, digest)
                key = f"refused_answer/{sender}/{digest}"
                await self.ledger.append(Unit(key, (Change(key, 0, (lost,)),)))
                return NetworkVerdict(control.message_id, number, code, at, "")
            note = encode(
                DeliveryNote(
                    processing_number=number,
                    message_id=control.message_id,
                    in_reply_to=control.in_reply_to,
                    inquirer=control.inquirer,
                    provider=sender,
                    relayed_at=at,
                    link_codes=state.permitted.inquirer_codes,
                )
            )
            happened = ExchangeAnswered(
                processing_number=number,
                message_id=control.message_id,
                inquirer=control.inquirer,
                provider=sender,
                code=control.code,
                answered_at=control.answered_at,
                decided_at=at,
                digest=digest,
                control=envelope.control,
                sealed=envelope.sealed,
                signature=envelope.signature,
                note=note,
                note_signature=self._signer.sign(note),
            )
            try:
                first = await self._record(
                    f"answer/{sender}/{control.message_id}", number, len(recorded), happened
                )
            except StreamMoved:
                continue
            if first.digest != digest:
                return NetworkVerdict(control.message_id, number, "N-107", at, "")
            return NetworkVerdict(control.message_id, number, "", first.decided_at, "")

    async def _record(self, message_id: str, number: str, seen: int, happened: Any) -> Any:
        """Append, and return the event that stands: this one, or the first one of a repeated message."""
        unit = Unit(message_id, (Change(exchange.stream(number), seen, (happened,)),))
        outcome = await self.ledger.append(unit)
        return (await self.ledger.at([outcome.first]))[0].event if outcome.repeated else happened

    async def _translate(
        self, link_codes: tuple[str, ...], inquirer: str, provider: str
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The persons behind an inquirer's codes, and the provider's own codes for them."""
        await self.follower.reach(self.ledger.position)
        persons, theirs = [], []
        for code in link_codes:
            rows = await self.follower.query(
                "SELECT i.person, p.position FROM issued_code i LEFT JOIN issued_person p "
                "ON p.person = i.person AND p.agency = ? WHERE i.code_index = ? AND i.agency = ?",
                (provider, self.ledger.vault.blind("link_code", code), inquirer),
            )
            person, position = rows[0] if rows else ("", None)
            persons.append(person)
            issued = (await self.ledger.at([position]))[0] if position is not None else None
            theirs.append("" if issued is None or issued.erased else issued.event.link_code)
        return tuple(persons), tuple(theirs)

    # -- mailboxes ------------------------------------------------------------------------------------

    async def mailbox(self, agency: str, after: int, wait: float) -> list[Delivery]:
        """What lies in a mailbox behind a position; waits `wait` seconds at most for the first item."""
        found: list[Delivery] = []
        with self._poll() as poll:
            end = self.ledger.position
            found = await self._lying(agency, after, end)
            poll.deadline = trio.current_time() + wait
            while not found:
                end = await self.ledger.wait_beyond(end)
                found = await self._lying(agency, after, end)
        return found

    async def _lying(self, agency: str, after: int, end: int) -> list[Delivery]:
        await self.follower.reach(end)
        while True:
            rows = await self.follower.query(
                "SELECT position FROM mailbox WHERE agency = ? AND position > ? ORDER BY position LIMIT ?",
                (agency, after, MAILBOX_BATCH),
            )
            lying = await self.ledger.at([row[0] for row in rows])
            found = [_delivery(r) for r in lying if not r.erased]
            if found or not rows:
                return found
            after = rows[-1][0]  # all of these were erased before anybody fetched them


def _delivery(recorded: Any) -> Delivery:
    e = recorded.event
    envelope = Envelope(e.control, e.sealed, e.signature)
    if isinstance(e, ExchangePermitted):
        return Delivery(recorded.position, "inquiry", e.permit, e.permit_signature, envelope)
    return Delivery(recorded.position, "answer", e.note, e.note_signature, envelope)


def _digest(envelope: Envelope, link_codes: tuple[str, ...]) -> str:
    parts = (envelope.control, envelope.sealed, envelope.signature, *(code.encode() for code in link_codes))
    return sha256(b"".join(sha256(part).digest() for part in parts)).hexdigest()


def _table(requested_at: str) -> LawTable | None:
    try:
        return table_at(date.fromisoformat(requested_at[:10]))
    except ValueError:
        return None
