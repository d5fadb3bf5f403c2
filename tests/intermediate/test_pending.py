"""Open inquiries: withdrawn (取りやめ), answered too late, sent later, ended when the permit has lapsed."""

from dataclasses import replace
from datetime import timedelta

import pytest

from adapters.platform.staffing import Caller
from broker.intermediate.inquiry import MARGIN, InquiryReleased, InquiryWithdrawalRequested
from broker.intermediate.operation import OperationRecorded
from broker.linkage.outgoing import MessageQueued, MessageSettled
from schemas.errors import Refusal
from schemas.messages import LetterControl, decode
from tests.house import (
    ANSWERING,
    ASKING,
    NO_CODE,
    OFFICE,
    OFFICER,
    PERMIT_LIFE,
    START,
    House,
    Keys,
    asked_of,
    open_house,
    order,
    resident,
)

LATER = (START + timedelta(hours=8)).isoformat()


async def withdraw(house: House, *request_ids: str, staff_id: str = OFFICER) -> list[str]:
    caller = Caller(staff_id, "t-1", "申請の取下げ")
    verdicts = await house.asking.platform.pending.withdraw(request_ids, caller)
    return [refusal.code if refusal is not None else "" for refusal in verdicts]


async def state(house: House, request_id: str = "q-1") -> tuple[str, str]:
    result = await house.asking.result(request_id)
    (status,) = await house.asking.platform.inquiry_status([request_id])
    assert (status.state, status.code) == (result.state, result.code)
    return result.state, result.code


# 取りやめ


@pytest.mark.req("R-089")
async def test_an_inquiry_that_was_not_sent_is_withdrawn_without_the_network(house: House) -> None:
    platform = house.asking.platform
    assert await platform.inquire(order("q-1", 0)) is None
    (message,) = await house.asking.outbox()
    assert await withdraw(house, "q-1") == [""]
    assert not platform.pending.may_leave(message.message_id), "whoever was about to send it does not"
    assert await house.asking.outbox() == []
    assert [e.code for e in await house.asking.of_kind(MessageSettled)] == ["I-111"]
    assert await state(house) == ("withdrawn", "I-111")
    await house.post()
    assert await house.answering.mail() == []
    assert await withdraw(house, "q-1") == ["I-113"]


@pytest.mark.req("R-089")
async def test_an_inquiry_that_was_sent_is_withdrawn_by_the_network_before_the_answer(house: House) -> None:
    await house.ask(0)
    assert await withdraw(house, "q-1") == [""]
    assert await state(house) == ("withdrawing", "")
    assert await withdraw(house, "q-1") == [""], "once more changes nothing"
    (letter,) = await house.asking.outbox()
    control = decode(LetterControl, letter.control)
    assert (control.kind, control.receiver, control.office) == ("withdrawal", ANSWERING.code, OFFICE)
    assert [v.code for v in await house.asking.send()] == [""]
    assert await state(house) == ("withdrawn", "I-111")
    await house.answering.take_in()
    assert [v.code for v in await house.answering.send()] == ["N-113"]
    assert await house.asking.take_in() == []
    (record,) = await house.asking.platform.records(resident(ASKING, 0))
    assert (record.provided_at, record.refusal, record.closed) == ("", "I-111", True)
    (said,) = await house.asking.of_kind(InquiryWithdrawalRequested)
    assert (said.staff_id, said.reason) == (OFFICER, "申請の取下げ")
    (entry,) = await house.asking.of_kind(OperationRecorded)
    assert (entry.operation, entry.target) == ("withdraw", house.asking.platform.inquiry_id("q-1"))


@pytest.mark.req("R-089")
async def test_what_was_answered_before_stays_answered(house: House) -> None:
    answer = await house.answer(0)
    assert await withdraw(house, "q-1") == [""]
    assert [v.code for v in await house.asking.send()] == ["N-110"]
    assert await state(house) == ("waiting", "")
    assert await house.asking.platform.receive(answer) is None
    assert await state(house) == ("answered", "")
    assert (await house.asking.result("q-1")).payloads == (asked_of(0),)
    assert await withdraw(house, "q-1") == ["I-113"]


@pytest.mark.req("R-089")
async def test_an_answer_on_its_way_is_taken_while_the_network_is_asked(house: House) -> None:
    answer = await house.answer(0)
    assert await withdraw(house, "q-1") == [""]
    assert await house.asking.platform.receive(answer) is None
    assert [v.code for v in await house.asking.send()] == ["N-110"]
    assert await state(house) == ("answered", "")


@pytest.mark.req("R-089")
async def test_what_may_have_been_sent_is_withdrawn_as_soon_as_the_network_has_spoken(house: House) -> None:
    platform = house.asking.platform
    assert await platform.inquire(order("q-1", 0)) is None
    (message,) = await house.asking.outbox()
    assert platform.pending.may_leave(message.message_id)
    (verdict,) = await house.asking.client.submit([message])
    assert await withdraw(house, "q-1") == [""]
    assert await state(house) == ("withdrawing", "")
    await platform.settle(verdict)
    assert await state(house) == ("withdrawing", "")
    (letter,) = await house.asking.outbox()
    assert letter.kind == "withdrawal"
    await house.asking.send()
    assert await state(house) == ("withdrawn", "I-111")


@pytest.mark.req("R-089")
async def test_what_an_earlier_process_queued_may_have_been_sent(
    tmp_path_factory: pytest.TempPathFactory, keys: Keys
) -> None:
    folder = tmp_path_factory.mktemp("again")
    async with open_house(folder, keys) as house:
        await house.furnish()
        assert await house.asking.platform.inquire(order("q-1", 0)) is None
        assert await house.asking.platform.inquire(order("q-2", NO_CODE)) is None
    async with open_house(folder, keys, opening=2) as house:
        for town in house.towns.values():
            await town.look_around()
        assert await withdraw(house, "q-1", "q-2") == ["", ""]
        assert [m.kind for m in await house.asking.outbox()] == ["inquiry", "inquiry"]
        await house.asking.send()
        await house.asking.send()
        assert await state(house, "q-1") == ("withdrawn", "I-111")
        assert await state(house, "q-2") == ("refused", "N-106"), "the network refused it first"


