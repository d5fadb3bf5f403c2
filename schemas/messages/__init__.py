"""What two linkage interfaces and the network say to each other.

A message is a control part in clear and a business part sealed end to end (R-044 to R-047). The control part
suffices to route, authorise and log. The business part is a list of records, each in its own bytes and with
its own salt; the control part holds the head of the Merkle tree over them (RFC 9162), so that the signature
of the control part covers every record, and one record can be shown and proved without the others. The bytes
that were sent are kept and checked as they are: nothing is decoded and encoded again before a signature is
verified. Link codes are in neither part of the sender: they travel beside the message to the network alone,
which puts the receiver's own codes into its note (Order art. 26(1), 27(5): codes of two agencies never meet).

The kinds of message are "inquiry", "answer", and those of LETTERS (連絡 and what goes with an exchange).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

import msgpack

VERSION = 2
SALT = 16
MAX_RECORDS = 5_000
"""Records of one message: what one inquiry from a file may ask at a time."""

LETTERS = ("notice", "receipt", "withdrawal", "acquisition_request", "correction")
"""Kinds of letter: an authority's notice and its receipt, the withdrawal of an inquiry (取りやめ), the
request to acquire a link code (Order art. 26(3)), and the notice of a corrected provision record (R-161)."""


class Malformed(Exception):
    """Bytes that are not the message they should be. The text names the item, never its value."""


@dataclass(frozen=True)
class InquiryControl:
    """Control part of an inquiry (Order art. 20, ordinance art. 40(2)).

    `office` is the organisation in charge of the affair, `official_role` the role of the person acting.
    `basis` is the item of Act art. 19 that permits it ("19-8", or "19-9" for an affair of an ordinance), and
    `law_row` the row of its table. `items` are the item codes asked for. `units` says how many persons stand
    together in each question: (1,) for one person, (3,) for a household of three, (1, 1, 3, ...) for a file;
    a unit is answered as a whole or not at all, and units do not wait for each other. `root` is the head of
    the tree over the records (one for each person), `non_disclosure` the flag of Act art. 23(2), `signer` the
    SHA-256 of the certificate whose key signed.
    """

    message_id: str
    inquirer: str
    office: str
    official_role: str
    provider: str
    basis: str
    law_version: str
    law_row: str
    information: str
    layout: str
    items: tuple[str, ...]
    units: tuple[int, ...]
    root: bytes
    requested_at: str
    non_disclosure: bool
    signer: str


@dataclass(frozen=True)
class AnswerControl:
    """Control part of an answer (Order art. 29, ordinance art. 46).

    `code` is "" for a provision; with a code nothing is provided about any of the persons. `persons` are the
    places (from 0) of those whom it answers about, among the persons of the inquiry: whole units, each once.
    """

    message_id: str
    in_reply_to: str
    processing_number: str
    inquirer: str
    provider: str
    office: str
    official_role: str
    code: str
    persons: tuple[int, ...]
    subjects: int
    root: bytes
    answered_at: str
    non_disclosure: bool
    signer: str


@dataclass(frozen=True)
class LetterControl:
    """Control part of a letter: `kind` is one of LETTERS, `to_office` the office that it is for (R-088).

    `processing_number` names the exchange that it is about ("" for none). A letter that says something about
    persons rests on a row of the law table, as an answer does; for others `law_row` is "". `letter_to` is the
    message that a receipt replies to.
    """

    message_id: str
    kind: str
    sender: str
    office: str
    official_role: str
    receiver: str
    to_office: str
    processing_number: str
    letter_to: str
    law_version: str
    law_row: str
    information: str
    subjects: int
    root: bytes
    sent_at: str
    signer: str


@dataclass(frozen=True)
class Permit:
    """The network's notice to the provider that an inquiry was made (Act art. 21(2), ordinance art. 41).

    `link_codes` are the provider's own codes of the persons, in the order of the sealed part. Where `codes`
    has a code of the catalogue for a person, the network did not permit this one, and the link code is "".
    """

    processing_number: str
    message_id: str
    inquirer: str
    provider: str
    basis: str
    law_version: str
    law_row: str
    information: str
    items: tuple[str, ...]
    issued_at: str
    valid_until: str
    codes: tuple[str, ...]
    link_codes: tuple[str, ...]


@dataclass(frozen=True)
class InquirySubject:
    """One person of an inquiry, inside the sealed part. `guard` is the salted digest of R-086."""

    guard_salt: bytes
    guard: bytes
    fiscal_year: str


@dataclass(frozen=True)
class AnswerSubject:
    """What is said about one person, inside the sealed part: a payload, or the code of a refusal.

    `omitted` are items that were asked for and are not provided, whatever the reason: without it the lack of
    an item means that there is none.
    """

    code: str
    payload: Mapping[str, Any]
    omitted: tuple[str, ...] = ()


@dataclass(frozen=True)
class LetterBody:
    """What a letter says about one person, or at all, inside the sealed part; its kind tells the items."""

    content: Mapping[str, Any]


@dataclass(frozen=True)
class Envelope:
    """Control part, sealed part and signature, each exactly as made by the sender."""

    control: bytes
    sealed: bytes
    signature: bytes


@dataclass(frozen=True)
class Delivery:
    """An item of a mailbox: an envelope with the network's note and its signature.

    `note` is a Permit before an inquiry, a DeliveryNote before an answer, and a LetterNote before a letter.
    """

    position: int
    kind: str
    note: bytes
    note_signature: bytes
    envelope: Envelope


@dataclass(frozen=True)
class DeliveryNote:
    """The network's note on an answer, for the inquirer: which exchange, and the inquirer's own codes."""

    processing_number: str
    message_id: str
    in_reply_to: str
    inquirer: str
    provider: str
    relayed_at: str
    link_codes: tuple[str, ...]


@dataclass(frozen=True)
class LetterNote:
    """The network's note on a letter, for its receiver: the receiver's own codes of the persons."""

    message_id: str
    kind: str
    sender: str
    receiver: str
    processing_number: str
    relayed_at: str
    link_codes: tuple[str, ...]


@dataclass(frozen=True)
class NetworkVerdict:
    """What the network says at once about a submitted message. `code` is "" where it goes on its way.

    `codes` has for each person of an inquiry why the network did not permit this one, or "".
    """

    message_id: str
    processing_number: str
    code: str
    decided_at: str
    valid_until: str
    codes: tuple[str, ...]


M = TypeVar("M")


def encode(message: Any) -> bytes:
    """A control part or note as bytes: a map of its fields with the name and version of its form."""
    packed: bytes = msgpack.packb(
        {"message": type(message).__name__, "version": VERSION, **vars(message)}, use_bin_type=True
    )
    return packed


def decode(kind: type[M], data: bytes) -> M:
    """Strict: an unknown, missing or wrongly typed item raises Malformed."""
    values = _map(data)
    if values.pop("message", None) != kind.__name__ or values.pop("version", None) != VERSION:
        raise Malformed(f"not a {kind.__name__} of version {VERSION}")
    return build(kind, values)


def build(kind: type[M], values: Mapping[str, Any]) -> M:
    """Make a message part from a map, checking names and types."""
    checks = _checks(kind)  # type: ignore[arg-type] # a class can be hashed
    if checks.keys() != values.keys():
        wrong = sorted(map(ascii, checks.keys() ^ values.keys()))  # a name may be bytes: msgpack allows it
        raise Malformed(f"{kind.__name__}: unexpected or missing {', '.join(wrong)}")
    for name, fits in checks.items():
        if not fits(values[name]):
            raise Malformed(f"{kind.__name__}: {name} has the wrong type")
    return kind(**values)


@cache
def _checks(kind: type[Any]) -> Mapping[str, Callable[[Any], bool]]:
    """How the type of each item is checked."""
    return {f.name: _CHECKS[_type_name(str(f.type))] for f in fields(kind)}


def _type_name(annotation: str) -> str:
    return annotation.removeprefix("<class '").removesuffix("'>")


def _texts(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(text, str) for text in value)


def _numbers(value: Any) -> bool:
    return isinstance(value, tuple) and all(type(number) is int for number in value)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "bool": lambda value: isinstance(value, bool),
    "bytes": lambda value: isinstance(value, bytes),
    "tuple[str, ...]": _texts,
    "tuple[int, ...]": _numbers,
    "collections.abc.Mapping[str, typing.Any]": lambda value: isinstance(value, dict),
}


def _map(data: bytes) -> dict[str, Any]:
    try:
        values = msgpack.unpackb(data, use_list=False, strict_map_key=True)
    except (ValueError, TypeError, RecursionError) as error:
        raise Malformed("not msgpack") from error
    if not isinstance(values, dict):
        raise Malformed("not a map")
    return values


def encode_record(salt: bytes, record: Any) -> bytes:
    """One record of a business part. The salt keeps anyone from testing guesses of it against the signature,
    which travels in clear."""
    packed: bytes = msgpack.packb({"salt": salt, **vars(record)})
    return packed


def decode_record(kind: type[M], data: bytes) -> M:
    """Raises Malformed."""
    values = _map(data)
    if not isinstance(values.pop("salt", None), bytes):
        raise Malformed("a record without salt")
    return build(kind, values)


def encode_business(records: Sequence[bytes]) -> bytes:
    """The business part: the records in their bytes."""
    packed: bytes = msgpack.packb(list(records))
    return packed


def decode_business(data: bytes) -> tuple[bytes, ...]:
    """Raises Malformed."""
    records = unpack(data)
    if not isinstance(records, tuple) or not all(isinstance(record, bytes) for record in records):
        raise Malformed("not a business part")
    return records


def signed_bytes(control: bytes) -> bytes:
    """What a signature covers: the control part with its length (the pre-authentication encoding of DSSE).

    The control part holds the head of the tree over the records.
    """
    parts = (b"renkei/message/2", control)
    return b"DSSEv1" + b"".join(b" %d %b" % (len(part), part) for part in parts)


def pack(*parts: Any) -> bytes:
    """Transport form of batches: msgpack of maps and lists; dataclasses become maps."""
    packed: bytes = msgpack.packb(parts if len(parts) != 1 else parts[0], default=_items)
    return packed


def _items(value: Any) -> dict[str, Any]:
    """Of a dataclass; those in it come here in their turn."""
    if not is_dataclass(value):
        raise TypeError(f"{type(value).__name__} has no transport form")
    return vars(value)


def unpack(data: bytes) -> Any:
    """Raises Malformed."""
    try:
        return msgpack.unpackb(data, use_list=False, strict_map_key=True)
    except (ValueError, TypeError, RecursionError) as error:
        raise Malformed("not msgpack") from error


def delivery_from(values: Mapping[str, Any]) -> Delivery:
    """Raises Malformed."""
    try:
        return Delivery(
            values["position"],
            values["kind"],
            values["note"],
            values["note_signature"],
            build(Envelope, values["envelope"]),
        )
    except (KeyError, TypeError) as error:
        raise Malformed("not a delivery") from error


@dataclass(frozen=True)
class InquiryRequest:
    """What the intermediate interface hands to the linkage interface to send (R-069).

    `link_codes` are the inquirer's own codes, one for each subject.
    """

    message_id: str
    office: str
    official_role: str
    provider: str
    basis: str
    law_version: str
    law_row: str
    information: str
    layout: str
    items: tuple[str, ...]
    units: tuple[int, ...]
    requested_at: str
    non_disclosure: bool
    link_codes: tuple[str, ...]
    subjects: tuple[InquirySubject, ...]


@dataclass(frozen=True)
class AnswerRequest:
    """What the intermediate interface of the provider hands to its linkage interface to send (R-070).

    The law of the day on which it was asked (`requested_at`) decides on the answer, too. `subjects` are about
    `persons`, in that order; with a `code` there are none. `link_codes` are the
    provider's own codes of `persons`, converted from their numbers (R-111).
    """

    message_id: str
    in_reply_to: str
    processing_number: str
    inquirer: str
    office: str
    official_role: str
    basis: str
    law_version: str
    law_row: str
    information: str
    requested_at: str
    code: str
    persons: tuple[int, ...]
    answered_at: str
    non_disclosure: bool
    link_codes: tuple[str, ...]
    subjects: tuple[AnswerSubject, ...]


@dataclass(frozen=True)
class LetterRequest:
    """What the intermediate interface hands to the linkage interface to send as a letter.

    `link_codes` are the sender's own codes of the persons that `bodies` speak about, or none.
    """

    message_id: str
    kind: str
    office: str
    official_role: str
    receiver: str
    to_office: str
    processing_number: str
    letter_to: str
    law_version: str
    law_row: str
    information: str
    sent_at: str
    link_codes: tuple[str, ...]
    bodies: tuple[LetterBody, ...]


@dataclass(frozen=True)
class ReceivedInquiry:
    """An inquiry that passed every check of the linkage interface."""

    permit: Permit
    control: InquiryControl
    subjects: tuple[InquirySubject, ...]


@dataclass(frozen=True)
class ReceivedAnswer:
    """An answer that passed every check of the linkage interface."""

    note: DeliveryNote
    control: AnswerControl
    subjects: tuple[AnswerSubject, ...]


@dataclass(frozen=True)
class ReceivedLetter:
    """A letter that passed every check of the linkage interface; `note` has our own codes of the persons."""

    note: LetterNote
    control: LetterControl
    bodies: tuple[LetterBody, ...]
