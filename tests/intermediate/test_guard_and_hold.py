"""Whom an answer must not be about, and for whom none leaves by itself."""

from dataclasses import replace
from typing import Any

import pytest

from broker.intermediate.provision import InformationProvided, ProvisionHeld
from broker.ledger.ledger import Unit
from broker.ledger.store import Outcome
from tests.house import (
    ANSWERING,
    ASKING,
    NO_RECORD,
    PEOPLE,
    RESIDENTS,
    House,
    asked_of,
    order,
    resident,
)
from tests.linkage.forging import INQUIRY, scene_of


@pytest.mark.req("R-086")
async def test_the_wrong_person_is_found_out_by_what_the_inquirer_knows(house: House) -> None:
    other_day = {**vars(RESIDENTS[ASKING.code][0]), "birth_date": "1901-02-03"}
    assert await house.asking.addressing.register(other_day) is None
    assert await house.asking.platform.inquire(order("q-1", 0, 1)) is None
    await house.post()
    result = await house.asking.result("q-1")
    assert (result.codes, result.payloads) == (("I-202", ""), ({}, asked_of(1)))


@pytest.mark.req("R-086")
async def test_what_guards_against_the_wrong_person_gives_nothing_away(house: House) -> None:
    first = await scene_of(house, INQUIRY, 0)
    second = replace(first, genuine=await house.ask(0, request_id="q-2"))
    guards = {scene.subjects()[0]["guard"] for scene in (first, second)}
    assert len(guards) == 2, "two inquiries about one person do not look alike"
    for scene in (first, second):
        for known in (PEOPLE[0].birth_date, PEOPLE[0].name, RESIDENTS[ASKING.code][0].address):
            assert known.encode() not in scene.opened()


# 自動応答不可


async def held(house: House) -> list[Any]:
    return await house.answering.of_kind(ProvisionHeld)


@pytest.mark.req("R-015", "R-071", "R-102", "R-104")
async def test_for_a_protected_person_no_answer_leaves_by_itself(house: House) -> None:
    await house.answering.platform.set_hold(resident(ANSWERING, 0), True, "protected_person")
    for request_id, people in (("q-1", (0,)), ("q-2", (1, 0)), ("q-3", (1,))):
        assert await house.asking.platform.inquire(order(request_id, *people)) is None
    await house.post()
    states = {name: (await house.asking.result(name)).state for name in ("q-1", "q-2", "q-3")}
    assert states == {"q-1": "waiting", "q-2": "waiting", "q-3": "answered"}
    assert len(await held(house)) == 2
    rows = await house.answering.rows("SELECT state, code FROM processing_status ORDER BY position")
    assert sorted(rows) == [("held", "I-203"), ("held", "I-203"), ("provided", "")]


@pytest.mark.req("R-102")
async def test_a_hold_set_between_look_up_and_commit_still_holds(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = await house.ask(0)
    platform = house.answering.platform
    append = platform.ledger.append

    async def protected_at_the_last_moment(unit: Unit) -> Outcome:
        if not unit.message_id.startswith("received/"):
            return await append(unit)
        monkeypatch.undo()
        await platform.set_hold(resident(ANSWERING, 0), True, "protected_person")
        return await append(unit)

    monkeypatch.setattr(platform.ledger, "append", protected_at_the_last_moment)
    assert await platform.receive(genuine) is None
    assert len(await held(house)) == 1
    assert await house.answering.of_kind(InformationProvided) == []
    assert await house.answering.outbox() == []


@pytest.mark.req("R-102")
async def test_a_hold_released_between_look_up_and_commit_is_looked_at_anew(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = house.answering.platform
    await platform.set_hold(resident(ANSWERING, 0), True, "protected_person")
    genuine = await house.ask(0)
    append = platform.ledger.append

    async def released_at_the_last_moment(unit: Unit) -> Outcome:
        if not unit.message_id.startswith("received/"):
            return await append(unit)
        monkeypatch.undo()
        await platform.set_hold(resident(ANSWERING, 0), False, "protected_person")
        return await append(unit)

    monkeypatch.setattr(platform.ledger, "append", released_at_the_last_moment)
    assert await platform.receive(genuine) is None
    assert await held(house) == []
    assert len(await house.answering.outbox()) == 1


@pytest.mark.req("R-071")
async def test_after_the_release_of_a_hold_answers_are_automatic_again(house: House) -> None:
    platform = house.answering.platform
    for wanted in (True, False):
        await platform.set_hold(resident(ANSWERING, 0), wanted, "protected_person")
    assert await house.asking.platform.inquire(order("q-1", 0)) is None
    await house.post()
    assert (await house.asking.result("q-1")).state == "answered"


@pytest.mark.req("R-102")
async def test_a_record_that_is_missing_does_not_tell_that_a_person_is_protected(house: House) -> None:
    await house.answering.platform.set_hold(resident(ANSWERING, NO_RECORD), True, "protected_person")
    assert await house.asking.platform.inquire(order("q-1", NO_RECORD)) is None
    await house.post()
    assert len(await held(house)) == 1
    assert (await house.asking.result("q-1")).state == "waiting"
