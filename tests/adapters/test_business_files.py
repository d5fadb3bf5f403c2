"""Residents, staff and inquiries: real cp932 files in, records and error lines out."""

import dataclasses
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.business.files import (
    INQUIRIES,
    RESIDENTS,
    STAFF,
    read_inquiries,
    read_residents,
    read_staff,
    write_inquiries,
    write_residents,
    write_staff,
)
from adapters.business.records import ErrorLine, InquiryRecord, Line, ResidentRecord, StaffRecord
from ops.synthetic import make_people, residents_of
from schemas.codes import integrated_number
from schemas.items import layouts
from schemas.law.roles import roles
from tests.adapters.test_business_text import CP932

GOOD = residents_of(make_people(7, 3), "990019", "連携市", 7)
NUMBER, OTHER_NUMBER = (record.integrated_number for record in GOOD[:2])


def wrong_check(number: str) -> str:
    return number[:-1] + str((int(number[-1]) + 1) % 10)


RESIDENT = {
    "団体内統合宛名番号": NUMBER,
    "個人番号": GOOD[0].individual_number,
    "氏名": "表川　十美",
    "氏名カナ": "オモテカワ　トミ",
    "生年月日": "1984-02-29",
    "性別": "2",
    "住所": "連携市青葉町１丁目２番３号",
    "保護区分": "0",
}
STAFF_MEMBER = {
    "職員ID": "s001",
    "所属": "子育て支援課",
    "職責": "事務取扱担当者",
    "法令の表の項": "74 10-2",
    "有効開始日": "2026-04-01",
    "有効終了日": "9999-12-31",
}
INQUIRY = {
    "照会ID": "q-1",
    "職員ID": "s001",
    "提供機関コード": "990027",
    "表の項": "74",
    "特定個人情報": "地方税関係情報",
    "レイアウト": "income_tax_certificate/1",
    "相当年度": "2025",
    "団体内統合宛名番号": f"{NUMBER} {OTHER_NUMBER}",
}


ADDED = {
    "事案番号": "令8-31号",
    "処理開始日時": "2026-11-21T18:00:00+09:00",
    "元の照会ID": "q-0",
    "端末": "窓口３",
    "根拠": "19-9",
}


def line(cells: dict[str, str], **changed: str) -> bytes:
    assert changed.keys() <= cells.keys()
    return ",".join((cells | changed).values()).encode("cp932") + b"\r\n"


def file(path: Path, cells: dict[str, str], *lines: bytes) -> Path:
    path.write_bytes(",".join(cells).encode("cp932") + b"\r\n" + b"".join(lines))
    return path


def found(lines: Iterator[tuple[int, object] | ErrorLine]) -> list[tuple[int, str, str]]:
    """Line, column and code of the faults; "" and "" for a good record."""
    return [
        (given.line, given.item, given.code) if isinstance(given, ErrorLine) else (given[0], "", "")
        for given in lines
    ]


def good(lines: Iterator[Line[InquiryRecord]]) -> list[InquiryRecord]:
    """The records of a file without a fault."""
    return [given[1] for given in lines if not isinstance(given, ErrorLine)]


def assert_unnamed(value: str, lines: Iterator[tuple[int, object] | ErrorLine]) -> None:
    reasons = [given.reason for given in lines if isinstance(given, ErrorLine)]
    assert reasons
    assert len(value) < 2 or not any(value in reason for reason in reasons)


def test_a_resident_is_read_as_written_in_the_file(tmp_path: Path) -> None:
    path = file(tmp_path / "residents.csv", RESIDENT, line(RESIDENT, 保護区分="1"))
    assert list(read_residents(path)) == [
        (
            2,
            ResidentRecord(
                NUMBER,
                GOOD[0].individual_number,
                "表川　十美",
                "オモテカワ　トミ",
                "1984-02-29",
                "2",
                "連携市青葉町１丁目２番３号",
                protected=True,
            ),
        )
    ]


def test_a_staff_member_is_read_with_the_identifier_of_the_role(tmp_path: Path) -> None:
    path = file(tmp_path / "staff.csv", STAFF_MEMBER, line(STAFF_MEMBER))
    assert list(read_staff(path)) == [
        (2, StaffRecord("s001", "子育て支援課", "affair_officer", ("74", "10-2"), "2026-04-01", "9999-12-31"))
    ]


