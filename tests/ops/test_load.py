"""Files of business systems loaded into a daemon: bad lines, twice the same, and a stop in the middle."""

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from csv import DictReader
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.business.files import write_residents
from adapters.business.records import ReplicaRecord, ResidentRecord
from broker.addressing.person import PersonRegistered
from ops import demo
from ops.cli import main
from ops.daemons import addressing_folder
from ops.synthetic import income_of, make_people, residents_of, write_income
from schemas.errors import entry
from tests.ops.folders import copied, renkei
from tests.ops.town import ASKER, PATIENCE, Town

HEADER = "団体内統合宛名番号,個人番号,氏名,氏名カナ,生年月日,性別,住所,保護区分"
LEDGERS = ("990019", "990019/addressing")
SEED = 7


@pytest.fixture
def town(fresh: Path, tmp_path: Path) -> Iterator[Town]:
    """A city at work without a single resident, and without the network."""
    town = Town(copied(fresh, tmp_path / "town"))
    try:
        town.start(ASKER)
        town.ready(ASKER)
        yield town
    finally:
        town.close()


def people(count: int) -> list[ResidentRecord]:
    return residents_of(make_people(SEED, count), *demo.ASKING, SEED)


def cells(person: ResidentRecord) -> list[str]:
    """The columns of a line, in the order of the header."""
    return [
        person.integrated_number,
        person.individual_number,
        person.name,
        person.kana,
        person.birth_date,
        person.sex,
        person.address,
        str(int(person.protected)),
    ]


def write_lines(file: Path, lines: list[str | bytes]) -> None:
    """A file as a host system sends it, each line in cp932 unless it is bytes already."""
    raw = [line if isinstance(line, bytes) else line.encode("cp932") for line in (HEADER, *lines)]
    file.write_bytes(b"".join(line + b"\r\n" for line in raw))


def load(town: Town, kind: str, file: Path) -> tuple[str, list[tuple[int, str, str]]]:
    """What the command says, and (line, item, code) of its error list, each with cause and next step."""
    result = renkei("load", "--config", town.config(ASKER), kind, file)
    assert (result.returncode, result.stderr) == (0, "")
    with file.with_name(f"{file.name}.errors.csv").open(encoding="cp932", newline="") as lines:
        rows = list(DictReader(lines))
    for row in rows:
        assert row["理由"].endswith(entry(row["コード"]).cause_ja)
        assert row["次の手順"] == entry(row["コード"]).next_ja
    return result.stdout, [(int(row["行"]), row["項目"], row["コード"]) for row in rows]


def events(town: Town, kind: str = "%", ledgers: tuple[str, ...] = LEDGERS) -> int:
    """How many events of a kind are stored, read from the files themselves."""
    total = 0
    for ledger in ledgers:
        with closing(sqlite3.connect(town.folder / ledger / "events.sqlite")) as rows:
            query = "SELECT COUNT(*) FROM stored_events WHERE topic LIKE ?"
            total += rows.execute(query, (kind,)).fetchone()[0]
    return total


def registered(town: Town) -> list[PersonRegistered]:
    """Everybody in the addressing ledger of a town at rest, in the clear."""
    folder = addressing_folder(town.folder / ASKER, ASKER)
    store, registry = folder.ledger.store, folder.ledger.registry
    opened: list[Any] = [registry.decode(e, folder.vault).event for e in store.events(0, store.head().size)]
    folder.close()
    return [event for event in opened if isinstance(event, PersonRegistered)]


