"""Checkpoints as signed notes (C2SP tlog-checkpoint and signed-note, signature type 0x01: Ed25519)."""

from base64 import b64decode, b64encode
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_ED25519 = b"\x01"


class NoteInvalid(Exception):
    """A note is malformed, or none of its signatures is by the expected key."""


@dataclass(frozen=True)
class Checkpoint:
    """What a log says of itself: its origin, how many leaves it has, and the root over them."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"


def _key_hash(name: str, key: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + _ED25519 + key).digest()[:4]


class NoteSigner:
    """Signs notes under one name. The private key is 32 raw bytes of Ed25519."""

    def __init__(self, name: str, private_key: bytes) -> None:
        self.name = name
        self._key = Ed25519PrivateKey.from_private_bytes(private_key)
        public = self._key.public_key().public_bytes_raw()
        self._hash = _key_hash(name, public)
        self.verifier_key = f"{name}+{self._hash.hex()}+{b64encode(_ED25519 + public).decode()}"

    def sign(self, text: str) -> str:
        signature = b64encode(self._hash + self._key.sign(text.encode())).decode()
        return f"{text}\n— {self.name} {signature}\n"


class NoteVerifier:
    """Checks notes against one verifier key (vkey) of the form name+hash+key. Raises NoteInvalid."""

    def __init__(self, verifier_key: str) -> None:
        try:
            self.name, key_hash, key = verifier_key.strip().split("+", 2)
            raw = b64decode(key, validate=True)
        except ValueError as error:
            raise NoteInvalid("the verifier key is malformed") from error
        if raw[:1] != _ED25519 or len(raw) != 33 or _key_hash(self.name, raw[1:]).hex() != key_hash:
            raise NoteInvalid("the verifier key is not an Ed25519 key of its name")
        self._hash = bytes.fromhex(key_hash)
        self._key = Ed25519PublicKey.from_public_bytes(raw[1:])

    def open(self, note: str) -> str:
        """The signed text of a note. Unknown signatures beside ours are allowed, as the format says."""
        text, mark, signatures = note.rpartition("\n\n")
        if not mark or not signatures.endswith("\n"):
            raise NoteInvalid("the note has no signatures")
        text += "\n"
        for line in signatures[:-1].split("\n"):
            dash, _, rest = line.partition(" ")
            name, _, encoded = rest.partition(" ")
            if dash != "—" or not name or not encoded:
                raise NoteInvalid("a signature line is malformed")
            if name != self.name:
                continue
            try:
                signature = b64decode(encoded, validate=True)
            except ValueError as error:
                raise NoteInvalid("a signature line is malformed") from error
            if signature[:4] != self._hash:
                continue
            try:
                self._key.verify(signature[4:], text.encode())
            except (InvalidSignature, UnicodeEncodeError) as error:
                raise NoteInvalid("the signature does not fit the note") from error
            return text
        raise NoteInvalid(f"no signature by {self.name}")

    def checkpoint(self, note: str) -> Checkpoint:
        lines = self.open(note).split("\n")
        if len(lines) < 4:
            raise NoteInvalid("the checkpoint is too short")
        origin, size, root = lines[:3]
        if not (size.isascii() and size.isdecimal()) or (size != "0" and size.startswith("0")):
            raise NoteInvalid("the size of the checkpoint is not a number")
        try:
            return Checkpoint(origin, int(size), b64decode(root, validate=True))
        except ValueError as error:
            raise NoteInvalid("the root of the checkpoint is malformed") from error
