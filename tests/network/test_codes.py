"""Link codes at the network: one valid code for a person and agency, and nothing that ties two agencies."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.network.reference import codes
from adapters.network.reference.codes import (
    IssuedCodes,
    LinkCodeIssued,
    LinkCodeTaken,
    LinkCodeWithdrawn,
    State,
    WithdrawalKnown,
)
from adapters.network.reference.issuing import CodeOffice
from broker.addressing.staging import Staging
from broker.ledger import erasure
from broker.ledger.folder import LedgerFolder
from schemas.errors import Refusal
from tests.house import Clock, files_with
from tests.intermediate.samples import after

A, B = "990019", "990027"
RECORD, OTHER_RECORD, NEW_RECORD = "11111111111", "22222222222", "33333333333"
KEY = bytes(range(32))
FIRST = LinkCodeIssued(A, "p", "x1", "c1")
SECOND = LinkCodeIssued(A, "p", "x2", "c2")
TAKEN, OVER, KNOWN = (
    LinkCodeTaken(A, "p", "x1"),
    LinkCodeWithdrawn(A, "p", "x1", "network", ""),
    WithdrawalKnown(A, "p", "x1"),
)


class Bureau:
    """The office over a ledger and a staging file of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger_folder = LedgerFolder(folder, "renkei/network", codes.EVENTS, (IssuedCodes(),), Clock())
        self.staging = Staging(folder / "staging.sqlite")
        self.office = CodeOffice(
            self.ledger_folder.ledger,
            self.ledger_folder.follower,
            self.staging,
            KEY,
            {A, B},
            trio.CancelScope,
        )

    async def waiting(self, agency: str = A) -> list[tuple[str, str]]:
        return await self.office.waiting(agency, 0)

    async def code(self, number: str, record: str = RECORD, agency: str = A) -> str:
        """Acquire a code to the end."""
        assert await self.office.issue([(agency, number, record)]) == [""]
        given = dict(await self.waiting(agency))[number]
        await self.office.taken(agency, [number])
        return given

    async def rows(self, sql: str) -> list[Any]:
        follower = self.ledger_folder.follower
        await follower.reach(self.ledger_folder.ledger.position)
        return await follower.query(sql)


@asynccontextmanager
async def open_bureau(folder: Path) -> AsyncIterator[Bureau]:
    bureau = Bureau(folder)
    async with trio.open_nursery() as nursery:
        await nursery.start(bureau.ledger_folder.ledger.run)
        await nursery.start(bureau.ledger_folder.follower.run)
        yield bureau
        nursery.cancel_scope.cancel()
    bureau.staging.close()
    bureau.ledger_folder.close()


@pytest.fixture
async def bureau(tmp_path: Path) -> AsyncIterator[Bureau]:
    async with open_bureau(tmp_path / "network") as bureau:
        yield bureau


# 判断


def test_the_same_code_is_given_until_the_agency_has_it_and_then_none() -> None:
    assert codes.decide_issue(State(), FIRST) == (FIRST,)
    issued = after(State(), codes.evolve, FIRST)
    assert codes.decide_issue(issued, FIRST) == ()
    assert codes.decide_take(issued, "x1") == (TAKEN,)
    assert codes.decide_take(issued, "x2") == ()
    taken = after(State(), codes.evolve, FIRST, TAKEN)
    assert codes.decide_take(taken, "x1") == ()
    assert codes.decide_issue(taken, FIRST) == Refusal("N-201")


def test_a_retired_code_makes_room_for_another_one_and_the_agency_is_told_until_it_knows() -> None:
    taken = after(State(), codes.evolve, FIRST, TAKEN)
    assert codes.decide_withdraw(taken, "x2", "network") == ()
    assert codes.decide_withdraw(taken, "x1", "network") == (OVER,)
    over = after(State(), codes.evolve, FIRST, TAKEN, OVER)
    assert over == State(None, False, 1, ("x1",))
    assert codes.decide_issue(over, SECOND) == (SECOND,)
    assert codes.decide_known(over, A, "p", "x1") == (KNOWN,)
    assert codes.decide_known(after(over, codes.evolve, KNOWN), A, "p", "x1") == ()
    withdrawn, known = codes.decide_withdraw(taken, "x1", "agency")
    assert (withdrawn.by, known) == ("agency", KNOWN), "what the agency retires it knows"


