"""What ordinances let an office do, day by day; the agencies and ordinances are made up."""

from datetime import date

import pytest

from schemas.errors import Refusal, entry
from schemas.law import KINDS, Agency, table_at, tables
from schemas.law.judgement import ORDINANCE, STATUTORY, affair_of, judge
from schemas.law.lines import LineFault, cells
from schemas.law.ordinances import (
    FIELDS,
    Charge,
    IndependentUse,
    InternalUse,
    NotNeeded,
    OrdinanceInquiry,
    Ordinances,
    StatutoryUse,
    Transfer,
    charge_of,
    may_decline,
    ordinances_of,
    permits_ordinance_inquiry,
    permits_transfer,
    permits_use,
    read_ordinances,
)

CITY = Agency("990019", "連携市", "city")
OTHER = Agency("990027", "見本市", "city")
INSURER = Agency("990035", "見本健康保険組合", "health_insurance_society")
DAY = date(2026, 7, 15)
TABLE = table_at(DAY)
TAX, RESIDENT, MEDICAL = "地方税関係情報", "住民票関係情報", "医療保険給付関係情報"
RENKEI = """# 連携市の条例（架空）
use	市長	child_medical	medical	子ども医療費助成の支給に関する事務	条例第一号	2026-07-01	9999-12-31
use	市長	winter_fuel	welfare	福祉灯油条例による助成金の支給に関する事務	条例第二号	2026-07-01	2026-09-30
use	市教育委員会	school_lunch	other	給食費の減免に関する事務	条例第一号	2026-07-01	9999-12-31

statutory	市長	条例第一号	2026-07-01	9999-12-31
internal	市長	child_medical	地方税関係情報	条例第一号	2026-07-01	2026-12-31
internal	市長	child_medical	市独自の貸付けに関する情報	条例第一号	2026-07-01	9999-12-31
internal	市長	winter_fuel	地方税関係情報	条例第二号	2026-07-01	9999-12-31
transfer	市教育委員会	school_lunch	市長	地方税関係情報	条例第一号	2026-07-01	2027-03-31
inquiry	市長	child_medical	13	医療保険給付関係情報	規則第五号	2026-07-10	2027-06-30
inquiry	市長	child_medical	81	地方税関係情報	規則第五号	2026-07-10	2027-06-30
charge	81	児童扶養手当	こども家庭課	2026-07-01	9999-12-31
charge	child_medical	子ども医療費助成	保険年金課	2026-07-01	9999-12-31
"""
MIHON = """limit	住民票関係情報	条例第九号	2026-06-01	2026-06-26	9999-12-31
limit	地方税関係情報	条例第九号	2026-07-20	2026-06-26	9999-12-31
"""


def read(agency: Agency, text: str) -> Ordinances:
    found, faults = read_ordinances(agency, text, tables())
    assert faults == ()
    return found


OWN = read(CITY, RENKEI)
THEIRS = read(OTHER, MIHON)


def use(organ: str, task: str, information: str = "", day: date = DAY, *others: Agency) -> object:
    return permits_use(OWN, organ, task, day, TABLE, information, others)


@pytest.mark.req("R-369", "R-375", "R-441", "R-443")
def test_numbers_are_used_for_the_tasks_of_the_ordinance_by_its_organ_and_in_its_time() -> None:
    line = use("市長", "child_medical")
    assert isinstance(line, IndependentUse)
    assert (line.field, line.ordinance) == ("medical", "条例第一号")
    refused = Refusal("L-111", "use")
    assert use("市教育委員会", "child_medical") == refused
    assert use("市長", "dog_licence") == refused
    assert use("市長", "child_medical", day=date(2026, 6, 30)) == refused
    for day, allowed in ((date(2026, 7, 1), True), (date(2026, 9, 30), True), (date(2026, 10, 1), False)):
        assert isinstance(use("市長", "winter_fuel", day=day), IndependentUse) == allowed
    # A row of the law table needs no ordinance; one of which this agency is no inquirer is not its task.
    assert use("市長", "81") == NotNeeded()
    assert use("市長", "1") == refused


