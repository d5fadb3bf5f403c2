"""Addressing at work: who is registered, who guards against the wrong person, and what it never shows."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import trio

from adapters.platform.desk import AddressingPort
from broker.addressing.office import Addressing
from broker.intermediate.link_code import LinkCodeAcquired
from schemas.codes import integrated_number
from schemas.errors import Refusal
from tests.house import (
    ANSWERING,
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
from tests.registry.settling import desk_of

FREE = next(number for serial in range(7, 30) if (number := integrated_number(serial)) is not None)


def values(index: int, **changes: str) -> dict[str, str]:
    """The line of a residents file about one of PEOPLE in 連携市."""
    return {**asdict(RESIDENTS[ASKING.code][index]), **changes}


async def numbers_of(town: Town) -> list[str]:
    """The individual numbers for which codes have to be acquired."""
    return [individual for _, individual in await town.addressing.acquisitions()]


@pytest.mark.parametrize("wrong", ["", "1", FREE[:-1] + ("0" if FREE[-1] != "0" else "1"), "x" * 15])
async def test_a_number_with_a_wrong_check_digit_is_not_registered(house: House, wrong: str) -> None:
    before = house.asking.people.ledger.position
    assert await house.asking.addressing.register(values(0, integrated_number=wrong)) == Refusal("A-102")
    mistyped = values(0, individual_number="210987654321")
    assert await house.asking.addressing.register(mistyped) == Refusal("A-101")
    assert house.asking.people.ledger.position == before
    assert not await house.asking.addressing.knows(wrong)


async def test_an_individual_number_belongs_to_one_person(house: House) -> None:
    stranger = values(0, integrated_number=FREE)
    assert await house.asking.addressing.register(stranger) == Refusal("A-103")
    assert not await house.asking.addressing.knows(FREE)
    anew = {**stranger, "individual_number": "123456789018"}
    assert await house.asking.addressing.register(anew) is None
    taken = values(0, individual_number="123456789018")
    assert await house.asking.addressing.register(taken) == Refusal("A-103")


async def test_of_two_that_claim_a_number_at_once_one_gets_it(house: House) -> None:
    others = [n for serial in range(40, 60) if (n := integrated_number(serial)) is not None][:4]
    outcomes: list[Refusal | None] = []

    async def claim(number: str) -> None:
        claimed = values(0, integrated_number=number, individual_number="123456789018")
        outcomes.append(await house.asking.addressing.register(claimed))

    async with trio.open_nursery() as nursery:
        for number in others:
            nursery.start_soon(claim, number)
    assert outcomes.count(None) == 1
    assert outcomes.count(Refusal("A-103")) == 3
    assert sum([await house.asking.addressing.knows(number) for number in others]) == 1


async def test_the_same_file_again_leaves_no_events(house: House) -> None:
    before = house.asking.people.ledger.position
    for index in range(5):
        assert await house.asking.addressing.register(values(index)) is None
    assert house.asking.people.ledger.position == before


async def test_a_change_is_recorded_and_what_was_before_stays_in_the_ledger(house: House) -> None:
    before = house.asking.people.ledger.position
    moved = values(0, address="連携市若草台９丁目９番９号")
    assert await house.asking.addressing.register(moved) is None
    assert house.asking.people.ledger.position == before + 1
    opened = contents(await events_of(house.asking.people.ledger))
    for address in (moved["address"], values(0)["address"]):
        assert address.encode() in opened
    assert await numbers_of(house.asking) == [], "a move needs no new code"


@pytest.mark.req("R-120")
async def test_a_new_individual_number_is_followed_and_the_code_stays_tied(house: House) -> None:
    renumbered = "123456789018"
    house.register[renumbered] = PEOPLE[0].resident_record_code
    before = await house.asking.of_kind(LinkCodeAcquired)
    assert await house.asking.addressing.register(values(0, individual_number=renumbered)) is None
    assert await numbers_of(house.asking) == [renumbered]
    ((number, _),) = staged = await house.asking.addressing.acquisitions()
    assert await house.asking.registry.acquire(staged) == ["N-201"], "the network knows the person still"
    await desk_of(house.asking).settle([(number, "N-201")])
    assert await numbers_of(house.asking) == []
    assert await house.asking.of_kind(LinkCodeAcquired) == before
    assert await house.asking.addressing.resolve([number]) == {}
    assert files_with(house.folder, number) == []


async def test_a_number_that_was_mistyped_is_free_for_its_owner_once_it_is_corrected(house: House) -> None:
    """A-103 tells the office to correct the wrong number; then the right person can have it."""
    mistyped, right = "123456789018", "210987654320"
    assert await house.asking.addressing.register(values(0, individual_number=mistyped)) is None
    owner = values(1, individual_number=mistyped)
    assert await house.asking.addressing.register(owner) == Refusal("A-103")
    assert await house.asking.addressing.register(values(0, individual_number=right)) is None
    assert await house.asking.addressing.register(owner) is None
    assert await house.asking.addressing.register(values(2, individual_number=right)) == Refusal("A-103")


@pytest.mark.req("R-421")
async def test_who_moves_in_again_is_found_by_the_individual_number(house: House) -> None:
    addressing, known = house.asking.addressing, PEOPLE[0].individual_number
    await addressing.leave(resident(ASKING, 0), "moved")
    assert await addressing.former(known) == resident(ASKING, 0)
    assert await addressing.former("123456789018") == ""
    assert await numbers_of(house.asking) == []
    moved_in = values(0, integrated_number=await addressing.former(known), address="連携市能里町４番５号")
    assert await addressing.register(moved_in) is None
    assert await numbers_of(house.asking) == [known], "and a code is acquired again"
    renumbered = values(0, individual_number="123456789018")
    assert await addressing.register(renumbered) is None
    assert await addressing.former(known) == ""


@pytest.mark.req("R-429")
async def test_individual_numbers_are_tied_to_what_the_offices_have_already(house: House) -> None:
    """At introduction the residents file brings both numbers of everybody, and each finds the other."""
    for index in range(5):
        number = await house.asking.addressing.former(PEOPLE[index].individual_number)
        assert number == resident(ASKING, index)
        assert await house.asking.addressing.knows(number)


async def test_a_person_is_found_by_the_four_basic_items(house: House) -> None:
    find = house.asking.addressing.find
    assert await find(values(2)) == resident(ASKING, 2)
    assert await find(values(2, name=values(2)["name"].replace("\u3000", " "))) == resident(ASKING, 2)
    assert await find(values(2, kana="チガウ")) == resident(ASKING, 2), "kana are not compared"
    for item in ("name", "birth_date", "sex", "address"):
        assert await find(values(2, **{item: "1901-02-03"})) == Refusal("I-221")
    moved = values(2, address="連携市若草台９丁目９番９号")
    assert await house.asking.addressing.register(moved) is None
    assert await find(values(2)) == Refusal("I-221")
    assert await find(moved) == resident(ASKING, 2)
    twin = {**moved, "integrated_number": FREE, "individual_number": "123456789018"}
    assert await house.asking.addressing.register(twin) is None
    assert await find(moved) == Refusal("I-222")


async def test_many_wait_in_pages_and_each_keeps_the_number(
    tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.addressing.office.AT_ONCE", 2)
    async with open_house(tmp_path, keys) as house:
        for index in range(5):
            await house.asking.register(index)
        pairs: list[tuple[str, str]] = []
        after = 0
        for expected in (2, 2, 1):
            page, after = await house.asking.addressing.page(after)
            assert len(page) == expected
            pairs += page
        assert after == 0, "that was the end"
        assert sorted(individual for _, individual in pairs) == sorted(p.individual_number for p in PEOPLE)
        assert (await house.asking.addressing.page(0))[0] == pairs[:2]
        progress = await house.asking.addressing.progress()
        assert (progress.waiting, progress.acquired, progress.refused) == (5, 0, {})
        outcomes = ("", "N-201", "J-101", "J-104", "J-101")
        await house.asking.addressing.settle(
            {number: code for (number, _), code in zip(pairs, outcomes, strict=True)}
        )
        progress = await house.asking.addressing.progress()
        assert (progress.waiting, progress.acquired, progress.refused) == (0, 2, {"J-101": 2, "J-104": 1})
        refused, after = await house.asking.addressing.refused(0)
        assert [code for _, code in refused + (await house.asking.addressing.refused(after))[0]] == [
            "J-101",
            "J-104",
            "J-101",
        ]
        assert house.asking.addressing.staging.of("person") == []


@pytest.mark.req("R-086")
async def test_the_guard_is_equal_where_the_person_is_and_only_there(house: House) -> None:
    ours, theirs = house.asking.addressing, house.answering.addressing
    salt, other_salt = b"s" * 16, b"t" * 16
    guard = await ours.guard(resident(ASKING, 0), salt)
    assert guard is not None
    assert await theirs.guard(resident(ANSWERING, 0), salt) == guard
    assert await theirs.guard(resident(ANSWERING, 1), salt) != guard
    assert await ours.guard(resident(ASKING, 0), other_salt) != guard
    assert await ours.guard(FREE, salt) is None
    assert PEOPLE[0].birth_date.encode() not in guard
    assert await ours.register(values(0, birth_date="1901-02-03")) is None
    assert await ours.guard(resident(ASKING, 0), salt) != guard


@pytest.mark.req("R-113", "R-116")
async def test_an_interrupted_acquisition_goes_on_with_the_same_numbers(tmp_path: Path, keys: Keys) -> None:
    async with open_house(tmp_path, keys) as house:
        for index in range(3):
            await house.asking.register(index)
        first = await house.asking.addressing.acquisitions()
        assert sorted(i for _, i in first) == sorted(p.individual_number for p in PEOPLE[:3])
        assert await house.asking.addressing.acquisitions() == first
    async with open_house(tmp_path, keys, opening=2) as house:
        assert await house.asking.addressing.acquisitions() == first
        found = await house.asking.addressing.resolve([number for number, _ in first] + ["unknown"])
        assert sorted(found.values()) == sorted(resident(ASKING, index) for index in range(3))
        assert house.asking.tokens == [], "no number was made a second time"


@pytest.mark.req("R-115")
async def test_who_is_asked_for_twice_at_once_gets_one_number(tmp_path: Path, keys: Keys) -> None:
    async with open_house(tmp_path, keys) as house:
        for index in range(5):
            await house.asking.register(index)
        found: list[list[tuple[str, str]]] = []

        async def look() -> None:
            found.append(await house.asking.addressing.acquisitions())

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(look)
        assert found == [found[0]] * 4
        assert len(house.asking.tokens) == len(house.asking.staging.of("person")) == 5


@pytest.mark.req("R-116")
async def test_acquisition_numbers_are_forgotten_when_the_acquisition_ends(
    tmp_path: Path, keys: Keys
) -> None:
    async with open_house(tmp_path, keys) as house:
        town = house.asking
        for index in range(3):
            await town.register(index)
        numbers = [number for number, _ in await town.addressing.acquisitions()]
        assert files_with(town.data, *numbers) == ["addressing/staging.sqlite"]
        await town.addressing.settle({numbers[0]: "", numbers[1]: "J-101"})
        assert files_with(town.data, *numbers[:2]) == []
        assert files_with(town.data, numbers[2]) == ["addressing/staging.sqlite"]
        assert await town.addressing.resolve(numbers[:2]) == {}
        assert len(await town.addressing.acquisitions()) == 1
        ended = town.people.ledger.position
        await town.addressing.settle({numbers[0]: "J-101", "unknown": ""})
        assert town.people.ledger.position == ended
        await town.addressing.settle({numbers[2]: ""})
    assert files_with(tmp_path, *numbers) == []


@pytest.mark.req("R-116")
async def test_a_number_that_a_crash_left_behind_is_forgotten(house: House) -> None:
    """A crash after the acquisition ended and before its number was dropped."""
    town = house.other
    await town.register(1)
    ((number, _),) = await town.addressing.acquisitions()
    ((_, owner),) = town.staging.of("person")
    await town.addressing._settle(owner, "J-101")
    assert town.staging.of("person") == [(number, owner)]
    assert await town.addressing.acquisitions() == []
    assert town.staging.of("person") == []


@pytest.mark.req("R-116")
async def test_an_acquisition_that_ends_meanwhile_is_not_begun_anew(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = house.other
    await town.register(1)
    ((number, _),) = await town.addressing.acquisitions()
    made = len(town.tokens)
    ended = False

    def then_it_ends(read: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Whatever is looked at first, the acquisition ends right after."""

        async def reading(*arguments: Any) -> Any:
            nonlocal ended
            seen = await read(*arguments)
            if not ended:
                ended = True
                await town.addressing.settle({number: ""})
            return seen

        return reading

    monkeypatch.setattr(town.addressing.follower, "query", then_it_ends(town.addressing.follower.query))
    assert await town.addressing.acquisitions() == []
    assert len(town.tokens) == made
    assert town.staging.of("person") == []


@pytest.mark.req("R-113")
async def test_what_addressing_knows_of_persons_is_sealed_in_every_file(house: House) -> None:
    known = [
        text
        for index in range(5)
        for name, text in values(index).items()
        if name in ("integrated_number", "individual_number", "name", "kana", "birth_date", "address")
    ]
    opened = contents(await events_of(house.asking.people.ledger))
    assert all(text.encode() in opened for text in known)
    assert files_with(house.folder, *known) == []
    rows = await house.asking.people.follower.query("SELECT * FROM acquisition")
    assert not {cell for row in rows for cell in row} & set(known)


@pytest.mark.req("R-113")
def test_the_port_to_the_intermediate_interface_gives_no_individual_number() -> None:
    port = {name for name in vars(AddressingPort) if not name.startswith("_")}
    assert port == {"guard", "guards", "knows"}
    assert all(callable(getattr(Addressing, name)) for name in port)
