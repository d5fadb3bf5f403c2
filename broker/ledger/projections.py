"""Projections: tables derived from the clear parts of events, thrown away and rebuilt at will.

A projection never sees a sealed field, so it cannot leak one, and rebuilding needs no keys. Where a reader
wants a person's data, the projection gives the position of the event, and the ledger opens it.

Each projection keeps its position and the frontier of the log up to there, written in the same transaction
as its rows. The follower computes that frontier from the events it reads: it checks the log as it goes.

An event that a projection cannot apply is parked: that projection goes on without it, and the others know
nothing of it. What comes later was then applied to rows that lack it, so applying it late could give other
rows than the ledger says. Right in every case is only to build the projection anew, from the first event on;
that is done beside the live tables, which serve meanwhile, and then takes their place.
"""

import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from os import chown, geteuid
from pathlib import Path
from typing import Any, ClassVar, Protocol

import msgpack
import structlog
import trio
from eventsourcing.persistence import Notification, PersistenceError

from broker.ledger.events import Recorded, Registry, UnreadableEvent, leaf_data
from broker.ledger.files import immediate
from broker.ledger.generations import Generations
from broker.ledger.ledger import Ledger
from broker.ledger.merkle import (
    Frontier,
    ProofInvalid,
    grow,
    leaf_hash,
    subtree_root,
    unpack_frontier,
)
from broker.ledger.store import Head, Store

BATCH = 2_000
PATIENCE = 60.0  # seconds to wait for another process that writes the same tables
LONGEST_PAUSE = 5.0  # seconds between two attempts while a store is away
_BRIEF = 10_000  # steps of SQLite's machine, less than a millisecond
# What SQLite says of its file and not of what it was asked: no event is at fault.
_OF_THE_FILE = frozenset(
    (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    )
)

Progress = Callable[[int], None]
Tracking = dict[str, tuple[int, Frontier]]
_FileId = tuple[Path, int]

logger = structlog.get_logger(__name__)


class ProjectionMismatch(Exception):
    """A projection does not fit its ledger: the log it was built on is not this log (S-105)."""


class RebuildUnderWay(Exception):
    """These tables are being rebuilt already, in this process or another (S-133)."""


class StillParked(Exception):
    """A rebuild met an event that the projection still cannot apply; the live tables stay."""


class Rows(Protocol):
    """What a projection may do with its tables; parameters are question marks."""

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Any: ...
    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]]) -> Any: ...


class Projection(Protocol):
    """Tables and how events change them. `apply` gets events in order; sealed fields hold SEALED.

    It keeps nothing outside its tables: a batch may be rolled back and applied again.
    """

    name: ClassVar[str]
    tables: ClassVar[Mapping[str, str]]  # table name -> its columns, as in CREATE TABLE name (columns)

    def apply(self, rows: Rows, recorded: Recorded) -> None: ...


@dataclass(frozen=True)
class Parked:
    """An event that a projection went on without, and why: a catalogue code and the name of the error."""

    projection: str
    position: int
    reason: str


@dataclass(frozen=True)
class Lag:
    """How far a projection is behind its ledger: in positions, and in seconds since the oldest of those
    events was stored. `parked` counts the events it went on without."""

    projection: str
    position: int
    events: int
    seconds: float
    parked: int


@dataclass(frozen=True)
class _Batch:
    """Events to apply, the frontier of the log behind them, the projections that stand before them, and where
    all of them stood when the batch was made."""

    events: Sequence[Notification]
    frontier: Frontier
    behind: Sequence[Projection]
    tracking: Tracking
    registry: Registry


