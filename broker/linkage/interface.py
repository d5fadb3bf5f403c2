"""The linkage interface of one agency: what it checks, in which order, and what it makes of messages.

Order on receipt (R-052): partner and role, open, verify, then inward. Order on sending (R-053): partner and
role, sign, seal, then send. The same checks hold in both directions (R-062).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, datetime
from hashlib import sha256
from typing import Any, TypeAlias, TypeVar
from uuid import NAMESPACE_URL, uuid5

from cryptography import x509

from broker.ledger.merkle import grow, leaf_hash, root_of
from broker.linkage import incoming, outgoing
from broker.linkage.crypto import (
    SealingKey,
    SealInvalid,
    Signer,
    parties,
    seal,
)
from broker.linkage.partners import Directory, Partner
from schemas.errors import Refusal, Refused
from schemas.items import layouts
from schemas.law import Agency
from schemas.law.judgement import ORDINANCE, STATUTORY, judge
from schemas.law.necessity import necessary_items
from schemas.law.roles import roles
from schemas.messages import (
    MAX_RECORDS,
    SALT,
    AnswerControl,
    AnswerRequest,
    AnswerSubject,
    Delivery,
    DeliveryNote,
    InquiryControl,
    InquiryRequest,
    InquirySubject,
    LetterBody,
    LetterControl,
    LetterNote,
    LetterRequest,
    Malformed,
    Permit,
    ReceivedAnswer,
    ReceivedInquiry,
    ReceivedLetter,
    decode,
    decode_business,
    decode_record,
    encode,
    encode_business,
    encode_record,
    signed_bytes,
)

PARTNER, ROLE, SIGN, SEAL = "partner", "role", "sign", "seal"
OPEN, VERIFY, REPLAY, INWARD = "open", "verify", "replay", "inward"

_CONTROLS: dict[str, tuple[type[Any], str]] = {
    "inquiry": (InquiryControl, "inquirer"),
    "answer": (AnswerControl, "provider"),
}

# Letters that one sends as an inquirer; the others one sends as somebody who answers or tells.
_OF_INQUIRERS = frozenset(("withdrawal", "acquisition_request"))

# After these at the first step, the permit is none that an answer could rest on.
_NO_ANSWER = frozenset(("L-101", "L-102", "L-105", "L-106", "L-107", "L-122", "L-305"))

M = TypeVar("M")
Draw: TypeAlias = Callable[[int], bytes]
"""Random bytes of a wanted length (injected)."""


@dataclass(frozen=True)
class Failed:
    """A check that failed: the step and the refusal."""

    step: str
    refusal: Refusal


class _Stop(Exception):
    """Ends a sequence of checks; never leaves this module."""

    def __init__(self, step: str, code: str, detail: str = "") -> None:
        self.failed = Failed(step, Refusal(code, detail))


class LinkageInterface:
    """Checks, signs, seals, opens and verifies for one agency. Clock and randomness come in as arguments."""

    def __init__(
        self, agency: Agency, signer: Signer, sealing_key: SealingKey, authority: x509.Certificate
    ) -> None:
        self.agency = agency
        self.signer = signer
        self.sealing_key = sealing_key
        self.authority = authority
        self.directory: Directory | None = None

    def send_inquiry(
        self, request: InquiryRequest, now: datetime, random: Draw
    ) -> outgoing.MessageQueued | Failed:
        """Check, sign and seal an inquiry. Failed: L-101 to L-104, L-113 to L-115."""
        try:
            partner = self._partner(request.provider, now)
            self._role(request.official_role, inquiring=True, basis=request.basis)
            row = self._law(self.agency, partner.agency, request, request.requested_at)
            self._necessity(row, request.layout, request.items)
        except _Stop as stop:
            return stop.failed
        control = InquiryControl(
            **_shared(InquiryControl, request),
            inquirer=self.agency.code,
            root=b"",
            signer=self.signer.identity.fingerprint,
        )
        return self._queue("inquiry", control, partner, request.subjects, random, request.link_codes)

    def send_answer(
        self, request: AnswerRequest, now: datetime, random: Draw
    ) -> outgoing.MessageQueued | Failed:
        """Check, sign and seal an answer; a refusal is an answer too. Failed: as for an inquiry."""
        try:
            partner = self._partner(request.inquirer, now)
            self._role(request.official_role, request.basis, inquiring=False)
            if not request.code:
                self._law(partner.agency, self.agency, request, request.requested_at)
        except _Stop as stop:
            return stop.failed
        control = AnswerControl(
            **_shared(AnswerControl, request) | {"subjects": len(request.subjects)},
            provider=self.agency.code,
            root=b"",
            signer=self.signer.identity.fingerprint,
        )
        return self._queue("answer", control, partner, request.subjects, random, request.link_codes)

    def send_letter(
        self, request: LetterRequest, now: datetime, random: Draw
    ) -> outgoing.MessageQueued | Failed:
        """Check, sign and seal a letter. What it says about persons needs the law as an answer does, with the
        receiver as the inquirer. Failed: as for an inquiry."""
        try:
            partner = self._partner(request.receiver, now)
            self._role(request.official_role, "", inquiring=request.kind in _OF_INQUIRERS)
            if request.law_row:
                self._law(partner.agency, self.agency, request, request.sent_at)
        except _Stop as stop:
            return stop.failed
        control = LetterControl(
            **_shared(LetterControl, request),
            sender=self.agency.code,
            subjects=len(request.bodies),
            root=b"",
            signer=self.signer.identity.fingerprint,
        )
        return self._queue(request.kind, control, partner, request.bodies, random, request.link_codes)

    def receive_inquiry(self, delivery: Delivery, now: datetime) -> ReceivedInquiry | Failed:
        """Check an inquiry that the network delivered. Failed: any L code but L-304."""
        try:
            permit = self._note(Permit, delivery, now)
            control = _decoded(InquiryControl, delivery.envelope.control)
            self._same(permit.provider, self.agency.code, "provider")
            for item in (
                "message_id",
                "inquirer",
                "provider",
                "basis",
                "law_version",
                "law_row",
                "information",
                "items",
            ):
                self._same(getattr(permit, item), getattr(control, item), item)
            self._same(len(permit.link_codes), sum(control.units), "units")
            self._same(len(permit.codes), sum(control.units), "units")
            if now > datetime.fromisoformat(permit.valid_until):
                raise _Stop(PARTNER, "L-106")
            partner = self._partner(control.inquirer, now, control.signer)
            self._role(control.official_role, inquiring=True, basis=control.basis)
            row = self._law(partner.agency, self.agency, control, control.requested_at)
            self._necessity(row, control.layout, control.items)
            subjects = self._open(InquirySubject, delivery, control, partner, sum(control.units))
            if not subjects or min(control.units) < 1:
                raise _Stop(VERIFY, "L-305", "units")
        except _Stop as stop:
            return stop.failed
        return ReceivedInquiry(permit, control, subjects)

    def receive_answer(self, delivery: Delivery, now: datetime) -> ReceivedAnswer | Failed:
        """Check an answer that the network delivered. Failed: as for an inquiry, without L-104 and L-106."""
        try:
            note = self._note(DeliveryNote, delivery, now)
            control = _decoded(AnswerControl, delivery.envelope.control)
            self._same(note.inquirer, self.agency.code, "inquirer")
            for item in ("message_id", "in_reply_to", "processing_number", "inquirer", "provider"):
                self._same(getattr(note, item), getattr(control, item), item)
            partner = self._partner(control.provider, now, control.signer)
            self._role(control.official_role, "", inquiring=False)
            subjects = self._open(AnswerSubject, delivery, control, partner, control.subjects)
            if len(subjects) != (0 if control.code else len(control.persons)):
                raise _Stop(VERIFY, "L-305", "persons")
        except _Stop as stop:
            return stop.failed
        return ReceivedAnswer(note, control, subjects)

    def receive_letter(self, delivery: Delivery, now: datetime) -> ReceivedLetter | Failed:
        """Check a letter that the network delivered. Failed: as for an inquiry, without L-106."""
        try:
            note = self._note(LetterNote, delivery, now)
            control = _decoded(LetterControl, delivery.envelope.control)
            self._same(note.receiver, self.agency.code, "receiver")
            self._same(control.kind, delivery.kind, "kind")
            for item in ("message_id", "kind", "sender", "receiver", "processing_number"):
                self._same(getattr(note, item), getattr(control, item), item)
            partner = self._partner(control.sender, now, control.signer)
            self._role(control.official_role, "", inquiring=control.kind in _OF_INQUIRERS)
            if control.law_row:
                self._law(self.agency, partner.agency, control, control.sent_at)
            bodies = self._open(LetterBody, delivery, control, partner, control.subjects)
            if note.link_codes and len(note.link_codes) != len(bodies):
                raise _Stop(PARTNER, "L-107", "link_codes")
        except _Stop as stop:
            return stop.failed
        return ReceivedLetter(note, control, bodies)

    def row_of(
        self, basis: str, inquirer: str, provider: str, row: str, information: str, requested_at: str
    ) -> str:
        """In the frame of which row of the law table this is asked.

        That is the row itself or, for a task of the inquirer's ordinance, the row to which it corresponds
        (Act art. 19(9)). Agencies are codes. What nothing permits is named as it was asked.
        """
        known = self.directory
        if basis != ORDINANCE or known is None or not {inquirer, provider} <= known.partners.keys():
            return row
        asking, providing = known.partners[inquirer].agency, known.partners[provider].agency
        day = _day(requested_at)
        found = judge(basis, asking, providing, row, information, day, ordinances=known.ordinances)
        return row if isinstance(found, Refusal) else found.row

    def refusing_answer(
        self, delivery: Delivery, failed: Failed, now: datetime, random: Draw
    ) -> outgoing.MessageQueued | None:
        """Tell the inquirer that its message was refused; None where there is nobody to be told."""
        if delivery.kind != "inquiry" or (failed.step == PARTNER and failed.refusal.code in _NO_ANSWER):
            return None
        permit = self._note(Permit, delivery, now)
        permitted = tuple(place for place, code in enumerate(permit.codes) if not code)
        if not permitted:
            return None
        shared = _shared(AnswerRequest, permit) | {
            # An id of its own: if the genuine message comes after a forged one, its answer finds its place.
            "message_id": answer_id(f"{permit.processing_number}/{delivery_digest(delivery)}"),
            "link_codes": tuple(permit.link_codes[place] for place in permitted),
        }
        answer = AnswerRequest(
            **shared,
            in_reply_to=permit.message_id,
            requested_at=permit.issued_at,
            office="",
            official_role="automatic_response",
            code=failed.refusal.code,
            persons=permitted,
            answered_at=now.isoformat(timespec="microseconds"),
            non_disclosure=False,
            subjects=(),
        )
        sent = self.send_answer(answer, now, random)
        return None if isinstance(sent, Failed) else sent

    def _queue(
        self,
        kind: str,
        control: InquiryControl | AnswerControl | LetterControl,
        partner: Partner,
        content: Sequence[Any],
        random: Draw,
        link_codes: tuple[str, ...],
    ) -> outgoing.MessageQueued:
        """Put the head of the records' tree into the control part, sign that, and seal the records."""
        if len(content) > MAX_RECORDS:
            raise ValueError(f"{len(content)} records in one message")
        salts = random(SALT * len(content))
        records = [
            encode_record(salts[SALT * place : SALT * (place + 1)], each)
            for place, each in enumerate(content)
        ]
        signed = encode(replace(control, root=tree_head(records)))
        info = parties(kind, self.agency.code, partner.agency.code)
        return outgoing.MessageQueued(
            message_id=control.message_id,
            kind=kind,
            partner=partner.agency.code,
            processing_number=getattr(control, "processing_number", ""),
            records=len(records),
            checks=(PARTNER, ROLE, SIGN, SEAL),
            control=signed,
            sealed=seal(encode_business(records), partner.sealing_key, info),
            signature=self.signer.sign(signed_bytes(signed)),
            link_codes=link_codes,
        )

    def _note(self, kind: type[M], delivery: Delivery, now: datetime) -> M:
        """The network's note, after its signature."""
        try:
            by_network = self.directory is not None and self.directory.by_network(
                delivery.note_signature, delivery.note, now
            )
        except Refused as error:
            raise _Stop(PARTNER, error.refusal.code, error.refusal.detail) from error
        if not by_network:
            raise _Stop(PARTNER, "L-105")
        return _decoded(kind, delivery.note)

    def _partner(self, code: str, now: datetime, signer: str = "") -> Partner:
        """The partner; with `signer`, as the holder of that certificate (its fingerprint)."""
        if self.directory is None:
            raise _Stop(PARTNER, "L-101")
        try:
            return self.directory.sender(code, signer, now) if signer else self.directory.partner(code, now)
        except Refused as error:
            raise _Stop(PARTNER, error.refusal.code, error.refusal.detail) from error

    def _role(self, official_role: str, basis: str, *, inquiring: bool) -> None:
        """May this role do so, under this article (R-059)? Where the message does not say, under any."""
        role = roles().get(official_role)
        may = role is not None and (role.may_inquire if inquiring else role.may_answer)
        if role is None or not may or (basis and basis not in role.bases):
            raise _Stop(ROLE, "L-103")

    def _same(self, one: Any, other: Any, item: str) -> None:
        if one != other:
            raise _Stop(PARTNER, "L-107", item)

    def _law(
        self,
        inquirer: Agency,
        provider: Agency,
        message: InquiryRequest | InquiryControl | AnswerRequest | LetterRequest | LetterControl,
        at: str,
    ) -> str:
        """The row of the law table that permits it: law, ordinances and assessments in force on the day in
        question decide, not those of today (R-060, R-382)."""
        if self.directory is None:
            raise _Stop(PARTNER, "L-101")
        row, information, day = message.law_row, message.information, _day(at)
        found = judge(
            getattr(message, "basis", STATUTORY),
            inquirer,
            provider,
            row,
            information,
            day,
            version=message.law_version,
            ordinances=self.directory.ordinances,
        )
        if isinstance(found, Refusal):
            raise _Stop(ROLE, found.code, found.detail)
        unpublished = self.directory.assessments.refuse(inquirer.code, provider.code, row, information, day)
        if unpublished is not None:
            raise _Stop(ROLE, unpublished.code, unpublished.detail)
        return found.row

    def _necessity(self, row: str, layout: str, items: tuple[str, ...]) -> None:
        """No item beyond what the affair needs (R-087). An unknown layout is refused further in (I-206)."""
        for known in layouts():
            if known.key == layout and not set(items) <= set(necessary_items(row, known)):
                raise _Stop(ROLE, "L-104", "items")

    def _open(
        self,
        kind: type[M],
        delivery: Delivery,
        control: InquiryControl | AnswerControl | LetterControl,
        sender: Partner,
        count: int,
    ) -> tuple[M, ...]:
        """Open, then verify: the records are those of the control part's head, and the sender signed that."""
        envelope = delivery.envelope
        info = parties(delivery.kind, sender.agency.code, self.agency.code)
        try:
            opened = self.sealing_key.open(envelope.sealed, info)
        except SealInvalid as error:
            raise _Stop(OPEN, "L-201") from error
        try:
            records = decode_business(opened)
        except Malformed as error:
            raise _Stop(VERIFY, "L-305") from error
        if tree_head(records) != control.root:
            raise _Stop(VERIFY, "L-301")
        data = signed_bytes(envelope.control)
        if not sender.identity.verifies(envelope.signature, data):
            raise _Stop(VERIFY, "L-303" if self._signed_by_other(envelope.signature, data) else "L-302")
        if len(records) != count or count > MAX_RECORDS:
            raise _Stop(VERIFY, "L-305", "records")
        try:
            return tuple(decode_record(kind, record) for record in records)
        except Malformed as error:
            raise _Stop(VERIFY, "L-305", str(error)) from error

    def _signed_by_other(self, signature: bytes, data: bytes) -> bool:
        """Only asked once a signature has failed: whose is it, then?"""
        partners: Any = self.directory.partners.values() if self.directory is not None else ()
        return any(who.verifies(signature, data) for partner in partners for who in partner.identities)


