"""A verifier of transparency logs, written against the texts alone and importing nothing of the product.

The texts are RFC 9162 sections 2.1.1, 2.1.3.2 and 2.1.4.2, and of C2SP signed-note, tlog-checkpoint,
tlog-cosignature (0x04 and 0x06), tlog-proof, tlog-tiles and tlog-witness (its body as a consistency proof).
Where the product is quick, this is plain: it recomputes every hash from the entries.

    python verifier.py tiles FOLDER VKEY...
    python verifier.py proof FILE VKEY...        the record in `extra` is that of renkei
"""

import base64
import re
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey


class Rejected(Exception):
    """What was shown does not hold."""


def require(holds: bool, why: str) -> None:
    if not holds:
        raise Rejected(why)


# -- RFC 4648, strictly, and numbers ------------------------------------------------------------------


def unbase64(text: str) -> bytes:
    require(re.fullmatch(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", text) is not None,
            "not base64")  # fmt: skip
    raw = base64.b64decode(text)
    require(base64.b64encode(raw).decode() == text, "base64 with stray bits")
    return raw


def number(text: str) -> int:
    require(re.fullmatch(r"0|[1-9][0-9]{0,18}", text) is not None, "not a decimal number")
    return int(text)


# -- RFC 9162 -----------------------------------------------------------------------------------------


def leaf_hash(entry: bytes) -> bytes:
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def tree_hash(leaves: list[bytes]) -> bytes:
    """MTH of section 2.1.1, over leaf hashes."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(tree_hash(leaves[:k]), tree_hash(leaves[k:]))


def inclusion_path(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of section 2.1.3.1."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m < k:
        return [*inclusion_path(m, leaves[:k]), tree_hash(leaves[k:])]
    return [*inclusion_path(m - k, leaves[k:]), tree_hash(leaves[:k])]


def consistency_path(m: int, leaves: list[bytes], whole: bool = True) -> list[bytes]:
    """PROOF (SUBPROOF) of section 2.1.4.1."""
    if m == len(leaves):
        return [] if whole else [tree_hash(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m <= k:
        return [*consistency_path(m, leaves[:k], whole), tree_hash(leaves[k:])]
    return [*consistency_path(m - k, leaves[k:], False), tree_hash(leaves[:k])]


def check_inclusion(leaf: bytes, leaf_index: int, tree_size: int, path: list[bytes], root: bytes) -> None:
    """Section 2.1.3.2, step by step."""
    require(all(len(each) == 32 for each in (leaf, root, *path)), "a hash is not 32 bytes long")
    require(0 <= leaf_index < tree_size, "the index is outside the tree")
    fn, sn, r = leaf_index, tree_size - 1, leaf
    for p in path:
        require(sn != 0, "the path is too long")
        if fn % 2 == 1 or fn == sn:
            r = node_hash(p, r)
            if fn % 2 == 0:
                while fn % 2 == 0 and fn != 0:
                    fn //= 2
                    sn //= 2
        else:
            r = node_hash(r, p)
        fn //= 2
        sn //= 2
    require(sn == 0, "the path is too short")
    require(r == root, "the path leads to another root")


def check_consistency(
    first: int, second: int, path: list[bytes], first_hash: bytes, second_hash: bytes
) -> None:
    """Section 2.1.4.2, step by step; a tree of no leaves is consistent with nothing that could be shown."""
    require(0 < first <= second, "the sizes are out of order")
    if first == second:
        require(not path and first_hash == second_hash, "two trees of one size differ")
        return
    require(all(len(each) == 32 for each in (first_hash, second_hash, *path)), "a hash is not 32 bytes long")
    require(bool(path), "the path is empty")
    if first & (first - 1) == 0:
        path = [first_hash, *path]
    fn, sn = first - 1, second - 1
    while fn % 2 == 1:
        fn //= 2
        sn //= 2
    fr = sr = path[0]
    for c in path[1:]:
        require(sn != 0, "the path is too long")
        if fn % 2 == 1 or fn == sn:
            fr = node_hash(c, fr)
            sr = node_hash(c, sr)
            if fn % 2 == 0:
                while fn % 2 == 0 and fn != 0:
                    fn //= 2
                    sn //= 2
        else:
            sr = node_hash(sr, c)
        fn //= 2
        sn //= 2
    require(sn == 0, "the path is too short")
    require(fr == first_hash and sr == second_hash, "the path leads to other roots")


# -- C2SP signed-note, tlog-checkpoint, tlog-cosignature ----------------------------------------------


@dataclass(frozen=True)
class Checkpoint:
    origin: str
    size: int
    root: bytes


@dataclass(frozen=True)
class Signature:
    """A valid signature: by which verifier key, and the POSIX time it states (None: the kind states none)."""

    vkey: str
    time: int | None


def checkpoint_of(text: str) -> Checkpoint:
    lines = text.split("\n")
    require(len(lines) >= 4 and lines[-1] == "" and all(lines[:-1]), "not the lines of a checkpoint")
    root = unbase64(lines[2])
    require(len(root) == 32, "the root is no hash")
    return Checkpoint(lines[0], number(lines[1]), root)


def parse_vkey(vkey: str) -> tuple[str, bytes, int, bytes]:
    """Name, key id, signature type and public key."""
    found = re.fullmatch(r"([^\s+]+)\+([0-9a-f]{8})\+(\S+)", vkey)
    require(found is not None, "not a verifier key")
    assert found is not None
    name, key = found[1], unbase64(found[3])
    key_id = sha256(name.encode() + b"\n" + key).digest()[:4]
    require(key_id.hex() == found[2], "the key id is not that of the key")
    return name, key_id, key[0], key[1:]


def signed_bytes(kind: int, name: str, text: str, time: int) -> bytes:
    if kind == 0x01:
        return text.encode()
    if kind == 0x04:
        checkpoint_of(text)
        return b"cosignature/v1\ntime " + str(time).encode() + b"\n" + text.encode()
    require(kind == 0x06, "a signature type that is not known")
    require(text.count("\n") == 3, "extension lines are not signed by ML-DSA-44")
    checkpoint = checkpoint_of(text)
    signer, origin = name.encode(), checkpoint.origin.encode()
    require(len(signer) < 256 and len(origin) < 256, "a name is too long")
    return (
        b"subtree/v1\n\x00"
        + struct.pack(">B", len(signer)) + signer
        + struct.pack(">Q", time)
        + struct.pack(">B", len(origin)) + origin
        + struct.pack(">QQ", 0, checkpoint.size)
        + checkpoint.root
    )  # fmt: skip


def open_note(note: str, vkeys: list[str]) -> tuple[str, list[Signature]]:
    """The text and every valid signature by a known key. A false one by a known key is a reason to reject."""
    body, blank, tail = note.rpartition("\n\n")
    require(blank != "" and tail.endswith("\n"), "no signatures")
    require(not re.search("[\x00-\x09\x0b-\x1f]", note), "a control character")
    text = body + "\n"
    known = {(parse_vkey(vkey)[0], parse_vkey(vkey)[1]): vkey for vkey in vkeys}
    valid = []
    for line in tail[:-1].split("\n"):
        found = re.fullmatch(r"— ([^\s+]+) (\S+)", line)
        require(found is not None, "not a signature line")
        assert found is not None
        raw = unbase64(found[2])
        require(len(raw) > 4, "a signature without bytes")
        vkey = known.get((found[1], raw[:4]))
        if vkey is not None:
            valid.append(Signature(vkey, check_signature(vkey, text, raw[4:])))
    require(bool(valid), "no signature by a known key")
    return text, valid


def check_signature(vkey: str, text: str, raw: bytes) -> int | None:
    name, _, kind, public = parse_vkey(vkey)
    stated: int | None = None
    if kind != 0x01:
        require(len(raw) > 8, "a cosignature without a time")
        (stated,) = struct.unpack(">Q", raw[:8])
        raw = raw[8:]
        require(stated is not None and stated < 1 << 63, "a time out of range")
    message = signed_bytes(kind, name, text, stated or 0)
    try:
        if kind == 0x06:
            require(len(raw) == 2420, "not the length of an ML-DSA-44 signature")
            MLDSA44PublicKey.from_public_bytes(public).verify(raw, message)
        else:
            require(len(raw) == 64, "not the length of an Ed25519 signature")
            Ed25519PublicKey.from_public_bytes(public).verify(raw, message)
    except (InvalidSignature, ValueError) as error:
        raise Rejected(f"a false signature by {name}") from error
    return stated


def open_checkpoint(note: str, log_vkeys: list[str], others: list[str]) -> tuple[Checkpoint, list[Signature]]:
    """A checkpoint that the log itself signed under its origin, and all valid signatures on it."""
    text, signatures = open_note(note, [*log_vkeys, *others])
    checkpoint = checkpoint_of(text)
    own = [each for each in signatures if each.vkey in log_vkeys]
    require(any(parse_vkey(each.vkey)[0] == checkpoint.origin for each in own), "not signed by the log")
    return checkpoint, signatures


# -- C2SP tlog-proof, and the body of tlog-witness as a proof of consistency --------------------------


def check_proof(
    text: str, entry_of: Callable[[bytes], bytes], log_vkeys: list[str], others: list[str]
) -> tuple[int, Checkpoint, list[Signature]]:
    """Index, checkpoint and signatures of a proof. What the entry is, is the application's to say."""
    head, blank, note = text.partition("\n\n")
    lines = head.split("\n")
    require(blank != "" and lines.pop(0) == "c2sp.org/tlog-proof@v1", "not a proof")
    require(bool(lines), "the proof has no index")
    extra = b""
    if lines[0].startswith("extra "):
        extra = unbase64(lines.pop(0)[6:])
    require(bool(lines) and lines[0].startswith("index "), "the proof has no index")
    index = number(lines.pop(0)[6:])
    checkpoint, signatures = open_checkpoint(note, log_vkeys, others)
    path = [unbase64(line) for line in lines]
    check_inclusion(leaf_hash(entry_of(extra)), index, checkpoint.size, path, checkpoint.root)
    return index, checkpoint, signatures


def check_submission(text: str, older: Checkpoint, log_vkeys: list[str]) -> Checkpoint:
    head, blank, note = text.partition("\n\n")
    lines = head.split("\n")
    require(blank != "" and lines[0].startswith("old ") and len(lines) <= 64, "not a submission")
    checkpoint, _ = open_checkpoint(note, log_vkeys, [])
    require(number(lines[0][4:]) == older.size, "the proof begins at another size")
    require(checkpoint.origin == older.origin, "the proof is about another log")
    path = [unbase64(line) for line in lines[1:]]
    check_consistency(older.size, checkpoint.size, path, older.root, checkpoint.root)
    return checkpoint


# -- C2SP tlog-tiles ----------------------------------------------------------------------------------


def tile_name(level: str, index: int, width: int) -> str:
    place = f"{index % 1000:03d}"
    while index >= 1000:
        index //= 1000
        place = f"x{index % 1000:03d}/{place}"
    return f"tile/{level}/{place}" + ("" if width == 256 else f".p/{width}")


def read_entries(bundle: bytes, width: int) -> list[bytes]:
    entries = []
    while bundle:
        require(len(bundle) >= 2, "a bundle is cut")
        (length,) = struct.unpack(">H", bundle[:2])
        require(len(bundle) >= 2 + length, "a bundle is cut")
        entries.append(bundle[2 : 2 + length])
        bundle = bundle[2 + length :]
    require(len(entries) == width, "a bundle has another number of entries")
    return entries


def check_tiles(
    folder: Path, log_vkeys: list[str], others: list[str], older: tuple[Checkpoint, ...] = ()
) -> tuple[Checkpoint, list[Signature]]:
    """Recompute a whole log from its entries: every tile it needs, its root, and its older checkpoints'."""
    checkpoint, signatures = open_checkpoint(read(folder, "checkpoint").decode(), log_vkeys, others)
    hashes: list[bytes] = []
    for start in range(0, checkpoint.size, 256):
        width = min(256, checkpoint.size - start)
        bundle = read(folder, tile_name("entries", start // 256, width))
        hashes += [leaf_hash(entry) for entry in read_entries(bundle, width)]
    leaves, level = hashes, 0
    while hashes:
        for start in range(0, len(hashes), 256):
            row = hashes[start : start + 256]
            name = tile_name(str(level), start // 256, len(row))
            require(read(folder, name) == b"".join(row), f"{name} is not what the entries make")
        hashes = [tree_hash(hashes[at : at + 256]) for at in range(0, len(hashes) // 256 * 256, 256)]
        level += 1
    require(tree_hash(leaves) == checkpoint.root, "the root is not that of the entries")
    for each in older:
        require(each.origin == checkpoint.origin and each.size <= checkpoint.size, "not an older checkpoint")
        require(tree_hash(leaves[: each.size]) == each.root, "the log does not go on from the older one")
        if each.size:
            path = consistency_path(each.size, leaves)
            check_consistency(each.size, checkpoint.size, path, each.root, checkpoint.root)
    return checkpoint, signatures


def read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise Rejected(f"{name} is missing") from error


# -- the entries of renkei ----------------------------------------------------------------------------
# A record is the MessagePack array [stream, version, topic, state]: text, number, text, bytes. The entry
# that the log holds is the same array with the SHA-256 of the state in the place of the state.


def renkei_entry(record: bytes) -> bytes:
    require(record[:1] == b"\x94", "not an array of four")
    state = 1
    for _ in range(3):
        state = _after(record, state)
    require(_after(record, state) == len(record), "there is more than an array of four")
    require(record[state] in (0xC4, 0xC5, 0xC6), "the state is not of bytes")
    content = state + {0xC4: 2, 0xC5: 3, 0xC6: 5}[record[state]]
    return record[:state] + b"\xc4\x20" + sha256(record[content:]).digest()


def _after(packed: bytes, at: int) -> int:
    """Where the text, number or bytes that begin here end, each in its shortest form."""
    require(at < len(packed), "the record is cut")
    mark = packed[at]
    if mark < 0x80:
        return at + 1
    if 0xA0 <= mark < 0xC0:
        return at + 1 + mark - 0xA0
    if mark in (0xCC, 0xCD, 0xCE, 0xCF):
        width = 1 << mark - 0xCC
        value = int.from_bytes(packed[at + 1 : at + 1 + width], "big")
        require(value >= {1: 128, 2: 256, 4: 1 << 16, 8: 1 << 32}[width], "a number in a longer form")
        return at + 1 + width
    width = {0xD9: 1, 0xDA: 2, 0xDB: 4, 0xC4: 1, 0xC5: 2, 0xC6: 4}.get(mark, 0)
    require(width > 0, "neither text, number nor bytes")
    length = int.from_bytes(packed[at + 1 : at + 1 + width], "big")
    shortest = {0xD9: 32, 0xC4: 0}.get(mark, 1 << 4 * width)
    require(length >= shortest, "a length in a longer form")
    return at + 1 + width + length


def main(arguments: list[str]) -> int:
    what, where, *vkeys = arguments
    try:
        if what == "tiles":
            checkpoint, signatures = check_tiles(Path(where), vkeys, [])
        else:
            _, checkpoint, signatures = check_proof(Path(where).read_text("utf-8"), renkei_entry, vkeys, [])
    except Rejected as error:
        print(f"REJECTED {error}")
        return 1
    print(f"OK {checkpoint.origin} {checkpoint.size} {len(signatures)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
