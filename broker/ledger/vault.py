"""The key vault: data keys wrapped by a key-encryption key, apart from the ledger that they seal.

Files: `kek` (32 bytes, mode 0600) and `vault.sqlite` (wrapped keys). A key is durable before the first
event sealed with it is written, so a crash leaves at worst a key without events.
"""

import os
import secrets
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import sha256
from hmac import digest
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

_NONCE = 12
_CACHED_KEYS = 65_536


class KeyMissing(Exception):
    """The vault does not hold the key that sealed this."""


class SealBroken(Exception):
    """The sealed bytes were changed, or moved from the place they were sealed for."""


class VaultLocked(Exception):
    """The key-encryption key does not open this vault."""


def create_private_file(path: Path, content: bytes) -> None:
    """Write a new file that only its owner may read, whole and durable when this returns.

    Raises FileExistsError rather than replace a file. A crash leaves at worst a temporary file beside it.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    finally:
        temporary.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Vault:
    """Seals and opens under named keys, and makes blind indexes. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        kek_file = folder / "kek"
        if not kek_file.exists():
            with suppress(FileExistsError):  # another process was first: its key is the key
                create_private_file(kek_file, secrets.token_bytes(32))
        self._kek = kek_file.read_bytes()
        self._lock = threading.Lock()
        self._keys: OrderedDict[str, AESGCM] = OrderedDict()
        path = folder / "vault.sqlite"
        if not path.exists():
            with suppress(FileExistsError):
                create_private_file(path, b"")
        self._rows = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._rows.execute("PRAGMA journal_mode=DELETE")
        self._rows.execute("PRAGMA synchronous=FULL")
        self._rows.execute("PRAGMA secure_delete=ON")
        self._rows.execute(
            "CREATE TABLE IF NOT EXISTS key (id TEXT PRIMARY KEY, wrapped BLOB NOT NULL) WITHOUT ROWID"
        )
        try:
            self._blind_key = self.secret("blind", lambda: secrets.token_bytes(32))
        except VaultLocked:
            self._rows.close()
            raise

    def close(self) -> None:
        self._rows.close()

    def secret(self, name: str, make: Callable[[], bytes]) -> bytes:
        """A long-lived secret of this ledger, made at its first use; its length is a multiple of 8 bytes."""
        with self._lock:
            return self._get(f"secret/{name}") or self._put({f"secret/{name}": make()})[0]

    def ensure(self, key_ids: Iterable[str]) -> None:
        """Make the keys that do not exist yet, in one transaction."""
        with self._lock:
            missing = [key_id for key_id in key_ids if key_id not in self._keys]
            absent = [key_id for key_id in missing if self._load(key_id) is None]
            if absent:
                self._put({key_id: secrets.token_bytes(32) for key_id in absent})

    def seal(self, key_id: str, plaintext: bytes, place: bytes) -> bytes:
        """AES-256-GCM under the named key, bound to the place. Raises KeyMissing before `ensure`."""
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self._cipher(key_id).encrypt(nonce, plaintext, place)

    def open(self, key_id: str, box: bytes, place: bytes) -> bytes:
        """Raises KeyMissing or SealBroken."""
        try:
            return self._cipher(key_id).decrypt(box[:_NONCE], box[_NONCE:], place)
        except (InvalidTag, ValueError) as error:
            raise SealBroken(f"sealed under {key_id}") from error

    def blind(self, label: str, value: str) -> str:
        """A keyed digest that finds a value again without storing it: 32 hexadecimal digits."""
        return digest(self._blind_key, f"{label}\x1f{value}".encode(), sha256).hex()[:32]

    def _cipher(self, key_id: str) -> AESGCM:
        cipher = self._keys.get(key_id)
        if cipher is None:
            with self._lock:
                cipher = self._load(key_id)
        if cipher is None:
            raise KeyMissing(key_id)
        return cipher

    def _load(self, key_id: str) -> AESGCM | None:
        raw = self._get(key_id)
        return None if raw is None else self._remember(key_id, raw)

    def _remember(self, key_id: str, raw: bytes) -> AESGCM:
        cipher = self._keys[key_id] = AESGCM(raw)
        if len(self._keys) > _CACHED_KEYS:
            self._keys.popitem(last=False)
        return cipher

    def _get(self, key_id: str) -> bytes | None:
        row = self._rows.execute("SELECT wrapped FROM key WHERE id = ?", (key_id,)).fetchone()
        if row is None:
            return None
        try:
            return aes_key_unwrap(self._kek, row[0])
        except InvalidUnwrap as error:
            raise VaultLocked("the key-encryption key does not open this vault") from error

    def _put(self, keys: dict[str, bytes]) -> list[bytes]:
        # Another process may make the same key at the same moment: the first one stays, both use it.
        self._rows.execute("BEGIN IMMEDIATE")
        try:
            self._rows.executemany(
                "INSERT INTO key VALUES (?, ?) ON CONFLICT DO NOTHING",
                [(key_id, aes_key_wrap(self._kek, raw)) for key_id, raw in keys.items()],
            )
            self._rows.execute("COMMIT")
        except BaseException:
            self._rows.rollback()
            raise
        kept = []
        for key_id in keys:
            raw = self._get(key_id)
            if raw is None:
                raise KeyMissing(key_id)
            kept.append(raw)
            if not key_id.startswith("secret/"):
                self._remember(key_id, raw)
        return kept
