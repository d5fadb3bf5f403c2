"""The witness of a log (C2SP tlog-witness), without its transport.

A witness signs a log's checkpoint only if the log goes on from the one that it signed before. Whoever
trusts the witness then knows that everybody is shown the same log, and that nothing is taken out of it.
"""

import sqlite3
import threading
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, Self

from broker.ledger.files import ensure_private_file, immediate
from broker.ledger.merkle import (
    EMPTY_ROOT,
    ProofInvalid,
    ReadTile,
    consistency_proof,
    verify_consistency,
)
from broker.ledger.notes import (
    Checkpoint,
    NoteInvalid,
    NoteSigner,
    NoteVerifier,
    decimal,
    decode,
    open_note,
    parts,
    signer_of,
)

MAX_SUBMISSION: Final = 256 * 1024  # bytes: 64 signatures of ML-DSA-44 and a proof
_MAX_PROOF = 63
_MAX_ORIGIN = 200  # bytes: it names a file, and ML-DSA-44 signs at most 255

KnownLogs = Callable[[str], Sequence[NoteVerifier]]  # the verifier keys of an origin; none: it is not known


class NotCosigned(Exception):
    """The witness does not sign; the status is that of HTTP, the size that of the log as it knows it."""

    def __init__(self, status: int, reason: str, size: int = 0) -> None:
        super().__init__(reason)
        self.status = status
        self.size = size


@dataclass(frozen=True)
class Submission:
    """A checkpoint, and the proof that it goes on from the log's older size (0: from nothing).

    It is what a log sends to a witness. C2SP has no other form for a proof of consistency, so that it is
    also ours for handing one out.
    """

    old: int
    proof: tuple[bytes, ...]
    note: str

    def text(self) -> str:
        steps = (b64encode(step).decode() for step in self.proof)
        return "\n".join((f"old {self.old}", *steps, "", self.note))

    @classmethod
    def read(cls, text: str) -> Self:
        """Raises ProofInvalid."""
        head, mark, note = text.partition("\n\n")
        first, *steps = head.split("\n")
        if not mark or not first.startswith("old ") or len(steps) > _MAX_PROOF:
            raise ProofInvalid("not a proof of consistency")
        try:
            return cls(decimal(first[4:]), tuple(decode(step) for step in steps), note)
        except ValueError as error:
            raise ProofInvalid("the proof of consistency is malformed") from error


def submission(read: ReadTile, old: int, note: str) -> Submission:
    """The proof that the log of a checkpoint goes on from an older size. ValueError if that is greater."""
    size = Checkpoint.read(parts(note)[0]).size
    return Submission(old, tuple(consistency_proof(read, old, size)) if old else (), note)


def check_consistency(text: str, old: Checkpoint, verifier_key: str) -> Checkpoint:
    """The checkpoint that is proved to go on from an older one. Raises ProofInvalid, NoteInvalid."""
    asked = Submission.read(text)
    checkpoint = NoteVerifier(verifier_key).checkpoint(asked.note)
    if checkpoint.origin != old.origin or asked.old != old.size:
        raise ProofInvalid("the proof is about another log, or from another size")
    verify_consistency(old.size, checkpoint.size, asked.proof, old.root, checkpoint.root)
    return checkpoint


