"""The portable file: the same ledger out of every store and into every store, and nothing that was changed.

Frames are read and written here by the format's description alone.
"""

import os
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO

import msgpack
import pytest
from eventsourcing.persistence import StoredEvent

from broker.ledger import portable
from broker.ledger.notes import Kind, NoteInvalid, NoteSigner
from broker.ledger.portable import FileWrong, OtherLedger, Wrong
from broker.ledger.postgres import PostgresDatabase
from broker.ledger.store import Head, MemoryStore, Store, StoredUnit
from broker.ledger.verify import verify, verify_file
from tests.ledger.places import AT, SIGNER, Place, open_sqlite, sign
from tests.servers import VERSIONS, Databases

KEY = SIGNER.verifier_key
LATER = "2026-11-21T00:31:00.000000+00:00"
WITNESS = NoteSigner("witness.example", bytes(range(32, 64)), Kind.COSIGNATURE)
OTHER = NoteSigner("test/ledger", bytes(32))  # of the same name
FIRST_LINE = b"renkei ledger export 1\n"


def unit(message_id: str, *changes: tuple[str, int, int], size: int = 40) -> StoredUnit:
    """A unit of events that name it; each change is stream, version seen, number of events."""
    events = tuple(
        StoredEvent(
            originator_id=stream,
            originator_version=seen + number,
            topic="plain/1",
            state=msgpack.packb([message_id, AT, {"n": number}, None, os.urandom(size)]),
        )
        for stream, seen, count in changes
        for number in range(1, count + 1)
    )
    return StoredUnit(message_id, {stream: seen for stream, seen, _ in changes}, events)


def cosign(store: Store, size: int) -> None:
    note = next(head.note for head in store.checkpoints(size - 1, 1))
    store.cosign(size, [WITNESS.line(note.partition("\n\n")[0] + "\n", 1_800_000_000)])


def fill(store: Store) -> Store:
    """Commits of several shapes, beyond a full tile; two of them are cosigned."""
    store.append([unit("a", ("s", 0, 1))], AT)
    store.append([unit("b", ("s", 1, 2), ("t", 0, 1)), unit("c", ("u", 0, 3))], AT)
    for number in range(5):
        units = [unit(f"m-{number}-{each}", (f"x-{number}-{each}", 0, 2)) for each in range(30)]
        store.append(units, AT)
        store.append([unit(f"again-{number}", ("s", 3 + number, 1))], LATER)
    store.append([unit("a", ("s", 0, 1)), unit("large", ("v", 0, 1), size=300_000)], AT)
    cosign(store, 1)
    cosign(store, store.head().size)
    return store


def small(store: Store) -> Store:
    store.append([unit("a", ("s", 0, 1), size=2)], AT)
    store.append([unit("b", ("s", 1, 1), ("t", 0, 2), size=2), unit("c", ("u", 0, 1), size=2)], AT)
    cosign(store, 1)
    store.append([unit("d", ("t", 2, 1), size=2)], LATER)
    return store


def everything(store: Store) -> list[object]:
    """All that a store gives."""
    heads = store.checkpoints(0, 10_000)
    events = store.events(0, 100_000)
    ids = {msgpack.unpackb(event.state)[0] for event in events}
    return [
        store.head(),
        heads,
        events,
        store.outcomes(sorted(ids)),
        [[store.tile(level, index) for index in range(3)] for level in range(3)],
        [store.cosignatures(head.size) for head in heads],
        store.position_at(AT),
        store.stream("s", 2),
    ]


@dataclass
class Target:
    """An empty store, and how what is in it is verified by its rows."""

    store: Store
    verified: Callable[[], int]  # how many events there are


