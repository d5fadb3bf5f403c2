"""A ledger as one portable file: what the store holds and no keys. Written and read a commit at a time.

The file begins with the line `renkei ledger export 1` (its end of line included); then come frames:

    length   4 bytes, big-endian: how long the body is
    check    4 bytes: the first of SHA-256 of the digest before and the length
    body     an array of MessagePack
    digest   32 bytes: SHA-256 of the digest before and the body

"The digest before" is that of the frame before, and for the first frame SHA-256 of the first line. So a file
that ends within a frame is told from one that was changed: a length can be believed before its body is there.
The bodies, by their first element:

    ["ledger", origin, verifier key]          the first frame, and only the first. The verifier key is a
                                              C2SP vkey; it tells nothing about who made the file.
    ["commit", size, at, note, units, events] all that one durable step added. `size` is the number of events
                                              up to here, `at` the time of the commit (ISO 8601, UTC), `note`
                                              the signed checkpoint (C2SP tlog-checkpoint) of that size.
                                              units: [message id, first position, last position], ascending.
                                              events: [stream, version, topic, state], by position.
    ["cosignatures", size, lines]             further signature lines of the checkpoint of that size, each
                                              without its end of line; anywhere after its commit.
    ["end", size]                             an export was finished here. Commits may follow: the next one.

Positions count from 1 and are dense; the versions of a stream likewise. The log's leaf of an event is
SHA-256(0x00, entry), where the entry is the MessagePack array [stream, version, topic, SHA-256(state)], and
the root of a checkpoint is that of RFC 9162 over all leaves so far: frontier and tree nodes follow from the
events and are not in the file. The signatures of the checkpoints cover events and their order. They do not
cover `at` (which must not go back), the cosignatures (each has its own signature) and the units (which must
fit the message ids within the states).
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, BinaryIO

import msgpack
from eventsourcing.persistence import IntegrityError, StoredEvent

from broker.ledger.events import message_id_of
from broker.ledger.merkle import root_of
from broker.ledger.notes import NoteInvalid, NoteVerifier, signer_of
from broker.ledger.store import Commit, Head, Outcome, Store, next_commit

FIRST_LINE = b"renkei ledger export 1\n"
_HEADER, _DIGEST = 8, 32
_SYNCED = 1 << 26  # bytes from one fsync to the next
_PAGE = 2_000  # events that are read together
_COMMITS = 64  # that are read together: each may be as large as a batch of the ledger
_PUT, _PUT_BYTES = 10_000, 1 << 24  # events that are put in one transaction, and their size
_STREAMS = 1 << 16  # whose versions are in memory
_EMPTY = Head()

Progress = Callable[[int, int], None]


class Wrong(Exception):
    """What is read is not a valid ledger: the first wrong position, and the reason."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(f"position {position}: {reason}")
        self.position = position
        self.reason = reason


class FileWrong(Wrong):
    """The same, of a file. What stands before that position is valid."""


class OtherLedger(Exception):
    """File and store do not hold the same ledger, or have gone different ways."""


@dataclass(frozen=True)
class Extent:
    """How far a file was read: its last whole commit, and whether the last export into it was finished."""

    origin: str
    head: Head
    finished: bool


@dataclass(frozen=True)
class _Commit:
    """A commit as it lies in a file or a store, before anything of it was checked."""

    size: int
    at: str
    note: str
    units: Sequence[tuple[str, int, int]]
    events: Sequence[StoredEvent]


@dataclass(frozen=True)
class _Cosigned:
    size: int
    lines: Sequence[str]


@dataclass(frozen=True)
class _End:
    size: int


