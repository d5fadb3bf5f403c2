"""Proof that an event is in the log, as one small text that anyone can check (C2SP tlog-proof).

The text carries the logged bytes themselves as its extra data: with the log's public key, and nothing else,
a reader can tell that exactly these bytes were recorded at this place.
"""

from base64 import b64decode, b64encode

from broker.ledger.events import leaf_data
from broker.ledger.merkle import ProofInvalid, inclusion_proof, leaf_hash, verify_inclusion
from broker.ledger.notes import Checkpoint, NoteVerifier
from broker.ledger.store import Store

_HEADER = "c2sp.org/tlog-proof@v1"


def receipt(store: Store, position: int) -> str:
    """The proof for the event at a position, under the latest checkpoint. IndexError if there is none."""
    head = store.head()
    stored = store.at([position])[0]
    proof = inclusion_proof(store.tile, position - 1, head.size)
    lines = [
        _HEADER,
        f"extra {b64encode(leaf_data(stored)).decode()}",
        f"index {position - 1}",
        *(b64encode(step).decode() for step in proof),
        "",
        head.note,
    ]
    return "\n".join(lines)


def check_receipt(text: str, verifier_key: str) -> tuple[int, bytes, Checkpoint]:
    """Position, logged bytes and checkpoint of a receipt. Raises ProofInvalid or NoteInvalid."""
    proof, mark, note = text.partition("\n\n")
    header, *lines = proof.split("\n")
    if header != _HEADER or not mark or len(lines) < 2:
        raise ProofInvalid("not a proof of this format")
    extra, index, *steps = lines
    if not extra.startswith("extra ") or not index.startswith("index ") or not index[6:].isdecimal():
        raise ProofInvalid("the proof lacks its entry or its place")
    try:
        data = b64decode(extra[6:], validate=True)
        hashes = [b64decode(step, validate=True) for step in steps]
    except ValueError as error:
        raise ProofInvalid("the proof is not base64") from error
    checkpoint = NoteVerifier(verifier_key).checkpoint(note)
    verify_inclusion(leaf_hash(data), int(index[6:]), checkpoint.size, hashes, checkpoint.root)
    return int(index[6:]) + 1, data, checkpoint
