"""The provider has no code (Order art. 26(2), (3)): the inquirer asks it to acquire one, and asks again."""

from dataclasses import asdict
from typing import Any

import pytest

from adapters.platform.code_requests import CodeRequests, OpenRequest
from broker.intermediate import code_request
from broker.intermediate.code_request import (
    CodeRequestDecided,
    CodeRequestReceived,
    CodeRequestSent,
    CodeRequestSettled,
    State,
)
from broker.linkage.outgoing import MessageQueued
from schemas.codes import integrated_number
from schemas.errors import Refusal
from tests.house import (
    ANSWERING,
    ASKING,
    NO_CODE,
    OFFICER,
    RESIDENTS,
    STORED,
    House,
    Town,
    contents,
    events_of,
    files_with,
    order,
    resident,
)
from tests.intermediate.samples import AT, LATER, after
from tests.registry.settling import codes_of, until_settled

NUMBER = "x-1"
FREE = next(n for serial in range(7, 30) if (n := integrated_number(serial)) is not None)
SENT = CodeRequestSent(NUMBER, "m-1", ANSWERING.code, ("p1",), AT, OFFICER)
RELAYED, REFUSED = CodeRequestSettled("m-1", "", LATER), CodeRequestSettled("m-1", "N-118", LATER)
ITEMS = {"name": "見本　花子", "kana": "ミホン", "birth_date": "1990-01-31", "sex": "2", "address": "見本市"}
RECEIVED = CodeRequestReceived(NUMBER, "m-1", ASKING.code, AT, ("p1", ""), ("", "I-221"), ({}, ITEMS))
FOUND, NOBODY = (
    CodeRequestDecided(1, "p2", "", LATER, "o1"),
    CodeRequestDecided(1, "", "I-223", LATER, "o1"),
)


# 判断


def test_there_is_one_request_for_an_exchange_unless_the_network_refused_it() -> None:
    assert code_request.decide_send(State(), SENT, "city") == (SENT,)
    sent = after(State(), code_request.evolve, SENT)
    assert code_request.decide_send(sent, SENT, "city") == Refusal("I-105")
    relayed = after(sent, code_request.evolve, RELAYED)
    assert code_request.decide_send(relayed, SENT, "city") == Refusal("I-105")
    assert code_request.decide_settle(relayed, RELAYED) == ()
    refused = after(sent, code_request.evolve, REFUSED)
    assert code_request.decide_send(refused, SENT, "city") == (SENT,)
    assert after(refused, code_request.evolve, SENT).letters == 2


def test_the_minister_of_justice_is_not_asked() -> None:
    assert code_request.decide_send(State(), SENT, "minister_of_justice") == Refusal("I-225")


def test_where_nobody_lacks_a_code_nothing_is_asked() -> None:
    nobody = CodeRequestSent(NUMBER, "m-1", ANSWERING.code, (), AT, OFFICER)
    assert code_request.decide_send(State(), nobody, "city") == Refusal("I-226")


def test_an_officer_decides_once_about_each_on_the_list() -> None:
    received = after(State(), code_request.evolve, RECEIVED)
    assert code_request.decide_person(received, FOUND) == (FOUND,)
    assert code_request.decide_person(received, NOBODY) == (NOBODY,)
    decided = after(received, code_request.evolve, FOUND)
    assert decided.codes == ("", "")
    for state, place in ((decided, 1), (received, 0), (received, 2), (received, -1), (State(), 0)):
        again = CodeRequestDecided(place, "p2", "", LATER, "o1")
        assert code_request.decide_person(state, again) == Refusal("I-227")


def test_our_own_request_is_none_that_came_in() -> None:
    sent = after(State(), code_request.evolve, SENT)
    assert code_request.decide_receive(sent, RECEIVED) == Refusal("L-107", "processing_number")


# 全体


def desk(town: Town) -> CodeRequests:
    return CodeRequests(town.platform, town.addressing, codes_of(town))


async def refused(house: House, request_id: str = "q-1") -> str:
    """連携市 asks about somebody for whom 見本市 has no code; the inquiry's id."""
    assert await house.asking.platform.inquire(order(request_id, NO_CODE)) is None
    await house.asking.send()
    result = await house.asking.result(request_id)
    assert (result.state, result.code) == ("refused", "N-106")
    return house.asking.platform.inquiry_id(request_id)


async def here(town: Town, index: int, **changes: str) -> str:
    """Somebody is registered and has no code yet."""
    values: dict[str, Any] = {**asdict(RESIDENTS[town.agency.code][index]), **changes}
    assert await town.addressing.register(values) is None
    return str(values["integrated_number"])


