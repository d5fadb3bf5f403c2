"""ID conversion: each agency has codes of its own, they never meet, and no individual number comes here."""

from hashlib import md5, sha1, sha256, sha512
from typing import Any

import pytest

from adapters.network.reference.codes import link_code, person_mark
from broker.intermediate.provision import ProvisionRequested
from broker.linkage.outgoing import MessageQueued
from schemas.messages import DeliveryNote, Permit, decode
from tests.house import (
    ANSWERING,
    ASKING,
    OTHER,
    PEOPLE,
    STORED,
    House,
    Town,
    contents,
    files_with,
    order,
    resident,
)


async def codes_of(town: Town) -> dict[str, str]:
    """Link codes of an agency by integrated number, as its ledger opens them."""
    acquired = [r.event for r in await town.events() if r.event.wire.name == "link_code.acquired"]
    return {event.integrated_number: event.link_code for event in acquired}


async def of_kind(town: Town, kind: Any) -> Any:
    (event,) = [r.event for r in await town.events() if isinstance(r.event, kind)]
    return event


@pytest.mark.req("R-109", "R-110", "R-111")
async def test_codes_are_converted_on_each_side_both_ways(house: House) -> None:
    theirs, ours = await codes_of(house.asking), await codes_of(house.answering)
    assert await house.asking.platform.inquire(order("q-1", *STORED)) is None
    await house.post()
    asked = await of_kind(house.asking, MessageQueued)
    wanted = await of_kind(house.answering, ProvisionRequested)
    answer = await of_kind(house.answering, MessageQueued)
    assert asked.link_codes == tuple(theirs[resident(ASKING, i)] for i in STORED), "number to code"
    assert wanted.link_codes == tuple(ours[resident(ANSWERING, i)] for i in STORED)
    assert wanted.subjects == tuple(resident(ANSWERING, i) for i in STORED), "code to number"
    assert answer.link_codes == tuple(ours[number] for number in wanted.subjects), "number to code"


@pytest.mark.req("R-110")
async def test_a_code_that_stands_for_nobody_here_finds_nothing(house: House) -> None:
    """The network knows a code of 例示市 that 例示市 has not got yet: it cannot look anybody up."""
    person = house.other
    await person.register(1)
    ((number, individual),) = await person.addressing.acquisitions()
    assert await person.registry.acquire([(number, individual)]) == [""]
    refusal = await house.asking.platform.inquire(order("q-1", 1, provider=OTHER.code))
    assert refusal is None
    await house.post()
    result = await house.asking.result("q-1")
    assert (result.state, result.code) == ("refused", "I-201")


@pytest.mark.req("R-112")
async def test_the_conversion_table_shows_neither_codes_nor_numbers(house: House) -> None:
    codes = await codes_of(house.answering)
    rows = await house.answering.rows("SELECT person, code_index FROM code_conversion")
    assert len(rows) == len(codes) == 4
    vault = house.answering.folder.vault
    expected = {(vault.blind("person", number), vault.blind("link_code", c)) for number, c in codes.items()}
    assert set(rows) == expected
    assert not {text for row in rows for text in row} & {*codes, *codes.values()}
    assert files_with(house.folder, *codes, *codes.values()) == []


@pytest.mark.req("R-114")
async def test_different_agencies_hold_different_codes_for_one_person(house: House) -> None:
    codes = [await codes_of(town) for town in house.towns.values()]
    of_one = [codes[0][resident(ASKING, 0)], codes[1][resident(ANSWERING, 0)], codes[2][resident(OTHER, 0)]]
    assert len(set(of_one)) == 3
    everybody = [code for found in codes for code in found.values()]
    assert len(set(everybody)) == len(everybody) == 10


@pytest.mark.req("R-114")
async def test_codes_of_two_agencies_never_meet(house: House) -> None:
    """Not in the ledger of the other side, not in what lies in its mailbox, nor in clear in any file."""
    assert await house.asking.platform.inquire(order("q-1", *STORED)) is None
    await house.post()
    theirs, ours = await codes_of(house.asking), await codes_of(house.answering)
    asked = {theirs[resident(ASKING, i)] for i in STORED}
    answered = {ours[resident(ANSWERING, i)] for i in STORED}
    (to_asking,), (to_answering,) = await house.asking.mail(), await house.answering.mail()
    assert set(decode(DeliveryNote, to_asking.note).link_codes) == asked
    assert set(decode(Permit, to_answering.note).link_codes) == answered
    for town, delivery, own, foreign in (
        (house.asking, to_asking, asked, answered),
        (house.answering, to_answering, answered, asked),
    ):
        known = contents(await town.events()) + delivery.note + delivery.envelope.control
        for code in foreign:
            assert code.encode() not in known, town.agency.code
        for code in own:
            assert code.encode() in known, "the search would find one"
    assert files_with(house.folder, *asked, *answered) == []


@pytest.mark.req("R-114")
async def test_a_code_cannot_be_turned_back_without_the_key_of_the_network(house: House) -> None:
    record_code = PEOPLE[0].resident_record_code
    code = (await codes_of(house.asking))[resident(ASKING, 0)]
    key = house.network.vault.secret("link_code", lambda: pytest.fail("there is no key"))
    assert code == link_code(key, ASKING.code, record_code), "it comes from the resident record code"
    guesses = {record_code, PEOPLE[0].individual_number}
    guesses |= {f"{prefix}{record_code}" for prefix in ("990019", "990019/", "code/990019/")}
    for hashed in (md5, sha1, sha256, sha512):  # what a thief of codes would try on every record code
        assert not {hashed(guess.encode()).hexdigest()[:32] for guess in guesses} & {code}
    for other in (bytes(32), bytes(31) + b"\x01", house.asking.folder.vault.secret("sealing", bytes)[:32]):
        assert link_code(other, ASKING.code, record_code) != code
    assert person_mark(key, record_code) not in {code, link_code(key, ANSWERING.code, record_code)}


@pytest.mark.req("R-113")
async def test_the_intermediate_interface_holds_no_individual_number(house: House) -> None:
    assert await house.asking.platform.inquire(order("q-1", *STORED)) is None
    await house.post()
    individual = [person.individual_number for person in PEOPLE]
    for town in (house.asking, house.answering):
        opened = contents(await town.events())
        for number in individual:
            assert number.encode() not in opened
        assert resident(town.agency, 0).encode() in opened, "the search would find one"
    addressing = contents(await house.asking.people.ledger.at([1, 2]))
    assert any(number.encode() in addressing for number in individual), "addressing has them, sealed"
    assert files_with(house.folder, *individual) == []