@pytest.mark.req("R-173", "R-176")
def test_bad_lines_go_to_the_error_list_and_the_good_ones_are_taken(town: Town, tmp_path: Path) -> None:
    known, *others = people(20)
    write_lines(tmp_path / "first.csv", [",".join(cells(known))])
    assert load(town, "residents", tmp_path / "first.csv")[1] == []

    lines: list[str | bytes] = [",".join(cells(person)) for person in others]

    def spoil(line: int, **changes: str) -> None:
        lines[line - 2] = ",".join(cells(replace(others[line - 2], **changes)))  # type: ignore[arg-type] # only text

    number = others[1].individual_number
    spoil(3, individual_number=number[:-1] + str((int(number[-1]) + 1) % 10))
    spoil(5, name="")
    lines[7 - 2] = ",".join(cells(others[7 - 2])[:-1])
    lines[9 - 2] = b",".join(c.encode("cp932") for c in cells(others[9 - 2])).replace(
        b"\x92\x9a", b"\x81\x20", 1
    )
    spoil(11, birth_date="1990-02-30")
    spoil(13, sex="3", kana="Yamada")
    number = others[13].integrated_number
    spoil(15, integrated_number=number[:-1] + str((int(number[-1]) + 1) % 10))
    spoil(17, individual_number=known.individual_number)
    spoil(19, individual_number="12345", integrated_number="")
    write_lines(tmp_path / "residents.csv", lines)

    said, errors = load(town, "residents", tmp_path / "residents.csv")
    assert errors == [
        (3, "個人番号", "B-006"),
        (5, "氏名", "B-002"),
        (7, "行", "B-001"),
        (9, "住所", "B-009"),
        (11, "生年月日", "B-012"),
        (13, "氏名カナ", "B-003"),
        (13, "性別", "B-005"),
        (15, "団体内統合宛名番号", "B-006"),
        (17, "個人番号", "A-103"),
        (19, "団体内統合宛名番号", "B-002"),
        (19, "個人番号", "B-004"),
    ]
    assert "登録 10 件 エラー 9 件" in said
    assert town.stop() == {ASKER: 0}
    bad = {line for line, _, _ in errors}
    good = [known, *(person for line, person in enumerate(others, 2) if line not in bad)]
    assert {e.integrated_number: e.name for e in registered(town)} == {
        person.integrated_number: person.name for person in good
    }
    # The list goes to the office by ways that are no place for a person.
    text = (tmp_path / "residents.csv.errors.csv").read_text(encoding="cp932")
    assert not [value for person in others for value in cells(person)[:4] if value in text]


@pytest.mark.req("R-169", "R-173")
def test_what_cp932_can_write_arrives_as_it_was_written(town: Town, tmp_path: Path) -> None:
    sample = people(4)
    names = ["髙橋　能子", "表　十兵衛", "山﨑　〜①", "吉田　ソー"]
    named = [replace(person, name=name) for person, name in zip(sample, names, strict=True)]
    named[2] = replace(named[2], name="山﨑　\uff5e①", address="連携市青葉町１丁目\uff0d２")
    write_lines(tmp_path / "residents.csv", [",".join(cells(person)) for person in named])
    assert b"\x8f\x5c" in (tmp_path / "residents.csv").read_bytes()  # 十 ends in a backslash's byte
    said, errors = load(town, "residents", tmp_path / "residents.csv")
    assert errors == []
    assert "登録 4 件" in said
    assert town.stop() == {ASKER: 0}
    arrived = {e.integrated_number: (e.name, e.kana, e.address) for e in registered(town)}
    assert arrived == {p.integrated_number: (p.name, p.kana, p.address) for p in named}


@pytest.mark.req("R-169")
def test_a_file_in_another_encoding_is_refused_as_a_whole(town: Town, tmp_path: Path) -> None:
    lines = [HEADER, *(",".join(cells(person)) for person in people(3))]
    (tmp_path / "residents.csv").write_text("\r\n".join(lines) + "\r\n", encoding="utf-8")
    said, errors = load(town, "residents", tmp_path / "residents.csv")
    assert errors == [(1, "行", "B-001")]
    assert "登録 0 件 エラー 1 件" in said
    assert events(town) == 0


def income(sample: list[ResidentRecord]) -> list[ReplicaRecord]:
    return income_of(sample, "2026", SEED)


@pytest.mark.req("R-125", "R-176")
def test_bad_lines_of_a_fixed_length_file_do_not_stop_the_others(town: Town, tmp_path: Path) -> None:
    sample = people(9)
    write_residents(tmp_path / "residents.csv", sample[:8])
    load(town, "residents", tmp_path / "residents.csv")
    file = tmp_path / "income.txt"
    write_income(file, income(sample))
    lines = file.read_bytes().split(b"\r\n")
    lines[1] = lines[1][:-1]
    lines[3] = lines[3][:19] + b"X" + lines[3][20:]
    lines[5] = lines[5][:15] + b"20 6" + lines[5][19:]
    lines[9] = b"T000000010"
    file.write_bytes(b"\r\n".join(lines))
    said, errors = load(town, "income", file)
    assert errors == [
        (2, "行", "B-001"),
        (4, "年税額", "B-003"),
        (6, "相当年度", "B-003"),
        (9, "団体内統合宛名番号", "B-007"),
        (10, "終了行", "B-011"),
    ]
    assert "登録 5 件 エラー 5 件" in said
    assert events(town, "replica.registered/%") == 5