@pytest.mark.parametrize("steps", [(TAKEN,), (OVER,), (KNOWN,), (FIRST, SECOND), (FIRST, TAKEN, OVER, TAKEN)])
def test_steps_that_cannot_follow_raise(steps: tuple[Any, ...]) -> None:
    with pytest.raises(KeyError):
        after(State(), codes.evolve, *steps)


# 発行


@pytest.mark.req("R-115", "R-116")
async def test_what_broke_after_the_code_was_recorded_loses_nothing(tmp_path: Path) -> None:
    """The process dies between ledger and staging file: the registry had no verdict, and asks again."""
    async with open_bureau(tmp_path) as bureau:
        assert await bureau.office.issue([(A, "take-1", RECORD)]) == [""]
        ((_, code),) = await bureau.waiting()
        bureau.staging.drop(["take-1"])
    async with open_bureau(tmp_path) as bureau:
        assert await bureau.waiting() == []
        assert await bureau.office.issue([(A, "take-1", RECORD)]) == [""], "not N-201"
        assert await bureau.waiting() == [("take-1", code)]
        assert await bureau.office.issue([(A, "take-1", RECORD)]) == [""], "and once more"
        assert await bureau.waiting() == [("take-1", code)]
        await bureau.office.taken(A, ["take-1"])
        assert await bureau.waiting() == []
        assert await bureau.office.issue([(A, "take-2", RECORD)]) == ["N-201"]
        assert await bureau.waiting() == []
    assert files_with(tmp_path, "take-1", "take-2", code) == []


@pytest.mark.req("R-115")
async def test_a_verdict_for_each_request(bureau: Bureau) -> None:
    await bureau.code("t0", OTHER_RECORD)
    requests = [
        (A, "take-1", RECORD),
        ("990043", "take-2", RECORD),
        (A, "take-3", OTHER_RECORD),
        (B, "take-4", OTHER_RECORD),
    ]
    assert await bureau.office.issue(requests) == ["", "N-101", "N-201", ""]
    assert await bureau.office.issue([]) == []
    assert await bureau.office.issue([(B, "take-1", RECORD), (A, "take-1", NEW_RECORD)]) == ["N-202", "N-202"]
    assert [number for number, _ in await bureau.waiting(A)] == ["take-1"]
    assert [number for number, _ in await bureau.waiting(B)] == ["take-4"]


async def test_two_numbers_for_one_person_bring_one_code(bureau: Bureau) -> None:
    assert await bureau.office.issue([(A, "take-1", RECORD), (A, "take-2", RECORD)]) == ["", ""]
    (_, first), (_, second) = await bureau.waiting()
    assert first == second
    assert len(await bureau.rows("SELECT 1 FROM issued_code")) == 1


async def test_an_agency_takes_its_own_numbers_only(bureau: Bureau) -> None:
    assert await bureau.office.issue([(A, "take-1", RECORD)]) == [""]
    await bureau.office.taken(B, ["take-1"])
    assert len(await bureau.waiting()) == 1
    assert await bureau.office.issue([(A, "take-1", RECORD)]) == [""]


# 失効


