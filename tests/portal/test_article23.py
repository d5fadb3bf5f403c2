"""A provision record, item by item of article 23."""

from dataclasses import replace

import pytest

from adapters.portal.article23 import Line, item_names, japanese_time, lines
from adapters.portal.cards import reason
from broker.intermediate.records import ProvisionRecord
from schemas.errors import codes, entry

ANSWERED = ProvisionRecord(
    position=7,
    exchange="inquiry/1",
    side="inquirer",
    inquirer_name="連携市",
    provider_name="見本市",
    requested_at="2026-11-20T14:05:10.000000+09:00",
    provided_at="2026-11-20T14:06:59.999999+09:00",
    information="地方税関係情報",
    layout="income_tax_certificate/1",
    items=("fiscal_year", "total_income"),
    office="福祉部子育て支援課",
    affair="児童扶養手当法による児童扶養手当の支給に関する事務",
    law_row="81",
    non_disclosure=False,
    refusal="",
    closed=True,
)
REFUSED = replace(ANSWERED, provided_at="", refusal="I-204")
OPEN = replace(ANSWERED, provided_at="", closed=False)


def line(record: ProvisionRecord, label_en: str) -> Line:
    found = [line for line in lines(record) if line.label_en == label_en]
    assert len(found) == 1
    return found[0]


@pytest.mark.req("R-147", "R-148", "R-149", "R-150", "R-151")
def test_exactly_the_items_of_the_law_in_their_order() -> None:
    office = "法第23条第1項第4号・命令第47条第1項第1号"
    assert [(line.reference_ja, line.label_ja, line.value) for line in lines(ANSWERED)] == [
        ("法第23条第1項第1号", "情報照会者", "連携市"),
        ("法第23条第1項第1号", "情報提供者", "見本市"),
        ("法第23条第1項第2号", "提供の求めの日時", "2026年11月20日 14時05分 JST(+09:00)"),
        ("法第23条第1項第2号", "提供の日時", "2026年11月20日 14時06分 JST(+09:00)"),
        ("法第23条第1項第3号", "情報の種類", "地方税関係情報（所得課税証明書情報）"),
        ("法第23条第1項第3号", "情報の項目", "相当年度、総所得額"),
        (f"{office}（第40条第2項第2号）", "事務をつかさどる組織", "福祉部子育て支援課"),
        (
            f"{office}（第40条第2項第3号）",
            "情報照会者の処理する事務",
            "児童扶養手当法による児童扶養手当の支給に関する事務",
        ),
        (
            "法第23条第1項第4号・命令第47条第1項第2号",
            "法第21条第2項に掲げる場合（評価書の公表等の義務違反）",
            "該当する旨の記録なし",
        ),
        ("法第23条第2項", "不開示情報", "該当しない"),
    ]


def test_every_line_says_it_in_english_too() -> None:
    assert all(line.reference_en and line.label_en.isascii() for line in lines(ANSWERED))


@pytest.mark.req("R-148")
def test_times_are_given_for_machines_too() -> None:
    assert line(ANSWERED, "Time of the request").instant == ANSWERED.requested_at
    assert line(ANSWERED, "Time of provision").instant == ANSWERED.provided_at


@pytest.mark.req("R-149")
def test_items_are_a_list_too() -> None:
    assert line(ANSWERED, "Items of information").parts == ("相当年度", "総所得額")


@pytest.mark.req("R-148", "R-154")
@pytest.mark.parametrize("code", codes())
def test_nothing_provided_says_why_in_the_words_of_the_catalogue(code: str) -> None:
    provided = line(replace(REFUSED, refusal=code), "Time of provision")
    assert provided.value == f"提供なし（{code} {entry(code).cause_ja}）"
    assert provided.instant == ""


def test_a_code_of_a_newer_catalogue_is_shown_as_it_is() -> None:
    assert "I-999" in line(replace(REFUSED, refusal="I-999"), "Time of provision").value


@pytest.mark.parametrize(
    ("side", "value"), [("inquirer", "未提供（回答待ち）"), ("provider", "未提供（確認中）")]
)
def test_what_is_open_is_not_called_refused(side: str, value: str) -> None:
    assert line(replace(OPEN, side=side), "Time of provision").value == value


@pytest.mark.req("R-150", "R-382")
@pytest.mark.parametrize("code", ["N-115", "L-114", "L-115"])
def test_that_an_assessment_was_not_published_is_said(code: str) -> None:
    found = line(replace(REFUSED, refusal=code), "Case of Act art. 21(2) (assessment not published)")
    assert found.value == "該当する"


@pytest.mark.req("R-151")
def test_non_disclosure_is_said() -> None:
    assert line(replace(ANSWERED, non_disclosure=True), "Non-disclosure").value == "該当する"


def test_what_was_not_recorded_says_so() -> None:
    bare = replace(
        REFUSED, provider_name="", office="", affair="", items=(), layout="", information="", requested_at=""
    )
    missing = [line.label_en for line in lines(bare) if line.value == "記録なし"]
    assert missing == [
        "Provider",
        "Time of the request",
        "Kind of information",
        "Items of information",
        "Office in charge",
        "Affair",
    ]


def test_items_that_no_layout_knows_stay_codes() -> None:
    assert item_names(replace(ANSWERED, items=("total_income", "shoe_size"))) == ("総所得額", "shoe_size")
    assert item_names(replace(ANSWERED, layout="shoes/1")) == ANSWERED.items
    assert (
        line(replace(ANSWERED, layout="shoes/1"), "Kind of information").value == "地方税関係情報（shoes/1）"
    )


@pytest.mark.parametrize(
    ("at", "text"),
    [
        ("2026-11-21T09:30:00.000000+09:00", "2026年11月21日 09時30分 JST(+09:00)"),
        ("2026-11-20T15:00:00+00:00", "2026年11月21日 00時00分 JST(+09:00)"),
        ("2026-11-21T09:30:00", "2026-11-21T09:30:00"),
        ("9999-12-31T23:59:00-01:00", "9999-12-31T23:59:00-01:00"),
        ("yesterday", "yesterday"),
    ],
)
def test_times_are_read_in_japan(at: str, text: str) -> None:
    assert japanese_time(at) == text


# What stops an inquiry without a record of it, or never stands in one.
NEVER = {
    *("I-105", "I-112", "I-113", "I-114", "I-212"),
    *(f"I-{number}" for number in (*range(121, 126), *range(127, 130))),
    *(f"I-{number}" for number in range(221, 228)),
    *(f"I-{number}" for number in range(232, 239)),
    *("I-241", "I-242", "I-243", "I-244", "I-246", "I-247", "I-249"),
    *(f"I-{number}" for number in range(251, 260)),
    *("L-123", "L-124"),
    *("N-116", "N-117", "N-118", "N-121", "N-122", "N-201", "N-202"),
}


@pytest.mark.parametrize("code", [code for code in codes() if code[0] in "ILN" and code not in NEVER])
def test_the_resident_gets_a_reason_of_its_own_for_every_code_of_an_exchange(code: str) -> None:
    assert reason(code) != reason("I-999")


def test_a_reason_belongs_to_a_code_that_exists() -> None:
    from adapters.portal.cards import _reasons

    assert set(_reasons()) - {"-"} <= set(codes())
