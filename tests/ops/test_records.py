"""`renkei records`: what article 23 wants recorded of an exchange, on both sides, and nothing besides."""

import re
import shutil
from collections.abc import Iterator
from csv import DictReader
from pathlib import Path

import pytest

from adapters.business.files import read_residents
from adapters.business.records import ErrorLine, ResidentRecord
from schemas.errors import entry
from schemas.items import layout
from schemas.law.necessity import necessary_items
from tests.ops.conftest import Finished
from tests.ops.folders import READER, copied, renkei
from tests.ops.town import ANSWERER, ASKER, Town

# Article 23(1) nos. 1 to 4 and (2) of the Act; article 47(1) of the ordinance, which refers to 40(2).
MATTERS = (
    ("法第23条第1項第1号", "Act art. 23(1)(i)", "情報照会者"),
    ("法第23条第1項第1号", "Act art. 23(1)(i)", "情報提供者"),
    ("法第23条第1項第2号", "Act art. 23(1)(ii)", "提供の求めの日時"),
    ("法第23条第1項第2号", "Act art. 23(1)(ii)", "提供の日時"),
    ("法第23条第1項第3号", "Act art. 23(1)(iii)", "情報の種類"),
    ("法第23条第1項第3号", "Act art. 23(1)(iii)", "情報の項目"),
    (
        "法第23条第1項第4号・命令第47条第1項第1号（第40条第2項第2号）",
        "Act art. 23(1)(iv); ordinance art. 47(1)(i), 40(2)(ii)",
        "事務をつかさどる組織",
    ),
    (
        "法第23条第1項第4号・命令第47条第1項第1号（第40条第2項第3号）",
        "Act art. 23(1)(iv); ordinance art. 47(1)(i), 40(2)(iii)",
        "情報照会者の処理する事務",
    ),
    (
        "法第23条第1項第4号・命令第47条第1項第2号",
        "Act art. 23(1)(iv); ordinance art. 47(1)(ii)",
        "法第21条第2項に掲げる場合（評価書の公表等の義務違反）",
    ),
    ("法第23条第2項", "Act art. 23(2)", "不開示情報"),
)
TIME = re.compile(r"\d{4}年\d{2}月\d{2}日 \d{2}時\d{2}分 JST\(\+09:00\)")
INCOME = layout("income_tax_certificate/1")


