"""The product and the independent verifier, against the committed vectors and against each other.

Whatever the vectors hold both accept, and the product makes the same bytes; whatever is changed in them both
refuse.
"""

import ast
import json
import shutil
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from eventsourcing.persistence import StoredEvent

from broker.ledger.folder import checkpoint_signer
from broker.ledger.merkle import ProofInvalid
from broker.ledger.notes import Checkpoint, NoteInvalid, NoteSigner, NoteVerifier, parts
from broker.ledger.receipt import check_receipt, receipt
from broker.ledger.store import MemoryStore, StoredUnit
from broker.ledger.tiles import export_tiles
from broker.ledger.witness import check_consistency, submission
from tests.independent import make, verifier
from tests.independent.make import KEYS, ORIGIN, PROOFS, SEALED, SIZES, STEPS, TIME, VECTORS, vkey
from tests.independent.verifier import Rejected

REFUSED = (ProofInvalid, NoteInvalid, Rejected)
LOG, *OTHERS = (vkey(name) for name in SEALED)
Alter = Callable[[str], str]


def proof(index: int, size: int) -> str:
    return (VECTORS / "proofs" / f"{index}-{size}.tlog-proof").read_text()


def step(old: int, new: int) -> str:
    return (VECTORS / "consistency" / f"{old}-{new}").read_text()


def note(size: int) -> str:
    return (VECTORS / "checkpoints" / str(size)).read_text()


def product_proof(text: str, *keys: str) -> tuple[int, int, list[int]]:
    """Index, size, and the times that the signatures state."""
    proved = check_receipt(text, *keys)
    return proved.position - 1, proved.checkpoint.size, [each.time for each in proved.signed]


def independent_proof(text: str, *keys: str) -> tuple[int, int, list[int]]:
    index, checkpoint, signed = verifier.check_proof(text, verifier.renkei_entry, [keys[0]], list(keys[1:]))
    return index, checkpoint.size, [each.time or 0 for each in signed]


def product_step(text: str, older: str, key: str) -> int:
    return check_consistency(text, Checkpoint.read(parts(older)[0]), key).size


def independent_step(text: str, older: str, key: str) -> int:
    return verifier.check_submission(text, verifier.checkpoint_of(older.split("\n\n")[0] + "\n"), [key]).size


PROOF_JUDGES = pytest.mark.parametrize("judge", [product_proof, independent_proof])
STEP_JUDGES = pytest.mark.parametrize("judge", [product_step, independent_step])


# -- what holds ---------------------------------------------------------------------------------------


@PROOF_JUDGES
@pytest.mark.parametrize(("index", "size"), PROOFS)
def test_a_proof(index: int, size: int, judge: Callable[..., tuple[int, int, list[int]]]) -> None:
    times = [0, TIME, TIME, TIME] if size == SIZES[-1] else [0]
    assert judge(proof(index, size), LOG, *OTHERS) == (index, size, times)
    assert judge(proof(index, size), LOG) == (index, size, [0])


@STEP_JUDGES
@pytest.mark.parametrize(("old", "new"), STEPS)
def test_a_proof_of_consistency(old: int, new: int, judge: Callable[..., int]) -> None:
    assert judge(step(old, new), note(old), LOG) == new


def test_the_exported_log() -> None:
    older = tuple(verifier.open_checkpoint(note(size), [LOG], [])[0] for size in SIZES)
    checkpoint, signed = verifier.check_tiles(VECTORS / "log", [LOG], OTHERS, older)
    assert (checkpoint.size, len(signed)) == (300, 4)


# -- the product makes these bytes --------------------------------------------------------------------


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    """The log of the vectors, in the product. Where ML-DSA-44 signed, the vectors' lines are taken."""
    origin, _, key = KEYS["log"]
    store = MemoryStore(checkpoint_signer(NoteSigner(origin, key)))
    records, done = make.records(), 0
    for size in SIZES:
        events = tuple(StoredEvent(*record) for record in records[done:size])
        store.append([StoredUnit(f"m{size}", {}, events)], "2026-11-21T00:00:00.000000+00:00")
        done = size
    store.cosign(300, parts(note(300))[1][1:])
    return store


