"""Many orders in one submission: few envelopes, a verdict for each, and no request id that is used twice."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
import trio

from adapters.platform import asking
from adapters.platform.asking import InquiryOrder
from broker.intermediate.inquiry import InquiryRequested, RequestJoined
from broker.linkage.outgoing import MessageQueued
from schemas.errors import Refusal
from schemas.messages import InquiryControl, decode
from tests.house import (
    ANSWERING,
    ASKING,
    NO_CODE,
    NO_RECORD,
    OTHER,
    House,
    Keys,
    asked_of,
    open_house,
    order,
    resident,
)


def codes(verdicts: Sequence[Refusal | None]) -> list[str]:
    return [refusal.code if refusal is not None else "" for refusal in verdicts]


def some(count: int, **changes: Any) -> list[InquiryOrder]:
    """Orders q-0, q-1, ... about those whose records 見本市 holds."""
    return [order(f"q-{number}", number % 3, **changes) for number in range(count)]


async def envelopes(house: House) -> list[InquiryControl]:
    return [decode(InquiryControl, m.control) for m in await house.asking.of_kind(MessageQueued)]


@pytest.mark.req("R-082", "R-128", "R-212")
async def test_orders_of_one_submission_go_in_one_envelope_and_each_gets_its_own_answer(house: House) -> None:
    household = order("h-1", 0, 1, 2)
    submitted = [*some(7), household]
    assert codes(await house.asking.platform.inquire_many(submitted)) == [""] * 8
    (control,) = await envelopes(house)
    assert control.units == (1, 1, 1, 1, 1, 1, 1, 3)
    assert len(await house.asking.of_kind(RequestJoined)) == 8
    await house.post()
    for number in range(7):
        result = await house.asking.result(f"q-{number}")
        assert (result.state, result.payloads) == ("answered", (asked_of(number % 3),))
        assert result.subjects == (resident(ASKING, number % 3),)
    assert (await house.asking.result("h-1")).payloads == tuple(asked_of(index) for index in range(3))
    assert len({(await house.asking.result(f"q-{n}")).processing_number for n in range(7)}) == 1


@pytest.mark.req("R-208", "R-212")
async def test_households_of_six_three_and_one_are_asked_and_answered_whole(house: House) -> None:
    """Six for fixed assets, three for income certificates, one for others: relatives are asked about, too."""
    six, three, one = order("h-6", 0, 1, 2, 0, 1, 2), order("h-3", 2, NO_RECORD, 0), order("h-1", 1)
    held = resident(ANSWERING, 1)
    await house.answering.platform.set_hold(held, True, "protected_person")
    assert codes(await house.asking.platform.inquire_many([six, three, one])) == [""] * 3
    (control,) = await envelopes(house)
    assert control.units == (6, 3, 1)
    await house.post()
    states = [(r.state, r.codes) for r in await house.asking.platform.results(["h-6", "h-3", "h-1"])]
    assert states == [("waiting", ()), ("answered", ("", "I-204", "")), ("waiting", ())]


@pytest.mark.req("R-082")
async def test_what_differs_in_provider_staff_law_or_year_is_another_envelope(house: House) -> None:
    submitted = [
        *some(3),
        order("p-1", 0, provider=OTHER.code),
        order("y-1", 0, fiscal_year="2025"),
        order("r-1", 0, row="106"),
        order("k-1", 0, case_number="事案1"),
    ]
    assert codes(await house.asking.platform.inquire_many(submitted)) == [""] * 7
    assert sorted(c.units for c in await envelopes(house)) == [(1,), (1,), (1,), (1, 1, 1, 1)]


async def test_what_is_too_large_for_one_envelope_takes_more_and_no_household_is_torn(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "MAX_RECORDS", 5)
    submitted = [order(f"h-{number}", 0, 1, 2) for number in range(3)] + some(2)
    too_large = order("big", *[0] * 6)
    verdicts = await house.asking.platform.inquire_many([*submitted, too_large])
    assert codes(verdicts) == [""] * 5 + ["B-011"]
    assert [c.units for c in await envelopes(house)] == [(3,), (3,), (3, 1, 1)]
    await house.post()
    assert {(await house.asking.result(each.request_id)).state for each in submitted} == {"answered"}


@pytest.mark.req("R-154")
async def test_an_order_with_a_fault_of_its_own_is_refused_alone_and_recorded(house: House) -> None:
    stranger = order("s-1", subjects=("999999999999999",))
    submitted = [*some(2), stranger, order("n-1", 0, NO_RECORD), order("c-1", NO_CODE), order("e-1")]
    assert codes(await house.asking.platform.inquire_many(submitted)) == ["", "", "I-104", "", "", ""]
    assert sorted(c.units for c in await envelopes(house)) == [(0,), (1, 1, 2, 1)]
    await house.post()
    found = await house.asking.platform.results([each.request_id for each in submitted])
    assert [(result.state, result.code) for result in found] == [
        ("answered", ""),
        ("answered", ""),
        ("refused", "I-104"),
        ("answered", ""),
        ("refused", "N-106"),
        ("refused", "N-111"),
    ]
    assert found[3].codes == ("", "I-204")
    assert len(await house.asking.of_kind(InquiryRequested)) == 3


async def test_a_fault_that_all_share_refuses_them_together_with_one_record(house: House) -> None:
    for changes, code in (({"staff_id": "s0002"}, "I-101"), ({"row": "2"}, "L-104")):
        submitted = [replace(each, request_id=f"{code}/{each.request_id}") for each in some(4, **changes)]
        assert codes(await house.asking.platform.inquire_many(submitted)) == [code] * 4
        assert {r.code for r in await house.asking.platform.results([o.request_id for o in submitted])} == {
            code
        }
    assert await house.asking.outbox() == []
    assert len(await house.asking.of_kind(InquiryRequested)) == 2


async def test_a_request_id_is_used_once_in_one_file_in_two_and_singly(house: House) -> None:
    platform = house.asking.platform
    assert await platform.inquire(order("q-1", 1)) is None
    first = [*some(3), order("q-2", 2), order("q-2", 0)]
    assert codes(await platform.inquire_many(first)) == ["", "I-105", "", "I-105", "B-008"]
    assert codes(await platform.inquire_many([*some(3), order("q-3", 0)])) == ["I-105"] * 3 + [""]
    assert await platform.inquire(order("q-0", 0, terminal="t-2")) == Refusal("I-105")
    other = await platform.inquire(order("q-0", 1))
    assert other is not None
    assert other.code == "B-008"
    assert sorted(c.units for c in await envelopes(house)) == [(1,), (1,), (1, 1)]


async def test_two_submissions_at_once_ask_everything_once(house: House) -> None:
    verdicts: dict[int, list[str]] = {}

    async def submit(number: int, orders: Sequence[InquiryOrder]) -> None:
        verdicts[number] = codes(await house.asking.platform.inquire_many(orders))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(submit, 0, some(6))
        nursery.start_soon(submit, 1, some(6))
        nursery.start_soon(submit, 2, list(reversed(some(8))))
        nursery.start_soon(submit, 3, some(1))
    assert sum(len(c.units) for c in await envelopes(house)) == 8
    assert sorted(chain.from_iterable(verdicts.values())) == [""] * 8 + ["I-105"] * 13


async def test_a_submission_outlives_a_restart_and_is_known_to_the_next_process(
    tmp_path_factory: pytest.TempPathFactory, keys: Keys
) -> None:
    folder = tmp_path_factory.mktemp("again")
    async with open_house(folder, keys) as house:
        await house.furnish()
        assert codes(await house.asking.platform.inquire_many(some(3))) == [""] * 3
    async with open_house(folder, keys, opening=2) as house:
        for town in house.towns.values():
            await town.look_around()
        assert codes(await house.asking.platform.inquire_many(some(4))) == ["I-105"] * 3 + [""]
        await house.post()
        assert [(await house.asking.result(f"q-{n}")).state for n in range(4)] == ["answered"] * 4


@pytest.mark.req("R-090")
async def test_states_are_found_by_request_and_by_case(house: House) -> None:
    platform = house.asking.platform
    submitted = [*some(2, case_number="K-7"), order("q-2", NO_CODE, case_number="K-7"), order("q-3", 0)]
    await platform.inquire_many(submitted)
    assert await platform.of_case("K-7") == ["q-0", "q-1", "q-2"]
    assert await platform.of_case("K-8") == []
    wanted = ["q-3", "q-2", "never", "q-0"]
    assert await platform.open_inquiries(wanted) == 3
    assert [(s.request_id, s.state) for s in await platform.inquiry_status(wanted)] == [
        ("q-3", "asked"),
        ("q-2", "asked"),
        ("q-0", "asked"),
    ]
    await house.asking.send()
    assert [(s.state, s.code) for s in await platform.inquiry_status(wanted)] == [
        ("waiting", ""),
        ("refused", "N-106"),
        ("waiting", ""),
    ]
    await house.post()
    found = await platform.inquiry_status(wanted)
    assert [(s.state, s.code, s.case_number) for s in found] == [
        ("answered", "", ""),
        ("refused", "N-106", "K-7"),
        ("answered", "", "K-7"),
    ]
    assert await platform.open_inquiries(wanted) == 0
    assert await house.asking.rows("SELECT * FROM inquiry_pending") == []
    results = await platform.results(wanted)
    assert [(r.state, r.case_number) for r in results] == [
        ("answered", ""),
        ("refused", "K-7"),
        ("none", ""),
        ("answered", "K-7"),
    ]


@pytest.mark.req("R-201")
async def test_what_ended_without_an_answer_is_asked_again_under_a_new_id_that_names_the_old_one(
    house: House,
) -> None:
    platform = house.asking.platform
    assert codes(await platform.inquire_many([order("q-1", NO_CODE), order("q-2", 0)])) == ["", ""]
    early = await platform.inquire(order("q-9", NO_CODE, repeats="q-1"))
    assert early == Refusal("I-116")
    await house.post()
    again = [
        order("a-1", NO_CODE, repeats="q-1"),
        order("a-2", 0, repeats="q-2"),
        order("a-3", 0, repeats="never"),
        order("a-4", 1),
    ]
    assert codes(await platform.inquire_many(again)) == ["", "I-116", "I-115", ""]
    await house.post()
    assert (await house.asking.result("a-1")).code == "N-106", "asked by the officer, and never by itself"
    assert [e.repeats for e in await house.asking.of_kind(InquiryRequested)][-3:] == [
        ("q-2",),
        ("never",),
        ("q-1", ""),
    ]
