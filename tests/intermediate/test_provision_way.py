"""Provisions between two towns: parts of a file, withdrawal in any order, answers that come too late."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from adapters.platform.pending import Pending
from adapters.platform.staffing import Caller
from broker.intermediate import provision
from broker.intermediate.provision import (
    AnswerNotRelayed,
    InformationProvided,
    ProvisionRequested,
    ProvisionWithdrawn,
)
from broker.linkage.interface import Failed
from schemas.errors import Refusal
from schemas.messages import LetterControl, LetterNote, ReceivedLetter
from tests.house import (
    ANSWERING,
    ASKING,
    NO_RECORD,
    OTHER,
    PEOPLE,
    PERMIT_LIFE,
    House,
    asked_of,
    order,
    resident,
)

OFFICER = Caller("s0001", "窓口9", "申請の取下げ")


async def hold(house: House, index: int) -> None:
    platform = house.answering.platform
    assert await platform.set_hold(resident(ANSWERING, index), True, "protected_person") is None


@pytest.mark.req("R-072", "R-102", "R-147", "R-153")
async def test_a_file_is_answered_in_parts_and_what_is_held_keeps_nobody_waiting(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provision, "PART", 1)
    await hold(house, 1)
    orders = [order(f"q-{index}", index) for index in (0, 1, 2, NO_RECORD)]
    assert await house.asking.platform.inquire_many(orders) == [None] * 4
    await house.post()
    results = await house.asking.platform.results([each.request_id for each in orders])
    assert [each.state for each in results] == ["answered", "waiting", "answered", "refused"]
    assert [each.payloads for each in results[::2]] == [(asked_of(0),), (asked_of(2),)]
    (asked,) = await house.answering.of_kind(ProvisionRequested)
    assert asked.units == (1, 1, 1, 1)
    events = [r for r in await house.answering.events() if r.stream.startswith("provision/")]
    assert len({r.message_id for r in events}) == 1, "one unit for all that was said at once"
    provided = [r.event for r in events if isinstance(r.event, InformationProvided)]
    assert [each.persons for each in provided] == [(0,), (2,)]
    for index, closed in ((0, True), (1, False), (2, True)):
        (record,) = await house.answering.platform.records(resident(ANSWERING, index))
        assert record.closed is closed


@pytest.mark.req("R-086")
async def test_guards_of_many_are_those_of_each(house: House) -> None:
    addressing = house.answering.addressing
    asked = [(resident(ANSWERING, index), bytes([index] * 16)) for index in range(len(PEOPLE) - 1)]
    asked += [("", b"salt"), ("000000000000000", b"salt")]
    found = await addressing.guards(asked)
    assert found == [await addressing.guard(number, salt) for number, salt in asked]
    assert [guard is None for guard in found] == [False] * (len(PEOPLE) - 1) + [True, True]


@pytest.mark.req("R-089")
async def test_a_withdrawal_that_is_taken_in_before_its_inquiry_still_stops_it(house: House) -> None:
    await house.ask(0)
    assert await Pending(house.asking.platform).withdraw(["q-1"], OFFICER) == [None]
    await house.asking.send()
    asked, withdrawn = await house.answering.mail()
    assert await house.answering.platform.receive(withdrawn) is None
    assert await house.answering.platform.receive(asked) is None
    assert await house.answering.outbox() == []
    assert await house.answering.of_kind(InformationProvided) == []
    (record,) = await house.answering.platform.records(resident(ANSWERING, 0))
    assert (record.closed, record.provided_at) == (True, "")


@pytest.mark.req("R-089")
async def test_a_withdrawal_after_the_answer_changes_nothing_and_another_agency_withdraws_nothing(
    house: House,
) -> None:
    await hold(house, 0)
    await house.ask(0)
    await house.answering.take_in()
    (asked,) = await house.answering.of_kind(ProvisionRequested)
    letter = letter_of(asked.processing_number, OTHER.code)
    take = house.answering.platform.letters["withdrawal"]
    assert await take(letter, house.clock()) == Failed("inward", Refusal("L-107", "sender"))
    nowhere = replace(letter, note=replace(letter.note, processing_number=""))
    assert await take(nowhere, house.clock()) == Failed("inward", Refusal("L-107", "processing_number"))
    (change,) = changes_of(await take(letter_of(asked.processing_number, ASKING.code), house.clock()))
    assert [type(event) for event in change.events] == [ProvisionWithdrawn]

    await house.ask(1, request_id="q-2")
    await house.answering.take_in()
    (_, asked) = await house.answering.of_kind(ProvisionRequested)
    (change,) = changes_of(await take(letter_of(asked.processing_number, ASKING.code), house.clock()))
    assert change.events == (), "what was answered stays answered"


def changes_of(taken: Any) -> Any:
    assert not isinstance(taken, Failed)
    return taken


def letter_of(processing_number: str, sender: str) -> ReceivedLetter:
    """A withdrawal as the linkage interface hands it on."""
    note = LetterNote("w-1", "withdrawal", sender, ANSWERING.code, processing_number, "", ())
    control = LetterControl(
        *("w-1", "withdrawal", sender, "", "affair_officer", ANSWERING.code, ""),
        processing_number,
        *("", "", "", ""),
        0,
        b"",
        "",
        "",
    )
    return ReceivedLetter(note, control, ())


@pytest.mark.req("R-148", "R-154")
async def test_an_answer_that_came_too_late_was_no_provision(house: House) -> None:
    await house.ask(0)
    await house.answering.take_in()
    house.clock.advance(PERMIT_LIFE + timedelta(seconds=1))
    assert [verdict.code for verdict in await house.answering.send()] == ["N-109"]
    (told,) = await house.answering.of_kind(AnswerNotRelayed)
    (record,) = await house.answering.platform.records(resident(ANSWERING, 0))
    assert (record.provided_at, record.refusal) == ("", told.code)
