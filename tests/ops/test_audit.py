"""What an auditor is told who has a copy of the files, the public keys and nothing else."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters.network.reference.core import PROJECTIONS as NETWORK_PROJECTIONS
from broker.addressing.person import PROJECTIONS as ADDRESSING_PROJECTIONS
from broker.ledger.folder import EVENTS, VERIFIER_KEY
from broker.ledger.receipt import receipt
from broker.ledger.sqlite import LedgerDatastore, SQLiteStore
from ops.audit import ledgers
from ops.cli import main
from ops.daemons import AGENCY_PROJECTIONS
from tests.ops.conftest import Finished
from tests.ops.folders import renkei

PROJECTIONS = {
    "990019": AGENCY_PROJECTIONS,
    "990019/addressing": ADDRESSING_PROJECTIONS,
    "990027": AGENCY_PROJECTIONS,
    "990027/addressing": ADDRESSING_PROJECTIONS,
    "network": NETWORK_PROJECTIONS,
}
LEDGERS = tuple(PROJECTIONS)
CITIES_AND_NETWORK = ("990019", "990027", "network")
Rows = sqlite3.Connection


@dataclass(frozen=True)
class Evidence:
    """What an auditor is given: of each ledger the events and the public key. No vault, no projections."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def damage(self, name: str, how: Callable[[Rows], object]) -> str:
        """Change one ledger; what is then said of it. The others have to be found in order."""
        with closing(sqlite3.connect(self.folder / name / EVENTS)) as rows, rows:
            how(rows)
        others = {path.relative_to(self.folder).as_posix() for path in ledgers(self.folder)} - {name}
        assert main(["audit", "verify", str(self.folder)]) == 1
        printed = self.capsys.readouterr()
        assert "S-101" in printed.err
        found = verdicts(printed.out)
        damaged = found.pop(name)
        assert damaged.startswith("DAMAGED")
        assert found.keys() == others
        assert all(said.startswith("OK") for said in found.values())
        return damaged


@pytest.fixture
def evidence(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> Evidence:
    """The ledger that a test is about and a small one beside it; all of them for a test about none."""
    name = request.node.callspec.params.get("name") if hasattr(request.node, "callspec") else None
    for ledger in LEDGERS if name is None else {name, "990019/addressing"}:
        (tmp_path / "evidence" / ledger).mkdir(parents=True, exist_ok=True)
        for file in (EVENTS, VERIFIER_KEY):
            shutil.copy(finished.folder / ledger / file, tmp_path / "evidence" / ledger / file)
    return Evidence(tmp_path / "evidence", capsys)


def size(ledger: Path) -> int:
    with closing(sqlite3.connect(ledger / EVENTS)) as rows:
        count: int = rows.execute("SELECT COUNT(*) FROM stored_events").fetchone()[0]
    return count


def verdicts(said: str) -> dict[str, str]:
    """What is said of each ledger."""
    lines = [line for line in said.splitlines() if line.startswith(("OK", "DAMAGED"))]
    return {line.split()[1].rstrip(":"): line for line in lines}


@pytest.mark.req("R-144")
def test_every_ledger_of_the_demo_is_in_order(demo_copy: Path) -> None:
    result = renkei("audit", "verify", demo_copy)
    assert (result.returncode, result.stderr) == (0, "")
    assert verdicts(result.stdout) == {
        name: f"OK      {name}: {size(demo_copy / name)} events" for name in LEDGERS
    }


def test_the_events_and_the_public_key_are_enough_to_verify(evidence: Evidence) -> None:
    assert main(["audit", "verify", str(evidence.folder)]) == 0


def one_byte_changed(value: str | bytes | int, place: float) -> str | bytes | int:
    """A value with another byte at some part of its length."""
    if isinstance(value, int):
        return value ^ 64  # also beyond every version that there is: no two rows may have the same
    data = bytearray(value.encode() if isinstance(value, str) else value)
    data[min(int(place * len(data)), len(data) - 1)] ^= 1
    return data.decode() if isinstance(value, str) else bytes(data)


@pytest.mark.parametrize("name", CITIES_AND_NETWORK)
@pytest.mark.parametrize("column", ["originator_id", "originator_version", "topic", "state"])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.77, 1.0], ids=["first", "early", "late", "last"])
def test_one_byte_changed_anywhere_is_found_and_its_position_named(
    name: str, column: str, where: float, evidence: Evidence
) -> None:
    position = 1 + int(where * (size(evidence.folder / name) - 1))

    def how(rows: Rows) -> None:
        query = f"SELECT {column} FROM stored_events WHERE rowid = ?"  # noqa: S608 - a name of this test
        value = rows.execute(query, (position,)).fetchone()[0]
        update = f"UPDATE stored_events SET {column} = ? WHERE rowid = ?"  # noqa: S608 - likewise
        rows.execute(update, (one_byte_changed(value, where), position))

    assert f"position {position}:" in evidence.damage(name, how)