@pytest.mark.req("R-370")
def test_an_organ_uses_what_it_holds_for_the_rows_of_the_law_table() -> None:
    assert isinstance(use("市長", "81", TAX), StatutoryUse)
    assert use("市教育委員会", "81", TAX) == Refusal("L-111", "information")
    assert use("市長", "81", MEDICAL) == Refusal("L-111", "information")
    assert use("市長", "1", TAX) == Refusal("L-111", "information")
    assert use("市長", "81", TAX, date(2026, 6, 30)) == Refusal("L-111", "information")


@pytest.mark.req("R-371", "R-378")
def test_an_organ_uses_what_it_holds_for_its_own_tasks_line_by_line() -> None:
    assert isinstance(use("市長", "child_medical", TAX), InternalUse)
    assert use("市長", "child_medical", RESIDENT) == Refusal("L-111", "information")
    assert use("市長", "child_medical", TAX, date(2027, 1, 1)) == Refusal("L-111", "information")
    # The task itself has ended, though the line for its information goes on.
    assert isinstance(use("市長", "winter_fuel", TAX), InternalUse)
    assert use("市長", "winter_fuel", TAX, date(2026, 10, 1)) == Refusal("L-111", "information")


@pytest.mark.req("R-372")
def test_internal_use_is_barred_where_the_network_serves_the_same() -> None:
    barred = Refusal("I-212", "information")
    # Somebody who moved in: the other city holds the tax information too, and row 81 gives it.
    assert use("市長", "81", TAX, DAY, OTHER) == barred
    # The task of the ordinance may ask over the network as well, so the same holds for it; but not before.
    assert use("市長", "child_medical", TAX, DAY, OTHER) == barred
    assert isinstance(use("市長", "child_medical", TAX, date(2026, 7, 9), OTHER), InternalUse)
    # Nobody else holds it; the other may not give it; the network does not know it.
    assert isinstance(use("市長", "81", TAX, DAY, CITY), StatutoryUse)
    assert isinstance(use("市長", "81", TAX, DAY, INSURER), StatutoryUse)
    assert isinstance(use("市長", "child_medical", "市独自の貸付けに関する情報", DAY, OTHER), InternalUse)
    # What no line permits is not permitted by the network's serving it either.
    assert use("市長", "child_medical", MEDICAL, DAY, INSURER) == Refusal("L-111", "information")


@pytest.mark.req("R-374")
def test_what_uses_no_individual_number_needs_no_ordinance() -> None:
    for task, information in (("dog_licence", ""), ("dog_licence", TAX), ("81", TAX)):
        found = permits_use(
            Ordinances(CITY), "市長", task, DAY, TABLE, information, (OTHER,), with_number=False
        )
        assert found == NotNeeded()


@pytest.mark.req("R-373", "R-378")
def test_one_organ_provides_to_another_only_what_the_ordinance_names() -> None:
    def given(organ: str, task: str, holder: str, information: str, day: date = DAY) -> bool:
        found = permits_transfer(OWN, organ, task, holder, information, day)
        assert isinstance(found, Transfer) or found == Refusal("L-112", "transfer")
        return isinstance(found, Transfer)

    assert given("市教育委員会", "school_lunch", "市長", TAX)
    assert not given("市選挙管理委員会", "school_lunch", "市長", TAX)
    assert not given("市教育委員会", "child_medical", "市長", TAX)
    assert not given("市教育委員会", "school_lunch", "市議会", TAX)
    assert not given("市教育委員会", "school_lunch", "市長", RESIDENT)
    for day in (date(2026, 6, 30), date(2027, 4, 1)):
        assert not given("市教育委員会", "school_lunch", "市長", TAX, day)


@pytest.mark.req("R-376")
def test_an_ordinance_task_asks_within_the_row_that_it_corresponds_to() -> None:
    def asked(task: str, provider: Agency, information: str, day: date = DAY) -> str:
        found = permits_ordinance_inquiry(OWN, provider, task, information, day, TABLE)
        return found.detail if isinstance(found, Refusal) else found.row

    # Row 13 is an affair of governors; the commission's rule lets the task of a city correspond to it.
    assert asked("child_medical", INSURER, MEDICAL) == "13"
    assert asked("child_medical", OTHER, TAX) == "81"
    assert asked("child_medical", INSURER, TAX) == "provider"
    assert asked("child_medical", OTHER, RESIDENT) == "information"
    assert asked("school_lunch", OTHER, TAX) == "task"
    assert asked("81", OTHER, TAX) == "task"
    assert asked("child_medical", OTHER, TAX, date(2026, 7, 9)) == "task"
    assert asked("child_medical", OTHER, TAX, date(2027, 7, 1)) == "task"


