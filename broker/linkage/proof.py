"""One record of a message, proved alone: that a party said it, without the other records of the message.

The sender signed the control part; the head of the tree over the records stands in it (RFC 9162). A proof is
the control part, its signature and certificate, the bytes of one record, and its path to that head. With the
record of an answer goes the control part of the inquiry, as the inquirer signed it: there stands the law row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.ledger.merkle import (
    HASH_SIZE,
    TILE_WIDTH,
    ProofInvalid,
    inclusion_proof,
    leaf_hash,
    perfect_root,
    verify_inclusion,
)
from broker.linkage.crypto import CertificateInvalid, Identity, check_certificate, identity
from broker.linkage.partners import agency_uri
from schemas.messages import (
    AnswerControl,
    AnswerSubject,
    InquiryControl,
    InquirySubject,
    LetterBody,
    LetterControl,
    Malformed,
    decode,
    decode_record,
    signed_bytes,
)

_RECORDS: Final[dict[type[Any], tuple[type[Any], str, str]]] = {
    InquiryControl: (InquirySubject, "inquirer", "requested_at"),
    AnswerControl: (AnswerSubject, "provider", "answered_at"),
    LetterControl: (LetterBody, "sender", "sent_at"),
}


@dataclass(frozen=True)
class SignedControl:
    """A control part as its sender signed it; `certificate` is DER."""

    control: bytes
    signature: bytes
    certificate: bytes


@dataclass(frozen=True)
class RecordProof:
    """The record at `place` of a message; `certificate` is DER, `path` leads from the leaf to the head.

    `inquiry` is what an answer replies to, None for other messages and where it is not at hand.
    """

    control: bytes
    signature: bytes
    certificate: bytes
    place: int
    records: int
    record: bytes
    path: tuple[bytes, ...]
    inquiry: SignedControl | None = None


@dataclass(frozen=True)
class ProvedRecord:
    """What a proof shows: the control part and the record, said by `sender` at `at`.

    `inquiry` is the control part of the inquiry that an answer replies to, if the proof shows that, too.
    """

    control: Any
    record: Any
    sender: str
    at: str
    inquiry: InquiryControl | None


def prove_record(
    control: bytes,
    signature: bytes,
    signer: Identity,
    records: Sequence[bytes],
    place: int,
    inquiry: SignedControl | None = None,
) -> RecordProof:
    """The proof of one of the records of a message that was received. Raises ValueError for no such place.

    `inquiry` is what the message answers.
    """
    hashes = b"".join(map(leaf_hash, records))

    def read(level: int, index: int) -> bytes:
        width = HASH_SIZE * TILE_WIDTH**level  # of what lies under one hash of this level
        first = index * TILE_WIDTH
        last = min(first + TILE_WIDTH, len(hashes) // width)
        return b"".join(perfect_root(hashes[n * width : (n + 1) * width]) for n in range(first, last))

    path = inclusion_proof(read, place, len(records))
    certificate = signer.certificate.public_bytes(Encoding.DER)
    count, record = len(records), records[place]
    return RecordProof(control, signature, certificate, place, count, record, tuple(path), inquiry)


def check_record(proof: RecordProof, authority: x509.Certificate) -> ProvedRecord:
    """What the proof shows, if it does. Raises ProofInvalid. The certificate was valid at the time that the
    control part names; whether it was revoked then is the reader's to judge, with `proof.certificate`."""
    control = _signed(SignedControl(proof.control, proof.signature, proof.certificate), authority)
    content, sender, at = _RECORDS[type(control)]
    verify_inclusion(leaf_hash(proof.record), proof.place, proof.records, proof.path, control.root)
    try:
        record = decode_record(content, proof.record)
    except Malformed as error:
        raise ProofInvalid("the record cannot be read") from error
    inquiry = _signed(proof.inquiry, authority) if proof.inquiry is not None else None
    if inquiry is not None and not _replies(control, inquiry):
        raise ProofInvalid("the message is no answer to this inquiry")
    return ProvedRecord(control, record, getattr(control, sender), getattr(control, at), inquiry)


def _replies(answer: Any, inquiry: Any) -> bool:
    if not isinstance(answer, AnswerControl) or not isinstance(inquiry, InquiryControl):
        return False
    asked = (inquiry.message_id, inquiry.inquirer, inquiry.provider)
    return asked == (answer.in_reply_to, answer.inquirer, answer.provider)


def _signed(signed: SignedControl, authority: x509.Certificate) -> Any:
    """The control part, if whom it names as its sender signed it. Raises ProofInvalid."""
    control = _control(signed.control)
    _, sender, at = _RECORDS[type(control)]
    try:
        signer = identity(x509.load_der_x509_certificate(signed.certificate))
        moment = datetime.fromisoformat(getattr(control, at))
        check_certificate(signer, authority, agency_uri(getattr(control, sender)), moment)
    except (ValueError, TypeError, CertificateInvalid) as error:
        raise ProofInvalid("the certificate is not one of the sender at that time") from error
    if signer.fingerprint != control.signer:
        raise ProofInvalid("the certificate is not the one that the control part names")
    if not signer.verifies(signed.signature, signed_bytes(signed.control)):
        raise ProofInvalid("the signature does not cover the control part")
    return control


def _control(data: bytes) -> Any:
    for kind in _RECORDS:
        try:
            return decode(kind, data)
        except Malformed:
            continue
    raise ProofInvalid("the control part cannot be read")