class _Chain:
    """Checks commits one after another, from the empty log or from a head that is known.

    `before(stream, version)` tells the version that a stream has in the store there, if it is at least
    version - 1; without it, the first version that is met of a stream is believed (it was signed).
    """

    def __init__(
        self,
        verifier: NoteVerifier,
        wrong: type[Wrong],
        head: Head = _EMPTY,
        before: Callable[[str, int], int] = lambda stream, version: version - 1,
    ) -> None:
        self.head = head
        self.verifier = verifier
        self._wrong = wrong
        self._before = before
        self._versions: dict[str, int] = {}

    def follow(self, found: _Commit) -> Commit:
        """The commit with all that follows from it, as a store takes it. Raises Wrong."""
        first = self.head.size + 1
        if not found.events or found.size != self.head.size + len(found.events):
            raise self._wrong(first, f"the commit up to {found.size} is not the next one")
        try:
            checkpoint = self.verifier.checkpoint(found.note)
            units = {message_id: Outcome(first, last) for message_id, first, last in found.units}
            made = next_commit(self.head, found.events, units, found.at, lambda size, root: found.note)
        except NoteInvalid as error:
            raise self._wrong(first, f"the checkpoint at {found.size} is not valid: {error}") from error
        except (UnicodeEncodeError, OverflowError) as error:
            raise self._wrong(first, "the bytes of an event were changed") from error
        signed = checkpoint.origin, checkpoint.size, checkpoint.root
        if signed != (self.verifier.name, found.size, root_of(made.head.frontier)):
            raise self._wrong(
                first, f"the events up to the checkpoint at {found.size} are not the ones it signed"
            )
        if made.head.at != found.at:
            raise self._wrong(first, f"the time of the commit up to {found.size} was changed")
        self._check_units(first, found)
        self._check_versions(first, found.events)
        self.head = made.head
        return made

    def forget(self) -> None:
        """Keep memory bounded; only while the store of `before` has all that was followed."""
        if len(self._versions) > _STREAMS:
            self._versions.clear()

    def _check_units(self, first: int, found: _Commit) -> None:
        """Each event lies in the unit that it names, and every unit lies in its commit."""
        owners: dict[int, str] = {}
        end, names = first - 1, set()
        for message_id, start, last in found.units:
            if not end < start <= last <= found.size or message_id in names:
                raise self._wrong(max(first, end), "the units of a commit do not fit it")
            owners |= dict.fromkeys(range(start, last + 1), message_id)
            names.add(message_id)
            end = last
        for position, stored in enumerate(found.events, first):
            if message_id_of(stored.state) not in (None, owners.get(position)):
                raise self._wrong(position, "the event is of another unit")

    def _check_versions(self, first: int, events: Sequence[StoredEvent]) -> None:
        for position, stored in enumerate(events, first):
            stream, version = str(stored.originator_id), stored.originator_version
            known = self._versions.get(stream)
            if version != (self._before(stream, version) if known is None else known) + 1:
                raise self._wrong(position, f"version {version} of its stream is out of order")
            self._versions[stream] = version


class _Reader:
    """The frames of a file up to a number of bytes; `end` is where the last whole one ends."""

    def __init__(self, file: BinaryIO, limit: int | None) -> None:
        self._file = file
        self._limit = file.seek(0, os.SEEK_END) if limit is None else limit
        self.end = 0
        self.digest = sha256(FIRST_LINE).digest()
        self.position = 1  # of the first event that is not in the frames read so far
        self.origin, self.verifier_key = "", ""

    def open(self) -> bool:
        """Read the first line and the first frame; False where the file ends before that."""
        self._file.seek(0)
        line = self._file.read(min(len(FIRST_LINE), self._limit))
        if not FIRST_LINE.startswith(line):
            raise FileWrong(1, "the file is not the export of a ledger")
        if len(line) < len(FIRST_LINE):
            return False
        self.end = len(FIRST_LINE)
        match self._body():
            case None:
                self.end = 0
                return False
            case ["ledger", str(origin), str(verifier_key)]:
                self.origin, self.verifier_key = origin, verifier_key
                return True
        raise FileWrong(1, "the file does not begin with its ledger's name")

    def frames(self) -> Iterator[_Commit | _Cosigned | _End]:
        """All whole frames after the first."""
        while (body := self._body()) is not None:
            match body:
                case ["commit", int(size), str(at), str(note), [*units], [*events]]:
                    yield _Commit(size, at, note, self._units(units), self._events(events))
                    self.position = size + 1
                case ["cosignatures", int(size), [*lines]] if all(isinstance(line, str) for line in lines):
                    yield _Cosigned(size, lines)
                case ["end", int(size)]:
                    yield _End(size)
                case _:
                    raise FileWrong(self.position, "a frame of the file holds something else")

    def progress(self) -> tuple[int, int]:
        return self.end, self._limit

    def _body(self) -> Any:
        """The body of the next frame; None where the file ends before that frame does."""
        header = self._file.read(_HEADER) if self._limit - self.end >= _HEADER else b""
        length, check = header[:4], header[4:]
        if not header:
            return None
        if sha256(self.digest + length).digest()[:4] != check:
            raise FileWrong(self.position, f"the frame at byte {self.end} was changed")
        size = int.from_bytes(length)
        end = self.end + _HEADER + size + _DIGEST
        if end > self._limit:
            return None
        body = self._file.read(size)
        digest = sha256(self.digest + body).digest()
        if self._file.read(_DIGEST) != digest:
            raise FileWrong(self.position, f"the frame at byte {self.end} was changed")
        self.end, self.digest = end, digest
        try:
            return msgpack.unpackb(body)
        except (ValueError, TypeError) as error:
            raise FileWrong(self.position, "a frame of the file is no MessagePack") from error

    def _units(self, units: Sequence[Any]) -> list[tuple[str, int, int]]:
        found = []
        for unit in units:
            match unit:
                case [str(message_id), int(first), int(last)]:
                    found.append((message_id, first, last))
                case _:
                    raise FileWrong(self.position, "a unit is malformed")
        return found

    def _events(self, events: Sequence[Any]) -> list[StoredEvent]:
        found = []
        for position, event in enumerate(events, self.position):
            match event:
                case [str(stream), int(version), str(topic), bytes(state)]:
                    found.append(
                        StoredEvent(
                            originator_id=stream, originator_version=version, topic=topic, state=state
                        )
                    )
                case _:
                    raise FileWrong(position, "an event is malformed")
        return found


