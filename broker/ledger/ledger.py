"""The ledger under trio: group commit in front of a store, reading behind it.

Natural batching: while one transaction is being made durable, what arrives waits, and goes together into
the next one. The writer is the only task that appends, so positions rise in commit order.
"""

import errno
import sqlite3
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import trio
from eventsourcing.persistence import Notification, PersistenceError, StoredEvent

from broker.ledger.events import Recorded, Registry
from broker.ledger.store import Conflict, Outcome, Store, StoredUnit
from broker.ledger.vault import Vault

K = TypeVar("K")
T = TypeVar("T")
Clock = Callable[[], datetime]

MAX_EVENTS = 1_000
MAX_BYTES = 1 << 20
FEW, SHORT = 16, 1 << 17  # keys and bytes that are read at once
# How the system, SQLite and PostgreSQL say that a disk is full.
_DISK_FULL = (
    ("errno", errno.ENOSPC),
    ("errno", errno.EDQUOT),
    ("sqlite_errorcode", sqlite3.SQLITE_FULL),
    ("sqlite_errorcode", sqlite3.SQLITE_IOERR_SHMSIZE),  # when a file is opened
    ("sqlstate", "53100"),
)


class StreamMoved(Exception):
    """A stream that the unit expected at one version stood at another; decide again."""

    def __init__(self, conflict: Conflict) -> None:
        super().__init__(f"{conflict.stream} at {conflict.actual}, expected {conflict.expected}")
        self.conflict = conflict


class NotStored(Exception):
    """The store could not take the unit, and nothing of it was stored."""

    code = "S-107"


class NoSpace(NotStored):
    """Likewise, because a disk is full: as soon as there is room, units are taken again."""

    code = "S-109"


class OutcomeUnknown(Exception):
    """The store failed and cannot be read either: the unit may or may not be stored."""

    code = "S-102"


STORE_TROUBLE = (NotStored, OutcomeUnknown, PersistenceError)
"""What a store that is away, or full, gives to whoever appends or reads."""


def trouble_code(trouble: BaseException) -> str:
    """The catalogue's code for it."""
    return trouble.code if isinstance(trouble, NotStored | OutcomeUnknown) else "S-107"


@dataclass(frozen=True)
class Change:
    """What a decision does to one stream: the version it saw (0: none yet) and the events that follow.

    Without events it only requires that the stream still stands where it was seen.
    """

    stream: str
    seen: int
    events: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Unit:
    """Changes that happen together or not at all. The same message id again gets the first outcome.

    Raises ValueError where two changes are to one stream (it cannot have been seen at two versions), or a
    name has no UTF-8 form: refused here, it fails its sender and not the batch it would have been in.
    """

    message_id: str
    changes: tuple[Change, ...]

    def __post_init__(self) -> None:
        streams = {change.stream for change in self.changes}
        "".join((self.message_id, *streams)).encode()
        if len(streams) < len(self.changes):
            raise ValueError(f"unit {self.message_id} changes one stream twice")


class _Pending:
    """A unit on its way, and what became of it."""

    __slots__ = ("done", "result", "unit")

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.done = trio.Event()
        self.result: Outcome | Exception = NotStored("the writer stopped before this unit's turn")


