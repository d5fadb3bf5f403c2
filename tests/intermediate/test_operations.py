"""The intermediate log (中間ログ): every operation with who, when, where, about whom and what for."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import trio

from adapters.platform.staffing import AT_MOST, Caller, LogEntry, Search, Staffing, grant_content
from broker.intermediate.office import OfficeClosed, OfficeOpened
from broker.intermediate.operation import OperationRecorded
from broker.intermediate.second_person import ActConfirmed
from broker.intermediate.staff import AuthorityGranted, AuthorityRevoked
from broker.ledger.ledger import Unit
from schemas.errors import Refusal
from tests.house import (
    ANSWERING,
    ASKING,
    OFFICER,
    ROW,
    START,
    House,
    Keys,
    files_with,
    open_house,
    order,
    resident,
)

SELF = ASKING.code
NUMBER = resident(ASKING, 0)
AUDITOR, MANAGER, HEAD, ADMINISTRATOR = (
    Caller("s0901", "terminal-1", "定期監査"),
    Caller("s0902", "terminal-2", "開示請求の確認"),
    Caller("s0903", "terminal-3", "異動"),
    Caller("s0904", "terminal-4", "異動"),
)
ROLES = {
    AUDITOR: "auditor",
    MANAGER: "affair_manager",
    HEAD: "approver",
    ADMINISTRATOR: "system_administrator",
}


def granted(staff_id: str, role: str, office: str = "監査課") -> AuthorityGranted:
    return AuthorityGranted(staff_id, office, role, (ROW,), "2026-04-01", "2027-03-31")


async def people(house: House) -> Staffing:
    """The desk of 連携市, with somebody in every role."""
    staffing = Staffing(house.asking.platform)
    for caller, role in ROLES.items():
        assert await staffing.grant(granted(caller.staff_id, role)) is None
    return staffing


@pytest.fixture
async def bare(tmp_path: Path, keys: Keys) -> AsyncIterator[House]:
    """A house where nothing has happened yet."""
    async with open_house(tmp_path / "bare", keys) as house:
        yield house


async def act(
    house: House, staffing: Staffing, word: str, numbers: tuple[str, ...], target: str = ""
) -> None:
    """The manager does something, and it is recorded."""
    officer = await staffing.officer(MANAGER, "answer")
    assert not isinstance(officer, Refusal)
    change = staffing.operation(word, officer, numbers, target)
    await house.asking.platform.ledger.append(Unit(change.stream, (change,)))


def read(found: list[LogEntry] | Refusal) -> list[LogEntry]:
    assert not isinstance(found, Refusal), found
    return found


@pytest.mark.req("R-079", "R-098", "R-156", "R-157")
async def test_an_operation_says_who_did_it_when_where_to_whom_and_what_for(bare: House) -> None:
    staffing = await people(bare)
    await act(bare, staffing, "approve_answer", (NUMBER,), "provision/x-1")
    bare.clock.advance(timedelta(hours=1))
    first, second = read(await staffing.read_log(AUDITOR, Search()))
    assert second == LogEntry(
        position=second.position,
        at=START.isoformat(timespec="microseconds"),
        log="business",
        function="linkage_confirmation",
        operation="approve_answer",
        staff_id=MANAGER.staff_id,
        office="監査課",
        official_role="affair_manager",
        subjects=(NUMBER,),
        target="provision/x-1",
        purpose=MANAGER.purpose,
        terminal=MANAGER.terminal,
    )
    # The reading is an operation itself, recorded before anything is read.
    assert (first.log, first.operation, first.staff_id) == ("audit", "read_operations", AUDITOR.staff_id)
    assert first.at == (START + timedelta(hours=1)).isoformat(timespec="microseconds")


@pytest.mark.req("R-158", "R-159")
async def test_the_log_belongs_to_one_agency_and_nothing_personal_of_it_is_readable_in_its_files(
    bare: House,
) -> None:
    staffing = await people(bare)
    await act(bare, staffing, "read_records", (NUMBER,))
    other = Staffing(bare.answering.platform)
    assert await other.grant(granted(AUDITOR.staff_id, "auditor")) is None
    (own,) = read(await other.read_log(AUDITOR, Search()))
    assert own.operation == "read_operations", "nothing of 連携市 stands here"
    assert len(read(await staffing.read_log(AUDITOR, Search()))) == 2
    assert files_with(bare.folder / SELF, NUMBER, MANAGER.terminal, MANAGER.purpose) == []


@pytest.mark.req("R-157")
async def test_the_log_is_searched_by_member_of_staff_and_by_day(bare: House) -> None:
    staffing = await people(bare)
    for later in (0, 1, 1):
        bare.clock.advance(timedelta(days=later))
        await act(bare, staffing, "read_inquiry", (NUMBER,))
    days = ("2026-11-21", "2026-11-22", "2026-11-23")

    async def operations(caller: Caller = AUDITOR, **search: str) -> list[str]:
        found = read(await staffing.read_log(caller, Search(**search)))
        return [entry.at[:10] for entry in found if entry.operation == "read_inquiry"]

    assert await operations() == [*reversed(days)]
    assert await operations(staff_id=MANAGER.staff_id) == [*reversed(days)]
    assert await operations(staff_id=HEAD.staff_id) == []
    assert await operations(since=days[1]) == [days[2], days[1]]
    assert await operations(until=days[1]) == [days[1], days[0]]
    assert await operations(since=days[1], until=days[1], staff_id=MANAGER.staff_id) == [days[1]]
    found = read(await staffing.read_log(AUDITOR, Search(staff_id=AUDITOR.staff_id)))
    assert len(found) == 7, "every reading, this one too"


async def test_only_who_audits_reads_the_log(bare: House) -> None:
    staffing = await people(bare)
    for caller in (MANAGER, HEAD, ADMINISTRATOR, Caller("nobody", "t", "p")):
        assert await staffing.read_log(caller, Search()) == Refusal("I-122")
    assert await bare.asking.of_kind(OperationRecorded) == []


async def test_nobody_orders_anything_without_a_purpose() -> None:
    for staff_id, purpose in (("", "定期監査"), ("s0901", " ")):
        with pytest.raises(ValueError, match="purpose"):
            Caller(staff_id, "terminal-1", purpose)


@pytest.mark.req("R-156")
async def test_the_log_of_a_person_is_read_when_a_second_person_has_agreed(bare: House) -> None:
    staffing = await people(bare)
    await act(bare, staffing, "read_inquiry", (NUMBER,))
    await act(bare, staffing, "read_inquiry", (resident(ASKING, 1),))
    search = Search(integrated_number=NUMBER)
    assert await staffing.read_log(AUDITOR, search) == Refusal("I-124")
    act_id = await staffing.ask_to_read(AUDITOR, search)
    assert isinstance(act_id, str)
    assert await staffing.read_log(AUDITOR, search, act_id) == Refusal("I-124"), "nobody has agreed yet"
    assert await staffing.agree_to_read(AUDITOR, search, act_id) == Refusal("I-121")
    assert await staffing.agree_to_read(ADMINISTRATOR, search, act_id) == Refusal("I-122")
    wider = Search(integrated_number=resident(ASKING, 1))
    assert await staffing.agree_to_read(MANAGER, wider, act_id) == Refusal("I-123")
    assert await staffing.agree_to_read(MANAGER, search, act_id) is None
    assert await staffing.agree_to_read(HEAD, search, act_id) == Refusal("I-124"), "once is enough"
    assert await staffing.read_log(AUDITOR, wider, act_id) == Refusal("I-123")
    found = read(await staffing.read_log(AUDITOR, search, act_id))
    assert [(entry.operation, entry.target) for entry in found] == [
        ("read_operations", act_id),
        ("read_inquiry", ""),
    ]
    assert all(entry.subjects == (NUMBER,) for entry in found)
    words = [entry.operation for entry in reversed(read(await staffing.read_log(AUDITOR, Search())))]
    assert words == [
        "read_inquiry",
        "read_inquiry",
        "propose",
        "confirm",
        "read_operations",
        "read_operations",
    ]
    bare.clock.advance(timedelta(days=8))
    assert await staffing.read_log(AUDITOR, search, act_id) == Refusal("I-124"), "it has lapsed"


async def test_of_two_who_confirm_at_once_one_does(bare: House) -> None:
    staffing = await people(bare)
    search = Search(integrated_number=NUMBER)
    act_id = await staffing.ask_to_read(AUDITOR, search)
    assert isinstance(act_id, str)
    outcomes: list[Refusal | None] = []

    async def agree(caller: Caller) -> None:
        outcomes.append(await staffing.agree_to_read(caller, search, act_id))

    async with trio.open_nursery() as nursery:
        for caller in (MANAGER, HEAD):
            nursery.start_soon(agree, caller)
    assert sorted(outcomes, key=repr) == [None, Refusal("I-124")]
    assert len(await bare.asking.of_kind(ActConfirmed)) == 1


async def test_an_act_is_declined_by_a_second_person_or_taken_back_by_the_first(bare: House) -> None:
    staffing = await people(bare)
    search = Search(integrated_number=NUMBER)
    for caller, refusal in ((HEAD, None), (AUDITOR, None), (ADMINISTRATOR, Refusal("I-122"))):
        act_id = await staffing.ask_to_read(AUDITOR, search)
        assert isinstance(act_id, str)
        assert await staffing.decline(caller, act_id) == refusal
        if refusal is None:
            assert await staffing.agree_to_read(MANAGER, search, act_id) == Refusal("I-124")
    assert await staffing.decline(HEAD, "made up") == Refusal("I-124")
    assert await staffing.ask_to_read(MANAGER, search) == Refusal("I-122")


@pytest.mark.req("R-076")
async def test_a_member_of_staff_grants_authority_with_a_second_person_and_never_to_one_of_both(
    bare: House,
) -> None:
    staffing = await people(bare)
    wanted = granted("s0777", "affair_officer")
    act_id = await staffing.propose(ADMINISTRATOR, "grant_authority", grant_content(wanted))
    assert isinstance(act_id, str)
    more = replace(wanted, official_role="affair_manager")
    assert await staffing.confirm_grant(HEAD, act_id, more) == Refusal("I-123")
    for own in (HEAD, ADMINISTRATOR):
        assert await staffing.confirm_grant(HEAD, act_id, replace(wanted, staff_id=own.staff_id)) == Refusal(
            "I-121"
        )
    assert await staffing.authority("s0777", ROW, "2026-11-21") == (None, Refusal("I-101"))
    assert await staffing.confirm_grant(HEAD, act_id, wanted) is None
    assert await staffing.authority("s0777", ROW, "2026-11-21") == (wanted, None)
    assert await staffing.confirm_grant(HEAD, act_id, wanted) == Refusal("I-124")


@pytest.mark.req("R-076")
async def test_a_proposal_of_somebody_whose_authority_has_ended_is_not_confirmed(bare: House) -> None:
    staffing = await people(bare)
    wanted = granted("s0777", "affair_officer")
    act_id = await staffing.propose(ADMINISTRATOR, "grant_authority", grant_content(wanted))
    assert isinstance(act_id, str)
    assert await staffing.revoke(AuthorityRevoked(ADMINISTRATOR.staff_id, "2026-11-20")) is None
    assert await staffing.confirm_grant(HEAD, act_id, wanted) == Refusal("I-122")
    assert await staffing.revoke(AuthorityRevoked("s0777", "2026-11-20")) == Refusal("I-127")


@pytest.mark.req("R-066", "R-097")
async def test_an_office_that_is_registered_limits_what_its_staff_may_do(bare: House) -> None:
    staffing = Staffing(bare.asking.platform)
    opened = OfficeOpened(SELF, "K01", "子育て支援課", (ROW,), "2026-04-01", "2027-03-31")
    assert await staffing.open_office(opened) is None
    ours = granted("s0777", "affair_officer", "K01")
    assert await staffing.grant(replace(ours, rows=(ROW, "106"))) == Refusal("I-126", "106")
    assert await staffing.grant(ours) is None
    named = replace(ours, office="子育て支援課")
    assert await staffing.authority("s0777", ROW, "2026-11-21") == (named, None), "as records name it"
    assert await staffing.close_office(OfficeClosed(SELF, "K01", "2026-11-20")) is None
    assert await staffing.authority("s0777", ROW, "2026-11-21") == (named, Refusal("I-126", "K01"))
    assert await staffing.close_office(OfficeClosed(SELF, "K02", "2026-11-20")) == Refusal("I-126", "K02")


@pytest.mark.req("R-075", "R-088")
async def test_offices_of_partners_are_kept_as_destinations(bare: House) -> None:
    staffing = Staffing(bare.asking.platform)
    theirs = OfficeOpened(ANSWERING.code, "Z07", "税務課", (), "2026-04-01", "2026-11-21")
    assert await staffing.open_office(theirs) is None
    assert await staffing.destination(ANSWERING.code, "Z07") == theirs
    assert await staffing.destination(SELF, "Z07") == Refusal("I-126", "Z07")
    bare.clock.advance(timedelta(days=1))
    assert await staffing.destination(ANSWERING.code, "Z07") == Refusal("I-126", "Z07")


@pytest.mark.req("R-100")
async def test_while_one_officer_edits_a_record_nobody_else_changes_it(bare: House) -> None:
    staffing = await people(bare)
    first = await staffing.officer(MANAGER, "answer")
    second = await staffing.officer(HEAD, "approve")
    assert not isinstance(first, Refusal)
    assert not isinstance(second, Refusal)
    assert await staffing.begin_edit(first, NUMBER) is None
    assert await staffing.begin_edit(second, NUMBER) == Refusal("I-125")
    assert await staffing.may_edit(second, NUMBER) == Refusal("I-125")
    assert not isinstance(await staffing.may_edit(first, NUMBER), Refusal)
    assert await staffing.begin_edit(second, resident(ASKING, 1)) is None
    await staffing.end_edit(second, NUMBER)
    assert await staffing.may_edit(second, NUMBER) == Refusal("I-125"), "not his to end"
    await staffing.end_edit(first, NUMBER)
    assert await staffing.begin_edit(second, NUMBER) is None
    words = [(e.operation, e.subjects) for e in await bare.asking.of_kind(OperationRecorded)]
    other = resident(ASKING, 1)
    assert words == [
        ("begin_edit", (NUMBER,)),
        ("begin_edit", (other,)),
        ("end_edit", (NUMBER,)),
        ("begin_edit", (NUMBER,)),
    ]


@pytest.mark.req("R-156", "R-157")
async def test_the_log_of_a_person_has_what_the_function_did_about_the_person(house: House) -> None:
    staffing = await people(house)
    await house.asking.platform.inquire(order("q-1", 0))
    await house.post()
    search = Search(integrated_number=NUMBER)
    act_id = await staffing.ask_to_read(AUDITOR, search)
    assert isinstance(act_id, str)
    assert await staffing.agree_to_read(MANAGER, search, act_id) is None
    found = read(await staffing.read_log(AUDITOR, search, act_id))
    functions = {entry.operation: entry.function for entry in found}
    assert functions["inquiry.requested"] == functions["inquiry.answered"] == "linkage_confirmation"
    assert functions["link_code.acquired"] == "id_conversion"
    (asked,) = (entry for entry in found if entry.operation == "inquiry.requested")
    assert (asked.staff_id, asked.subjects) == (OFFICER, (NUMBER,))
    by_staff = read(await staffing.read_log(AUDITOR, Search(staff_id=OFFICER)))
    assert [entry.operation for entry in by_staff] == ["inquiry.requested"]
    assert len(found) < AT_MOST
