"""Makes the vectors beside this file: a small fixed log with everything that a verifier may be shown.

It uses the independent verifier and nothing of the product, which has to arrive at the same bytes. The keys
are fixed and protect nothing. ML-DSA-44 signs with fresh randomness: each run makes other signatures of that
kind, all other bytes stay. To make all anew: python -m tests.independent.make
"""

import base64
import json
import struct
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from tests.independent.verifier import (
    consistency_path,
    inclusion_path,
    leaf_hash,
    parse_vkey,
    renkei_entry,
    signed_bytes,
    tile_name,
    tree_hash,
)

VECTORS = Path(__file__).parent / "vectors"
ORIGIN, WITNESS = "example.org/log", "example.org/witness"
TIME = 1_795_219_200  # 2026-11-21T00:00:00Z
SIZES = (1, 100, 256, 300)
PROOFS = ((0, 1), (0, 300), (99, 100), (255, 256), (255, 300), (256, 300), (299, 300))
STEPS = ((1, 300), (100, 256), (100, 300), (256, 300), (300, 300))

# name -> signer, signature type, private key (32 bytes; of ML-DSA-44 the seed)
KEYS = {
    "log": (ORIGIN, 0x01, bytes(range(32))),
    "log-ml-dsa-44": (ORIGIN, 0x06, bytes(range(32, 64))),
    "witness": (WITNESS, 0x04, bytes(range(64, 96))),
    "witness-ml-dsa-44": (WITNESS, 0x06, bytes(range(96, 128))),
    "other-log": ("example.org/other", 0x01, bytes(range(128, 160))),
    "other-witness": ("example.org/other-witness", 0x04, bytes(range(160, 192))),
}
SEALED = ("log", "log-ml-dsa-44", "witness", "witness-ml-dsa-44")


def records() -> list[tuple[str, int, str, bytes]]:
    """Stream, version, topic and state of each of the 300 events; their states have 0 to 299 bytes."""
    return [
        (f"stream/{n % 7}", n // 7 + 1, f"sample.noted/{n % 3 + 1}", bytes(n % 251 for _ in range(n)))
        for n in range(300)
    ]


def packed(stream: str, version: int, topic: str, state: bytes) -> bytes:
    """The MessagePack array of a record, by hand."""

    def text(value: str) -> bytes:
        return bytes([0xA0 + len(value)]) + value.encode()

    head = struct.pack(">BB", 0xC4, len(state)) if len(state) < 256 else struct.pack(">BH", 0xC5, len(state))
    return b"\x94" + text(stream) + bytes([version]) + text(topic) + head + state


def private_key(name: str) -> Ed25519PrivateKey | MLDSA44PrivateKey:
    _, kind, seed = KEYS[name]
    if kind == 0x06:
        return MLDSA44PrivateKey.from_seed_bytes(seed)
    return Ed25519PrivateKey.from_private_bytes(seed)


def vkey(name: str) -> str:
    signer, kind, _ = KEYS[name]
    raw = bytes([kind]) + private_key(name).public_key().public_bytes_raw()
    key_id = sha256(signer.encode() + b"\n" + raw).hexdigest()[:8]
    return f"{signer}+{key_id}+{base64.b64encode(raw).decode()}"


def line(name: str, text: str) -> str:
    """A signature line, with its end."""
    signer, kind, _ = KEYS[name]
    _, key_id, _, _ = parse_vkey(vkey(name))
    stated = b"" if kind == 1 else struct.pack(">Q", TIME)
    signature = private_key(name).sign(signed_bytes(kind, signer, text, TIME))
    return f"— {signer} {base64.b64encode(key_id + stated + signature).decode()}\n"


def write(name: str, content: bytes | str) -> None:
    path = VECTORS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def encoded(path: list[bytes]) -> str:
    return "".join(f"{base64.b64encode(each).decode()}\n" for each in path)


def make() -> None:
    extras = [packed(*record) for record in records()]
    entries = [renkei_entry(extra) for extra in extras]
    leaves = [leaf_hash(entry) for entry in entries]
    notes = {}
    for size in SIZES:
        text = f"{ORIGIN}\n{size}\n{base64.b64encode(tree_hash(leaves[:size])).decode()}\n"
        signers = SEALED if size == SIZES[-1] else SEALED[:1]
        notes[size] = text + "\n" + "".join(line(name, text) for name in signers)
        write(f"checkpoints/{size}", notes[size])
    for index, size in PROOFS:
        extra = base64.b64encode(extras[index]).decode()
        path = encoded(inclusion_path(index, leaves[:size]))
        text = f"c2sp.org/tlog-proof@v1\nextra {extra}\nindex {index}\n{path}\n{notes[size]}"
        write(f"proofs/{index}-{size}.tlog-proof", text)
    for old, new in STEPS:
        path = encoded(consistency_path(old, leaves[:new]))
        write(f"consistency/{old}-{new}", f"old {old}\n{path}\n{notes[new]}")
    for level, hashes in (("0", leaves), ("1", [tree_hash(leaves[:256])])):
        for start in range(0, len(hashes), 256):
            row = hashes[start : start + 256]
            write("log/" + tile_name(level, start // 256, len(row)), b"".join(row))
    for start in range(0, len(entries), 256):
        row = entries[start : start + 256]
        bundle = b"".join(struct.pack(">H", len(each)) + each for each in row)
        write("log/" + tile_name("entries", start // 256, len(row)), bundle)
    write("log/checkpoint", notes[SIZES[-1]])
    write("keys.json", json.dumps({name: vkey(name) for name in KEYS}, indent=1) + "\n")


if __name__ == "__main__":
    make()
