"""What two linkage interfaces and the network say to each other.

A message is a control part in clear and a business part sealed end to end (R-044 to R-047). The control part
suffices to route, authorise and log. The bytes that were sent are kept and checked as they are: nothing is
decoded and encoded again before a signature is verified. Link codes are in neither part of the sender: they
travel beside the message to the network alone, which puts the receiver's own codes into the permit or
delivery note (Order art. 26(1), 27(5): codes of two agencies never meet).
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from typing import Any, TypeVar

import msgpack

VERSION = 1


class Malformed(Exception):
    """Bytes that are not the message they should be. The text names the item, never its value."""


@dataclass(frozen=True)
class InquiryControl:
    """Control part of an inquiry (Order art. 20, ordinance art. 40(2)).

    `office` is the organisation in charge of the affair, `official_role` the role of the person acting,
    `items` the item codes asked for, `subjects` the number of persons, `non_disclosure` the flag of
    Act art. 23(2), `signer` the SHA-256 of the certificate whose key signed.
    """

    message_id: str
    inquirer: str
    office: str
    official_role: str
    provider: str
    law_version: str
    law_row: str
    information: str
    layout: str
    items: tuple[str, ...]
    subjects: int
    requested_at: str
    non_disclosure: bool
    signer: str


@dataclass(frozen=True)
class AnswerControl:
    """Control part of an answer (Order art. 29, ordinance art. 46); `code` is "" for a provision."""

    message_id: str
    in_reply_to: str
    processing_number: str
    inquirer: str
    provider: str
    office: str
    official_role: str
    code: str
    subjects: int
    answered_at: str
    non_disclosure: bool
    signer: str


@dataclass(frozen=True)
class Permit:
    """The network's notice to the provider that an inquiry was made (Act art. 21(2), ordinance art. 41).

    `link_codes` are the provider's own codes of the persons, in the order of the sealed part.
    """

    processing_number: str
    message_id: str
    inquirer: str
    provider: str
    law_version: str
    law_row: str
    information: str
    items: tuple[str, ...]
    issued_at: str
    valid_until: str
    link_codes: tuple[str, ...]


@dataclass(frozen=True)
class InquirySubject:
    """One person of an inquiry, inside the sealed part. `guard` is the salted digest of R-086."""

    guard_salt: bytes
    guard: bytes
    fiscal_year: str


@dataclass(frozen=True)
class AnswerSubject:
    """What is said about one person, inside the sealed part: a payload, or the code of a refusal."""

    code: str
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class Envelope:
    """Control part, sealed part and signature, each exactly as made by the sender."""

    control: bytes
    sealed: bytes
    signature: bytes


@dataclass(frozen=True)
class Delivery:
    """An item of a mailbox: an envelope with the network's note and its signature.

    `note` is a Permit before an inquiry, and a DeliveryNote before an answer.
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
class NetworkVerdict:
    """What the network says at once about a submitted message. `code` is "" where it goes on its way."""

    message_id: str
    processing_number: str
    code: str
    decided_at: str
    valid_until: str


M = TypeVar("M")


def encode(message: Any) -> bytes:
    """A control part or note as bytes: a map of its fields with its kind and version."""
    packed: bytes = msgpack.packb(
        {"kind": type(message).__name__, "version": VERSION, **asdict(message)}, use_bin_type=True
    )
    return packed


def decode(kind: type[M], data: bytes) -> M:
    """Strict: an unknown, missing or wrongly typed item raises Malformed."""
    values = _map(data)
    if values.pop("kind", None) != kind.__name__ or values.pop("version", None) != VERSION:
        raise Malformed(f"not a {kind.__name__} of version {VERSION}")
    return build(kind, values)


def build(kind: type[M], values: Mapping[str, Any]) -> M:
    """Make a message part from a map, checking names and types."""
    known = {f.name: str(f.type) for f in fields(kind)}  # type: ignore[arg-type] # every kind is a dataclass
    if set(known) != set(values):
        wrong = sorted(map(ascii, set(known) ^ set(values)))  # a name may be bytes: msgpack allows it
        raise Malformed(f"{kind.__name__}: unexpected or missing {', '.join(wrong)}")
    for name, wanted in known.items():
        if not _CHECKS[_type_name(wanted)](values[name]):
            raise Malformed(f"{kind.__name__}: {name} has the wrong type")
    return kind(**values)


def _type_name(annotation: str) -> str:
    return annotation.removeprefix("<class '").removesuffix("'>")


def _texts(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(text, str) for text in value)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "bool": lambda value: isinstance(value, bool),
    "bytes": lambda value: isinstance(value, bytes),
    "tuple[str, ...]": _texts,
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


def encode_business(salt: bytes, control: bytes, subjects: tuple[Any, ...]) -> bytes:
    """The business part: 32 random bytes, the digest of the control part it belongs to, and the subjects.

    The salt keeps anyone from testing guesses of the content against the signature, which travels in clear.
    """
    packed: bytes = msgpack.packb(
        {"salt": salt, "control": sha256(control).digest(), "subjects": [asdict(s) for s in subjects]}
    )
    return packed


@dataclass(frozen=True)
class Business:
    """An opened business part, subjects not yet read."""

    salt: bytes
    control: bytes
    subjects: tuple[Mapping[str, Any], ...]


def decode_business(data: bytes) -> Business:
    """Raises Malformed."""
    values = _map(data)
    subjects = values.get("subjects")
    if set(values) != {"salt", "control", "subjects"} or not isinstance(subjects, tuple):
        raise Malformed("not a business part")
    if not all(isinstance(subject, dict) for subject in subjects):
        raise Malformed("a subject is not a map")
    return Business(values["salt"], values["control"], subjects)


def signed_bytes(control: bytes, business: bytes) -> bytes:
    """What a signature covers: both parts with their lengths (the pre-authentication encoding of DSSE)."""
    parts = (b"renkei/message/1", control, business)
    return b"DSSEv1" + b"".join(b" %d %b" % (len(part), part) for part in parts)


def pack(*parts: Any) -> bytes:
    """Transport form of batches: msgpack of maps and lists; dataclasses become maps."""
    packed: bytes = msgpack.packb(parts if len(parts) != 1 else parts[0], default=asdict)
    return packed


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
    law_version: str
    law_row: str
    information: str
    layout: str
    items: tuple[str, ...]
    requested_at: str
    non_disclosure: bool
    link_codes: tuple[str, ...]
    subjects: tuple[InquirySubject, ...]


@dataclass(frozen=True)
class AnswerRequest:
    """What the intermediate interface of the provider hands to its linkage interface to send (R-070)."""

    message_id: str
    in_reply_to: str
    processing_number: str
    inquirer: str
    office: str
    official_role: str
    law_version: str
    law_row: str
    information: str
    code: str
    answered_at: str
    non_disclosure: bool
    link_codes: tuple[str, ...]
    subjects: tuple[AnswerSubject, ...]


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
