"""Checking a ledger from its file alone, with nothing but its public verifier key.

It reads the rows themselves, not through the store, and names the first position that is wrong.
"""

import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from eventsourcing.persistence import StoredEvent

from broker.ledger.events import leaf_data, message_id_of
from broker.ledger.merkle import HASH_SIZE, TILE_WIDTH, Frontier, grow, leaf_hash, perfect_root, root_of
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


def verify_file(
    path: Path, verifier_key: str, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> Verdict:
    """Check every event, tile, checkpoint and unit of an SQLite ledger, also while it is being written.

    Raises NoteInvalid for a bad key. A ledger cut back cleanly to an earlier checkpoint is a valid, shorter
    ledger: only who kept a later checkpoint can tell.
    """
    verifier = NoteVerifier(verifier_key)
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as rows:
        # Text that is no UTF-8 is damage like any other, and must not stop the reading of its row.
        rows.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        rows.execute("BEGIN")  # one snapshot for everything that is read
        return _Check(rows, verifier).run(progress)


class _Wrong(Exception):
    """The first wrong position, and the reason."""


class _Check:
    """One pass over the rows of a ledger."""

    def __init__(self, rows: sqlite3.Connection, verifier: NoteVerifier) -> None:
        self._rows = rows
        self._verifier = verifier
        self._position = 0

    def run(self, progress: Callable[[int, int], None]) -> Verdict:
        try:
            self._events(progress)
        except _Wrong as wrong:
            return Verdict(self._position, *wrong.args)
        except sqlite3.DatabaseError as error:
            return Verdict(self._position, self._position + 1, f"the file cannot be read: {error}")
        return Verdict(self._position)

    def _events(self, progress: Callable[[int, int], None]) -> None:
        query = "SELECT size, frontier, note FROM checkpoint"
        signed = {size: (frontier, note) for size, frontier, note in self._rows.execute(query)}
        total = max(signed, default=0)
        tiles, units = _Tiles(self._rows), _Units(self._rows)
        versions: dict[str, int] = {}
        frontier: Frontier = ()
        covered = 0
        query = (
            "SELECT rowid, originator_id, originator_version, topic, state FROM stored_events ORDER BY rowid"
        )
        for rowid, stream, version, topic, state in self._rows.execute(query):
            position = self._position + 1
            if rowid != position:
                raise _Wrong(position, "a row is missing or was inserted here")
            self._position = position
            if position > total:
                raise _Wrong(position, "no checkpoint covers this row: it was inserted")
            leaf = _leaf(stream, version, topic, state)
            if leaf is None or not tiles.holds(position, leaf):
                raise _Wrong(position, "the stored event is not the one that was logged")
            if version != versions.get(stream, 0) + 1:
                raise _Wrong(position, f"version {version} of its stream is out of order")
            versions[stream] = version
            units.check(position, message_id_of(state))
            tiles.add(leaf)
            _, frontier = grow(position - 1, frontier, (leaf,))
            if position in signed:
                self._checkpoint(position, covered + 1, frontier, *signed.pop(position))
                covered = position
            if position % 1_000 == 0:
                progress(position, total)
        if self._position < total:
            raise _Wrong(self._position + 1, "the last rows are missing")
        if signed:
            raise _Wrong(1, "there is a checkpoint of no size")
        units.check_end(total)
        tiles.check_end(total)
        progress(total, total)

    def _checkpoint(self, size: int, first: int, frontier: Frontier, kept: bytes, note: str) -> None:
        """`first` is the first position that no earlier checkpoint covers: what is wrong is not before it."""
        try:
            checkpoint = self._verifier.checkpoint(str(note))
        except NoteInvalid as error:
            raise _Wrong(first, f"the checkpoint at {size} is not valid: {error}") from error
        if checkpoint.size != size or checkpoint.root != root_of(frontier):
            raise _Wrong(first, f"the events up to the checkpoint at {size} are not the ones it signed")
        if b"".join(frontier) != kept:
            raise _Wrong(first, f"the log state at {size} was changed")


class _Tiles:
    """The tiles as the leaves make them, each compared with the stored one once it is full."""

    def __init__(self, rows: sqlite3.Connection) -> None:
        self._rows = rows
        self._filling: list[bytes] = []  # by level
        self._full: list[int] = []  # by level
        self._stored = b""

    def holds(self, position: int, leaf: bytes) -> bool:
        """Whether the stored tile has this leaf at this position."""
        index, offset = divmod(position - 1, TILE_WIDTH)
        if offset == 0:
            self._stored = self._read(0, index)
        return self._stored[offset * HASH_SIZE : (offset + 1) * HASH_SIZE] == leaf

    def add(self, value: bytes, level: int = 0) -> None:
        if level == len(self._filling):
            self._filling.append(b"")
            self._full.append(0)
        self._filling[level] += value
        if len(self._filling[level]) == TILE_WIDTH * HASH_SIZE:
            self._compare(level)
            self.add(perfect_root(self._filling[level]), level + 1)
            self._filling[level] = b""
            self._full[level] += 1

    def check_end(self, total: int) -> None:
        for level, tile in enumerate(self._filling):
            if tile:
                self._compare(level)
        made = sum(self._full) + sum(tile != b"" for tile in self._filling)
        if self._rows.execute("SELECT COUNT(*) FROM tile").fetchone()[0] != made:
            raise _Wrong(max(1, total), "there are tiles beyond the last event")

    def _compare(self, level: int) -> None:
        index = self._full[level]
        made, stored = self._filling[level], self._read(level, index)
        if made != stored:
            parts = (slice(i * HASH_SIZE, (i + 1) * HASH_SIZE) for i in range(TILE_WIDTH + 1))
            wrong = next(i for i, part in enumerate(parts) if made[part] != stored[part])
            first = (index * TILE_WIDTH + wrong) * TILE_WIDTH**level + 1
            raise _Wrong(first, f"tile {index} of level {level} was changed")

    def _read(self, level: int, index: int) -> bytes:
        query = "SELECT CAST(hashes AS BLOB) FROM tile WHERE level = ? AND idx = ?"
        row = self._rows.execute(query, (level, index)).fetchone()
        return row[0] if row is not None else b""


class _Units:
    """The index of units, walked beside the events: each event carries the message id of its unit."""

    def __init__(self, rows: sqlite3.Connection) -> None:
        self._rows: Iterator[tuple[str, int, int]] = rows.execute(
            "SELECT message_id, CAST(first AS INTEGER), CAST(last AS INTEGER) FROM unit ORDER BY first, last"
        )
        self._unit = ("", 0, 0)

    def check(self, position: int, message_id: str | None) -> None:
        if position > self._unit[2]:
            self._unit = next(self._rows, _NO_UNIT)
            if not position <= self._unit[1] <= self._unit[2]:
                raise _Wrong(self._nearest(position), "the index of units was changed")
        # Bytes without a message id came by the recorder's own door, or from a test of the store alone.
        expected = self._unit[0] if self._unit[1] <= position else None
        if message_id not in (None, expected):
            raise _Wrong(position, "the index of units does not have this event's unit")

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
    except UnicodeEncodeError:
        return None
