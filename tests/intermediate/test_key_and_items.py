"""What selects a record (照会のキー情報), and how little of it is exchanged (必要最小限)."""

import pytest

from broker.intermediate.provision import InformationProvided
from schemas.errors import Refusal
from schemas.items import layout
from schemas.messages import (
    Permit,
    decode,
)
from tests.house import (
    ANSWERING,
    LAYOUT,
    NECESSARY,
    YEAR,
    House,
    asked_of,
    income,
    order,
    resident,
)
from tests.linkage.forging import ANSWER, INQUIRY, scene_of


@pytest.mark.req("R-084", "R-122")
async def test_a_record_is_found_by_person_layout_and_year(house: House) -> None:
    for index in (0, 1):
        number = resident(ANSWERING, index)
        register = house.answering.platform.register_replica
        assert await register(number, LAYOUT, "2025", income(index, "2025")) is None
    for request_id, index, year in (("q-1", 0, "2025"), ("q-2", 0, YEAR), ("q-3", 1, "2025")):
        asked = order(request_id, index, fiscal_year=year)
        assert await house.asking.platform.inquire(asked) is None
    await house.post()
    for request_id, index, year in (("q-1", 0, "2025"), ("q-2", 0, YEAR), ("q-3", 1, "2025")):
        assert (await house.asking.result(request_id)).payloads == (asked_of(index, year),)


@pytest.mark.req("R-084")
async def test_the_key_of_an_inquiry_is_defined_and_whole(house: House) -> None:
    scene = await scene_of(house, INQUIRY, 0)
    (subject,) = scene.subjects()
    assert set(subject) == {"salt", "guard_salt", "guard", "fiscal_year"}
    assert subject["fiscal_year"] == YEAR
    assert len(decode(Permit, scene.genuine.note).link_codes) == 1
    for missing in set(subject) - {"salt"}:
        content = [{name: value for name, value in subject.items() if name != missing}]
        failed = scene.check(scene.made(content=content))
        assert failed.refusal.code == "L-305"


@pytest.mark.req("R-122")
async def test_a_changed_record_is_answered_as_it_is_now(house: House) -> None:
    changed = {**income(0), "total_income": "1"}
    register = house.answering.platform.register_replica
    assert await register(resident(ANSWERING, 0), LAYOUT, YEAR, changed) is None
    await house.answer(0)
    assert await house.asking.take_in() == [None]
    assert (await house.asking.result("q-1")).payloads[0]["total_income"] == "1"
    (provided,) = await house.answering.of_kind(InformationProvided)
    (source,) = await house.answering.platform.ledger.at(provided.sources)
    assert source.event.payload == changed, "the record says which copy was read"


@pytest.mark.req("R-087")
async def test_only_what_the_affair_needs_is_asked_for_and_answered(house: House) -> None:
    scene = await scene_of(house, ANSWER, 0)
    (subject,) = scene.subjects()
    assert set(subject["payload"]) == set(NECESSARY)
    assert "annual_tax" not in NECESSARY
    assert income(0)["annual_tax"].encode() not in scene.opened()
    leaves = {item.code for item in layout(LAYOUT).leaves}
    assert set(NECESSARY) < leaves
    assert await house.asking.platform.inquire(order("q-2", 0, row="106")) is None
    await house.post()
    assert set((await house.asking.result("q-2")).payloads[0]) == leaves, "this affair needs them all"


@pytest.mark.req("R-087")
async def test_an_answer_with_more_than_was_asked_for_is_not_taken_over(house: House) -> None:
    scene = await scene_of(house, ANSWER, 0, 1)
    first, second = scene.subjects()
    more = {**first["payload"], "annual_tax": income(0)["annual_tax"]}
    assert (
        await house.asking.platform.receive(scene.made(content=[{**first, "payload": more}, second])) is None
    )
    result = await house.asking.result("q-1")
    assert (result.codes, result.payloads) == (("I-301", ""), ({}, asked_of(1)))


async def test_an_answer_about_fewer_persons_than_it_names_is_refused(house: House) -> None:
    scene = await scene_of(house, ANSWER, 0, 1)
    fewer = scene.made(content=scene.subjects()[:1], subjects=1)
    assert await house.asking.platform.receive(fewer) == Refusal("L-305", "persons")
    assert (await house.asking.result("q-1")).state == "waiting"
    half = scene.made(content=scene.subjects()[:1], subjects=1, persons=(0,))
    assert await house.asking.platform.receive(half) == Refusal("L-107", "units"), (
        "they were asked as a household"
    )


async def test_a_layout_that_the_provider_does_not_know_is_refused_with_a_reason(house: House) -> None:
    scene = await scene_of(house, INQUIRY, 0)
    assert await house.answering.platform.receive(scene.made(layout="income_tax_certificate/9")) is None
    await house.post()
    result = await house.asking.result("q-1")
    assert (result.state, result.code) == ("refused", "I-206")
