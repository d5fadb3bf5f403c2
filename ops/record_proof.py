"""`renkei audit record` and `check-record`: one record of a message that came in, proved to anybody.

The first needs the agency's own keys, since the record was sealed for it; the second only the file and the
certificate of the network's authority. A proof holds what was said about one person: its file is private.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from cryptography import x509

from adapters.business.output import replacing
from adapters.platform.asking import inquiry_state
from broker.intermediate import inquiry
from broker.intermediate.inquiry import InquiryAnswered
from broker.ledger.events import Recorded, Registry
from broker.ledger.folder import VAULT
from broker.ledger.merkle import ProofInvalid
from broker.ledger.store import Store
from broker.ledger.vault import Vault
from broker.linkage import incoming, outgoing
from broker.linkage.crypto import SealingKey, SealInvalid, identity, parties
from broker.linkage.incoming import MessageReceived
from broker.linkage.proof import ProvedRecord, RecordProof, SignedControl, check_record, prove_record
from ops.audit import evidence, say
from ops.config import AgencyConfig, ConfigurationError
from ops.daemons import sealing_key
from ops.terminal import fail
from schemas.errors import Refusal, Refused, codes, entry
from schemas.items import layouts
from schemas.messages import (
    AnswerControl,
    AnswerSubject,
    InquiryControl,
    InquirySubject,
    LetterControl,
    decode,
    decode_business,
)

FORM = "renkei/record-proof/1"
STEP = 2_000
_RECEIVED = "linkage.message_received"
KINDS = {
    "inquiry": "照会 (inquiry)",
    "answer": "回答 (answer)",
    "notice": "連絡 (notice)",
    "receipt": "受領 (receipt)",
    "withdrawal": "取りやめ (withdrawal)",
    "acquisition_request": "符号取得の求め (request to acquire a link code)",
    "correction": "訂正の通知 (correction)",
}


@dataclass(frozen=True)
class Books:
    """The ledger of an agency with the keys to read it. Nothing can be appended."""

    store: Store
    registry: Registry
    vault: Vault
    sealing_key: SealingKey
    code: str

    def stream(self, key: str) -> list[Recorded]:
        return [self.registry.decode(stored, self.vault) for stored in self.store.stream(key)]

    def received(self, message: str) -> Recorded | None:
        """The message of this id that came in, from whomever."""
        position = 0
        while found := self.store.events(position, STEP):
            position = found[-1].id
            for stored in found:
                if stored.topic.rpartition("/")[0] == _RECEIVED:
                    recorded = self.registry.decode(stored, None)
                    if recorded.event.message_id == message:
                        return self.registry.decode(stored, self.vault)
        return None

    def answer(self, request: str, person: int) -> tuple[Recorded, int]:
        """The message that answered about the person at this place of a request, and the place there.

        Raises Refused: S-171 where there is none, S-172 for no such person.
        """
        key = self._inquiry(request)
        unit = 0
        recorded = self.stream(key)
        state = inquiry_state(recorded)
        if state.joined is not None:
            key, unit = inquiry.stream(state.joined.inquiry_id), state.joined.unit
            recorded = self.stream(key)
            state = inquiry_state(recorded)
        if state.request is None:
            raise Refused(Refusal("S-171", request))
        places = list(inquiry.units(state.request.units))[unit]
        if person not in range(len(places)):
            raise Refused(Refusal("S-172", f"{person}"))
        for happened in recorded:
            told = happened.event
            if isinstance(told, InquiryAnswered) and places[person] in told.persons:
                arrived = self.stream(incoming.stream(state.request.provider, told.answer_message))
                return arrived[0], told.persons.index(places[person])
        raise Refused(Refusal("S-171", request))

    def _inquiry(self, request: str) -> str:
        return inquiry.stream(uuid5(NAMESPACE_URL, f"renkei/{self.code}/{request}").hex)

    def certificate(self, fingerprint: str) -> bytes | None:
        """The certificate of a message, in DER."""
        kept = self.stream(incoming.certificate_stream(fingerprint))
        return kept[0].event.certificate if kept else None

    def proof(self, arrived: Recorded, place: int) -> RecordProof:
        """The proof of the record at this place of a message. Raises Refused."""
        message: MessageReceived = arrived.event
        if arrived.erased:
            raise Refused(Refusal("I-207", str(arrived.erased)))
        control = _control(message.kind, message.control)
        certificate = self.certificate(control.signer)
        if certificate is None:
            raise Refused(Refusal("S-174", message.message_id))
        try:
            info = parties(message.kind, message.partner, self.code)
            records = decode_business(self.sealing_key.open(message.sealed, info))
        except SealInvalid as error:
            raise Refused(Refusal("L-201", message.message_id)) from error
        if place not in range(len(records)):
            raise Refused(Refusal("S-172", f"{place}"))
        signer = identity(x509.load_der_x509_certificate(certificate))
        asked = self.asked(control.in_reply_to) if isinstance(control, AnswerControl) else None
        return prove_record(message.control, message.signature, signer, records, place, asked)

    def asked(self, inquiry_id: str) -> SignedControl | None:
        """Our own inquiry as we signed it, where the certificate of that time is kept."""
        sent = self.stream(outgoing.stream(inquiry_id))
        if not sent:
            return None
        queued = sent[0].event
        certificate = self.certificate(decode(InquiryControl, queued.control).signer)
        return SignedControl(queued.control, queued.signature, certificate) if certificate else None


def _control(kind: str, data: bytes) -> InquiryControl | AnswerControl | LetterControl:
    if kind == "inquiry":
        return decode(InquiryControl, data)
    return decode(AnswerControl, data) if kind == "answer" else decode(LetterControl, data)


@contextmanager
def _books(config: AgencyConfig) -> Iterator[Books]:
    data = Path(config.data)
    with evidence(data, config.store) as found, closing(Vault(data / VAULT)) as vault:
        for ledger in found:
            if ledger.path == data:
                with ledger.store() as store:
                    yield Books(store, ledger.kind()[0], vault, sealing_key(config, vault), config.code)
                return
    raise ConfigurationError(f"{data}: 台帳がありません (no ledger)")


def record(config: AgencyConfig, message: str, request: str, place: int, out: Path) -> int:
    """Write the proof of one record of a message, or of what answered a request, as a file of mode 0600.

    Raises ConfigurationError where there is no ledger.
    """
    with _books(config) as books:
        try:
            if request:
                arrived, place = books.answer(request, place)
            else:
                found = books.received(message)
                if found is None:
                    return fail("S-171", message)
                arrived = found
            proof = books.proof(arrived, place)
        except Refused as refused:
            return fail(refused.refusal.code, refused.refusal.detail)
    try:
        with replacing(out) as file:
            file.write(written(proof))
    except OSError as error:
        return fail("S-104", f"{out.name}: {error.strerror}")
    say(f"{arrived.event.message_id}: {place + 1}/{proof.records} 件目の証明 (proof of one record) → {out}")
    return 0


def written(proof: RecordProof) -> bytes:
    """A proof as a file: JSON, bytes in base64."""
    values = {"form": FORM, **vars(proof), "inquiry": proof.inquiry and vars(proof.inquiry)}
    return (json.dumps(values, indent=1, default=_text) + "\n").encode()


def _text(value: bytes) -> str:
    return b64encode(value).decode("ascii")


def read_proof(data: bytes) -> RecordProof:
    """Raises ProofInvalid for anything that `written` does not write."""
    try:
        values = json.loads(data)
        form, place, records, path, asked = (
            values.pop(name) for name in ("form", "place", "records", "path", "inquiry")
        )
        if form != FORM or type(place) is not int or type(records) is not int:
            raise ProofInvalid("not a proof of this form")
        return RecordProof(
            place=place,
            records=records,
            path=tuple(map(_bytes, path)),
            inquiry=SignedControl(**_each(asked)) if asked is not None else None,
            **_each(values),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ProofInvalid("not a proof of this form") from error


def _each(values: Any) -> dict[str, Any]:
    return {name: _bytes(text) for name, text in values.items()}


def _bytes(text: str) -> bytes:
    return b64decode(text, validate=True)


def check(file: Path, authority: Path) -> int:
    """Verify a proof with nothing else at hand and say what it shows; exit status 1 if it is false.

    Raises ConfigurationError where the authority's certificate cannot be read.
    """
    try:
        issuer = x509.load_pem_x509_certificate(authority.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{authority}: {error}") from error
    try:
        proof = read_proof(file.read_bytes())
        shown = check_record(proof, issuer)
    except OSError as error:
        return fail("S-104", f"{file.name}: {error.strerror}")
    except ProofInvalid as error:
        return fail("S-173", str(error))
    for line in told(proof, shown):
        say(line)
    return 0


def told(proof: RecordProof, shown: ProvedRecord) -> Iterator[str]:
    """Who said what to whom, when, and under which row of the law."""
    control = shown.control
    yield "証明は正しく、この記録はこのとおりに述べられたものです (OK: the record was said exactly so)"
    kind = getattr(control, "kind", "inquiry" if isinstance(control, InquiryControl) else "answer")
    yield f"  種別 (what): {KINDS.get(kind, kind)} {control.message_id}"
    yield f"  誰が (who): 機関 {shown.sender} {control.office} {control.official_role}"
    yield f"  誰に (to whom): 機関 {_receiver(control)}"
    yield f"  いつ (when): {shown.at}"
    yield f"  根拠 (law): {_law(shown)}"
    if number := getattr(control, "processing_number", ""):
        yield f"  処理番号 (processing number): {number}"
    yield f"  記録 (record): {proof.records} 件のうち {proof.place + 1} 件目 (of these records, this one)"
    for line in _content(shown):
        yield f"    {line}"
    certificate = x509.load_der_x509_certificate(proof.certificate)
    serial, until = f"{certificate.serial_number:x}", certificate.not_valid_after_utc.date()
    yield f"  証明書 (certificate): {serial}、{until} まで。失効は別に確認 (valid until; see the CRL, too)"


def _receiver(control: Any) -> str:
    if isinstance(control, InquiryControl):
        return control.provider
    return str(control.inquirer if isinstance(control, AnswerControl) else control.receiver)


def _law(shown: ProvedRecord) -> str:
    """A letter may rest on a row or not; of an answer the row stands in the inquiry."""
    control: Any = shown.inquiry if shown.inquiry is not None else shown.control
    row = getattr(control, "law_row", "")
    if not row:
        return "この証明にはありません (not in this proof)"
    article, _, number = getattr(control, "basis", "19-8").partition("-")
    return f"番号法第{article}条第{number}号 表の項{row} {control.information} [{control.law_version}]"


def _content(shown: ProvedRecord) -> Iterator[str]:
    said = shown.record
    if isinstance(said, InquirySubject):
        yield f"相当年度 (fiscal year): {said.fiscal_year or '-'}"
        yield f"照合値 (salted digest of the person): {said.guard.hex()}"
    elif isinstance(said, AnswerSubject):
        if said.code:
            cause = entry(said.code).cause_ja if said.code in codes() else ""
            yield f"提供しない (not provided): {said.code} {cause}".rstrip()
        yield from _items(said.payload, shown.inquiry.layout if shown.inquiry is not None else "")
        if said.omitted:
            yield f"提供されていない項目 (omitted): {' '.join(said.omitted)}"
    else:
        yield from (f"{name}: {value}" for name, value in said.content.items())


def _items(payload: Any, key: str) -> Iterator[str]:
    known = {item.code: item.name_ja for layout in layouts() if layout.key == key for item in layout.items}
    for code, value in payload.items():
        text = value if isinstance(value, str) else " ".join(value)
        yield f"{known.get(code, code)} ({code}): {text}"