class ProjectionTables:
    """The projections of one ledger in an SQLite file of their own, so that they never delay an append.

    Several processes may keep the same tables up: each batch is applied by the first.
    """

    def __init__(self, path: Path, projections: Sequence[Projection]) -> None:
        self.path = path
        self.projections = projections
        self._generations = Generations(path)
        self._idle: list[tuple[_FileId, sqlite3.Connection]] = []
        self._left: Tracking | None = None  # where the last batch left all of them, if it was of here
        with self._generations.alone() as alone:
            if alone:
                self._generations.clean()
        self._open()

    def _open(self) -> None:
        self._file = self._generations.live()
        if not self._file.exists():
            self._file.touch(0o600)
        self._checked, self._left = False, None
        self._rows = sqlite3.connect(
            self._file, isolation_level=None, check_same_thread=False, timeout=PATIENCE
        )
        try:
            self._prepare()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            raise ProjectionMismatch(f"{self._file.name} is damaged: {error}") from error

    def _prepare(self) -> None:
        self._rows.execute("PRAGMA journal_mode=WAL")
        # NORMAL: after a loss of power the tables may lag the ledger; they never lead it.
        self._rows.execute("PRAGMA synchronous=NORMAL")
        self._rows.execute(
            "CREATE TABLE IF NOT EXISTS tracking "
            "(name TEXT PRIMARY KEY, position INTEGER NOT NULL, frontier BLOB NOT NULL) WITHOUT ROWID"
        )
        self._rows.execute(
            "CREATE TABLE IF NOT EXISTS parked (name TEXT, position INTEGER, reason TEXT NOT NULL, "
            "PRIMARY KEY (name, position)) WITHOUT ROWID"
        )
        for projection in self.projections:
            for table, columns in projection.tables.items():
                self._rows.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")

    def leave_unsynced(self) -> None:
        """For tables that are not in use yet: a crash throws them away, and the switch makes them durable.

        Without it, every batch would make the disk wait that the appends wait for.
        """
        self._rows.execute("PRAGMA synchronous=OFF")

    def close(self) -> None:
        self._hang_up()
        self._rows.close()

    def tracking(self) -> Tracking:
        """Position and frontier by projection; (0, ()) for one that has not begun."""
        found: Tracking = {p.name: (0, ()) for p in self.projections}
        frontiers: dict[bytes, Frontier] = {}  # nearly always one and the same
        for name, position, packed in self._rows.execute("SELECT * FROM tracking").fetchall():
            if name in found:  # rows of a projection that is no longer kept stay behind, and do not count
                frontier = frontiers.setdefault(packed, frontiers.get(packed) or unpack_frontier(packed))
                found[name] = (position, frontier)
        return found

    def parked(self) -> list[Parked]:
        """What is parked, by projection and position."""
        kept = {p.name for p in self.projections}
        rows = self._rows.execute("SELECT name, position, reason FROM parked ORDER BY name, position")
        return [Parked(*row) for row in rows.fetchall() if row[0] in kept]

    def lags(self, store: Store, now: datetime) -> list[Lag]:
        """How far each projection is behind the store."""
        size, parked = store.head().size, Counter(each.projection for each in self.parked())
        found = []
        for name, (position, _) in self.tracking().items():
            waiting = store.checkpoints(position, 1) if position < size else []
            since = datetime.fromisoformat(waiting[0].at) if waiting else now
            seconds = max(0.0, (now - since).total_seconds())
            found.append(Lag(name, position, max(0, size - position), seconds, parked[name]))
        return found

    def catch_up(
        self,
        store: Store,
        registry: Registry,
        *,
        upto: int | None = None,
        progress: Progress = lambda position: None,
    ) -> int:
        """Apply what the ledger has beyond the tables, batch by batch; returns the position reached.

        Raises ProjectionMismatch when the log computed on the way is not the one the checkpoints sign.
        """
        while True:
            self._move_over()
            # Where another process has gone further since, the batch is not applied, and this read again.
            tracking, self._left = self._left or self.tracking(), None
            places = dict(sorted(tracking.values()))
            if any(places[position] != frontier for position, frontier in tracking.values()):
                raise ProjectionMismatch("two projections at one position come from different logs")
            head = store.head()
            self._check(store, head, places)
            (position, frontier), *ahead = places.items()
            goal = head.size if upto is None else min(upto, head.size)
            # A batch ends where another projection stands, so that there the two logs are compared.
            wanted = range(position + 1, min(position + BATCH, goal, *(place for place, _ in ahead)) + 1)
            if not wanted:
                if position == head.size and frontier != head.frontier:
                    raise ProjectionMismatch(f"the log up to {position} is not the one that was projected")
                return position
            events = store.events(position, len(wanted))
            if [stored.id for stored in events] != [*wanted]:
                raise ProjectionMismatch(f"the ledger has a gap after {position}")
            last, frontier = grow(position, frontier, (leaf_hash(leaf_data(stored)) for stored in events))
            if last == goal and frontier != _logged(store, head, last):
                raise ProjectionMismatch(f"the events up to {last} are not the ones that were logged")
            behind = [p for p in self.projections if tracking[p.name][0] == position]
            if self._apply(_Batch(events, frontier, behind, tracking, registry)):
                self._left = tracking | dict.fromkeys((p.name for p in behind), (last, frontier))
                progress(last)
                if last == goal and not ahead:
                    return last

    def _check(self, store: Store, head: Head, places: Mapping[int, Frontier]) -> None:
        """Once after each opening: whether the log that was projected is the beginning of this one."""
        if max(places) > head.size:
            raise ProjectionMismatch(f"projections at {max(places)}, the ledger ends at {head.size}")
        if not self._checked and any(_logged(store, head, p) != frontier for p, frontier in places.items()):
            raise ProjectionMismatch(f"the log up to {max(places)} is not the one that was projected")
        self._checked = True

    def _apply(self, batch: _Batch) -> bool:
        """False: another process was first, or put other tables in the place of these."""
        try:
            return self._step(batch, self._apply_all)
        except Exception as error:
            # Once more, event by event: only a batch in which something failed pays for savepoints.
            if _of_the_file(error):
                raise
            return self._step(batch, self._apply_each)

    def _step(self, batch: _Batch, apply: Callable[[_Batch], None]) -> bool:
        with self.held():
            if self._moved() or self.tracking() != batch.tracking:
                return False
            apply(batch)
            self._rows.executemany(
                "INSERT INTO tracking VALUES (?, ?, ?) ON CONFLICT DO UPDATE "
                "SET position = excluded.position, frontier = excluded.frontier",
                [(p.name, batch.events[-1].id, b"".join(batch.frontier)) for p in batch.behind],
            )
        return True

    def held(self) -> AbstractContextManager[None]:
        """One transaction, in which nobody else writes."""
        return immediate(self._rows)

    def _apply_all(self, batch: _Batch) -> None:
        rows, decode = self._rows, batch.registry.decode
        for stored in batch.events:
            recorded = decode(stored, None)
            for projection in batch.behind:
                projection.apply(rows, recorded)

    def _apply_each(self, batch: _Batch) -> None:
        for stored in batch.events:
            for projection in batch.behind:
                self._rows.execute("SAVEPOINT event")
                try:
                    projection.apply(self._rows, batch.registry.decode(stored, None))
                except Exception as error:
                    if _of_the_file(error):
                        raise
                    self._rows.execute("ROLLBACK TO event")
                    self._park(projection, stored.id, error)
                self._rows.execute("RELEASE event")

    def _park(self, projection: Projection, position: int, error: Exception) -> None:
        """The reason names the kind of error and not its text, in which there may be what is personal."""
        code = "S-131" if isinstance(error, UnreadableEvent) else "S-132"
        reason = f"{code} {type(error).__name__}"
        self._rows.execute(
            "INSERT OR REPLACE INTO parked VALUES (?, ?, ?)", (projection.name, position, reason)
        )
        logger.error("parked", code=code, projection=projection.name, position=position, reason=reason)

    def _moved(self) -> bool:
        return self._generations.live() != self._file

    def _move_over(self) -> None:
        """Go on in the tables that took the place of these."""
        if self._moved():
            self._hang_up()
            self._rows.close()
            self._open()

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Read on a connection of its own: readers do not wait for the writer."""
        found = self._asked(sql, parameters, 0)
        return found if found is not None else []

    def glance(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]] | None:
        """The same, or None where it takes longer than looking a few rows up by their keys."""
        return self._asked(sql, parameters, _BRIEF)

    def _asked(self, sql: str, parameters: Sequence[Any], steps: int) -> list[tuple[Any, ...]] | None:
        while True:
            file = self._generations.live()
            try:
                with self._reader(file) as rows:
                    found = _within(steps, rows, sql, parameters)
            except sqlite3.OperationalError:
                if self._generations.live() == file:
                    raise
            else:
                # What was read while the tables were replaced is read again: their files may have been
                # going when this connection opened them.
                if self._generations.live() == file:
                    return found

    @contextmanager
    def _reader(self, file: Path) -> Iterator[sqlite3.Connection]:
        """A connection that nobody else has meanwhile. To open one costs thirty times a short question, so it
        is kept for the next, as long as the file of this name is the one that it has open."""
        which = _identity(file)
        rows = None
        while rows is None:
            try:
                known, kept = self._idle.pop()
            except IndexError:
                uri = f"{file.absolute().as_uri()}?mode=ro"
                rows = sqlite3.connect(uri, uri=True, check_same_thread=False)
                break
            if known == which:
                rows = kept
            else:
                kept.close()
        try:
            yield rows
        except BaseException:
            rows.close()
            raise
        self._idle.append((which, rows))

    def _hang_up(self) -> None:
        """Close the readers that are not in use."""
        while self._idle:
            self._idle.pop()[1].close()

    def digests(self) -> dict[str, str]:
        """SHA-256 over all rows of each projection, in the order of their values."""
        result: dict[str, str] = {}
        for projection in self.projections:
            total = sha256()
            for table in sorted(projection.tables):
                columns = [row[1] for row in self._rows.execute(f"PRAGMA table_info({table})")]
                # 1 and 1.0 are equal in an order, and not in a digest.
                order = ", ".join(f"{column}, typeof({column})" for column in columns)
                total.update(msgpack.packb([table, len(columns)]))
                for row in self._rows.execute(f"SELECT * FROM {table} ORDER BY {order}"):  # noqa: S608 # own names
                    total.update(msgpack.packb(row))
            result[projection.name] = total.hexdigest()
        return result

    def state(self) -> tuple[Tracking, dict[str, str]]:
        """Where the projections stand and their digests, both of one moment."""
        self._move_over()
        self._rows.execute("BEGIN")
        try:
            return self.tracking(), self.digests()
        finally:
            self._rows.rollback()

    def copy_to(self, target: Path, kept: Collection[str]) -> None:
        """Make a new file with the rows of the projections that are kept."""
        target.touch(0o600, exist_ok=False)
        owner = self._file.stat()
        if geteuid() == 0:  # an operator's command leaves the file to whom it belongs
            chown(target, owner.st_uid, owner.st_gid)
        if not kept:
            return
        with closing(sqlite3.connect(target, isolation_level=None)) as rows:
            self._rows.backup(rows)
            for projection in self.projections:
                if projection.name not in kept:
                    for table in projection.tables:
                        rows.execute(f"DROP TABLE {table}")
                    rows.execute("DELETE FROM tracking WHERE name = ?", (projection.name,))
                    rows.execute("DELETE FROM parked WHERE name = ?", (projection.name,))


def rebuild(
    path: Path,
    projections: Sequence[Projection],
    store: Store,
    registry: Registry,
    names: Collection[str] = (),
    *,
    whole: bool = False,
    progress: Progress = lambda position: None,
) -> None:
    """Build projections anew, all or those named, beside the live ones, and put them in their place.

    It works on the files alone. Whoever follows or reads these tables, in this process or another, goes on
    meanwhile and moves over by themselves. A crash at any step leaves the old tables or the new ones.

    Raises RebuildUnderWay; with `whole` StillParked, where an event cannot be applied this time either; and
    ProjectionMismatch for events that are not those that were logged, or where projections that are kept do
    not fit the ledger.
    """
    generations = Generations(path)
    with generations.alone() as alone:
        if not alone:
            raise RebuildUnderWay(path.name)
        generations.clean()
        built = {p.name for p in projections if not names or p.name in names}
        kept = {p.name for p in projections} - built
        target = generations.following()
        try:
            with closing(_live(path, projections, kept)) as live:
                if whole:
                    _check_readable(
                        store, registry, [p.position for p in live.parked() if p.projection in built]
                    )
                live.copy_to(target, kept)
                with closing(ProjectionTables(target, projections)) as new:
                    new.leave_unsynced()

                    def told(position: int) -> None:
                        if whole and any(parked.projection in built for parked in new.parked()):
                            raise StillParked(", ".join(sorted(built)))
                        progress(position)

                    new.catch_up(store, registry, progress=told)
                    with live.held():  # nobody moves the live ones any more: the new ones get past them
                        new.catch_up(store, registry, progress=told)
                        new.close()
                        generations.switch(target)
        finally:
            generations.clean()


def _check_readable(store: Store, registry: Registry, positions: Sequence[int]) -> None:
    """Raises StillParked for what is unreadable still: that is known without building anything."""
    try:
        for stored in store.at(positions):
            registry.decode(stored, None)
    except UnreadableEvent as error:
        raise StillParked(str(error)) from error


def _live(path: Path, projections: Sequence[Projection], kept: Collection[str]) -> ProjectionTables:
    """The tables in use. Where nothing of them is kept, damaged ones are given up."""
    try:
        return ProjectionTables(path, projections)
    except ProjectionMismatch:
        if kept:
            raise
        Generations(path).discard()
        return ProjectionTables(path, projections)


def _within(
    steps: int, rows: sqlite3.Connection, sql: str, parameters: Sequence[Any]
) -> list[tuple[Any, ...]] | None:
    """What is found, or None where it takes more than so many steps of SQLite's machine (0: it may)."""
    rows.set_progress_handler((lambda: 1) if steps else None, steps)
    try:
        return rows.execute(sql, parameters).fetchall()
    except sqlite3.OperationalError as error:
        if steps and error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return None
        raise