@pytest.mark.req("R-376")
def test_only_local_governments_have_ordinance_tasks() -> None:
    lines = read(CITY, RENKEI).lines
    for kind in KINDS:
        asking = Ordinances(Agency("990019", "x", kind), lines)
        found = permits_ordinance_inquiry(asking, OTHER, "child_medical", TAX, DAY, TABLE)
        local = KINDS[kind].level in ("prefecture", "municipality", "local")
        assert isinstance(found, OrdinanceInquiry) == local, kind
    assert not {"minister_of_justice", "health_insurance_society"} & {
        name for name, kind in KINDS.items() if kind.level in ("prefecture", "municipality", "local")
    }


@pytest.mark.req("R-376")
def test_the_judgement_takes_the_tables_of_the_inquirer() -> None:
    known = {CITY.code: OWN, OTHER.code: THEIRS}
    found = judge(ORDINANCE, CITY, OTHER, "child_medical", TAX, DAY, ordinances=known)
    assert isinstance(found, OrdinanceInquiry)
    assert judge(ORDINANCE, OTHER, CITY, "child_medical", TAX, DAY, ordinances=known) == Refusal(
        "L-113", "task"
    )
    assert judge(ORDINANCE, CITY, OTHER, "child_medical", TAX, DAY) == Refusal("L-113", "inquirer")


def test_records_show_the_affair_in_the_words_of_the_law_or_of_the_ordinance() -> None:
    def shown(basis: str, inquirer: str, row: str, day: date = DAY) -> str:
        return affair_of(basis, inquirer, row, day, ordinances={CITY.code: OWN})

    assert shown(STATUTORY, CITY.code, "81") == "児童扶養手当法による児童扶養手当の支給に関する事務"
    assert shown(ORDINANCE, CITY.code, "child_medical") == "子ども医療費助成の支給に関する事務"
    assert {
        shown(STATUTORY, CITY.code, "child_medical"),
        shown(ORDINANCE, CITY.code, "81"),
        shown(ORDINANCE, OTHER.code, "child_medical"),
        shown(STATUTORY, CITY.code, "157"),
        shown(STATUTORY, CITY.code, "81", date(2013, 5, 31)),
    } == {""}


@pytest.mark.req("R-377", "R-440")
def test_a_provider_declines_only_what_it_limited_and_told_beforehand() -> None:
    assert may_decline(OWN, TAX, DAY) is None
    assert may_decline(THEIRS, RESIDENT, DAY) is None
    assert may_decline(THEIRS, TAX, DAY) == Refusal("I-214", "information")
    # Told on 1 June: until that day it must provide. The wider limit counts from the day after it was told.
    assert may_decline(THEIRS, TAX, date(2026, 6, 1)) is None
    assert may_decline(THEIRS, TAX, date(2026, 7, 20)) == Refusal("I-214", "information")
    assert may_decline(THEIRS, TAX, date(2026, 7, 21)) is None
    # The network passes the inquiry on all the same.
    known = {CITY.code: OWN, OTHER.code: THEIRS}
    assert isinstance(
        judge(ORDINANCE, CITY, OTHER, "child_medical", TAX, DAY, ordinances=known), OrdinanceInquiry
    )


@pytest.mark.req("R-406")
def test_a_task_is_tied_to_the_business_and_department_in_charge() -> None:
    found = charge_of(OWN, "81", DAY)
    assert isinstance(found, Charge)
    assert (found.business, found.department) == ("児童扶養手当", "こども家庭課")
    assert charge_of(OWN, "81", date(2026, 6, 30)) is None
    assert charge_of(OWN, "106", DAY) is None


