"""The hash tree of RFC 9162 over stored bytes, kept as a frontier and as tiles of 256 hashes.

Everything here is pure. A tile (level L, index N) holds up to 256 hashes of the tree's level 8 L, so the
files of C2SP tlog-tiles are these very bytes. The frontier is the list of roots of the perfect subtrees
that make up the tree, largest first: it is all that is needed to add leaves and to know the root.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

HASH_SIZE = 32
TILE_WIDTH = 256
EMPTY_ROOT = sha256(b"").digest()

ReadTile = Callable[[int, int], bytes]
Frontier = tuple[bytes, ...]
Node = tuple[int, int]  # level and index of a hash in the tiles


class ProofInvalid(Exception):
    """A proof does not lead to the root that was claimed."""


def leaf_hash(data: bytes) -> bytes:
    """SHA-256 of 0x00 and the entry (RFC 9162 section 2.1.1)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256 of 0x01 and the two child hashes (RFC 9162 section 2.1.1)."""
    return sha256(b"\x01" + left + right).digest()


def grow(
    size: int, frontier: Frontier, leaves: Iterable[bytes], nodes: dict[Node, bytes] | None = None
) -> tuple[int, Frontier]:
    """Add leaf hashes to a tree known by its size and frontier.

    The roots of the full tiles that this completes, which are what the tiles of the next level hold, are
    added to `nodes`.
    """
    stack = list(frontier)
    for leaf in leaves:
        stack.append(leaf)
        carry, height = size, 0
        while carry & 1:
            right = stack.pop()
            stack.append(sha256(b"\x01" + stack.pop() + right).digest())
            carry >>= 1
            height += 1
            if nodes is not None and not height % 8:
                nodes[height // 8, size >> height] = stack[-1]
        size += 1
    return size, tuple(stack)


def unpack_frontier(packed: bytes) -> Frontier:
    """A frontier from its hashes in a row."""
    return tuple(packed[i : i + HASH_SIZE] for i in range(0, len(packed), HASH_SIZE))


def root_of(frontier: Frontier) -> bytes:
    """The root of the tree with this frontier; SHA-256 of nothing for the empty tree."""
    if not frontier:
        return EMPTY_ROOT
    root = frontier[-1]
    for left in reversed(frontier[:-1]):
        root = node_hash(left, root)
    return root


def perfect_root(hashes: bytes) -> bytes:
    """The root over the hashes of one row of a perfect tree (their number is a power of two)."""
    row = [hashes[i : i + HASH_SIZE] for i in range(0, len(hashes), HASH_SIZE)]
    while len(row) > 1:
        row = [node_hash(row[i], row[i + 1]) for i in range(0, len(row), 2)]
    return row[0]


def _split(size: int) -> int:
    """The largest power of two smaller than size."""
    return 1 << (size - 1).bit_length() - 1


def subtree_root(read: ReadTile, start: int, end: int) -> bytes:
    """MTH of the leaves start to end - 1 (RFC 9162 section 2.1.1), read from tiles."""
    size = end - start
    if size & (size - 1) == 0 and start % size == 0:
        level, rest = divmod(size.bit_length() - 1, 8)
        width = 1 << rest
        index, offset = divmod((start >> 8 * level), TILE_WIDTH)
        tile = read(level, index)
        hashes = tile[offset * HASH_SIZE : (offset + width) * HASH_SIZE]
        if len(hashes) != width * HASH_SIZE:
            raise ProofInvalid(f"tile {level}/{index} is too short")
        return perfect_root(hashes)
    middle = start + _split(size)
    return node_hash(subtree_root(read, start, middle), subtree_root(read, middle, end))


def inclusion_proof(read: ReadTile, index: int, size: int) -> list[bytes]:
    """PATH(index, D[size]) of RFC 9162 section 2.1.3.1."""
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(subtree_root(read, middle, end))
            end = middle
        else:
            path.append(subtree_root(read, start, middle))
            start = middle
    return path[::-1]


def consistency_proof(read: ReadTile, old: int, new: int) -> list[bytes]:
    """PROOF(old, D[new]) of RFC 9162 section 2.1.4.1."""
    if not 0 < old <= new:
        raise ValueError(f"no consistency proof from {old} to {new}")
    path: list[bytes] = []
    start, end, whole = 0, new, True
    while end != old:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(subtree_root(read, middle, end))
            end = middle
        else:
            path.append(subtree_root(read, start, middle))
            start, whole = middle, False
    if not whole:
        path.append(subtree_root(read, start, end))
    return path[::-1]


def _check_widths(*hashes: bytes) -> None:
    # Two hashes are joined without a mark between them: only their width tells where one ends.
    if any(len(each) != HASH_SIZE for each in hashes):
        raise ProofInvalid("a hash is not 32 bytes long")


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """RFC 9162 section 2.1.3.2. Raises ProofInvalid; a tree of no leaves includes nothing."""
    _check_widths(leaf, *proof, root)
    if not 0 <= index < size:
        raise ProofInvalid(f"leaf {index} is outside a tree of {size}")
    fn, sn, computed = index, size - 1, leaf
    for step in proof:
        if sn == 0:
            raise ProofInvalid("the proof is too long")
        if fn & 1 or fn == sn:
            computed = node_hash(step, computed)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            computed = node_hash(computed, step)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise ProofInvalid("the proof is too short")
    if computed != root:
        raise ProofInvalid("the proof does not lead to the root")


def verify_consistency(old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """RFC 9162 section 2.1.4.2. Raises ProofInvalid; a tree of no leaves proves nothing."""
    if not 0 < old <= new:
        raise ProofInvalid(f"no consistency from {old} to {new}")
    if old == new:
        if proof or old_root != new_root:
            raise ProofInvalid("two trees of one size differ")
        return
    if not proof:
        raise ProofInvalid("the proof is empty")
    _check_widths(*proof, old_root, new_root)
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    first = second = path[0]
    for step in path[1:]:
        if sn == 0:
            raise ProofInvalid("the proof is too long")
        if fn & 1 or fn == sn:
            first, second = node_hash(step, first), node_hash(step, second)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            second = node_hash(second, step)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise ProofInvalid("the proof is too short")
    if first != old_root or second != new_root:
        raise ProofInvalid("the proof does not join the two roots")