class _Writer:
    """Appends frames to a file; what is written is durable now and then, and after `sync`."""

    def __init__(self, file: BinaryIO, end: int, digest: bytes) -> None:
        self._file = file
        self._digest = digest
        self._open = 0
        if file.seek(0, os.SEEK_END) > end:
            file.truncate(end)  # a torn end
        file.seek(end)
        if not end:
            file.write(FIRST_LINE)

    def frame(self, *body: Any) -> None:
        packed: bytes = msgpack.packb(body)
        length = len(packed).to_bytes(4)
        check = sha256(self._digest + length).digest()[:4]
        self._digest = sha256(self._digest + packed).digest()
        self._file.write(length + check + packed + self._digest)
        self._open += len(packed)
        if self._open > _SYNCED:
            self.sync()

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._open = 0


def export(
    store: Store,
    verifier_key: str,
    file: BinaryIO,
    *,
    upto: Head | None = None,
    progress: Progress = lambda done, total: None,
) -> Head:
    """Bring a file (opened "r+b") up to the head of a ledger as it is now, or to `upto`; returns that head.

    Durable when it returns, at any size of the ledger in the memory of some commits. What the file holds is
    checked and stays; a torn end is cut off. Everything that is added was checked against its checkpoint.
    Raises FileWrong, OtherLedger, Wrong where the ledger is damaged, NoteInvalid for a key that is none, and
    BlockingIOError while another export into the file runs.
    """
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    head = store.head() if upto is None else upto
    verifier = NoteVerifier(verifier_key)
    reader = _Reader(file, None)
    chain = _Chain(verifier, FileWrong)
    cosigned: set[bytes] = set()
    finished = False
    if reader.open():
        if (reader.origin, reader.verifier_key) != (verifier.name, verifier_key.strip()):
            raise OtherLedger(f"the file holds {reader.origin}")
        for found in _followed(reader, chain):
            finished = isinstance(found, _End)
            if isinstance(found, _Cosigned):
                cosigned.update(_mark(found.size, line) for line in found.lines)
            progress(chain.head.size, head.size)
        _check_part_of(store, chain.head, head)
    writer = _Writer(file, reader.end, reader.digest)
    if not reader.end:
        writer.frame("ledger", verifier.name, verifier_key.strip())
    chain = _Chain(verifier, Wrong, chain.head)
    for stored in _stored(store, chain.head.size, head.size):
        chain.follow(stored)
        chain.forget()
        events = [(str(e.originator_id), e.originator_version, e.topic, e.state) for e in stored.events]
        writer.frame("commit", stored.size, stored.at, stored.note, stored.units, events)
        progress(stored.size, head.size)
        finished = False
    for size in _sizes(store, head.size):
        if lines := [line for line in store.cosignatures(size) if _mark(size, line) not in cosigned]:
            writer.frame("cosignatures", size, lines)
            finished = False
    if not finished:
        writer.frame("end", head.size)
    writer.sync()
    return head


