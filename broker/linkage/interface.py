"""The linkage interface of one agency: what it checks, in which order, and what it makes of messages.

Order on receipt (R-052): partner and role, open, verify, then inward. Order on sending (R-053): partner and
role, sign, seal, then send. The same checks hold in both directions (R-062).
"""

from dataclasses import dataclass
from datetime import date, datetime
from hashlib import sha256
from typing import Any, TypeVar
from uuid import NAMESPACE_URL, uuid5

from cryptography import x509

from broker.linkage import incoming, outgoing
from broker.linkage.crypto import (
    CertificateInvalid,
    SealingKey,
    SealInvalid,
    Signer,
    check_certificate,
    parties,
    seal,
)
from broker.linkage.partners import Directory, Partner, agency_uri
from schemas.errors import Refusal
from schemas.items import layouts
from schemas.law import Agency, table_at
from schemas.law.necessity import necessary_items
from schemas.law.roles import roles
from schemas.messages import (
    AnswerControl,
    AnswerRequest,
    AnswerSubject,
    Business,
    Delivery,
    DeliveryNote,
    InquiryControl,
    InquiryRequest,
    InquirySubject,
    Malformed,
    Permit,
    ReceivedAnswer,
    ReceivedInquiry,
    build,
    decode,
    decode_business,
    encode,
    encode_business,
    signed_bytes,
)

PARTNER, ROLE, SIGN, SEAL = "partner", "role", "sign", "seal"
OPEN, VERIFY, REPLAY, INWARD = "open", "verify", "replay", "inward"

# After these at the first step, the permit is none that an answer could rest on.
_NO_ANSWER = frozenset(("L-101", "L-102", "L-105", "L-106", "L-107", "L-305"))

