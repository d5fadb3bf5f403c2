"""Getting link codes: from addressing through registry and network and back, with nothing left over."""

import math
from pathlib import Path

import pytest
import trio

from adapters.http import Unreachable
from broker.intermediate.link_code import LinkCodeAcquired
from tests.house import (
    AGENCIES,
    ASKING,
    PEOPLE,
    House,
    Keys,
    Town,
    contents,
    events_of,
    files_with,
    open_house,
    resident,
)

PATIENCE = 60.0  # seconds, so that what never happens fails instead of hanging
INDIVIDUAL = [person.individual_number for person in PEOPLE]
RECORD_CODES = [person.resident_record_code for person in PEOPLE]


class Forgotten:
    """Runs the acquirer of a town until the network was told that the numbers have served."""

    def __init__(self, town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
        self._town = town
        self._forget = town.client.forget
        self._done = trio.Event()
        monkeypatch.setattr(town.client, "forget", self._forgotten)

    async def _forgotten(self, numbers: list[str]) -> None:
        await self._forget(numbers)
        if not await self._town.addressing.acquisitions():
            self._done.set()

    async def run(self, patience: float = PATIENCE) -> None:
        with trio.fail_after(patience):
            await self._run()

    async def _run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._town.acquirer().run)
            await self._done.wait()
            nursery.cancel_scope.cancel()


async def register_all(house: House) -> None:
    for index in range(len(PEOPLE)):
        await house.asking.register(index)


@pytest.mark.req("R-114", "R-115", "R-116", "R-118", "R-119")
async def test_everybody_gets_a_code_and_no_acquisition_number_is_left_in_any_file(
    tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house(tmp_path, keys, sockets=True) as house:
        town = house.asking
        await register_all(house)
        staged = await town.addressing.acquisitions()
        assert files_with(tmp_path, *town.tokens) == ["990019/addressing/staging.sqlite"]
        assert await town.registry.acquire(staged) == [""] * len(PEOPLE)
        assert "network/staging.sqlite" in files_with(tmp_path, *town.tokens), "the search would find one"
        await Forgotten(town, monkeypatch).run()

        acquired = await town.of_kind(LinkCodeAcquired)
        assert {event.integrated_number for event in acquired} == {resident(ASKING, i) for i in range(5)}
        assert len({event.link_code for event in acquired}) == 5
        assert len(town.tokens) == 5
        for ledger in (town.platform.ledger, town.people.ledger, house.core.ledger):
            opened = contents(await events_of(ledger))
            assert not [number for number in town.tokens if number.encode() in opened]
        assert files_with(tmp_path, *town.tokens) == [], "while all of them run"
    assert files_with(tmp_path, *town.tokens) == [], "and after they ended"


@pytest.mark.req("R-115")
async def test_the_number_that_travels_is_neither_the_individual_number_nor_the_record_code(
    house: House,
) -> None:
    assert len(set(house.asking.tokens)) == len(house.asking.tokens)
    await house.other.register(1)
    ((number, _),) = await house.other.addressing.acquisitions()
    assert number not in (*INDIVIDUAL, *RECORD_CODES)
    assert await house.other.addressing.resolve([number]) == {number: resident(AGENCIES[2], 1)}


@pytest.mark.req("R-115", "R-116")
async def test_individual_numbers_and_record_codes_stay_on_their_own_side(house: House) -> None:
    """The network never learns an individual number, an agency never a resident record code."""
    network = contents(await events_of(house.core.ledger))
    agency = contents(await events_of(house.asking.platform.ledger))
    addressing = contents(await events_of(house.asking.people.ledger))
    assert not [number for number in INDIVIDUAL if number.encode() in network + agency]
    assert not [code for code in RECORD_CODES if code.encode() in network + agency + addressing]
    assert files_with(house.folder, *INDIVIDUAL, *RECORD_CODES) == []


async def test_whom_the_registry_does_not_know_stays_without_a_code_and_is_not_asked_for_again(
    tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house(tmp_path, keys) as house:
        del house.register[PEOPLE[2].individual_number]
        await register_all(house)
        await Forgotten(house.asking, monkeypatch).run()
        acquired = {event.integrated_number for event in await house.asking.of_kind(LinkCodeAcquired)}
        assert acquired == {resident(ASKING, index) for index in (0, 1, 3, 4)}
        assert await house.asking.addressing.acquisitions() == []
        assert files_with(tmp_path, *house.asking.tokens) == []


@pytest.mark.req("R-119")
async def test_a_later_resident_gets_a_code_as_well(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.other.register(3)
    await Forgotten(house.other, monkeypatch).run()
    assert len(await house.other.of_kind(LinkCodeAcquired)) == 2


async def test_codes_that_were_recorded_but_not_acknowledged_are_taken_again_without_harm(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash after recording: the network still has the numbers, and gives the codes again."""
    town = house.other
    await town.register(1)
    staged = await town.addressing.acquisitions()
    assert await town.registry.acquire(staged) == [""]
    ((number, code),) = await town.client.codes()
    await town.platform.acquire_code(resident(town.agency, 1), code)
    before = len(await town.of_kind(LinkCodeAcquired))
    assert await town.client.codes() == [(number, code)]
    await Forgotten(town, monkeypatch).run()
    assert len(await town.of_kind(LinkCodeAcquired)) == before
    assert files_with(house.folder, number) == []


async def test_while_the_line_is_cut_the_acquirer_waits_and_then_goes_on(
    house: House, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    town = house.other
    await town.register(1)
    acquire, cuts = town.registry.acquire, iter([True, True])

    async def sometimes(requests: list[tuple[str, str]]) -> list[str]:
        if next(cuts, False):
            raise Unreachable("the line is cut")
        return await acquire(requests)

    monkeypatch.setattr(town.registry, "acquire", sometimes)
    await Forgotten(town, monkeypatch).run(math.inf)
    assert len(await town.of_kind(LinkCodeAcquired)) == 2