@pytest.mark.req("R-125")
def test_the_same_files_once_more_leave_no_event(town: Town, tmp_path: Path) -> None:
    sample = people(60)
    write_residents(tmp_path / "residents.csv", sample)
    write_income(tmp_path / "income.txt", income(sample))
    files = (
        ("residents", tmp_path / "residents.csv", 60),
        ("income", tmp_path / "income.txt", 60),
        ("staff", town.folder / "input" / "staff.csv", 2),
    )
    for kind, file, count in files:
        assert f"登録 {count} 件 エラー 0 件" in load(town, kind, file)[0]
    before = events(town)
    assert before >= 60 * 3 + 2
    for kind, file, count in files:
        said, errors = load(town, kind, file)
        assert f"登録 {count} 件 エラー 0 件" in said
        assert errors == []
    assert events(town) == before


def test_a_changed_record_replaces_the_old_one_and_only_that(town: Town, tmp_path: Path) -> None:
    sample = people(5)
    write_residents(tmp_path / "residents.csv", sample)
    load(town, "residents", tmp_path / "residents.csv")
    before = events(town)
    sample[2] = replace(sample[2], address="連携市若草台９丁目９番９号", protected=not sample[2].protected)
    write_residents(tmp_path / "residents.csv", sample)
    load(town, "residents", tmp_path / "residents.csv")
    assert events(town) == before + 2
    assert events(town, "hold.%") == sum(person.protected for person in people(5)) + 1
    assert town.stop() == {ASKER: 0}
    assert registered(town)[-1].address == sample[2].address


# -- daemons that come and go -------------------------------------------------------------------------


def test_without_a_daemon_nothing_is_loaded_and_the_command_says_so(fresh: Path, tmp_path: Path) -> None:
    folder = copied(fresh, tmp_path / "town")
    file = folder / "input" / "residents-990019.csv"
    result = renkei("load", "--config", folder / "990019.toml", "residents", file)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"[S-106] {entry('S-106').cause_ja}")
    assert not file.with_name(f"{file.name}.errors.csv").exists()


def test_a_file_that_is_not_there_is_named(town: Town, tmp_path: Path) -> None:
    result = renkei("load", "--config", town.config(ASKER), "residents", tmp_path / "nowhere.csv")
    assert result.returncode == 1
    assert "S-104" in result.stderr
    assert "nowhere.csv" in result.stderr


def test_a_daemon_at_rest_stops_at_once_and_says_so(town: Town) -> None:
    assert town.stop() == {ASKER: 0}
    lines = (town.folder / "log" / f"{ASKER}.log").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[-1])["event"] == "stopping"
    assert (town.folder / "log" / f"{ASKER}.err").read_text(encoding="utf-8") == ""


def test_a_load_cut_off_by_a_stop_is_completed_by_loading_again(town: Town, tmp_path: Path) -> None:
    """What was acknowledged stays, what was under way is finished, and nothing is registered twice."""
    count = 3_000
    write_residents(tmp_path / "residents.csv", people(count))
    command = ["load", "--config", str(town.config(ASKER)), "residents", str(tmp_path / "residents.csv")]
    with subprocess.Popen(
        [sys.executable, "-m", "ops", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as loading:
        deadline = time.monotonic() + PATIENCE
        while not events(town) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert town.stop() == {ASKER: 0}
        _, complaint = loading.communicate(timeout=PATIENCE)
    assert loading.returncode == 1
    assert "S-106" in complaint.decode()
    taken = events(town, "person.registered/%")
    assert 0 < taken < count
    assert events(town, "person.number_claimed/%") == taken
    log = (town.folder / "log" / f"{ASKER}.log").read_text(encoding="utf-8")
    assert json.loads(log.splitlines()[-1])["event"] == "stopping"
    assert '"level": "error"' not in log
    assert (town.folder / "log" / f"{ASKER}.err").read_text(encoding="utf-8") == ""
    assert main(["audit", "verify", str(town.folder)]) == 0

    town.start(ASKER)
    town.ready(ASKER)
    said, errors = load(town, "residents", tmp_path / "residents.csv")
    assert f"登録 {count} 件 エラー 0 件" in said
    assert errors == []
    assert events(town, "person.registered/%") == events(town, "person.number_claimed/%") == count
    assert town.until(ASKER, lambda status: True)["waiting_for_codes"] == count
