"""The commands of an auditor: verify ledgers, check a proof. They need no keys.

Here is also how an auditor opens ledgers; rebuilding and tracing are in ops/replay.py and ops/trace.py.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapters.network.reference.core import EVENTS as NETWORK_EVENTS
from adapters.network.reference.core import PROJECTIONS as NETWORK_PROJECTIONS
from broker.addressing import person
from broker.ledger.events import Registry
from broker.ledger.folder import EVENTS, VERIFIER_KEY
from broker.ledger.merkle import ProofInvalid
from broker.ledger.notes import NoteInvalid, NoteVerifier
from broker.ledger.postgres import PostgresDatabase
from broker.ledger.projections import Projection
from broker.ledger.receipt import check_receipt
from broker.ledger.sqlite import LedgerDatastore, SQLiteStore
from broker.ledger.store import Store, unsigned
from broker.ledger.verify import RawLedger, Verdict, sqlite_rows
from broker.ledger.verify import verify as verify_rows
from ops.config import ConfigurationError
from ops.daemons import ADDRESSING, AGENCY_EVENTS, AGENCY_PROJECTIONS, opened_database
from ops.terminal import console, fail, progress_bar


def ledgers(folder: Path) -> list[Path]:
    """The ledger folders at or below a folder, told by a verifier key or by events."""
    return sorted({path.parent for name in (VERIFIER_KEY, EVENTS) for path in folder.rglob(name)})


@dataclass(frozen=True)
class Evidence:
    """One ledger as an auditor has it: its folder, and its events there or in a database.

    Raises ConfigurationError where its verifier key or its events cannot be read.
    """

    path: Path
    name: str  # its path below the folder in which it was found, or the name of that folder
    database: PostgresDatabase | None

    def verifier_key(self) -> str:
        try:
            return (self.path / VERIFIER_KEY).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{self.path / VERIFIER_KEY}: {error}") from error

    def origin(self) -> str:
        try:
            return NoteVerifier(self.verifier_key()).name
        except NoteInvalid as error:
            raise ConfigurationError(f"{self.path / VERIFIER_KEY}: {error}") from error

    def kind(self) -> tuple[Registry, list[Projection]]:
        """What kind of ledger it is: told by the origin in its verifier key."""
        origin = self.origin()
        if origin == "renkei/network":
            return Registry(NETWORK_EVENTS), list(NETWORK_PROJECTIONS)
        if origin.endswith(f"/{ADDRESSING}"):
            return Registry(person.EVENTS), list(person.PROJECTIONS)
        return Registry(AGENCY_EVENTS), list(AGENCY_PROJECTIONS)

    @contextmanager
    def store(self) -> Iterator[Store]:
        """Its store, in which nothing can be appended."""
        if self.database is not None:
            yield self.database.store(self.origin(), unsigned)
            return
        with closing(SQLiteStore(LedgerDatastore(self._file()), unsigned)) as store:
            yield store

    @contextmanager
    def rows(self) -> Iterator[RawLedger]:
        """Its rows as they lie there, of one moment."""
        if self.database is not None:
            with self.database.rows(self.origin()) as found:
                yield found
            return
        with sqlite_rows(self._file()) as found:
            yield found

    def _file(self) -> Path:
        file = self.path / EVENTS
        if not file.exists():
            raise ConfigurationError(f"{file}: 台帳のイベントがありません (no events here; --store URL?)")
        return file


@contextmanager
def evidence(folder: Path, store: str) -> Iterator[list[Evidence]]:
    """The ledgers at or below a folder; their events lie there (`sqlite`) or at a PostgreSQL address.

    Raises ConfigurationError where there is no ledger.
    """
    found = ledgers(folder)
    if not found:
        raise ConfigurationError(f"{folder}: 台帳がありません (no ledger)")
    with opened_database(store) as database:
        yield [
            Evidence(
                path,
                path.relative_to(folder).as_posix() if path != folder else path.resolve().name,
                database,
            )
            for path in found
        ]


def verify(folder: Path, store: str = "sqlite") -> int:
    """Check every ledger below a folder; exit status 1 if one is damaged. Raises ConfigurationError."""
    damaged = False
    with evidence(folder, store) as found:
        for ledger in found:
            verdict = _verify(ledger)
            if verdict.ok:
                say(f"OK      {ledger.name}: {verdict.events} events")
            else:
                damaged = True
                say(f"DAMAGED {ledger.name}: position {verdict.wrong_position}: {verdict.reason}")
    return fail("S-101") if damaged else 0


def _verify(ledger: Evidence) -> Verdict:
    try:
        with progress_bar() as progress, ledger.rows() as rows:
            task = progress.add_task(ledger.name, total=None)

            def show(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total)

            return verify_rows(rows, ledger.verifier_key(), progress=show)
    except (ConfigurationError, NoteInvalid) as error:
        return Verdict(0, 1, f"the verifier key or the events cannot be used: {error}")


def say(text: str) -> None:
    """A line without markup and without wrapping, so that it can be searched."""
    console.print(text, markup=False, soft_wrap=True)


def receipt(file: Path, key: Path) -> int:
    """Check a proof that a resident downloaded."""
    text, verifier_key = file.read_text(encoding="utf-8"), key.read_text(encoding="utf-8")
    try:
        proved = check_receipt(text, verifier_key)
    except (ProofInvalid, NoteInvalid) as error:
        return fail("S-101", str(error))
    checkpoint, length = proved.checkpoint, len(proved.record)
    say(f"OK {checkpoint.origin} position {proved.position} of {checkpoint.size}, {length} bytes")
    return 0