@pytest.mark.parametrize("name", LEDGERS)
def test_of_two_changes_the_first_is_named(name: str, evidence: Evidence) -> None:
    first, second = size(evidence.folder / name) // 3, size(evidence.folder / name) // 2

    def how(rows: Rows) -> None:
        rows.execute("UPDATE stored_events SET topic = topic || 'x' WHERE rowid IN (?, ?)", (second, first))

    assert f"position {first}:" in evidence.damage(name, how)


@pytest.mark.parametrize("name", CITIES_AND_NETWORK)
@pytest.mark.parametrize("where", [0.0, 0.5, 1.0], ids=["first", "middle", "last"])
def test_a_row_taken_out_is_found(name: str, where: float, evidence: Evidence) -> None:
    position = 1 + int(where * (size(evidence.folder / name) - 1))
    said = evidence.damage(
        name, lambda rows: rows.execute("DELETE FROM stored_events WHERE rowid = ?", (position,))
    )
    assert f"position {position}:" in said


@pytest.mark.parametrize("name", CITIES_AND_NETWORK)
@pytest.mark.parametrize("where", [0.0, 0.5, 1.0], ids=["first", "middle", "last"])
def test_a_row_taken_out_is_found_though_the_others_moved_up(
    name: str, where: float, evidence: Evidence
) -> None:
    position = 1 + int(where * (size(evidence.folder / name) - 1))

    def how(rows: Rows) -> None:
        query = "SELECT first FROM unit WHERE first <= ? AND last >= ?"
        (first,) = rows.execute(query, (position, position)).fetchone()
        allowed.append((first, position))
        rows.execute("DELETE FROM stored_events WHERE rowid = ?", (position,))
        move(rows, position, -1)

    # Where streams do not tell which event of a unit is missing, the unit's first is named.
    allowed: list[tuple[int, int]] = []
    said = evidence.damage(name, how)
    assert any(f"position {p}:" in said for p in allowed[0])


@pytest.mark.parametrize("name", CITIES_AND_NETWORK)
@pytest.mark.parametrize("where", [0.0, 0.5, 1.0], ids=["first", "middle", "behind"])
def test_a_row_put_in_is_found(name: str, where: float, evidence: Evidence) -> None:
    position = 1 + int(where * size(evidence.folder / name))

    def how(rows: Rows) -> None:
        move(rows, position - 1, 1)
        rows.execute(
            "INSERT INTO stored_events SELECT ?, 'forged/1', 1, topic, state, leaf FROM stored_events "
            "ORDER BY rowid LIMIT 1",
            (position,),
        )

    assert f"position {position}:" in evidence.damage(name, how)


def move(rows: Rows, after: int, by: int) -> None:
    """Give the rows behind a position other positions, by way of negative ones: no two may ever be equal."""
    rows.execute("UPDATE stored_events SET rowid = -rowid WHERE rowid > ?", (after,))
    rows.execute("UPDATE stored_events SET rowid = -rowid + ? WHERE rowid < 0", (by,))