def header(file: BinaryIO) -> tuple[str, str]:
    """The origin of the ledger in a file, and the verifier key that the file names. Raises FileWrong.

    By a file's own key it is known that the file fits together, and not who made it.
    """
    reader = _reader(file, None)
    return reader.origin, reader.verifier_key


def check(
    file: BinaryIO,
    verifier_key: str,
    *,
    limit: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Extent:
    """Read a file (its first `limit` bytes) and check everything in it. Progress is in bytes.

    Raises FileWrong, OtherLedger where the key is of another ledger, and NoteInvalid for a key that is none.
    """
    reader, verifier = _opened(file, limit, verifier_key)
    chain = _Chain(verifier, FileWrong)
    finished = False
    for found in _followed(reader, chain):
        finished = isinstance(found, _End)
        progress(*reader.progress())
    return _extent(reader, chain.verifier, chain.head, finished)


def put(
    file: BinaryIO,
    store: Store,
    verifier_key: str,
    *,
    limit: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Extent:
    """Put what a file holds (in its first `limit` bytes) into a store, from where that store ends.

    Every commit is checked before it is put; where one is wrong, those before it are in the store. Where the
    store has commits already, the file must have the same checkpoint at their end. Progress and errors are
    those of `check`; OtherLedger also where file and store have gone different ways.
    """
    reader, verifier = _opened(file, limit, verifier_key)
    intake = _Intake(store, verifier)
    finished = False
    try:
        for found in reader.frames():
            finished = isinstance(found, _End)
            if isinstance(found, _Commit):
                intake.commit(found)
            else:
                _check_mark(found, intake.last.size, verifier)
                if isinstance(found, _Cosigned):
                    intake.cosign(found)
            progress(*reader.progress())
    finally:
        intake.flush()  # also where a later one is wrong
    intake.check_end()
    return _extent(reader, verifier, intake.last, finished)


class _Intake:
    """A store that commits are put into, several in one transaction."""

    def __init__(self, store: Store, verifier: NoteVerifier) -> None:
        self._store = store
        self._there = store.head()
        self._chain = _Chain(verifier, FileWrong, self._there, self._before)
        self._waiting: list[Commit] = []
        self._size = self._bytes = 0
        self.last = _EMPTY  # the last commit of the file so far

    def commit(self, found: _Commit) -> None:
        if found.size > self._there.size:
            if self.last.size < self._there.size:
                raise OtherLedger(f"the file has no checkpoint at {self._there.size}")
            self._waiting.append(self._chain.follow(found))
            self.last = self._chain.head
            self._size += len(found.events)
            self._bytes += sum(len(event.state) for event in found.events)
            if self._size >= _PUT or self._bytes >= _PUT_BYTES:
                self.flush()
            return
        self.last = Head(found.size, (), found.note, found.at)
        if found.size == self._there.size and (found.note, found.at) != (self._there.note, self._there.at):
            raise OtherLedger(f"file and ledger differ at {found.size}")

    def cosign(self, found: _Cosigned) -> None:
        self.flush()
        if set(found.lines) - set(self._store.cosignatures(found.size)):
            self._store.cosign(found.size, found.lines)

    def flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._size = self._bytes = 0
        if not waiting:
            return
        try:
            self._store.put(waiting)
        except IntegrityError:
            # One of them does not go with what is there, such as a message id that is known: those before
            # it stay, and it is named.
            there = self._store.head().size
            for commit in waiting:
                if commit.head.size > there:
                    self._put_alone(commit)
        self._chain.forget()

    def _put_alone(self, commit: Commit) -> None:
        try:
            self._store.put([commit])
        except IntegrityError as error:
            raise FileWrong(
                commit.first, f"the commit up to {commit.head.size} does not go with those before it"
            ) from error

    def check_end(self) -> None:
        """A file that ends before the store does must be the beginning of the same ledger."""
        if self.last.size < self._there.size:
            _check_part_of(self._store, self.last, self._there)

    def _before(self, stream: str, version: int) -> int:
        if version <= 1:
            return 0  # were there another first version, the store would not take it
        found = self._store.stream(stream, version - 2)
        return found[0].originator_version if found else 0


def _reader(file: BinaryIO, limit: int | None) -> _Reader:
    reader = _Reader(file, limit)
    if not reader.open():
        raise FileWrong(1, "the file ends before its ledger begins")
    return reader


def _opened(file: BinaryIO, limit: int | None, verifier_key: str) -> tuple[_Reader, NoteVerifier]:
    reader, verifier = _reader(file, limit), NoteVerifier(verifier_key)
    if verifier.name != reader.origin:
        raise OtherLedger(f"the file holds {reader.origin}, the key is that of {verifier.name}")
    return reader, verifier


def _extent(reader: _Reader, verifier: NoteVerifier, head: Head, finished: bool) -> Extent:
    done, total = reader.progress()
    return Extent(verifier.name, head, finished and done == total)


def _followed(reader: _Reader, chain: _Chain) -> Iterator[_Commit | _Cosigned | _End]:
    """All frames after the first, checked."""
    for found in reader.frames():
        if isinstance(found, _Commit):
            chain.follow(found)
            chain.forget()
        else:
            _check_mark(found, chain.head.size, chain.verifier)
        yield found


def _check_mark(found: _Cosigned | _End, size: int, verifier: NoteVerifier) -> None:
    """An end is where it says, and cosignatures are of a commit before them and not by the ledger itself."""
    if isinstance(found, _End):
        if found.size != size:
            raise FileWrong(size + 1, f"an export up to {found.size} ends at {size}")
        return
    if not 0 < found.size <= size:
        raise FileWrong(size + 1, "there are cosignatures of no checkpoint")
    try:
        own = any(signer_of(line)[1] == verifier.key_id for line in found.lines)
    except NoteInvalid as error:
        raise FileWrong(found.size, f"a cosignature is malformed: {error}") from error
    if own:
        raise FileWrong(found.size, "a cosignature is by the ledger itself")


def _check_part_of(store: Store, part: Head, head: Head) -> None:
    """Raises OtherLedger where the store does not hold a commit of a file in the same place."""
    if part.size > head.size:
        raise OtherLedger(f"the file goes up to {part.size}, the ledger up to {head.size}")
    if part.size:
        (there,) = store.checkpoints(part.size - 1, 1)
        if (there.size, there.note, there.at) != (part.size, part.note, part.at):
            raise OtherLedger(f"file and ledger differ at {part.size}")


def _mark(size: int, line: str) -> bytes:
    return sha256(f"{size} {line}".encode()).digest()


def _sizes(store: Store, upto: int) -> Iterator[int]:
    """The sizes of all checkpoints."""
    after = 0
    while heads := store.checkpoints(after):
        yield from (head.size for head in heads if head.size <= upto)
        after = heads[-1].size


def _stored(store: Store, after: int, upto: int) -> Iterator[_Commit]:
    """The commits of a store, those of some thousand events read together."""
    while after < upto:
        heads = [head for head in store.checkpoints(after, _COMMITS) if head.size <= upto]
        if not heads:
            raise Wrong(after + 1, "no checkpoint covers this event")
        while heads:
            count = max(1, sum(head.size <= after + _PAGE for head in heads))
            yield from _read(store, after, heads[:count])
            after = heads[count - 1].size
            heads = heads[count:]


def _read(store: Store, after: int, heads: Sequence[Head]) -> Iterator[_Commit]:
    wanted = range(after + 1, heads[-1].size + 1)
    events = store.events(after, len(wanted))
    ids = dict.fromkeys(message_id_of(event.state) for event in events)
    units = store.outcomes([message_id for message_id in ids if message_id is not None])
    rows = [(message_id, unit.first, unit.last) for message_id, unit in units.items()]
    rows.sort(key=lambda row: row[1])
    for there, position in zip(events, wanted, strict=False):
        if there.id != position:
            raise Wrong(position, "an event is missing")
    if len(events) < len(wanted):
        raise Wrong(after + len(events) + 1, "an event is missing")
    first = 0
    for head in heads:
        last = head.size - after
        own = [row for row in rows if first < row[1] - after <= last]
        yield _Commit(head.size, head.at, head.note, own, events[first:last])
        first = last