@pytest.mark.req("R-089")
async def test_what_was_sent_together_is_withdrawn_together(house: House) -> None:
    orders = [order("q-1", 0), order("q-2", 1), order("q-3", NO_CODE)]
    await house.asking.platform.inquire_many(orders)
    await house.asking.send()
    assert await withdraw(house, "q-1", "never") == ["I-112", "I-113"]
    assert await withdraw(house, "q-2", "q-1", staff_id="s0002") == ["I-101", "I-101"]
    assert await withdraw(house, "q-2", "q-1") == ["", ""], "the third is refused already"
    await house.asking.send()
    states = [(r.state, r.code) for r in await house.asking.platform.results(["q-1", "q-2", "q-3"])]
    assert states == [("withdrawn", "I-111"), ("withdrawn", "I-111"), ("refused", "N-106")]


@pytest.mark.req("R-089")
async def test_an_answer_after_the_withdrawal_is_refused_and_logged(house: House) -> None:
    """The network lets none pass; should one come all the same, this side does not take it either."""
    answer = await house.answer(0)
    house.clock.advance(timedelta(minutes=1))
    platform = house.asking.platform
    assert await withdraw(house, "q-1") == [""]
    (letter,) = [m for m in await house.asking.outbox() if m.kind == "withdrawal"]
    (verdict,) = await house.asking.client.submit([letter])
    earlier = (START - timedelta(minutes=1)).isoformat()
    await platform.settle(replace(verdict, code="", decided_at=earlier))
    assert await platform.receive(answer) == Refusal("I-114")
    assert (await house.asking.log())[-1]["code"] == "I-114"
    assert (await house.asking.result("q-1")).payloads == ()


# 期限


async def test_who_is_open_when_the_permit_has_lapsed_is_done_with(house: House) -> None:
    await house.ask(0)
    pending = house.asking.platform.pending
    house.clock.advance(PERMIT_LIFE + MARGIN)
    assert await pending.tend(house.clock()) == 0
    assert await state(house) == ("waiting", "")
    house.clock.advance(timedelta(seconds=1))
    assert await pending.tend(house.clock()) == 1
    assert await state(house) == ("expired", "N-109")
    assert await pending.tend(house.clock()) == 0
    (record,) = await house.asking.platform.records(resident(ASKING, 0))
    assert (record.provided_at, record.refusal, record.closed) == ("", "N-109", True)


async def test_an_answer_relayed_in_time_is_taken_after_the_end(house: House) -> None:
    answer = await house.answer(0)
    house.clock.advance(PERMIT_LIFE + MARGIN + timedelta(seconds=1))
    assert await house.asking.platform.pending.tend(house.clock()) == 1
    assert await state(house) == ("expired", "N-109")
    assert await house.asking.platform.receive(answer) is None
    assert await state(house) == ("answered", "")
    assert (await house.asking.result("q-1")).payloads == (asked_of(0),)


# 処理のタイミング


@pytest.mark.req("R-082")
async def test_an_inquiry_waits_for_its_time(house: House) -> None:
    platform, pending = house.asking.platform, house.asking.platform.pending
    orders = [order(f"q-{number}", number, not_before=LATER) for number in range(2)]
    assert await platform.inquire_many(orders) == [None, None]
    assert await house.asking.outbox() == []
    assert await platform.open_inquiries(["q-0", "q-1"]) == 2
    assert await state(house) == ("deferred", "")
    house.clock.advance(timedelta(hours=8))
    assert await pending.tend(house.clock()) == 0
    house.clock.advance(timedelta(seconds=1))
    assert await pending.tend(house.clock()) == 1
    assert len(await house.asking.of_kind(InquiryReleased)) == 1
    assert await pending.tend(house.clock()) == 0
    assert await state(house) == ("asked", "")
    await house.post()
    assert (await house.asking.result("q-1")).payloads == (asked_of(1),)


@pytest.mark.req("R-082", "R-089")
async def test_an_inquiry_that_waits_for_its_time_is_withdrawn_without_a_message(house: House) -> None:
    assert await house.asking.platform.inquire(order("q-1", 0, not_before=LATER)) is None
    assert await withdraw(house, "q-1") == [""]
    assert await state(house) == ("withdrawn", "I-111")
    house.clock.advance(timedelta(days=1))
    assert await house.asking.platform.pending.tend(house.clock()) == 0
    assert await house.asking.of_kind(MessageQueued) == []


@pytest.mark.req("R-082")
async def test_whoever_lost_the_authority_meanwhile_sends_nothing(house: House) -> None:
    after = (START + timedelta(days=200)).isoformat()
    assert await house.asking.platform.inquire(order("q-1", 0, not_before=after)) is None
    house.clock.advance(timedelta(days=201))
    assert await house.asking.platform.pending.tend(house.clock()) == 1
    assert await state(house) == ("refused", "I-101")
    assert await house.asking.of_kind(MessageQueued) == []


async def test_a_time_in_the_past_means_at_once_and_one_without_offset_is_none(house: House) -> None:
    earlier = (START - timedelta(hours=1)).isoformat()
    assert await house.asking.platform.inquire(order("q-1", 0, not_before=earlier)) is None
    assert len(await house.asking.outbox()) == 1
    with pytest.raises(ValueError, match="offset"):
        order("q-2", 0, not_before="2026-11-21T18:00:00")