def test_the_product_signs_the_same_checkpoints(store: MemoryStore) -> None:
    heads = store.checkpoints()
    assert [head.size for head in heads] == list(SIZES)
    assert [head.note for head in heads[:-1]] == [note(size) for size in SIZES[:-1]]
    assert note(300).startswith(heads[-1].note)


def test_the_product_makes_the_same_proofs(store: MemoryStore) -> None:
    for index, size in PROOFS:
        assert receipt(store, index + 1, size) == proof(index, size)
    for old, new in STEPS:
        assert submission(store.tile, old, note(new)).text() == step(old, new)


def test_the_product_exports_the_same_files(store: MemoryStore, tmp_path: Path) -> None:
    export_tiles(store, tmp_path)
    assert files(tmp_path) == files(VECTORS / "log")


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.mark.parametrize("name", KEYS)
def test_the_product_has_the_same_keys_and_reads_each_others_signatures(name: str) -> None:
    signer, kind, key = KEYS[name]
    ours = NoteSigner(signer, key, NoteVerifier(vkey(name)).kind)
    assert ours.verifier_key == vkey(name) == json.loads((VECTORS / "keys.json").read_text())[name]
    text = parts(note(300))[0]
    verifier.open_note(ours.sign(text, TIME), [vkey(name)])
    NoteVerifier(vkey(name)).open(f"{text}\n{make.line(name, text)}")
    if kind != 0x06:  # those are deterministic
        assert ours.sign(text, TIME) == f"{text}\n{make.line(name, text)}"


def test_the_script_makes_the_vectors_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "VECTORS", tmp_path)
    make.make()

    def without_ml_dsa(found: dict[str, bytes]) -> dict[str, list[bytes]]:
        return {name: [line for line in raw.split(b"\n") if len(line) < 3_000] for name, raw in found.items()}

    made, committed = files(tmp_path), files(VECTORS)
    del committed["README.md"]
    assert without_ml_dsa(made) == without_ml_dsa(committed)


# -- what does not hold: proofs -----------------------------------------------------------------------


def changed(line: str) -> str:
    """Another character in the middle of the base64 at the end of a line."""
    at = line.rindex(" ") + 1 + (len(line) - line.rindex(" ")) // 2 if " " in line else len(line) // 2
    return line[:at] + ("B" if line[at] != "B" else "C") + line[at + 1 :]


def on_line(number: int, alter: Alter) -> Alter:
    def altered(text: str) -> str:
        lines = text.split("\n")
        lines[number] = alter(lines[number])
        return "\n".join(lines)

    return altered


def swapped(first: int, second: int) -> Alter:
    def altered(text: str) -> str:
        lines = text.split("\n")
        lines[first], lines[second] = lines[second], lines[first]
        return "\n".join(lines)

    return altered


def without(number: int) -> Alter:
    def altered(text: str) -> str:
        lines = text.split("\n")
        del lines[number]
        return "\n".join(lines)

    return altered


def recorded(alter: Callable[[bytes], bytes]) -> Alter:
    return on_line(1, lambda line: f"extra {b64encode(alter(b64decode(line[6:]))).decode()}")


def other_time(line: str) -> str:
    head, _, encoded = line.rpartition(" ")
    raw = b64decode(encoded)
    return f"{head} {b64encode(raw[:11] + bytes([raw[11] ^ 1]) + raw[12:]).decode()}"


def no_signatures(text: str) -> str:
    head, blank, checkpoint = text.partition("\n\n")
    return head + blank + checkpoint.split("\n\n")[0] + "\n\n"


