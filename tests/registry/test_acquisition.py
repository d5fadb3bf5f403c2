"""Getting link codes: from addressing through registry and network and back, with nothing left over."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import trio

from adapters.http import Unreachable
from adapters.registry.acquirer import Acquirer
from broker.intermediate.link_code import LinkCodeAcquired, LinkCodeRetired
from schemas.codes import integrated_number
from schemas.errors import Refusal
from tests.house import (
    AGENCIES,
    ASKING,
    PEOPLE,
    RESIDENTS,
    House,
    Keys,
    Town,
    contents,
    events_of,
    files_with,
    open_house,
    resident,
)
from tests.registry.settling import codes_of, desk_of, registry_of, until_settled

PATIENCE = 60.0  # seconds, so that what never happens fails instead of hanging
NEW_NUMBER, NEW_RECORD = "123456789018", "98765432109"
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


@pytest.mark.req("R-116")
async def test_what_was_settled_but_not_acknowledged_is_acknowledged_later(house: House) -> None:
    """A crash after the agency forgot the number and before the network heard of it: the code is kept."""
    town = house.other
    await town.register(1)
    assert await town.registry.acquire(await town.addressing.acquisitions()) == [""]
    ((number, code),) = await town.client.codes()
    assert await codes_of(town).acquire(resident(town.agency, 1), code) is None
    await town.addressing.settle({number: ""})
    assert await town.addressing.resolve([number]) == {}
    await until_settled(house, town)
    assert await codes_of(town).valid(resident(town.agency, 1)) == code, "not taken for one of no use"
    assert await town.registry.acquire([("f" * 32, INDIVIDUAL[1])]) == ["N-201"]
    assert files_with(house.folder, number) == []


@pytest.mark.req("R-119")
async def test_everybody_at_once_goes_in_portions_and_the_progress_is_seen(
    tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.addressing.office.AT_ONCE", 2)
    async with open_house(tmp_path, keys) as house:
        town, asked = house.asking, list[int]()
        await register_all(house)
        acquire = town.registry.acquire

        async def counted(requests: list[tuple[str, str]]) -> list[str]:
            asked.append(len(requests))
            progress = await town.addressing.progress()
            assert progress.waiting + progress.acquired == len(PEOPLE)
            return await acquire(requests)

        monkeypatch.setattr(town.registry, "acquire", counted)
        await until_settled(house, town)
        assert max(asked) <= 2
        assert (await town.addressing.progress()).acquired == len(PEOPLE)
        assert len(town.tokens) == len(PEOPLE), "one number for each"
        assert files_with(tmp_path, *town.tokens) == []


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


# 変更と失効


def values(town: Town, index: int, **changes: str) -> dict[str, Any]:
    return {**asdict(RESIDENTS[town.agency.code][index]), **changes}


@pytest.mark.req("R-120")
async def test_after_a_change_of_the_individual_number_the_network_says_that_the_code_is_there(
    house: House,
) -> None:
    """The registry maps the new number to the same record code; the agency keeps what it has (N-201)."""
    town = house.asking
    code = await codes_of(town).valid(resident(ASKING, 0))
    house.register[NEW_NUMBER] = RECORD_CODES[0]
    registry = registry_of(house, town, renumbered=[INDIVIDUAL[0]])
    before = town.platform.ledger.position
    assert await town.addressing.register(values(town, 0, individual_number=NEW_NUMBER)) is None
    await until_settled(house, town, registry)
    assert await codes_of(town).valid(resident(ASKING, 0)) == code
    assert town.platform.ledger.position == before, "nothing happened to the code"
    assert (await town.addressing.progress()).acquired == 5
    assert files_with(house.folder, *town.tokens) == []
    # And whoever still comes with the old number is told so.
    assert await registry.acquire([("e" * 32, INDIVIDUAL[0])]) == ["J-103"]


@pytest.mark.req("R-120")
async def test_a_code_made_with_the_old_number_is_not_tied_when_the_number_changed_on_the_way(
    house: House,
) -> None:
    """The number had been mistyped: the code that comes is another person's, and must not stick."""
    town = house.other
    mistyped = PEOPLE[1].individual_number
    assert await town.addressing.register(values(town, 2, individual_number=mistyped)) is None
    ((number, _),) = staged = await town.addressing.acquisitions()
    assert await town.registry.acquire(staged) == [""]
    assert await town.addressing.register(values(town, 2)) is None
    assert await town.addressing.resolve([number]) == {}
    await until_settled(house, town)
    right = await codes_of(town).valid(resident(town.agency, 2))
    assert right
    assert len(await town.of_kind(LinkCodeAcquired)) == 2, "of the person known before, and of this one"
    await town.register(1)
    await until_settled(house, town)
    assert await codes_of(town).valid(resident(town.agency, 1)) not in ("", right)
    assert files_with(house.folder, *town.tokens) == []


