"""What verify_file finds in a damaged ledger, and where. The damage is done to real files behind its back."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from itertools import count
from pathlib import Path
from shutil import copyfile
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.ledger.folder import checkpoint_signer
from broker.ledger.merkle import leaf_hash
from broker.ledger.notes import NoteInvalid, NoteSigner, NoteVerifier
from broker.ledger.sqlite import LedgerDatastore, SQLiteStore
from broker.ledger.store import StoredUnit
from broker.ledger.vault import Vault
from broker.ledger.verify import Verdict, verify_file
from tests.ledger.places import SIGNER, open_sqlite, plain_root, stored, unit
from tests.ledger.samples import REGISTRY, Counted, Noted

Rows = sqlite3.Connection

EVENTS = 600
AT = "2026-11-21T09:30:00.000000+09:00"
COMMITS = (1, 6, 80, 169, 1, 43, 11, 200, 2, 87)  # 256 and 512 are where tiles end
SPANS = [(sum(COMMITS[:i]) + 1, sum(COMMITS[: i + 1])) for i in range(len(COMMITS))]
PLACES = pytest.mark.parametrize("position", [1, 256, 257, 300, 513, EVENTS])


def units_of(vault: Vault, positions: range, versions: dict[str, int]) -> list[StoredUnit]:
    """Units of one to three events, most of them on streams that grow, every seventh event on a new one."""
    units: list[StoredUnit] = []
    first = positions.start
    while first < positions.stop:
        size = min(1 + first % 3, positions.stop - first)
        expected: dict[str, int] = {}
        events = []
        for position in range(first, first + size):
            stream = f"stream {position if position % 7 == 0 else position % 5}"
            expected.setdefault(stream, versions.get(stream, 0))
            versions[stream] = version = versions.get(stream, 0) + 1
            event = Noted(f"label {position}", "secret") if position % 2 else Counted(position)
            events.append(REGISTRY.encode(stream, version, event, f"message {first}", AT, vault))
        units.append(StoredUnit(f"message {first}", expected, tuple(events)))
        first += size
    return units


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of 600 events in ten commits, closed."""
    folder = tmp_path_factory.mktemp("sound")
    write(folder, SIGNER)
    return folder / "events.sqlite"


def write(folder: Path, signer: NoteSigner) -> None:
    versions: dict[str, int] = {}
    with closing(Vault(folder / "vault")) as vault:
        vault.ensure([f"sample/{AT[:7]}"])
        store = SQLiteStore(LedgerDatastore(folder / "events.sqlite"), checkpoint_signer(signer))
        for first, last in SPANS:
            stored(store, *units_of(vault, range(first, last + 1), versions))
        assert store.head().size == EVENTS
        store.close()


@pytest.fixture
def ledger(sound: Path, tmp_path: Path) -> Path:
    return copyfile(sound, tmp_path / "events.sqlite")


def damage(path: Path, change: Callable[[Rows], Any]) -> None:
    with closing(sqlite3.connect(path)) as rows:
        change(rows)
        assert rows.total_changes > 0, "nothing was damaged"
        rows.commit()


def verdict(path: Path) -> Verdict:
    return verify_file(path, SIGNER.verifier_key)


def after(path: Path, change: Callable[[Rows], Any]) -> Verdict:
    damage(path, change)
    found = verdict(path)
    assert not found.ok
    assert found.reason
    return found


def span_of(position: int) -> tuple[int, int]:
    """First and last position of the commit that stored this one."""
    return next(span for span in SPANS if span[0] <= position <= span[1])


def value(rows: Rows, column: str, position: int) -> Any:
    query = f"SELECT {column} FROM stored_events WHERE rowid = ?"  # noqa: S608 # column names of this file
    return rows.execute(query, (position,)).fetchone()[0]


def replace_value(column: str, position: int, new: Callable[[Any], Any]) -> Callable[[Rows], Any]:
    update = f"UPDATE stored_events SET {column} = ? WHERE rowid = ?"  # noqa: S608 # column names of this file
    return lambda rows: rows.execute(update, (new(value(rows, column, position)), position))


def flipped(content: bytes, index: int, bits: int = 1) -> bytes:
    changed = bytearray(content)
    changed[index % len(content)] ^= bits
    return bytes(changed)


def test_an_undamaged_ledger(ledger: Path) -> None:
    told: list[tuple[int, int]] = []
    found = verify_file(ledger, SIGNER.verifier_key, progress=lambda done, total: told.append((done, total)))
    assert found == Verdict(EVENTS)
    assert found.ok
    assert told[-1] == (EVENTS, EVENTS)


