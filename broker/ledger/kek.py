"""The key-encryption key: what wraps the data keys of a vault. A file here; an HSM would be another one."""

import os
import secrets
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from broker.ledger import files


class VaultLocked(Exception):
    """The key-encryption key is not there, or does not open this vault."""


class VaultExposed(Exception):
    """Others than the owner may read the key-encryption key."""


class KeyEncryptionKey(Protocol):
    """What wraps data keys. Its id tells it from others and nothing about it; an HSM never gives it out."""

    @property
    def id(self) -> str: ...
    def wrap(self, raw: bytes) -> bytes: ...
    def unwrap(self, wrapped: bytes) -> bytes: ...  # raises VaultLocked for what another key wrapped


class KeyEncryptionKeys(Protocol):
    """Where key-encryption keys are kept. The vault lets one process in at a time."""

    def first(self) -> KeyEncryptionKey: ...  # for a new vault: the one that is there already, or a new one
    def make(self) -> KeyEncryptionKey: ...  # a durable one, beside the present one; earlier tries may go
    def find(self, kek_id: str) -> KeyEncryptionKey: ...  # raises VaultLocked, VaultExposed
    def keep(self, kek_id: str) -> None: ...  # this one stays, every other one is removed for good


@dataclass(frozen=True)
class FileKey:
    """A key-encryption key of 32 bytes held in memory (AES key wrap, RFC 3394)."""

    id: str
    _raw: bytes

    def __repr__(self) -> str:
        return f"FileKey({self.id})"

    def wrap(self, raw: bytes) -> bytes:
        return aes_key_wrap(self._raw, raw)

    def unwrap(self, wrapped: bytes) -> bytes:
        try:
            return aes_key_unwrap(self._raw, wrapped)
        except InvalidUnwrap as error:
            raise VaultLocked("the key-encryption key does not open this vault") from error


class FileKeys:
    """The key-encryption key in the file `kek`; during a rotation the next one is in `kek.new`."""

    def __init__(self, folder: Path) -> None:
        self._present, self._next = folder / "kek", folder / "kek.new"

    def first(self) -> FileKey:
        return self._read(self._present) or self.make()

    def make(self) -> FileKey:
        self._next.unlink(missing_ok=True)
        raw = secrets.token_bytes(32)
        files.create_private_file(self._next, raw)
        return _file_key(raw)

    def find(self, kek_id: str) -> FileKey:
        for path in (self._present, self._next):
            found = self._read(path)
            if found is not None and found.id == kek_id:
                return found
        raise VaultLocked(f"{self._present}: the key-encryption key {kek_id} of this vault is not there")

    def keep(self, kek_id: str) -> None:
        following = self._read(self._next)
        if following is not None and following.id == kek_id:
            if self._present.exists():
                files.overwrite(self._present)
            self._next.replace(self._present)
            files.sync(self._present.parent)
        # Not overwritten: what a crash left of writing a key may be a second name of the file that is kept.
        for other in self._present.parent.glob(f"{self._next.name}*"):
            other.unlink()

    def _read(self, path: Path) -> FileKey | None:
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise VaultExposed(f"{path}: chmod 600")
                return _file_key(file.read())
        except FileNotFoundError:
            return None


def _file_key(raw: bytes) -> FileKey:
    return FileKey(sha256(b"renkei key-encryption key\n" + raw).hexdigest()[:16], raw)
