"""Checkpoints as signed notes, and the cosignatures on them.

The formats are those of C2SP: signed-note, tlog-checkpoint and tlog-cosignature. A note is a text and the
signature lines under it; a reader believes those of the keys they know and passes over all others.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

MAX_SIGNATURES = 64
_LATEST = (1 << 63) - 1  # of sizes and of POSIX times
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


class NoteInvalid(Exception):
    """A note is malformed, or a signature that it should have is missing or false."""


class Kind(IntEnum):
    """What a key signs: the note itself, or a statement with a time about the checkpoint in it."""

    ED25519 = 0x01
    COSIGNATURE = 0x04  # Ed25519 over time and note
    ML_DSA_44 = 0x06  # ML-DSA-44 over signer, time, origin, size and root


@dataclass(frozen=True)
class Checkpoint:
    """What a log says of itself: its origin, how many leaves it has, and the root over them."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"

    @classmethod
    def read(cls, text: str) -> Self:
        """Extension lines are allowed and passed over, as the format says. Raises NoteInvalid."""
        lines = text.split("\n")
        if len(lines) < 4 or lines.pop() or not all(lines):
            raise NoteInvalid("the checkpoint lacks a line")
        try:
            checkpoint = cls(lines[0], decimal(lines[1]), decode(lines[2]))
        except ValueError as error:
            raise NoteInvalid("the size or the root of the checkpoint is malformed") from error
        if len(checkpoint.root) != sha256().digest_size:
            raise NoteInvalid("the root of the checkpoint is no SHA-256 hash")
        return checkpoint


@dataclass(frozen=True)
class Signed:
    """One valid signature: whose, of which kind, and the POSIX time that it states (0: none)."""

    name: str
    kind: Kind
    time: int


def decode(encoded: str) -> bytes:
    """Base64 in its one canonical form: no byte of a proof can change unnoticed. Raises ValueError."""
    raw = b64decode(encoded, validate=True)
    if b64encode(raw).decode() != encoded:
        raise ValueError("base64 that is not canonical")
    return raw


def decimal(text: str) -> int:
    """An ASCII decimal without leading zeroes, up to 2**63 - 1. Raises ValueError."""
    if not (text.isascii() and text.isdecimal()) or len(text) > 19 or (text[0] == "0" and text != "0"):
        raise ValueError("not a decimal")
    if int(text) > _LATEST:
        raise ValueError("a decimal beyond 63 bits")
    return int(text)


