"""The key vault: data keys wrapped by a key-encryption key, apart from the ledger that they seal.

Files: `kek` (32 bytes, mode 0600) and `vault.sqlite` (wrapped keys). A key is durable before the first
event sealed with it is written, so a crash leaves at worst a key without events.

A key is known by a name, such as a class and a month. Once its destruction is asked for it seals nothing
more, and the name goes on with its next generation, `name~2`: what was destroyed is never made again. Of a
destroyed key there remains who it was, the rule, and the day.
"""

import secrets
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.ledger.files import ensure_private_file, immediate
from broker.ledger.kek import FileKeys, KeyEncryptionKey, KeyEncryptionKeys
from broker.ledger.kek import VaultExposed as VaultExposed
from broker.ledger.kek import VaultLocked as VaultLocked

_NONCE = 12
_CACHED_KEYS = 65_536
_REWRAPPED = 1_000
_LOCK_TIMEOUT = 60  # seconds: another process may be wrapping all keys anew
GENERATION = "~"  # between a name and the number of its generation
_SECRET = "secret/"  # noqa: S105 # the beginning of a name

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS key (id TEXT PRIMARY KEY, wrapped BLOB NOT NULL) WITHOUT ROWID",
    # Keys that seal nothing more; `destroyed` is "" while the destruction is only asked for.
    "CREATE TABLE IF NOT EXISTS closed "
    "(id TEXT PRIMARY KEY, rule TEXT NOT NULL, destroyed TEXT NOT NULL) WITHOUT ROWID",
    # The one key-encryption key that every row of `key` is wrapped by.
    "CREATE TABLE IF NOT EXISTS kek (only INTEGER PRIMARY KEY CHECK (only = 1), id TEXT NOT NULL)",
)


class KeyMissing(Exception):
    """The vault does not hold the key that sealed this."""


class SealBroken(Exception):
    """The sealed bytes were changed, or moved from the place they were sealed for."""


@dataclass(frozen=True)
class Erased:
    """What is left of erased data: the rule by which its key was destroyed, and when (ISO 8601)."""

    rule: str
    at: str

    @property
    def ja(self) -> str:
        return f"{self.rule}の規定により{self.at[:10]}に消去済み"

    @property
    def en(self) -> str:
        return f"erased under {self.rule} on {self.at[:10]}"

    def __str__(self) -> str:
        return f"{self.ja} ({self.en})"


class KeyDestroyed(Exception):
    """The key that sealed this was destroyed; `erased` tells by which rule and when."""

    def __init__(self, key_id: str, erased: Erased) -> None:
        super().__init__(f"{key_id}: {erased}")
        self.erased = erased


@dataclass(frozen=True)
class KeyState:
    """A key as it is listed: `rule` once its destruction was asked for, `destroyed` (ISO 8601) once done."""

    id: str
    rule: str
    destroyed: str

    @property
    def name(self) -> str:
        return self.id.partition(GENERATION)[0]


class Opening:
    """Opens what was sealed under the keys of a vault."""

    def __init__(self, vault: "Vault") -> None:
        self._vault = vault

    def open(self, key_id: str, box: bytes, place: bytes) -> bytes:
        """Raises KeyMissing, KeyDestroyed or SealBroken."""
        cipher = self._vault.cipher(key_id)
        try:
            return cipher.decrypt(box[:_NONCE], box[_NONCE:], place)
        except (InvalidTag, ValueError) as error:
            raise SealBroken(f"sealed under {key_id}") from error


def _hmac_halves(key: bytes) -> tuple[Any, Any]:
    """The inner and the outer hash of HMAC-SHA256 for a key of at most 64 bytes."""
    padded = key.ljust(64, b"\0")
    return sha256(bytes(b ^ 0x36 for b in padded)), sha256(bytes(b ^ 0x5C for b in padded))