# Lines from the end: -1 is empty, -2 to -5 are the signatures, -7 the root, -8 the size, -9 the origin.
CHECKPOINT: dict[str, Alter] = {
    "origin": on_line(-9, lambda line: "example.org/other"),
    "size": on_line(-8, lambda line: "301"),
    "size with a zero": on_line(-8, lambda line: "0300"),
    "root": on_line(-7, changed),
    "extension line": lambda text: text.replace("=\n\n—", "=\nmore\n\n—"),
    "signature of the log": on_line(-5, changed),
    "ML-DSA-44 signature of the log": on_line(-4, changed),
    "cosignature": on_line(-3, changed),
    "ML-DSA-44 cosignature": on_line(-2, changed),
    "time of the cosignature": on_line(-3, other_time),
    "time of the ML-DSA-44 cosignature": on_line(-2, other_time),
    "time of the log's ML-DSA-44 signature": on_line(-4, other_time),
    "no signature of the log": lambda text: without(-4)(without(-5)(text)),
    "no signatures": no_signatures,
    "hyphens": lambda text: text.replace("—", "-"),
    "no end": lambda text: text[:-1],
    "cut signature": on_line(-2, lambda line: line[:-4]),
    "carriage returns": lambda text: text.replace("\n", "\r\n"),
    "a zero byte": lambda text: text.replace(ORIGIN, ORIGIN + "\0"),
}

ALTERED_PROOFS: dict[str, Alter] = CHECKPOINT | {
    "header": lambda text: text.replace("tlog-proof@v1", "tlog-proof@v2"),
    "record": on_line(1, changed),
    "no record": without(1),
    "record of another event": on_line(1, lambda line: proof(256, 300).split("\n")[1]),
    "record with more after it": recorded(lambda raw: raw + b"."),
    "record cut": recorded(lambda raw: raw[:-1]),
    "record in another form": recorded(lambda raw: b"\xdc\x00\x04" + raw[1:]),
    "number in a longer form": recorded(lambda raw: raw.replace(b"%", b"\xcc%", 1)),
    "an empty record": on_line(1, lambda line: "extra "),
    "index": on_line(2, lambda line: "index 254"),
    "index outside": on_line(2, lambda line: "index 300"),
    "index with a zero": on_line(2, lambda line: "index 0255"),
    "index of nothing": on_line(2, lambda line: "index "),
    "index below": on_line(2, lambda line: "index -1"),
    "step": on_line(5, changed),
    "steps swapped": swapped(4, 5),
    "step missing": without(5),
    "step twice": lambda text: text.replace("\n\n", f"\n{text.split(chr(10))[4]}\n\n", 1),
    "step short": on_line(4, lambda line: b64encode(b64decode(line)[:-1]).decode()),
    "step with stray bits": on_line(4, lambda line: line[:-2] + chr(ord(line[-2]) + 1) + "="),
    "step with a space": on_line(4, lambda line: line + " "),
    "older checkpoint": lambda text: text.split("\n\n")[0] + "\n\n" + note(256),
    "no checkpoint": lambda text: text.split("\n\n")[0] + "\n",
    "nothing": lambda text: "",
}


@PROOF_JUDGES
@pytest.mark.parametrize("altered", ALTERED_PROOFS)
def test_an_altered_proof_is_refused(altered: str, judge: Callable[..., object]) -> None:
    text = ALTERED_PROOFS[altered](proof(255, 300))
    assert text != proof(255, 300)
    with pytest.raises(REFUSED):
        judge(text, LOG, *OTHERS)


@PROOF_JUDGES
def test_no_character_of_a_proof_can_change(judge: Callable[..., object]) -> None:
    text = proof(99, 100)
    for at, character in enumerate(text):
        for other in ("A", "1"):
            if other != character:
                with pytest.raises(REFUSED):
                    judge(text[:at] + other + text[at + 1 :], LOG)
        with pytest.raises(REFUSED):
            judge(text[:at] + text[at + 1 :], LOG)


@PROOF_JUDGES
@pytest.mark.parametrize("key", ["log-ml-dsa-44", "witness", "other-log", "other-witness"])
def test_the_key_must_be_the_log_s_and_have_signed(key: str, judge: Callable[..., object]) -> None:
    with pytest.raises(REFUSED):
        judge(proof(99, 100), vkey(key), LOG)


@PROOF_JUDGES
def test_another_log_cannot_sign_under_the_origin(judge: Callable[..., object]) -> None:
    head, checkpoint = proof(99, 100).split("\n\n", 1)
    text = parts(checkpoint)[0]
    forged = f"{head}\n\n{text}\n{make.line('other-log', text)}"
    for keys in ((vkey("other-log"),), (vkey("other-log"), LOG), (LOG,)):
        with pytest.raises(REFUSED):
            judge(forged, *keys)


