"""The commands export, import, backup and restore.

A backup is a folder laid out as the data folder, with for each ledger

    events.renkei            its export (broker.ledger.portable), appended to by the next backup
    vault/vault-ID.sqlite    a copy of its vault: keys wrapped by the key-encryption key, and what is known of
                             destroyed ones
    ledger.vkey              its verifier key

and `manifest.json`, which gives length and SHA-256 of each: of a file that has grown since, its beginning
counts. Whatever happens to a later backup, the manifest that is there describes a whole one.

Not in it, on purpose: the key-encryption keys (whoever found the backup could read it: keep a copy of each
elsewhere, for as long as a backup needs it); `projections.sqlite`, which is made anew from the events;
`staging.sqlite`, numbers of acquisitions under way, which the law wants forgotten: after a restore these
acquisitions are asked for again; configuration and certificates, which are not in the data folder.

A backup that is brought up to date after a key was destroyed no longer holds that key. One that is not, does,
wrapped: it has to go, or the key-encryption key is changed (renkei keys rotate) and every copy of the earlier
one goes.
"""

import fcntl
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from broker.ledger import portable
from broker.ledger.events import UnreadableEvent, key_of
from broker.ledger.files import create_private_file, overwrite, sync, write_whole
from broker.ledger.folder import EVENTS, VAULT, VERIFIER_KEY, LedgerFolder, note_signer
from broker.ledger.kek import FileKeys, VaultLocked
from broker.ledger.notes import NoteInvalid
from broker.ledger.postgres import PostgresDatabase
from broker.ledger.projections import ProjectionMismatch
from broker.ledger.sqlite import LedgerDatastore, SQLiteStore
from broker.ledger.store import Head, Store, unsigned
from broker.ledger.vault import KeyMissing, SealBroken
from broker.ledger.verify import verify
from ops.audit import Evidence, evidence, say
from ops.daemons import open_ledger, opened_database
from ops.logs import now
from ops.terminal import fail, progress_bar
from schemas.errors import Refusal, Refused

