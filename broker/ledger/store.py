"""What every store does with units: one algorithm over a narrow transaction, and the in-memory twin.

A store appends a batch of units in one durable transaction. Within it: units seen before are answered
with their first outcome, units whose expectations fail are left out, and the rest get dense positions,
extend the transparency log and are covered by a new signed checkpoint. What a crash leaves behind is
either all of that or nothing.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from eventsourcing.persistence import Notification, StoredEvent

from broker.ledger.events import leaf_data
from broker.ledger.merkle import Frontier, extend_tiles, grow, leaf_hash, root_of

SignCheckpoint = Callable[[int, bytes], str]


@dataclass(frozen=True)
class StoredUnit:
    """Events that are stored together or not at all.

    `expected` gives, for each stream that the decision rested on, the version it had; the unit's events
    go on from there. A stream may be named without an event: then it is only required not to have moved.
    """

    message_id: str
    expected: Mapping[str, int]
    events: tuple[StoredEvent, ...]


@dataclass(frozen=True)
class Outcome:
    """Where a unit's events stand. `repeated` tells that an earlier append with this message id made them."""

    first: int
    last: int
    repeated: bool = False


@dataclass(frozen=True)
class Conflict:
    """A stream moved on since the decision was taken; decide again."""

    stream: str
    expected: int
    actual: int


@dataclass(frozen=True)
class Head:
    """The end of the log: its size, its frontier, and the checkpoint that covers it ("" when empty)."""

    size: int = 0
    frontier: Frontier = ()
    note: str = ""


class Transaction(Protocol):
    """The rows that an append reads and writes; all of it becomes durable together."""

    def head(self) -> Head: ...
    def outcomes(self, message_ids: Sequence[str]) -> dict[str, Outcome]: ...
    def versions(self, streams: Sequence[str]) -> dict[str, int]: ...
    def tile(self, level: int, index: int) -> bytes: ...
    def put_events(self, first: int, events: Sequence[StoredEvent]) -> None: ...
    def put_units(self, units: Mapping[str, Outcome]) -> None: ...
    def put_tiles(self, tiles: Mapping[tuple[int, int], bytes]) -> None: ...
    def put_head(self, head: Head) -> None: ...


class Store(Protocol):
    """The port that the ledger stands on. All calls block; they are made from worker threads."""

    def append(self, units: Sequence[StoredUnit]) -> list[Outcome | Conflict]: ...
    def outcomes(self, message_ids: Sequence[str]) -> dict[str, Outcome]: ...
    def head(self) -> Head: ...
    def stream(self, stream: str, after: int = 0) -> list[Notification]: ...
    def events(self, after: int, limit: int) -> list[Notification]: ...
    def at(self, positions: Sequence[int]) -> list[Notification]: ...  # each once, in order, if it is there
    def tile(self, level: int, index: int) -> bytes: ...
    def checkpoints(self, after: int = 0) -> Iterable[Head]: ...
    def close(self) -> None: ...


def append_units(
    tx: Transaction, units: Sequence[StoredUnit], sign: SignCheckpoint
) -> list[Outcome | Conflict]:
    """The one way in which events get into any store."""
    head = tx.head()
    seen = tx.outcomes([unit.message_id for unit in units])
    versions = tx.versions(list({stream for unit in units for stream in unit.expected}))
    results: list[Outcome | Conflict] = []
    accepted: list[StoredEvent] = []
    new: dict[str, Outcome] = {}
    for unit in units:
        first = seen.get(unit.message_id) or new.get(unit.message_id)
        if first is not None:
            results.append(Outcome(first.first, first.last, repeated=True))
            continue
        moved = next((s for s, v in unit.expected.items() if versions.get(s, 0) != v), None)
        if moved is not None:
            results.append(Conflict(moved, unit.expected[moved], versions.get(moved, 0)))
            continue
        for stored in unit.events:
            versions[str(stored.originator_id)] = stored.originator_version
        start = head.size + len(accepted) + 1
        accepted.extend(unit.events)
        outcome = Outcome(start, start + len(unit.events) - 1)
        if unit.events:
            new[unit.message_id] = outcome
        results.append(outcome)
    if accepted:
        extend_log(tx, head, accepted, sign)
        tx.put_units(new)
    return results


def extend_log(tx: Transaction, head: Head, events: Sequence[StoredEvent], sign: SignCheckpoint) -> None:
    """Put events at the next positions (position = leaf index + 1) and cover them by a checkpoint."""
    leaves = [leaf_hash(leaf_data(stored)) for stored in events]
    size, frontier = grow(head.size, head.frontier, leaves)
    covered = Head(size, frontier, sign(size, root_of(frontier)))
    tx.put_events(head.size + 1, events)
    tx.put_tiles(extend_tiles(tx.tile, head.size, leaves))
    tx.put_head(covered)


class MemoryStore:
    """The in-memory twin of the durable stores: the same contract, lost when the process ends."""

    def __init__(self, sign: SignCheckpoint) -> None:
        self._sign = sign
        self._lock = threading.Lock()
        self._events: list[Notification] = []
        self._streams: dict[str, list[Notification]] = {}
        self._units: dict[str, Outcome] = {}
        self._tiles: dict[tuple[int, int], bytes] = {}
        self._heads: list[Head] = []

    def append(self, units: Sequence[StoredUnit]) -> list[Outcome | Conflict]:
        with self._lock:
            return append_units(self, units, self._sign)

    def close(self) -> None:
        """Nothing is held open."""

    def head(self) -> Head:
        return self._heads[-1] if self._heads else Head()

    def outcomes(self, message_ids: Sequence[str]) -> dict[str, Outcome]:
        return {m: self._units[m] for m in message_ids if m in self._units}

    def versions(self, streams: Sequence[str]) -> dict[str, int]:
        return {s: self._streams[s][-1].originator_version for s in streams if s in self._streams}

    def tile(self, level: int, index: int) -> bytes:
        return self._tiles.get((level, index), b"")

    def stream(self, stream: str, after: int = 0) -> list[Notification]:
        return [n for n in self._streams.get(stream, ()) if n.originator_version > after]

    def events(self, after: int, limit: int) -> list[Notification]:
        return self._events[after : after + limit]

    def at(self, positions: Sequence[int]) -> list[Notification]:
        return [self._events[p - 1] for p in sorted(set(positions)) if 0 < p <= len(self._events)]

    def checkpoints(self, after: int = 0) -> Iterable[Head]:
        return [head for head in self._heads if head.size > after]

    def put_events(self, first: int, events: Sequence[StoredEvent]) -> None:
        for position, stored in enumerate(events, first):
            kept = Notification(
                id=position,
                originator_id=stored.originator_id,
                originator_version=stored.originator_version,
                topic=stored.topic,
                state=stored.state,
            )
            self._events.append(kept)
            self._streams.setdefault(str(stored.originator_id), []).append(kept)

    def put_units(self, units: Mapping[str, Outcome]) -> None:
        self._units.update(units)

    def put_tiles(self, tiles: Mapping[tuple[int, int], bytes]) -> None:
        self._tiles.update(tiles)

    def put_head(self, head: Head) -> None:
        self._heads.append(head)