def test_an_empty_ledger(tmp_path: Path) -> None:
    open_sqlite(tmp_path / "events.sqlite").close()
    assert verdict(tmp_path / "events.sqlite") == Verdict(0)


def test_every_name_of_a_folder_will_do(ledger: Path, tmp_path: Path) -> None:
    odd = tmp_path / "100% of #1? 連携"
    odd.mkdir()
    assert verdict(copyfile(ledger, odd / "events.sqlite")).ok


def test_a_store_on_bytes_of_its_own_is_sound(tmp_path: Path) -> None:
    """Message ids are looked for in the bytes of events only where the bytes are those of events."""
    store = open_sqlite(tmp_path / "events.sqlite")
    store.append([unit("m1", ("a", 0, 2)), unit("m2", ("b", 0, 0)), unit("m3", ("b", 0, 1))], AT)
    store.close()
    assert verdict(tmp_path / "events.sqlite") == Verdict(3)


def test_a_stream_whose_versions_do_not_count_up(tmp_path: Path) -> None:
    """Logged and signed as it is, by a writer that broke the contract."""
    sound, broken = unit("m1", ("a", 0, 2)), unit("m2", ("a", 6, 1))
    store = open_sqlite(tmp_path / "events.sqlite")
    stored(store, sound, replace(broken, expected={"a": 2}))
    store.close()
    found = verdict(tmp_path / "events.sqlite")
    assert (found.wrong_position, found.reason) == (3, "version 7 of its stream is out of order")


def test_a_name_with_the_sign_for_what_cannot_be_read(tmp_path: Path) -> None:
    """Bytes that are no text must not pass for that sign, which stands in their place elsewhere."""
    store = open_sqlite(tmp_path / "events.sqlite")
    stored(store, unit("m1", ("\ufffd", 0, 1)))
    store.close()
    assert verdict(tmp_path / "events.sqlite").ok
    change = "UPDATE stored_events SET originator_id = CAST(x'ff' AS TEXT)"
    assert after(tmp_path / "events.sqlite", lambda rows: rows.execute(change)).wrong_position == 1


def test_a_ledger_that_is_being_written(ledger: Path) -> None:
    """What is appended while the check runs is neither checked nor taken for damage."""
    store = open_sqlite(ledger)
    store.append([unit("many", ("many", 0, 600))], AT)
    appended: list[int] = []

    def meanwhile(done: int, total: int) -> None:
        if done == 1_000:
            store.append([unit("meanwhile", ("meanwhile", 0, 300))], AT)
            appended.append(done)

    found = verify_file(ledger, SIGNER.verifier_key, progress=meanwhile)
    store.close()
    assert appended == [1_000]
    assert found == Verdict(EVENTS + 600)
    assert verdict(ledger) == Verdict(EVENTS + 900)