EXPORT, MANIFEST, RESTORING = "events.renkei", "manifest.json", "restore.json"
VAULT_FILE, KEK = "vault.sqlite", "kek"
FORMAT = "renkei backup 1"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Kept:
    """A file of a backup: its path in it, and length and SHA-256 of what counts of it."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class KeptLedger:
    """A ledger of a backup: `folder` is its place in the data folder, `at` the time of its last commit."""

    folder: str
    origin: str
    events: int
    at: str
    checkpoint: str
    key_encryption_key: str  # the id of the one that opens the vault
    export: Kept
    vault: Kept
    verifier_key: Kept


@dataclass(frozen=True)
class Manifest:
    made_at: str
    ledgers: tuple[KeptLedger, ...]

    def encode(self) -> bytes:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def decode(cls, raw: bytes) -> "Manifest":
        """Raises ValueError, KeyError, TypeError or AttributeError for what is no manifest."""
        values = json.loads(raw)
        if values.pop("format") != FORMAT:
            raise ValueError("another format")
        ledgers = tuple(_kept_ledger(**ledger) for ledger in values.pop("ledgers"))
        return cls(ledgers=ledgers, **values)


def _kept_ledger(export: Any, vault: Any, verifier_key: Any, **values: Any) -> KeptLedger:
    files = Kept(**export), Kept(**vault), Kept(**verifier_key)
    for place in (values["folder"], *(file.path for file in files)):
        if Path(place).is_absolute() or ".." in Path(place).parts:
            raise ValueError("a place outside the backup")
    return KeptLedger(export=files[0], vault=files[1], verifier_key=files[2], **values)


def export(folder: Path, into: Path, store: str) -> int:
    """Write a ledger into a file, or bring that file up to date."""

    def work() -> None:
        with (
            opened_database(store) as database,
            Evidence(folder, folder.name, database).store() as opened,
            _grown(into) as file,
            _progress("書き出し (export)") as progress,
        ):
            head = portable.export(opened, _key(folder), file, progress=progress)
            say(f"OK 書き出し完了 {head.size} 件 (events) {head.at} → {into}")

    return _told(work)


def import_(file: Path, into: Path, store: str, key: Path | None) -> int:
    """Put an exported ledger into a folder, or into a database with the verifier key in that folder."""

    def work() -> None:
        with file.open("rb") as source, opened_database(store) as database:
            origin, own = portable.header(source)
            given = key.read_text(encoding="utf-8").strip() if key else ""
            there = _key(into) if (into / VERIFIER_KEY).exists() else ""
            if given and there and given != there:
                raise portable.OtherLedger(f"{into / VERIFIER_KEY}")
            verifier_key = given or there or own
            if not (given or there):
                say(
                    f"注意: {origin}: ファイル自身の検証鍵で確かめます。"
                    "だれが作ったものかは確かめられません。\n"
                    "  (checked by the file's own key, which proves nothing about who made it; see --key)"
                )
            into.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (
                closing(_new_store(into, origin, database)) as opened,
                _progress("取り込み (import)") as progress,
            ):
                try:
                    extent = portable.put(source, opened, verifier_key, progress=progress)
                finally:
                    # What is in was verified by this key, and is found by it from now on.
                    if not there and opened.head().size:
                        create_private_file(into / VERIFIER_KEY, f"{verifier_key}\n".encode())
            if not extent.finished:
                raise Refused(Refusal("S-143", f"{extent.head.size} 件まで取り込み済み (events are in)"))
            say(f"OK {extent.origin} {extent.head.size} 件 (events) → {into}")

    return _told(work)


def backup(data: Path, store: str, into: Path) -> int:
    """Copy every ledger of a data folder, with its vault, into a folder; or bring such a copy up to date."""

    def work() -> None:
        if into.resolve().is_relative_to(data.resolve()):
            raise Refused(Refusal("S-104", f"{into}: データフォルダーの中です (within the data folder)"))
        into.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _alone(into), evidence(data, store) as found, ExitStack() as stack:
            stores = [stack.enter_context(ledger.store()) for ledger in found]
            heads = [opened.head() for opened in stores]  # of one moment, as far as that can be
            places = [ledger.path.relative_to(data) for ledger in found]
            for ledger, place, opened, head in zip(found, places, stores, heads, strict=True):
                _export(ledger.path, opened, head, into / place)
            # A key is durable before what it seals: the vaults are copied last and lack none.
            vaults = [_copy_vault(data / place / VAULT, into / place / VAULT) for place in places]
            kept = tuple(
                _read_back(into, place, vault, head)
                for place, vault, head in zip(places, vaults, heads, strict=True)
            )
            write_whole(into / MANIFEST, Manifest(now().isoformat(), kept).encode())
            sync(into)
            _remove_others(vaults)
        for done in kept:
            say(f"OK {done.origin} {done.events} 件 (events) {done.at}")
        say(f"控えを作成し、読み返して確かめました (made and read back) → {into}")
        say("鍵暗号化鍵は控えに入れていません。控えとは別の場所に、控えを残す間、保管してください。")
        say("  (The key-encryption keys are not in the backup. Keep a copy of each apart from it.)")
        for done in kept:
            say(f"  {done.key_encryption_key}  {data / done.folder / VAULT / KEK}")

    return _told(work)


def restore(source: Path, into: Path, keks: Sequence[Path], store: str) -> int:
    """Make a data folder of a backup and the key-encryption keys of its vaults, and verify it."""

    def work() -> None:
        manifest = _checked(source)
        with opened_database(store) as database:
            _claim(into, manifest, database)
            for ledger in manifest.ledgers:
                path = into / ledger.folder
                _place_keys(source, ledger, path, keks)
                _import(source, ledger, path, database)
            for ledger in manifest.ledgers:
                position = _prove(Evidence(into / ledger.folder, ledger.folder, database), ledger.events)
                opened = (
                    f"位置 {position} を開封 (opened)" if position else "封のある記録なし (nothing sealed)"
                )
                say(f"OK {ledger.origin} {ledger.events} 件 (events) {ledger.at}: {opened}")
        (into / RESTORING).unlink()
        say(f"復元し、検証しました (restored and verified) → {into}")

    return _told(work)


# -- a ledger of a backup ---------------------------------------------------------------------------------


def _export(path: Path, store: Store, head: Head, into: Path) -> None:
    into.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = _key(path)
    if not (into / VERIFIER_KEY).exists():
        create_private_file(into / VERIFIER_KEY, f"{key}\n".encode())
    elif _key(into) != key:
        raise portable.OtherLedger(str(into))
    with _grown(into / EXPORT) as file, _progress(f"書き出し (export) {path.name}") as progress:
        portable.export(store, key, file, upto=head, progress=progress)


def _copy_vault(vault: Path, into: Path) -> Path:
    """A copy of one moment, with no page of what was deleted, under a name that tells its content."""
    if not (vault / VAULT_FILE).exists():
        raise Refused(Refusal("S-104", f"{vault}: 金庫がありません (no vault)"))
    into.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = into / "vault.new"
    temporary.unlink(missing_ok=True)
    create_private_file(temporary, b"")
    with closing(sqlite3.connect(vault / VAULT_FILE, isolation_level=None, timeout=60)) as rows:
        rows.execute("VACUUM INTO ?", (str(temporary),))
    sync(temporary)
    copy = into / f"vault-{_sha256(temporary)[:16]}.sqlite"
    temporary.replace(copy)
    sync(into)
    return copy


def _read_back(backup: Path, folder: Path, vault: Path, head: Head) -> KeptLedger:
    """What the manifest says of a ledger, once everything of it was read again and is in order."""
    path = backup / folder
    with (path / EXPORT).open("rb") as file, _progress(f"検証 (verify) {folder}") as progress:
        extent = portable.check(file, _key(path), progress=progress)
    if not extent.finished or extent.head != head:
        raise Refused(Refusal("S-144", str(path / EXPORT)))

    def kept(file: Path) -> Kept:
        return Kept(file.relative_to(backup).as_posix(), file.stat().st_size, _sha256(file))

    return KeptLedger(
        folder=folder.as_posix(),
        origin=extent.origin,
        events=head.size,
        at=head.at,
        checkpoint=head.note,
        key_encryption_key=_check_vault(vault),
        export=kept(path / EXPORT),
        vault=kept(vault),
        verifier_key=kept(path / VERIFIER_KEY),
    )


def _check_vault(copy: Path) -> str:
    """The id of the key-encryption key of a copied vault that is whole."""
    try:
        with closing(sqlite3.connect(f"{copy.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as rows:
            whole = rows.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            kek = rows.execute("SELECT id FROM kek").fetchall()
    except sqlite3.DatabaseError as error:
        raise Refused(Refusal("S-144", f"{copy}: {error}")) from error
    if not whole or len(kek) != 1:
        raise Refused(Refusal("S-144", str(copy)))
    return str(kek[0][0])


def _remove_others(vaults: Sequence[Path]) -> None:
    """Earlier copies of vaults hold keys that may have been destroyed since: no byte of them stays."""
    for vault in vaults:
        for other in vault.parent.glob("vault-*.sqlite"):
            if other != vault:
                overwrite(other)
                other.unlink()
        sync(vault.parent)


# -- and back ---------------------------------------------------------------------------------------------


def _checked(source: Path) -> Manifest:
    """The manifest of a backup whose files are all as it says."""
    try:
        manifest = Manifest.decode((source / MANIFEST).read_bytes())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(Refusal("S-144", str(source / MANIFEST))) from error
    files = [
        file for ledger in manifest.ledgers for file in (ledger.export, ledger.vault, ledger.verifier_key)
    ]
    with _progress("控えの照合 (checking the backup)") as progress:
        for done, file in enumerate(files, 1):
            path = source / file.path
            if not path.exists() or _sha256(path, file.bytes) != file.sha256:
                raise Refused(Refusal("S-144", str(path)))
            progress(done, len(files))
    return manifest


def _claim(into: Path, manifest: Manifest, database: PostgresDatabase | None) -> None:
    """Only an empty place is restored into, or one where a restore of the same backup was interrupted."""
    mark = manifest.encode()
    into.mkdir(parents=True, exist_ok=True, mode=0o700)
    if (into / RESTORING).exists() and (into / RESTORING).read_bytes() == mark:
        return
    if any(into.iterdir()):
        raise Refused(Refusal("S-145", str(into)))
    if database is not None:
        for ledger in manifest.ledgers:
            if database.store(ledger.origin, unsigned).head().size:
                raise Refused(Refusal("S-145", ledger.origin))
    create_private_file(into / RESTORING, mark)


def _place_keys(source: Path, ledger: KeptLedger, path: Path, keks: Sequence[Path]) -> None:
    """Verifier key, vault, and the one of the key-encryption keys that opens it."""
    vault = path / VAULT
    vault.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (path / VERIFIER_KEY).exists():
        create_private_file(path / VERIFIER_KEY, (source / ledger.verifier_key.path).read_bytes())
    if not (vault / VAULT_FILE).exists():
        create_private_file(vault / VAULT_FILE, (source / ledger.vault.path).read_bytes())
    for kek in keks:
        (vault / KEK).unlink(missing_ok=True)
        create_private_file(vault / KEK, kek.read_bytes())
        with suppress(VaultLocked):
            FileKeys(vault).find(ledger.key_encryption_key)
            return
    (vault / KEK).unlink(missing_ok=True)
    raise Refused(Refusal("S-115", f"{ledger.origin}: {ledger.key_encryption_key}"))


def _import(source: Path, ledger: KeptLedger, path: Path, database: PostgresDatabase | None) -> None:
    with (
        (source / ledger.export.path).open("rb") as file,
        closing(_new_store(path, ledger.origin, database)) as store,
        _progress(f"復元 (restore) {ledger.folder}") as progress,
    ):
        extent = portable.put(file, store, _key(path), limit=ledger.export.bytes, progress=progress)
    if (extent.head.size, extent.head.note) != (ledger.events, ledger.checkpoint):
        raise Refused(Refusal("S-144", ledger.export.path))


def _prove(ledger: Evidence, events: int) -> int:
    """Verify a restored ledger and its keys; the position of the sealed event that was opened, 0 if none is.

    Projections are made on the way.
    """
    key, origin = _key(ledger.path), ledger.origin()
    with _progress(f"検証 (verify) {ledger.name}") as progress, ledger.rows() as rows:
        verdict = verify(rows, key, progress=progress)
    if verdict.wrong_position is not None or verdict.events != events:
        raise portable.Wrong(verdict.wrong_position or verdict.events + 1, verdict.reason)
    with (
        closing(
            open_ledger(ledger.path, origin, ledger.database.store if ledger.database else None)
        ) as folder,
        _progress(f"一覧の作成 (projections) {ledger.name}") as progress,
    ):
        if note_signer(folder.vault, origin).verifier_key != key:
            raise Refused(Refusal("S-115", f"{origin}: {VERIFIER_KEY}"))
        store, registry = folder.ledger.store, folder.ledger.registry
        folder.tables.catch_up(store, registry, progress=lambda done: progress(done, events))
        return _opened_event(folder)


def _opened_event(folder: LedgerFolder) -> int:
    """The position of the last sealed event that its key opens."""
    end = folder.ledger.store.head().size
    while end > 0:
        start = max(0, end - 1_000)
        for stored in reversed(folder.ledger.store.events(start, end - start)):
            if key_of(stored.state) is not None:
                recorded = folder.ledger.registry.decode(stored, folder.vault)
                if recorded.erased is None:
                    return recorded.position
        end = start
    return 0


# -- files, stores and what is said of them ---------------------------------------------------------------


def _told(work: Callable[[], None]) -> int:
    """Do it; what is refused is said in the words of the catalogue."""
    try:
        work()
    except Refused as error:
        return fail(error.refusal.code, error.refusal.detail)
    except portable.FileWrong as error:
        return fail("S-141", str(error))
    except portable.Wrong as error:
        return fail("S-101", str(error))
    except portable.OtherLedger as error:
        return fail("S-142", str(error))
    except (KeyMissing, SealBroken) as error:
        return fail("S-115", str(error))
    except (ProjectionMismatch, UnreadableEvent) as error:
        return fail("S-105", str(error))
    except NoteInvalid as error:
        return fail("S-104", str(error))
    except BlockingIOError:
        return fail("S-146")
    return 0


def _key(path: Path) -> str:
    return (path / VERIFIER_KEY).read_text(encoding="utf-8").strip()


def _new_store(path: Path, origin: str, database: PostgresDatabase | None) -> Store:
    """Where the events of a ledger are put as another store wrote them."""
    if database is not None:
        return database.store(origin, unsigned)
    return SQLiteStore(LedgerDatastore(path / EVENTS), unsigned)


@contextmanager
def _grown(path: Path) -> Iterator[BinaryIO]:
    """A private file to go on with, made if it is not there."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(handle, "r+b") as file:
        yield file
    sync(path.parent)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Raises BlockingIOError while another backup into the folder runs."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _sha256(path: Path, length: int | None = None) -> str:
    """Of a file's first bytes, or of all."""
    digest, left = sha256(), path.stat().st_size if length is None else length
    with path.open("rb") as file:
        while chunk := file.read(min(left, _CHUNK)):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    with progress_bar() as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
