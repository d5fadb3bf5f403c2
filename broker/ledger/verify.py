"""Checking a ledger from its rows alone, with nothing but its public verifier key.

It reads the rows themselves, not through the store, and names the first position that is wrong.
"""

import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from eventsourcing.persistence import StoredEvent

from broker.ledger.events import leaf_data, message_id_of
from broker.ledger.merkle import Frontier, Node, grow, leaf_hash, root_of
from broker.ledger.notes import NoteInvalid, NoteVerifier

_NO_UNIT = ("", sys.maxsize, sys.maxsize)


@dataclass(frozen=True)
class Verdict:
    """What a check found: how many events, and the first wrong position with the reason, if any."""

    events: int
    wrong_position: int | None = None
    reason: str = ""

    @property
    def ok(self) -> bool:
        return self.wrong_position is None


class RawLedger(Protocol):
    """The rows of a ledger as they lie there, of one moment, in order. Damage may be in any of them."""

    def checkpoints(self) -> Iterable[tuple[int, bytes, str, str]]: ...  # size, frontier, note, at
    def events(self) -> Iterable[tuple[int, str, int, str, bytes, bytes]]: ...  # the last one: the leaf
    def nodes(self) -> Iterable[tuple[int, int, bytes]]: ...  # level, index, hash
    def units(self) -> Iterable[tuple[str, int, int]]: ...  # by first and last position


class DamagedRows(Exception):
    """The rows of a ledger cannot be read."""


