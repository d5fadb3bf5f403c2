"""Nothing is asked for or provided on a file whose assessment is not published."""

from datetime import date

import pytest

from schemas.errors import Refusal, entry
from schemas.law.assessments import (
    EXEMPTIONS,
    Assessment,
    Assessments,
    read_assessments,
)
from schemas.law.lines import cells, joined

CITY, OTHER = "990019", "990027"
TAX, RESIDENT = "地方税関係情報", "住民票関係情報"
DAY = date(2026, 7, 15)
TEXT = """# 公表された評価書（架空）
assessment	990019	allowance	児童扶養手当ファイル		81|82		2026-07-01	9999-12-31
assessment	990019	medical	子ども医療費ファイル		child_medical		2026-07-20	9999-12-31
assessment	990027	tax	個人住民税ファイル		1	地方税関係情報	2026-04-01	2026-12-31
assessment	990027	tax	個人住民税ファイル		1	地方税関係情報	2027-02-01	9999-12-31
assessment	990027	register	住民基本台帳ファイル	under_1000		住民票関係情報	2026-04-01	9999-12-31
"""
FOUND, FAULTS = read_assessments(TEXT)
KNOWN = Assessments(FOUND)


def flows(affair: str, information: str, day: date, inquirer: str = CITY, provider: str = OTHER) -> str:
    refusal = KNOWN.refuse(inquirer, provider, affair, information, day)
    return "" if refusal is None else f"{refusal.code} {refusal.detail}"


@pytest.mark.req("R-381", "R-382")
def test_an_inquiry_rests_on_a_published_assessment_of_either_side() -> None:
    assert FAULTS == ()
    assert flows("81", TAX, DAY) == ""
    assert flows("82", TAX, DAY) == ""
    # The inquirer's file: not yet published, none for the affair, none at all.
    assert flows("81", TAX, date(2026, 6, 30)) == "L-114 inquirer"
    assert flows("child_medical", TAX, date(2026, 7, 19)) == "L-114 inquirer"
    assert flows("child_medical", TAX, date(2026, 7, 20)) == ""
    assert flows("106", TAX, DAY) == "L-114 inquirer"
    assert flows("81", TAX, DAY, inquirer="990035") == "L-114 inquirer"
    # The provider's file: withdrawn, published anew, none for the information, none at all.
    assert flows("81", TAX, date(2026, 12, 31)) == ""
    assert flows("81", TAX, date(2027, 1, 15)) == "L-115 provider"
    assert flows("81", TAX, date(2027, 2, 1)) == ""
    assert flows("81", "戸籍関係情報", DAY) == "L-115 provider"
    assert flows("81", TAX, DAY, provider="990035") == "L-115 provider"


@pytest.mark.req("R-382")
def test_an_assessment_of_the_one_side_is_none_of_the_other() -> None:
    """A file that provides tax information does not let its agency ask for it, nor the other way round."""
    assert isinstance(KNOWN.for_provision(OTHER, TAX, DAY), Assessment)
    assert KNOWN.for_provision(CITY, TAX, DAY) == Refusal("L-115", "provider")
    assert isinstance(KNOWN.for_inquiry(OTHER, "1", DAY), Assessment)
    assert KNOWN.for_inquiry(OTHER, "81", DAY) == Refusal("L-114", "inquirer")


@pytest.mark.req("R-382")
def test_without_any_assessment_nothing_flows() -> None:
    assert Assessments().refuse(CITY, OTHER, "81", TAX, DAY) == Refusal("L-114", "inquirer")
    assert entry("N-115").actor == "network_operator"


@pytest.mark.req("R-385")
def test_an_exempt_file_says_why_and_needs_no_publication() -> None:
    assert EXEMPTIONS == ("personnel_only", "paper_only", "under_1000")
    assert flows("81", RESIDENT, DAY) == ""


BAD = [
    ("file\t990019\ta\tb\t\t81\t\t2026-07-01\t9999-12-31", "table", "B-001"),
    ("assessment\t990019\ta\tb\t81\t\t2026-07-01\t9999-12-31", "", "B-001"),
    ("assessment\t\ta\tb\t\t81\t\t2026-07-01\t9999-12-31", "agency", "B-002"),
    ("assessment\t990019\ta\tb\t\t\t\t2026-07-01\t9999-12-31", "affairs", "B-002"),
    ("assessment\t990019\ta\tb\t\t81\t謎の情報\t2026-07-01\t9999-12-31", "information", "I-213"),
    ("assessment\t990019\ta\tb\t\t81\t\t\t9999-12-31", "published_on", "B-002"),
    ("assessment\t990019\ta\tb\t\t81\t\t2026-07-32\t9999-12-31", "published_on", "B-012"),
    ("assessment\t990019\ta\tb\t\t81\t\t2026-07-01\t2026-06-01", "withdrawn_on", "B-012"),
    ("assessment\t990019\ta\tb\tsmall\t81\t\t2026-07-01\t9999-12-31", "exempt", "B-005"),
    ("assessment\t990019\tgood\tanother\t\t81\t\t2026-07-01\t9999-12-31", "file_id", "B-001"),
]


@pytest.mark.req("R-382")
def test_the_good_lines_travel_as_cells_and_are_read_again() -> None:
    text = TEXT + "assessment\tbad\n"
    found, faults = read_assessments(text)
    assert len(faults) == 1
    assert found == FOUND == read_assessments(joined(cells(text, faults)))[0]


def test_bad_lines_are_named_and_the_good_ones_go_on() -> None:
    good = "assessment\t990019\tgood\tb\t\t81\t\t2026-07-01\t9999-12-31"
    found, faults = read_assessments("\n".join([good, *(line for line, _, _ in BAD)]))
    assert [line.file_id for line in found] == ["good"]
    assert [(fault.line, fault.item, fault.code) for fault in faults] == [
        (number, item, code) for number, (_, item, code) in enumerate(BAD, start=2)
    ]