@PROOF_JUDGES
@pytest.mark.parametrize("key", ["", "name", "a+b+c", "example.org/log+00000000+" + LOG.split("+", 2)[2]])
def test_a_key_that_is_none(key: str, judge: Callable[..., object]) -> None:
    with pytest.raises(REFUSED):
        judge(proof(99, 100), key)


# -- what does not hold: consistency ------------------------------------------------------------------

ALTERED_STEPS: dict[str, Alter] = {
    **{
        name: CHECKPOINT[name] for name in ("origin", "size", "root", "signature of the log", "no signatures")
    },
    "old size": on_line(0, lambda line: "old 101"),
    "old size with a zero": on_line(0, lambda line: "old 0100"),
    "from nothing": on_line(0, lambda line: "old 0"),
    "no old size": without(0),
    "step": on_line(2, changed),
    "steps swapped": swapped(2, 3),
    "step missing": without(3),
    "step twice": lambda text: text.replace("\n\n", f"\n{text.split(chr(10))[2]}\n\n", 1),
    "step short": on_line(2, lambda line: b64encode(b64decode(line)[:-1]).decode()),
    "no steps": lambda text: "old 100\n\n" + text.partition("\n\n")[2],
    "steps without end": lambda text: text.replace("\n\n", f"\n{text.split(chr(10))[2]}" * 64 + "\n\n", 1),
    "another newer checkpoint": lambda text: text.partition("\n\n")[0] + "\n\n" + note(256),
}


@STEP_JUDGES
@pytest.mark.parametrize("altered", ALTERED_STEPS)
def test_an_altered_proof_of_consistency_is_refused(altered: str, judge: Callable[..., object]) -> None:
    text = ALTERED_STEPS[altered](step(100, 300))
    assert text != step(100, 300)
    with pytest.raises(REFUSED):
        judge(text, note(100), LOG)


@STEP_JUDGES
def test_consistency_is_with_one_older_checkpoint_of_one_log(judge: Callable[..., object]) -> None:
    other_root = f"{ORIGIN}\n100\n{b64encode(bytes(32)).decode()}\n\n— x AAAAAAAA\n"
    other_log = note(100).replace(ORIGIN, "example.org/other")
    for older in (note(1), note(256), other_root, other_log):
        with pytest.raises(REFUSED):
            judge(step(100, 300), older, LOG)
    with pytest.raises(REFUSED):
        judge(step(300, 300), other_root.replace("\n100\n", "\n300\n"), LOG)
    with pytest.raises(REFUSED):
        judge(step(100, 300), note(100), vkey("other-log"))


# -- what does not hold: tiles ------------------------------------------------------------------------

ENTRIES, LAST_ENTRIES = "tile/entries/000", "tile/entries/001.p/44"
TILE, LAST_TILE, UPPER = "tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1"
AlterBytes = Callable[[bytes], bytes | None]


def flipped(at: int) -> AlterBytes:
    return lambda raw: raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


def entries_swapped(raw: bytes) -> bytes:
    first, second, *rest = verifier.read_entries(raw, 256)
    return b"".join(len(each).to_bytes(2, "big") + each for each in (second, first, *rest))


