"""The ways of answering (応答方法): by itself from the reference database, or by hand with approval."""

import pytest

from broker.intermediate.provision import DecisionProposed, InformationProvided, ProvisionReleased
from broker.intermediate.replica import ReplicaRegistered
from broker.linkage.outgoing import MessageQueued
from schemas.messages import AnswerControl, decode
from tests.house import ANSWERING as PROVIDER
from tests.house import LAYOUT, YEAR, House, asked_of, order, resident
from tests.intermediate.test_officer import CHIEF, CLERK, HER, caller, decide, desk_of, held, hold, said


@pytest.mark.req("R-080", "R-095", "R-103")
async def test_source_automatic_way_manual_way_and_approval_are_all_part_of_answering(house: House) -> None:
    """One is answered about by itself, the other waits: a clerk proposes, a chief releases."""
    desk = await desk_of(house)
    await hold(house, HER)
    number = await held(house, 0, request_id="manual")
    assert await house.asking.platform.inquire(order("automatic", 1)) is None
    await house.post()
    assert (await house.asking.result("automatic")).payloads == (asked_of(1),)
    assert (await house.asking.result("manual")).state == "waiting"
    assert await house.answering.of_kind(ProvisionReleased) == []
    assert await decide(desk, caller(), said(number, "approve")) == "I-237"
    assert await decide(desk, caller(CHIEF), said(number, "release")) == ""
    await house.post()
    assert (await house.asking.result("manual")).payloads == (asked_of(0),)

    answers = await house.answering.of_kind(InformationProvided)
    read = await house.answering.platform.ledger.at([place for each in answers for place in each.sources])
    assert [
        (type(source.event), source.event.integrated_number, source.event.layout, source.event.fiscal_year)
        for source in read
    ] == [(ReplicaRegistered, resident(PROVIDER, index), LAYOUT, YEAR) for index in (0, 1)]
    controls = [decode(AnswerControl, each.control) for each in await house.answering.of_kind(MessageQueued)]
    assert [each.official_role for each in controls] == ["automatic_response", "affair_officer"]
    (proposed,), (released,) = [
        await house.answering.of_kind(kind) for kind in (DecisionProposed, ProvisionReleased)
    ]
    assert (proposed.staff_id, released.staff_id) == (CLERK, CHIEF)
