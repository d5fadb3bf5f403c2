"""Layouts hold what the sources list, and a payload that does not fit is told every fault."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import items
from schemas.codes import code_list
from schemas.items import Fault, Item, Layout, layout, layouts, validate
from schemas.law import tables

INCOME = layout("income_tax_certificate/1")


def income(**changes: object) -> dict[str, object]:
    """A payload that fits, with changes; a change to None leaves the item out."""
    payload: dict[str, object] = {
        item.code: "0" if item.type == "S9" else "1" for item in INCOME.leaves if item.code != "fiscal_year"
    }
    payload["fiscal_year"] = "2026"
    payload.update(changes)
    return {code: value for code, value in payload.items() if value is not None}


def one_item(type_: str, digits: int | None = None) -> Layout:
    item = Item("thing", "もの", None, 0, type_, digits, 1, 1, None)
    return Layout("probe", 1, "試験", "試験情報", (item,))


def codes_of(faults: list[Fault]) -> list[tuple[str, str]]:
    return [(fault.item, fault.code) for fault in faults]


@pytest.mark.req("R-046")
def test_the_income_certificate_holds_the_items_of_the_study_in_its_order() -> None:
    assert [item.name_ja for item in INCOME.leaves] == [
        "相当年度",
        "年税額",
        "市区町村民税均等割額",
        "市区町村民税所得割額",
        "都道府県民税額情報",
        "課税総所得額等",
        "総所得額",
        "免税対象肉用牛所得",
        "分離短期土地等事業・雑所得額",
        "分離短期譲渡一般所得額",
        "分離長期譲渡一般所得額",
        "山林所得額",
        "分離退職所得額",
        "先物取引所得額",
        "条約適用利子等所得額",
        "条約適用配当等所得額",
        "雑損控除額",
        "医療費控除額",
        "小規模企業共済掛金控除額",
        "生命保険住民税控除額",
        "配偶者特別控除額",
        "控除対象配偶者区分",
        "本人障害区分",
        "本人寡婦区分",
    ]
    amounts = {(item.type, item.digits) for item in INCOME.leaves if item.code_list is None}
    assert amounts == {("X", 4), ("S9", 13)}
    assert {item.digits for item in INCOME.leaves if item.code_list} == {1}
    assert INCOME.item("municipal_income_levy").parent == "municipal_tax"


@pytest.mark.req("R-064")
def test_every_layout_carries_information_that_the_law_table_names() -> None:
    named = {name for table in tables() for row in table.rows for name in row.information}
    assert {found.information for found in layouts()} <= named


@pytest.mark.req("R-086", "R-087")
def test_no_layout_exchanges_a_name_a_birth_date_an_address_or_a_number() -> None:
    forbidden = ("氏名", "住所", "生年月日", "電話", "個人番号", "宛名番号", "住民票コード")
    for found in layouts():
        assert not [item.name_ja for item in found.items if any(word in item.name_ja for word in forbidden)]


@pytest.mark.req("R-046")
def test_every_item_is_defined_to_its_digits_and_codes() -> None:
    for found in layouts():
        for item in found.items:
            assert 0 <= item.min_occurs <= item.max_occurs
            assert item.level == (0 if item.parent is None else found.item(item.parent).level + 1)
            assert (item.digits is None) == (item.type in ("DATE", "GROUP")), item.code
            if item.code_list:
                lengths = [len(code.value) for code in code_list(item.code_list).codes]
                assert item.digits == max(lengths), item.code


def test_every_item_file_belongs_to_a_layout() -> None:
    folder = Path(__file__).parents[2] / "schemas/items"
    files = {path.name for path in folder.glob("*.tsv")} - {"layouts.tsv"}
    assert files == {f"{found.id}_{found.version}.tsv" for found in layouts()}


def test_a_layout_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="no such layout"):
        layout("income_tax_certificate/2")


@given(st.integers(min_value=-(10**13) + 1, max_value=10**13 - 1))
def test_any_amount_of_thirteen_digits_fits_with_or_without_a_minus(amount: int) -> None:
    assert validate(INCOME, income(total_income=str(amount))) == []


def test_every_fault_is_reported_and_not_only_the_first() -> None:
    payload = income(
        annual_tax=None,
        total_income="-12345678901234",
        forestry_income="一万",
        spouse_category="7",
        futures_income="",
        widow_category=["0", "1"],
        person="1",
        name="x",
    )
    assert codes_of(validate(INCOME, payload)) == [
        ("annual_tax", "B-002"),
        ("total_income", "B-004"),
        ("forestry_income", "B-003"),
        ("futures_income", "B-002"),
        ("spouse_category", "B-005"),
        ("widow_category", "B-011"),
        ("person", "B-010"),
        ("name", "B-010"),
    ]


@pytest.mark.req("R-084", "R-087")
def test_only_asked_items_may_appear_and_only_they_must() -> None:
    asked = ["fiscal_year", "total_income"]
    assert validate(INCOME, {"fiscal_year": "2026", "total_income": "0"}, asked) == []
    assert codes_of(validate(INCOME, {"fiscal_year": "2026", "annual_tax": "0"}, asked)) == [
        ("annual_tax", "B-010"),
        ("total_income", "B-002"),
    ]


def test_asking_for_an_item_that_the_layout_does_not_have_is_a_fault() -> None:
    asked = ["fiscal_year", "blood_group"]
    assert codes_of(validate(INCOME, {"fiscal_year": "2026"}, asked)) == [("blood_group", "B-010")]


def test_reasons_repeat_neither_values_nor_foreign_item_names() -> None:
    number_of_somebody = "621498320257"
    payload = income(
        total_income=number_of_somebody + "99",
        fiscal_year=number_of_somebody,
        spouse_category=number_of_somebody,
        **{number_of_somebody: number_of_somebody},
    )
    faults = validate(INCOME, payload)
    assert codes_of(faults) == [
        ("fiscal_year", "B-004"),
        ("total_income", "B-004"),
        ("spouse_category", "B-004"),
        ("-", "B-010"),
    ]
    assert number_of_somebody not in repr(faults)


@pytest.mark.parametrize(
    ("type_", "value", "code"),
    [
        ("X", "A ｱﾞ~", None),
        ("X", "Ａ", "B-003"),
        ("X", "A\n", "B-003"),
        ("X", "é", "B-003"),
        ("N", "連携　Ａ１", None),
        ("N", "連携A", "B-003"),
        ("N", "ﾚﾝｹｲ", "B-003"),
        ("N", "連\u00ad携", "B-003"),
        ("9", "012", None),
        ("9", "-1", "B-003"),
        ("9", "１", "B-003"),
        ("9", "1\n", "B-003"),
        ("S9", "-1", None),
        ("S9", "+1", "B-003"),
        ("S9", "1-", "B-003"),
        ("S9", "-", "B-003"),
        ("S9", 5, "B-003"),
        ("S9", None, "B-003"),
        ("DATE", "2024-02-29", None),
        ("DATE", "2026-02-29", "B-012"),
        ("DATE", "2026-13-01", "B-012"),
        ("DATE", "0000-01-01", None),
        ("DATE", "0000-01-02", "B-012"),
        ("DATE", "9999-12-31", None),
        ("DATE", "20260229", "B-003"),
        ("DATE", "2026-2-9", "B-003"),
    ],
)
def test_types(type_: str, value: object, code: str | None) -> None:
    found = validate(one_item(type_, 9), {"thing": value})
    assert [fault.code for fault in found] == ([] if code is None else [code])


@given(st.text(alphabet="連携𠮷邉Ａ　", min_size=1, max_size=8), st.booleans())
def test_digits_count_characters_not_bytes_nor_utf16_units(text: str, with_selector: bool) -> None:
    value = text + "\U000e0101" if with_selector else text
    assert validate(one_item("N", len(text)), {"thing": value}) == []
    assert codes_of(validate(one_item("N", len(text)), {"thing": value + "字"})) == [("thing", "B-004")]


@given(st.text(alphabet="ｱﾞ1a-", max_size=12), st.sampled_from(["X", "9", "S9", "N", "DATE"]))
def test_any_text_gets_a_verdict_of_at_most_one_fault(value: str, type_: str) -> None:
    assert len(validate(one_item(type_, 5), {"thing": value})) <= 1


def pension(**changes: object) -> dict[str, object]:
    payload: dict[str, object] = {
        "pension_receipt": "1",
        "pension_type": ["11", "31"],
        "pension_start_month": ["201904", "202010"],
        "pension_annual_amount": ["780900", "1020000"],
    }
    payload.update(changes)
    return payload


def test_a_repeating_group_carries_its_items_side_by_side() -> None:
    benefit = layout("pension_benefit/1")
    assert validate(benefit, pension()) == []
    assert validate(benefit, {"pension_receipt": "0"}) == []
    assert codes_of(validate(benefit, pension(pension_type=["11"]))) == [("pension", "B-011")]


def test_a_repeating_item_takes_a_list_no_longer_than_its_occurrences() -> None:
    benefit = layout("pension_benefit/1")
    asked = ["pension_type"]
    assert codes_of(validate(benefit, {"pension_type": "11"}, asked)) == [("pension_type", "B-003")]
    assert codes_of(validate(benefit, {"pension_type": ["11"] * 6}, asked)) == [("pension_type", "B-011")]
    assert codes_of(validate(benefit, {"pension_type": ["11", "xx"]}, asked)) == [("pension_type", "B-005")]


@pytest.mark.parametrize(
    ("key", "payload"),
    [
        (
            "resident_record/1",
            {
                "household_relation": "06",
                "household_member_count": "3",
                "entered_on": "2019-04-01",
                "entry_ended_on": "9999-12-31",
                "entry_end_reason": "0",
            },
        ),
        (
            "disability_record/1",
            {
                "handbook_type": ["1"],
                "handbook_grade": ["2"],
                "handbook_issued_on": ["2020-01-15"],
                "handbook_valid_until": ["9999-12-31"],
            },
        ),
    ],
)
def test_the_other_layouts_take_what_they_are_for(key: str, payload: dict[str, object]) -> None:
    assert validate(layout(key), payload) == []
    assert validate(layout(key), payload | {"full_name": "連携　太郎"}) == [
        Fault("full_name", "B-010", f"様式 {key} にない項目です")
    ]


def test_what_is_full_width_at_a_look_is_so_letter_by_letter() -> None:
    for code in range(0x110000):
        letter = chr(code)
        if items._COMMON.fullmatch(letter):
            assert unicodedata.east_asian_width(letter) in ("W", "F", "A"), hex(code)
            assert unicodedata.category(letter) not in ("Cc", "Cf", "Cs"), hex(code)
            assert not items._VARIATION_SELECTOR.fullmatch(letter), hex(code)