@pytest.fixture(params=["memory", "sqlite", *VERSIONS])
def target(request: pytest.FixtureRequest, tmp_path: Path, databases: Databases) -> Iterator[Target]:
    if request.param == "memory":
        yield Target(store := MemoryStore(sign), lambda: store.head().size)
    elif request.param == "sqlite":
        path = tmp_path / "target.sqlite"
        with closing(open_sqlite(path)) as store_there:

            def verified() -> int:
                verdict = verify_file(path, KEY)
                assert verdict.ok, verdict
                return verdict.events

            yield Target(store_there, verified)
    else:
        database, origin = databases[request.param], f"test/{token_hex(8)}"
        database.migrate(origin)

        def verified_there() -> int:
            with database.rows(origin) as rows:
                verdict = verify(rows, KEY)
            assert verdict.ok, verdict
            return verdict.events

        yield Target(database.store(origin, sign), verified_there)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[BinaryIO]:
    with (tmp_path / "ledger.renkei").open("w+b") as file:
        yield file


def exported(store: Store, file: BinaryIO) -> bytes:
    portable.export(store, KEY, file)
    return written(file)


def written(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def rewrite(file: BinaryIO, content: bytes) -> BinaryIO:
    file.seek(0)
    file.truncate()
    file.write(content)
    return file


# -- the format, by its description ----------------------------------------------------------------------


def frames(content: bytes) -> list[tuple[int, int, Any]]:
    """Where each frame begins and ends, and its body."""
    assert content.startswith(FIRST_LINE)
    before, start, found = sha256(FIRST_LINE).digest(), len(FIRST_LINE), []
    while start < len(content):
        length = content[start : start + 4]
        assert content[start + 4 : start + 8] == sha256(before + length).digest()[:4]
        body = content[start + 8 : start + 8 + int.from_bytes(length, "big")]
        end = start + 8 + len(body) + 32
        before = sha256(before + body).digest()
        assert content[end - 32 : end] == before
        found.append((start, end, msgpack.unpackb(body)))
        start = end
    return found


def sealed(bodies: Sequence[Any]) -> bytes:
    """A file of these bodies, as somebody would write it who has no key of the ledger."""
    before, content = sha256(FIRST_LINE).digest(), FIRST_LINE
    for value in bodies:
        body = value if isinstance(value, bytes) else msgpack.packb(value)
        length = len(body).to_bytes(4, "big")
        content += length + sha256(before + length).digest()[:4] + body
        before = sha256(before + body).digest()
        content += before
    return content


def test_the_file_is_as_it_is_described(file: BinaryIO) -> None:
    store = small(MemoryStore(sign))
    bodies = [body for _, _, body in frames(exported(store, file))]
    heads, events = store.checkpoints(), store.events(0, 10)
    rows = [[e.originator_id, e.originator_version, e.topic, e.state] for e in events]
    assert bodies == [
        ["ledger", "test/ledger", KEY],
        ["commit", 1, AT, heads[0].note, [["a", 1, 1]], rows[:1]],
        ["commit", 5, AT, heads[1].note, [["b", 2, 4], ["c", 5, 5]], rows[1:5]],
        ["commit", 6, LATER, heads[2].note, [["d", 6, 6]], rows[5:]],
        ["cosignatures", 1, store.cosignatures(1)],
        ["end", 6],
    ]
    assert sealed(bodies) == written(file)


# -- out of every store and into every store -------------------------------------------------------------


def test_every_store_gives_and_takes_the_same_ledger(place: Place, target: Target, file: BinaryIO) -> None:
    source = fill(place.store)
    content = exported(source, file)
    assert portable.header(file) == ("test/ledger", KEY)
    checked = portable.check(file, KEY)
    assert (checked.head, checked.finished) == (source.head(), True)
    taken = portable.put(file, target.store, KEY)
    assert (taken.head, taken.finished) == (source.head(), True)
    assert everything(target.store) == everything(source)
    assert target.verified() == source.head().size
    assert exported(target.store, rewrite(file, b"")) == content
    # What was taken in goes on as the ledger that it is.
    source.append([unit("z", ("s", 8, 1))], LATER)
    assert exported(source, file).startswith(content)
    portable.put(file, target.store, KEY)
    assert everything(target.store) == everything(source)
    assert target.store.append([unit("z2", ("s", 9, 1))], LATER)
    target.verified()


def test_an_empty_ledger_has_a_file_too(target: Target, file: BinaryIO) -> None:
    assert [body[0] for _, _, body in frames(exported(MemoryStore(sign), file))] == ["ledger", "end"]
    assert portable.put(file, target.store, KEY) == portable.Extent("test/ledger", Head(), True)
    assert portable.put(file, small(target.store), KEY).finished


def test_a_file_that_is_up_to_date_stays_as_it_is(file: BinaryIO) -> None:
    store = fill(MemoryStore(sign))
    content = exported(store, file)
    assert exported(store, file) == content
    cosign(store, 7)
    grown = exported(store, file)
    assert [body for _, _, body in frames(grown)][-2:] == [
        ["cosignatures", 7, store.cosignatures(7)],
        ["end", store.head().size],
    ]
    target = MemoryStore(sign)
    portable.put(rewrite(file, content), target, KEY)
    portable.put(rewrite(file, grown), target, KEY)
    assert everything(target) == everything(store)


def test_an_export_ends_at_the_head_that_it_saw(place: Place, file: BinaryIO) -> None:
    store = fill(place.store)
    head = store.head()

    def append(done: int, total: int) -> None:
        assert total == head.size
        store.append([unit(f"beside-{done}", (f"beside-{done}", 0, 1))], LATER)

    assert portable.export(store, KEY, file, progress=append) == head
    assert portable.check(file, KEY) == portable.Extent("test/ledger", head, True)
    assert portable.export(store, KEY, file) == store.head() != head
    assert portable.check(file, KEY).head == store.head()


def test_two_exports_do_not_write_into_one_file(file: BinaryIO) -> None:
    store = small(MemoryStore(sign))

    def second(done: int, total: int) -> None:
        with open(file.name, "r+b") as same, pytest.raises(BlockingIOError):
            portable.export(store, KEY, same)

    portable.export(store, KEY, file, progress=second)


# -- ends that were torn ---------------------------------------------------------------------------------


def test_an_export_goes_on_from_every_byte(file: BinaryIO) -> None:
    store = small(MemoryStore(sign))
    content = exported(store, file)
    for cut in range(len(content)):
        rewrite(file, content[:cut])
        assert portable.export(store, KEY, file) == store.head()
        assert written(file) == content, cut


def test_an_import_takes_what_is_whole_and_goes_on_later(file: BinaryIO) -> None:
    store = small(MemoryStore(sign))
    content = exported(store, file)
    found = frames(content)
    sizes = {end: body[1] for _, end, body in found if body[0] == "commit"}
    target: Store = MemoryStore(sign)
    for cut in range(found[0][1], len(content)):
        taken = portable.put(rewrite(file, content[:cut]), target, KEY)
        assert not taken.finished
        assert taken.head.size == max((size for end, size in sizes.items() if end <= cut), default=0)
        assert everything(target)[:3] == everything(store)[:3] if taken.head.size == 6 else True
        assert portable.check(file, KEY).head.size == target.head().size
    assert portable.put(rewrite(file, content), target, KEY).finished
    assert everything(target) == everything(store)
    for cut in range(found[0][1]):
        with pytest.raises(FileWrong):
            portable.put(rewrite(file, content[:cut]), target, KEY)


def test_only_the_first_bytes_may_be_asked_for(file: BinaryIO) -> None:
    store = small(MemoryStore(sign))
    before = exported(store, file)
    head = store.head()
    store.append([unit("more", ("more", 0, 1))], LATER)
    portable.export(store, KEY, file)
    assert portable.check(file, KEY, limit=len(before)) == portable.Extent("test/ledger", head, True)
    target = MemoryStore(sign)
    assert portable.put(file, target, KEY, limit=len(before)).finished
    assert target.head() == head


# -- what was changed ------------------------------------------------------------------------------------


def test_every_changed_byte_is_found_in_its_frame(file: BinaryIO) -> None:
    store = small(MemoryStore(sign))
    content = exported(store, file)
    for offset in range(len(content)):
        changed = bytearray(content)
        changed[offset] ^= 0x01
        rewrite(file, bytes(changed))
        before = [body[1] for _, end, body in frames(content) if body[0] == "commit" and end <= offset]
        target = MemoryStore(sign)
        with pytest.raises(FileWrong) as caught:
            portable.put(file, target, KEY)
        assert caught.value.position == max(before, default=0) + 1, offset
        assert target.head().size == max(before, default=0)
        for reading in (lambda: portable.check(file, KEY), lambda: portable.export(store, KEY, file)):
            with pytest.raises(FileWrong):
                reading()
        assert written(file) == bytes(changed)


Bodies = list[Any]


def _set(frame: int, *path: int, to: Any) -> Callable[[Bodies], None]:
    def change(bodies: Bodies) -> None:
        value = bodies[frame]
        for step in path[:-1]:
            value = value[step]
        value[path[-1]] = to(value[path[-1]]) if callable(to) else to

    return change


def _signed(events: list[list[Any]], units: list[list[Any]]) -> Callable[[Bodies], None]:
    """A further commit, by the ledger's own signer."""

    def change(bodies: Bodies) -> None:
        store = MemoryStore(sign)
        commits = [body[5] for body in bodies if body[0] == "commit"]
        for commit in (*commits, events):
            rows = [
                StoredEvent(originator_id=stream, originator_version=version, topic=topic, state=state)
                for stream, version, topic, state in commit
            ]
            store.append([StoredUnit(token_hex(8), {}, tuple(rows))], AT)
        size = store.head().size
        bodies.insert(4, ["commit", size, LATER, store.head().note, units, events])
        bodies[-1][1] = size

    return change


def _event(message_id: str, stream: str, version: int) -> list[Any]:
    return [stream, version, "plain/1", msgpack.packb([message_id, AT, {}, None, None])]


NOT_SIGNED = "not the ones it signed"
CHANGES: dict[str, tuple[Callable[[Bodies], None], int, str]] = {
    "state": (_set(2, 5, 1, 3, to=b"other"), 2, NOT_SIGNED),
    "stream": (_set(2, 5, 1, 0, to="other"), 2, NOT_SIGNED),
    "version": (_set(2, 5, 1, 1, to=7), 2, NOT_SIGNED),
    "topic": (_set(2, 5, 3, 2, to="other/1"), 2, NOT_SIGNED),
    "order": (_set(2, 5, to=lambda events: events[::-1]), 2, NOT_SIGNED),
    "one event less": (_set(2, 5, to=lambda events: events[:-1]), 2, "not the next one"),
    "one event more": (_set(2, 5, to=lambda events: [*events, events[0]]), 2, "not the next one"),
    "no events": (_set(2, 5, to=[]), 2, "not the next one"),
    "size": (_set(2, 1, to=6), 2, "not the next one"),
    "an event of no shape": (_set(2, 5, 2, to=["s", 1]), 4, "malformed"),
    "text in the place of bytes": (_set(2, 5, 2, 3, to="text"), 4, "malformed"),
    "a version that is huge": (_set(2, 5, 1, 1, to=(1 << 64) - 1), 2, NOT_SIGNED),
    "note of another": (
        _set(2, 3, to=lambda note: NoteSigner("test/ledger", bytes(32)).sign(note)),
        2,
        "valid",
    ),
    "note of another commit": (lambda bodies: bodies[2].__setitem__(3, bodies[1][3]), 2, NOT_SIGNED),
    "note that is none": (_set(2, 3, to="note"), 2, "not valid"),
    "another log of this key": (
        _set(2, 3, to=lambda note: SIGNER.sign(note.partition("\n\n")[0].replace("test/ledger", "x") + "\n")),
        2,
        NOT_SIGNED,
    ),
    "time goes back": (_set(2, 2, to="2026-11-20T00:30:00.000000+00:00"), 2, "time"),
    "unit of another name": (_set(2, 4, 0, 0, to="other"), 2, "of another unit"),
    "unit that is short": (_set(2, 4, 0, 2, to=3), 4, "of another unit"),
    "unit beyond its commit": (_set(2, 4, 1, 2, to=6), 4, "do not fit"),
    "unit before its commit": (_set(2, 4, 0, 1, to=1), 2, "do not fit"),
    "unit twice": (_set(2, 4, to=[["b", 2, 2], ["b", 3, 4], ["c", 5, 5]]), 2, "do not fit"),
    "unit left out": (_set(2, 4, to=lambda units: units[1:]), 2, "of another unit"),
    "unit of no shape": (_set(2, 4, 0, to=["b"]), 2, "malformed"),
    "a commit left out": (lambda bodies: bodies.pop(2), 2, "not the next one"),
    "a commit twice": (lambda bodies: bodies.insert(2, bodies[1]), 2, "not the next one"),
    "commits in another order": (lambda bodies: bodies.insert(1, bodies.pop(2)), 1, "not the next one"),
    "a frame of no kind": (_set(2, 0, to="other"), 2, "something else"),
    "a frame that is no list": (lambda bodies: bodies.insert(2, 7), 2, "something else"),
    "a frame that is no MessagePack": (lambda bodies: bodies.insert(2, b"\xc1"), 2, "no MessagePack"),
    "another header": (_set(0, 0, to="other"), 1, "name"),
    "a cosignature that is none": (_set(4, 2, 0, to="line"), 1, "malformed"),
    "cosignatures that are numbers": (_set(4, 2, 0, to=7), 7, "something else"),
    "a cosignature of no commit": (_set(4, 1, to=7), 7, "no checkpoint"),
    "a cosignature by the ledger": (_set(4, 2, 0, to=SIGNER.line("test")), 1, "by the ledger itself"),
    "an end elsewhere": (_set(5, 1, to=7), 7, "ends at 6"),
    "a version left out": (
        _signed([_event("e", "s", 4)], [["e", 7, 7]]),
        7,
        "version 4 of its stream",
    ),
    "a stream that begins late": (
        _signed([_event("e", "new", 2)], [["e", 7, 7]]),
        7,
        "version 2 of its stream",
    ),
    "a version twice": (
        _signed([_event("e", "u", 1)], [["e", 7, 7]]),
        7,
        "",
    ),
    "a message id twice": (
        _signed([_event("a", "new", 1)], [["a", 7, 7]]),
        7,
        "does not go with",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("forgetful", [False, True])
def test_what_the_ledger_did_not_sign_is_refused_and_the_rest_stays(
    what: str, forgetful: bool, tmp_path: Path, file: BinaryIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a new digest for every frame, and where the streams met before are no longer in memory."""
    if forgetful:
        monkeypatch.setattr(portable, "_STREAMS", 0)
        monkeypatch.setattr(portable, "_PUT", 1)
    change, position, reason = CHANGES[what]
    source = small(MemoryStore(sign))
    bodies = [body for _, _, body in frames(exported(source, file))]
    change(bodies)
    rewrite(file, sealed(bodies))
    with closing(open_sqlite(tmp_path / "target.sqlite")) as target:
        with pytest.raises(FileWrong, match=f"position {position}: .*{reason}"):
            portable.put(file, target, KEY)
        late = what.startswith(("a cosignature", "cosignatures", "an end"))
        assert target.head().size == (6 if late else max(s for s in (0, 1, 5, 6) if s < position))
        assert verify_file(tmp_path / "target.sqlite", KEY).ok
        assert target.checkpoints() == source.checkpoints()[: len(target.checkpoints())]
        # The right file makes it whole.
        exported(source, rewrite(file, b""))
        portable.put(file, target, KEY)
        assert everything(target) == everything(source)


def test_a_file_proves_nothing_to_another_key(file: BinaryIO) -> None:
    exported(small(MemoryStore(sign)), file)
    target = MemoryStore(sign)
    with pytest.raises(FileWrong, match="position 1: the checkpoint at 1 is not valid"):
        portable.put(file, target, NoteSigner("test/ledger", bytes(32)).verifier_key)
    with pytest.raises(OtherLedger):
        portable.put(file, target, NoteSigner("other", bytes(32)).verifier_key)
    with pytest.raises(NoteInvalid):
        portable.put(file, target, "key")
    assert target.head() == Head()
    with pytest.raises(FileWrong, match="not the export of a ledger"):
        portable.header(rewrite(file, b"something else"))


def test_ledgers_do_not_mix(file: BinaryIO) -> None:
    one, other = small(MemoryStore(sign)), small(MemoryStore(sign))
    content = exported(one, file)
    with pytest.raises(OtherLedger, match="differ at 6"):
        portable.export(other, KEY, file)
    with pytest.raises(OtherLedger, match="differ at 6"):
        portable.put(file, other, KEY)
    other.append([unit("more", ("more", 0, 1))], LATER)
    with pytest.raises(OtherLedger, match="differ at 6"):
        portable.put(file, other, KEY)
    shorter = MemoryStore(sign)
    portable.put(file, shorter, KEY, limit=frames(content)[1][1])
    assert shorter.head().size == 1
    with pytest.raises(OtherLedger, match="goes up to 6, the ledger up to 1"):
        portable.export(shorter, KEY, file)
    shorter.append([unit("own", ("own", 0, 2))], AT)
    with pytest.raises(OtherLedger, match="no checkpoint at 3"):
        portable.put(file, shorter, KEY)
    with pytest.raises(OtherLedger, match="holds test/ledger"):
        portable.export(one, NoteSigner("test/other", bytes(32)).verifier_key, file)
    assert written(file) == content


def test_a_damaged_ledger_is_exported_up_to_the_damage(tmp_path: Path, file: BinaryIO) -> None:
    with closing(open_sqlite(tmp_path / "events.sqlite")) as store:
        small(store)
        with store.datastore.transaction(commit=True) as cursor:
            cursor.execute("UPDATE stored_events SET state = x'00' WHERE rowid = 3")
        with pytest.raises(Wrong, match=f"position 2: .*{NOT_SIGNED}") as caught:
            portable.export(store, KEY, file)
        assert not isinstance(caught.value, FileWrong)
        assert portable.check(file, KEY) == portable.Extent("test/ledger", store.checkpoints()[0], False)
        with store.datastore.transaction(commit=True) as cursor:
            cursor.execute("DELETE FROM stored_events WHERE rowid = 3")
        with pytest.raises(Wrong, match="position 3: an event is missing"):
            portable.export(store, KEY, file)


def test_the_message_ids_of_another_file_are_refused_by_every_durable_store(
    sqlite_place: Place, database: PostgresDatabase, file: BinaryIO
) -> None:
    origin = f"test/{token_hex(8)}"
    database.migrate(origin)
    bodies = [body for _, _, body in frames(exported(small(MemoryStore(sign)), file))]
    CHANGES["a message id twice"][0](bodies)
    rewrite(file, sealed(bodies))
    for target in (sqlite_place.store, database.store(origin, sign)):
        with pytest.raises(
            FileWrong, match="position 7: the commit up to 7 does not go with those before it"
        ):
            portable.put(file, target, KEY)
        assert target.head().size == 6


def test_memory_does_not_grow_with_the_ledger(
    sqlite_place: Place, tmp_path: Path, file: BinaryIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"_PAGE": 200, "_PUT": 200, "_STREAMS": 200}.items():
        monkeypatch.setattr(portable, name, value)
    source = sqlite_place.store
    for number in range(60):
        source.append(
            [unit(f"{number}-{each}", (f"{number}-{each}", 0, 1), size=3_000) for each in range(50)], AT
        )
    with closing(open_sqlite(tmp_path / "target.sqlite")) as target:
        tracemalloc.start()
        portable.export(source, KEY, file)
        portable.check(file, KEY)
        portable.put(file, target, KEY)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert target.head() == source.head()
    assert Path(file.name).stat().st_size > 9_000_000
    assert peak < 4_000_000
