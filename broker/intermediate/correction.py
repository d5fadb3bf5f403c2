"""What is done with provision records afterwards: corrected, disclosed, asked to be used no longer (Act
art. 31).

A record is never changed. Its correction is an event of its own, which is shown beside it from then on, and
of which the network and the other party are told (R-161). Each exchange has one stream of corrections at
each side. What somebody asks about the records of a person (R-162, R-163) is a stream of its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from broker.ledger.events import Recorded, event, personal
from schemas.errors import Refusal
from schemas.items import layout

ITEMS: Mapping[str, tuple[str, str]] = {
    "inquirer_name": ("情報照会者", "inquirer"),
    "provider_name": ("情報提供者", "provider"),
    "requested_at": ("提供の求めの日時", "time of the request"),
    "provided_at": ("提供の日時", "time of provision"),
    "information": ("情報の種類", "kind of information"),
    "items": ("情報の項目", "items of information"),
    "office": ("事務をつかさどる組織", "office in charge"),
    "affair": ("情報照会者の処理する事務", "affair"),
    "non_disclosure": ("不開示情報", "non-disclosure"),
}
"""What a record says (Act art. 23(1), (2)), by the names of ProvisionRecord, in Japanese and English."""

TEXT_CHARACTERS = 200
YES, NO = "yes", "no"

PERSON, LEGAL_REPRESENTATIVE, PROXY = "person", "legal_representative", "proxy"
QUALITIES: Mapping[str, tuple[str, str]] = {
    PERSON: ("本人", "the person"),
    LEGAL_REPRESENTATIVE: ("法定代理人", "legal representative"),
    PROXY: ("任意代理人", "appointed proxy"),
}
"""Who may ask (R-163)."""
IDENTITY: Mapping[str, str] = {
    "individual_number_card": "個人番号カード",
    "photo_document": "顔写真付きの身分証明書1点",
    "two_documents": "顔写真のない身分証明書2点",
}
"""How it was checked who asks: words, never the number of a document."""
ENTITLEMENT: Mapping[str, tuple[str, str]] = {
    "family_register": ("戸籍謄本", LEGAL_REPRESENTATIVE),
    "guardianship": ("後見の登記事項証明書", LEGAL_REPRESENTATIVE),
    "power_of_attorney": ("委任状", PROXY),
}
"""By what somebody shows that he asks for another, and in which quality."""

PURPOSES: Mapping[str, tuple[str, str]] = {
    "disclosure": ("開示請求への対応", "to answer a request for disclosure"),
    "correction": ("記録の訂正", "to correct a record"),
    "inspection": ("監査・点検", "to inspect how information is linked"),
    "incident": ("漏えい等の調査", "to look into an incident"),
}
"""What staff may read provision records for; any other use is barred (R-160)."""

STOP_OF_USE, TRANSFER, DISCLOSURE, CORRECTION = "stop_of_use", "transfer", "disclosure", "correction"


@dataclass(frozen=True)
@event("record.corrected", retention="provision_record")
class RecordCorrected:
    """An officer corrected what the record of `exchange` (its stream) says about the person at place
    `subject`.

    `item` is a word of ITEMS. `quality` is who asked for it ("" for nobody but the office), `act_id` the act
    that a second person confirmed ("" where none was needed). Where `notified`, a notice of this message id
    goes out with it.
    """

    correction_id: str
    exchange: str
    processing_number: str
    subject: int
    item: str
    quality: str
    identity: str
    entitlement: str
    act_id: str
    corrected_at: str
    notified: bool
    old: str = personal()
    new: str = personal()
    reason: str = personal()
    staff_id: str = personal()
    representative: str = personal()


@dataclass(frozen=True)
@event("record.correction_settled", retention="provision_record")
class CorrectionSettled:
    """The network's word on the notice of a correction: `code` is "" where it noted it and passed it on."""

    correction_id: str
    code: str
    decided_at: str


@dataclass(frozen=True)
@event("record.correction_received", retention="provision_record")
class CorrectionReceived:
    """The other party (`sender`) tells that it corrected its record of the same exchange."""

    correction_id: str
    sender: str
    subject: int
    item: str
    corrected_at: str
    received_at: str
    old: str = personal()
    new: str = personal()

    @property
    def notified(self) -> bool:
        return True


@dataclass(frozen=True)
@event("records.disclosed", retention="provision_record")
class RecordsDisclosed:
    """The records of a person (blind) were disclosed on paper: how many, and how many were withheld.

    `quality`, `identity` and `entitlement` are who asked and how that was checked. A representative's name is
    sealed.
    """

    person: str
    quality: str
    identity: str
    entitlement: str
    disclosed_at: str
    shown: int
    withheld: int
    subject: str = personal()
    representative: str = personal()
    staff_id: str = personal()
    purpose: str = personal()


@dataclass(frozen=True)
@event("records.request_refused", retention="provision_record")
class RecordRequestRefused:
    """What was asked about the records of a person was refused; `kind` is STOP_OF_USE, TRANSFER, DISCLOSURE
    or CORRECTION."""

    person: str
    kind: str
    quality: str
    identity: str
    entitlement: str
    code: str
    decided_at: str
    subject: str = personal()
    representative: str = personal()
    staff_id: str = personal()
    purpose: str = personal()


EVENTS = (RecordCorrected, CorrectionSettled, CorrectionReceived, RecordsDisclosed, RecordRequestRefused)


