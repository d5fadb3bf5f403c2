"""Projections: tables derived from the clear parts of events, thrown away and rebuilt at will.

A projection never sees a sealed field, so it cannot leak one, and rebuilding needs no keys. Where a reader
wants a person's data, the projection gives the position of the event, and the ledger opens it.

Each projection keeps its position and the frontier of the log up to there, written in the same transaction
as its rows. The follower computes that frontier from the events it reads: it checks the log as it goes.
"""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Protocol

import msgpack
import trio
from eventsourcing.persistence import Notification

from broker.ledger.events import Recorded, Registry, leaf_data
from broker.ledger.ledger import Ledger
from broker.ledger.merkle import HASH_SIZE, Frontier, grow, leaf_hash
from broker.ledger.store import Store
from broker.ledger.vault import create_private_file

BATCH = 2_000


class ProjectionMismatch(Exception):
    """A projection does not fit its ledger: the log it was built on is not this log."""


class Rows(Protocol):
    """What a projection may do with its tables; parameters are question marks."""

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Any: ...
    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]]) -> Any: ...


class Projection(Protocol):
    """Tables and how events change them. `apply` gets events in order; sealed fields hold SEALED."""

    name: ClassVar[str]
    tables: ClassVar[Mapping[str, str]]  # table name -> its columns, as in CREATE TABLE name (columns)

    def apply(self, rows: Rows, recorded: Recorded) -> None: ...


class ProjectionTables:
    """The projections of one ledger in an SQLite file of their own, so that they never delay an append."""

    def __init__(self, path: Path, projections: Sequence[Projection]) -> None:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with suppress(FileExistsError):  # another process was first
                create_private_file(path, b"")
        self.path = path
        self._projections = projections
        self._rows = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._rows.execute("PRAGMA journal_mode=WAL")
        # NORMAL: after a loss of power the tables may lag the ledger; they never lead it.
        self._rows.execute("PRAGMA synchronous=NORMAL")
        self._rows.execute(
            "CREATE TABLE IF NOT EXISTS tracking "
            "(name TEXT PRIMARY KEY, position INTEGER NOT NULL, frontier BLOB NOT NULL) WITHOUT ROWID"
        )
        for projection in projections:
            for table, columns in projection.tables.items():
                self._rows.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")

    def close(self) -> None:
        self._rows.close()

    def tracking(self) -> dict[str, tuple[int, Frontier]]:
        """Position and frontier by projection; (0, ()) for one that has not begun."""
        found: dict[str, tuple[int, Frontier]] = {p.name: (0, ()) for p in self._projections}
        for name, position, packed in self._rows.execute("SELECT * FROM tracking").fetchall():
            frontier = tuple(packed[i : i + HASH_SIZE] for i in range(0, len(packed), HASH_SIZE))
            if name in found:  # rows of a projection that is no longer kept stay behind, and do not count
                found[name] = (position, frontier)
        return found

    def catch_up(
        self,
        store: Store,
        registry: Registry,
        *,
        upto: int | None = None,
        progress: Callable[[int], None] = lambda position: None,
    ) -> int:
        """Apply what the ledger has beyond the tables, batch by batch; returns the position reached.

        Raises ProjectionMismatch when the log computed on the way is not the one the checkpoints sign.
        """
        while True:
            tracking = self.tracking()
            places = dict(sorted(tracking.values()))
            if any(places[position] != frontier for position, frontier in tracking.values()):
                raise ProjectionMismatch("two projections at one position come from different logs")
            head = store.head()
            if max(places) > head.size:
                raise ProjectionMismatch(f"projections at {max(places)}, the ledger ends at {head.size}")
            (position, frontier), *ahead = places.items()
            # A batch ends where another projection stands, so that there the two logs are compared.
            ends = [head.size, head.size if upto is None else upto, *(place for place, _ in ahead)]
            wanted = range(position + 1, min(position + BATCH, *ends) + 1)
            if not wanted:
                if position == head.size and frontier != head.frontier:
                    raise ProjectionMismatch(f"the log up to {position} is not the one that was projected")
                return position
            events = store.events(position, len(wanted))
            if [stored.id for stored in events] != [*wanted]:
                raise ProjectionMismatch(f"the ledger has a gap after {position}")
            behind = [p for p in self._projections if tracking[p.name][0] == position]
            last, frontier = grow(position, frontier, (leaf_hash(leaf_data(stored)) for stored in events))
            if last == head.size and frontier != head.frontier:
                raise ProjectionMismatch(f"the events up to {last} are not the ones that were logged")
            self._apply(events, frontier, registry, behind)
            progress(last)

    def _apply(
        self,
        events: Sequence[Notification],
        frontier: Frontier,
        registry: Registry,
        behind: Sequence[Projection],
    ) -> None:
        self._rows.execute("BEGIN IMMEDIATE")
        try:
            for stored in events:
                recorded = registry.decode(stored, None)
                for projection in behind:
                    projection.apply(self._rows, recorded)
            self._rows.executemany(
                "INSERT INTO tracking VALUES (?, ?, ?) ON CONFLICT DO UPDATE "
                "SET position = excluded.position, frontier = excluded.frontier",
                [(p.name, events[-1].id, b"".join(frontier)) for p in behind],
            )
            self._rows.execute("COMMIT")
        except BaseException:
            self._rows.rollback()
            raise

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Read on a connection of its own: readers do not wait for the writer."""
        with closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)) as rows:
            return rows.execute(sql, parameters).fetchall()

    def digests(self) -> dict[str, str]:
        """SHA-256 over all rows of each projection, in the order of their values."""
        result: dict[str, str] = {}
        for projection in self._projections:
            total = sha256()
            for table in sorted(projection.tables):
                rows = self._rows.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 # own table names
                total.update(msgpack.packb([table, sorted(rows, key=repr)]))
            result[projection.name] = total.hexdigest()
        return result


class Follower:
    """Keeps projections up with a live ledger and lets readers wait for a position."""

    def __init__(self, ledger: Ledger, tables: ProjectionTables) -> None:
        self.ledger = ledger
        self.tables = tables
        self.position = min(position for position, _ in tables.tracking().values())
        self._worker = trio.CapacityLimiter(1)
        self._readers = trio.CapacityLimiter(4)
        self._moved = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow until cancelled; ready once the tables have caught up with what was there."""
        await self._catch_up()
        task_status.started()
        while True:
            await self.ledger.wait_beyond(self.position)
            await self._catch_up()

    async def _catch_up(self) -> None:
        self.position = await trio.to_thread.run_sync(
            lambda: self.tables.catch_up(self.ledger.store, self.ledger.registry), limiter=self._worker
        )
        self._moved.set()
        self._moved = trio.Event()

    async def reach(self, position: int) -> None:
        """Wait until the projections show everything up to a position (read your own writes)."""
        while self.position < position:
            await self._moved.wait()

    async def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return await trio.to_thread.run_sync(self.tables.query, sql, parameters, limiter=self._readers)
