"""The log as static files: what lies where, that an independent verifier accepts it, and how it goes on."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from broker.ledger.events import leaf_data
from broker.ledger.folder import checkpoint_signer
from broker.ledger.merkle import ProofInvalid
from broker.ledger.notes import Kind, NoteInvalid, NoteSigner, parts
from broker.ledger.store import MemoryStore
from broker.ledger.tiles import OtherLog, bundle, export_tiles, tile_path
from tests.independent.verifier import check_tiles, tile_name
from tests.ledger.places import SIGNER, Place, open_sqlite, sign, stored, unit

LOG_PQ = NoteSigner(SIGNER.name, bytes(range(1, 33)), Kind.ML_DSA_44)
ROOT = Path(__file__).parents[2]
KEYS = [SIGNER.verifier_key]


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def filled(*counts: int) -> MemoryStore:
    store = MemoryStore(sign)
    for number, count in enumerate(counts):
        stored(store, unit(f"m{number}", (f"s{number}", 0, count)))
    return store


@pytest.mark.parametrize(
    ("index", "path"),
    [
        (0, "000"),
        (255, "255"),
        (999, "999"),
        (1_000, "x001/000"),
        (1_234, "x001/234"),
        (1_234_067, "x001/x234/067"),
        (999_999, "x999/999"),
        (1_000_000, "x001/x000/000"),
    ],
)
def test_where_a_tile_lies(index: int, path: str) -> None:
    assert tile_path(0, index) == f"tile/0/{path}"
    assert tile_path("entries", index) == f"tile/entries/{path}"
    assert tile_path(63, index, 255) == f"tile/63/{path}.p/255"
    assert tile_path(2, index, 7) == tile_name("2", index, 7)


def test_entries_stand_after_their_lengths() -> None:
    assert bundle([]) == b""
    assert bundle([b"", b"a", b"b" * 65_535]) == b"\0\0" + b"\0\1a" + b"\xff\xff" + b"b" * 65_535
    with pytest.raises(OverflowError):
        bundle([b"b" * 65_536])


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 512, 700])
def test_an_export_is_accepted_by_the_independent_verifier(size: int, place: Place, tmp_path: Path) -> None:
    stored(place.store, unit("m", ("s", 0, size)))
    text, _ = parts(place.store.head().note)
    place.store.cosign(size, [LOG_PQ.line(text, 1_795_219_200)])
    seen: list[tuple[int, int]] = []
    head = export_tiles(place.reopen(), tmp_path, lambda done, total: seen.append((done, total)))
    assert head.size == size
    assert seen == [(min(done, size), size) for done in range(256, size + 256, 256)]
    checkpoint, signed = check_tiles(tmp_path, KEYS, [LOG_PQ.verifier_key])
    assert (checkpoint.size, len(signed)) == (size, 2)


def test_an_export_holds_what_the_specification_names_and_nothing_else(tmp_path: Path) -> None:
    store = filled(300)
    export_tiles(store, tmp_path)
    made = files(tmp_path)
    assert {name: len(raw) for name, raw in made.items() if name.startswith("tile/0")} == {
        "tile/0/000": 8_192,
        "tile/0/001.p/44": 1_408,
    }
    assert set(made) == {
        "checkpoint",
        *("tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1"),
        *("tile/entries/000", "tile/entries/001.p/44"),
    }
    assert made["tile/entries/000"] == bundle([leaf_data(event) for event in store.events(0, 256)])
    assert made["checkpoint"] == store.head().note.encode()


def test_no_stored_byte_is_in_an_export(tmp_path: Path) -> None:
    """An entry holds the digest of an event's bytes; what is sealed, and what is not, stays in the ledger."""
    export_tiles(filled(300), tmp_path)
    assert not [name for name, raw in files(tmp_path).items() if b"m0 s0" in raw]


def test_three_levels(tmp_path: Path) -> None:
    export_tiles(filled(65_536, 300), tmp_path)
    checkpoint, _ = check_tiles(tmp_path, KEYS, [])
    assert checkpoint.size == 65_836
    assert len((tmp_path / "tile" / "2" / "000.p" / "1").read_bytes()) == 32
    assert len((tmp_path / "tile" / "1" / "001.p" / "1").read_bytes()) == 32
    assert (tmp_path / "tile" / "1" / "000").exists()


def test_nothing_comes_of_an_empty_log(tmp_path: Path) -> None:
    assert export_tiles(MemoryStore(sign), tmp_path / "log").size == 0
    assert not (tmp_path / "log").exists()