def test_another_ledgers_key_proves_nothing(evidence: Evidence, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(evidence.folder / "990019" / VERIFIER_KEY, evidence.folder / "990027" / VERIFIER_KEY)
    assert main(["audit", "verify", str(evidence.folder)]) == 1
    assert verdicts(capsys.readouterr().out)["990027"].startswith("DAMAGED 990027: position 1:")


def test_a_folder_without_a_ledger_is_not_called_in_order(tmp_path: Path) -> None:
    result = renkei("audit", "verify", tmp_path)
    assert result.returncode == 1
    assert "S-104" in result.stderr
    assert result.stdout == ""


# -- replay -------------------------------------------------------------------------------------------


def replayed(said: str) -> dict[str, dict[str, str]]:
    """Ledger -> projection -> the first word of its line."""
    found: dict[str, dict[str, str]] = {}
    for line in said.splitlines():
        mark, name, projection, position, digest = line.split()
        assert position.startswith("@")
        assert len(digest) == 64
        found.setdefault(name, {})[projection] = mark
    return found


def test_every_projection_built_anew_equals_the_live_one(demo_copy: Path, tmp_path: Path) -> None:
    result = renkei("replay", demo_copy, "--into", tmp_path / "rebuilt")
    assert (result.returncode, result.stderr) == (0, "")
    assert replayed(result.stdout) == {
        name: dict.fromkeys((p.name for p in projections), "OK") for name, projections in PROJECTIONS.items()
    }
    for name in LEDGERS:
        assert (tmp_path / "rebuilt" / name / "projections.sqlite").stat().st_size > 0


@pytest.mark.parametrize(
    ("name", "projection", "by_hand"),
    [
        (
            "990019",
            "processing_status",
            "UPDATE processing_status SET state = 'answered' WHERE code = 'I-202'",
        ),
        ("990019", "outbox", "INSERT INTO outbox VALUES ('forged', 1, 1)"),
        ("990027", "provision_records", "DELETE FROM provision_record WHERE rowid = 1"),
        ("990027", "reference_database", "UPDATE reference_database SET position = position + 1"),
        ("990027/addressing", "acquisition", "UPDATE acquisition SET settled = 0 WHERE rowid = 7"),
        ("network", "exchanges", "UPDATE exchange SET answer_code = '' WHERE answer_code <> ''"),
        ("network", "issued_codes", "DELETE FROM issued_person WHERE rowid = 3"),
    ],
)
def test_a_projection_changed_by_hand_differs_and_no_other(
    name: str, projection: str, by_hand: str, demo_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(demo_copy / name / "projections.sqlite")) as rows, rows:
        assert rows.execute(by_hand).rowcount > 0
    assert main(["replay", str(demo_copy), "--into", str(demo_copy / "rebuilt")]) == 1
    printed = capsys.readouterr()
    assert "S-105" in printed.err
    marks = replayed(printed.out)
    assert marks[name].pop(projection) == "DIFFERS"
    assert {mark for ledger in marks.values() for mark in ledger.values()} == {"OK"}


def test_replay_overwrites_nothing(demo_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (demo_copy / "990019" / "projections.sqlite").read_bytes()
    assert main(["replay", str(demo_copy), "--into", str(demo_copy)]) == 1
    assert "S-136" in capsys.readouterr().err
    assert (demo_copy / "990019" / "projections.sqlite").read_bytes() == before


# -- proofs that residents take home ------------------------------------------------------------------


def signs_nothing(_size: int, _root: bytes) -> str:
    raise AssertionError("nothing is appended here")


@pytest.fixture
def proof(evidence: Evidence, tmp_path: Path) -> Path:
    """A proof that position 1001 is in the log of the answering city."""
    with closing(SQLiteStore(LedgerDatastore(evidence.folder / "990027" / EVENTS), signs_nothing)) as store:
        (tmp_path / "proof.txt").write_text(receipt(store, 1001), encoding="utf-8")
    return tmp_path / "proof.txt"


def test_a_proof_is_checked_with_the_public_key_alone(
    evidence: Evidence, proof: Path, tmp_path: Path
) -> None:
    key = tmp_path / "brought-along.vkey"
    shutil.move(evidence.folder / "990027" / VERIFIER_KEY, key)
    total = size(evidence.folder / "990027")
    shutil.rmtree(evidence.folder)
    result = renkei("audit", "receipt", proof, "--key", key)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"OK renkei/990027 position 1001 of {total}, ")


def altered(line: str) -> str:
    """One character of a line changed into another of the same kind, not in its last few."""
    at = len(line) // 2
    return line[:at] + ("B" if line[at] != "B" else "C") + line[at + 1 :]


@pytest.mark.parametrize("part", ["extra", "index", "step", "size", "root", "signature"])
def test_an_altered_proof_is_refused(
    part: str, evidence: Evidence, proof: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = proof.read_text(encoding="utf-8").split("\n")
    blank = lines.index("")
    number = {
        "extra": 1,
        "index": 2,
        "step": 3,
        "size": blank + 2,
        "root": blank + 3,
        "signature": blank + 5,
    }[part]
    old = lines[number]
    lines[number] = "index 1001" if part == "index" else f"{int(old) + 1}" if part == "size" else altered(old)
    assert lines[number] != old
    proof.write_text("\n".join(lines), encoding="utf-8")
    key = evidence.folder / "990027" / VERIFIER_KEY
    assert main(["audit", "receipt", str(proof), "--key", str(key)]) == 1
    printed = capsys.readouterr()
    assert "S-101" in printed.err
    assert printed.out == ""


def test_a_proof_of_one_ledger_is_none_of_another(
    evidence: Evidence, proof: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = evidence.folder / "990019" / VERIFIER_KEY
    assert main(["audit", "receipt", str(proof), "--key", str(key)]) == 1
    assert "S-101" in capsys.readouterr().err
