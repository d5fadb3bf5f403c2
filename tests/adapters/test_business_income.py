"""The fixed-length file of income: bytes in their places, a trailer that vouches for the count."""

import dataclasses
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.business.income import LAYOUT, read_income, write_income
from adapters.business.records import ErrorLine, ReplicaRecord
from ops.synthetic import income_of, make_people, residents_of
from schemas.codes import code_list

RECORDS = income_of(residents_of(make_people(3, 40), "990019", "連携市", 3), "2025", 3)
NUMBER = RECORDS[0].integrated_number
AMOUNTS = {
    "annual_tax": "118000",
    "municipal_per_capita_levy": "3000",
    "municipal_income_levy": "68400",
    "prefectural_tax": "46600",
    "taxable_total_income": "1140000",
    "total_income": "2950000",
    "futures_income": "-204000",
    "medical_expense_deduction": "85000",
}
# As the format is agreed, by hand: number 15, year 4, 20 signed amounts of 14, and three codes of 1.
LINE = (
    NUMBER
    + "2025"
    + " 0000000118000 0000000003000 0000000068400 0000000046600 0000001140000 0000002950000"
    + " 0000000000000" * 6
    + "-0000000204000"
    + " 0000000000000" * 3
    + " 0000000085000"
    + " 0000000000000" * 3
    + "102"
).encode()


def place(code: str) -> slice:
    start = 15
    for item in LAYOUT.leaves:
        width = 14 if item.type == "S9" else item.digits or 0
        if item.code == code:
            return slice(start, start + width)
        start += width
    raise AssertionError(code)


def with_field(code: str, value: bytes) -> bytes:
    where = place(code)
    assert len(value) == where.stop - where.start
    return LINE[: where.start] + value + LINE[where.stop :]


def file(path: Path, *lines: bytes, trailer: bytes | None = None) -> Path:
    last = b"T%09d" % len(lines) if trailer is None else trailer
    path.write_bytes(b"".join(line + b"\r\n" for line in (*lines, last)))
    return path


def found(path: Path) -> list[tuple[int, str, str]]:
    return [
        (line.line, line.item, line.code) if isinstance(line, ErrorLine) else (line[0], "", "")
        for line in read_income(path)
    ]


@pytest.mark.req("R-125", "R-164", "R-169")
def test_each_field_is_read_from_its_place(tmp_path: Path) -> None:
    ((number, record),) = [
        line for line in read_income(file(tmp_path / "income.txt", LINE)) if isinstance(line, tuple)
    ]
    codes = {"spouse_category": "1", "disability_category": "0", "widow_category": "2"}
    zeros = {item.code: "0" for item in LAYOUT.leaves if item.type == "S9"}
    assert (number, record) == (
        1,
        ReplicaRecord(
            NUMBER, "income_tax_certificate/1", "2025", {"fiscal_year": "2025"} | zeros | AMOUNTS | codes
        ),
    )


@pytest.mark.req("R-164", "R-168")
def test_a_record_is_written_in_the_agreed_bytes(tmp_path: Path) -> None:
    (line,) = read_income(file(tmp_path / "income.txt", LINE))
    assert isinstance(line, tuple)
    assert write_income(tmp_path / "again.txt", [line[1]]) == []
    assert (tmp_path / "again.txt").read_bytes() == LINE + b"\r\nT000000001\r\n"


def test_a_plus_sign_and_a_negative_zero_are_plain_numbers(tmp_path: Path) -> None:
    lines = [with_field("annual_tax", sign + b"0000000000000") for sign in (b"+", b"-")]
    for line in read_income(file(tmp_path / "income.txt", *lines)):
        assert isinstance(line, tuple)
        assert line[1].payload["annual_tax"] == "0"


@pytest.mark.req("R-169", "R-176")
@pytest.mark.parametrize(
    ("bad", "item", "code"),
    [
        (LINE[:-1], "行", "B-001"),
        (LINE + b" ", "行", "B-001"),
        (b"", "行", "B-001"),
        (b"T00000001", "行", "B-001"),
        (b" " * 15 + LINE[15:], "団体内統合宛名番号", "B-002"),
        (b"X" * 15 + LINE[15:], "団体内統合宛名番号", "B-003"),
        (NUMBER[:12].encode().ljust(15) + LINE[15:], "団体内統合宛名番号", "B-004"),
        (b"123456789012345" + LINE[15:], "団体内統合宛名番号", "B-006"),
        (b"\xff" * 15 + LINE[15:], "団体内統合宛名番号", "B-009"),
        (with_field("fiscal_year", b"    "), "相当年度", "B-002"),
        (with_field("fiscal_year", b"20X5"), "相当年度", "B-003"),
        (with_field("fiscal_year", b"225 "), "相当年度", "B-004"),
        (with_field("total_income", b" " * 14), "総所得額", "B-002"),
        (with_field("total_income", b"       2950000"), "総所得額", "B-003"),
        (with_field("total_income", b" 0000002950000"[1:] + b" "), "総所得額", "B-003"),
        (with_field("total_income", b" 000000295000X"), "総所得額", "B-003"),
        (with_field("total_income", "総所得額です六".encode("cp932")), "総所得額", "B-003"),
        (with_field("total_income", b" 000000295\xff000"), "総所得額", "B-009"),
        (with_field("spouse_category", b" "), "控除対象配偶者区分", "B-002"),
        (with_field("spouse_category", b"9"), "控除対象配偶者区分", "B-005"),
    ],
)
def test_a_fault_names_its_item_and_the_other_records_go_on(
    tmp_path: Path, bad: bytes, item: str, code: str
) -> None:
    assert found(file(tmp_path / "income.txt", LINE, bad, LINE)) == [
        (1, "", ""),
        (2, item, code),
        (3, "", ""),
    ]


