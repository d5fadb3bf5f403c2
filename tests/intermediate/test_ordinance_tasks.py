"""Inquiries for tasks of an ordinance (条例事務, Act art. 19(9)): asked, answered, declined; all made up."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from adapters.business.files import read_inquiries, read_staff, write_inquiries, write_staff
from adapters.business.records import InquiryRecord, StaffRecord
from adapters.network.reference.exchange import ExchangePermitted
from adapters.platform.asking import InquiryOrder
from adapters.platform.holdings import HoldOrder
from adapters.platform.officer import DecisionOrder, OfficersDesk
from adapters.platform.staffing import Caller, Staffing
from broker.intermediate.inquiry import InquiryRequested
from broker.intermediate.provision import ProvisionRefused, ProvisionRequested
from broker.intermediate.staff import AuthorityGranted
from broker.linkage.incoming import MessageRefused
from broker.linkage.outgoing import MessageNotSent
from ops.synthetic import assessments_of
from schemas.law.judgement import ORDINANCE
from tests.house import (
    AGENCIES,
    ANSWERING,
    ASKING,
    INFORMATION,
    LAYOUT,
    NECESSARY,
    OFFICER,
    ROW,
    TERMS,
    YEAR,
    House,
    Keys,
    asked_of,
    events_of,
    open_house,
    order,
    resident,
)
from tests.linkage.forging import INQUIRY, outcome, scene_of

TASK, AFFAIR = "child_medical", "子ども医療費助成の支給に関する事務"
CLERK = "s0002"
SPAN = ("2026-04-01", "2027-03-31")
RULES = (
    (ASKING.code, "use", "市長", TASK, "medical", AFFAIR, "条例第一号", *SPAN),
    (ASKING.code, "inquiry", "市長", TASK, ROW, INFORMATION, "規則第五号", *SPAN),
)
LIMIT = (ANSWERING.code, "limit", "住民票関係情報", "条例第九号", "2026-06-01", *SPAN)


def at_work(folder: Path, keys: Keys, *rules: tuple[str, ...]) -> AbstractAsyncContextManager[House]:
    """A house in whose configuration these ordinances stand."""
    assessed = assessments_of((a.code for a in AGENCIES), TASK)
    terms = replace(TERMS, assessments=assessed, ordinances=rules)
    return open_house(folder, keys, opening=2, terms=terms)


async def staffed(house: House) -> House:
    """With one at 連携市 who works on the task alone, in the role that is for ordinances."""
    for town in house.towns.values():
        await town.look_around()
    granted = AuthorityGranted(CLERK, "保険年金課", "ordinance_officer", (TASK,), *SPAN)
    await house.asking.platform.grant(granted)
    return house


@pytest.fixture
async def house(tmp_path: Path, keys: Keys, furnished: Path) -> AsyncIterator[House]:
    copytree(furnished, tmp_path / "house")
    async with at_work(tmp_path / "house", keys, *RULES) as opened:
        yield await staffed(opened)


@pytest.fixture
async def limited(tmp_path: Path, keys: Keys, furnished: Path) -> AsyncIterator[House]:
    """見本市 gives ordinance tasks of others resident records alone, and said so before."""
    copytree(furnished, tmp_path / "house")
    async with at_work(tmp_path / "house", keys, *RULES, LIMIT) as opened:
        yield await staffed(opened)


def wanted(request_id: str, *people: int, **changes: Any) -> InquiryOrder:
    return order(request_id, *people, **{"staff_id": CLERK, "row": TASK, "basis": ORDINANCE} | changes)


@pytest.mark.req("R-060", "R-062", "R-376")
async def test_a_task_of_an_ordinance_is_asked_and_answered_as_the_row_to_which_it_corresponds(
    house: House,
) -> None:
    assert await house.asking.platform.inquire(wanted("q-1", 0)) is None
    await house.post()
    result = await house.asking.result("q-1")
    assert (result.state, result.payloads) == ("answered", (asked_of(0),))

    (asked,) = await house.asking.of_kind(InquiryRequested)
    (provided,) = await house.answering.of_kind(ProvisionRequested)
    recorded = await events_of(house.core.ledger)
    (passed,) = [r.event for r in recorded if isinstance(r.event, ExchangePermitted)]
    for record in (asked, provided, passed):
        assert (record.basis, record.law_row, record.affair) == (ORDINANCE, TASK, AFFAIR)
        assert record.items == NECESSARY
    for town, agency in ((house.asking, ASKING), (house.answering, ANSWERING)):
        (shown,) = await town.platform.records(resident(agency, 0))
        assert (shown.affair, bool(shown.provided_at)) == (AFFAIR, True)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"staff_id": OFFICER}, "I-102"),  # in charge of rows of the law table, not of this task
        ({"row": ROW}, "I-102"),
        ({"basis": "19-8"}, "I-102"),  # the role is for ordinances alone
        ({"information": "住民票関係情報", "layout": "resident_record/1"}, "L-113"),
        ({"provider": "990043"}, "L-101"),
    ],
)
@pytest.mark.req("R-059", "R-376")
async def test_who_or_what_does_not_fit_is_refused(house: House, changes: dict[str, Any], code: str) -> None:
    refusal = await house.asking.platform.inquire(wanted("q-1", 0, **changes))
    assert refusal is not None
    assert refusal.code == code
    assert await house.asking.outbox() == []


@pytest.mark.req("R-060", "R-062", "R-376")
async def test_what_the_ordinances_of_that_day_do_not_permit_is_neither_sent_nor_taken_in(
    house: House,
) -> None:
    assert await house.asking.platform.inquire(wanted("q-1", 0)) is None
    await house.asking.send()
    for town in (house.asking, house.answering):
        assert town.linkage.directory is not None
        town.linkage.directory = replace(town.linkage.directory, ordinances={})

    refusal = await house.asking.platform.inquire(wanted("q-2", 0))
    assert refusal is not None
    assert refusal.code == "L-113"
    (not_sent,) = await house.asking.of_kind(MessageNotSent)
    assert (not_sent.step, not_sent.code) == ("role", "L-113")

    await house.post()
    (refused,) = await house.answering.of_kind(MessageRefused)
    assert (refused.step, refused.code) == ("role", "L-113")
    assert (await house.asking.result("q-1")).code == "L-113", "the inquirer is told"


@pytest.mark.req("R-062", "R-087", "R-376")
async def test_no_more_is_asked_than_the_row_to_which_the_task_corresponds_needs(house: House) -> None:
    assert await house.asking.platform.inquire(wanted("q-0", 0)) is None
    await house.asking.send()
    scene = await scene_of(house, INQUIRY, 1)
    for items, expected in ((NECESSARY, ("", "")), (("annual_tax",), ("role", "L-104"))):
        stated: dict[str, Any] = {"basis": ORDINANCE, "law_row": TASK, "items": items}
        made = scene.made(official_role="ordinance_officer", **stated)
        assert outcome(scene.check(scene.noted(made, **stated))) == expected
    (message,) = [each for each in await house.asking.of_kind(InquiryRequested) if each.basis == ORDINANCE]
    people = await house.asking.platform.persons([resident(ASKING, 0)])
    sent = house.asking.platform.message(replace(message, items=("annual_tax",)), people, house.clock())
    assert outcome(sent) == ("role", "L-104")


@pytest.mark.req("R-154", "R-377")
async def test_a_provider_limited_by_its_ordinance_declines_and_records_it(limited: House) -> None:
    assert await limited.asking.platform.inquire(wanted("q-1", 0, 1)) is None
    assert await limited.asking.platform.inquire(order("q-2", 0)) is None
    await limited.post()
    declined, statutory = await limited.asking.platform.results(["q-1", "q-2"])
    assert (declined.state, declined.code, declined.payloads) == ("refused", "I-214", ())
    assert (statutory.state, statutory.payloads) == ("answered", (asked_of(0),))
    (refused,) = await limited.answering.of_kind(ProvisionRefused)
    assert (refused.persons, refused.code) == ((0, 1), "I-214")
    for town, agency in ((limited.asking, ASKING), (limited.answering, ANSWERING)):
        (shown,) = await town.platform.records(resident(agency, 1))
        assert (shown.affair, shown.refusal, shown.provided_at) == (AFFAIR, "I-214", "")


@pytest.mark.req("R-094", "R-376")
async def test_what_is_held_is_released_by_whoever_is_in_charge_of_that_row(house: House) -> None:
    chief, stranger = Caller("t0001", "窓口1", "照会への回答"), Caller("t0002", "窓口1", "照会への回答")
    platform = house.answering.platform
    for who, row in ((chief, ROW), (stranger, "2")):
        await platform.grant(AuthorityGranted(who.staff_id, "税務課", "affair_manager", (row,), *SPAN))
    condition = HoldOrder(True, resident(ANSWERING, 0), "", "", "", "", "", "under_correction", "", "")
    assert await platform.hold(condition) is None
    desk = OfficersDesk(platform, Staffing(platform))
    assert await house.asking.platform.inquire(wanted("q-1", 0)) is None
    await house.post()
    assert await desk.waiting(stranger) == []
    (waits,) = await desk.waiting(chief)
    assert waits.law_row == TASK
    decision = DecisionOrder(waits.processing_number, "approve", (), (), ())
    assert await desk.decide(chief, [decision]) == [None]
    await house.post()
    assert (await house.asking.result("q-1")).payloads == (asked_of(0),)


@pytest.mark.req("R-376")
def test_files_of_orders_and_staff_name_the_task(tmp_path: Path) -> None:
    asked = InquiryRecord(
        "q-1", CLERK, ANSWERING.code, TASK, INFORMATION, LAYOUT, YEAR, (resident(ASKING, 0),), basis=ORDINANCE
    )
    clerk = StaffRecord(CLERK, "保険年金課", "ordinance_officer", (ROW, TASK), *SPAN)
    write_inquiries(tmp_path / "inquiries.csv", [asked])
    write_staff(tmp_path / "staff.csv", [clerk])
    assert list(read_inquiries(tmp_path / "inquiries.csv")) == [(2, asked)]
    assert list(read_staff(tmp_path / "staff.csv")) == [(2, clerk)]