GOOD = "use\t市長\tgood\tother\t事務\t条例\t2026-07-01\t9999-12-31"
BAD: list[tuple[str, str, str]] = [
    ("used\t市長\tx\tother\t事務\t条例\t2026-07-01\t9999-12-31", "table", "B-001"),
    ("use\t市長\tx\tother\t事務\t条例\t2026-07-01", "", "B-001"),
    ("use\t\tx\tother\t事務\t条例\t2026-07-01\t9999-12-31", "organ", "B-002"),
    ("use\t市長 \tx\tother\t事務\t条例\t2026-07-01\t9999-12-31", "organ", "B-003"),
    ("use\t市長\tx\tsports\t事務\t条例\t2026-07-01\t9999-12-31", "field", "B-005"),
    ("use\t市長\t81\tother\t事務\t条例\t2026-07-01\t9999-12-31", "task", "B-005"),
    ("use\t市長\tx\tother\t事務\t条例\t2026-02-30\t9999-12-31", "valid_from", "B-012"),
    ("use\t市長\tx\tother\t事務\t条例\t20260701\t9999-12-31", "valid_from", "B-012"),
    ("use\t市長\tx\tother\t事務\t条例\t2026-07-01\t2026-06-30", "valid_until", "B-012"),
    ("internal\t市教育委員会\tgood\t地方税関係情報\t条例\t2026-07-01\t9999-12-31", "task", "B-005"),
    ("inquiry\t市長\tgood\t81\t謎の情報\t規則\t2026-07-01\t9999-12-31", "information", "I-213"),
    ("inquiry\t市長\tgood\t174\t地方税関係情報\t規則\t2026-07-01\t9999-12-31", "row", "B-005"),
    ("inquiry\t市長\t81\t81\t地方税関係情報\t規則\t2026-07-01\t9999-12-31", "task", "B-005"),
    ("transfer\t市長\tgood\t市長\t地方税関係情報\t条例\t2026-07-01\t9999-12-31", "holder", "B-001"),
    ("transfer\t市議会\tgood\t市長\t地方税関係情報\t条例\t2026-07-01\t9999-12-31", "task", "B-005"),
    ("limit\t謎の情報\t条例\t2026-07-01\t2026-07-01\t9999-12-31", "information", "I-213"),
    ("charge\tnothing\t業務\t課\t2026-07-01\t9999-12-31", "task", "B-005"),
    (GOOD, "", "B-001"),
]


@pytest.mark.req("R-375")
def test_bad_lines_are_named_with_line_item_and_reason_and_the_good_ones_go_on() -> None:
    last = "transfer\t市教育委員会\t81\t市長\t地方税関係情報\t条例\t0000-01-01\t9999-12-31"
    text = "\r\n".join([GOOD, "", "# 注", *(line for line, _, _ in BAD), last])
    found, faults = read_ordinances(CITY, "\ufeff" + text, tables())
    assert [(fault.line, fault.item, fault.code) for fault in faults] == [
        (number, item, code) for number, (_, item, code) in enumerate(BAD, start=4)
    ]
    assert all(fault.reason and entry(fault.code) for fault in faults)
    assert [type(line) for line in found.lines] == [IndependentUse, Transfer]


@pytest.mark.req("R-441")
def test_the_fields_are_those_of_the_act() -> None:
    assert len(FIELDS) == len(set(FIELDS)) == 7
    for number, name in enumerate(FIELDS):
        text = GOOD.replace("good", f"task{number}").replace("other", name)
        assert read(CITY, text).lines[0].valid_until == date.max


@pytest.mark.req("R-375", "R-376")
def test_the_tables_of_many_agencies_travel_together_and_stay_apart() -> None:
    rows = [(CITY.code, *row) for row in cells(RENKEI)] + [(OTHER.code, *row) for row in cells(MIHON)]
    known = ordinances_of(
        [*rows, (), (CITY.code, "use", "bad"), ("999999", *cells(RENKEI)[0])],
        {CITY.code: CITY, OTHER.code: OTHER, INSURER.code: INSURER},
        tables(),
    )
    assert known == {CITY.code: OWN, OTHER.code: THEIRS}


def test_a_fault_is_a_value_for_the_error_list() -> None:
    _, (fault,) = read_ordinances(CITY, "nothing", tables())
    assert fault == LineFault(1, "table", "B-001", "表の名前が決まりと違います")