def test_an_inquiry_is_read_with_all_its_subjects(tmp_path: Path) -> None:
    path = file(tmp_path / "inquiries.csv", INQUIRY, line(INQUIRY))
    assert list(read_inquiries(path)) == [
        (
            2,
            InquiryRecord(
                "q-1",
                "s001",
                "990027",
                "74",
                "地方税関係情報",
                "income_tax_certificate/1",
                "2025",
                (NUMBER, OTHER_NUMBER),
            ),
        )
    ]


@pytest.mark.req("R-169", "R-176")
@pytest.mark.parametrize(
    ("item", "value", "code"),
    [
        *((item, "", "B-002") for item in RESIDENT),
        ("団体内統合宛名番号", "１２３４５６７８９０１２３４５", "B-003"),
        ("団体内統合宛名番号", NUMBER[:-1], "B-004"),
        ("団体内統合宛名番号", NUMBER + "0", "B-004"),
        ("団体内統合宛名番号", wrong_check(NUMBER), "B-006"),
        ("個人番号", "12345678901X", "B-003"),
        ("個人番号", "1234567890", "B-004"),
        ("個人番号", wrong_check(GOOD[0].individual_number), "B-006"),
        ("氏名", "ﾔﾏﾀﾞ", "B-003"),
        ("氏名", "表川 十美", "B-003"),
        ("氏名", "川" * 101, "B-004"),
        ("氏名カナ", "表川　十美", "B-003"),
        ("氏名カナ", "カ" * 101, "B-004"),
        ("生年月日", "1984/02/29", "B-003"),
        ("生年月日", "1985-02-29", "B-012"),
        ("生年月日", "0000-01-01", "B-012"),
        ("生年月日", "9999-12-31", "B-012"),
        ("性別", "3", "B-005"),
        ("性別", "男", "B-003"),
        ("住所", "連携市\x07", "B-003"),
        ("保護区分", "2", "B-005"),
    ],
)
def test_a_fault_of_a_resident_names_its_column_and_the_others_go_on(
    tmp_path: Path, item: str, value: str, code: str
) -> None:
    lines = [line(RESIDENT), line(RESIDENT, **{item: value}), line(RESIDENT)]
    path = file(tmp_path / "residents.csv", RESIDENT, *lines)
    assert found(read_residents(path)) == [(2, "", ""), (3, item, code), (4, "", "")]
    assert_unnamed(value, read_residents(path))


@pytest.mark.parametrize(
    ("item", "value", "code"),
    [
        *((item, "", "B-002") for item in STAFF_MEMBER),
        ("職員ID", "職員", "B-003"),
        ("職責", "課長", "B-005"),
        ("職責", "affair_officer", "B-003"),
        ("法令の表の項", "74 十の二", "B-003"),
        ("法令の表の項", "74  75", "B-003"),
        ("法令の表の項", "74 75 74", "B-011"),
        ("有効開始日", "20260401", "B-003"),
        ("有効開始日", "2026-04-31", "B-012"),
        ("有効終了日", "2026-13-01", "B-012"),
        ("有効終了日", "2026-03-31", "B-012"),
    ],
)
def test_a_fault_of_a_staff_member_names_its_column_and_the_others_go_on(
    tmp_path: Path, item: str, value: str, code: str
) -> None:
    lines = [line(STAFF_MEMBER), line(STAFF_MEMBER, **{item: value}), line(STAFF_MEMBER)]
    path = file(tmp_path / "staff.csv", STAFF_MEMBER, *lines)
    assert found(read_staff(path)) == [(2, "", ""), (3, item, code), (4, "", "")]
    assert_unnamed(value, read_staff(path))


