"""What every store does with units: one algorithm over a narrow transaction, and the in-memory twin.

A store appends a batch of units in one durable transaction. Within it: units seen before are answered
with their first outcome, units whose expectations fail are left out, and the rest get dense positions,
extend the transparency log and are covered by a new signed checkpoint. What a crash leaves behind is
either all of that or nothing. Rows are only ever added: nothing in a ledger is changed or taken away.
"""

import threading
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

from eventsourcing.persistence import IntegrityError, Notification, StoredEvent

from broker.ledger.events import leaf_data
from broker.ledger.merkle import TILE_WIDTH, Frontier, Node, grow, leaf_hash, root_of

SignCheckpoint = Callable[[int, bytes], str]


def unsigned(_size: int, _root: bytes) -> str:
    """For a store that is read, or takes what was signed before: it signs nothing, so it appends nothing."""
    raise PermissionError("this store was opened without a signing key")


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
    """The end of the log: its size, its frontier, the checkpoint that covers it, and when it was written.

    `at` is UTC in ISO 8601 with microseconds and never lies before that of the commit before, whatever the
    clocks of the writing processes say. Both texts are empty where the log is.
    """

    size: int = 0
    frontier: Frontier = ()
    note: str = ""
    at: str = ""


@dataclass(frozen=True)
class Commit:
    """All that one durable step adds: events from position `first` on, and what is derived from them."""

    first: int
    events: Sequence[StoredEvent]
    leaves: Sequence[bytes]
    nodes: Mapping[Node, bytes]
    units: Mapping[str, Outcome]
    head: Head


class SchemaMissing(Exception):
    """The tables of a ledger were not made yet, or are not those of this version (S-108)."""


class Transaction(Protocol):
    """The rows that an append reads and writes; all of it becomes durable together."""

    def head(self) -> Head: ...
    def outcomes(self, message_ids: Sequence[str]) -> dict[str, Outcome]: ...
    def versions(self, streams: Sequence[str]) -> dict[str, int]: ...
    def write(self, commit: Commit) -> None: ...


class Store(Protocol):
    """The port that the ledger stands on. All calls block; they are made from worker threads, save for short
    looks where `at_hand` says that they wait for nobody: for no server, and no writer."""

    @property
    def at_hand(self) -> bool: ...
    def append(self, units: Sequence[StoredUnit], at: str) -> list[Outcome | Conflict]: ...
    def put(self, commits: Sequence[Commit]) -> None: ...  # as they are; for what another store wrote
    def outcomes(self, message_ids: Sequence[str]) -> dict[str, Outcome]: ...
    def settled(self, message_ids: Sequence[str]) -> dict[str, Outcome]: ...  # once no earlier append may end
    def head(self) -> Head: ...
    def stream(self, stream: str, after: int = 0) -> list[Notification]: ...
    def streams(self, streams: Sequence[str]) -> list[Notification]: ...  # each in its order, at one look
    def events(self, after: int, limit: int) -> list[Notification]: ...
    def at(self, positions: Sequence[int]) -> list[Notification]: ...  # each once, in order, if it is there
    def tile(self, level: int, index: int) -> bytes: ...  # as far as it is filled
    def checkpoints(self, after: int = 0, limit: int = 1_000) -> list[Head]: ...
    def position_at(self, at: str) -> int: ...  # the end of the last commit made at or before this time
    def cosign(self, size: int, lines: Sequence[str]) -> None: ...  # signature lines beside a checkpoint's
    def cosignatures(self, size: int) -> list[str]: ...
    def cosigned(self, at_least: int) -> int: ...  # the next size that has cosignatures, or 0
    def close(self) -> None: ...


