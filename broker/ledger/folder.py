"""A ledger as a folder: `events.sqlite`, `projections.sqlite`, `vault/` and `ledger.vkey`.

The verifier key lies beside the ledger for convenience; an auditor brings a copy of their own.
"""

import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from broker.ledger.events import Registry
from broker.ledger.ledger import Clock, Ledger
from broker.ledger.notes import Checkpoint, NoteSigner
from broker.ledger.projections import Follower, Projection, ProjectionTables
from broker.ledger.sqlite import LedgerDatastore, SQLiteStore
from broker.ledger.store import SignCheckpoint
from broker.ledger.vault import Vault, create_private_file

EVENTS, PROJECTIONS, VAULT, VERIFIER_KEY = "events.sqlite", "projections.sqlite", "vault", "ledger.vkey"


def checkpoint_signer(signer: NoteSigner) -> SignCheckpoint:
    """Signs size and root as a checkpoint whose origin is the signer's name."""
    return lambda size, root: signer.sign(Checkpoint(signer.name, size, root).text())


def note_signer(vault: Vault, origin: str) -> NoteSigner:
    """The log's signing key, made at first use and kept in the vault."""
    return NoteSigner(origin, vault.secret("log", lambda: secrets.token_bytes(32)))


class LedgerFolder:
    """Everything of one ledger, opened. `origin` names the log in its checkpoints, e.g. renkei/990019."""

    def __init__(
        self,
        folder: Path,
        origin: str,
        types: Iterable[type[Any]],
        projections: Sequence[Projection],
        clock: Clock,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.vault = Vault(folder / VAULT)
        signer = note_signer(self.vault, origin)
        if not (folder / VERIFIER_KEY).exists():
            create_private_file(folder / VERIFIER_KEY, f"{signer.verifier_key}\n".encode())
        store = SQLiteStore(LedgerDatastore(folder / EVENTS), checkpoint_signer(signer))
        self.ledger = Ledger(origin, store, Registry(types), self.vault, clock)
        self.tables = ProjectionTables(folder / PROJECTIONS, projections)
        self.follower = Follower(self.ledger, self.tables)

    def close(self) -> None:
        self.tables.close()
        self.ledger.store.close()
        self.vault.close()
