"""Provision records (情報提供等の記録): what article 23 wants, on both sides, provided or not."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.intermediate import correction, inquiry, provision
from broker.intermediate.inquiry import InquiryAnswered
from broker.intermediate.provision import InformationProvided
from broker.intermediate.records import ProvisionRecord, record
from broker.ledger.events import Recorded
from schemas.items import layout
from schemas.law import retention, table_at
from schemas.law.necessity import necessary_items
from tests.house import (
    ANSWERING,
    ASKING,
    INFORMATION,
    LAYOUT,
    NO_CODE,
    NO_RECORD,
    OFFICE,
    ROW,
    START,
    House,
    contents,
    order,
    resident,
)
from tests.intermediate.samples import ASKED, AT, LATER, WANTED
from tests.linkage.forging import INQUIRY, scene_of

ITEMS = necessary_items(ROW, layout(LAYOUT))
(AFFAIR,) = {line.affair for line in table_at(START.date()).rows if line.row == ROW}


async def both(house: House, index: int) -> tuple[Sequence[ProvisionRecord], Sequence[ProvisionRecord]]:
    """The records about one person at the inquirer and at the provider."""
    asking, answering = house.asking.platform, house.answering.platform
    return await asking.records(resident(ASKING, index)), await answering.records(resident(ANSWERING, index))


def at(minutes: int) -> str:
    return (START + timedelta(minutes=minutes)).isoformat(timespec="microseconds")


@pytest.mark.req("R-131", "R-147", "R-148", "R-149", "R-150", "R-153")
async def test_both_sides_record_who_asked_whom_when_for_what_and_what_was_provided(house: House) -> None:
    assert await house.asking.platform.inquire(order("q-1", 0)) is None
    await house.asking.send()
    house.clock.advance(timedelta(minutes=3))
    assert await house.answering.take_in() == [None]
    house.clock.advance(timedelta(minutes=4))
    await house.post()
    (asked,), (provided,) = await both(house, 0)
    assert (asked.side, provided.side) == ("inquirer", "provider")
    for found in (asked, provided):
        assert (found.inquirer_name, found.provider_name) == ("連携市", "見本市")
        assert (found.requested_at, found.provided_at) == (at(0), at(3))
        assert (found.information, found.layout, found.items) == (INFORMATION, LAYOUT, ITEMS)
        assert (found.office, found.affair, found.law_row) == (OFFICE, AFFAIR, ROW)
        assert (found.non_disclosure, found.refusal, found.closed) == (False, "", True)


@pytest.mark.req("R-148", "R-154")
@pytest.mark.parametrize(
    ("person", "changes", "code", "at_provider"),
    [
        (0, {"row": "2"}, "L-104", False),
        (0, {"staff_id": "nobody"}, "I-101", False),
        (0, {"provider": "990043"}, "L-101", False),
        (NO_CODE, {}, "N-106", False),
        (NO_RECORD, {}, "I-204", True),
    ],
)
async def test_a_request_without_provision_is_recorded(
    house: House, person: int, changes: dict[str, Any], code: str, at_provider: bool
) -> None:
    await house.asking.platform.inquire(order("q-1", person, **changes))
    await house.post()
    asked, wanted = await both(house, person)
    assert len(asked) == 1
    assert len(wanted) == at_provider
    for found in (*asked, *wanted):
        assert (found.requested_at, found.provided_at, found.refusal) == (at(0), "", code)
        assert (found.inquirer_name, found.information, found.closed) == ("連携市", INFORMATION, True)


@pytest.mark.req("R-154")
async def test_a_request_is_recorded_as_soon_as_it_is_made(house: House) -> None:
    await house.ask(0)
    (asked,), wanted = await both(house, 0)
    assert (asked.provided_at, asked.refusal, asked.closed) == ("", "", False)
    assert wanted == []


@pytest.mark.req("R-154")
async def test_a_request_about_a_protected_person_is_recorded_while_it_is_held(house: House) -> None:
    await house.answering.platform.set_hold(resident(ANSWERING, 0), True, "protected_person")
    await house.asking.platform.inquire(order("q-1", 0))
    await house.post()
    _, (wanted,) = await both(house, 0)
    assert (wanted.provided_at, wanted.refusal, wanted.closed) == ("", "", False)


@pytest.mark.req("R-149", "R-153", "R-154")
async def test_each_person_of_an_inquiry_has_a_record_with_an_outcome_of_their_own(house: House) -> None:
    await house.asking.platform.inquire(order("q-1", 0, NO_RECORD, 1))
    await house.post()
    for person, code in ((0, ""), (NO_RECORD, "I-204"), (1, "")):
        for (found,) in await both(house, person):
            assert found.refusal == code
            assert found.provided_at == ("" if code else at(0))
            assert found.items == ITEMS
    assert await both(house, 2) == ([], []), "and nobody else has"


@pytest.mark.req("R-147")
async def test_the_latest_record_comes_first(house: House) -> None:
    for number in range(3):
        await house.asking.platform.inquire(order(f"q-{number}", 0))
        house.clock.advance(timedelta(minutes=1))
    await house.post()
    for found in await both(house, 0):
        assert [each.requested_at for each in found] == [at(2), at(1), at(0)]


@pytest.mark.req("R-151")
async def test_that_a_request_falls_under_non_disclosure_is_recorded_on_both_sides(house: House) -> None:
    scene = await scene_of(house, INQUIRY, 0)
    assert await house.answering.platform.receive(scene.made(non_disclosure=True)) is None
    await house.answering.send()
    await house.asking.take_in()
    (asked,), (provided,) = await both(house, 0)
    assert provided.non_disclosure
    assert asked.non_disclosure, "the answer says so, too (ordinance art. 46(3)1)"


@pytest.mark.req("R-151")
def test_non_disclosure_of_the_request_or_of_the_provision_stands_in_the_record() -> None:
    for wanted, provided in ((True, False), (False, True)):
        request = Recorded(1, "inquiry/i-1", 1, "m", AT, replace(ASKED, non_disclosure=wanted))
        answered = InquiryAnswered("x-1", "a-1", LATER, provided, (0, 1), ("", ""), ((), ()), ({}, {}))
        assert record(0, "inquirer", request, answered).non_disclosure
    open_request = Recorded(1, "inquiry/i-1", 1, "m", AT, ASKED)
    assert not record(0, "inquirer", open_request, None).non_disclosure
    provided_to = InformationProvided("a-1", LATER, False, (0, 1), ("", "I-204"), (1, 0), False, ((), ()))
    request = Recorded(1, "provision/x-1", 1, "m", AT, WANTED)
    assert not record(0, "provider", request, provided_to).non_disclosure


@pytest.mark.req("R-152")
async def test_records_are_of_the_class_that_is_kept_for_seven_years(house: House) -> None:
    assert retention("provision_record").years == 7
    kinds: tuple[Any, ...] = (*inquiry.EVENTS, *provision.EVENTS, *correction.EVENTS)
    assert {kind.wire.retention for kind in kinds} == {"provision_record"}
    await house.answer(0)
    await house.asking.take_in()
    for town in (house.asking, house.answering):
        sealed = [r for r in await town.events() if r.event.wire.retention == "provision_record"]
        keys = {town.folder.ledger.registry.key_id(r.event, r.at) for r in sealed} - {None}
        assert keys == {"provision_record/2026-11"}, "one key a month, which can be destroyed in its time"
    house.clock.advance(timedelta(days=7 * 365))
    assert [len(found) for found in await both(house, 0)] == [1, 1]


@pytest.mark.req("R-153")
async def test_each_side_has_its_own_record_and_needs_nobody_to_show_it(house: House) -> None:
    await house.answer(0)
    await house.asking.take_in()
    house.asking.linkage.directory = house.answering.linkage.directory = None
    for found in await both(house, 0):
        assert [each.closed for each in found] == [True]
    for town in (house.asking, house.answering):
        for name in ("連携市", "見本市", OFFICE, AFFAIR):
            assert name.encode() in contents(await town.events())