async def test_a_retired_code_translates_no_longer_and_the_next_one_is_another(bureau: Bureau) -> None:
    ours, theirs = await bureau.code("take-1"), await bureau.code("take-2", agency=B)
    person = codes.person_mark(KEY, RECORD)
    assert await bureau.office.translate([ours], A, B) == ((person,), (theirs,))
    await bureau.office.retire(B, [ours])
    assert await bureau.office.translate([ours], A, B) == ((person,), (theirs,)), (
        "not another agency's to retire"
    )
    await bureau.office.retire(B, [theirs])
    assert await bureau.office.translate([ours], A, B) == ((person,), ("",))
    assert await bureau.office.translate([theirs], B, A) == (("",), ("",))
    again = await bureau.code("take-3", agency=B)
    assert again not in (ours, theirs)
    assert await bureau.office.translate([ours, "nothing", ours], A, B) == (
        (person, "", person),
        (again, "", again),
    )
    assert await bureau.waiting(B) == [], "what it retired itself it is not told"


async def test_an_agency_is_told_what_the_network_retires_until_it_knows(bureau: Bureau) -> None:
    code = await bureau.code("take-1")
    await bureau.office.retire(A, [code], "network")
    assert await bureau.waiting() == [("", code)] == await bureau.waiting()
    assert await bureau.waiting(B) == []
    await bureau.office.retire(A, [code])
    assert await bureau.waiting() == []


async def test_a_code_that_is_retired_before_it_was_taken_is_not_handed_out(bureau: Bureau) -> None:
    assert await bureau.office.issue([(A, "take-1", RECORD)]) == [""]
    ((_, code),) = await bureau.waiting()
    await bureau.office.retire(A, [code])
    assert await bureau.waiting() == []
    assert await bureau.office.issue([(A, "take-1", RECORD)]) == [""]
    ((_, other),) = await bureau.waiting()
    assert other != code


@pytest.mark.req("R-120")
async def test_a_new_resident_record_code_retires_all_codes_made_from_the_old_one(bureau: Bureau) -> None:
    ours, theirs = await bureau.code("take-1"), await bureau.code("take-2", agency=B)
    bystander = await bureau.code("take-3", OTHER_RECORD)
    for _ in range(2):  # the registry says so with every request
        await bureau.office.record_code_changed([(RECORD, NEW_RECORD)])
    assert await bureau.waiting(A) == [("", ours)]
    assert await bureau.waiting(B) == [("", theirs)]
    new = await bureau.code("take-4", NEW_RECORD)
    assert new not in (ours, theirs)
    assert await bureau.office.translate([new, bystander], A, B) == (
        (codes.person_mark(KEY, NEW_RECORD), codes.person_mark(KEY, OTHER_RECORD)),
        ("", ""),
    )
    ledger = bureau.ledger_folder.ledger
    over = [r.event for r in await ledger.at(range(1, ledger.position + 1))]
    successors = {e.successor for e in over if isinstance(e, LinkCodeWithdrawn)}
    assert successors == {codes.person_mark(KEY, NEW_RECORD)}, "the network can still tell that they are one"


async def test_a_code_whose_key_was_destroyed_makes_room_for_another(bureau: Bureau) -> None:
    code = await bureau.code("take-1")
    ledger = bureau.ledger_folder.ledger
    key = f"person/{codes.person_mark(KEY, RECORD)}"
    await erasure.ask(ledger, key, "rule", "one", "r1")
    await erasure.confirm(ledger, key, "r1", "other", Clock())
    assert await bureau.office.translate([code], A, A) == ((codes.person_mark(KEY, RECORD),), ("",))
    again = await bureau.code("take-2")
    assert again != code
    assert (await bureau.office.translate([again], A, A))[1] == (again,)
    assert (await bureau.office.translate([code], A, A))[0] == ("",)
    assert await bureau.waiting() == []


