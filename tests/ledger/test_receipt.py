"""Receipts: what they prove, under which checkpoint, and with whose signatures."""

from base64 import b64decode, b64encode

import msgpack
import pytest

from broker.ledger.events import leaf_data
from broker.ledger.merkle import ProofInvalid
from broker.ledger.notes import Kind, NoteInvalid, NoteSigner, Signed, parts
from broker.ledger.receipt import check_receipt, receipt
from broker.ledger.store import MemoryStore, Store
from tests.independent.verifier import check_proof, renkei_entry
from tests.ledger.places import SIGNER, Place, sign, stored, unit

TIME = 1_795_219_200
LOG_PQ = NoteSigner(SIGNER.name, bytes(range(1, 33)), Kind.ML_DSA_44)
WITNESS = NoteSigner("test/witness", bytes(range(2, 34)), Kind.COSIGNATURE)
STRANGER = NoteSigner("test/stranger", bytes(range(3, 35)), Kind.COSIGNATURE)
KEY = SIGNER.verifier_key


def sealed(store: Store, *signers: NoteSigner) -> int:
    head = store.head()
    text, _ = parts(head.note)
    store.cosign(head.size, [signer.line(text, TIME) for signer in signers])
    return head.size


def test_a_receipt_carries_the_stored_bytes(place: Place) -> None:
    stored(place.store, unit("m1", ("a", 0, 300)))
    for position in (1, 256, 257, 300):
        proved = check_receipt(receipt(place.store, position), KEY)
        assert (proved.position, proved.checkpoint.size) == (position, 300)
        assert msgpack.unpackb(proved.record) == ["a", position, "plain/1", f"m1 a {position}".encode()]
        assert proved.signed == (Signed(SIGNER.name, Kind.ED25519, 0),)


@pytest.mark.parametrize("position", [1, 256, 257, 300])
def test_the_independent_verifier_accepts_it(position: int, place: Place) -> None:
    """And so does whoever knows no more of the record than its entry in the log."""
    stored(place.store, unit("m1", ("a", 0, 300)))
    text, entry = receipt(place.store, position), leaf_data(place.store.at([position])[0])
    assert check_proof(text, renkei_entry, [KEY], [])[0] == position - 1
    assert check_proof(text, lambda _: entry, [KEY], [])[0] == position - 1


def test_it_stands_under_the_checkpoint_that_is_named(place: Place) -> None:
    for number in range(4):
        stored(place.store, unit(f"m{number}", (f"s{number}", 0, 10)))
    # Named by any size up to it: the first that covers so much.
    for size, found in ((0, 40), (1, 10), (10, 10), (11, 20), (40, 40)):
        assert check_receipt(receipt(place.store, 7, size), KEY).checkpoint.size == found
    with pytest.raises(IndexError):
        receipt(place.store, 7, 41)
    with pytest.raises(ValueError, match="no leaf"):
        receipt(place.store, 17, 10)
    for position in (0, 41):
        with pytest.raises(IndexError):
            receipt(place.store, position)


def test_the_cosignatures_of_its_checkpoint_go_with_it(place: Place) -> None:
    stored(place.store, unit("m1", ("a", 0, 10)))
    size = sealed(place.store, WITNESS, STRANGER)
    stored(place.store, unit("m2", ("b", 0, 10)))
    text = receipt(place.store, 7, size)
    witnessed = Signed(WITNESS.name, Kind.COSIGNATURE, TIME)
    assert check_receipt(text, KEY, WITNESS.verifier_key).signed == (
        Signed(SIGNER.name, Kind.ED25519, 0),
        witnessed,
    )
    assert len(check_receipt(text, KEY, WITNESS.verifier_key, STRANGER.verifier_key).signed) == 3
    assert check_receipt(text, KEY).signed == (Signed(SIGNER.name, Kind.ED25519, 0),)
    assert len(check_receipt(receipt(place.store, 7), KEY, WITNESS.verifier_key).signed) == 1


def test_a_signature_that_a_quantum_computer_does_not_break_goes_with_it() -> None:
    store = MemoryStore(sign)
    stored(store, unit("m1", ("a", 0, 10)))
    sealed(store, LOG_PQ)
    text = receipt(store, 7)
    assert check_receipt(text, LOG_PQ.verifier_key).signed == (Signed(SIGNER.name, Kind.ML_DSA_44, TIME),)
    assert len(check_receipt(text, KEY, LOG_PQ.verifier_key).signed) == 2


def test_witnesses_do_not_stand_in_for_the_log(place: Place) -> None:
    stored(place.store, unit("m1", ("a", 0, 10)))
    sealed(place.store, WITNESS)
    text = receipt(place.store, 7)
    with pytest.raises(ProofInvalid, match="another log"):
        check_receipt(text, WITNESS.verifier_key, KEY)
    without_log = "\n".join(line for line in text.split("\n") if not line.startswith(f"— {SIGNER.name}"))
    with pytest.raises(NoteInvalid, match="no signature"):
        check_receipt(without_log, KEY, WITNESS.verifier_key)


OTHER_RECORDS = {
    "another state": msgpack.packb(["a", 7, "plain/1", b"m1 a 8"]),
    "another version": msgpack.packb(["a", 8, "plain/1", b"m1 a 7"]),
    "another stream": msgpack.packb(["b", 7, "plain/1", b"m1 a 7"]),
    "another topic": msgpack.packb(["a", 7, "plain/2", b"m1 a 7"]),
    "the digest in the place of the state": leaf_data(unit("m1", ("a", 0, 7)).events[6]),
    "a state of text": msgpack.packb(["a", 7, "plain/1", "m1 a 7"]),
    "a version of text": msgpack.packb(["a", "7", "plain/1", b"m1 a 7"]),
    "a version that is a truth": msgpack.packb(["a", True, "plain/1", b"m1 a 7"]),
    "a longer form of the version": b"\x94\xa1a\xcc\x07\xa7plain/1\xc4\x06m1 a 7",
    "a longer form of the array": b"\xdc\x00\x04\xa1a\x07\xa7plain/1\xc4\x06m1 a 7",
    "more after it": msgpack.packb(["a", 7, "plain/1", b"m1 a 7"]) + b"\xc0",
    "three parts": msgpack.packb(["a", 7, "plain/1"]),
    "five parts": msgpack.packb(["a", 7, "plain/1", b"m1 a 7", b""]),
    "a map": msgpack.packb({"a": 7, "plain/1": 1, "b": 2, "c": 3}),
    "a number": b"\x07",
    "text": b"\xa4abcd",
    "text that is no UTF-8": b"\x94\xa1\xff\x07\xa7plain/1\xc4\x06m1 a 7",
    "half of it": b"\x94\xa1a",
    "deep nesting": b"\x91" * 5_000,
    "nothing": b"",
}


@pytest.mark.parametrize("other", OTHER_RECORDS)
def test_exactly_these_bytes_were_recorded(other: str) -> None:
    store = MemoryStore(sign)
    stored(store, unit("m1", ("a", 0, 10)))
    lines = receipt(store, 7).split("\n")
    assert b64decode(lines[1][6:]) == b"\x94\xa1a\x07\xa7plain/1\xc4\x06m1 a 7"
    lines[1] = f"extra {b64encode(OTHER_RECORDS[other]).decode()}"
    with pytest.raises(ProofInvalid):
        check_receipt("\n".join(lines), KEY)