def parts(note: str) -> tuple[str, list[str]]:
    """The text of a note and its signature lines, neither of them checked. Raises NoteInvalid."""
    text, mark, signatures = note.rpartition("\n\n")
    if not mark or not signatures.endswith("\n"):
        raise NoteInvalid("the note has no signatures")
    if _CONTROL.search(note):
        raise NoteInvalid("there is a control character in the note")
    lines = signatures[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise NoteInvalid("the note has too many signatures")
    return text + "\n", lines


def signer_of(line: str) -> tuple[str, bytes, bytes]:
    """Key name, key id and signature of a signature line. Raises NoteInvalid."""
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    try:
        raw = decode(encoded)
    except ValueError as error:
        raise NoteInvalid("a signature line is malformed") from error
    if dash != "—" or not _is_name(name) or len(raw) < 5:
        raise NoteInvalid("a signature line is malformed")
    return name, raw[:4], raw[4:]


def with_signatures(note: str, lines: Sequence[str]) -> str:
    """The note with these signature lines added under its own."""
    return note + "".join(f"{line}\n" for line in lines)


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(character.isspace() for character in name)


def _key_id(name: str, kind: Kind, public: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:4]


def _message(kind: Kind, name: str, text: str, time: int) -> bytes:
    """The bytes that a key signs. Raises NoteInvalid for a text that this kind cannot sign."""
    if kind is Kind.ED25519:
        return text.encode()
    checkpoint = Checkpoint.read(text)
    if kind is Kind.COSIGNATURE:
        return f"cosignature/v1\ntime {time}\n{text}".encode()
    if checkpoint.text() != text:
        raise NoteInvalid("a signature by ML-DSA-44 does not cover extension lines")
    signer, origin = _opaque(name), _opaque(checkpoint.origin)
    start, end = bytes(8), checkpoint.size.to_bytes(8)
    return b"subtree/v1\n\0" + signer + time.to_bytes(8) + origin + start + end + checkpoint.root


def _opaque(text: str) -> bytes:
    raw = text.encode()
    if not 0 < len(raw) < 256:
        raise NoteInvalid("a name is too long to be signed")
    return bytes([len(raw)]) + raw


class NoteSigner:
    """Signs under one name with one key; the private key is 32 raw bytes (of ML-DSA-44, its seed)."""

    def __init__(self, name: str, private_key: bytes, kind: Kind = Kind.ED25519) -> None:
        self.name = name
        self.kind = kind
        self._key: Ed25519PrivateKey | MLDSA44PrivateKey = (
            MLDSA44PrivateKey.from_seed_bytes(private_key)
            if kind is Kind.ML_DSA_44
            else Ed25519PrivateKey.from_private_bytes(private_key)
        )
        public = self._key.public_key().public_bytes_raw()
        self.key_id = _key_id(name, kind, public)
        self.verifier_key = f"{name}+{self.key_id.hex()}+{b64encode(bytes([kind]) + public).decode()}"

    def line(self, text: str, time: int = 0) -> str:
        """The signature line, without its end, under a text; `time` is stated by cosignatures alone."""
        signature = self._key.sign(_message(self.kind, self.name, text, time))
        stated = b"" if self.kind is Kind.ED25519 else time.to_bytes(8)
        return f"— {self.name} {b64encode(self.key_id + stated + signature).decode()}"

    def sign(self, text: str, time: int = 0) -> str:
        """The whole note."""
        return f"{text}\n{self.line(text, time)}\n"


class NoteVerifier:
    """Checks notes against one verifier key (vkey) of the form name+id+key. Raises NoteInvalid."""

    def __init__(self, verifier_key: str) -> None:
        try:
            self.name, key_id, key = verifier_key.strip().split("+", 2)
            raw = decode(key)
            self.kind = Kind(raw[0])
            self._key: Ed25519PublicKey | MLDSA44PublicKey = (
                MLDSA44PublicKey.from_public_bytes(raw[1:])
                if self.kind is Kind.ML_DSA_44
                else Ed25519PublicKey.from_public_bytes(raw[1:])
            )
            self.key_id = _key_id(self.name, self.kind, raw[1:])
        except (ValueError, IndexError) as error:
            raise NoteInvalid("the verifier key is malformed") from error
        if not _is_name(self.name) or self.key_id.hex() != key_id:
            raise NoteInvalid("the verifier key does not fit its name")

    def check(self, text: str, signature: bytes) -> Signed:
        """Check a signature that carries this key's name and id."""
        time = 0
        if self.kind is not Kind.ED25519:
            time, signature = int.from_bytes(signature[:8]), signature[8:]
            if time > _LATEST:
                raise NoteInvalid("the time of a cosignature is out of range")
        try:
            self._key.verify(signature, _message(self.kind, self.name, text, time))
        except (InvalidSignature, UnicodeEncodeError) as error:
            raise NoteInvalid(f"the signature by {self.name} does not fit the note") from error
        return Signed(self.name, self.kind, time)

    def open(self, note: str) -> str:
        """The signed text of a note."""
        return open_note(note, [self])[0]

    def checkpoint(self, note: str) -> Checkpoint:
        return Checkpoint.read(self.open(note))


def open_note(note: str, verifiers: Sequence[NoteVerifier]) -> tuple[str, tuple[Signed, ...]]:
    """The text of a note, and who of the known signed it.

    Raises NoteInvalid where a signature by a known key is false, or none is there.
    """
    text, lines = parts(note)
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    signed = []
    for line in lines:
        name, key_id, signature = signer_of(line)
        if verifier := known.get((name, key_id)):
            signed.append(verifier.check(text, signature))
    if not signed:
        raise NoteInvalid(f"no signature by {', '.join(verifier.name for verifier in verifiers)}")
    return text, tuple(signed)