@dataclass(frozen=True)
class Correction:
    """A correction as it is shown beside its record: `by` is "" for our own, else the other party's code.

    `told` is, of our own, the network's word: "" for none yet (or nobody to be told), "noted", or a code.
    """

    item: str
    old: str
    new: str
    corrected_at: str
    by: str
    told: str
    subject: int = 0


@dataclass(frozen=True)
class State:
    """The corrections of one exchange, by their ids, and the network's word on each."""

    corrected: Mapping[str, RecordCorrected | CorrectionReceived] = field(default_factory=dict)
    settled: Mapping[str, CorrectionSettled] = field(default_factory=dict)

    def shown(self, subject: int) -> tuple[Correction, ...]:
        """The corrections of the record of one person, in their order."""
        return tuple(
            Correction(
                each.item,
                each.old,
                each.new,
                each.corrected_at,
                each.sender if isinstance(each, CorrectionReceived) else "",
                self._told(correction_id),
                subject,
            )
            for correction_id, each in self.corrected.items()
            if each.subject == subject
        )

    def _told(self, correction_id: str) -> str:
        settled = self.settled.get(correction_id)
        return "" if settled is None else settled.code or "noted"


def stream(exchange: str) -> str:
    """The corrections of an exchange, by the key of its own stream here."""
    return f"correction/{exchange}"


def request_stream(request_id: str) -> str:
    return f"record_request/{request_id}"


def evolve(state: State, happened: Any) -> State:
    """Raises KeyError for a step that cannot follow."""
    if isinstance(happened, CorrectionSettled):
        if happened.correction_id in state.settled:
            raise KeyError("settled twice")
        state.corrected[happened.correction_id]
        return State(state.corrected, {**state.settled, happened.correction_id: happened})
    if happened.correction_id in state.corrected:
        raise KeyError("corrected twice")
    return State({**state.corrected, happened.correction_id: happened}, state.settled)


def state_of(recorded: Iterable[Recorded]) -> State:
    """From a stream; of what was erased, the values are not shown any longer."""
    state = State()
    for happened in recorded:
        told = happened.event
        if happened.erased:
            told = replace(told, old="", new="")
        state = evolve(state, told)
    return state


def decide_correct(
    state: State, wanted: RecordCorrected, layout_key: str
) -> tuple[RecordCorrected] | Refusal:
    """Correct one item. I-252 for a value that the item cannot have, I-253 where it says so already.

    `wanted.old` is what the record says with all earlier corrections of this agency; the same correction
    again (by its id) is I-253, too.
    """
    if wanted.correction_id in state.corrected or wanted.new == wanted.old:
        return Refusal("I-253")
    return Refusal("I-252", wanted.item) if not _fits(wanted.item, wanted.new, layout_key) else (wanted,)


def _fits(item: str, new: str, layout_key: str) -> bool:
    if item not in ITEMS or not new.isprintable():
        return False
    if item in ("requested_at", "provided_at"):
        try:
            return datetime.fromisoformat(new).tzinfo is not None
        except ValueError:
            return False
    if item == "non_disclosure":
        return new in (YES, NO)
    if item == "items":
        codes = new.split(" ")
        return len(set(codes)) == len(codes) and set(codes) <= {
            leaf.code for leaf in layout(layout_key).leaves
        }
    return 0 < len(new.strip()) <= TEXT_CHARACTERS


def text(value: Any) -> str:
    """A value of a record as a correction writes it: item codes with a space between, yes or no, or text."""
    if isinstance(value, bool):
        return YES if value else NO
    return value if isinstance(value, str) else " ".join(value)


def now_said(original: Any, item: str, corrections: Sequence[Correction]) -> str:
    """What a record says now: the last of our own corrections, or what it said at first."""
    own = [each.new for each in corrections if each.item == item and not each.by]
    return own[-1] if own else text(original)


def decide_settle(state: State, settled: CorrectionSettled) -> tuple[CorrectionSettled, ...]:
    """The network's word on a notice; again, it changes nothing."""
    known = state.corrected.get(settled.correction_id)
    if not isinstance(known, RecordCorrected) or settled.correction_id in state.settled:
        return ()
    return (settled,)


def decide_receive(state: State, received: CorrectionReceived, persons: int) -> tuple[Any, ...] | Refusal:
    """Take the other party's notice in beside our record, which has so many `persons` (0: we have none).

    L-305 for an item that no record has, L-107 for a person whom the exchange is not about.
    """
    if received.item not in ITEMS:
        return Refusal("L-305", "item")
    if received.subject < 0 or (persons and received.subject >= persons):
        return Refusal("L-107", "subject")
    return () if received.correction_id in state.corrected else (received,)


def decide_request(
    kind: str, quality: str, identity: str, entitlement: str, *, protected: bool
) -> Refusal | None:
    """May what somebody asks about a person's records be done? None where nothing bars it.

    I-256 for a stop of use and I-257 for a transfer, whoever asks; I-254 where it was not checked who asks
    and in which quality; I-255 for a representative of a `protected` person.
    """
    if kind == STOP_OF_USE:
        return Refusal("I-256")
    if kind == TRANSFER:
        return Refusal("I-257")
    shown = ENTITLEMENT[entitlement][1] if entitlement in ENTITLEMENT else "" if entitlement else PERSON
    if identity not in IDENTITY or shown != quality:
        return Refusal("I-254")
    if protected and quality != PERSON:
        return Refusal("I-255")
    return None