def append_units(
    tx: Transaction, units: Sequence[StoredUnit], at: str, sign: SignCheckpoint
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
        tx.write(next_commit(head, accepted, new, at, sign))
    return results


def next_commit(
    head: Head, events: Sequence[StoredEvent], units: Mapping[str, Outcome], at: str, sign: SignCheckpoint
) -> Commit:
    """Put events at the next positions (position = leaf index + 1) and cover them by a checkpoint."""
    leaves = [leaf_hash(leaf_data(stored)) for stored in events]
    nodes: dict[Node, bytes] = {}
    size, frontier = grow(head.size, head.frontier, leaves, nodes)
    covered = Head(size, frontier, sign(size, root_of(frontier)), max(at, head.at))
    return Commit(head.size + 1, events, leaves, nodes, units, covered)


def as_stored(event: StoredEvent) -> StoredEvent:
    """The log hashes what the row holds, and a row holds a UUID as its digits."""
    stream = event.originator_id if isinstance(event.originator_id, str) else event.originator_id.hex
    return replace(event, originator_id=stream)


def check_follows(head: Head, commit: Commit) -> None:
    """Raises IntegrityError for a commit of another log, or one that is not the next."""
    made = next_commit(head, commit.events, commit.units, commit.head.at, lambda size, root: commit.head.note)
    if (made.first, list(made.leaves), made.nodes, made.head) != (
        commit.first, list(commit.leaves), commit.nodes, commit.head
    ):  # fmt: skip
        raise IntegrityError(f"the commit up to {commit.head.size} does not follow the log up to {head.size}")


class MemoryStore:
    """The in-memory twin of the durable stores: the same contract, lost when the process ends."""

    at_hand = False

    def __init__(self, sign: SignCheckpoint) -> None:
        self._sign = sign
        self._lock = threading.Lock()
        self._events: list[Notification] = []
        self._leaves: list[bytes] = []
        self._streams: dict[str, list[Notification]] = {}
        self._units: dict[str, Outcome] = {}
        self._nodes: dict[Node, bytes] = {}
        self._heads: list[Head] = []
        self._cosignatures: dict[int, list[str]] = {}

    def append(self, units: Sequence[StoredUnit], at: str) -> list[Outcome | Conflict]:
        with self._lock:
            return append_units(self, units, at, self._sign)

    def put(self, commits: Sequence[Commit]) -> None:
        with self._lock:
            for commit in commits:
                check_follows(self.head(), commit)
                self.write(commit)

    def close(self) -> None:
        """Nothing is held open."""

    def head(self) -> Head:
        return self._heads[-1] if self._heads else Head()

    def outcomes(self, message_ids: Sequence[str]) -> dict[str, Outcome]:
        return {m: self._units[m] for m in message_ids if m in self._units}

    settled = outcomes  # an append that failed has ended

    def versions(self, streams: Sequence[str]) -> dict[str, int]:
        return {s: self._streams[s][-1].originator_version for s in streams if s in self._streams}

    def tile(self, level: int, index: int) -> bytes:
        places = range(index * TILE_WIDTH, (index + 1) * TILE_WIDTH)
        if level == 0:
            return b"".join(self._leaves[places.start : places.stop])
        return b"".join(self._nodes[level, i] for i in places if (level, i) in self._nodes)

    def stream(self, stream: str, after: int = 0) -> list[Notification]:
        return [n for n in self._streams.get(stream, ()) if n.originator_version > after]

    def streams(self, streams: Sequence[str]) -> list[Notification]:
        return [n for stream in dict.fromkeys(streams) for n in self._streams.get(stream, ())]

    def events(self, after: int, limit: int) -> list[Notification]:
        return self._events[after : after + limit]

    def at(self, positions: Sequence[int]) -> list[Notification]:
        return [self._events[p - 1] for p in sorted(set(positions)) if 0 < p <= len(self._events)]

    def checkpoints(self, after: int = 0, limit: int = 1_000) -> list[Head]:
        return list(islice((head for head in self._heads if head.size > after), limit))

    def position_at(self, at: str) -> int:
        made = bisect_right(self._heads, at, key=lambda head: head.at)
        return self._heads[made - 1].size if made else 0

    def cosign(self, size: int, lines: Sequence[str]) -> None:
        kept = self._cosignatures.setdefault(size, [])
        kept += [line for line in lines if line not in kept]

    def cosignatures(self, size: int) -> list[str]:
        return list(self._cosignatures.get(size, ()))

    def cosigned(self, at_least: int) -> int:
        return min((size for size in self._cosignatures if size >= at_least), default=0)

    def write(self, commit: Commit) -> None:
        for position, stored in enumerate(commit.events, commit.first):
            kept = Notification(
                id=position,
                originator_id=stored.originator_id,
                originator_version=stored.originator_version,
                topic=stored.topic,
                state=stored.state,
            )
            self._events.append(kept)
            self._streams.setdefault(str(stored.originator_id), []).append(kept)
        self._leaves += commit.leaves
        self._nodes.update(commit.nodes)
        self._units.update(commit.units)
        self._heads.append(commit.head)
