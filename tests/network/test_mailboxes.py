"""Mailboxes and what outlives a stop: places to resume from, waiting, verdicts, codes on their way."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from adapters.network import client as client_module
from adapters.network.reference.codes import LinkCodeIssued
from schemas.messages import InquiryControl, decode
from tests.house import ASKING, PEOPLE, House, Keys, events_of, open_house, order

PATIENCE = 60.0  # seconds, so that what never happens fails instead of hanging


async def asked(house: House, *request_ids: str) -> None:
    for request_id in request_ids:
        assert await house.asking.platform.inquire(order(request_id, 0)) is None
        assert [verdict.code for verdict in await house.asking.send()] == [""]


async def shown(party: Any, sql: str) -> None:
    """Wait until a projection of a party has rows of this kind."""
    with trio.fail_after(PATIENCE):
        end = party.ledger.position
        await party.follower.reach(end)
        while not await party.follower.query(sql):
            end = await party.ledger.wait_beyond(end)
            await party.follower.reach(end)


async def test_a_mailbox_is_read_on_from_any_place(wired: House) -> None:
    await asked(wired, "q-1", "q-2", "q-3")
    client = wired.answering.client
    everything = await client.mailbox(0)
    places = [delivery.position for delivery in everything]
    assert len(places) == 3
    assert places == sorted(places)
    assert await client.mailbox(0) == everything, "reading takes nothing away"
    assert await client.mailbox(places[0]) == everything[1:]
    assert await client.mailbox(places[1]) == everything[2:]
    ids = [decode(InquiryControl, delivery.envelope.control).message_id for delivery in everything]
    assert ids == [wired.asking.platform.inquiry_id(name) for name in ("q-1", "q-2", "q-3")]


async def test_a_mailbox_holds_only_what_is_for_its_owner(
    wired: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "POLL", 0.0)
    await asked(wired, "q-1")
    assert len(await wired.answering.client.mailbox(0)) == 1
    for town in (wired.asking, wired.other):
        assert await town.client.mailbox(0) == [], "not even the sender"
    await wired.post()
    assert len(await wired.asking.client.mailbox(0)) == 1
    assert await wired.other.client.mailbox(0) == []


async def test_who_waits_at_a_mailbox_is_woken_by_a_message(
    wired: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, lying = trio.Event(), wired.core._lying
    came: list[Any] = []

    async def seen_to_look(agency: str, after: int, end: int) -> Any:
        found = await lying(agency, after, end)
        looked.set()
        return found

    async def read() -> None:
        came.extend(await wired.answering.client.mailbox(0))

    monkeypatch.setattr(wired.core, "_lying", seen_to_look)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await looked.wait()
            assert came == []
            await asked(wired, "q-1")
    assert [delivery.kind for delivery in came] == ["inquiry"]


async def test_what_is_for_somebody_else_wakes_nobody(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    lying = house.core._lying

    async def counted(agency: str, after: int, end: int) -> Any:
        looks.append(agency)
        return await lying(agency, after, end)

    monkeypatch.setattr(house.core, "_lying", counted)
    other, answering = house.other.agency.code, house.answering.agency.code
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            await house.core.mailbox(other, 0, 60)
            raise AssertionError("there was nothing for 例示市")

        nursery.start_soon(wait)
        while not looks:
            await trio.lowlevel.checkpoint()
        nursery.start_soon(house.core.mailbox, answering, 0, 60)
        await asked(house, "q-1")
        while looks.count(answering) < 2:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert looks.count(other) == 1


async def test_without_a_message_the_wait_ends_by_itself_or_when_the_network_stops(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    began = trio.current_time()
    assert await house.core.mailbox(house.other.agency.code, 0, 20) == []
    assert await house.core.codes.waiting(house.other.agency.code, 20) == []
    assert trio.current_time() - began >= 40
    async with trio.open_nursery() as nursery:
        for poll in (house.core.mailbox, poll_codes(house)):
            nursery.start_soon(poll, house.other.agency.code, 0, 1e6)
        await trio.sleep(1)
        house.core.stop_polls()
    assert trio.current_time() - began < 1e5


def poll_codes(house: House) -> Any:
    async def poll(agency: str, _after: int, wait: float) -> Any:
        return await house.core.codes.waiting(agency, wait)

    return poll


@pytest.mark.req("R-031", "R-130")
async def test_the_agencys_own_loops_carry_an_inquiry_there_and_back(wired: House) -> None:
    """Nobody calls anything by hand: outbox, mailbox and directory are kept by the workers."""
    for town in wired.towns.values():
        town.linkage.directory = None
    async with trio.open_nursery() as nursery:
        for town in wired.towns.values():
            nursery.start_soon(town.worker().run)
        async with trio.open_nursery() as orders:
            for number in range(6):
                orders.start_soon(wired.asking.platform.inquire, order(f"q-{number}", number % 3))
        names = [f"q-{number}" for number in range(6)]
        end = wired.asking.platform.ledger.position
        with trio.fail_after(PATIENCE):
            while await wired.asking.platform.open_inquiries(names):
                end = await wired.asking.platform.ledger.wait_beyond(end)
        nursery.cancel_scope.cancel()
    assert {result.state for result in await wired.asking.platform.results(names)} == {"answered"}


async def test_after_a_restart_a_worker_goes_on_where_the_mailbox_was_read_to(
    tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house(tmp_path, keys) as house:
        await house.furnish()
        await asked(house, "q-1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.answering.worker().run)
            await shown(house.core, "SELECT 1 FROM exchange WHERE answered_at <> ''")
            await shown(house.answering.platform, "SELECT 1 FROM mailbox_place")
            nursery.cancel_scope.cancel()
        place = (await house.answering.mail())[-1].position
    async with open_house(tmp_path, keys, opening=2) as house:
        places: list[int] = []
        polled = trio.Event()

        async def mailbox(after: int) -> Sequence[Any]:
            places.append(after)
            polled.set()
            return await trio.sleep_forever()

        monkeypatch.setattr(house.answering.client, "mailbox", mailbox)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.answering.worker().run)
            await polled.wait()
            nursery.cancel_scope.cancel()
        assert places == [place]


async def test_verdicts_and_codes_outlive_the_network(tmp_path: Path, keys: Keys) -> None:
    async with open_house(tmp_path, keys) as house:
        await house.furnish()
        assert await house.asking.platform.inquire(order("q-1", 0)) is None
        (message,) = await house.asking.outbox()
        (first,) = await house.asking.client.submit([message])
        await house.other.register(1)
        staged = await house.other.addressing.acquisitions()
        assert await house.other.registry.acquire(staged) == [""]
        waiting = await house.other.client.codes()
    async with open_house(tmp_path, keys, opening=2) as house:
        house.clock.now = house.clock.now.replace(hour=23)
        (again,) = await house.asking.client.submit([message])
        assert again == first
        assert len(await house.answering.mail()) == 1
        assert await house.other.client.codes() == waiting
        for town in house.towns.values():
            await town.look_around()
        assert [message.message_id for message in await house.asking.outbox()] == [first.message_id]
        house.clock.now = house.clock.now.replace(hour=9, minute=31)
        await house.post()
        assert (await house.asking.result("q-1")).state == "answered"


# 符号


async def codes_of(house: House) -> list[LinkCodeIssued]:
    """All codes that the network has on record."""
    events = [r.event for r in await events_of(house.core.ledger)]
    return [event for event in events if isinstance(event, LinkCodeIssued)]


@pytest.mark.req("R-114", "R-115")
async def test_a_crash_between_recording_a_code_and_handing_it_out_loses_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(Exception):
        """The power goes."""

    def crash(*_: object) -> None:
        raise Crash

    await house.other.register(1)
    ((number, individual),) = await house.other.addressing.acquisitions()
    request = (house.other.agency.code, number, PEOPLE[1].resident_record_code)
    with monkeypatch.context() as patch:
        patch.setattr(house.staging, "put", crash)
        with pytest.raises(Crash):
            await house.core.codes.issue([request])
    issued = await codes_of(house)
    assert house.staging.of(house.other.agency.code) == []

    assert await house.other.registry.acquire([(number, individual)]) == [""]
    assert await house.other.client.codes() == [(number, issued[-1].link_code)], "the same code"
    assert await codes_of(house) == issued, "recorded once"


async def test_a_person_has_one_code_in_an_agency_however_often_it_is_asked_for(house: House) -> None:
    agency, record_code = house.other.agency.code, PEOPLE[1].resident_record_code
    known = len(await codes_of(house))
    request = [(agency, f"{n}" * 32, record_code) for n in range(3)]
    assert await house.core.codes.issue([*request, *request]) == [""] * 6
    found = await house.other.client.codes()
    assert len(found) == 3
    assert len({code for _, code in found}) == 1
    assert len(await codes_of(house)) == known + 1
    await house.other.client.forget([number for number, _ in found])
    before = house.core.ledger.position
    assert await house.core.codes.issue([*request, *request]) == ["N-201"] * 6, "it has the code now"
    assert house.core.ledger.position == before


@pytest.mark.req("R-116")
async def test_an_agency_can_neither_see_nor_forget_the_numbers_of_another(house: House) -> None:
    await house.other.register(1)
    ((number, individual),) = await house.other.addressing.acquisitions()
    assert await house.other.registry.acquire([(number, individual)]) == [""]
    assert await house.core.codes.waiting(ASKING.code, 0) == []
    await house.asking.client.forget([number])
    assert [found for found, _ in await house.other.client.codes()] == [number]


async def test_who_waits_for_a_code_is_woken_by_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[Any] = []
    in_vain, waiting_for = trio.Event(), house.core.codes._waiting

    async def seen_to_look(agency: str) -> list[tuple[str, str]]:
        found = await waiting_for(agency)
        if not found:
            in_vain.set()
        return found

    async def wait() -> None:
        came.extend(await house.other.client.codes())

    monkeypatch.setattr(house.core.codes, "_waiting", seen_to_look)
    await house.other.register(1)
    staged = await house.other.addressing.acquisitions()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await in_vain.wait()
            assert await house.other.registry.acquire(staged) == [""]
    assert [number for number, _ in came] == [number for number, _ in staged]
