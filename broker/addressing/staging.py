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
        self._rows.execute("CREATE INDEX IF NOT EXISTS staged_value ON staged (owner, value)")

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

    def find(self, numbers: Iterable[str]) -> dict[str, tuple[str, str]]:
        """number -> (owner, value), of those that are staged."""
        with self._lock:
            sql = "SELECT owner, value FROM staged WHERE number = ?"
            rows = {number: self._rows.execute(sql, (number,)).fetchone() for number in numbers}
        return {number: row for number, row in rows.items() if row is not None}

    def numbers(self, owner: str, values: Iterable[str]) -> dict[str, str]:
        """value -> number, of those of an owner that are staged."""
        with self._lock:
            sql = "SELECT number FROM staged WHERE owner = ? AND value = ?"
            rows = {value: self._rows.execute(sql, (owner, value)).fetchone() for value in values}
        return {value: row[0] for value, row in rows.items() if row is not None}

    def _change(self, sql: str, rows: Iterable[tuple[str, ...]]) -> None:
        with self._lock, immediate(self._rows):
            self._rows.executemany(sql, rows)