@PLACES
@pytest.mark.parametrize("column", ["state", "topic", "originator_id"])
def test_one_byte_of_an_event_changed(ledger: Path, column: str, position: int) -> None:
    def change(old: bytes | str) -> bytes | str:
        if isinstance(old, bytes):
            return flipped(old, len(old) // 2)
        return flipped(old.encode(), len(old) // 2).decode()

    assert after(ledger, replace_value(column, position, change)).wrong_position == position


@PLACES
@pytest.mark.parametrize("column", ["topic", "originator_id"])
def test_text_changed_to_bytes_that_are_no_text(ledger: Path, column: str, position: int) -> None:
    def change(rows: Rows) -> None:
        broken = flipped(value(rows, column, position).encode(), 3, 0x80)
        rows.execute(
            f"UPDATE stored_events SET {column} = CAST(? AS TEXT) WHERE rowid = ?",  # noqa: S608 # this file's names
            (broken, position),
        )

    assert after(ledger, change).wrong_position == position


@PLACES
def test_a_version_changed(ledger: Path, position: int) -> None:
    found = after(ledger, replace_value("originator_version", position, lambda old: old + 1_000))
    assert found.wrong_position == position


@PLACES
@pytest.mark.parametrize("column", ["state", "topic", "originator_id"])
def test_a_value_of_another_type(ledger: Path, column: str, position: int) -> None:
    assert after(ledger, replace_value(column, position, lambda old: 5)).wrong_position == position


@settings(max_examples=80)
@given(position=st.integers(1, EVENTS), index=st.integers(0, 10_000), bits=st.integers(1, 255))
def test_any_byte_of_any_state(flippable: Path, position: int, index: int, bits: int) -> None:
    kept: list[bytes] = []

    def change(old: bytes) -> bytes:
        kept.append(old)
        return flipped(old, index, bits)

    found = after(flippable, replace_value("state", position, change))
    damage(flippable, replace_value("state", position, lambda _: kept[0]))
    assert found.wrong_position == position


@pytest.fixture(scope="module")
def flippable(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy that is damaged and mended over and over."""
    path = copyfile(sound, tmp_path_factory.mktemp("flippable") / "events.sqlite")
    yield path
    assert verdict(path).ok


@PLACES
def test_a_row_deleted(ledger: Path, position: int) -> None:
    found = after(ledger, lambda rows: rows.execute("DELETE FROM stored_events WHERE rowid = ?", (position,)))
    assert found.wrong_position == position


@PLACES
def test_a_row_deleted_and_the_gap_closed(ledger: Path, position: int) -> None:
    def change(rows: Rows) -> None:
        rows.execute("DELETE FROM stored_events WHERE rowid = ?", (position,))
        rows.execute("UPDATE stored_events SET rowid = rowid - 1 WHERE rowid > ?", (position,))

    # Where streams do not tell which event of a unit is missing, the unit's first is named.
    assert after(ledger, change).wrong_position == {513: 512}.get(position, position)


@pytest.mark.parametrize("position", [1, 256, 300, EVENTS + 1])
def test_a_row_inserted(ledger: Path, position: int) -> None:
    def change(rows: Rows) -> None:
        rows.execute("UPDATE stored_events SET rowid = -rowid - 1 WHERE rowid >= ?", (position,))
        rows.execute("UPDATE stored_events SET rowid = -rowid WHERE rowid < 0")
        rows.execute(
            "INSERT INTO stored_events VALUES (?, 'forged', 1, 'sample.counted/1', ?, ?)",
            (position, b"forged", bytes(32)),
        )

    assert after(ledger, change).wrong_position == position


def test_the_last_row_moved_away(ledger: Path) -> None:
    change = "UPDATE stored_events SET rowid = 700 WHERE rowid = 600"
    assert after(ledger, lambda rows: rows.execute(change)).wrong_position == EVENTS


def test_two_rows_exchanged(ledger: Path) -> None:
    def change(rows: Rows) -> None:
        for old, new in ((300, -1), (301, 300), (-1, 301)):
            rows.execute("UPDATE stored_events SET rowid = ? WHERE rowid = ?", (new, old))

    assert after(ledger, change).wrong_position == 300


def change_leaf(position: int, *, into: bytes = b"") -> Callable[[Rows], Any]:
    """Change the hash that is kept beside an event."""
    return replace_value("leaf", position, lambda old: into or flipped(old, 7))


@PLACES
def test_a_leaf_changed(ledger: Path, position: int) -> None:
    assert after(ledger, change_leaf(position)).wrong_position == position


@pytest.mark.parametrize(
    ("change", "position"),
    [
        ("DELETE FROM node WHERE idx = 1", 257),
        ("DELETE FROM node", 1),
        ("UPDATE node SET hash = zeroblob(32) WHERE idx = 0", 1),
        ("UPDATE node SET hash = zeroblob(32) WHERE idx = 1", 257),
        ("UPDATE node SET hash = substr(hash, 1, 31) WHERE idx = 1", 257),
        ("UPDATE node SET hash = hash || zeroblob(1) WHERE idx = 1", 257),
        ("UPDATE node SET hash = 5 WHERE idx = 1", 257),
        ("UPDATE node SET idx = 2 WHERE idx = 1", 513),
        ("INSERT INTO node VALUES (1, 2, zeroblob(32))", 513),
        ("INSERT INTO node VALUES (1, 3, zeroblob(32))", EVENTS),
        ("INSERT INTO node VALUES (2, 0, zeroblob(32))", 1),
    ],
)
def test_nodes_changed_missing_or_added(ledger: Path, change: str, position: int) -> None:
    assert after(ledger, lambda rows: rows.execute(change)).wrong_position == position


@PLACES
def test_an_event_and_its_leaf_changed_together(ledger: Path, position: int) -> None:
    """The next checkpoint shows it. Which of its events it is, nobody can tell: the first is named."""

    def change(rows: Rows) -> None:
        replace_value("state", position, lambda old: flipped(old, -1))(rows)
        stream, version = value(rows, "originator_id", position), value(rows, "originator_version", position)
        topic, state = value(rows, "topic", position), value(rows, "state", position)
        change_leaf(position, into=leaf(stream, version, topic, state))(rows)

    found = after(ledger, change)
    assert found.wrong_position == span_of(position)[0]
    assert "not the ones it signed" in found.reason


def leaf(stream: str, version: int, topic: str, state: bytes) -> bytes:
    return leaf_hash(msgpack.packb([stream, version, topic, sha256(state).digest()]))


def test_history_rewritten_with_its_whole_tree(ledger: Path) -> None:
    """As an intruder would who knows the software and lacks the key."""

    def change(rows: Rows) -> None:
        replace_value("state", 300, lambda old: flipped(old, -1))(rows)
        query = "SELECT originator_id, originator_version, topic, state FROM stored_events ORDER BY rowid"
        leaves = [leaf(*row) for row in rows.execute(query)]
        rows.executemany("UPDATE stored_events SET leaf = ? WHERE rowid = ?", zip(leaves, count(1)))
        nodes = {(1, i): plain_root(leaves[256 * i : 256 * (i + 1)]) for i in range(2)}
        rows.executemany(
            "INSERT OR REPLACE INTO node VALUES (?, ?, ?)", [(*place, node) for place, node in nodes.items()]
        )

    assert after(ledger, change).wrong_position == span_of(300)[0]


def test_the_time_of_a_commit_set_back(ledger: Path) -> None:
    change = "UPDATE checkpoint SET at = '2026-11-20T09:30:00.000000+00:00' WHERE size = ?"
    found = after(ledger, lambda rows: rows.execute(change, (SPANS[3][1],)))
    assert found.wrong_position == SPANS[3][0]


def test_a_ledger_written_anew_under_another_key(tmp_path: Path) -> None:
    forger = NoteSigner(SIGNER.name, bytes(32))
    write(tmp_path, forger)
    assert verify_file(tmp_path / "events.sqlite", forger.verifier_key).ok
    found = verdict(tmp_path / "events.sqlite")
    assert found.wrong_position == 1
    assert "no signature by test/ledger" in found.reason


def note_of(rows: Rows, size: int) -> str:
    note: str = rows.execute("SELECT note FROM checkpoint WHERE size = ?", (size,)).fetchone()[0]
    return note


def first_character_of_the_signature(note: str) -> int:
    return note.rindex(" ") + 8  # the first six characters are the key's mark


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize(
    "change",
    [
        lambda note: note.replace("\n", "0\n", 2).replace("0\n", "\n", 1),  # another size
        lambda note: "X" + note,  # another log
        lambda note: flipped(note.encode(), first_character_of_the_signature(note)).decode(),
        lambda note: note[: note.index("\n\n") + 1],  # no signature
        lambda note: "",
        lambda note: 5,
        lambda note: b"\xff",
    ],
    ids=["size", "origin", "signature", "unsigned", "empty", "number", "blob"],
)
def test_a_checkpoint_changed(ledger: Path, change: Callable[[str], Any], span: tuple[int, int]) -> None:
    update = "UPDATE checkpoint SET note = ? WHERE size = ?"
    found = after(ledger, lambda rows: rows.execute(update, (change(note_of(rows, span[1])), span[1])))
    assert found.wrong_position == span[0]


def test_a_checkpoint_that_is_no_text(ledger: Path) -> None:
    def change(rows: Rows) -> None:
        broken = flipped(note_of(rows, 7).encode(), 3, 0x80)
        rows.execute("UPDATE checkpoint SET note = CAST(? AS TEXT) WHERE size = 7", (broken,))

    assert after(ledger, change).wrong_position == 2


def test_a_checkpoint_in_place_of_another(ledger: Path) -> None:
    def change(rows: Rows) -> None:
        rows.execute("UPDATE checkpoint SET note = ? WHERE size = 256", (note_of(rows, 257),))

    assert after(ledger, change).wrong_position == span_of(256)[0]


def test_a_checkpoint_that_signs_another_size(ledger: Path) -> None:
    """Validly signed over the right root: only its size is not that of the tree."""

    def change(rows: Rows) -> None:
        made = NoteVerifier(SIGNER.verifier_key).checkpoint(note_of(rows, 256))
        note = checkpoint_signer(SIGNER)(255, made.root)
        rows.execute("UPDATE checkpoint SET note = ? WHERE size = 256", (note,))

    assert after(ledger, change).wrong_position == span_of(256)[0]


def test_the_log_state_of_a_checkpoint_changed(ledger: Path) -> None:
    """The next append would grow the tree from it."""
    change = "UPDATE checkpoint SET frontier = zeroblob(length(frontier)) WHERE size = 600"
    assert after(ledger, lambda rows: rows.execute(change)).wrong_position == SPANS[-1][0]


@pytest.mark.parametrize(("removed", "position"), [(1, 514), (2, 512), (len(SPANS), 1)])
def test_checkpoints_removed_at_the_end(ledger: Path, removed: int, position: int) -> None:
    change = "DELETE FROM checkpoint WHERE size IN (SELECT size FROM checkpoint ORDER BY size DESC LIMIT ?)"
    found = after(ledger, lambda rows: rows.execute(change, (removed,)))
    assert found.wrong_position == position


@pytest.mark.parametrize("size", [0, -1, EVENTS + 1])
def test_a_checkpoint_added(ledger: Path, size: int) -> None:
    change = "INSERT INTO checkpoint SELECT ?, at, frontier, note FROM checkpoint WHERE size = 600"
    found = after(ledger, lambda rows: rows.execute(change, (size,)))
    assert found.wrong_position == (EVENTS + 1 if size > 0 else 1)


def test_the_end_cut_off_but_for_the_nodes(ledger: Path) -> None:
    def change(rows: Rows) -> None:
        rows.execute("DELETE FROM stored_events WHERE rowid > 511")
        rows.execute("DELETE FROM checkpoint WHERE size > 511")
        rows.execute("DELETE FROM unit WHERE last > 511")

    assert after(ledger, change).wrong_position == 257


@PLACES
@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ("DELETE FROM unit", "first"),
        ("UPDATE unit SET message_id = 'another'", "first"),
        ("UPDATE unit SET first = first - 1", "before"),
        ("UPDATE unit SET last = last + 1", "first"),
        ("UPDATE unit SET last = first - 1", "first"),
        ("UPDATE unit SET first = 'x'", "first"),
    ],
    ids=["deleted", "renamed", "begins earlier", "ends later", "ends before", "no number"],
)
def test_the_index_of_units_changed(ledger: Path, change: str, wrong: str, position: int) -> None:
    """Through it a repeated message gets another's outcome, or is carried out twice."""
    of_position = "WHERE first <= :position AND last >= :position"
    with closing(sqlite3.connect(ledger)) as rows:
        query = f"SELECT first, last FROM unit {of_position}"  # noqa: S608 # a literal of this test
        first, _ = rows.execute(query, {"position": position}).fetchone()
    found = after(ledger, lambda rows: rows.execute(f"{change} {of_position}", {"position": position}))
    expected = {"first": first, "before": max(1, first - 1)}
    assert found.wrong_position == expected[wrong]
    assert "index of units" in found.reason


@pytest.mark.parametrize(
    ("unit_row", "position"),
    [(("forged", 1, 1), 1), (("forged", 300, 301), 300), (("forged", 601, 601), 600), (("forged", 0, 0), 1)],
)
def test_a_unit_added_to_the_index(ledger: Path, unit_row: tuple[str, int, int], position: int) -> None:
    found = after(ledger, lambda rows: rows.execute("INSERT INTO unit VALUES (?, ?, ?)", unit_row))
    assert found.wrong_position == position


def test_a_page_of_the_file_overwritten(ledger: Path) -> None:
    """Not even SQLite can read it; the first row that it cannot give is named."""
    content = bytearray(ledger.read_bytes())
    with closing(sqlite3.connect(ledger)) as rows:
        state = value(rows, "state", 400)
    page = content.index(state) // 4096 * 4096
    content[page : page + 4096] = b"\xff" * 4096
    ledger.write_bytes(content)
    found = verdict(ledger)
    assert not found.ok
    assert found.wrong_position is not None
    assert 300 < found.wrong_position <= 400
    assert found.events == found.wrong_position - 1


def test_a_file_that_is_no_ledger(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    path.write_bytes(b"not a database at all" * 500)
    assert verdict(path).wrong_position == 1
    path.write_bytes(b"")
    assert verdict(path).wrong_position == 1


@pytest.mark.parametrize("key", ["", "test/ledger", "test/ledger+00000000+AAAA", SIGNER.verifier_key[:-8]])
def test_a_key_that_is_no_key(ledger: Path, key: str) -> None:
    with pytest.raises(NoteInvalid):
        verify_file(ledger, key)
