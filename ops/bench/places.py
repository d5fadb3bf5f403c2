"""Where the bench measures: a SQLite file or a PostgreSQL schema, with its bare floor and the stock library.

All that is compared lies on the same disk, in the same server, in the same run. A place can be sent to
another process.
"""

import os
import secrets
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString, Protocol

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Identifier

from broker.ledger.postgres import PostgresDatabase, schema_of
from broker.ledger.sqlite import LedgerDatastore, SQLiteStore
from broker.ledger.store import SignCheckpoint, Store
from ops.postgresql import Server, newest_programs

Row = tuple[int, str, int, str, bytes]  # position, stream, version, topic, state
WriteRows = Callable[[Sequence[Row]], None]

_PAGE = 5_000  # rows that a bare reader fetches at a time


class Place(Protocol):
    """One ledger under measurement, by its name, and what it is compared with."""

    @property
    def name(self) -> str: ...
    def store(self, ledger: str, sign: SignCheckpoint) -> AbstractContextManager[Store]: ...
    def floor(self) -> AbstractContextManager[WriteRows]: ...  # each call is one durable transaction
    def stock(self) -> dict[str, str]: ...  # the environment of a stock Application
    def select(self, ledger: str) -> Iterator[Row]: ...  # the bare streamed SELECT
    def settle(self, ledger: str = "") -> None: ...  # write out what earlier measurements left
    def settings(self) -> dict[str, str]: ...


@dataclass(frozen=True)
class SQLitePlace:
    """Files in a folder."""

    folder: Path
    name: str = "sqlite"

    @contextmanager
    def store(self, ledger: str, sign: SignCheckpoint) -> Iterator[Store]:
        with closing(SQLiteStore(LedgerDatastore(self._file(ledger)), sign)) as store:
            yield store

    @contextmanager
    def floor(self) -> Iterator[WriteRows]:
        path = self._file(f"floor-{secrets.token_hex(4)}")
        with closing(sqlite3.connect(path, isolation_level=None)) as rows:
            rows.execute("PRAGMA journal_mode=WAL")
            rows.execute("PRAGMA synchronous=FULL")
            rows.execute(
                "CREATE TABLE stored_events (rowid INTEGER PRIMARY KEY, originator_id TEXT NOT NULL, "
                "originator_version INTEGER NOT NULL, topic TEXT NOT NULL, state BLOB NOT NULL, "
                "UNIQUE (originator_id, originator_version))"
            )

            def write(batch: Sequence[Row]) -> None:
                rows.execute("BEGIN IMMEDIATE")
                rows.executemany("INSERT INTO stored_events VALUES (?, ?, ?, ?, ?)", batch)
                rows.execute("COMMIT")

            yield write
        path.unlink()

    def stock(self) -> dict[str, str]:
        return {
            "PERSISTENCE_MODULE": "eventsourcing.sqlite",
            "SQLITE_DBNAME": str(self._file(f"stock-{secrets.token_hex(4)}")),
            "SQLITE_LOCK_TIMEOUT": "60",
        }

    def select(self, ledger: str) -> Iterator[Row]:
        with closing(sqlite3.connect(f"{self._file(ledger).as_uri()}?mode=ro", uri=True)) as rows:
            columns = "rowid, originator_id, originator_version, topic, state"
            yield from rows.execute(f"SELECT {columns} FROM stored_events ORDER BY rowid")  # noqa: S608 # the columns above

    def settle(self, ledger: str = "") -> None:
        if ledger:
            with closing(sqlite3.connect(self._file(ledger), isolation_level=None)) as rows:
                rows.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        os.sync()

    def settings(self) -> dict[str, str]:
        return {"SQLite": sqlite3.sqlite_version, "journal_mode": "WAL", "synchronous": "FULL"}

    def _file(self, ledger: str) -> Path:
        return self.folder / f"{ledger}.sqlite"


