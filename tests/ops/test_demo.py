"""The demo as its first user meets it: what it says, what it leaves, and what it refuses to touch."""

import csv
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from broker.ledger.folder import EVENTS, SEALING_VERIFIER_KEY, VERIFIER_KEY
from broker.ledger.notes import NoteVerifier, open_note, with_signatures
from broker.ledger.sqlite import LedgerDatastore, SQLiteStore
from ops.demo import ANSWERING, ASKING, KINDS, MARKER
from schemas.errors import codes, entry
from tests.ops.conftest import Finished
from tests.ops.folders import renkei

# What must become of each kind of line: state and codes. A line of a kind has one of its codes.
OUTCOMES = {
    "single": ("回答済", {""}),
    "household": ("回答済", {""}),
    "outside": ("提供不可", {"L-104"}),
    "staff": ("提供不可", {"I-101", "I-102"}),
    "nocode": ("提供不可", {"I-103"}),
    "unknown": ("提供不可", {"N-106"}),
    "noyear": ("提供不可", {"I-204"}),
    "absent": ("提供不可", {"L-101"}),
    "protected": ("確認待ち", {"I-203"}),
    "wrong": ("提供不可", {"I-202"}),
    "repeat": ("エラーリスト", {"I-105"}),
    "malformed": ("エラーリスト", {"B-001"}),
}
PROCESSES = (ASKING[0], ANSWERING[0], "network", "registry")


def table(said: str) -> list[list[str]]:
    """The rows of the printed table: kind, count, state, code, reason. A line without a count goes on."""
    rows: list[list[str]] = []
    for line in said.splitlines():
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        if len(cells) != 5:
            continue
        if cells[1]:
            rows.append(cells)
        else:
            rows[-1] = [above + below for above, below in zip(rows[-1], cells, strict=True)]
    return rows


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="cp932", newline="") as lines:
        return list(csv.DictReader(lines))


def test_it_succeeds_and_tells_what_became_of_each_of_200_inquiries(finished: Finished) -> None:
    assert finished.status == 0, finished.complained
    assert finished.complained == ""
    *rows, total = table(finished.said)
    assert sum(int(count) for _, count, *_ in rows) == int(total[1]) == 200
    found: dict[str, list[tuple[int, str, str]]] = {}
    for title, count, state, code, _reason in rows:
        found.setdefault(title, []).append((int(count), state, code))
    assert list(found) == [kind.title for kind in KINDS]
    assert OUTCOMES.keys() == {kind.prefix for kind in KINDS}
    for kind in KINDS:
        state, expected = OUTCOMES[kind.prefix]
        assert sum(count for count, _, _ in found[kind.title]) == kind.count
        assert {s for _, s, _ in found[kind.title]} == {state}
        assert {code for _, _, code in found[kind.title]} == expected


def test_every_line_that_was_not_answered_names_a_code_of_the_catalogue_and_its_reason(
    finished: Finished,
) -> None:
    refused = [row for row in table(finished.said)[:-1] if row[2] != "回答済"]
    assert len(refused) >= 10
    for _, _, _, code, reason in refused:
        assert code in codes()
        assert reason
        assert entry(code).cause_ja.startswith(reason)


@pytest.mark.req("R-177")
def test_the_result_file_and_the_error_list_say_the_same_as_the_table(finished: Finished) -> None:
    results = rows_of(finished.folder / "output" / "results.csv")
    errors = rows_of(finished.folder / "output" / "errors.csv")
    requests = {row["照会ID"]: row for row in results}
    assert len(requests) + len(errors) == 200
    states = Counter((request.partition("-")[0], row["コード"]) for request, row in requests.items())
    for kind, _, count, code in (
        (kind.prefix, state, int(count), code)
        for kind in KINDS
        for title, count, state, code, _ in table(finished.said)
        if title == kind.title and state in ("回答済", "提供不可")
    ):
        assert states[kind, code] == count
    for row in results:
        assert (row["コード"] == "") == (row["状態"] in ("回答済", "照会中"))
        if row["コード"]:
            known = entry(row["コード"])
            assert (row["理由"], row["次の手順"]) == (known.cause_ja, known.next_ja)
    assert {(row["コード"], row["項目"]) for row in errors} == {("I-105", "照会ID"), ("B-001", "行")}
    assert all(row["次の手順"] == entry(row["コード"]).next_ja for row in errors)