def answer_id(processing_number: str) -> str:
    """The message id of the answer under a permit: there is one, whoever computes it and how often."""
    return uuid5(NAMESPACE_URL, f"renkei/answer/{processing_number}").hex


def delivery_digest(delivery: Delivery) -> str:
    """SHA-256 over what was delivered, without its place in the mailbox."""
    envelope = delivery.envelope
    parts = (delivery.note, envelope.control, envelope.sealed, envelope.signature)
    return sha256(b"".join(sha256(part).digest() for part in parts)).hexdigest()


def received_event(
    delivery: Delivery, sender: str, message_id: str, processing_number: str
) -> incoming.MessageReceived:
    """The linkage log's entry for a message that passed all checks."""
    return incoming.MessageReceived(
        message_id=message_id,
        kind=delivery.kind,
        partner=sender,
        processing_number=processing_number,
        mailbox_position=delivery.position,
        digest=delivery_digest(delivery),
        checks=(PARTNER, ROLE, OPEN, VERIFY, REPLAY),
        control=delivery.envelope.control,
        sealed=delivery.envelope.sealed,
        signature=delivery.envelope.signature,
    )


def refused_event(delivery: Delivery, failed: Failed) -> incoming.MessageRefused:
    """The linkage log's entry for a message that failed a check; names only what was readable."""
    kind, sender = _CONTROLS.get(delivery.kind, (LetterControl, "sender"))
    try:
        control = decode(kind, delivery.envelope.control)
        partner, message_id = getattr(control, sender), control.message_id
    except Malformed:
        partner = message_id = "unreadable"
    return incoming.MessageRefused(
        message_id=message_id,
        kind=delivery.kind,
        partner=partner,
        mailbox_position=delivery.position,
        digest=delivery_digest(delivery),
        step=failed.step,
        code=failed.refusal.code,
    )


def tree_head(records: Sequence[bytes]) -> bytes:
    """The head of the Merkle tree over the records of a message (RFC 9162)."""
    return root_of(grow(0, (), map(leaf_hash, records))[1])


def _shared(kind: type[Any], source: Any) -> dict[str, Any]:
    """The items that two forms of one message have in common."""
    return {f.name: getattr(source, f.name) for f in fields(kind) if hasattr(source, f.name)}


def _decoded(kind: type[M], data: bytes) -> M:
    try:
        return decode(kind, data)
    except Malformed as error:
        raise _Stop(PARTNER, "L-305", str(error)) from error


def _day(at: str) -> date:
    try:
        return date.fromisoformat(at[:10])
    except ValueError as error:
        raise _Stop(ROLE, "L-104", "day") from error