class Ledger:
    """One agency's ledger. `run` must be running while `append` is called."""

    def __init__(self, name: str, store: Store, registry: Registry, vault: Vault, clock: Clock) -> None:
        self.name = name
        self.store = store
        self.registry = registry
        self.vault = vault
        self._clock = clock
        self._waiting: deque[_Pending] = deque()
        self._arrived = trio.Event()
        self._stopped = False
        self._writer = trio.CapacityLimiter(1)
        self._readers = trio.CapacityLimiter(4)
        self._grown = trio.Event()
        self.position = self._foreign = store.head().size
        self._lasts: dict[type[Any], int] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until cancelled. A commit that has begun is finished first, and every waiting unit hears."""
        task_status.started()
        try:
            while True:
                await trio.lowlevel.checkpoint_if_cancelled()
                while not self._waiting:
                    self._arrived = trio.Event()
                    await self._arrived.wait()
                await self._commit(self._take())
        finally:
            self._stopped = True
            for pending in self._waiting:
                pending.done.set()
            self._waiting.clear()

    def _take(self) -> list[_Pending]:
        """What waits now, up to about MAX_EVENTS."""
        taken: list[_Pending] = []
        events = 0
        while self._waiting and events < MAX_EVENTS:
            taken.append(self._waiting.popleft())
            events += _size(taken[-1].unit)
        return taken

    async def _commit(self, batch: Sequence[_Pending]) -> None:
        results: Sequence[Outcome | Exception] = [OutcomeUnknown("the writer stopped")] * len(batch)
        try:
            with trio.CancelScope(shield=True):
                results = await trio.to_thread.run_sync(
                    self._write, [p.unit for p in batch], limiter=self._writer
                )
        finally:
            for pending, result in zip(batch, results, strict=True):
                pending.result = result
                pending.done.set()
        self._advance(self._note([(p.unit, p.result) for p in batch if isinstance(p.result, Outcome)]))

    async def append(self, unit: Unit) -> Outcome:
        """Durable when it returns. Raises StreamMoved, NotStored, OutcomeUnknown."""
        if self._stopped:
            raise NotStored("the writer has stopped")
        pending = _Pending(unit)
        self._waiting.append(pending)
        self._arrived.set()
        await pending.done.wait()
        if isinstance(pending.result, Exception):
            raise pending.result
        return pending.result

    def _note(self, stored: Sequence[tuple[Unit, Outcome]]) -> int:
        """Remember where events of each type stand; returns the last position of these units."""
        end = self.position
        for unit, outcome in sorted(stored, key=lambda each: each[1].first):
            others = outcome.last if outcome.repeated else outcome.first - 1
            if others > end:  # another process appended in between
                self._foreign = others
            if not outcome.repeated:
                for change in unit.changes:
                    self._lasts |= dict.fromkeys(map(type, change.events), outcome.last)
            end = max(end, outcome.last)
        return end

    def _advance(self, position: int) -> None:
        if position > self.position:
            self.position = position
            self._grown.set()
            self._grown = trio.Event()

    async def wait_beyond(self, position: int, *, of: Collection[type[Any]] = (), poll: float = 1.0) -> int:
        """The end of the ledger once it is beyond a position; with `of`, once an event of these types may be.

        It polls too, for other processes' appends, which may be of any type.
        """
        while (max(map(self._latest, of)) if of else self.position) <= position:
            with trio.move_on_after(poll):
                await self._grown.wait()
                continue
            size = (await self._in_thread(self.store.head)).size
            if size > self.position:
                self._foreign = size
            self._advance(size)
        return self.position

    def _latest(self, kind: type[Any]) -> int:
        """Behind this position there is no event of that type."""
        return max(self._foreign, self._lasts.get(kind, 0))

    async def stream(self, stream: str) -> list[Recorded]:
        """All events of a stream, opened."""
        return await self._read(self.store.stream, stream, 1)

    async def streams(self, streams: Sequence[str]) -> dict[str, list[Recorded]]:
        """Several streams at one look, each with all its events, opened; [] for one that has not begun."""
        found: dict[str, list[Recorded]] = {stream: [] for stream in streams}
        for recorded in await self._read(self.store.streams, streams, len(found)):
            found[recorded.stream].append(recorded)
        return found

    async def outlines(self, streams: Sequence[str]) -> dict[str, list[Recorded]]:
        """The same with what is sealed left closed (SEALED): for decisions that do not look into it."""
        found: dict[str, list[Recorded]] = {stream: [] for stream in streams}
        for recorded in await self._read(self.store.streams, streams, len(found), closed=True):
            found[recorded.stream].append(recorded)
        return found

    async def at(self, positions: Sequence[int]) -> list[Recorded]:
        """The events at these positions, opened, in the order of their positions."""
        return await self._read(self.store.at, positions, len(positions))

    async def _read(
        self, look: Callable[[K], list[Notification]], key: K, keys: int, *, closed: bool = False
    ) -> list[Recorded]:
        """Look up and open. A short look into a file of this machine is over sooner than a thread has taken
        it up; for whatever takes longer nobody else has to wait."""
        if not keys:
            return []
        if keys > FEW or not self.store.at_hand:
            return await self._in_thread(lambda: self._opened(look(key), closed))
        await trio.lowlevel.checkpoint()
        found = look(key)
        if self.vault.busy or sum(len(stored.state) for stored in found) > SHORT:
            return await self._in_thread(self._opened, found, closed)
        return self._opened(found, closed)

    async def _in_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        return await trio.to_thread.run_sync(call, *arguments, limiter=self._readers)

    def _opened(self, found: Sequence[Notification], closed: bool) -> list[Recorded]:
        opening = None if closed else self.vault.opening()
        return [self.registry.decode(stored, opening) for stored in found]

    def _write(self, units: Sequence[Unit]) -> list[Outcome | Exception]:
        """In the writer's thread: seal, store, and tell each unit the truth about itself."""
        now = self._clock()
        sealed = self._seal(units, now.isoformat(timespec="microseconds"))
        results: list[Outcome | Exception] = []
        for batch in _bounded([unit for unit in sealed if isinstance(unit, StoredUnit)]):
            results += self._store(batch, utc(now))
        stored = iter(results)
        return [next(stored) if isinstance(unit, StoredUnit) else unit for unit in sealed]

    def _seal(self, units: Sequence[Unit], at: str) -> list[StoredUnit | NotStored]:
        """A unit that cannot be sealed is refused alone; all keys are made durable together."""
        keys = [_attempt(self._keys, unit, at) for unit in units]
        ensured = _attempt(self.vault.ensure, {k for found in keys if isinstance(found, set) for k in found})
        if isinstance(ensured, NotStored):
            return [_refused(ensured.__cause__ or ensured) for _ in units]
        return [
            found if isinstance(found, NotStored) else _attempt(self._stored, unit, at)
            for unit, found in zip(units, keys, strict=True)
        ]

    def _keys(self, unit: Unit, at: str) -> set[str]:
        events = (domain_event for change in unit.changes for domain_event in change.events)
        return {key for domain_event in events if (key := self.registry.key_id(domain_event, at))}

    def _stored(self, unit: Unit, at: str) -> StoredUnit:
        events: list[StoredEvent] = []
        for change in unit.changes:
            for version, domain_event in enumerate(change.events, change.seen + 1):
                events.append(
                    self.registry.encode(
                        change.stream, version, domain_event, unit.message_id, at, self.vault
                    )
                )
        return StoredUnit(unit.message_id, {c.stream: c.seen for c in unit.changes}, tuple(events))

    def _store(self, units: Sequence[StoredUnit], at: str) -> list[Outcome | Exception]:
        try:
            results: Sequence[Outcome | Conflict] = self.store.append(units, at)
        except PersistenceError as error:
            return self._read_back(units, error)
        return [StreamMoved(r) if isinstance(r, Conflict) else r for r in results]

    def _read_back(self, units: Sequence[StoredUnit], error: Exception) -> list[Outcome | Exception]:
        """After a failure: what is in the store was stored, what is not was not."""
        why = f"{type(error).__name__}: {error}"
        try:
            found: Mapping[str, Outcome] = self.store.settled([unit.message_id for unit in units])
        except PersistenceError:
            return [OutcomeUnknown(why) for _ in units]
        return [found.get(unit.message_id) or _not_stored(why, error) for unit in units]


