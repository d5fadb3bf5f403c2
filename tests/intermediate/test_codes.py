"""ID conversion: each agency has codes of its own, they never meet, and no individual number comes here."""

from hashlib import md5, sha1, sha256, sha512
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.network.reference.codes import link_code, person_mark
from adapters.platform.link_codes import LinkCodes
from broker.intermediate.link_code import (
    EVENTS,
    CodeConversionTable,
    LinkCodeAcquired,
    LinkCodeRetired,
    LinkCodeTied,
    RetirementTold,
    State,
    decide_retire,
    decide_tie,
    decide_told,
    evolve,
)
from broker.intermediate.provision import ProvisionRequested
from broker.ledger import erasure
from broker.ledger.folder import LedgerFolder
from broker.linkage.outgoing import MessageQueued
from ops.replay import replay
from schemas.errors import Refusal
from schemas.messages import DeliveryNote, Permit, decode
from tests.house import (
    ANSWERING,
    ASKING,
    OTHER,
    PEOPLE,
    STORED,
    Clock,
    House,
    Town,
    contents,
    files_with,
    order,
    resident,
)
from tests.intermediate.samples import after


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


# 失効と再構築

ACQUIRED = LinkCodeAcquired("p", "x1", "c1", "n1")
RETIRED, TOLD = LinkCodeRetired("p", "x1", "died"), RetirementTold("p", "x1")


def test_a_code_is_retired_once_and_told_once() -> None:
    known = after(State(), evolve, ACQUIRED)
    assert decide_retire(known, "x1", "died") == (RETIRED,)
    assert decide_retire(known, "x2", "died") == decide_retire(State(), "x1", "died") == ()
    retired = after(State(), evolve, ACQUIRED, RETIRED)
    assert decide_retire(retired, "x1", "died") == ()
    assert decide_told(retired, "p", "x1") == (TOLD,)
    assert decide_told(after(retired, evolve, TOLD), "p", "x1") == ()


def test_a_code_stands_for_one_person() -> None:
    assert decide_tie("", "p") == (LinkCodeTied("p"),)
    assert decide_tie("p", "p") == ()
    assert decide_tie("q", "p") == Refusal("I-224")


@pytest.mark.parametrize("steps", [(RETIRED,), (TOLD,), (ACQUIRED, ACQUIRED), (ACQUIRED, TOLD)])
def test_steps_that_cannot_follow_raise(steps: tuple[Any, ...]) -> None:
    with pytest.raises(KeyError):
        after(State(), evolve, *steps)


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("acquire", "retire", "tell")), st.sampled_from("PQR"), st.sampled_from("abcd")
        ),
        max_size=25,
    )
)
@pytest.mark.req("R-109", "R-112")
def test_persons_and_codes_stay_one_to_one_whatever_happens(steps: list[tuple[str, str, str]]) -> None:
    async def live(folder: Path) -> None:
        of = LedgerFolder(folder, "renkei/990019", EVENTS, (CodeConversionTable(),), Clock())
        codes = LinkCodes(of.ledger, of.follower)
        owners: dict[str, str] = {}
        valid: dict[str, str] = {}
        async with trio.open_nursery() as nursery:
            await nursery.start(of.ledger.run)
            await nursery.start(of.follower.run)
            for step, who, code in steps:
                if step == "acquire" and code in owners and valid.get(who) != code:
                    # The network gives no code twice; one that is another person's is refused.
                    if owners[code] != who:
                        assert await codes.acquire(who, code) == Refusal("I-224")
                elif step == "acquire":
                    assert await codes.acquire(who, code) is None
                    valid[who] = code
                    owners[code] = who
                elif step == "retire":
                    await codes.retire(who, "moved")
                    valid.pop(who, None)
                elif step == "tell":
                    await codes.told(await codes.untold())
                assert {who: await codes.valid(who) for who in "PQR"} == {
                    who: valid.get(who, "") for who in "PQR"
                }
                await of.follower.reach(of.ledger.position)
                rows = await of.follower.query("SELECT person, code_index FROM code_conversion")
                blind = of.vault.blind
                assert sorted(rows) == sorted(
                    (blind("person", person), blind("link_code", held)) for person, held in valid.items()
                )
                assert await codes.persons("abcd") == {held: person for person, held in valid.items()}
            nursery.cancel_scope.cancel()
        of.close()

    with TemporaryDirectory() as folder:
        trio.run(live, Path(folder))


async def test_a_person_has_one_code_and_a_code_one_person(house: House) -> None:
    codes = LinkCodes(house.asking.platform.ledger, house.asking.platform.follower)
    one, other = resident(ASKING, 0), resident(ASKING, 1)
    held = await codes.valid(one)
    before = house.asking.platform.ledger.position
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(codes.acquire, one, held)
    assert house.asking.platform.ledger.position == before, "the same again changes nothing"
    assert await codes.acquire(other, held) == Refusal("I-224")
    outcomes: list[Refusal | None] = []

    async def acquire(number: str) -> None:
        outcomes.append(await codes.acquire(number, "0" * 32))

    async with trio.open_nursery() as nursery:
        for number in (one, other):
            nursery.start_soon(acquire, number)
    assert sorted(map(str, outcomes)) == sorted(map(str, (None, Refusal("I-224"))))


@pytest.mark.req("R-109")
async def test_a_code_whose_key_was_destroyed_is_none_and_another_one_can_come(house: House) -> None:
    town = house.asking
    codes = LinkCodes(town.platform.ledger, town.platform.follower)
    who = resident(ASKING, 0)
    held = await codes.valid(who)
    key = f"person/{town.platform.person(who)}"
    await erasure.ask(town.platform.ledger, key, "rule", "one", "r1")
    await erasure.confirm(town.platform.ledger, key, "r1", "other", Clock())
    assert await codes.valid(who) == ""
    assert await codes.persons([held]) == {}
    await codes.retire(who, "erased")
    assert await codes.untold() == [], "nobody can name it to the network any longer"
    assert await codes.acquire(who, "0" * 32) is None
    assert await codes.valid(who) == "0" * 32


@pytest.mark.req("R-114")
async def test_neither_ledger_nor_tables_of_an_agency_have_a_code_of_another_one(house: House) -> None:
    assert await house.asking.platform.inquire(order("q-1", *STORED)) is None
    await house.post()
    codes = {town.agency.code: set((await codes_of(town)).values()) for town in house.towns.values()}
    for town in house.towns.values():
        foreign = set().union(*(found for code, found in codes.items() if code != town.agency.code))
        blind = {town.folder.vault.blind("link_code", code) for code in foreign}
        opened = contents(await town.events())
        assert not [code for code in foreign | blind if code.encode() in opened]
        assert files_with(town.data, *foreign, *blind) == []
        own = {town.folder.vault.blind("link_code", code) for code in codes[town.agency.code]}
        assert files_with(town.data, *own), "the search would find one"


@pytest.mark.req("R-112")
async def test_a_rebuild_from_events_gives_the_same_conversion_table(house: House, tmp_path: Path) -> None:
    for town in (house.asking, house.answering):
        codes = LinkCodes(town.platform.ledger, town.platform.follower)
        await codes.retire(resident(town.agency, 0), "moved")
        await codes.acquire(resident(town.agency, 1), "1" * 32)
        await codes.told(await codes.untold())
        await codes.retire(resident(town.agency, 2), "died")
        table = await town.rows("SELECT * FROM code_conversion ORDER BY person")
        assert len(table) == {ASKING.code: 3, ANSWERING.code: 2}[town.agency.code]
    assert replay(house.folder, tmp_path / "again") == 0