class Vault:
    """Seals and opens under named keys, and makes blind indexes. Safe to use from several threads.

    Other processes may have it open, too: a key that one of them closed or destroyed is out of use here with
    the next `ensure` or `open`. Raises VaultLocked or VaultExposed.
    """

    def __init__(self, folder: Path, keks: KeyEncryptionKeys | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._keks = keks if keks is not None else FileKeys(folder)
        self._lock = threading.Lock()
        self._keys: OrderedDict[str, AESGCM] = OrderedDict()  # by id
        self._current: dict[str, str] = {}  # name -> id of the generation that seals now
        self._version = 0
        path = folder / "vault.sqlite"
        ensure_private_file(path)
        self._rows = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=_LOCK_TIMEOUT
        )
        try:
            self._rows.execute("PRAGMA journal_mode=DELETE")
            self._rows.execute("PRAGMA synchronous=FULL")
            self._rows.execute("PRAGMA secure_delete=ON")
            self._rows.execute("PRAGMA temp_store=MEMORY")  # no copy of keys elsewhere while VACUUM works
            self._begin()
            self._kek = self._settle()
            self._blind_halves = _hmac_halves(self.secret("blind", lambda: secrets.token_bytes(32)))
        except BaseException:
            self._rows.close()
            raise

    def close(self) -> None:
        self._rows.close()

    @property
    def busy(self) -> bool:
        """Whether to open something would wait for another thread, which may be making keys durable."""
        return self._lock.locked()

    def secret(self, name: str, make: Callable[[], bytes]) -> bytes:
        """A long-lived secret of this ledger, made at its first use; its length is a multiple of 8 bytes."""
        key_id = _SECRET + name
        with self._lock:
            found = self._get(key_id)
            if found is None:
                with self._transaction():
                    self._put(key_id, make())
                found = self._get(key_id)
        if found is None:
            raise KeyMissing(key_id)
        return found

    def ensure(self, names: Iterable[str]) -> None:
        """Make the keys that these names need now and that do not exist yet, in one transaction."""
        with self._lock:
            self._refresh()
            wanted = {name: self._generation(name) for name in names if name not in self._current}
            absent = [name for name, key_id in wanted.items() if self._load(key_id) is None]
            if absent:
                # Another process may make or close the same key at the same moment: the first one stays,
                # both use it.
                made = {}
                with self._transaction():
                    for name in absent:
                        key_id, raw = self._generation(name), secrets.token_bytes(32)
                        wanted[name] = key_id
                        if self._put(key_id, raw):
                            made[key_id] = raw
                for key_id, raw in made.items():
                    self._remember(key_id, raw)
            if len(self._current) > _CACHED_KEYS:
                self._current.clear()
            self._current.update(wanted)

    def current(self, name: str) -> str:
        """The id of the key that seals under this name now; `ensure` makes it. Costs no look at the file."""
        key_id = self._current.get(name)
        if key_id is None:
            with self._lock:
                key_id = self._generation(name)
        return key_id

    def seal(self, key_id: str, plaintext: bytes, place: bytes) -> bytes:
        """AES-256-GCM under this key, bound to the place. Raises KeyMissing before `ensure`, KeyDestroyed."""
        cipher = self._keys.get(key_id)
        if cipher is None:
            with self._lock:
                cipher = self._cipher(key_id)
        nonce = secrets.token_bytes(_NONCE)
        return nonce + cipher.encrypt(nonce, plaintext, place)

    def open(self, key_id: str, box: bytes, place: bytes) -> bytes:
        """Raises KeyMissing, KeyDestroyed or SealBroken."""
        return self.opening().open(key_id, box, place)

    def opening(self) -> "Opening":
        """To open what was read together: whether another process changed the keys is looked at once."""
        with self._lock:
            self._refresh()
        return Opening(self)

    def cipher(self, key_id: str) -> AESGCM:
        """The key as it is known here. Raises KeyMissing or KeyDestroyed."""
        with self._lock:
            return self._cipher(key_id)

    def blind(self, label: str, value: str) -> str:
        """A keyed digest that finds a value again without storing it: 32 hexadecimal digits."""
        # HMAC (RFC 2104) from its two halves made once: hmac.digest lets all other threads in at each call.
        inner, outer = (half.copy() for half in self._blind_halves)
        inner.update(f"{label}\x1f{value}".encode())
        outer.update(inner.digest())
        return str(outer.hexdigest()[:32])

    # -- the life of a key ----------------------------------------------------------------------------

    @property
    def kek_id(self) -> str:
        """The id of the key-encryption key in use."""
        return self._kek.id

    def states(self) -> list[KeyState]:
        """Every key that seals events or did so, by id; secrets of the ledger are not among them."""
        with self._lock:
            rows = self._rows.execute(
                "SELECT id, IFNULL(rule, ''), IFNULL(destroyed, '') FROM "
                "(SELECT id FROM key UNION SELECT id FROM closed) LEFT JOIN closed USING (id) "
                "WHERE id NOT LIKE 'secret/%' ORDER BY id"
            ).fetchall()
        return [KeyState(*row) for row in rows]

    def retire(self, key_id: str, rule: str) -> None:
        """From here on this key opens and no longer seals; its name goes on with the next generation.

        Doing it again changes nothing. Raises KeyMissing.
        """
        with self._lock:
            with self._transaction():
                known = self._rows.execute("SELECT 1 FROM key WHERE id = ?", (key_id,)).fetchone()
                if key_id.startswith(_SECRET) or not (known or self._erased(key_id)):
                    raise KeyMissing(key_id)
                self._rows.execute(
                    "INSERT INTO closed VALUES (?, ?, '') ON CONFLICT DO NOTHING", (key_id, rule)
                )
            self._current.clear()

    def destroy(self, key_id: str, at: str) -> Erased:
        """Remove a retired key for good; `at` (ISO 8601) is kept. Again: the same answer, and nothing else.

        The file is written anew, so that no page of it holds the wrapped key any longer. What the disk still
        has of removed journals is worthless after the next `rotate`. Raises KeyMissing for a key that was
        not retired.
        """
        with self._lock:
            with self._transaction():
                self._rows.execute(
                    "DELETE FROM key WHERE id IN (SELECT id FROM closed WHERE id = ?)", (key_id,)
                )
                self._rows.execute(
                    "UPDATE closed SET destroyed = ? WHERE id = ? AND destroyed = ''", (at, key_id)
                )
                erased = self._erased(key_id)
                if erased is None:
                    raise KeyMissing(key_id)
            self._keys.pop(key_id, None)
            self._current.clear()
            self._rows.execute("VACUUM")
        return erased

    def rotate(self) -> str:
        """Wrap every key by a new key-encryption key, whose id is returned; then the old one is removed.

        All keys change in one transaction. A crash before its commit leaves the old one in force, a crash
        after it the new one; what is left over is removed by the next opening.
        """
        with self._lock:
            try:
                with self._transaction():
                    following = self._keks.make()
                    for key_id, wrapped in self._wrapped():
                        self._rows.execute(
                            "UPDATE key SET wrapped = ? WHERE id = ?",
                            (following.wrap(self._kek.unwrap(wrapped)), key_id),
                        )
                    self._rows.execute("UPDATE kek SET id = ?", (following.id,))
            finally:
                self._kek = self._settle()
        return self._kek.id

    def _wrapped(self) -> Iterator[tuple[str, bytes]]:
        """All rows, a part at a time: the caller changes them as it goes."""
        last = ""
        while rows := self._rows.execute(
            "SELECT id, wrapped FROM key WHERE id > ? ORDER BY id LIMIT ?", (last, _REWRAPPED)
        ).fetchall():
            yield from rows
            last = rows[-1][0]

    def _begin(self) -> None:
        """The tables, and in a new vault its first key-encryption key."""
        with immediate(self._rows):
            for statement in SCHEMA:
                self._rows.execute(statement)
            if self._rows.execute("SELECT 1 FROM kek").fetchone() is None:
                if self._rows.execute("SELECT 1 FROM key").fetchone() is not None:
                    raise VaultLocked("the vault does not say which key-encryption key wraps its keys")
                self._rows.execute("INSERT INTO kek VALUES (1, ?)", (self._keks.first().id,))

    def _settle(self) -> KeyEncryptionKey:
        """The key-encryption key in force. An interrupted rotation ends here: finished, or never begun."""
        with immediate(self._rows):
            kek = self._in_force()
            self._keks.keep(kek.id)
        return kek

    def _in_force(self) -> KeyEncryptionKey:
        return self._keks.find(self._rows.execute("SELECT id FROM kek").fetchone()[0])

    # -- rows, with the lock held ---------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Alone, with the key-encryption key that is in force: another process may have rotated it."""
        with immediate(self._rows):
            if self._rows.execute("SELECT id FROM kek").fetchone()[0] != self._kek.id:
                self._kek = self._in_force()
            yield

    def _refresh(self) -> None:
        """Forget what is held in memory if another process changed the file (measured: 6 microseconds)."""
        version = self._rows.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            self._keys.clear()
            self._current.clear()
            self._version = version

    def _generation(self, name: str) -> str:
        """The first generation of a name that is not closed."""
        if GENERATION in name:
            raise ValueError(f"a name of a key may not hold {GENERATION}")
        key_id, number = name, 1
        while self._rows.execute("SELECT 1 FROM closed WHERE id = ?", (key_id,)).fetchone():
            number += 1
            key_id = f"{name}{GENERATION}{number}"
        return key_id

    def _cipher(self, key_id: str) -> AESGCM:
        cipher = self._load(key_id)
        if cipher is not None:
            return cipher
        erased = self._erased(key_id)
        raise KeyMissing(key_id) if erased is None else KeyDestroyed(key_id, erased)

    def _load(self, key_id: str) -> AESGCM | None:
        cipher = self._keys.get(key_id)
        if cipher is None and (raw := self._get(key_id)) is not None:
            cipher = self._remember(key_id, raw)
        return cipher

    def _remember(self, key_id: str, raw: bytes) -> AESGCM:
        cipher = self._keys[key_id] = AESGCM(raw)
        if len(self._keys) > _CACHED_KEYS:
            self._keys.popitem(last=False)
        return cipher

    def _erased(self, key_id: str) -> Erased | None:
        row = self._rows.execute(
            "SELECT rule, destroyed FROM closed WHERE id = ? AND destroyed <> ''", (key_id,)
        ).fetchone()
        return None if row is None else Erased(*row)

    def _get(self, key_id: str) -> bytes | None:
        while True:
            row = self._rows.execute(
                "SELECT wrapped, kek.id FROM key, kek WHERE key.id = ?", (key_id,)
            ).fetchone()
            if row is None:
                return None
            wrapped, kek_id = row
            if kek_id == self._kek.id:
                return self._kek.unwrap(wrapped)
            with self._transaction():
                pass  # another process rotated: this takes the new key-encryption key up

    def _put(self, key_id: str, raw: bytes) -> bool:
        """Within a transaction: whether it was new; a key that is there already stays."""
        wrapped = self._kek.wrap(raw)
        inserted = self._rows.execute(
            "INSERT INTO key VALUES (?, ?) ON CONFLICT DO NOTHING", (key_id, wrapped)
        )
        return inserted.rowcount == 1
