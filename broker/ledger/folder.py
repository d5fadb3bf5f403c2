"""A ledger as a folder: `events.sqlite`, `projections.sqlite` (once rebuilt, a link), `vault`, `ledger.vkey`.

With a database the events lie there; the keys, and what is derived from the events, stay in the folder. The
verifier keys lie beside the ledger for convenience; an auditor brings copies of their own. The second one,
`ledger-ml-dsa-44.vkey`, is for the checkpoints that are sealed from time to time.
"""

import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from broker.ledger.events import Registry
from broker.ledger.files import ensure_private_file
from broker.ledger.ledger import Clock, Ledger
from broker.ledger.notes import Checkpoint, Kind, NoteSigner
from broker.ledger.projections import Follower, Projection, ProjectionTables
from broker.ledger.sqlite import LedgerDatastore, SQLiteStore
from broker.ledger.store import SignCheckpoint, Store
from broker.ledger.vault import Vault

EVENTS, PROJECTIONS, VAULT, VERIFIER_KEY = "events.sqlite", "projections.sqlite", "vault", "ledger.vkey"
SEALING_VERIFIER_KEY = "ledger-ml-dsa-44.vkey"


def checkpoint_signer(signer: NoteSigner) -> SignCheckpoint:
    """Signs size and root as a checkpoint whose origin is the signer's name."""
    return lambda size, root: signer.sign(Checkpoint(signer.name, size, root).text())


def note_signer(vault: Vault, origin: str) -> NoteSigner:
    """The log's signing key, made at first use and kept in the vault."""
    return NoteSigner(origin, vault.secret("log", lambda: secrets.token_bytes(32)))


def sealing_signer(vault: Vault, origin: str) -> NoteSigner:
    """The log's second key, of an algorithm that a quantum computer does not break."""
    return NoteSigner(origin, vault.secret("log-ml-dsa-44", lambda: secrets.token_bytes(32)), Kind.ML_DSA_44)


class LedgerFolder:
    """Everything of one ledger, opened. `origin` names the log in its checkpoints, e.g. renkei/990019."""

    def __init__(
        self,
        folder: Path,
        origin: str,
        types: Iterable[type[Any]],
        projections: Sequence[Projection],
        clock: Clock,
        open_store: Callable[[str, SignCheckpoint], Store] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.vault = Vault(folder / VAULT)
        signer = note_signer(self.vault, origin)
        self.sealing_signer = sealing_signer(self.vault, origin)
        for name, key in (
            (VERIFIER_KEY, signer.verifier_key),
            (SEALING_VERIFIER_KEY, self.sealing_signer.verifier_key),
        ):
            ensure_private_file(folder / name, f"{key}\n".encode())
        sign = checkpoint_signer(signer)
        store = (
            open_store(origin, sign) if open_store else SQLiteStore(LedgerDatastore(folder / EVENTS), sign)
        )
        self.ledger = Ledger(origin, store, Registry(types), self.vault, clock)
        self.tables = ProjectionTables(folder / PROJECTIONS, projections)
        self.follower = Follower(self.ledger, self.tables)

    def close(self) -> None:
        self.tables.close()
        self.ledger.store.close()
        self.vault.close()
