"""Holds: what a pattern is on, who sets and releases it, by whom and by file, and what it does to answers."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.business.holds import (
    HOLDS,
    NON_DISCLOSURES,
    PUBLICATIONS,
    read_holds,
    read_non_disclosures,
    read_publications,
    write_holds,
)
from adapters.business.output import write_csv
from adapters.business.records import ErrorLine
from adapters.platform.holdings import HoldOrder, NonDisclosureOrder, PublicationOrder
from broker.intermediate import disclosure, hold
from broker.intermediate.hold import Asked, HoldReleased, HoldSet, Scope, barring
from broker.intermediate.provision import InformationProvided, ProvisionHeld
from schemas.errors import Refusal
from schemas.law.approval import Line, Policy, hold_reasons, published
from tests.house import ANSWERING, LAYOUT, ROW, YEAR, House, income, order, resident
from tests.intermediate.samples import after

TODAY = "2026-11-21"
ASKED = Asked("p1", LAYOUT, YEAR, ROW, ("total_income", "spouse_category"), frozenset(("blind",)))
NOTHING: hold.State = {}
OPEN = Scope("", "", "", "", "", "", "court_order")


def set_on(**scope: str) -> HoldSet:
    days = {name: scope.pop(name, "") for name in ("starts", "ends")}
    return HoldSet(**vars(replace(OPEN, **scope)), **days, integrated_number="", value="")


@pytest.mark.req("R-102", "R-104")
@pytest.mark.parametrize(
    ("scope", "bars"),
    [
        ({"person": "p1"}, True),
        ({"person": "p2"}, False),
        ({"person": "p1", "layout": LAYOUT, "fiscal_year": YEAR}, True),
        ({"person": "p1", "layout": LAYOUT, "fiscal_year": "2025"}, False),
        ({"person": "p1", "layout": "pension_benefit/1"}, False),
        ({"law_row": ROW}, True),
        ({"law_row": "106"}, False),
        ({"law_row": ROW, "person": "p2"}, False),
        ({"layout": LAYOUT, "item": "total_income"}, True),
        ({"layout": LAYOUT, "item": "annual_tax"}, False),
        ({"layout": LAYOUT, "item": "annual_tax", "value_index": "blind"}, True),
        ({"layout": LAYOUT, "item": "annual_tax", "value_index": "other"}, False),
        ({"person": "p1", "starts": TODAY, "ends": TODAY}, True),
        ({"person": "p1", "starts": "2026-11-22"}, False),
        ({"person": "p1", "ends": "2026-11-20"}, False),
    ],
)
def test_a_hold_is_on_what_it_names_and_on_nothing_else(scope: dict[str, str], bars: bool) -> None:
    assert barring([set_on(**scope)], ASKED, TODAY) == (("court_order",) if bars else ())


def test_reasons_stand_beside_each_other_and_are_released_one_by_one() -> None:
    court, protected = set_on(person="p1"), set_on(person="p1", reason="protected_person")
    state = after(NOTHING, hold.evolve, court, protected)
    assert barring(state.values(), ASKED, TODAY) == ("court_order", "protected_person")
    assert hold.decide_set(state, court) == ()
    later = replace(court, ends="2026-12-31")
    assert hold.decide_set(state, later) == (later,)
    (released,) = hold.decide_release(state, court)
    state = hold.evolve(state, released)
    assert barring(state.values(), ASKED, TODAY) == ("protected_person",)
    assert hold.decide_release(state, court) == ()
    with pytest.raises(KeyError):
        hold.evolve(state, HoldReleased(*court.key))


def test_every_reason_has_a_policy_that_lets_nothing_leave_by_itself() -> None:
    for reason in hold_reasons():
        assert published().mode(ROW, "地方税関係情報", (reason,)) not in ("automatic", "afterwards")
    with pytest.raises(ValueError, match="protected_person"):
        Policy((Line("*", "*", "protected_person", "automatic"),))
    assert Policy(()).mode(ROW, "地方税関係情報", ("some reason",)) == "one_by_one"


@pytest.mark.req("R-107")
def test_flags_of_non_disclosure_are_on_a_person_or_on_a_record() -> None:
    nothing: disclosure.State = {}
    whole = disclosure.NonDisclosureSet("p1", "", "", "protected_person")
    record = disclosure.NonDisclosureSet("p1", LAYOUT, YEAR, "court_order")
    state = after(nothing, disclosure.evolve, whole, record)
    assert disclosure.decide(state, True, whole) == ()
    (released,) = disclosure.decide(state, False, whole)
    state = disclosure.evolve(state, released)
    assert [disclosure.hides(flag, LAYOUT, YEAR) for flag in state] == [True]
    assert [disclosure.hides(flag, LAYOUT, "2025") for flag in state] == [False]
    assert disclosure.hides(("", ""), "pension_benefit/1", "2020")
    assert disclosure.decide(state, False, whole) == ()
    with pytest.raises(KeyError):
        disclosure.evolve(state, released)


# In a town


def on(**changes: Any) -> HoldOrder:
    return replace(HoldOrder(True, "", "", "", "", "", "", "under_correction", "", ""), **changes)


CONDITIONS = [
    on(integrated_number=resident(ANSWERING, 0)),
    on(integrated_number=resident(ANSWERING, 0), layout=LAYOUT, fiscal_year=YEAR),
    on(law_row=ROW, integrated_number=resident(ANSWERING, 0)),
    on(layout=LAYOUT, item="total_income", value=income(0)["total_income"]),
]


async def asked(house: House, *people: int) -> list[str]:
    """What becomes of one inquiry about each."""
    for index in people:
        assert await house.asking.platform.inquire(order(f"q-{index}", index)) is None
    await house.post()
    return [(await house.asking.result(f"q-{index}")).state for index in people]


@pytest.mark.req("R-102", "R-104")
@pytest.mark.parametrize("condition", CONDITIONS)
async def test_a_hold_set_singly_holds_what_it_is_on(house: House, condition: HoldOrder) -> None:
    platform = house.answering.platform
    assert await platform.hold(condition) is None
    assert await platform.holds() == [condition]
    assert await asked(house, 0, 1) == ["waiting", "answered"]
    (held,) = await house.answering.of_kind(ProvisionHeld)
    assert held.reasons == (("under_correction",),)
    assert await platform.hold(replace(condition, wanted=False)) is None
    assert await platform.holds() == []
    assert await house.asking.platform.inquire(order("q-again", 0)) is None
    await house.post()
    assert (await house.asking.result("q-again")).state == "answered"


@pytest.mark.req("R-102")
@pytest.mark.parametrize("condition", [on(law_row=ROW), on(layout=LAYOUT, item="total_income")])
async def test_a_hold_on_a_work_or_an_item_is_on_everybody(house: House, condition: HoldOrder) -> None:
    assert await house.answering.platform.hold(condition) is None
    assert await asked(house, 0, 1) == ["waiting", "waiting"]


@pytest.mark.req("R-102")
async def test_a_hold_that_has_ended_bars_nothing(house: House) -> None:
    person = on(integrated_number=resident(ANSWERING, 0))
    assert await house.answering.platform.hold(replace(person, ends="2026-11-20")) is None
    assert await asked(house, 0) == ["answered"]


@pytest.mark.parametrize(
    ("condition", "refusal"),
    [
        (on(), Refusal("B-002", "integrated_number")),
        (on(law_row=ROW, value="1"), Refusal("B-002", "item")),
        (on(item="total_income"), Refusal("B-002", "layout")),
        (on(law_row=ROW, fiscal_year=YEAR), Refusal("B-002", "layout")),
        (on(law_row=ROW, reason="because"), Refusal("B-005", "reason")),
        (on(law_row=ROW, layout="unknown/1"), Refusal("B-005", "layout")),
        (on(layout=LAYOUT, item="unknown"), Refusal("B-010", "item")),
        (on(law_row=ROW, starts="2026-12-01", ends="2026-11-30"), Refusal("B-012", "ends")),
        (on(law_row=ROW, starts="2026-02-30"), Refusal("B-012", "starts")),
        (on(integrated_number="000000000000000"), Refusal("B-007")),
    ],
)
async def test_what_is_no_hold_is_refused(house: House, condition: HoldOrder, refusal: Refusal) -> None:
    assert await house.answering.platform.hold(condition) == refusal
    assert await house.answering.platform.holds() == []


@pytest.mark.req("R-105")
async def test_holds_come_by_file_and_their_state_goes_back_into_one(house: House, tmp_path: Path) -> None:
    platform = house.answering.platform
    write_holds(tmp_path / "in.csv", CONDITIONS)
    for _, condition in good(read_holds(tmp_path / "in.csv")):
        assert await platform.hold(condition) is None
    assert await platform.holds() == CONDITIONS
    write_holds(tmp_path / "out.csv", await platform.holds())
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "in.csv").read_bytes()


def good(lines: Iterable[Any]) -> list[tuple[int, Any]]:
    found = list(lines)
    assert not [line for line in found if isinstance(line, ErrorLine)], found
    return found


@pytest.mark.req("R-105")
def test_every_fault_of_a_file_of_holds_is_in_the_error_list(tmp_path: Path) -> None:
    number = resident(ANSWERING, 0)
    rows = [
        ["1", number, "", "", "", "", "", "訂正中", "", ""],
        ["2", number, "", "", "", "", "", "知らない理由", "", "2026-02-30"],
        ["1", "", "", "", "", "", "", "訂正中", "", ""],
        ["0", "", LAYOUT, "", "", "unknown", "", "裁判所の命令", "", ""],
        ["1", number[:-1] + str((int(number[-1]) + 1) % 10), "x/1", "26", "x", "", "", "訂正中", "", ""],
    ]
    write_csv(tmp_path / "holds.csv", HOLDS.header, rows)
    found = list(read_holds(tmp_path / "holds.csv"))
    assert [line for line, _ in (each for each in found if isinstance(each, tuple))] == [2]
    faults = [(f.line, f.item, f.code) for f in found if isinstance(f, ErrorLine)]
    assert faults == [
        (3, "設定区分", "B-005"),
        (3, "理由", "B-005"),
        (3, "終了日", "B-012"),
        (4, "団体内統合宛名番号", "B-002"),
        (5, "項目", "B-010"),
        (6, "団体内統合宛名番号", "B-006"),
        (6, "レイアウト", "B-005"),
        (6, "相当年度", "B-004"),
        (6, "表の項", "B-003"),
    ]


@pytest.mark.req("R-105", "R-107", "R-139")
def test_flags_and_ends_of_publication_come_by_file(tmp_path: Path) -> None:
    number = resident(ANSWERING, 0)
    write_csv(
        tmp_path / "flags.csv",
        NON_DISCLOSURES.header,
        [["1", number, "", "", "支援措置対象者"], ["0", number, LAYOUT, YEAR, "支援措置対象者"]],
    )
    assert [order for _, order in good(read_non_disclosures(tmp_path / "flags.csv"))] == [
        NonDisclosureOrder(True, number, "", "", "protected_person"),
        NonDisclosureOrder(False, number, LAYOUT, YEAR, "protected_person"),
    ]
    write_csv(
        tmp_path / "ends.csv",
        PUBLICATIONS.header,
        [[number, LAYOUT, YEAR, "2026-11-20"], [number, LAYOUT, YEAR, ""]],
    )
    assert [order for _, order in good(read_publications(tmp_path / "ends.csv"))] == [
        PublicationOrder(number, LAYOUT, YEAR, "2026-11-20"),
        PublicationOrder(number, LAYOUT, YEAR, ""),
    ]


@pytest.mark.req("R-107", "R-151")
async def test_non_disclosure_bars_no_answer_and_stands_in_the_records(house: House) -> None:
    number = resident(ANSWERING, 0)
    flag = NonDisclosureOrder(True, number, LAYOUT, YEAR, "protected_person")
    assert await house.answering.platform.set_non_disclosure(flag) is None
    assert await asked(house, 0, 1) == ["answered", "answered"]
    for index, hidden in ((0, True), (1, False)):
        (found,) = await house.answering.platform.records(resident(ANSWERING, index))
        assert found.non_disclosure is hidden
    later = replace(flag, integrated_number=resident(ANSWERING, 1), layout="", fiscal_year="")
    assert await house.answering.platform.set_non_disclosure(later) is None
    (found,) = await house.answering.platform.records(resident(ANSWERING, 1))
    assert found.non_disclosure, "also where the flag came after the provision"
    assert await house.answering.platform.set_non_disclosure(replace(later, wanted=False)) is None
    (found,) = await house.answering.platform.records(resident(ANSWERING, 1))
    assert not found.non_disclosure
    wrong: tuple[tuple[dict[str, Any], Refusal], ...] = (
        ({"reason": "because"}, Refusal("B-005", "reason")),
        ({"layout": "unknown/1"}, Refusal("B-005", "layout")),
        ({"layout": ""}, Refusal("B-002", "layout")),
        ({"integrated_number": "000000000000000"}, Refusal("B-007")),
    )
    for changes, refusal in wrong:
        assert await house.answering.platform.set_non_disclosure(replace(flag, **changes)) == refusal


@pytest.mark.req("R-139")
async def test_after_the_end_of_its_publication_a_record_is_not_answered_with(house: House) -> None:
    platform = house.answering.platform
    end = PublicationOrder(resident(ANSWERING, 0), LAYOUT, YEAR, "2026-11-20")
    assert await platform.set_publication(end) is None
    assert await platform.set_publication(replace(end, until="2026-02-30")) == Refusal("B-012", "until")
    assert await platform.set_publication(replace(end, layout="unknown/1")) == Refusal("B-005", "layout")
    assert await platform.set_publication(replace(end, integrated_number="0")) == Refusal("B-007")
    await asked(house, 0)
    (found,) = await platform.records(resident(ANSWERING, 0))
    assert found.refusal == "I-204"
    for request_id, until in (("q-last", "2026-11-21"), ("q-open", "")):
        assert await platform.set_publication(replace(end, until=until)) is None
        assert await house.asking.platform.inquire(order(request_id, 0)) is None
        await house.post()
        assert (await house.asking.result(request_id)).state == "answered"


@pytest.mark.req("R-140")
async def test_to_whom_a_record_was_provided_can_be_extracted(house: House) -> None:
    await asked(house, 0, 1)
    platform = house.answering.platform
    (found,) = await platform.recipients(resident(ANSWERING, 0), LAYOUT, YEAR)
    (provided, _) = await house.answering.of_kind(InformationProvided)
    assert (found.inquirer, found.inquirer_name, found.law_row) == ("990019", "連携市", ROW)
    assert found.provided_at == provided.provided_at
    assert await platform.recipients(resident(ANSWERING, 0), LAYOUT, "2020") == []
    assert await platform.recipients(resident(ANSWERING, 2), LAYOUT, YEAR) == []
