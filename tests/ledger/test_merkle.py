"""The tree of RFC 9162 alone, across the widths of one tile (256) and of a tile of tiles (65,536)."""

from functools import cache
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.ledger.merkle import (
    EMPTY_ROOT,
    Frontier,
    ProofInvalid,
    consistency_proof,
    grow,
    inclusion_proof,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from tests.ledger.places import plain_root, tiles_of

Tiles = dict[tuple[int, int], bytes]

LARGEST = 65_536 + 700
LEAVES = [sha256(str(i).encode()).digest() for i in range(LARGEST)]

# Sizes crowd where tiles end: there a tree of tiles differs from a tree.
sizes = st.one_of(
    st.integers(1, 600),
    st.integers(65_536 - 300, LARGEST),
    st.integers(1, LARGEST),
    st.sampled_from([1, 2, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537, 65_792, 65_793]),
)


@cache
def reference_root(start: int, end: int) -> bytes:
    """The same recursion as plain_root, remembering what it met."""
    if end - start == 1:
        return LEAVES[start]
    split = 1
    while split * 2 < end - start:
        split *= 2
    left, right = reference_root(start, start + split), reference_root(start + split, end)
    return sha256(b"\x01" + left + right).digest()


@pytest.fixture(scope="module")
def tiles() -> Tiles:
    return tiles_of(LEAVES)


def test_the_tree_of_nothing() -> None:
    assert root_of(()) == EMPTY_ROOT == plain_root([])
    assert grow(0, (), []) == (0, ())


@pytest.mark.parametrize("size", range(1, 40))
def test_the_references_agree(size: int) -> None:
    assert reference_root(0, size) == plain_root(LEAVES[:size])


@settings(max_examples=60)
@given(steps=st.lists(sizes, max_size=6))
def test_growing_in_any_steps_gives_the_same_root(steps: list[int]) -> None:
    size, frontier = 0, Frontier()
    for end in sorted(steps):
        size, frontier = grow(size, frontier, LEAVES[size:end])
        assert size == end
        assert root_of(frontier) == reference_root(0, end)
        assert len(frontier) == end.bit_count()


@settings(max_examples=60)
@given(start=st.sampled_from([0, 65_536 - 260]), steps=st.lists(st.integers(0, 600), min_size=1, max_size=5))
def test_growing_in_any_steps_completes_the_same_nodes(tiles: Tiles, start: int, steps: list[int]) -> None:
    """What a tile above the leaves holds is written once, when the tile below it is full."""
    size, frontier = grow(0, (), LEAVES[:start])
    for step in steps:
        end = min(size + step, LARGEST)
        nodes: Tiles = {}
        full = {level: (size >> 8 * level, end >> 8 * level) for level in (1, 2, 3)}
        size, frontier = grow(size, frontier, LEAVES[size:end], nodes)
        assert nodes == {
            (level, index): tiles[level, index // 256][index % 256 * 32 :][:32]
            for level, (first, last) in full.items()
            for index in range(first, last)
        }


def test_a_tile_holds_the_hashes_of_its_level(tiles: Tiles) -> None:
    assert sorted({level for level, _ in tiles}) == [0, 1, 2]
    assert tiles[0, 7] == b"".join(LEAVES[7 * 256 : 8 * 256])
    assert tiles[1, 0] == b"".join(reference_root(i * 256, (i + 1) * 256) for i in range(256))
    assert tiles[2, 0] == reference_root(0, 65_536)


@settings(max_examples=200)
@given(data=st.data(), size=sizes)
def test_every_leaf_is_proved_included(tiles: Tiles, data: st.DataObject, size: int) -> None:
    index = data.draw(st.one_of(st.integers(0, size - 1), st.sampled_from([0, size - 1])))
    root = reference_root(0, size)
    proof = inclusion_proof(lambda level, i: tiles[level, i], index, size)
    verify_inclusion(LEAVES[index], index, size, proof, root)
    assert len(proof) <= (size - 1).bit_length()
    with pytest.raises(ProofInvalid):
        verify_inclusion(sha256(b"another").digest(), index, size, proof, root)
    for wrong in range(len(proof)):
        changed = [*proof[:wrong], sha256(proof[wrong]).digest(), *proof[wrong + 1 :]]
        with pytest.raises(ProofInvalid):
            verify_inclusion(LEAVES[index], index, size, changed, root)
    with pytest.raises(ProofInvalid):
        verify_inclusion(LEAVES[index], index, size, [*proof, root], root)
    if proof:
        with pytest.raises(ProofInvalid):
            verify_inclusion(LEAVES[index], index, size, proof[:-1], root)


@settings(max_examples=200)
@given(pair=st.tuples(sizes, sizes))
def test_every_tree_is_proved_to_go_on_from_every_smaller_one(tiles: Tiles, pair: tuple[int, int]) -> None:
    old, new = sorted(pair)
    old_root, new_root = reference_root(0, old), reference_root(0, new)
    proof = consistency_proof(lambda level, i: tiles[level, i], old, new)
    verify_consistency(old, new, proof, old_root, new_root)
    wrong_root = sha256(b"another").digest()
    with pytest.raises(ProofInvalid):
        verify_consistency(old, new, proof, wrong_root, new_root)
    with pytest.raises(ProofInvalid):
        verify_consistency(old, new, proof, old_root, wrong_root)
    for wrong in range(len(proof)):
        changed = [*proof[:wrong], sha256(proof[wrong]).digest(), *proof[wrong + 1 :]]
        with pytest.raises(ProofInvalid):
            verify_consistency(old, new, changed, old_root, new_root)
    with pytest.raises(ProofInvalid):
        verify_consistency(old, new, [*proof, new_root], old_root, new_root)
    if proof:
        with pytest.raises(ProofInvalid):
            verify_consistency(old, new, proof[:-1], old_root, new_root)


def test_every_index_of_every_small_tree(tiles: Tiles) -> None:
    for size in range(1, 34):
        root = plain_root(LEAVES[:size])
        for index in range(size):
            proof = inclusion_proof(lambda level, i: tiles[level, i], index, size)
            verify_inclusion(LEAVES[index], index, size, proof, root)
            old_root = plain_root(LEAVES[: index + 1])
            proof = consistency_proof(lambda level, i: tiles[level, i], index + 1, size)
            verify_consistency(index + 1, size, proof, old_root, root)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (5, 5), (-1, 5)])
def test_no_inclusion_outside_the_tree(tiles: Tiles, index: int, size: int) -> None:
    with pytest.raises(ValueError, match="no leaf"):
        inclusion_proof(lambda level, i: tiles[level, i], index, size)
    with pytest.raises(ProofInvalid, match="outside"):
        verify_inclusion(LEAVES[0], index, size, [], LEAVES[0])


@pytest.mark.parametrize(("old", "new"), [(0, 0), (0, 5), (6, 5)])
def test_no_consistency_from_nothing_or_backwards(tiles: Tiles, old: int, new: int) -> None:
    with pytest.raises(ValueError, match="no consistency"):
        consistency_proof(lambda level, i: tiles[level, i], old, new)
    with pytest.raises(ProofInvalid, match="no consistency"):
        verify_consistency(old, new, [], EMPTY_ROOT, EMPTY_ROOT)


def test_a_tile_that_is_cut_short_gives_no_proof(tiles: Tiles) -> None:
    with pytest.raises(ProofInvalid, match="tile 0/0 is too short"):
        inclusion_proof(lambda level, index: tiles[level, index][: 31 * 32], 3, 40)