@dataclass(frozen=True)
class PostgresPlace:
    """Schemas with names that nobody else uses, in the database at `url`."""

    url: str
    prefix: str
    name: str = "postgresql"

    @contextmanager
    def store(self, ledger: str, sign: SignCheckpoint) -> Iterator[Store]:
        with closing(PostgresDatabase(self.url)) as database:
            database.migrate(self._origin(ledger))
            yield database.store(self._origin(ledger), sign)

    @contextmanager
    def floor(self) -> Iterator[WriteRows]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            schema = Identifier(self._made(connection, "floor"))
            connection.execute(
                SQL(
                    "CREATE TABLE {0}.stored_events (notification_id bigint PRIMARY KEY, "
                    'originator_id text COLLATE "C" NOT NULL, originator_version bigint NOT NULL, '
                    'topic text COLLATE "C" NOT NULL, state bytea NOT NULL, '
                    "UNIQUE (originator_id, originator_version)); "
                    "ALTER TABLE {0}.stored_events ALTER COLUMN state SET STORAGE EXTERNAL"
                ).format(schema)
            )
            copy_in = SQL("COPY {}.stored_events FROM STDIN (FORMAT BINARY)").format(schema)

            def write(batch: Sequence[Row]) -> None:
                with connection.cursor() as cursor, cursor.copy(copy_in) as copy:
                    copy.set_types(["int8", "text", "int8", "text", "bytea"])
                    for row in batch:
                        copy.write_row(row)

            yield write
            connection.execute(SQL("DROP SCHEMA {} CASCADE").format(schema))

    def stock(self) -> dict[str, str]:
        known = conninfo_to_dict(self.url)
        with psycopg.connect(self.url, autocommit=True) as connection:
            schema = self._made(connection, "stock")
        return {
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": str(known.get("dbname", "")),
            "POSTGRES_HOST": str(known.get("host", "")),
            "POSTGRES_PORT": str(known.get("port", "5432")),
            "POSTGRES_USER": str(known.get("user", "")),
            "POSTGRES_PASSWORD": str(known.get("password", "")),
            "POSTGRES_SCHEMA": schema,
        }

    def select(self, ledger: str) -> Iterator[Row]:
        query = SQL(
            "SELECT notification_id, originator_id, originator_version, topic, state "
            "FROM {}.stored_events ORDER BY notification_id"
        ).format(Identifier(schema_of(self._origin(ledger))))
        with (
            psycopg.connect(self.url) as connection,
            connection.cursor("bench", row_factory=tuple_row) as cursor,
        ):
            cursor.itersize = _PAGE
            yield from cursor.execute(query, binary=True)

    def settle(self, ledger: str = "") -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            if ledger:
                schema = Identifier(schema_of(self._origin(ledger)))
                for table in ("stored_events", "unit", "node", "checkpoint"):
                    connection.execute(SQL("VACUUM (ANALYZE) {}.{}").format(schema, Identifier(table)))
            with suppress(psycopg.errors.InsufficientPrivilege):  # on a server of somebody else's
                connection.execute("CHECKPOINT")

    def settings(self) -> dict[str, str]:
        found = {"psycopg": f"{psycopg.__version__} ({psycopg.pq.__impl__})"}
        with psycopg.connect(self.url) as connection:
            for name in (
                "server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_sync_method",
                "shared_buffers", "max_wal_size", "checkpoint_timeout",
            ):  # fmt: skip
                row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
                found["PostgreSQL" if name == "server_version" else name] = row[0] if row else ""
        return found

    def drop(self) -> None:
        """Leave nothing of the bench behind."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            made = connection.execute(
                "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, %s)", [f"{self.prefix}_"]
            ).fetchall()
            for (schema,) in made:
                connection.execute(SQL("DROP SCHEMA {} CASCADE").format(Identifier(schema)))

    def _origin(self, ledger: str) -> str:
        return f"{self.prefix}/{ledger}"

    def _made(self, connection: psycopg.Connection[Any], kind: LiteralString) -> str:
        schema = f"{self.prefix}_{kind}_{secrets.token_hex(4)}"
        connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
        return schema


@contextmanager
def opened(store: str, folder: Path) -> Iterator[Place]:
    """The place that `--store` names: sqlite, postgresql (a server of our own), or a server's address."""
    if store == "sqlite":
        yield SQLitePlace(folder)
        return
    with ExitStack() as stack:
        if store == "postgresql":
            # The server may run as another user, who has to get to its folder.
            folder.chmod(0o711)
            server = stack.enter_context(Server(newest_programs(), folder / "postgresql"))
            store = server.url
        place = PostgresPlace(store, f"bench_{secrets.token_hex(4)}")
        stack.callback(place.drop)
        yield place


@contextmanager
def disk_folder() -> Iterator[Path]:
    """A temporary folder that is on a disk and not in memory. It is gone afterwards."""
    places = (Path(tempfile.gettempdir()), Path("/var/tmp"), Path.cwd())  # noqa: S108 # the folder itself is private
    base = next((place for place in places if file_system(place) not in ("tmpfs", "ramfs")), places[0])
    with tempfile.TemporaryDirectory(prefix="renkei-bench-", dir=base) as folder:
        yield Path(folder)


def file_system(path: Path) -> str:
    """The type of the file system on which a path lies, such as ext4; empty where the system does not say."""
    found, longest = "", -1
    with suppress(OSError):
        for line in Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
            _, mount, kind, *_ = line.split(" ")
            if path.resolve().is_relative_to(mount) and len(mount) >= longest:
                found, longest = kind, len(mount)
    return found