M = TypeVar("M")


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
    """Checks, signs, seals, opens and verifies for one agency. Clock and salt come in as arguments."""

    def __init__(
        self, agency: Agency, signer: Signer, sealing_key: SealingKey, authority: x509.Certificate
    ) -> None:
        self.agency = agency
        self.signer = signer
        self.sealing_key = sealing_key
        self.authority = authority
        self.directory: Directory | None = None

    def send_inquiry(
        self, request: InquiryRequest, now: datetime, salt: bytes
    ) -> outgoing.MessageQueued | Failed:
        """Check, sign and seal an inquiry. Failed: L-101 to L-104."""
        try:
            partner = self._partner(request.provider, now)
            self._role(request.official_role, inquiring=True)
            self._law(
                self.agency,
                partner.agency,
                request.law_row,
                request.law_version,
                request.information,
                request.requested_at,
            )
            self._necessity(request.law_row, request.layout, request.items)
        except _Stop as stop:
            return stop.failed
        control = encode(
            InquiryControl(
                message_id=request.message_id,
                inquirer=self.agency.code,
                office=request.office,
                official_role=request.official_role,
                provider=request.provider,
                law_version=request.law_version,
                law_row=request.law_row,
                information=request.information,
                layout=request.layout,
                items=request.items,
                subjects=len(request.subjects),
                requested_at=request.requested_at,
                non_disclosure=request.non_disclosure,
                signer=self.signer.identity.fingerprint,
            )
        )
        return self._queue("inquiry", request.message_id, "", partner, control, salt, request)

    def send_answer(
        self, request: AnswerRequest, now: datetime, salt: bytes
    ) -> outgoing.MessageQueued | Failed:
        """Check, sign and seal an answer; a refusal is an answer too. Failed: L-101 to L-104."""
        try:
            partner = self._partner(request.inquirer, now)
            self._role(request.official_role, inquiring=False)
            if not request.code:
                self._law(
                    partner.agency,
                    self.agency,
                    request.law_row,
                    request.law_version,
                    request.information,
                    request.answered_at,
                )
        except _Stop as stop:
            return stop.failed
        control = encode(
            AnswerControl(
                message_id=request.message_id,
                in_reply_to=request.in_reply_to,
                processing_number=request.processing_number,
                inquirer=request.inquirer,
                provider=self.agency.code,
                office=request.office,
                official_role=request.official_role,
                code=request.code,
                subjects=len(request.subjects),
                answered_at=request.answered_at,
                non_disclosure=request.non_disclosure,
                signer=self.signer.identity.fingerprint,
            )
        )
        return self._queue(
            "answer", request.message_id, request.processing_number, partner, control, salt, request
        )

    def receive_inquiry(self, delivery: Delivery, now: datetime) -> ReceivedInquiry | Failed:
        """Check an inquiry that the network delivered. Failed: any L code but L-304."""
        try:
            permit = self._note(Permit, delivery)
            control = _decoded(InquiryControl, delivery.envelope.control)
            if (permit.provider, control.provider) != (self.agency.code, self.agency.code):
                raise _Stop(PARTNER, "L-107", "provider")
            for item in ("message_id", "inquirer", "law_version", "law_row", "information", "items"):
                if getattr(permit, item) != getattr(control, item):
                    raise _Stop(PARTNER, "L-107", item)
            if len(permit.link_codes) != control.subjects:
                raise _Stop(PARTNER, "L-107", "subjects")
            if now > datetime.fromisoformat(permit.valid_until):
                raise _Stop(PARTNER, "L-106")
            partner = self._sender(control.inquirer, control.signer, now)
            self._role(control.official_role, inquiring=True)
            self._law(
                partner.agency,
                self.agency,
                control.law_row,
                control.law_version,
                control.information,
                control.requested_at,
            )
            self._necessity(control.law_row, control.layout, control.items)
            business = self._open("inquiry", delivery, partner)
            subjects = tuple(_built(InquirySubject, s) for s in business.subjects)
            if not subjects or len(subjects) != control.subjects:
                raise _Stop(VERIFY, "L-305", "subjects")
        except _Stop as stop:
            return stop.failed
        return ReceivedInquiry(permit, control, subjects)

    def receive_answer(self, delivery: Delivery, now: datetime) -> ReceivedAnswer | Failed:
        """Check an answer that the network delivered. Failed: as for an inquiry, without L-104 and L-106."""
        try:
            note = self._note(DeliveryNote, delivery)
            control = _decoded(AnswerControl, delivery.envelope.control)
            if (note.inquirer, control.inquirer) != (self.agency.code, self.agency.code):
                raise _Stop(PARTNER, "L-107", "inquirer")
            for item in ("message_id", "in_reply_to", "processing_number", "provider"):
                if getattr(note, item) != getattr(control, item):
                    raise _Stop(PARTNER, "L-107", item)
            partner = self._sender(control.provider, control.signer, now)
            self._role(control.official_role, inquiring=False)
            business = self._open("answer", delivery, partner)
            subjects = tuple(_built(AnswerSubject, s) for s in business.subjects)
            if len(subjects) != control.subjects:
                raise _Stop(VERIFY, "L-305", "subjects")
        except _Stop as stop:
            return stop.failed
        return ReceivedAnswer(note, control, subjects)

    def refusing_answer(
        self, delivery: Delivery, failed: Failed, now: datetime, salt: bytes
    ) -> outgoing.MessageQueued | None:
        """Tell the inquirer that its message was refused; None where there is nobody to be told."""
        if delivery.kind != "inquiry" or (failed.step == PARTNER and failed.refusal.code in _NO_ANSWER):
            return None
        permit = self._note(Permit, delivery)
        # An id of its own: if the genuine message comes after a forged one, its answer finds its place free.
        message_id = answer_id(f"{permit.processing_number}/{delivery_digest(delivery)}")
        answer = AnswerRequest(
            message_id=message_id,
            in_reply_to=permit.message_id,
            processing_number=permit.processing_number,
            inquirer=permit.inquirer,
            office="",
            official_role="automatic_response",
            law_version=permit.law_version,
            law_row=permit.law_row,
            information=permit.information,
            code=failed.refusal.code,
            answered_at=now.isoformat(timespec="microseconds"),
            non_disclosure=False,
            link_codes=permit.link_codes,
            subjects=(),
        )
        sent = self.send_answer(answer, now, salt)
        return None if isinstance(sent, Failed) else sent

    def _queue(
        self,
        kind: str,
        message_id: str,
        processing_number: str,
        partner: Partner,
        control: bytes,
        salt: bytes,
        request: InquiryRequest | AnswerRequest,
    ) -> outgoing.MessageQueued:
        business = encode_business(salt, control, request.subjects)
        signature = self.signer.sign(signed_bytes(control, business))
        info = parties(kind, self.agency.code, partner.agency.code)
        return outgoing.MessageQueued(
            message_id=message_id,
            kind=kind,
            partner=partner.agency.code,
            processing_number=processing_number,
            checks=(PARTNER, ROLE, SIGN, SEAL),
            control=control,
            sealed=seal(business, partner.sealing_key, info),
            signature=signature,
            link_codes=request.link_codes,
        )

    def _note(self, kind: type[M], delivery: Delivery) -> M:
        """The network's note, after its signature."""
        if self.directory is None or not self.directory.network.verifies(
            delivery.note_signature, delivery.note
        ):
            raise _Stop(PARTNER, "L-105")
        return _decoded(kind, delivery.note)

    def _partner(self, code: str, now: datetime) -> Partner:
        partner = self.directory.partners.get(code) if self.directory is not None else None
        if partner is None:
            raise _Stop(PARTNER, "L-101")
        try:
            check_certificate(partner.identity, self.authority, agency_uri(code), now)
        except CertificateInvalid as error:
            raise _Stop(PARTNER, "L-102", str(error)) from error
        return partner

    def _sender(self, code: str, signer: str, now: datetime) -> Partner:
        partner = self._partner(code, now)
        if signer != partner.identity.fingerprint:
            raise _Stop(PARTNER, "L-303")
        return partner

    def _role(self, official_role: str, *, inquiring: bool) -> None:
        role = roles().get(official_role)
        if role is None or not (role.may_inquire if inquiring else role.may_answer):
            raise _Stop(ROLE, "L-103")

    def _law(
        self, inquirer: Agency, provider: Agency, row: str, version: str, information: str, at: str
    ) -> None:
        """The law in force on the day in question decides, not the law of today (R-060)."""
        try:
            table = table_at(date.fromisoformat(at[:10]))
        except ValueError as error:
            raise _Stop(ROLE, "L-104") from error
        if table.version != version or table.permits(inquirer, provider, row, information) is None:
            raise _Stop(ROLE, "L-104")

    def _necessity(self, row: str, layout: str, items: tuple[str, ...]) -> None:
        """No item beyond what the affair needs (R-087). An unknown layout is refused further in (I-206)."""
        for known in layouts():
            if known.key == layout and not set(items) <= set(necessary_items(row, known)):
                raise _Stop(ROLE, "L-104", "items")

    def _open(self, kind: str, delivery: Delivery, sender: Partner) -> Business:
        """Open, then verify; the business part belongs to this control part or the message is refused."""
        envelope = delivery.envelope
        info = parties(kind, sender.agency.code, self.agency.code)
        try:
            opened = self.sealing_key.open(envelope.sealed, info)
        except SealInvalid as error:
            raise _Stop(OPEN, "L-201") from error
        try:
            business = decode_business(opened)
        except Malformed as error:
            raise _Stop(VERIFY, "L-305") from error
        if business.control != sha256(envelope.control).digest():
            raise _Stop(VERIFY, "L-301")
        data = signed_bytes(envelope.control, opened)
        if not sender.identity.verifies(envelope.signature, data):
            raise _Stop(VERIFY, "L-303" if self._signed_by_other(envelope.signature, data) else "L-302")
        return business

    def _signed_by_other(self, signature: bytes, data: bytes) -> bool:
        """Only asked once a signature has failed: whose is it, then?"""
        partners: Any = self.directory.partners.values() if self.directory is not None else ()
        return any(partner.identity.verifies(signature, data) for partner in partners)


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
    try:
        if delivery.kind == "inquiry":
            inquiry = decode(InquiryControl, delivery.envelope.control)
            sender, message_id = inquiry.inquirer, inquiry.message_id
        else:
            answer = decode(AnswerControl, delivery.envelope.control)
            sender, message_id = answer.provider, answer.message_id
    except Malformed:
        sender = message_id = "unreadable"
    return incoming.MessageRefused(
        message_id=message_id,
        kind=delivery.kind,
        partner=sender,
        mailbox_position=delivery.position,
        digest=delivery_digest(delivery),
        step=failed.step,
        code=failed.refusal.code,
    )


def _decoded(kind: type[M], data: bytes) -> M:
    try:
        return decode(kind, data)
    except Malformed as error:
        raise _Stop(PARTNER, "L-305", str(error)) from error


def _built(kind: type[M], values: Any) -> M:
    try:
        return build(kind, values)
    except Malformed as error:
        raise _Stop(VERIFY, "L-305", str(error)) from error