@pytest.mark.req("R-120")
async def test_a_new_resident_record_code_brings_a_new_code_and_retires_the_old_one_everywhere(
    house: House,
) -> None:
    old = {await codes_of(t).valid(resident(t.agency, 0)) for t in (house.asking, house.answering)}
    house.register[NEW_NUMBER] = NEW_RECORD
    town = house.asking
    registry = registry_of(house, town, former={NEW_RECORD: RECORD_CODES[0]})
    assert await town.addressing.register(values(town, 0, individual_number=NEW_NUMBER)) is None
    await until_settled(house, town, registry)
    (retired,) = await town.of_kind(LinkCodeRetired)
    assert retired.reason in ("replaced", "withdrawn")
    new = await codes_of(town).valid(resident(ASKING, 0))
    assert new not in {"", *old}
    # The other city hears of it, and acquires anew as soon as it knows the new number.
    other = house.answering
    assert await other.addressing.register(values(other, 0, individual_number=NEW_NUMBER)) is None
    await until_settled(house, other, registry_of(house, other, former={NEW_RECORD: RECORD_CODES[0]}))
    renewed = await codes_of(other).valid(resident(other.agency, 0))
    assert renewed not in {"", new, *old}
    persons, codes = await house.core.codes.translate([new], ASKING.code, other.agency.code)
    assert codes == (renewed,)
    assert persons[0]


async def test_what_the_network_retires_is_retired_here_and_acquired_anew(house: House) -> None:
    town = house.other
    code = await codes_of(town).valid(resident(town.agency, 0))
    await house.core.codes.retire(town.agency.code, [code], "network")
    await until_settled(house, town)
    assert [event.reason for event in await town.of_kind(LinkCodeRetired)] == ["withdrawn"]
    assert await codes_of(town).valid(resident(town.agency, 0)) not in ("", code)


@pytest.mark.parametrize("reason", ["died", "moved", "erased"])
async def test_a_retired_code_is_converted_no_longer_on_either_side(house: House, reason: str) -> None:
    town = house.other
    who = resident(town.agency, 0)
    code = await codes_of(town).valid(who)
    await desk_of(town).retire(who, reason)
    assert await codes_of(town).valid(who) == ""
    assert await codes_of(town).persons([code]) == {}
    await until_settled(house, town)
    assert await house.core.codes.translate([code], town.agency.code, ASKING.code) == (("",), ("",))
    assert (await town.addressing.progress()).acquired == 0
    assert await town.addressing.register(values(town, 0)) is None, "and back again"
    await until_settled(house, town)
    assert await codes_of(town).valid(who) not in ("", code)


async def test_a_code_that_comes_for_somebody_who_left_is_retired_at_once(house: House) -> None:
    town = house.other
    await town.register(1)
    assert await town.registry.acquire(await town.addressing.acquisitions()) == [""]
    ((_, code),) = await house.core.codes.waiting(town.agency.code, 0)
    await desk_of(town).retire(resident(town.agency, 1), "moved")
    await until_settled(house, town)
    assert await codes_of(town).valid(resident(town.agency, 1)) == ""
    assert await house.core.codes.translate([code], town.agency.code, ASKING.code) == (("",), ("",))
    assert files_with(house.folder, *town.tokens) == []


async def test_one_person_registered_twice_gets_one_code_and_the_office_is_told(house: House) -> None:
    """Two individual numbers, one resident record code: I-224, and codes and persons stay one to one."""
    town = house.other
    house.register[NEW_NUMBER] = RECORD_CODES[0]
    twin = next(n for serial in range(7, 30) if (n := integrated_number(serial)) is not None)
    changes = {"individual_number": NEW_NUMBER, "integrated_number": twin}
    assert await town.addressing.register(values(town, 0, **changes)) is None
    await until_settled(house, town)
    assert (await town.addressing.refused(0))[0] == [(twin, "I-224")]
    assert len(await town.of_kind(LinkCodeAcquired)) == 1
    codes = codes_of(town)
    assert await codes.acquire(twin, await codes.valid(resident(town.agency, 0))) == Refusal("I-224")


async def test_two_registrations_of_one_person_at_once_stay_one_to_one(tmp_path: Path, keys: Keys) -> None:
    async with open_house(tmp_path, keys) as house:
        town = house.other
        house.register[NEW_NUMBER] = RECORD_CODES[0]
        twin = next(n for serial in range(7, 30) if (n := integrated_number(serial)) is not None)
        await town.register(0)
        changes = {"individual_number": NEW_NUMBER, "integrated_number": twin}
        assert await town.addressing.register(values(town, 0, **changes)) is None
        await until_settled(house, town)
        assert len(await town.of_kind(LinkCodeAcquired)) == 1
        assert [code for _, code in (await town.addressing.refused(0))[0]] == ["I-224"]
        assert files_with(tmp_path, *town.tokens) == []


async def test_without_a_line_to_the_registry_only_the_network_is_spoken_to(house: House) -> None:
    town = house.other
    await town.register(1)
    staged = await town.addressing.acquisitions()
    acquirer = Acquirer(town.addressing, town.platform, None, town.client)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(acquirer.run)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert await town.addressing.acquisitions() == staged
        assert await town.registry.acquire(staged) == [""], "by medium, say"
        with trio.fail_after(PATIENCE):
            while await town.addressing.acquisitions():  # noqa: ASYNC110 # nothing tells of it
                await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    assert await codes_of(town).valid(resident(town.agency, 1))