def verify(
    rows: RawLedger, verifier_key: str, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> Verdict:
    """Check every event, tree node, checkpoint and unit of a ledger, also while it is being written.

    Raises NoteInvalid for a bad key. A ledger cut back cleanly to an earlier checkpoint is a valid, shorter
    ledger: only who kept a later checkpoint can tell.
    """
    return _Check(rows, NoteVerifier(verifier_key)).run(progress)


def verify_file(
    path: Path, verifier_key: str, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> Verdict:
    """Check an SQLite ledger; as `verify`."""
    with sqlite_rows(path) as rows:
        return verify(rows, verifier_key, progress=progress)


@contextmanager
def sqlite_rows(path: Path) -> Iterator[RawLedger]:
    """The rows of an SQLite ledger as they lie there, of one moment."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        # Text that is no UTF-8 is damage like any other, and must not stop the reading of its row.
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        connection.execute("BEGIN")  # one snapshot for everything that is read
        yield SQLiteRows(connection)


class SQLiteRows:
    """The rows of an SQLite ledger (RawLedger)."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def checkpoints(self) -> Iterable[tuple[int, bytes, str, str]]:
        return self._rows("SELECT size, frontier, note, at FROM checkpoint ORDER BY size")

    def events(self) -> Iterable[tuple[int, str, int, str, bytes, bytes]]:
        return self._rows(
            "SELECT rowid, originator_id, originator_version, topic, state, CAST(leaf AS BLOB) "
            "FROM stored_events ORDER BY rowid"
        )

    def nodes(self) -> Iterable[tuple[int, int, bytes]]:
        return self._rows("SELECT level, idx, CAST(hash AS BLOB) FROM node ORDER BY level, idx")

    def units(self) -> Iterable[tuple[str, int, int]]:
        return self._rows(
            "SELECT message_id, CAST(first AS INTEGER), CAST(last AS INTEGER) FROM unit ORDER BY first, last"
        )

    def _rows(self, query: str) -> Iterator[Any]:
        try:
            # `yield from` would close the cursor with this generator, when the connection may be closed.
            for row in self._connection.execute(query):  # noqa: UP028
                yield row
        except sqlite3.DatabaseError as error:
            raise DamagedRows(f"the file cannot be read: {error}") from error


class _Wrong(Exception):
    """The first wrong position, and the reason."""


class _Check:
    """One pass over the rows of a ledger."""

    def __init__(self, rows: RawLedger, verifier: NoteVerifier) -> None:
        self._rows = rows
        self._verifier = verifier
        self._position = 0
        self._at = ""

    def run(self, progress: Callable[[int, int], None]) -> Verdict:
        try:
            self._events(progress)
        except _Wrong as wrong:
            return Verdict(self._position, *wrong.args)
        except DamagedRows as error:
            return Verdict(self._position, self._position + 1, str(error))
        return Verdict(self._position)

    def _events(self, progress: Callable[[int, int], None]) -> None:
        checkpoints = iter(self._rows.checkpoints())
        signed = next(checkpoints, None)
        units = _Units(self._rows.units())
        nodes: dict[Node, bytes] = {}
        versions: dict[str, int] = {}
        frontier: Frontier = ()
        covered = 0
        for rowid, stream, version, topic, state, kept in self._rows.events():
            position = self._position + 1
            if rowid != position:
                raise _Wrong(position, "a row is missing or was inserted here")
            self._position = position
            if signed is None:
                raise _Wrong(position, "no checkpoint covers this row: it was inserted")
            leaf = _leaf(stream, version, topic, state)
            if leaf != kept:
                raise _Wrong(position, "the stored event is not the one that was logged")
            if version != versions.get(stream, 0) + 1:
                raise _Wrong(position, f"version {version} of its stream is out of order")
            versions[stream] = version
            units.check(position, message_id_of(state))
            _, frontier = grow(position - 1, frontier, (leaf,), nodes)
            if position == signed[0]:
                self._checkpoint(covered + 1, frontier, *signed)
                covered, signed = position, next(checkpoints, None)
            if position % 1_000 == 0:
                progress(position, max(position, signed[0] if signed else 0))
        if signed is not None:
            missing = signed[0] > self._position
            raise _Wrong(
                self._position + 1 if missing else max(1, signed[0]),
                "the last rows are missing" if missing else "there is a checkpoint of no commit",
            )
        units.check_end(self._position)
        self._nodes(nodes)
        progress(self._position, self._position)

    def _checkpoint(self, first: int, frontier: Frontier, size: int, kept: bytes, note: str, at: str) -> None:
        """`first` is the first position that no earlier checkpoint covers: what is wrong is not before it."""
        try:
            checkpoint = self._verifier.checkpoint(str(note))
        except NoteInvalid as error:
            raise _Wrong(first, f"the checkpoint at {size} is not valid: {error}") from error
        if checkpoint.size != size or checkpoint.root != root_of(frontier):
            raise _Wrong(first, f"the events up to the checkpoint at {size} are not the ones it signed")
        if b"".join(frontier) != kept:
            raise _Wrong(first, f"the log state at {size} was changed")
        if str(at) < self._at:
            raise _Wrong(first, f"the time of the commit up to {size} was changed")
        self._at = str(at)

    def _nodes(self, made: dict[Node, bytes]) -> None:
        """The stored roots of full tiles, beside those that the leaves made on the way."""
        for level, index, node in self._rows.nodes():
            if made.pop((level, index), b"") != node:
                raise _Wrong(self._first_of(level, index), f"node {index} of level {level} was changed")
        if made:
            level, index = min(made, key=lambda node: self._first_of(*node))
            raise _Wrong(self._first_of(level, index), f"node {index} of level {level} is missing")

    def _first_of(self, level: int, index: int) -> int:
        """The first position below a node, within what was read."""
        return max(1, min((index << 8 * level) + 1, self._position))


class _Units:
    """The index of units, walked beside the events: each event carries the message id of its unit."""

    def __init__(self, rows: Iterable[tuple[str, int, int]]) -> None:
        self._rows = iter(rows)
        self._unit = ("", 0, 0)

    def check(self, position: int, message_id: str | None) -> None:
        if position > self._unit[2]:
            self._unit = next(self._rows, _NO_UNIT)
            if not position <= self._unit[1] <= self._unit[2]:
                raise _Wrong(self._nearest(position), "the index of units was changed")
        # Bytes without a message id came by the recorder's own door, or from a test of the store alone.
        expected = self._unit[0] if self._unit[1] <= position else None
        if message_id not in (None, expected):
            # Whether this event is at fault, or an earlier one of its unit is missing, nobody can tell.
            raise _Wrong(self._nearest(position), "the index of units does not have this event's unit")

    def check_end(self, total: int) -> None:
        if total >= self._unit[2]:
            self._unit = next(self._rows, _NO_UNIT)
        if self._unit is not _NO_UNIT:
            raise _Wrong(self._nearest(max(1, total)), "the index of units points outside the ledger")

    def _nearest(self, position: int) -> int:
        """Where the unit at fault begins, if that is a place in what was read so far."""
        return self._unit[1] if 0 < self._unit[1] < position else position


def _leaf(stream: str, version: int, topic: str, state: bytes) -> bytes | None:
    stored = StoredEvent(originator_id=stream, originator_version=version, topic=topic, state=state)
    try:
        return leaf_hash(leaf_data(stored))
    except (TypeError, UnicodeEncodeError):
        return None