def logs_in(folder: Path) -> KnownLogs:
    """The logs whose verifier keys lie in a folder, in files such as renkei_990019.vkey, one key a line.

    They are read whenever they are needed: a log is admitted by putting its file there.
    """

    def keys(origin: str) -> list[NoteVerifier]:
        file = folder / f"{origin.replace('/', '_')}.vkey"
        if not file.exists():
            return []
        verifiers = [NoteVerifier(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return [verifier for verifier in verifiers if verifier.name == origin]

    return keys


def authentic(asked: Submission, logs: KnownLogs) -> Checkpoint:
    """The checkpoint of a submission, by a log that the witness knows. Raises NotCosigned."""
    try:
        text = parts(asked.note)[0]
        checkpoint = Checkpoint.read(text)
    except NoteInvalid as error:
        raise NotCosigned(400, str(error)) from error
    if checkpoint.text() != text or len(checkpoint.origin.encode()) > _MAX_ORIGIN:
        raise NotCosigned(400, "extension lines and long origins are not cosigned")
    if asked.old > checkpoint.size:
        raise NotCosigned(400, "the old size is greater than that of the checkpoint")
    keys = logs(checkpoint.origin)
    if not keys:
        raise NotCosigned(404, "the log is not known")
    try:
        open_note(asked.note, keys)
    except NoteInvalid as error:
        raise NotCosigned(403, str(error)) from error
    return checkpoint


def check_follows(asked: Submission, checkpoint: Checkpoint, latest: Checkpoint | None) -> None:
    """Raises NotCosigned unless the checkpoint goes on from the latest one that was signed."""
    size = latest.size if latest else 0
    if asked.old != size:
        raise NotCosigned(409, "another size was signed last", size)
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        raise NotCosigned(422, "the root of the empty log is wrong")
    if not latest or latest.size == 0:
        if asked.proof:
            raise NotCosigned(422, "from nothing there is nothing to prove")
        return
    try:
        verify_consistency(latest.size, checkpoint.size, asked.proof, latest.root, checkpoint.root)
    except ProofInvalid as error:
        raise NotCosigned(422, str(error)) from error


class Witness:
    """Cosigns for the logs it knows, and keeps what it signed last for each in a small SQLite file.

    What was signed is durable before the signature leaves, and no other signature can come between check
    and record: a log cannot be led back by two requests at once.
    """

    def __init__(self, path: Path, signers: Sequence[NoteSigner], logs: KnownLogs) -> None:
        self._signers = signers
        self._logs = logs
        self._lock = threading.Lock()  # between threads; between processes it is BEGIN IMMEDIATE
        ensure_private_file(path)
        self._rows = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        # EXTRA: with FULL a loss of power may bring back the journal, and with it what was signed before.
        self._rows.execute("PRAGMA synchronous=EXTRA")
        self._rows.execute(
            "CREATE TABLE IF NOT EXISTS latest (origin_hash TEXT PRIMARY KEY, note TEXT NOT NULL)"
        )

    def close(self) -> None:
        self._rows.close()

    def cosign(self, body: bytes, time: int) -> list[str]:
        """The witness's signature lines for a submission; time is POSIX. Raises NotCosigned."""
        try:
            if len(body) > MAX_SUBMISSION:
                raise ProofInvalid("the submission is too long")
            asked = Submission.read(body.decode())
        except (ProofInvalid, UnicodeDecodeError) as error:
            raise NotCosigned(400, "not a submission") from error
        checkpoint = authentic(asked, self._logs)
        with self._lock, immediate(self._rows):
            return self._record(asked, checkpoint, time)

    def latest(self, origin_hash: str) -> str | None:
        """The checkpoint signed last for a log, named by the SHA-256 of its origin in hexadecimal."""
        with self._lock:
            query = "SELECT note FROM latest WHERE origin_hash = ?"
            row = self._rows.execute(query, (origin_hash,)).fetchone()
        return row[0] if row else None

    def _record(self, asked: Submission, checkpoint: Checkpoint, time: int) -> list[str]:
        key = sha256(checkpoint.origin.encode()).hexdigest()
        row = self._rows.execute("SELECT note FROM latest WHERE origin_hash = ?", (key,)).fetchone()
        check_follows(asked, checkpoint, Checkpoint.read(parts(row[0])[0]) if row else None)
        text, signatures = parts(asked.note)
        lines = [signer.line(text, time) for signer in self._signers]
        known = {(log.name, log.key_id) for log in self._logs(checkpoint.origin)}
        kept = [line for line in signatures if signer_of(line)[:2] in known]
        note = "\n".join((text, *kept, *lines, ""))
        self._rows.execute("INSERT OR REPLACE INTO latest VALUES (?, ?)", (key, note))
        return lines