@pytest.mark.parametrize(
    ("item", "value", "code"),
    [
        *((item, "", "B-002") for item in INQUIRY),
        ("照会ID", "照会", "B-003"),
        ("提供機関コード", "990028", "B-006"),
        ("表の項", "十の二", "B-003"),
        ("表の項", "child_medical", "B-003"),  # a task of an ordinance, without its basis
        ("特定個人情報", "tax", "B-003"),
        ("レイアウト", "income_tax_certificate/0", "B-005"),
        ("相当年度", "令和七年", "B-003"),
        ("相当年度", "25", "B-004"),
        ("相当年度", "20250", "B-004"),
        ("団体内統合宛名番号", "12345", "B-004"),
        ("団体内統合宛名番号", f"{NUMBER} {wrong_check(OTHER_NUMBER)}", "B-006"),
        ("団体内統合宛名番号", f"{NUMBER} {NUMBER}", "B-011"),
    ],
)
def test_a_fault_of_an_inquiry_names_its_column_and_the_others_go_on(
    tmp_path: Path, item: str, value: str, code: str
) -> None:
    lines = [line(INQUIRY), line(INQUIRY, **{item: value}), line(INQUIRY)]
    path = file(tmp_path / "inquiries.csv", INQUIRY, *lines)
    assert found(read_inquiries(path)) == [(2, "", ""), (3, item, code), (4, "", "")]
    assert_unnamed(value, read_inquiries(path))


def test_a_layout_without_a_fiscal_year_needs_none(tmp_path: Path) -> None:
    path = file(
        tmp_path / "inquiries.csv", INQUIRY, line(INQUIRY, レイアウト="resident_record/1", 相当年度="")
    )
    assert found(read_inquiries(path)) == [(2, "", "")]


@pytest.mark.req("R-176")
def test_every_fault_of_a_line_is_reported_and_not_only_the_first(tmp_path: Path) -> None:
    faulty = line(RESIDENT, 個人番号="1", 氏名="", 生年月日="2023-02-29", 性別="9", 保護区分="x")
    assert found(read_residents(file(tmp_path / "residents.csv", RESIDENT, faulty))) == [
        (2, "個人番号", "B-004"),
        (2, "氏名", "B-002"),
        (2, "生年月日", "B-012"),
        (2, "性別", "B-005"),
        (2, "保護区分", "B-005"),
    ]


def test_every_subject_with_a_fault_is_counted_out(tmp_path: Path) -> None:
    subjects = f"{NUMBER} 123 {wrong_check(OTHER_NUMBER)}"
    path = file(tmp_path / "inquiries.csv", INQUIRY, line(INQUIRY, 団体内統合宛名番号=subjects))
    assert [fault.reason for fault in read_inquiries(path) if isinstance(fault, ErrorLine)] == [
        "2件目: 15桁ではありません",
        "3件目: 検査数字が合いません",
    ]


@pytest.mark.req("R-169")
def test_bytes_that_are_no_character_are_reported_beside_the_other_faults_of_the_line(tmp_path: Path) -> None:
    damaged = line(RESIDENT, 性別="9").replace("表川".encode("cp932"), b"\x85\x40\xff")
    path = file(tmp_path / "residents.csv", RESIDENT, line(RESIDENT), damaged, line(RESIDENT))
    assert found(read_residents(path)) == [
        (2, "", ""),
        (3, "氏名", "B-009"),
        (3, "性別", "B-005"),
        (4, "", ""),
    ]


def test_bytes_lost_inside_a_quoted_cell_are_reported_for_the_record_with_the_line_they_are_on(
    tmp_path: Path,
) -> None:
    damaged = line(RESIDENT, 住所='"連携市\r\n表町\r\n２番"').replace("表町".encode("cp932"), b"\xff")
    path = file(tmp_path / "residents.csv", RESIDENT, damaged, line(RESIDENT))
    first, second = read_residents(path)
    assert isinstance(first, ErrorLine)
    assert (first.line, first.item, first.code) == (2, "住所", "B-009")
    assert first.reason.startswith("3行目")
    assert isinstance(second, tuple)
    assert second[0] == 5


def test_a_quoted_address_may_hold_commas_and_line_ends(tmp_path: Path) -> None:
    path = file(
        tmp_path / "residents.csv",
        RESIDENT,
        line(RESIDENT, 住所='"連携市表町,\r\n""能""棟101号"'),
        line(RESIDENT),
    )
    first, second = read_residents(path)
    assert isinstance(first, tuple)
    assert isinstance(second, tuple)
    assert first[1].address == '連携市表町,\r\n"能"棟101号'
    assert second[0] == 4


@pytest.mark.parametrize(
    "bad", [b"\r\n", b"a,b\r\n", b"\x1a\r\n", b'"a\r\n', line(RESIDENT)[:-2] + b",more\r\n"]
)
def test_a_line_that_is_no_record_is_malformed_and_the_others_go_on(tmp_path: Path, bad: bytes) -> None:
    path = file(tmp_path / "residents.csv", RESIDENT, line(RESIDENT), bad, line(RESIDENT))
    assert found(read_residents(path)) == [(2, "", ""), (3, "行", "B-001"), (4, "", "")]


