"""The ledger in one SQLite file, on the recorder of eventsourcing.

What is replaced and why: the stock table reuses row ids after a deletion and begins transactions deferred;
here the position is an explicit dense rowid, transactions begin IMMEDIATE (two processes may append), and
`synchronous` is FULL, so that what is acknowledged survives a loss of power.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eventsourcing.persistence import (
    DatabaseError,
    InterfaceError,
    Notification,
    OperationalError,
    StoredEvent,
)
from eventsourcing.sqlite import (
    SQLiteConnection,
    SQLiteConnectionPool,
    SQLiteCursor,
    SQLiteDatastore,
    SQLiteProcessRecorder,
    SQLiteTransaction,
)

from broker.ledger.files import ensure_private_file
from broker.ledger.merkle import TILE_WIDTH, unpack_frontier
from broker.ledger.store import (
    Commit,
    Conflict,
    Head,
    Outcome,
    SignCheckpoint,
    StoredUnit,
    append_units,
    as_stored,
    check_follows,
    next_commit,
)

_HEAD = "SELECT * FROM checkpoint ORDER BY size DESC LIMIT 1"
_MANY = 500  # SQLite binds at most 999 parameters on old builds

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS stored_events (rowid INTEGER PRIMARY KEY, originator_id TEXT NOT NULL, "
    "originator_version INTEGER NOT NULL, topic TEXT NOT NULL, state BLOB NOT NULL, leaf BLOB NOT NULL, "
    "UNIQUE (originator_id, originator_version))",
    "CREATE TABLE IF NOT EXISTS unit (message_id TEXT PRIMARY KEY, first INTEGER NOT NULL, "
    "last INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS node (level INTEGER, idx INTEGER, hash BLOB NOT NULL, "
    "PRIMARY KEY (level, idx)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS checkpoint (size INTEGER PRIMARY KEY, at TEXT NOT NULL, "
    "frontier BLOB NOT NULL, note TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS cosignature (size INTEGER, line TEXT, PRIMARY KEY (size, line)) "
    "WITHOUT ROWID",
)


class _Immediate(SQLiteTransaction):
    def __enter__(self) -> SQLiteCursor:
        cursor = self.connection.cursor()
        try:
            cursor.execute("BEGIN IMMEDIATE" if self.commit else "BEGIN")
        except sqlite3.Error as error:
            raise OperationalError(error) from error
        return cursor


class _Connection(SQLiteConnection):
    @contextmanager
    def transaction(self, *, commit: bool) -> Iterator[SQLiteCursor]:
        with _Immediate(self, commit=commit) as cursor, cursor:
            yield cursor


class _Pool(SQLiteConnectionPool):
    def _create_connection(self) -> SQLiteConnection:
        super()._create_connection().close()  # sets up the file
        try:
            # The stock connection keeps one statement: each of ours would be parsed anew every time.
            connection = sqlite3.connect(
                self.db_name, self.lock_timeout or 0, isolation_level=None, check_same_thread=False, uri=True
            )
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA synchronous=FULL")
        except sqlite3.Error as error:
            raise InterfaceError(error) from error
        return _Connection(connection, self.max_age)


class LedgerDatastore(SQLiteDatastore):
    """One SQLite file, private to its owner."""

    def __init__(self, path: Path | str, *, originator_id_type: Any = "text") -> None:
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            ensure_private_file(path)
        super().__init__(str(path), originator_id_type=originator_id_type, lock_timeout=10)
        self.pool.close()
        self.pool = _Pool(db_name=str(path), lock_timeout=10)

    def select(self, query: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """The rows of one question: it sees one moment without a transaction begun and ended around it."""
        try:
            with self.get_connection(commit=False) as connection, connection.cursor() as cursor:
                return cursor.execute(query, parameters).fetchall()
        except sqlite3.OperationalError as error:
            raise OperationalError(error) from error
        except sqlite3.Error as error:
            raise DatabaseError(error) from error


class SQLiteStore(SQLiteProcessRecorder):
    """A durable store; also a ProcessRecorder of eventsourcing, so that its test cases hold for it."""

    at_hand = True

    def __init__(self, datastore: LedgerDatastore, sign: SignCheckpoint) -> None:
        super().__init__(datastore)
        self._select = datastore.select
        self._sign = sign
        self.create_table()

    def construct_create_table_statements(self) -> list[str]:
        tracking = super().construct_create_table_statements()[1:]
        return [*SCHEMA, *tracking]

    def close(self) -> None:
        self.datastore.close()

    def append(self, units: Sequence[StoredUnit], at: str) -> list[Outcome | Conflict]:
        with self.datastore.transaction(commit=True) as cursor:
            return append_units(_Rows(cursor), units, at, self._sign)

    def put(self, commits: Sequence[Commit]) -> None:
        with self.datastore.transaction(commit=True) as cursor:
            rows = _Rows(cursor)
            for commit in commits:
                check_follows(rows.head(), commit)
                rows.write(commit)

    def _insert_events(
        self, c: SQLiteCursor, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int]:
        # The recorder's own door: events without a unit or a time. They extend the log like all others.
        rows = _Rows(c)
        head = rows.head()
        if stored_events:
            rows.write(next_commit(head, [as_stored(e) for e in stored_events], {}, "", self._sign))
        if tracking := kwargs.get("tracking"):
            self._insert_tracking(c, tracking)
        return list(range(head.size + 1, head.size + len(stored_events) + 1))

    def outcomes(self, message_ids: Sequence[str]) -> dict[str, Outcome]:
        with self.datastore.transaction(commit=False) as cursor:
            return _Rows(cursor).outcomes(message_ids)

    settled = outcomes  # an append that failed was rolled back

    def head(self) -> Head:
        row = next(iter(self._select(_HEAD)), None)
        return Head() if row is None else _head(row)

    def tile(self, level: int, index: int) -> bytes:
        first = index * TILE_WIDTH
        if level == 0:
            query = "SELECT leaf FROM stored_events WHERE rowid BETWEEN ? AND ? ORDER BY rowid"
            return b"".join(row[0] for row in self._select(query, (first + 1, first + TILE_WIDTH)))
        query = "SELECT hash FROM node WHERE level = ? AND idx BETWEEN ? AND ? ORDER BY idx"
        return b"".join(row[0] for row in self._select(query, (level, first, first + TILE_WIDTH - 1)))

    def stream(self, stream: str, after: int = 0) -> list[Notification]:
        return self._notifications(
            "WHERE originator_id = ? AND originator_version > ? ORDER BY originator_version", (stream, after)
        )

    def streams(self, streams: Sequence[str]) -> list[Notification]:
        found: list[Notification] = []
        for part in _parts(list(dict.fromkeys(streams))):
            where = f"WHERE originator_id IN ({_marks(part)}) ORDER BY originator_id, originator_version"
            found += self._notifications(where, tuple(part))
        return found

    def events(self, after: int, limit: int) -> list[Notification]:
        return self._notifications("WHERE rowid > ? ORDER BY rowid LIMIT ?", (after, limit))

    def at(self, positions: Sequence[int]) -> list[Notification]:
        found: list[Notification] = []
        for part in _parts(sorted(set(positions))):
            found += self._notifications(f"WHERE rowid IN ({_marks(part)}) ORDER BY rowid", tuple(part))
        return found

    def checkpoints(self, after: int = 0, limit: int = 1_000) -> list[Head]:
        query = "SELECT * FROM checkpoint WHERE size > ? ORDER BY size LIMIT ?"
        return [_head(row) for row in self._select(query, (after, limit))]

    def position_at(self, at: str) -> int:
        query = "SELECT size FROM checkpoint WHERE at <= ? ORDER BY size DESC LIMIT 1"
        return next((row[0] for row in self._select(query, (at,))), 0)

    def cosign(self, size: int, lines: Sequence[str]) -> None:
        with self.datastore.transaction(commit=True) as cursor:
            cursor.executemany(
                "INSERT INTO cosignature VALUES (?, ?) ON CONFLICT DO NOTHING",
                [(size, line) for line in lines],
            )

    def cosignatures(self, size: int) -> list[str]:
        query = "SELECT line FROM cosignature WHERE size = ? ORDER BY line"
        return [row[0] for row in self._select(query, (size,))]

    def cosigned(self, at_least: int) -> int:
        (row,) = self._select("SELECT IFNULL(MIN(size), 0) FROM cosignature WHERE size >= ?", (at_least,))
        return int(row[0])

    def _notifications(self, where: str, parameters: tuple[Any, ...]) -> list[Notification]:
        query = f"SELECT rowid, originator_id, originator_version, topic, state FROM stored_events {where}"  # noqa: S608 # the clause is a literal of this file
        return [
            Notification(
                id=row[0], originator_id=row[1], originator_version=row[2], topic=row[3], state=row[4]
            )
            for row in self._select(query, parameters)
        ]


class _Rows:
    """The rows of one transaction (store.Transaction)."""

    def __init__(self, cursor: SQLiteCursor) -> None:
        self._cursor = cursor

    def head(self) -> Head:
        self._cursor.execute(_HEAD)
        row = self._cursor.fetchone()
        return Head() if row is None else _head(row)

    def outcomes(self, message_ids: Sequence[str]) -> dict[str, Outcome]:
        found: dict[str, Outcome] = {}
        for part in _parts(message_ids):
            self._cursor.execute(f"SELECT * FROM unit WHERE message_id IN ({_marks(part)})", part)  # noqa: S608 # question marks only
            found |= {row[0]: Outcome(row[1], row[2]) for row in self._cursor.fetchall()}
        return found

    def versions(self, streams: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for part in _parts(streams):
            self._cursor.execute(
                "SELECT originator_id, MAX(originator_version) FROM stored_events "  # noqa: S608 # question marks only
                f"WHERE originator_id IN ({_marks(part)}) GROUP BY originator_id",
                part,
            )
            found |= {row[0]: row[1] for row in self._cursor.fetchall()}
        return found

    def write(self, commit: Commit) -> None:
        self._cursor.executemany(
            "INSERT INTO stored_events VALUES (?, ?, ?, ?, ?, ?)",
            [
                (position, e.originator_id, e.originator_version, e.topic, e.state, leaf)
                for position, (e, leaf) in enumerate(
                    zip(commit.events, commit.leaves, strict=True), commit.first
                )
            ],
        )
        self._cursor.executemany(
            "INSERT INTO unit VALUES (?, ?, ?)", [(m, o.first, o.last) for m, o in commit.units.items()]
        )
        if commit.nodes:
            self._cursor.executemany(
                "INSERT INTO node VALUES (?, ?, ?)", [(*place, node) for place, node in commit.nodes.items()]
            )
        head = commit.head
        self._cursor.execute(
            "INSERT INTO checkpoint VALUES (?, ?, ?, ?)",
            (head.size, head.at, b"".join(head.frontier), head.note),
        )


def _head(row: Sequence[Any]) -> Head:
    size, at, packed, note = row
    return Head(size, unpack_frontier(packed), note, at)


def _parts(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (values[i : i + _MANY] for i in range(0, len(values), _MANY))


def _marks(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values))
