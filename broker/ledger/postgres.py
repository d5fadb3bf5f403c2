"""The ledgers of many agencies on one PostgreSQL server: one pool for a process, one schema for each ledger.

What is replaced of eventsourcing's recorder and why: its table lock stops maintenance, its NOTIFY in every
insert makes the commits of all schemas wait for each other, its retries repeat what may have been stored,
and its sequence leaves gaps. Here one advisory lock for each ledger orders the appends, positions come from
the log, and a failure is told once. The tables are made by migrations; the role that appends and reads needs
nothing but INSERT and SELECT.
"""

import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any, LiteralString, NoReturn

import psycopg
from eventsourcing import persistence
from eventsourcing.persistence import (
    ApplicationRecorder,
    Notification,
    ProgrammingError,
    StoredEvent,
    Subscription,
)
from eventsourcing.postgres import PostgresDatastore, PostgresProcessRecorder
from psycopg.rows import dict_row, tuple_row
from psycopg.sql import SQL, Identifier
from psycopg_pool import ConnectionPool, PoolTimeout

from broker.ledger.merkle import TILE_WIDTH, unpack_frontier
from broker.ledger.store import (
    Commit,
    Conflict,
    Head,
    Outcome,
    SchemaMissing,
    SignCheckpoint,
    StoredUnit,
    append_units,
    as_stored,
    check_follows,
    next_commit,
)

MIGRATIONS = sorted((Path(__file__).parent / "migrations").glob("*.sql"))

Connection = psycopg.Connection[Any]
Cursor = psycopg.Cursor[tuple[Any, ...]]

