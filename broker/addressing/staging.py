"""Acquisition numbers in use, and nothing else (Act art. 21-2(3): not kept beyond the acquisition).

They never enter the ledger, which forgets nothing. This file does forget: deleted rows are overwritten, and
the journal is a file that is removed at each commit.
"""

import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path

from broker.ledger.files import ensure_private_file, immediate


class Staging:
    """Pairs that wait: acquisition number -> what it stands for (a blind person, or a sealed text)."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        ensure_private_file(path)
        self._lock = threading.Lock()
        self._rows = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._rows.execute("PRAGMA journal_mode=DELETE")
        self._rows.execute("PRAGMA synchronous=FULL")
        self._rows.execute("PRAGMA secure_delete=ON")
        self._rows.execute(
            "CREATE TABLE IF NOT EXISTS staged (number TEXT PRIMARY KEY, owner TEXT NOT NULL, "
            "value TEXT NOT NULL) WITHOUT ROWID"
        )

    def close(self) -> None:
        self._rows.close()

    def put(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """(number, owner, value); the same number again keeps the first."""
        self._change("INSERT INTO staged VALUES (?, ?, ?) ON CONFLICT DO NOTHING", rows)

    def drop(self, numbers: Iterable[str]) -> None:
        self._change("DELETE FROM staged WHERE number = ?", ((number,) for number in numbers))

    def of(self, owner: str) -> list[tuple[str, str]]:
        """(number, value) of one owner."""
        with self._lock:
            return self._rows.execute(
                "SELECT number, value FROM staged WHERE owner = ? ORDER BY number", (owner,)
            ).fetchall()

    def _change(self, sql: str, rows: Iterable[tuple[str, ...]]) -> None:
        with self._lock, immediate(self._rows):
            self._rows.executemany(sql, rows)