@pytest.mark.req("R-212")
def test_a_household_gets_an_answer_for_each_of_its_members(finished: Finished) -> None:
    results = rows_of(finished.folder / "output" / "results.csv")
    households = Counter(row["照会ID"] for row in results if row["照会ID"].startswith("household"))
    assert set(households.values()) == {3}
    assert len(households) == 12
    assert all(row["総所得額"] for row in results if row["状態"] == "回答済")


def test_it_ends_its_processes_in_good_order(finished: Finished) -> None:
    log = finished.folder / "log"
    for name in PROCESSES:
        first, *_, last = map(json.loads, (log / f"{name}.log").read_text(encoding="utf-8").splitlines())
        assert (first["event"], first["daemon"]) == ("ready", name)
        assert (last["event"], last["daemon"], last["signal"]) == ("stopping", name, "SIGTERM")
        assert (log / f"{name}.err").read_text(encoding="utf-8") == ""
    assert "終了状態" not in finished.said
    assert not [command for command in daemons() if os.fsencode(finished.folder) in command]


def daemons() -> Iterator[bytes]:
    """The command lines of all daemons that run on this machine; other tests may be reading the folder."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended meanwhile
            command = file.read_bytes()
            if {b"serve", b"network", b"registry"} & {*command.split(b"\0")}:
                yield command


def test_nothing_half_written_is_left(finished: Finished) -> None:
    names = [file.name for file in finished.folder.rglob("*")]
    assert not [
        name for name in names if name.endswith((".new", ".part", ".unfinished", "-wal", "-shm", "-journal"))
    ]


def test_it_runs_again_in_the_same_folder_and_keeps_nothing_of_the_first_time(demo_copy: Path) -> None:
    keys = (demo_copy / "network" / "ledger.vkey").read_text(encoding="utf-8")
    (demo_copy / "output" / "of-the-first-time").touch()
    again = renkei("demo", "--dir", demo_copy)
    assert again.returncode == 0, again.stderr
    assert int(table(again.stdout)[-1][1]) == 200
    assert not (demo_copy / "output" / "of-the-first-time").exists()
    assert (demo_copy / "network" / "ledger.vkey").read_text(encoding="utf-8") != keys


def test_it_refuses_a_folder_with_anything_else_in_it(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    refused = renkei("demo", "--dir", tmp_path)
    assert refused.returncode == 1
    assert "S-104" in refused.stderr
    assert str(tmp_path) in refused.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]
    assert not (tmp_path / MARKER).exists()


def test_it_refuses_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "thesis.txt"
    file.write_text("years of work", encoding="utf-8")
    refused = renkei("demo", "--dir", file)
    assert refused.returncode == 1
    assert "S-104" in refused.stderr
    assert file.read_text(encoding="utf-8") == "years of work"


def test_on_postgresql_it_does_the_same(finished: Finished, tmp_path: Path) -> None:
    """On a server that it brings, under a role that may append and read alone."""
    done = renkei("demo", "--dir", tmp_path / "demo", "--store", "postgresql")
    assert (done.returncode, done.stderr) == (0, "")
    assert table(done.stdout) == table(finished.said)
    assert done.stdout.count("OK      ") == 5
    assert not list((tmp_path / "demo").rglob("events.sqlite"))
    store = (tmp_path / "demo" / "network.toml").read_text(encoding="utf-8")
    assert "postgresql://renkei_daemon:" in store


def test_its_checkpoints_are_cosigned_by_the_network_and_by_the_other_city(demo_copy: Path) -> None:
    for code, other in ((ASKING[0], ANSWERING[0]), (ANSWERING[0], ASKING[0])):
        keys = [
            demo_copy / code / VERIFIER_KEY,
            demo_copy / code / SEALING_VERIFIER_KEY,
            demo_copy / other / "witness.vkey",
            demo_copy / "network" / "witness.vkey",
        ]
        verifiers = [NoteVerifier(key.read_text(encoding="utf-8")) for key in keys]
        with closing(SQLiteStore(LedgerDatastore(demo_copy / code / EVENTS), lambda size, root: "")) as store:
            size = max(head.size for head in store.checkpoints(limit=10_000) if store.cosignatures(head.size))
            (checkpoint,) = store.checkpoints(size - 1, 1)
            note = with_signatures(checkpoint.note, store.cosignatures(size))
        _, signed = open_note(note, verifiers)
        assert sorted((each.name, each.kind) for each in signed) == sorted(
            (verifier.name, verifier.kind) for verifier in verifiers
        )