POOL_SIZE = 10
PATIENCE = 5.0  # seconds to wait for a connection of the pool
# A pipeline whose unsent bytes and unread answers both fill their buffers stands still for ever.
_PIPELINED_BYTES = 1 << 18
_SETTINGS = " ".join(
    f"-c {name}={value}"
    for name, value in {
        "statement_timeout": "60s",
        "lock_timeout": "10s",
        "idle_in_transaction_session_timeout": "30s",
        "synchronous_commit": "on",
        "timezone": "UTC",
        "application_name": "renkei",
        # Half a minute after a client is gone without a word, its transaction and its lock are gone, too.
        "tcp_keepalives_idle": "15",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
    }.items()
)
# And so long after a server is gone without a word, nobody waits for its answer any more.
_LINE = {
    "connect_timeout": 5,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


def schema_of(origin: str) -> str:
    """The schema of a ledger, e.g. renkei_990019_addressing for renkei/990019/addressing."""
    return origin.replace("/", "_")


class PostgresDatabase:
    """One server and the pool through which all ledgers of this process use it.

    The address is a connection URI; the password may come from the environment or a password file.
    Connections are opened when they are needed. A failed connection makes the next use look at all others.
    """

    def __init__(self, url: str, size: int = POOL_SIZE) -> None:
        self.url = url
        self.pool: ConnectionPool[Connection] = ConnectionPool(
            url,
            kwargs={"autocommit": True, "row_factory": dict_row, "options": _SETTINGS, **_LINE},
            min_size=0,
            max_size=size,
            timeout=PATIENCE,
            max_idle=60.0,
            reconnect_timeout=0.5,
            reconnect_failed=_try_on,
            num_workers=2,
            open=True,
        )
        self._suspect = threading.Event()

    def store(self, origin: str, sign: SignCheckpoint) -> "PostgresStore":
        """Raises SchemaMissing where the ledger's schema was not made, or is not of this version."""
        schema = schema_of(origin)
        try:
            with self.connection() as connection:
                done = _migrations(connection, Identifier(schema))
        except ProgrammingError as error:  # no schema, no table, or no right to look
            raise SchemaMissing(f"{schema}: {error}") from error
        if missing := [path.stem for path in MIGRATIONS if path.stem not in done]:
            raise SchemaMissing(f"{schema}: {', '.join(missing)}")
        return PostgresStore(_Datastore(self, schema), sign)

    def migrate(self, origin: str, role: str = "") -> list[str]:
        """Bring a ledger's schema up to this version; returns the names of the steps taken.

        It is done by the owner of the schema, who then lets `role` append and read and nothing else. Each
        step is noted beside the tables with the digest of its text. Raises SchemaMissing where a step that
        was taken is not the one that this version knows.
        """
        schema, taken = Identifier(schema_of(origin)), []
        with self.connection() as connection, connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(hashtext('renkei/migrate'))")
            connection.execute(SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
            connection.execute(SQL("SET LOCAL search_path TO {}").format(schema))
            connection.execute(
                "CREATE TABLE IF NOT EXISTS migration "
                "(name text PRIMARY KEY, digest text NOT NULL, at timestamptz NOT NULL DEFAULT now())"
            )
            done = _migrations(connection, schema)
            for path in MIGRATIONS:
                text = path.read_text(encoding="utf-8")
                digest = sha256(text.encode()).hexdigest()
                if path.stem not in done:
                    connection.execute(text.encode())
                    connection.execute("INSERT INTO migration VALUES (%s, %s)", [path.stem, digest])
                    taken.append(path.stem)
                elif done[path.stem] != digest:
                    raise SchemaMissing(
                        f"{schema_of(origin)}: {path.stem} was another text when it was taken"
                    )
            if role:
                for grant in (
                    "GRANT USAGE ON SCHEMA {schema} TO {role}",
                    "GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}",
                    "GRANT INSERT ON stored_events, unit, node, checkpoint, cosignature TO {role}",
                ):
                    connection.execute(SQL(grant).format(schema=schema, role=Identifier(role)))
        return taken

    @contextmanager
    def rows(self, origin: str) -> Iterator["PostgresRows"]:
        """The rows of a ledger as they lie there, of one moment, for broker.ledger.verify."""
        with self.connection() as connection, connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            connection.execute("SET LOCAL statement_timeout = 0")
            yield PostgresRows(connection, schema_of(origin))

    def close(self) -> None:
        self.pool.close()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection of the pool; errors leave as those of eventsourcing.persistence."""
        try:
            if self._suspect.is_set():
                self._suspect.clear()
                self.pool.check()
            with self.pool.connection() as connection:
                yield connection
        except psycopg.Error as error:
            if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
                self._suspect.set()
            _translated(error)


def _try_on(pool: ConnectionPool[Connection]) -> None:
    """The server is away: as long as somebody waits for a connection, try again."""
    if pool.get_stats()["requests_waiting"]:
        pool.check()


class PostgresRows:
    """The rows of a ledger as they lie there (verify.RawLedger), streamed."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection = connection
        self._schema = Identifier(schema)

    def checkpoints(self) -> Iterator[tuple[int, bytes, str, str]]:
        return self._rows("SELECT size, frontier, note, at FROM {}.checkpoint ORDER BY size")

    def events(self) -> Iterator[tuple[int, str, int, str, bytes, bytes]]:
        return self._rows(
            "SELECT notification_id, originator_id, originator_version, topic, state, leaf "
            "FROM {}.stored_events ORDER BY notification_id"
        )

    def nodes(self) -> Iterator[tuple[int, int, bytes]]:
        return self._rows("SELECT level, idx, hash FROM {}.node ORDER BY level, idx")

    def units(self) -> Iterator[tuple[str, int, int]]:
        return self._rows("SELECT message_id, first, last FROM {}.unit ORDER BY first, last")

    def _rows(self, query: LiteralString) -> Iterator[Any]:
        name = f"renkei_{secrets.token_hex(8)}"  # a cursor of the server's side: a ledger may be large
        with self._connection.cursor(name, row_factory=tuple_row) as cursor:
            cursor.itersize = 5_000
            yield from cursor.execute(SQL(query).format(self._schema), binary=True)


def _migrations(connection: Connection, schema: Identifier) -> dict[str, str]:
    """The steps that a schema has taken, with the digests of their texts."""
    rows = connection.execute(SQL("SELECT name, digest FROM {}.migration").format(schema))
    return {row["name"]: row["digest"] for row in rows}


def _translated(error: psycopg.Error) -> NoReturn:
    """The error of eventsourcing with the same name; its text names no row (a row may be a person's)."""
    kind = next(c.__name__ for c in type(error).__mro__ if hasattr(persistence, c.__name__))
    text = error.diag.message_primary or (
        "no connection was free in time" if isinstance(error, PoolTimeout) else "the server cannot be reached"
    )
    raise getattr(persistence, kind)(f"{error.sqlstate or type(error).__name__}: {text}") from error


class _Datastore(PostgresDatastore):
    """A schema of a database, as eventsourcing's recorders want it. It owns no pool."""

    def __init__(self, database: PostgresDatabase, schema: str) -> None:
        self.database = database
        self.schema = schema
        self.originator_id_type = "text"
        self.enable_db_functions = False
        self.single_row_tracking = True
        self.lock_timeout = 10
        self.db_type_names = set()
        self.psycopg_type_adapters = {}
        self.psycopg_python_types = {}

    def register_type_adapters(self) -> None:
        """There are no types of our own: rows go as arrays of plain columns."""

    @contextmanager
    def get_connection(self) -> Iterator[Connection]:
        with self.database.connection() as connection:
            yield connection

    def close(self) -> None:
        """The pool belongs to the database."""


class PostgresStore(PostgresProcessRecorder):
    """A durable store; also a ProcessRecorder of eventsourcing, so that its test cases hold for it."""

    at_hand = False

    def __init__(self, datastore: _Datastore, sign: SignCheckpoint) -> None:
        super().__init__(datastore, tracking_table_name="tracking")
        self._database = datastore.database
        self._sign = sign
        self._sql = _Statements(datastore.schema)

    def close(self) -> None:
        """The pool belongs to the database."""

    def append(self, units: Sequence[StoredUnit], at: str) -> list[Outcome | Conflict]:
        size = sum(len(event.state) for unit in units for event in unit.events)
        with self._transaction(size) as (rows, _):
            rows.ask([u.message_id for u in units], list({s for u in units for s in u.expected}))
            return append_units(rows, units, at, self._sign)

    def put(self, commits: Sequence[Commit]) -> None:
        size = sum(len(event.state) for commit in commits for event in commit.events)
        with self._transaction(size) as (rows, _):
            rows.ask([], [])
            head = rows.head()
            for commit in commits:
                check_follows(head, commit)
                rows.write(commit)
                head = commit.head

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int]:
        # The recorder's own door: events without a unit or a time. They extend the log like all others.
        with self._transaction(sum(len(event.state) for event in stored_events)) as (rows, connection):
            rows.ask([], [])
            head = rows.head()
            if stored_events:
                events = [as_stored(event) for event in stored_events]
                rows.write(next_commit(head, events, {}, "", self._sign))
            if tracking := kwargs.get("tracking"):
                self._insert_tracking(connection.cursor(), tracking)
        return list(range(head.size + 1, head.size + len(stored_events) + 1))

    @contextmanager
    def _transaction(self, size: int) -> Iterator[tuple["_Rows", Connection]]:
        """One transaction in two trips to the server: begin, lock and read; write and commit."""
        with self._database.connection() as connection:
            pipeline = connection.pipeline() if size <= _PIPELINED_BYTES else nullcontext()
            with pipeline, connection.transaction():
                yield _Rows(connection, self._sql), connection

    def subscribe(
        self, gt: int | None = None, topics: Sequence[str] = ()
    ) -> Subscription[ApplicationRecorder]:
        """Not there: appends send no notification. Followers are woken in the process, and poll."""
        raise NotImplementedError

    def outcomes(self, message_ids: Sequence[str]) -> dict[str, Outcome]:
        return {m: Outcome(f, last) for m, f, last in self._select(self._sql.outcomes, [list(message_ids)])}

    def settled(self, message_ids: Sequence[str]) -> dict[str, Outcome]:
        # An append whose connection was lost may still commit on the server; until then it holds the lock.
        with self._transaction(0) as (rows, _):
            rows.ask(message_ids, [])
            return rows.outcomes(message_ids)

    def head(self) -> Head:
        return next((_head(row) for row in self._select(self._sql.head)), Head())

    def tile(self, level: int, index: int) -> bytes:
        first = index * TILE_WIDTH
        if level == 0:
            found = self._select(self._sql.leaves, [first + 1, first + TILE_WIDTH])
        else:
            found = self._select(self._sql.nodes, [level, first, first + TILE_WIDTH - 1])
        return b"".join(row[0] for row in found)

    def stream(self, stream: str, after: int = 0) -> list[Notification]:
        return _notifications(self._select(self._sql.stream, [stream, after]))

    def streams(self, streams: Sequence[str]) -> list[Notification]:
        return _notifications(self._select(self._sql.streams, [list(streams)]))

    def events(self, after: int, limit: int) -> list[Notification]:
        return _notifications(self._select(self._sql.events, [after, limit]))

    def at(self, positions: Sequence[int]) -> list[Notification]:
        return _notifications(self._select(self._sql.at, [list(positions)]))

    def checkpoints(self, after: int = 0, limit: int = 1_000) -> list[Head]:
        return [_head(row) for row in self._select(self._sql.checkpoints, [after, limit])]

    def position_at(self, at: str) -> int:
        return next((row[0] for row in self._select(self._sql.position_at, [at])), 0)

    def cosign(self, size: int, lines: Sequence[str]) -> None:
        with self._database.connection() as connection, connection.transaction():
            # What a crash loses of these is collected again: no append need wait for them to reach the disk.
            connection.execute("SET LOCAL synchronous_commit TO off")
            connection.execute(self._sql.cosign, [size, list(lines)])

    def cosignatures(self, size: int) -> list[str]:
        return [row[0] for row in self._select(self._sql.cosignatures, [size])]

    def cosigned(self, at_least: int) -> int:
        return int(self._select(self._sql.cosigned, [at_least])[0][0])

    def _select(self, query: Any, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with (
            self._database.connection() as connection,
            connection.cursor(binary=True, row_factory=tuple_row) as cursor,
        ):
            return cursor.execute(query, parameters, prepare=True).fetchall()


_EVENT = "SELECT notification_id, originator_id, originator_version, topic, state FROM {s}.stored_events"


class _Statements:
    """The statements of one schema, put together once."""

    def __init__(self, schema: str) -> None:
        def made(text: str) -> Any:
            return SQL(text).format(s=Identifier(schema))

        self.lock = SQL("SELECT pg_advisory_xact_lock({})").format(
            int.from_bytes(sha256(f"renkei/{schema}".encode()).digest()[:8], signed=True)
        )
        self.head = made("SELECT size, at, frontier, note FROM {s}.checkpoint ORDER BY size DESC LIMIT 1")
        self.outcomes = made(
            "SELECT message_id, first, last FROM {s}.unit WHERE message_id = ANY(%b::text[])"
        )
        # What an append rests on, in one answer: the head, the units that are known, the streams' versions.
        self.ask = made("""
            (SELECT 0, note, size, 0::bigint, at, frontier FROM {s}.checkpoint ORDER BY size DESC LIMIT 1)
            UNION ALL
            SELECT 1, message_id, first, last, NULL, NULL FROM {s}.unit WHERE message_id = ANY(%b::text[])
            UNION ALL
            SELECT 2, name,
                (SELECT max(originator_version) FROM {s}.stored_events WHERE originator_id = name),
                NULL, NULL, NULL
            FROM unnest(%b::text[]) AS name
        """)
        self.write = made("""
            WITH events AS (INSERT INTO {s}.stored_events SELECT * FROM unnest(
                %b::bigint[], %b::text[], %b::bigint[], %b::text[], %b::bytea[], %b::bytea[]
            )), units AS (INSERT INTO {s}.unit SELECT * FROM unnest(
                %b::text[], %b::bigint[], %b::bigint[]
            )), nodes AS (INSERT INTO {s}.node SELECT * FROM unnest(
                %b::int[], %b::bigint[], %b::bytea[]
            )) INSERT INTO {s}.checkpoint VALUES (%b, %b, %b, %b)
        """)
        self.stream = made(
            f"{_EVENT} WHERE originator_id = %b AND originator_version > %b ORDER BY originator_version"
        )
        self.streams = made(
            f"{_EVENT} WHERE originator_id = ANY(%b::text[]) ORDER BY originator_id, originator_version"
        )
        self.events = made(f"{_EVENT} WHERE notification_id > %b ORDER BY notification_id LIMIT %b")
        self.at = made(f"{_EVENT} WHERE notification_id = ANY(%b::bigint[]) ORDER BY notification_id")
        self.leaves = made(
            "SELECT leaf FROM {s}.stored_events WHERE notification_id BETWEEN %b AND %b "
            "ORDER BY notification_id"
        )
        self.nodes = made("SELECT hash FROM {s}.node WHERE level = %b AND idx BETWEEN %b AND %b ORDER BY idx")
        self.checkpoints = made(
            "SELECT size, at, frontier, note FROM {s}.checkpoint WHERE size > %b ORDER BY size LIMIT %b"
        )
        self.position_at = made("SELECT size FROM {s}.checkpoint WHERE at <= %b ORDER BY size DESC LIMIT 1")
        self.cosign = made(
            "INSERT INTO {s}.cosignature SELECT %b::bigint, unnest(%b::text[]) ON CONFLICT DO NOTHING"
        )
        self.cosigned = made("SELECT coalesce(min(size), 0) FROM {s}.cosignature WHERE size >= %b")
        self.cosignatures = made("SELECT line FROM {s}.cosignature WHERE size = %b ORDER BY line")


class _Rows:
    """The rows of one transaction (store.Transaction)."""

    def __init__(self, connection: Connection, statements: _Statements) -> None:
        self._connection = connection
        self._sql = statements
        self._read: tuple[Head, dict[str, Outcome], dict[str, int]] | None = None

    def ask(self, message_ids: Sequence[str], streams: Sequence[str]) -> None:
        """Take the ledger's lock and ask for what the append rests on, as it is once the lock is held."""
        self._execute(self._sql.lock)
        self._answer = self._execute(self._sql.ask, [list(message_ids), list(streams)])

    def _execute(self, query: Any, parameters: Sequence[Any] = ()) -> Cursor:
        cursor: Cursor = self._connection.cursor(binary=True, row_factory=tuple_row)
        return cursor.execute(query, parameters, prepare=True)

    def _found(self) -> tuple[Head, dict[str, Outcome], dict[str, int]]:
        """The answer, waited for when it is first looked at.

        Not a cached_property: until Python 3.12 one lock of the class guards these, so a thread that waits
        here for the ledger's lock would hold up the thread that has it.
        """
        if self._read is not None:
            return self._read
        head, outcomes, versions = Head(), {}, {}
        for kind, name, first, last, at, frontier in self._answer:
            if kind == 0:
                head = Head(first, unpack_frontier(frontier), name, at)
            elif kind == 1:
                outcomes[name] = Outcome(first, last)
            elif first is not None:
                versions[name] = first
        self._read = head, outcomes, versions
        return self._read

    def head(self) -> Head:
        return self._found()[0]

    def outcomes(self, message_ids: Sequence[str]) -> dict[str, Outcome]:
        return self._found()[1]

    def versions(self, streams: Sequence[str]) -> dict[str, int]:
        return self._found()[2]

    def write(self, commit: Commit) -> None:
        events, head = commit.events, commit.head
        self._execute(
            self._sql.write,
            [
                list(range(commit.first, commit.first + len(events))),
                [e.originator_id for e in events],
                [e.originator_version for e in events],
                [e.topic for e in events],
                [e.state for e in events],
                list(commit.leaves),
                list(commit.units),
                [outcome.first for outcome in commit.units.values()],
                [outcome.last for outcome in commit.units.values()],
                [level for level, _ in commit.nodes],
                [index for _, index in commit.nodes],
                list(commit.nodes.values()),
                head.size,
                head.at,
                b"".join(head.frontier),
                head.note,
            ],
        )


def _head(row: Sequence[Any]) -> Head:
    size, at, packed, note = row
    return Head(size, unpack_frontier(packed), note, at)


def _notifications(rows: Sequence[Sequence[Any]]) -> list[Notification]:
    return [
        Notification(id=row[0], originator_id=row[1], originator_version=row[2], topic=row[3], state=row[4])
        for row in rows
    ]
