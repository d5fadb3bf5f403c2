"""The independent verifier against what others published (../shared/vectors beside the project)."""

import json
import shutil
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from tests.independent.verifier import (
    Checkpoint,
    Rejected,
    check_consistency,
    check_inclusion,
    check_tiles,
    checkpoint_of,
    consistency_path,
    inclusion_path,
    leaf_hash,
    open_checkpoint,
    open_note,
    read_entries,
)

VECTORS = Path(__file__).parents[3] / "shared" / "vectors"
LOG_KEY = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"
NOTE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"

pytestmark = pytest.mark.skipif(
    not VECTORS.is_dir(), reason="the published vectors are not beside the project (../shared/vectors)"
)


def accepted(case: dict[str, Any]) -> bool:
    path = [b64decode(each) for each in case["proof"] or []]
    try:
        if "leafIdx" in case:
            leaf, root = b64decode(case["leafHash"]), b64decode(case["root"])
            check_inclusion(leaf, case["leafIdx"], case["treeSize"], path, root)
        else:
            roots = b64decode(case["root1"]), b64decode(case["root2"])
            check_consistency(case["size1"], case["size2"], path, *roots)
    except Rejected:
        return False
    return True


@pytest.mark.parametrize("kind", ["inclusion", "consistency"])
def test_published_proofs_are_judged_as_their_publisher_does(kind: str) -> None:
    lines = (VECTORS / f"rfc9162-{kind}.jsonl").read_text().splitlines()
    published = {line["name"]: line["case"] for line in map(json.loads, lines)}
    assert len(published) == 98
    assert [name for name, case in published.items() if accepted(case) == case["wantErr"]] == []


def test_the_example_of_a_signed_note() -> None:
    note = (VECTORS / "c2sp-signed-note.txt").read_text()
    text, (signature,) = open_note(note, [NOTE_KEY])
    assert (text, signature.vkey, signature.time) == ("This is an example message.\n", NOTE_KEY, None)
    with pytest.raises(Rejected):
        open_note(note.replace("example message", "Example message"), [NOTE_KEY])


def published_checkpoint(size: int) -> Checkpoint:
    return open_checkpoint((VECTORS / "tessera-log" / f"checkpoint.{size}").read_text(), [LOG_KEY], [])[0]


def test_the_log_of_another_implementation() -> None:
    older = tuple(published_checkpoint(size) for size in range(16))
    checkpoint, _ = check_tiles(VECTORS / "tessera-log", [LOG_KEY], [], older)
    assert checkpoint == older[15]


@pytest.mark.parametrize("size", range(1, 16))
def test_it_at_each_size_it_had(size: int, tmp_path: Path) -> None:
    shutil.copytree(VECTORS / "tessera-log", tmp_path / "log")
    shutil.copy(tmp_path / "log" / f"checkpoint.{size}", tmp_path / "log" / "checkpoint")
    assert check_tiles(tmp_path / "log", [LOG_KEY], [])[0] == published_checkpoint(size)
    bundle = tmp_path / "log" / "tile" / "entries" / "000.p" / str(size)
    bundle.write_bytes(bundle.read_bytes()[:-1] + b"!")
    with pytest.raises(Rejected, match="not what the entries make"):
        check_tiles(tmp_path / "log", [LOG_KEY], [])


def test_our_reading_of_the_paths_leads_to_its_roots() -> None:
    bundle = (VECTORS / "tessera-log" / "tile" / "entries" / "000.p" / "15").read_bytes()
    leaves = [leaf_hash(entry) for entry in read_entries(bundle, 15)]
    for size in range(1, 16):
        root = published_checkpoint(size).root
        for index in range(size):
            check_inclusion(leaves[index], index, size, inclusion_path(index, leaves[:size]), root)
            old = published_checkpoint(index + 1)
            path = consistency_path(old.size, leaves[:size])
            check_consistency(old.size, size, path, old.root, root)


def test_a_text_that_is_no_checkpoint() -> None:
    for text in ("", "origin\n1\n", "origin\n1\nAAAA\n", "origin\n01\n" + "A" * 43 + "=\n"):
        with pytest.raises(Rejected):
            checkpoint_of(text)