# 一人一符号


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("issue", "take", "retire", "order", "changed", "ask again")),
            st.sampled_from((A, B)),
            st.integers(0, 2),
        ),
        max_size=25,
    )
)
@pytest.mark.req("R-114")
def test_at_most_one_code_is_valid_for_a_person_and_agency_whatever_happens(
    steps: list[tuple[str, str, int]],
) -> None:
    async def live(folder: Path) -> None:
        async with open_bureau(folder) as bureau:
            office = bureau.office
            records = {0: RECORD, 1: OTHER_RECORD, 2: "4" * 11}
            held: dict[tuple[str, str], str] = {}
            seen: Counter[str] = Counter()
            numbers = iter(range(1000))
            last: dict[str, tuple[str, str]] = {}
            for step, agency, who in steps:
                record = records[who]
                if step in ("issue", "ask again"):
                    number, record = last.get(agency, ("t", record)) if step == "ask again" else ("t", record)
                    if step == "issue" or number == "t":
                        number = f"t{next(numbers)}"
                    last[agency] = (number, record)
                    (verdict,) = await office.issue([(agency, number, record)])
                    known = (agency, record) in held
                    assert verdict == ("N-201" if known else ""), "a code for whoever has none"
                elif step == "take":
                    waiting = [(n, c) for n, c in await bureau.waiting(agency) if n]
                    for _, code in waiting:
                        (person,), _ = await office.translate([code], agency, agency)
                        held |= {
                            (agency, r): code for r in records.values() if codes.person_mark(KEY, r) == person
                        }
                    await office.taken(agency, [n for n, _ in waiting])
                elif step in ("retire", "order"):
                    code = held.pop((agency, record), "")
                    await office.retire(
                        agency, [code] if code else [], "agency" if step == "retire" else "network"
                    )
                else:
                    present = f"{next(numbers):011d}"
                    await office.record_code_changed([(record, present)])
                    for each in (A, B):
                        held.pop((each, record), None)
                    records[who] = present
                valid = await bureau.rows(
                    "SELECT agency, person, code_index FROM issued_code WHERE state = 'valid'"
                )
                assert len({(a, p) for a, p, _ in valid}) == len(valid), "one for a person and agency"
                assert set(valid) >= set(
                    await bureau.rows(
                        "SELECT p.agency, p.person, c.code_index FROM issued_person p "
                        "JOIN issued_code c ON c.position = p.position"
                    )
                )
                for (holder, _), code in held.items():
                    assert (await office.translate([code], holder, holder))[1] == (code,)
            events = bureau.ledger_folder.ledger
            for recorded in await events.at(range(1, events.position + 1)):
                if isinstance(recorded.event, LinkCodeIssued):
                    seen[recorded.event.link_code] += 1
            assert all(count == 1 for count in seen.values()), "no code comes twice"

    with TemporaryDirectory() as folder:
        trio.run(live, Path(folder))


# 機関ごとの符号


@pytest.mark.req("R-114", "R-121")
def test_codes_of_several_agencies_for_one_person_have_nothing_in_common() -> None:
    """Uniform, unrelated, without a common beginning: what one agency holds says nothing about another's."""
    agencies, records = [f"99{n:04d}" for n in range(8)], [f"{n:011d}" for n in range(500)]
    made = {r: [codes.link_code(KEY, a, r) for a in agencies] for r in records}
    everything = [code for found in made.values() for code in found]
    assert len(set(everything)) == len(everything)
    assert {len(code) for code in everything} == {32}
    digits = Counter(digit for code in everything for digit in code)
    expected = len(everything) * 32 / 16
    assert set(digits) == set("0123456789abcdef")
    # Chi-squared with 15 degrees of freedom; fixed inputs, so this never varies.
    assert sum((count - expected) ** 2 / expected for count in digits.values()) < 37.7
    equal = Counter[bool]()
    for found in made.values():
        for one, other in combinations(found, 2):
            equal.update(x == y for x, y in zip(one, other, strict=True))
            assert one[:8] != other[:8]
    share = equal[True] / equal.total()
    assert abs(share - 1 / 16) < 0.002, "two codes agree in a place as often as chance has it"


@pytest.mark.req("R-114")
def test_a_code_depends_on_everything_it_is_made_of() -> None:
    made = {
        codes.link_code(key, agency, record, retired)
        for key in (KEY, bytes(32))
        for agency in (A, B)
        for record in (RECORD, OTHER_RECORD)
        for retired in (0, 1)
    }
    assert len(made) == 16