def utc(moment: datetime) -> str:
    """A time as the store keeps it for commits, so that texts sort as times do."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _size(unit: Unit) -> int:
    return max(1, sum(len(change.events) for change in unit.changes))


def _refused(cause: BaseException) -> NotStored:
    return _not_stored(f"{type(cause).__name__} while sealing", cause)


def _not_stored(why: str, cause: BaseException) -> NotStored:
    refused = NoSpace(f"no space left: {why}") if lacks_space(cause) else NotStored(why)
    refused.__cause__ = cause
    return refused


def lacks_space(error: BaseException | None) -> bool:
    """Whether what failed did so because a disk is full."""
    while error is not None:
        if any(getattr(error, name, None) == value for name, value in _DISK_FULL):
            return True
        error = error.__cause__
    return False


def _attempt(call: Callable[..., T], *arguments: Any) -> T | NotStored:
    try:
        return call(*arguments)
    except Exception as error:  # noqa: BLE001 # whatever sealing met, the waiting caller must hear of it
        return _refused(error)


def _bounded(units: Sequence[StoredUnit]) -> Iterable[list[StoredUnit]]:
    """Split by bytes: one transaction stays bounded however large its events are."""
    batch: list[StoredUnit] = []
    size = 0
    for unit in units:
        weight = sum(len(stored.state) for stored in unit.events)
        if batch and size + weight > MAX_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(unit)
        size += weight
    if batch:
        yield batch
