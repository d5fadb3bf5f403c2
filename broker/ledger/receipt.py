"""Proof that an event is in the log, as one small text that anyone can check (C2SP tlog-proof).

The text carries the stored bytes themselves as its extra data: with the log's public key, and nothing else,
a reader can tell that exactly these bytes were recorded at this place.
"""

from base64 import b64encode
from dataclasses import dataclass

import msgpack
from eventsourcing.persistence import StoredEvent

from broker.ledger.events import leaf_data
from broker.ledger.merkle import ProofInvalid, inclusion_proof, leaf_hash, verify_inclusion
from broker.ledger.notes import (
    Checkpoint,
    NoteVerifier,
    Signed,
    decimal,
    decode,
    open_note,
    with_signatures,
)
from broker.ledger.store import Store

_HEADER = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True)
class Proved:
    """What a receipt shows: the bytes recorded at a position, the checkpoint over them, and who signed it.

    `record` is the msgpack array [stream, version, topic, state].
    """

    position: int
    record: bytes
    checkpoint: Checkpoint
    signed: tuple[Signed, ...]


def receipt(store: Store, position: int, size: int = 0) -> str:
    """The proof for the event at a position, under the first checkpoint of at least `size`, or the latest.

    The cosignatures that the store has of this checkpoint go with it: those of a sealed one tell since when
    the event was there. Raises IndexError if there is no such event or checkpoint, ValueError where the
    checkpoint is older than the event.
    """
    stored = store.at([position])[0]
    head = store.checkpoints(after=size - 1, limit=1)[0] if size else store.head()
    record = [str(stored.originator_id), stored.originator_version, stored.topic, stored.state]
    proof = inclusion_proof(store.tile, position - 1, head.size)
    lines = [
        _HEADER,
        f"extra {b64encode(msgpack.packb(record)).decode()}",
        f"index {position - 1}",
        *(b64encode(step).decode() for step in proof),
        "",
        with_signatures(head.note, store.cosignatures(head.size)),
    ]
    return "\n".join(lines)


def check_receipt(text: str, verifier_key: str, *others: str) -> Proved:
    """Check a receipt with the verifier key of its log; the log must have signed it, whoever else did.

    `others` are the log's further keys and those of witnesses: each that signed is named in the result, and
    each signature by one of them must be valid. Raises ProofInvalid or NoteInvalid.
    """
    proof, mark, note = text.partition("\n\n")
    header, *lines = proof.split("\n")
    if header != _HEADER or not mark or len(lines) < 2:
        raise ProofInvalid("not a proof of this format")
    extra, index, *steps = lines
    if not extra.startswith("extra ") or not index.startswith("index "):
        raise ProofInvalid("the proof lacks its entry or its place")
    try:
        record, place = decode(extra[6:]), decimal(index[6:])
        hashes = [decode(step) for step in steps]
    except ValueError as error:
        raise ProofInvalid("a line of the proof is malformed") from error
    log = NoteVerifier(verifier_key)
    checkpoint = log.checkpoint(note)
    if checkpoint.origin != log.name:
        raise ProofInvalid("the checkpoint is of another log than the key")
    _, signed = open_note(note, [log, *map(NoteVerifier, others)])
    verify_inclusion(leaf_hash(_entry(record)), place, checkpoint.size, hashes, checkpoint.root)
    return Proved(place + 1, record, checkpoint, signed)


def _entry(record: bytes) -> bytes:
    """The log's entry for a record, which must be in the one form that we write."""
    try:
        stream, version, topic, state = msgpack.unpackb(record)
        exact = msgpack.packb([stream, version, topic, state]) == record
    except (ValueError, TypeError) as error:
        raise ProofInvalid("the extra data is no record") from error
    if not exact or [type(each) for each in (stream, version, topic, state)] != [str, int, str, bytes]:
        raise ProofInvalid("the extra data is no record")
    return leaf_data(StoredEvent(stream, version, topic, state))