@pytest.fixture(scope="module")
def town(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Both cities of the demo at work again, without the network: a record needs nobody else."""
    folder = tmp_path_factory.mktemp("records") / "demo"
    town = Town(copied(finished.folder, folder))
    try:
        town.start(ASKER, ANSWERER)
        town.ready(ASKER, ANSWERER)
        yield town
        assert town.stop() == {ASKER: 0, ANSWERER: 0}
    finally:
        town.close()
        shutil.rmtree(folder)


def asked_about(town: Town, request: str, member: int = 0) -> dict[str, str]:
    """The person whom an inquiry of the demo was about, by the number that each city knows them by."""
    with (town.folder / "input" / "inquiries.csv").open(encoding="cp932", newline="") as lines:
        row = next(row for row in DictReader(lines) if row["照会ID"] == request)
    number = row["団体内統合宛名番号"].split(" ")[member]
    people = {
        code: {r.integrated_number: r.individual_number for r in residents(town.folder, code)}
        for code in (ASKER, ANSWERER)
    }
    individual = people[ASKER][number]
    found = {code: [n for n, i in known.items() if i == individual] for code, known in people.items()}
    return {code: numbers[0] for code, numbers in found.items() if numbers}


def residents(folder: Path, code: str) -> Iterator[ResidentRecord]:
    for line in read_residents(folder / "input" / f"residents-{code}.csv"):
        assert not isinstance(line, ErrorLine)
        yield line[1]


def records(town: Town, code: str, number: str) -> list[dict[str, str]]:
    """The records that the command prints of a person; each is checked to have the matters of the law."""
    result = renkei("records", "--config", town.config(code), "--resident", number, *READER)
    assert (result.returncode, result.stderr) == (0, "")
    title, *blocks = re.split(r"\n\[\d+-\d+\]\n", result.stdout)
    assert title.strip() == f"情報提供等の記録 {len(blocks)} 件 (provision records)"
    found = []
    for block in blocks:
        lines = block.splitlines()
        matters = []
        values = {}
        for japanese, english in zip(lines[::2], lines[1::2], strict=True):
            head, _, value = japanese.strip().partition(": ")
            reference, label = head.split("  ")
            reference_en, label_en = english.strip().split("  ")
            matters.append((reference, reference_en, label))
            values[label] = value
            assert label_en
        assert tuple(matters) == MATTERS
        found.append(values)
    return found


def common(row: str = "81") -> dict[str, str]:
    """What all inquiries of the demo under a row have in common."""
    names = {item.code: item.name_ja for item in INCOME.items}
    return {
        "情報照会者": "連携市",
        "情報提供者": "見本市",
        "情報の種類": f"地方税関係情報（{INCOME.name_ja}）",
        "情報の項目": "、".join(names[code] for code in necessary_items(row, INCOME)),
        "事務をつかさどる組織": "こども家庭課",
        "情報照会者の処理する事務": "児童扶養手当法による児童扶養手当の支給に関する事務",
        "法第21条第2項に掲げる場合（評価書の公表等の義務違反）": "該当する旨の記録なし",
        "不開示情報": "該当しない",
    }


@pytest.mark.req("R-147", "R-148", "R-149", "R-150", "R-153")
def test_an_answered_inquiry_is_recorded_alike_on_both_sides(town: Town) -> None:
    person = asked_about(town, "single-1")
    (here,) = records(town, ASKER, person[ASKER])
    (there,) = records(town, ANSWERER, person[ANSWERER])
    assert here == there
    assert here == here | common()
    assert TIME.fullmatch(here["提供の求めの日時"])
    assert TIME.fullmatch(here["提供の日時"])
    assert here["提供の求めの日時"] <= here["提供の日時"]
    assert "総所得額" in here["情報の項目"]


@pytest.mark.req("R-212")
def test_an_inquiry_about_a_household_is_in_the_record_of_each_member(town: Town) -> None:
    for member in range(3):
        person = asked_about(town, "household-2", member)
        (here,), (there,) = (records(town, code, person[code]) for code in (ASKER, ANSWERER))
        assert here == there
        assert TIME.fullmatch(here["提供の日時"])


@pytest.mark.req("R-154")
@pytest.mark.parametrize(("request_id", "code"), [("noyear-1", "I-204"), ("wrong-1", "I-202")])
def test_an_inquiry_that_the_provider_refused_is_recorded_on_both_sides_with_the_reason(
    request_id: str, code: str, town: Town
) -> None:
    person = asked_about(town, request_id)
    (here,), (there,) = (records(town, city, person[city]) for city in (ASKER, ANSWERER))
    assert here == there
    assert here == here | common()
    assert here["提供の日時"] == f"提供なし（{code} {entry(code).cause_ja}）"


@pytest.mark.req("R-154")
@pytest.mark.parametrize(
    ("request_id", "code"),
    [("unknown-1", "N-106"), ("nocode-1", "I-103"), ("staff-2", "I-102"), ("absent-1", "L-101")],
)
def test_an_inquiry_that_never_reached_a_provider_is_recorded_where_it_was_made(
    request_id: str, code: str, town: Town
) -> None:
    person = asked_about(town, request_id)
    (here,) = records(town, ASKER, person[ASKER])
    assert here["提供の日時"] == f"提供なし（{code} {entry(code).cause_ja}）"
    assert here["情報照会者"] == "連携市"
    assert TIME.fullmatch(here["提供の求めの日時"])
    if ANSWERER in person:
        assert records(town, ANSWERER, person[ANSWERER]) == []


@pytest.mark.req("R-102", "R-154")
def test_an_inquiry_that_waits_for_an_officer_is_open_on_both_sides(town: Town) -> None:
    person = asked_about(town, "protected-1")
    (here,), (there,) = (records(town, city, person[city]) for city in (ASKER, ANSWERER))
    assert here == here | common()
    # The inquirer must not learn that somebody is protected: to it the answer is merely late.
    assert here["提供の日時"] == "未提供（回答待ち）"
    assert there == here | {"提供の日時": "未提供（確認中）"}


def test_of_a_person_nobody_asked_about_there_is_no_record(town: Town) -> None:
    asked = re.findall(r"\d{15}", (town.folder / "input" / "inquiries.csv").read_text(encoding="cp932"))
    quiet = next(
        r.integrated_number for r in residents(town.folder, ASKER) if r.integrated_number not in asked
    )
    assert records(town, ASKER, quiet) == []


@pytest.mark.req("R-242")
def test_a_number_with_a_wrong_check_digit_is_refused(town: Town) -> None:
    number = asked_about(town, "single-1")[ASKER]
    wrong = number[:-1] + str((int(number[-1]) + 1) % 10)
    result = renkei("records", "--config", town.config(ASKER), "--resident", wrong, *READER)
    assert result.returncode == 1
    assert result.stdout == ""
    assert "A-102" in result.stderr
    assert entry("A-102").next_ja in result.stderr
    assert wrong not in result.stderr


def test_it_says_plainly_that_the_daemon_is_not_running(finished: Finished) -> None:
    number = next(residents(finished.folder, ASKER)).integrated_number
    result = renkei("records", "--config", finished.folder / f"{ASKER}.toml", "--resident", number, *READER)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"[S-106] {entry('S-106').cause_ja}")
    assert entry("S-106").next_ja in result.stderr
    assert number not in result.stderr