def test_an_export_goes_on_and_writes_no_full_tile_again(tmp_path: Path) -> None:
    store = filled(300)
    export_tiles(store, tmp_path)
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in files(tmp_path)}
    stored(store, unit("more", ("more", 0, 400)))
    export_tiles(store, tmp_path)
    checkpoint, _ = check_tiles(tmp_path, KEYS, [])
    assert checkpoint.size == 700
    kept = {name for name, at in before.items() if (tmp_path / name).stat().st_mtime_ns == at}
    assert kept == set(before) - {"checkpoint"}
    fresh = tmp_path / "fresh"
    export_tiles(store, fresh)
    assert files(fresh).items() <= files(tmp_path).items()


@pytest.mark.parametrize(
    ("number", "when"), [(1, "half"), (2, "before"), (2, "after"), (7, "half"), (8, "half"), (8, "after")]
)
def test_an_export_whose_process_dies_is_taken_up_again(number: int, when: str, tmp_path: Path) -> None:
    """The second export writes eight files. What an earlier one left is whole at any moment."""
    store = open_sqlite(tmp_path / "events.sqlite")
    try:
        stored(store, unit("m1", ("a", 0, 100)))
        export_tiles(store, tmp_path / "log")
        stored(store, unit("m2", ("b", 0, 500)))
        command = [sys.executable, "-m", "tests.ledger.exporting", str(tmp_path / "events.sqlite")]
        died = subprocess.run([*command, str(tmp_path / "log"), str(number), when], cwd=ROOT, check=False)
        assert died.returncode == -signal.SIGKILL
        size = 600 if (number, when) == (8, "after") else 100
        assert check_tiles(tmp_path / "log", KEYS, [])[0].size == size
        export_tiles(store, tmp_path / "log")
        assert check_tiles(tmp_path / "log", KEYS, [])[0].size == 600
        export_tiles(store, tmp_path / "fresh")
    finally:
        store.close()
    left = {name: raw for name, raw in files(tmp_path / "log").items() if ".p/100" not in name}
    assert left == files(tmp_path / "fresh")


def test_later_cosignatures_reach_the_checkpoint(tmp_path: Path) -> None:
    store = filled(300)
    export_tiles(store, tmp_path)
    line = LOG_PQ.line(parts(store.head().note)[0], 1_795_219_200)
    store.cosign(300, [line])
    export_tiles(store, tmp_path)
    assert (tmp_path / "checkpoint").read_text(encoding="utf-8") == f"{store.head().note}{line}\n"
    assert len(check_tiles(tmp_path, KEYS, [LOG_PQ.verifier_key])[1]) == 2


def other_origin() -> MemoryStore:
    store = MemoryStore(checkpoint_signer(NoteSigner("test/other", bytes(32))))
    stored(store, unit("m0", ("s0", 0, 299)))
    return store


@pytest.mark.parametrize(
    "other",
    [filled(301), filled(150, 150), filled(1), filled(150, 400), other_origin()],
    ids=["of which this was cut back", "of other units", "of another event", "longer", "of another origin"],
)
def test_logs_do_not_mix_in_one_folder(other: MemoryStore, tmp_path: Path) -> None:
    export_tiles(other, tmp_path)
    before = files(tmp_path)
    store = MemoryStore(sign)
    stored(store, unit("m0", ("s0" if other.head().size > 1 else "other", 0, 300)))
    with pytest.raises(OtherLog):
        export_tiles(store, tmp_path)
    assert files(tmp_path) == before


def test_tiles_of_another_log_without_its_checkpoint_are_seen(tmp_path: Path) -> None:
    """What an export leaves that was broken off before its end."""
    export_tiles(filled(150, 400), tmp_path)
    (tmp_path / "checkpoint").unlink()
    with pytest.raises(OtherLog):
        export_tiles(filled(550), tmp_path)


def test_a_checkpoint_in_the_folder_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(b"something\n")
    with pytest.raises(NoteInvalid):
        export_tiles(filled(300), tmp_path)


def test_an_event_that_was_changed_under_the_log_is_not_exported(tmp_path: Path) -> None:
    store = open_sqlite(tmp_path / "events.sqlite")
    try:
        stored(store, unit("m", ("s", 0, 300)))
        with store.datastore.transaction(commit=True) as cursor:
            cursor.execute("UPDATE stored_events SET state = X'00' WHERE rowid = 270")
        with pytest.raises(ProofInvalid, match="tile 1"):
            export_tiles(store, tmp_path / "log")
    finally:
        store.close()
    assert not (tmp_path / "log" / "checkpoint").exists()