def test_a_malformed_line_with_lost_bytes_has_both_faults(tmp_path: Path) -> None:
    path = file(tmp_path / "residents.csv", RESIDENT, b"a\x81,b\r\n", line(RESIDENT))
    assert found(read_residents(path)) == [(2, "行", "B-001"), (2, "行", "B-009"), (3, "", "")]


@pytest.mark.parametrize(
    "head",
    [
        b"",
        line(RESIDENT),
        ",".join(reversed(RESIDENT)).encode("cp932") + b"\r\n",
        ",".join(RESIDENT).encode("utf-8") + b"\r\n",
        b"\xef\xbb\xbf" + ",".join(RESIDENT).encode("utf-8") + b"\r\n",
        ",".join(STAFF_MEMBER).encode("cp932") + b"\r\n",
    ],
)
def test_without_the_agreed_header_no_line_is_taken_for_a_resident(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "residents.csv"
    path.write_bytes(head + line(RESIDENT) if head else b"")
    assert found(read_residents(path)) == [(1, "行", "B-001")]


def test_line_ends_without_carriage_return_and_a_last_line_without_end_are_read(tmp_path: Path) -> None:
    path = file(tmp_path / "residents.csv", RESIDENT, line(RESIDENT), line(RESIDENT))
    path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n").rstrip(b"\n"))
    assert found(read_residents(path)) == [(2, "", ""), (3, "", "")]


def test_the_agreed_columns_stand_in_the_files() -> None:
    assert RESIDENTS.header == tuple(RESIDENT)
    assert STAFF.header == tuple(STAFF_MEMBER)
    assert INQUIRIES.header == (*INQUIRY, *ADDED)


def test_a_missing_file_is_the_callers_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        next(read_residents(tmp_path / "none.csv"))


def test_no_personal_field_shows_in_the_repr_of_a_resident() -> None:
    shown = repr(dataclasses.replace(GOOD[0], protected=True))
    assert shown == f"ResidentRecord(integrated_number='{GOOD[0].integrated_number}')"


full_width = st.text(
    st.sampled_from([c for c in CP932 if len(c.encode("cp932")) == 2 and ord(c) > 0x3000]), min_size=1
)
anything = st.lists(
    st.sampled_from([*(c for c in CP932 if c != "\x7f"), "\n", "\r\n", ",", '"']), min_size=1
).map("".join)
half_width = st.text(st.sampled_from([c for c in CP932 if "!" <= c <= "~" or "｡" <= c <= "ﾟ"]), min_size=1)
days = st.dates().map(lambda day: day.isoformat()).filter(lambda day: day < "9999-12-31")
numbers = st.integers(1, 10**14 - 1).map(integrated_number).filter(lambda n: n is not None).map(str)
residents = st.builds(
    ResidentRecord,
    integrated_number=numbers,
    individual_number=st.sampled_from([person.individual_number for person in GOOD]),
    name=full_width.map(lambda name: name[:100]),
    kana=st.text("アソポヴヶー・　", min_size=1, max_size=100),
    birth_date=days,
    sex=st.sampled_from("12"),
    address=anything,
    protected=st.booleans(),
)
law_rows = st.from_regex("[0-9]{1,3}(-[0-9])?", fullmatch=True)
tasks = st.from_regex("[a-z]{1,9}_[a-z0-9]{1,9}", fullmatch=True)
staff_members = st.builds(
    StaffRecord,
    staff_id=half_width,
    office=anything,
    official_role=st.sampled_from(list(roles())),
    rows=st.lists(law_rows | tasks, min_size=1, unique=True).map(tuple),
    valid_from=st.just("0000-01-01"),
    valid_until=days,
)
inquiries = st.builds(
    InquiryRecord,
    request_id=half_width,
    staff_id=half_width,
    provider=st.sampled_from(["990019", "990027", "x1"]),
    row=law_rows,
    information=full_width,
    layout=st.sampled_from([layout.key for layout in layouts()]),
    fiscal_year=st.from_regex("[0-9]{4}", fullmatch=True),
    subjects=st.lists(numbers, min_size=1, unique=True).map(tuple),
)
round_trip = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.mark.req("R-168", "R-169")
@round_trip
@given(records=st.lists(residents))
def test_residents_come_back_as_they_were_written(tmp_path: Path, records: list[ResidentRecord]) -> None:
    assert write_residents(tmp_path / "residents.csv", records) == []
    lines = list(read_residents(tmp_path / "residents.csv"))
    assert [given[1] for given in lines if isinstance(given, tuple)] == records
    assert len(lines) == len(records)


@pytest.mark.req("R-168")
@round_trip
@given(records=st.lists(staff_members))
def test_staff_come_back_as_they_were_written(tmp_path: Path, records: list[StaffRecord]) -> None:
    assert write_staff(tmp_path / "staff.csv", records) == []
    lines = list(read_staff(tmp_path / "staff.csv"))
    assert [given[1] for given in lines if isinstance(given, tuple)] == records
    assert len(lines) == len(records)


@pytest.mark.req("R-168")
@round_trip
@given(records=st.lists(inquiries))
def test_inquiries_come_back_as_they_were_written(tmp_path: Path, records: list[InquiryRecord]) -> None:
    assert write_inquiries(tmp_path / "inquiries.csv", records) == []
    lines = list(read_inquiries(tmp_path / "inquiries.csv"))
    assert [given[1] for given in lines if isinstance(given, tuple)] == records
    assert len(lines) == len(records)


@pytest.mark.req("R-125", "R-173")
def test_a_file_of_fifty_thousand_residents_is_read_in_the_memory_of_a_few(tmp_path: Path) -> None:
    lines = [line(RESIDENT), *[b"malformed\r\n"] * 4] * 10_000
    path = file(tmp_path / "residents.csv", RESIDENT, *lines)
    list(read_residents(file(tmp_path / "first.csv", RESIDENT, line(RESIDENT))))
    tracemalloc.start()
    try:
        good = sum(isinstance(given, tuple) for given in read_residents(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert good == 10_000
    assert peak < 500_000


@pytest.mark.req("R-082", "R-084")
def test_the_columns_that_were_added_may_be_empty_or_missing_all_together(tmp_path: Path) -> None:
    full, empty = INQUIRY | ADDED, INQUIRY | dict.fromkeys(ADDED, "")
    path = file(tmp_path / "full.csv", full, line(full), line(empty))
    first, second = good(read_inquiries(path))
    assert (first.case_number, first.not_before) == ("令8-31号", "2026-11-21T18:00:00+09:00")
    assert (first.repeats, first.terminal, first.basis) == ("q-0", "窓口３", "19-9")
    assert (second.case_number, second.not_before, second.repeats, second.basis) == ("", "", "", "19-8")
    (older,) = good(read_inquiries(file(tmp_path / "older.csv", INQUIRY, line(INQUIRY))))
    assert older == second
    some = {**INQUIRY, "事案番号": "1"}
    (part,) = good(read_inquiries(file(tmp_path / "part.csv", some, line(some))))
    assert part.case_number == "1"
    assert write_inquiries(tmp_path / "again.csv", [first, second]) == []
    assert good(read_inquiries(tmp_path / "again.csv")) == [first, second]


@pytest.mark.parametrize(
    ("item", "value", "code"),
    [
        ("処理開始日時", "2026-11-21T18:00:00", "B-012"),
        ("処理開始日時", "tomorrow", "B-012"),
        ("根拠", "19-7", "B-005"),
        ("元の照会ID", "あ", "B-003"),
    ],
)
def test_a_fault_in_a_column_that_was_added_is_reported(
    tmp_path: Path, item: str, value: str, code: str
) -> None:
    cells = INQUIRY | ADDED
    path = file(tmp_path / "inquiries.csv", cells, line(cells, **{item: value}), line(cells))
    assert found(read_inquiries(path)) == [(2, item, code), (3, "", "")]


def test_a_header_without_a_column_that_is_not_new_is_refused(tmp_path: Path) -> None:
    cells = {name: cell for name, cell in (INQUIRY | ADDED).items() if name != "レイアウト"}
    assert found(read_inquiries(file(tmp_path / "x.csv", cells, line(cells)))) == [(1, "行", "B-001")]
    fewer = dict(list(INQUIRY.items())[:-1])
    assert found(read_inquiries(file(tmp_path / "y.csv", fewer, line(fewer)))) == [(1, "行", "B-001")]