ALTERED_FILES: dict[str, tuple[str, AlterBytes]] = {
    "entry": (ENTRIES, flipped(100)),
    "last entry": (LAST_ENTRIES, flipped(-1)),
    "length of an entry": (ENTRIES, flipped(1)),
    "entries swapped": (ENTRIES, entries_swapped),
    "bundle cut": (ENTRIES, lambda raw: raw[:-10]),
    "bundle cut after a length": (LAST_ENTRIES, lambda raw: raw + b"\0"),
    "bundle without its last entry": (LAST_ENTRIES, lambda raw: raw[:-62]),
    "bundle with another entry": (LAST_ENTRIES, lambda raw: raw + b"\0\1x"),
    "bundle empty": (ENTRIES, lambda raw: b""),
    "bundle missing": (ENTRIES, lambda raw: None),
    "tile": (TILE, flipped(4_000)),
    "last tile": (LAST_TILE, flipped(0)),
    "tile of level 1": (UPPER, flipped(31)),
    "tile cut": (TILE, lambda raw: raw[:-32]),
    "tile with more": (LAST_TILE, lambda raw: raw + raw[:32]),
    "hashes swapped": (TILE, lambda raw: raw[32:64] + raw[:32] + raw[64:]),
    "tile missing": (LAST_TILE, lambda raw: None),
    "tile of level 1 missing": (UPPER, lambda raw: None),
    "checkpoint missing": ("checkpoint", lambda raw: None),
    "checkpoint empty": ("checkpoint", lambda raw: b""),
} | {
    f"checkpoint: {name}": ("checkpoint", lambda raw, alter=alter: alter(raw.decode()).encode())
    for name, alter in CHECKPOINT.items()
    if name != "no signatures"
}  # fmt: skip


@pytest.mark.parametrize("altered", ALTERED_FILES)
def test_an_altered_export_is_refused(altered: str, tmp_path: Path) -> None:
    name, alter = ALTERED_FILES[altered]
    shutil.copytree(VECTORS / "log", tmp_path / "log")
    content = alter((tmp_path / "log" / name).read_bytes())
    (tmp_path / "log" / name).unlink()
    if content is not None:
        assert content != (VECTORS / "log" / name).read_bytes()
        (tmp_path / "log" / name).write_bytes(content)
    with pytest.raises(Rejected):
        verifier.check_tiles(tmp_path / "log", [LOG], OTHERS)


def test_an_entry_and_its_tile_cannot_change_together(tmp_path: Path) -> None:
    """Neither with the level above: the signed root tells."""
    shutil.copytree(VECTORS / "log", tmp_path / "log")
    bundle = flipped(100)((VECTORS / "log" / ENTRIES).read_bytes()) or b""
    leaves = [verifier.leaf_hash(entry) for entry in verifier.read_entries(bundle, 256)]
    (tmp_path / "log" / ENTRIES).write_bytes(bundle)
    (tmp_path / "log" / TILE).write_bytes(b"".join(leaves))
    (tmp_path / "log" / UPPER).write_bytes(verifier.tree_hash(leaves))
    with pytest.raises(Rejected, match="the root is not that of the entries"):
        verifier.check_tiles(tmp_path / "log", [LOG], OTHERS)


def test_an_export_must_go_on_from_what_was_seen_before() -> None:
    text = f"{ORIGIN}\n100\n{b64encode(bytes(32)).decode()}\n"
    for older in (
        verifier.checkpoint_of(text),
        verifier.checkpoint_of(text.replace("\n100\n", "\n301\n")),
        verifier.checkpoint_of(note(100).split("\n\n")[0].replace(ORIGIN, "example.org/other") + "\n"),
    ):
        with pytest.raises(Rejected):
            verifier.check_tiles(VECTORS / "log", [LOG], OTHERS, (older,))


# -- the independent verifier is independent ----------------------------------------------------------


def test_it_imports_nothing_but_the_standard_library_and_cryptography() -> None:
    tree = ast.parse(Path(verifier.__file__).read_text(encoding="utf-8"))
    names = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert {name.split(".")[0] for name in names} - sys.stdlib_module_names == {"cryptography"}


def test_it_runs_alone(tmp_path: Path) -> None:
    shutil.copy(verifier.__file__, tmp_path / "verifier.py")

    def run(*arguments: object) -> tuple[int, str]:
        command = [sys.executable, "-I", "verifier.py", *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    a_proof = VECTORS / "proofs" / "256-300.tlog-proof"
    assert run("tiles", VECTORS / "log", LOG, *OTHERS[:1]) == (0, f"OK {ORIGIN} 300 2\n")
    assert run("proof", a_proof, LOG) == (0, f"OK {ORIGIN} 300 1\n")
    status, said = run("proof", a_proof, vkey("other-log"))
    assert (status, said.split()[0]) == (1, "REJECTED")