def _identity(file: Path) -> _FileId:
    """A file's name and number: nobody else gets the number as long as somebody has the file open."""
    try:
        return file, file.stat().st_ino
    except OSError:
        return file, 0


def _of_the_file(error: Exception) -> bool:
    """Whether the file failed and not the event: a full disk parks nothing."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, MemoryError) or (code is not None and code & 0xFF in _OF_THE_FILE)


def _logged(store: Store, head: Head, size: int) -> Frontier:
    """The frontier of the log at a size: of the checkpoint there, or within a commit from the tiles."""
    if size == head.size:
        return head.frontier
    covering = store.checkpoints(size - 1, 1)
    if covering and covering[0].size == size:
        return covering[0].frontier
    frontier: list[bytes] = []
    start = 0
    try:
        for height in reversed(range(size.bit_length())):
            if size >> height & 1:
                frontier.append(subtree_root(store.tile, start, start + (1 << height)))
                start += 1 << height
    except ProofInvalid as error:
        raise ProjectionMismatch(f"the log up to {size} is not whole: {error}") from error
    return tuple(frontier)


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
        """Follow until cancelled; ready once the tables have caught up with what was there.

        While the store is away, or there is no room for the tables, it goes on trying. Raises
        ProjectionMismatch, once it was ready in the group of its nursery.
        """
        await self._enduring(self._catch_up)
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._mend)
            while True:
                await self._enduring(self._follow)

    async def _follow(self) -> None:
        await self.ledger.wait_beyond(self.position)
        await self._catch_up()

    async def _catch_up(self) -> None:
        self.position = await trio.to_thread.run_sync(
            lambda: self.tables.catch_up(self.ledger.store, self.ledger.registry), limiter=self._worker
        )
        self._moved.set()
        self._moved = trio.Event()

    async def _enduring(self, step: Callable[[], Awaitable[None]]) -> None:
        pause = 0.1
        while True:
            try:
                return await step()
            except (PersistenceError, sqlite3.OperationalError) as error:
                logger.warning("projections wait", ledger=self.ledger.name, error=str(error), seconds=pause)
            except (ProjectionMismatch, sqlite3.DatabaseError) as error:
                logger.error("projections stopped", ledger=self.ledger.name, code="S-105", error=str(error))
                if isinstance(error, ProjectionMismatch):
                    raise
                raise ProjectionMismatch(f"{self.tables.path.name} is damaged: {error}") from error
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _mend(self) -> None:
        """What was parked may be readable since the software was changed: try once after each start."""
        parked = await trio.to_thread.run_sync(self.tables.parked, limiter=self._worker)
        if names := sorted({each.projection for each in parked}):
            try:
                await self.rebuild(names, whole=True)
            except (StillParked, RebuildUnderWay, PersistenceError, sqlite3.Error) as error:
                logger.warning("still parked", ledger=self.ledger.name, projections=names, error=str(error))
            else:
                logger.info("parked events applied", ledger=self.ledger.name, projections=names)

    async def rebuild(
        self,
        names: Collection[str] = (),
        *,
        whole: bool = False,
        progress: Progress = lambda position: None,
    ) -> None:
        """As the function `rebuild`, in a thread, while following and reading go on."""

        def told(position: int) -> None:
            trio.from_thread.check_cancelled()
            progress(position)

        path, projections, ledger = self.tables.path, self.tables.projections, self.ledger
        await trio.to_thread.run_sync(
            lambda: rebuild(
                path, projections, ledger.store, ledger.registry, names, whole=whole, progress=told
            )
        )

    async def reach(self, position: int) -> None:
        """Wait until the projections show everything up to a position (read your own writes)."""
        while self.position < position:
            await self._moved.wait()

    async def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """What is brief is asked at once: to wake a thread takes longer. Nobody waits for the rest."""
        await trio.lowlevel.checkpoint()
        found = self.tables.glance(sql, parameters)
        if found is None:
            found = await trio.to_thread.run_sync(self.tables.query, sql, parameters, limiter=self._readers)
        return found