async def test_the_provider_finds_the_person_acquires_the_code_and_answers_the_next_inquiry(
    house: House,
) -> None:
    ours, theirs = desk(house.asking), desk(house.answering)
    # Known there, with nothing waiting: an earlier acquisition had failed.
    who = await here(house.answering, NO_CODE, address=RESIDENTS[ASKING.code][NO_CODE].address)
    ((number, _),) = await house.answering.addressing.acquisitions()
    await house.answering.addressing.settle({number: "J-101"})
    inquiry = await refused(house)
    assert await ours.ask(inquiry, OFFICER) is None
    assert await ours.ask(inquiry, OFFICER) == Refusal("I-105")
    await house.post()
    assert await theirs.open_requests() == []
    assert (await house.answering.addressing.progress()).waiting == 1, "the wish is there"
    await until_settled(house, house.answering)
    assert await codes_of(house.answering).valid(who)
    assert await house.asking.platform.inquire(order("q-2", NO_CODE)) is None
    await house.post()
    result = await house.asking.result("q-2")
    assert (result.state, result.code) == ("refused", "I-204"), "permitted now; 見本市 has no record of them"
    (received,) = await house.answering.of_kind(CodeRequestReceived)
    assert (received.codes, received.items) == (("",), ({},)), "who was found is not written down again"


@pytest.mark.req("R-113")
async def test_the_basic_items_travel_sealed_and_stay_sealed(house: House) -> None:
    inquiry = await refused(house)
    desk(house.answering)
    assert await desk(house.asking).ask(inquiry, OFFICER) is None
    (letter,) = [m for m in await house.asking.outbox() if m.kind == "acquisition_request"]
    assert isinstance(letter, MessageQueued)
    await house.post()
    person = RESIDENTS[ASKING.code][NO_CODE]
    items = (person.name, person.kana, person.birth_date, person.address)
    for item in items:
        assert item.encode() not in letter.control + letter.sealed
    assert files_with(house.folder, *items) == []
    network = contents(await events_of(house.core.ledger))
    assert not [item for item in items if item.encode() in network], "the network never learns them"
    (received,) = await house.answering.of_kind(CodeRequestReceived)
    assert received.items[0]["name"] == person.name, "the officer who has to find the person can read it"


@pytest.mark.parametrize(("registered", "code"), [(0, "I-221"), (2, "I-222")])
async def test_whom_nobody_or_several_fit_an_officer_has_to_find(
    house: House, registered: int, code: str
) -> None:
    ours, theirs = desk(house.asking), desk(house.answering)
    twins = [RESIDENTS[ANSWERING.code][NO_CODE].integrated_number, FREE][:registered]
    individual = [RESIDENTS[ANSWERING.code][NO_CODE].individual_number, "123456789018"]
    for twin, number in zip(twins, individual, strict=False):
        address = RESIDENTS[ASKING.code][NO_CODE].address
        await here(
            house.answering, NO_CODE, integrated_number=twin, individual_number=number, address=address
        )
    assert await ours.ask(await refused(house), OFFICER) is None
    await house.post()
    (listed,) = await theirs.open_requests()
    assert (listed.place, listed.inquirer, listed.code) == (0, ASKING.code, code)
    assert listed.items["name"] == RESIDENTS[ASKING.code][NO_CODE].name
    number = listed.processing_number
    assert await theirs.decide(number, 0, resident(ANSWERING, 0)[:-1] + "x", "o1") == Refusal("B-007")
    assert await theirs.decide("other", 0, "", "o1") == Refusal("I-227")
    known = await here(house.answering, NO_CODE, address="見本市別の町１番")
    assert await theirs.decide(number, 0, known, "o1") is None
    assert await theirs.decide(number, 0, known, "o1") == Refusal("I-227")
    assert await theirs.open_requests() == []
    (decided,) = await house.answering.of_kind(CodeRequestDecided)
    assert decided.staff_id == "o1"


async def test_an_officer_may_say_that_there_is_no_such_person(house: House) -> None:
    theirs = desk(house.answering)
    assert await desk(house.asking).ask(await refused(house), OFFICER) is None
    await house.post()
    (listed,) = await theirs.open_requests()
    assert isinstance(listed, OpenRequest)
    assert await theirs.decide(listed.processing_number, 0, "", "o1") is None
    assert await theirs.open_requests() == []
    waiting = (await house.answering.addressing.progress()).waiting
    assert waiting == 0


async def test_only_for_whom_the_provider_has_no_code_is_anything_asked(house: House) -> None:
    ours = desk(house.asking)
    assert await house.asking.platform.inquire(order("q-1", *STORED)) is None
    await house.post()
    assert await ours.ask(house.asking.platform.inquiry_id("q-1"), OFFICER) == Refusal("I-226")
    assert await ours.ask("unknown", OFFICER) == Refusal("I-226")


async def test_the_same_letter_twice_leaves_one_wish(house: House) -> None:
    desk(house.answering)
    address = RESIDENTS[ASKING.code][NO_CODE].address
    await here(house.answering, NO_CODE, address=address)
    assert await desk(house.asking).ask(await refused(house), OFFICER) is None
    await house.asking.send()
    (delivery,) = [d for d in await house.answering.mail() if d.kind == "acquisition_request"]
    for _ in range(2):
        assert await house.answering.platform.receive(delivery) is None
    assert len(await house.answering.of_kind(CodeRequestReceived)) == 1
    (settled,) = await house.asking.of_kind(CodeRequestSettled)
    assert settled.code == ""
