"""Results and error lists: whole files, readable by their owner, that say what to do and name nobody."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.business.files import read_residents, write_residents
from adapters.business.lists import ERROR_HEADER, RESULT_HEADER, write_errors, write_results
from adapters.business.output import replacing
from adapters.business.records import ErrorLine, ResidentRecord, ResultRecord
from adapters.business.text import fits
from ops.synthetic import make_people, residents_of
from schemas import errors, items

INCOME = "income_tax_certificate/1"


def read(path: Path) -> list[list[str]]:
    raw = path.read_bytes()
    assert raw.endswith(b"\r\n")
    with path.open(encoding="cp932", newline="") as stream:
        return list(csv.reader(stream, strict=True))


@pytest.mark.req("R-168")
def test_an_answer_stands_under_the_japanese_names_of_its_items(tmp_path: Path) -> None:
    payload = {"fiscal_year": "2025", "total_income": "-204000"}
    result = ResultRecord("q-1", "000000000000001", "回答済", layout=INCOME, payload=payload)
    assert write_results(tmp_path / "results.csv", [INCOME], [result]) == []
    header, row = read(tmp_path / "results.csv")
    answer = dict(zip(header, row, strict=True))
    assert tuple(header[:6]) == RESULT_HEADER
    assert header[6:] == [item.name_ja for item in items.layout(INCOME).leaves]
    assert {name: value for name, value in answer.items() if value} == {
        "照会ID": "q-1",
        "団体内統合宛名番号": "000000000000001",
        "状態": "回答済",
        "相当年度": "2025",
        "総所得額": "-204000",
    }


def test_a_refusal_says_why_and_what_to_do_next(tmp_path: Path) -> None:
    refused = ResultRecord("q-1", "000000000000001", "提供不可", "I-204")
    assert write_results(tmp_path / "results.csv", [INCOME], [refused]) == []
    row = read(tmp_path / "results.csv")[1]
    entry = errors.entry("I-204")
    assert row[:6] == ["q-1", "000000000000001", "提供不可", "I-204", entry.cause_ja, entry.next_ja]
    assert set(row[6:]) == {""}


def test_results_of_several_layouts_share_a_file_and_each_keeps_to_its_columns(tmp_path: Path) -> None:
    handbooks = items.layout("disability_record/1")
    repeated = next(item for item in handbooks.leaves if item.max_occurs > 1)
    results = [
        ResultRecord("q-1", "1", "回答済", layout=INCOME, payload={"total_income": "1"}),
        ResultRecord("q-2", "2", "回答済", layout=handbooks.key, payload={repeated.code: ["1", "2"]}),
    ]
    assert write_results(tmp_path / "results.csv", [INCOME, handbooks.key], results) == []
    header, first, second = read(tmp_path / "results.csv")
    columns = len(items.layout(INCOME).leaves)
    assert first[6 + columns :] == [""] * len(handbooks.leaves)
    assert second[6 : 6 + columns] == [""] * columns
    assert second[header.index(repeated.name_ja, 6 + columns)] == "1 2"


@pytest.mark.parametrize(
    "result",
    [
        ResultRecord("q", "1", "回答済", layout=INCOME, payload={"shoe_size": "27"}),
        ResultRecord("q", "1", "回答済", layout="resident_record/1", payload={"household_relation": "01"}),
        ResultRecord("q", "1", "提供不可", "I-999"),
    ],
)
def test_a_result_that_the_file_cannot_hold_is_the_callers_error_and_changes_nothing(
    tmp_path: Path, result: ResultRecord
) -> None:
    (tmp_path / "results.csv").write_text("old")
    with pytest.raises(ValueError):  # noqa: PT011 - which of the three is not the point: the file stays
        write_results(tmp_path / "results.csv", [INCOME], [result])
    assert (tmp_path / "results.csv").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]


@pytest.mark.req("R-169")
@pytest.mark.parametrize("character", ["\u301c", "𠮷"])
def test_an_answer_that_cp932_cannot_carry_is_withheld_and_reported_but_never_changed(
    tmp_path: Path, character: str
) -> None:
    payload = {"fiscal_year": "2025", "total_income": character}
    results = [
        ResultRecord("q-1", "000000000000001", "回答済", layout=INCOME, payload=payload),
        ResultRecord("q-2", "000000000000002", "照会中"),
    ]
    faults = write_results(tmp_path / "results.csv", [INCOME], results)
    assert [(fault.line, fault.item, fault.code) for fault in faults] == [(2, "総所得額", "B-009")]
    _, first, second = read(tmp_path / "results.csv")
    assert first[:4] == ["q-1", "000000000000001", "回答済", "B-009"]
    assert first[4].startswith("総所得額")
    assert first[5] == errors.entry("B-009").next_ja
    assert set(first[6:]) == {""}
    assert second[:3] == ["q-2", "000000000000002", "照会中"]


@pytest.mark.req("R-169")
def test_a_request_id_that_cp932_cannot_carry_leaves_its_cell_empty(tmp_path: Path) -> None:
    faults = write_results(tmp_path / "results.csv", [], [ResultRecord("q\u301c1", "1", "照会中")])
    assert [(fault.item, fault.code) for fault in faults] == [("照会ID", "B-009")]
    assert read(tmp_path / "results.csv")[1][:4] == ["", "1", "照会中", "B-009"]


@pytest.mark.req("R-169")
def test_a_resident_that_cp932_cannot_carry_is_left_out_and_each_column_reported(tmp_path: Path) -> None:
    good, other = residents_of(make_people(1, 2), "990019", "連携市", 1)
    bad = ResidentRecord(
        other.integrated_number,
        other.individual_number,
        "𠮷野　十美",
        other.kana,
        other.birth_date,
        other.sex,
        "連携市表町１\u301c２",
        protected=False,
    )
    faults = write_residents(tmp_path / "residents.csv", [good, bad, good])
    assert [(fault.line, fault.item, fault.code) for fault in faults] == [
        (3, "氏名", "B-009"),
        (3, "住所", "B-009"),
    ]
    assert list(read_residents(tmp_path / "residents.csv")) == [(2, good), (3, good)]


@pytest.mark.req("R-176")
def test_an_error_line_says_where_what_why_and_what_next(tmp_path: Path) -> None:
    fault = ErrorLine(4, "生年月日", "B-012", "実際にはない日付です")
    assert write_errors(tmp_path / "errors.csv", [fault]) == []
    entry = errors.entry("B-012")
    assert read(tmp_path / "errors.csv") == [
        list(ERROR_HEADER),
        ["4", "生年月日", "B-012", f"実際にはない日付です。{entry.cause_ja}", entry.next_ja],
    ]


def test_every_text_of_the_catalogue_can_stand_in_an_error_list(tmp_path: Path) -> None:
    faults = [ErrorLine(line, "行", code, "") for line, code in enumerate(errors.codes(), start=2)]
    assert write_errors(tmp_path / "errors.csv", faults) == []
    assert [row[2] for row in read(tmp_path / "errors.csv")[1:]] == list(errors.codes())
    assert all(fits(errors.entry(code).next_ja) for code in errors.codes())


@pytest.mark.req("R-176")
def test_an_error_list_names_nobody_whatever_was_wrong_with_the_file(tmp_path: Path) -> None:
    """Each record has faults in several columns; no value of any of them may reach the list."""
    residents = residents_of(make_people(5, 20), "990019", "連携市", 5)
    write_residents(tmp_path / "residents.csv", residents)
    head, *lines = (tmp_path / "residents.csv").read_bytes().splitlines(keepends=True)
    damage = [
        lambda raw: raw.replace(b"-", b"/"),
        lambda raw: raw.replace(b"\x81\x40", b"\xff"),
        lambda raw: raw.replace(b",1", b",7").replace(b",2", b",8"),
        lambda raw: raw.rpartition(b",")[0] + b"\r\n",
        lambda raw: b'"' + raw,
    ]
    bad = [damage[place % len(damage)](raw) for place, raw in enumerate(lines)]
    (tmp_path / "residents.csv").write_bytes(head + b"".join(bad))
    faults = [line for line in read_residents(tmp_path / "residents.csv") if isinstance(line, ErrorLine)]
    assert {fault.line for fault in faults} == set(range(2, 22))
    write_errors(tmp_path / "errors.csv", faults)
    listed = (tmp_path / "errors.csv").read_text(encoding="cp932")
    for resident in residents:
        family, given = resident.name.split("\u3000")
        for value in (
            family,
            given,
            *resident.kana.split("\u3000"),
            resident.individual_number,
            resident.birth_date,
            resident.birth_date.replace("-", "/"),
            resident.address.removeprefix("連携市"),
        ):
            assert value not in listed


def test_only_the_owner_reads_what_was_written_however_generous_the_umask(tmp_path: Path) -> None:
    earlier = os.umask(0)
    try:
        write_errors(tmp_path / "errors.csv", [])
    finally:
        os.umask(earlier)
    assert (tmp_path / "errors.csv").stat().st_mode & 0o777 == 0o600


def test_a_file_that_others_could_read_is_replaced_by_one_they_cannot(tmp_path: Path) -> None:
    (tmp_path / "errors.csv").write_text("old")
    (tmp_path / "errors.csv").chmod(0o644)
    write_errors(tmp_path / "errors.csv", [])
    assert (tmp_path / "errors.csv").stat().st_mode & 0o777 == 0o600


def test_a_writer_that_fails_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    def broken() -> Iterator[ErrorLine]:
        yield ErrorLine(2, "行", "B-001", "")
        raise RuntimeError("the source broke")

    (tmp_path / "errors.csv").write_text("old")
    with pytest.raises(RuntimeError, match="the source broke"):
        write_errors(tmp_path / "errors.csv", broken())
    assert (tmp_path / "errors.csv").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_nobody_sees_a_file_before_it_is_whole(tmp_path: Path) -> None:
    with replacing(tmp_path / "results.csv") as stream:
        stream.write(b"half")
        stream.flush()
        assert not (tmp_path / "results.csv").exists()
    assert (tmp_path / "results.csv").read_bytes() == b"half"
