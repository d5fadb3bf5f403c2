"""The log as static files that anyone can serve and check (C2SP tlog-tiles).

The folder holds `checkpoint` with all its signatures, the tiles of the hash tree and the entries in bundles.
An entry is the place of an event and the digest of its bytes: nothing that is sealed leaves the ledger.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from broker.ledger import files
from broker.ledger.events import leaf_data
from broker.ledger.merkle import HASH_SIZE, TILE_WIDTH, ProofInvalid, leaf_hash, subtree_root
from broker.ledger.notes import Checkpoint, parts, with_signatures
from broker.ledger.store import Head, Store

CHECKPOINT = "checkpoint"


class OtherLog(Exception):
    """The folder holds another log, or more of this one than there is."""


def tile_path(level: int | str, index: int, width: int = TILE_WIDTH) -> str:
    """Where a tile of this width (1 to 256 hashes) lies; the level of bundles is "entries"."""
    digits = f"{index:03}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    place = "/".join((*(f"x{group}" for group in groups[:-1]), groups[-1]))
    return f"tile/{level}/{place}" + (f".p/{width}" if width < TILE_WIDTH else "")


def bundle(entries: Sequence[bytes]) -> bytes:
    """Entries in a row, each after its length in two bytes."""
    return b"".join(len(entry).to_bytes(2) + entry for entry in entries)


def export_tiles(
    store: Store, folder: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> Head:
    """Write the log up to its latest checkpoint; returns that. Goes on where an earlier export ended.

    A full tile that is there already is not written again. The checkpoint comes last: what it covers is
    there. Raises OtherLog, ProofInvalid where an event is not the one that was logged, and NoteInvalid for
    a checkpoint in the folder that cannot be read.
    """
    head = store.head()
    _check_earlier(store, folder, head)
    note = with_signatures(head.note, store.cosignatures(head.size))
    for index, width in _tiles(head.size, 0):
        _export_leaves(store, folder, index, width)
        progress(index * TILE_WIDTH + width, head.size)
    level = 1
    while head.size >> 8 * level:
        for index, width in _tiles(head.size, level):
            _put(folder / tile_path(level, index, width), store.tile(level, index)[: width * HASH_SIZE])
        level += 1
    if head.size:
        files.write_whole(folder / CHECKPOINT, note.encode())
    return head


def _check_earlier(store: Store, folder: Path, head: Head) -> None:
    """The log must go on from what the folder holds; one that was cut back does not."""
    if not (folder / CHECKPOINT).exists():
        return
    earlier = Checkpoint.read(parts((folder / CHECKPOINT).read_text(encoding="utf-8"))[0])
    goes_on = (
        0 < earlier.size <= head.size
        and Checkpoint.read(parts(head.note)[0]).origin == earlier.origin
        and subtree_root(store.tile, 0, earlier.size) == earlier.root
    )
    if not goes_on:
        raise OtherLog(f"{folder} holds another log, or more of this one")


def _tiles(size: int, level: int) -> list[tuple[int, int]]:
    """Index and width of each tile of a level in a tree of this size."""
    full, rest = divmod(size >> 8 * level, TILE_WIDTH)
    return [(index, TILE_WIDTH) for index in range(full)] + ([(full, rest)] if rest else [])


def _export_leaves(store: Store, folder: Path, index: int, width: int) -> None:
    """A tile of level 0 and its bundle. The bundle comes first: where the tile is, both are."""
    tile = store.tile(0, index)[: width * HASH_SIZE]
    target = folder / tile_path(0, index, width)
    if not _is_there(target, tile):
        entries = [leaf_data(event) for event in store.events(index * TILE_WIDTH, width)]
        if b"".join(map(leaf_hash, entries)) != tile:
            raise ProofInvalid(f"tile {index}: the stored events are not the ones that were logged")
        files.write_whole(folder / tile_path("entries", index, width), bundle(entries))
        files.write_whole(target, tile)


def _put(target: Path, tile: bytes) -> None:
    if not _is_there(target, tile):
        files.write_whole(target, tile)


def _is_there(target: Path, tile: bytes) -> bool:
    try:
        if target.read_bytes() != tile:
            raise OtherLog(f"{target} is a tile of another log")
    except FileNotFoundError:
        return False
    return True
