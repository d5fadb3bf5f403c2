"""Kinds of messages, results fetched later, and everything that happens at once, late or twice."""

from dataclasses import replace
from datetime import timedelta

import pytest
import trio

from broker.intermediate.inquiry import InquiryAnswered
from broker.intermediate.provision import InformationProvided, ProvisionRequested
from tests.house import (
    ANSWERING,
    ASKING,
    LAYOUT,
    NO_CODE,
    NO_RECORD,
    PERMIT_LIFE,
    ROW,
    YEAR,
    House,
    Keys,
    asked_of,
    income,
    open_house,
    order,
    resident,
)


@pytest.mark.req("R-083")
async def test_the_kind_of_a_message_stands_in_its_control_part_and_no_other_is_taken(house: House) -> None:
    """Inquiry and answer are told apart by their control part; a notice (連絡) has no kind yet."""
    assert await house.asking.platform.inquire(order("q-1", 0)) is None
    (message,) = await house.asking.outbox()
    assert b"InquiryControl" in message.control
    notice = message.control.replace(b"\xaeInquiryControl", b"\xadNoticeControl")
    assert notice != message.control
    for changes in ({"kind": "notice"}, {"kind": "answer"}, {"control": notice}):
        (verdict,) = await house.asking.client.submit([replace(message, **changes)])
        assert verdict.code == "N-111"
    (verdict,) = await house.asking.client.submit([message])
    assert verdict.code == ""
    (delivery,) = await house.answering.mail()
    for kind in ("notice", "answer"):
        assert await house.answering.platform.receive(replace(delivery, kind=kind)) is not None
    assert await house.answering.of_kind(ProvisionRequested) == []


@pytest.mark.req("R-085")
async def test_a_result_is_there_to_be_fetched_whenever_it_is_wanted(house: House) -> None:
    platform = house.asking.platform
    assert (await house.asking.result("q-1")).state == "none"
    assert await platform.inquire(order("q-1", 0)) is None
    assert await platform.open_inquiries(["q-1", "q-2"]) == 1
    assert [v.code for v in await house.asking.send()] == [""]
    assert (await house.asking.result("q-1")).state == "waiting"
    await house.post()
    assert await platform.open_inquiries(["q-1"]) == 0
    first = await house.asking.result("q-1")
    house.clock.advance(timedelta(days=100))
    assert await house.asking.result("q-1") == first
    assert await platform.results(["q-1", "q-2", "q-1"]) == [first, await house.asking.result("q-2"), first]


@pytest.mark.req("R-085")
async def test_a_result_outlives_a_restart(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> None:
    folder = tmp_path_factory.mktemp("again")
    async with open_house(folder, keys) as house:
        await house.furnish()
        await house.answer(0)
        assert await house.asking.take_in() == [None]
        result = await house.asking.result("q-1")
    async with open_house(folder, keys, opening=2) as house:
        assert await house.asking.result("q-1") == result
        assert result.payloads == (asked_of(0),)


async def test_an_answer_may_overtake_the_verdict_of_the_network(house: House) -> None:
    assert await house.asking.platform.inquire(order("q-1", 0)) is None
    (message,) = await house.asking.outbox()
    (verdict,) = await house.asking.client.submit([message])
    assert await house.answering.take_in() == [None]
    await house.answering.send()
    assert await house.asking.take_in() == [None]
    assert (await house.asking.result("q-1")).state == "answered"
    for _ in range(2):
        await house.asking.platform.settle(verdict)
    assert (await house.asking.result("q-1")).payloads == (asked_of(0),)
    assert await house.asking.outbox() == []


async def test_an_answer_that_comes_too_late_is_no_provision(house: House) -> None:
    assert await house.answering.platform.receive(await house.ask(0)) is None
    house.clock.advance(PERMIT_LIFE + timedelta(seconds=1))
    assert [v.code for v in await house.answering.send()] == ["N-109"]
    (record,) = await house.answering.platform.records(resident(ANSWERING, 0))
    assert (record.provided_at, record.refusal, record.closed) == ("", "N-109", True)
    rows = await house.answering.rows("SELECT state, code FROM processing_status")
    assert rows == [("refused", "N-109")]


async def test_the_same_delivery_at_the_same_moment_is_answered_once(house: House) -> None:
    genuine = await house.ask(0)
    async with trio.open_nursery() as nursery:
        for position in range(8):
            delivery = replace(genuine, position=genuine.position + position)
            nursery.start_soon(house.answering.platform.receive, delivery)
    assert len(await house.answering.outbox()) == 1
    assert len(await house.answering.of_kind(InformationProvided)) == 1


async def test_the_same_order_at_the_same_moment_is_asked_once(house: House) -> None:
    codes: list[str] = []

    async def inquire(people: int) -> None:
        refusal = await house.asking.platform.inquire(order("q-1", people))
        codes.append(refusal.code if refusal else "")

    async with trio.open_nursery() as nursery:
        for people in (0, 0, 0, 0):
            nursery.start_soon(inquire, people)
    assert sorted(codes) == ["", "I-105", "I-105", "I-105"]
    await inquire(1)
    assert codes[-1] == "B-008"
    assert len(await house.asking.outbox()) == 1


async def test_many_inquiries_at_one_time_are_each_answered_with_their_own(house: House) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(house.asking.platform.inquire, order(f"q-{number}", number % 3))
    await house.asking.send()
    async with trio.open_nursery() as nursery:
        for delivery in await house.answering.mail():
            nursery.start_soon(house.answering.platform.receive, delivery)
    house.answering.taken = house.core.ledger.position
    await house.post()
    for number in range(12):
        assert (await house.asking.result(f"q-{number}")).payloads == (asked_of(number % 3),)
    assert len(await house.asking.of_kind(InquiryAnswered)) == 12


@pytest.mark.req("R-073", "R-078")
async def test_the_state_of_each_inquiry_and_provision_can_be_seen(house: House) -> None:
    for request_id, person in (("q-1", 0), ("q-2", NO_RECORD), ("q-3", NO_CODE)):
        assert await house.asking.platform.inquire(order(request_id, person)) is None
    await house.post()
    columns = "SELECT state, code, partner, law_row FROM processing_status ORDER BY stream"
    assert sorted(await house.asking.rows(columns)) == [
        ("answered", "", ANSWERING.code, ROW),
        ("refused", "I-204", ANSWERING.code, ROW),
        ("refused", "N-106", ANSWERING.code, ROW),
    ]
    assert sorted(await house.answering.rows(columns)) == [
        ("provided", "", ASKING.code, ROW),
        ("refused", "I-204", ASKING.code, ROW),
    ]


async def test_a_record_for_nobody_or_of_no_layout_is_not_taken(house: House) -> None:
    register, number = house.answering.platform.register_replica, resident(ANSWERING, 0)
    for given, code in (
        ((resident(ASKING, 0), LAYOUT, YEAR, income(0)), "B-007"),
        ((number, "income_tax_certificate/9", YEAR, income(0)), "I-206"),
        ((number, LAYOUT, YEAR, {**income(0), "total_income": "x"}), "B-003"),
    ):
        refusal = await register(*given)
        assert refusal is not None
        assert refusal.code == code
    before = house.answering.platform.ledger.position
    assert await register(number, LAYOUT, YEAR, income(0)) is None
    assert house.answering.platform.ledger.position == before, "what is held already leaves no event"
