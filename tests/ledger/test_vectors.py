"""What others published, against our tree, our notes and our tiles (../shared/vectors beside the project)."""

import json
from base64 import b64decode
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from broker.ledger.merkle import (
    EMPTY_ROOT,
    ProofInvalid,
    consistency_proof,
    grow,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from broker.ledger.notes import Checkpoint, Kind, NoteInvalid, NoteSigner, NoteVerifier, with_signatures
from broker.ledger.tiles import bundle, tile_path
from broker.ledger.witness import Witness, submission
from tests.ledger.places import SIGNER, plain_root, tiles_of

VECTORS = Path(__file__).parents[3] / "shared" / "vectors"
LOG = VECTORS / "tessera-log"
LOG_KEY = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"
# Its publisher gives the private key away with the log: it signs test data and nothing else.
LOG_SIGNER = NoteSigner("example.com/log/testdata", b64decode("7KZj9JkBfSNlwnx6dnkVjUPP7BMwvbJZKQr70NIXd6A="))
NOTE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"

pytestmark = pytest.mark.skipif(
    not VECTORS.is_dir(), reason="the published vectors are not beside the project (../shared/vectors)"
)

# Trees without leaves, and roots that are no hash: a verifier that follows the RFC to the letter, which says
# nothing of them, lets some of these pass. Nothing can be proved about nothing: all are refused.
ABOUT_NOTHING = (
    "inclusion/single-entry/empty-root-and-leaf.json",
    "inclusion/additional/0/empty-root.json",
    "inclusion/additional/0/random-leaf.json",
    "consistency/additional/sizes-are-equal-zero-and-proof-is-empty.json",
    "consistency/additional/size1-is-zero-and-size2-is-not-zero.json",
    "consistency/additional/consistency-check-on-empty-tree-size1-is-zero-is-useless.json",
)


def cases(kind: str) -> dict[str, dict[str, Any]]:
    lines = (VECTORS / f"rfc9162-{kind}.jsonl").read_text().splitlines()
    return {line["name"]: line["case"] for line in map(json.loads, lines)}


def decoded(encoded: list[str] | None) -> list[bytes]:
    return [b64decode(each) for each in encoded or []]


def accepted(case: dict[str, Any]) -> bool:
    proof = decoded(case["proof"])
    try:
        if "leafIdx" in case:
            leaf, root = decoded([case["leafHash"], case["root"]])
            verify_inclusion(leaf, case["leafIdx"], case["treeSize"], proof, root)
        else:
            verify_consistency(case["size1"], case["size2"], proof, *decoded([case["root1"], case["root2"]]))
    except ProofInvalid:
        return False
    return True


@pytest.mark.parametrize("kind", ["inclusion", "consistency"])
def test_every_published_proof_is_judged_as_its_publisher_does(kind: str) -> None:
    published = cases(kind)
    assert len(published) == 98
    assert {case["wantErr"] for case in published.values()} == {True, False}
    assert [name for name, case in published.items() if accepted(case) == case["wantErr"]] == []


@pytest.mark.parametrize("name", ABOUT_NOTHING)
def test_nothing_is_proved_about_nothing(name: str) -> None:
    assert not accepted(cases(name.partition("/")[0])[name])


def test_the_example_of_the_specification_of_signed_notes() -> None:
    note = (VECTORS / "c2sp-signed-note.txt").read_text()
    assert NoteVerifier(NOTE_KEY).open(note) == "This is an example message.\n"


ALTERED: dict[str, Callable[[str], str]] = {
    "text": lambda note: note.replace("example message", "example Message"),
    "signature": lambda note: note.replace("srV1", "srV2"),
    "name": lambda note: note.replace("example.com/foo", "example.com/bar"),
    "key": lambda note: note.replace("Uw2QOk", "Uw2QOj"),
    "unsigned": lambda note: note.split("\n\n")[0] + "\n",
    "no end of line": lambda note: note[:-1],
    "no blank line": lambda note: note.replace("\n\n", "\n"),
    "hyphen": lambda note: note.replace("— ", "- "),
    "no base64": lambda note: note.replace("yaQM=", "ya!M="),
    "short": lambda note: note.replace("Uw2QOkn8srV1", "Uw2QOkn8"),
    "empty": lambda note: "",
}


@pytest.mark.parametrize("altered", ALTERED)
def test_an_altered_note_is_refused(altered: str) -> None:
    note = (VECTORS / "c2sp-signed-note.txt").read_text()
    assert ALTERED[altered](note) != note
    with pytest.raises(NoteInvalid):
        NoteVerifier(NOTE_KEY).open(ALTERED[altered](note))


def test_signatures_by_others_beside_ours_do_no_harm() -> None:
    note = (VECTORS / "c2sp-signed-note.txt").read_text()
    text, signature = note.split("\n\n")
    stranger = SIGNER.sign("something else\n").split("\n\n")[1]
    for signatures in (stranger + signature, signature + stranger):
        assert NoteVerifier(NOTE_KEY).open(f"{text}\n\n{signatures}") == text + "\n"
    with pytest.raises(NoteInvalid, match="no signature by example"):
        NoteVerifier(NOTE_KEY).open(f"{text}\n\n{stranger}")


def entries() -> list[bytes]:
    """An entry is its length in two bytes, then itself (C2SP tlog-tiles)."""
    bundle = (LOG / "tile" / "entries" / "000.p" / "15").read_bytes()
    found = []
    while bundle:
        length = int.from_bytes(bundle[:2], "big")
        found.append(bundle[2 : 2 + length])
        bundle = bundle[2 + length :]
    return found


def checkpoint(size: int) -> Checkpoint:
    return NoteVerifier(LOG_KEY).checkpoint((LOG / f"checkpoint.{size}").read_text())


@pytest.mark.parametrize("size", range(16))
def test_a_log_of_another_implementation(size: int) -> None:
    """Its signatures verify, and our tree over its entries has its roots and its tiles."""
    leaves = [leaf_hash(entry) for entry in entries()][:size]
    _, frontier = grow(0, (), leaves)
    assert checkpoint(size) == Checkpoint("example.com/log/testdata", size, root_of(frontier))
    assert root_of(frontier) == plain_root(leaves)
    if size:
        tiles = tiles_of(leaves)
        assert tiles == {(0, 0): (LOG / tile_path(0, 0, size)).read_bytes()}
    else:
        assert root_of(frontier) == EMPTY_ROOT


def test_every_file_of_that_log_byte_for_byte() -> None:
    """Its checkpoints with their signatures, its tiles and its bundles, from nothing but its entries."""
    made = {}
    for size in range(16):
        leaves = [leaf_hash(entry) for entry in entries()][:size]
        root = root_of(grow(0, (), leaves)[1])
        made[f"checkpoint.{size}"] = LOG_SIGNER.sign(Checkpoint(LOG_SIGNER.name, size, root).text()).encode()
        if size:
            made[tile_path(0, 0, size)] = b"".join(leaves)
            made[tile_path("entries", 0, size)] = bundle(entries()[:size])
    made["checkpoint"] = made["checkpoint.15"]
    assert LOG_SIGNER.verifier_key == LOG_KEY
    assert made == {
        path.relative_to(LOG).as_posix(): path.read_bytes() for path in LOG.rglob("*") if path.is_file()
    }


def test_a_witness_follows_that_log(tmp_path: Path) -> None:
    """From each size that it had to each later one, and to no other log of the same size."""
    tile = (LOG / "tile" / "0" / "000.p" / "15").read_bytes()
    notes = [(LOG / f"checkpoint.{size}").read_text() for size in range(16)]
    signer = NoteSigner("example.com/witness", bytes(32), Kind.COSIGNATURE)
    for old in range(16):
        for new in range(old, 16):
            path = tmp_path / f"{old}-{new}.sqlite"
            with closing(Witness(path, [signer], lambda origin: [NoteVerifier(LOG_KEY)])) as witness:
                witness.cosign(submission(lambda level, i: tile, 0, notes[old]).text().encode(), 1)
                asked = submission(lambda level, i: tile, old, notes[new])
                (line,) = witness.cosign(asked.text().encode(), 1)
            NoteVerifier(signer.verifier_key).open(with_signatures(notes[new], [line]))


def test_proofs_from_its_tiles_lead_to_its_roots() -> None:
    tile = (LOG / "tile" / "0" / "000.p" / "15").read_bytes()
    leaves = [leaf_hash(entry) for entry in entries()]
    assert len(leaves) == 15
    for size in range(1, 16):
        root = checkpoint(size).root
        for index in range(size):
            proof = inclusion_proof(lambda level, i: tile, index, size)
            verify_inclusion(leaves[index], index, size, proof, root)
            proof = consistency_proof(lambda level, i: tile, index + 1, size)
            verify_consistency(index + 1, size, proof, checkpoint(index + 1).root, root)


def test_its_newest_checkpoint_is_not_ours_to_sign() -> None:
    note = (LOG / "checkpoint").read_text()
    assert NoteVerifier(LOG_KEY).checkpoint(note) == checkpoint(15)
    with pytest.raises(NoteInvalid, match="no signature by test/ledger"):
        NoteVerifier(SIGNER.verifier_key).checkpoint(note)


@pytest.mark.parametrize(
    "text",
    [
        "origin\n1\n",
        "origin\n-1\nAAAA\n",
        "origin\n01\nAAAA\n",
        "origin\none\nAAAA\n",
        "origin\n\nAAAA\n",
        "origin\n１\nAAAA\n",
        "origin\n1\nA!AA\n",
    ],
)
def test_a_signed_text_that_is_no_checkpoint(text: str) -> None:
    with pytest.raises(NoteInvalid):
        NoteVerifier(SIGNER.verifier_key).checkpoint(SIGNER.sign(text))


def test_what_we_sign_is_read_by_the_same_rules() -> None:
    verifier = NoteVerifier(SIGNER.verifier_key)
    for size in (0, 1, 10, 1 << 40):
        made = Checkpoint("test/ledger", size, EMPTY_ROOT)
        assert verifier.checkpoint(SIGNER.sign(made.text())) == made