def test_every_fault_of_a_record_is_reported_in_the_order_of_the_layout(tmp_path: Path) -> None:
    bad = bytearray(LINE)
    bad[place("widow_category")] = b"7"
    bad[place("annual_tax")] = b" " * 14
    bad[:15] = b"123456789012345"
    assert found(file(tmp_path / "income.txt", bytes(bad))) == [
        (1, "団体内統合宛名番号", "B-006"),
        (1, "年税額", "B-002"),
        (1, "本人寡婦区分", "B-005"),
    ]


@pytest.mark.req("R-125")
def test_a_file_cut_off_before_its_trailer_is_noticed_after_its_records(tmp_path: Path) -> None:
    path = tmp_path / "income.txt"
    path.write_bytes((LINE + b"\r\n") * 2)
    assert found(path) == [(1, "", ""), (2, "", ""), (3, "終了行", "B-001")]


def test_an_empty_file_has_no_trailer(tmp_path: Path) -> None:
    (tmp_path / "income.txt").write_bytes(b"")
    assert found(tmp_path / "income.txt") == [(1, "終了行", "B-001")]


def test_a_file_of_a_trailer_alone_is_a_file_of_nobody(tmp_path: Path) -> None:
    assert found(file(tmp_path / "income.txt")) == []


@pytest.mark.parametrize("announced", [b"T000000001", b"T000000003"])
def test_a_wrong_count_is_noticed_after_the_records(tmp_path: Path, announced: bytes) -> None:
    path = file(tmp_path / "income.txt", LINE, LINE, trailer=announced)
    assert found(path) == [(1, "", ""), (2, "", ""), (3, "終了行", "B-011")]


def test_the_trailer_counts_bad_records_too(tmp_path: Path) -> None:
    assert found(file(tmp_path / "income.txt", LINE, b"?")) == [(1, "", ""), (2, "行", "B-001")]


def test_what_follows_the_trailer_is_not_taken_in(tmp_path: Path) -> None:
    path = file(tmp_path / "income.txt", LINE, b"T000000001", LINE)
    assert found(path)[:3] == [(1, "", ""), (3, "行", "B-001"), (4, "行", "B-001")]


@pytest.mark.parametrize(
    ("changed", "item", "code"),
    [
        ({"total_income": "12345678901234"}, "総所得額", "B-004"),
        ({"total_income": "many"}, "総所得額", "B-003"),
        ({"spouse_category": "9"}, "控除対象配偶者区分", "B-005"),
        ({"total_income": ""}, "総所得額", "B-002"),
        ({"shoe_size": "27"}, "行", "B-010"),
    ],
)
def test_a_record_that_does_not_fit_is_reported_and_the_others_are_written(
    tmp_path: Path, changed: dict[str, str], item: str, code: str
) -> None:
    bad = dataclasses.replace(RECORDS[1], payload={**RECORDS[1].payload, **changed})
    faults = write_income(tmp_path / "income.txt", [RECORDS[0], bad, RECORDS[2]])
    assert [(fault.line, fault.item, fault.code) for fault in faults] == [(2, item, code)]
    assert [line[1] for line in read_income(tmp_path / "income.txt") if isinstance(line, tuple)] == [
        RECORDS[0],
        RECORDS[2],
    ]
    assert len(list(read_income(tmp_path / "income.txt"))) == 2


def test_a_year_or_number_that_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    faulty = [
        dataclasses.replace(RECORDS[0], fiscal_year="ﾚｲﾜ7"),
        dataclasses.replace(RECORDS[0], integrated_number="1"),
    ]
    faults = write_income(tmp_path / "income.txt", faulty)
    assert [(fault.line, fault.code) for fault in faults] == [(1, "B-003"), (2, "B-004")]
    assert (tmp_path / "income.txt").read_bytes() == b"T000000000\r\n"


def test_a_record_of_another_layout_is_the_callers_error_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="resident_record/1"):
        write_income(
            tmp_path / "income.txt", [dataclasses.replace(RECORDS[0], layout_key="resident_record/1")]
        )
    assert list(tmp_path.iterdir()) == []


amounts = st.integers(-(10**13) + 1, 10**13 - 1).map(str)
payloads = st.fixed_dictionaries(
    {
        item.code: st.sampled_from([code.value for code in code_list(item.code_list).codes])
        if item.code_list
        else amounts
        for item in LAYOUT.leaves
        if item.code != "fiscal_year"
    }
)


@pytest.mark.req("R-164", "R-168")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(payloads, max_size=5), st.from_regex("[0-9]{4}", fullmatch=True))
def test_records_come_back_as_they_were_written(
    tmp_path: Path, given_payloads: list[dict[str, str]], year: str
) -> None:
    records = [
        ReplicaRecord(NUMBER, LAYOUT.key, year, {**payload, "fiscal_year": year})
        for payload in given_payloads
    ]
    assert write_income(tmp_path / "income.txt", records) == []
    lines = list(read_income(tmp_path / "income.txt"))
    assert lines == list(enumerate(records, start=1))


def test_no_item_shows_in_the_repr_of_a_replica_record() -> None:
    record = ReplicaRecord(NUMBER, LAYOUT.key, "2025", {"total_income": "2950000"})
    assert "2950000" not in repr(record)
    assert NUMBER in repr(record)


@pytest.mark.req("R-125", "R-173")
def test_a_file_of_fifty_thousand_records_is_read_in_the_memory_of_a_few(tmp_path: Path) -> None:
    path = file(tmp_path / "income.txt", *[LINE, *[b"short"] * 9] * 5_000)
    list(read_income(file(tmp_path / "first.txt", LINE)))
    tracemalloc.start()
    try:
        good = sum(isinstance(line, tuple) for line in read_income(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert good == 5_000
    assert peak < 500_000
