"""`renkei records reconcile`: every difference between the three records is named, and nothing else."""

from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from adapters.business.client import BusinessClient
from adapters.business.server import BusinessServer
from adapters.network.client import NetworkClient
from adapters.platform.notices import NoticeOrder, Notices
from adapters.platform.provision_records import CorrectionOrder, ProvisionRecordsDesk
from adapters.platform.staffing import Caller
from broker.intermediate.staff import AuthorityGranted
from ops.cli import main
from ops.reconcile import Difference, Ledgers, compare, offline, pages
from schemas.accounts import (
    ANSWERED,
    EXPIRED,
    HELD,
    INQUIRER,
    NETWORK,
    NOT_PERMITTED,
    PROVIDER,
    SIDES,
    WITHDRAWN,
    Account,
    Said,
    Sides,
    account_from,
    sides_from,
)
from schemas.errors import Refused, entry
from schemas.messages import Malformed, pack, unpack
from tests.house import (
    ANSWERING,
    ASKING,
    INFORMATION,
    LAYOUT,
    NO_CODE,
    NO_RECORD,
    OFFICE,
    OFFICER,
    ROW,
    START,
    YEAR,
    House,
    Line,
    Town,
    order,
    resident,
)

SETTLE = timedelta(minutes=30)
LATER = START + timedelta(hours=3)
"""Whatever happened at START is settled, and permits have lapsed."""


def at(minutes: int) -> str:
    return (START + timedelta(minutes=minutes)).isoformat(timespec="microseconds")


DONE = Said(ANSWERED, "", at(1), "a-1")
NONE = Said(ANSWERED, "I-204", at(1), "a-1")
NEVER = Said(NOT_PERMITTED, "I-101")
BARE = Account(
    side=NETWORK,
    inquirer=ASKING.code,
    provider=ANSWERING.code,
    message_id="i-1",
    processing_number="x-1",
    requested_at=at(0),
    valid_until=at(60),
    left=True,
    basis="19-8",
    law_version="v",
    law_row=ROW,
    information="地方税関係情報",
    office=OFFICE,
    items=("total_income",),
    units=(1, 1),
    non_disclosure=False,
    persons=(DONE, DONE),
    corrections=(),
    changed_at=at(2),
)


def sides(
    inquirer: dict[str, Any] | None = None,
    provider: dict[str, Any] | None = None,
    network: dict[str, Any] | None = None,
    **more: Any,
) -> Sides:
    """Three accounts that agree, each changed as told; None for a side that has none."""
    changes = {INQUIRER: inquirer, PROVIDER: provider, NETWORK: network}
    made = [replace(BARE, side=side, **change) for side, change in changes.items() if change is not None]
    return Sides(tuple(made), SIDES, **more)


def kinds(found: Sides, now: datetime = LATER) -> list[tuple[str, str, int]]:
    return [(each.kind, each.item, each.place) for each in compare(found, now, SETTLE)[0]]


def persons(*said: Said) -> dict[str, Any]:
    return {"persons": said}


OK: dict[str, Any] = {}
LOST = persons(DONE, Said())
TOO_LATE = persons(DONE, Said(ANSWERED, "I-204", at(59), "a-2"))
GONE = persons(DONE, Said(EXPIRED))


def test_three_records_that_agree_differ_in_nothing() -> None:
    for each in (
        sides(OK, OK, OK),
        sides(persons(replace(NONE, answer=""), DONE), persons(NONE, DONE), OK),
        sides(GONE, persons(DONE, Said(WITHDRAWN)), LOST),
        sides(GONE, TOO_LATE, LOST),
    ):
        assert compare(each, LATER, SETTLE) == ([], False)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (sides(None, OK, OK), [("missing", "", -1)]),
        (sides(OK, None, OK), [("missing", "", -1)]),
        (sides(OK, OK, None), [("missing", "", -1)]),
        (sides(OK, None, None), [("missing", "", -1)]),
        (sides({"left": False, **persons(NEVER, NEVER)}, OK, OK), [("unsent", "", -1)]),
        (sides({"left": False, **persons(Said(), Said())}, OK, OK), [("verdict", "", -1)]),
        (sides(OK, {"items": ("total_income", "annual_tax")}, OK), [("request", "items", -1)]),
        (sides({"requested_at": at(1)}, OK, OK), [("request", "requested_at", -1)]),
        (sides(OK, OK, {"law_row": "2"}), [("request", "law_row", -1)]),
        (sides(OK, {"non_disclosure": True}, OK), [("request", "non_disclosure", -1)]),
        (sides(OK, OK, {"units": (), **persons(DONE)}), [("persons", "", -1)]),
        (sides(LOST, OK, OK), [("answered", "", 1)]),
        (sides(OK, OK, LOST), [("answered", "", 1)]),
        (sides(OK, LOST, OK), [("answered", "", 1)]),
        (sides(GONE, OK, OK), [("answered", "", 1)]),
        (sides(LOST, LOST, LOST), [("ended", "", 1)]),
        (sides(GONE, persons(DONE, Said(HELD, "I-203")), LOST), [("held", "", 1)]),
        (sides(persons(Said(ANSWERED, "I-301", at(1), "a-1"), DONE), OK, OK), [("code", "", 0)]),
        (sides(OK, OK, persons(NONE, DONE)), [("code", "", 0)]),
        (sides(OK, persons(DONE, replace(DONE, at=at(2))), OK), [("time", "", 1)]),
        (sides(OK, OK, persons(replace(DONE, answer="a-9"), DONE)), [("answer", "", 0)]),
        (sides(OK, persons(DONE, replace(DONE, non_disclosure=True)), OK), [("non_disclosure", "", 1)]),
        (sides({"corrections": ("c-1",)}, OK, {"corrections": ("c-1",)}), [("correction", "c-1", -1)]),
        (Sides((BARE, BARE), (NETWORK,)), [("twice", "", -1)]),
    ],
)  # fmt: skip
def test_every_kind_of_difference_is_named(found: Sides, expected: list[tuple[str, str, int]]) -> None:
    named, under_way = compare(found, LATER, SETTLE)
    assert [(each.kind, each.item, each.place) for each in named] == expected
    assert not under_way
    for each in named:
        assert str(each).isprintable()
        assert each.key == (ASKING.code, "i-1")


def test_a_permit_that_has_not_lapsed_is_no_end() -> None:
    now = START + timedelta(minutes=45)
    assert compare(sides(LOST, persons(DONE, Said(HELD, "I-203")), LOST), now, SETTLE) == ([], False)
    assert kinds(sides(GONE, LOST, LOST), now) == [("ended", "", 1)]
    withdrawn = persons(DONE, Said(WITHDRAWN))
    assert kinds(sides(withdrawn, LOST, LOST), now) == [("ended", "", 1)]
    assert kinds(sides(withdrawn, persons(DONE, Said(HELD, "I-203")), withdrawn), now) == [("held", "", 1)]


def test_what_is_under_way_is_told_apart_from_a_difference() -> None:
    lost = sides(LOST, OK, OK)
    fresh = START + timedelta(minutes=31)
    assert compare(lost, fresh, SETTLE) == ([], True)
    assert kinds(lost, START + timedelta(minutes=33)) == [("answered", "", 1)]
    assert compare(replace(lost, queued=True), LATER, SETTLE) == ([], True)
    lapsing = START + timedelta(minutes=75)
    assert compare(sides(LOST, LOST, LOST), lapsing, SETTLE) == ([], True)
    unsent = sides({"left": False, **persons(Said(WITHDRAWN), Said(WITHDRAWN))}, None, OK)
    assert "unsent" in [each.kind for each in compare(unsent, fresh, SETTLE)[0]], "however recent it is"


def test_a_side_that_was_not_asked_is_not_missed() -> None:
    assert compare(replace(sides(OK, None, OK), asked=(INQUIRER, NETWORK)), LATER, SETTLE) == ([], False)


def test_a_provider_that_turned_an_inquiry_away_needs_no_record_of_it() -> None:
    refused = persons(*[Said(ANSWERED, "L-302", at(1), "a-1")] * 2)
    found = sides(refused, None, refused, turned_away="L-302")
    assert compare(found, LATER, SETTLE) == ([], False)
    assert kinds(replace(found, turned_away="")) == [("missing", "", -1)]
    assert kinds(sides(OK, None, OK, turned_away="L-302")) == [("missing", "", -1)], "something was provided"


def test_accounts_travel_and_what_is_none_is_refused() -> None:
    found = sides(OK, LOST, OK, queued=True)
    assert sides_from(unpack(pack(found))) == found
    for bad in ({}, None, {**unpack(pack(BARE)), "persons": ({"state": 1},)}):
        with pytest.raises(Malformed):
            account_from(bad)  # type: ignore[arg-type] # of a partner
    with pytest.raises(Malformed):
        sides_from({"accounts": ()})


# -- real ledgers ---------------------------------------------------------------------------------------


def found_in(house: House, *names: str) -> list[Sides]:
    """Every exchange of the ledgers in these folders of a house (none: of all)."""
    stores: dict[str, tuple[str, Any, Any]] = {
        "network": (NETWORK, house.network.ledger.registry, house.network.ledger.store)
    }
    for code, town in house.towns.items():
        stores[code] = (code, town.folder.ledger.registry, town.folder.ledger.store)
    ledgers = [stores[name] for name in names or stores]
    with closing(Ledgers(ledgers, Path(":memory:"))) as found:
        for index in range(len(ledgers)):
            found.read(index, lambda position: None)
        return list(found.sides())


def differences(house: House, *names: str, after: timedelta = SETTLE * 2) -> list[Difference]:
    now = house.clock() + after
    return [each for found in found_in(house, *names) for each in compare(found, now, SETTLE)[0]]


async def a_day(house: House) -> None:
    """Inquiries of every fate: answered, refused by each, held, in a household, corrected, never sent."""
    await house.answering.platform.set_hold(resident(ANSWERING, 2), True, "protected_person")
    for number, people in enumerate(((0,), (0, 1), (NO_RECORD,), (NO_CODE,), (2,), (0, NO_RECORD, 1))):
        assert await house.asking.platform.inquire(order(f"q-{number}", *people)) is None
        house.clock.advance(timedelta(seconds=1))
    await house.asking.platform.inquire(order("q-never", 0, staff_id="nobody"))
    orders = [order(f"many-{index}", index) for index in (0, 1, NO_RECORD, NO_CODE)]
    assert await house.asking.platform.inquire_many(orders) == [None] * 4
    await house.post()


@pytest.mark.req("R-147", "R-148", "R-149", "R-151", "R-154")
async def test_the_records_of_all_three_agree_whatever_became_of_an_inquiry(house: House) -> None:
    await a_day(house)
    assert differences(house, after=timedelta(minutes=45)) == []
    found = found_in(house)
    assert len(found) == 8
    assert sorted(len(each.accounts) for each in found) == [1, 2, 3, 3, 3, 3, 3, 3]
    for side in SIDES:
        assert any(each.of(side) for each in found)
    assert differences(house, ASKING.code, ANSWERING.code, after=timedelta(minutes=45)) == []


async def test_a_held_inquiry_that_lapsed_is_ended_everywhere_or_named(house: House) -> None:
    await a_day(house)
    house.clock.advance(timedelta(hours=2))
    await house.asking.platform.pending.tend(house.clock())
    assert {each.kind for each in differences(house)} == {"held"}
    await house.answering.platform.expire(house.clock())
    await house.post()
    assert differences(house) == []


async def test_what_waits_in_an_outbox_is_under_way_however_long(house: House) -> None:
    assert await house.asking.platform.inquire(order("q-1", 0)) is None
    assert differences(house) == []
    await house.asking.send()
    await house.answering.take_in()
    (found,) = found_in(house)
    assert found.queued
    assert compare(found, house.clock() + timedelta(minutes=45), SETTLE) == ([], True)
    await house.answering.send()
    await house.asking.take_in()
    (found,) = found_in(house)
    assert not found.queued
    assert differences(house) == []


async def test_an_answer_that_was_relayed_and_never_taken_in_is_named(house: House) -> None:
    await house.answer(0)
    (found,) = differences(house, after=timedelta(minutes=45))
    assert (found.kind, found.place) == ("answered", 0)
    assert "照会側" in str(found)
    assert "未回答" in str(found)


async def test_an_inquiry_that_was_never_fetched_is_named(house: House) -> None:
    await house.ask(0)
    (found,) = differences(house, after=timedelta(minutes=45))
    assert (found.kind, found.found) == ("missing", {PROVIDER: "なし"})
    assert differences(house, ASKING.code, "network", after=timedelta(minutes=45)) == []


async def test_an_answer_that_came_too_late_was_none_for_all_three(house: House) -> None:
    assert await house.answering.platform.receive(await house.ask(0, request_id="provided")) is None
    assert await house.answering.platform.receive(await house.ask(NO_RECORD, request_id="none")) is None
    house.clock.advance(timedelta(hours=2))
    assert [verdict.code for verdict in await house.answering.send()] == ["N-109", "N-109"]
    await house.asking.platform.pending.tend(house.clock())
    assert differences(house) == []


async def test_a_withdrawn_inquiry_is_withdrawn_for_all_three(house: House) -> None:
    await house.answering.platform.set_hold(resident(ANSWERING, 0), True, "protected_person")
    assert await house.answering.platform.receive(await house.ask(0)) is None
    caller = Caller(OFFICER, "t-1", "申請の取下げ")
    assert await house.asking.platform.pending.withdraw(["q-1"], caller) == [None]
    await house.asking.send()
    (found,) = differences(house, after=timedelta(minutes=45))
    assert (found.kind, found.found[PROVIDER]) == ("held", "保留 I-203")
    await house.post()
    assert differences(house, after=timedelta(minutes=45)) == []


async def test_an_inquiry_that_the_provider_turned_away_has_no_record_there(house: House) -> None:
    delivery = await house.ask(0)
    forged = replace(delivery, envelope=replace(delivery.envelope, signature=bytes(64)))
    refused = await house.answering.platform.receive(forged)
    assert refused is not None
    await house.answering.send()
    await house.asking.take_in()
    (found,) = found_in(house)
    assert found.turned_away == refused.code
    assert found.of(PROVIDER) is None
    assert differences(house, after=timedelta(minutes=45)) == []
    assert await online(house, house.answering) == (1, [])


async def test_an_answer_that_the_inquirer_turned_away_is_named(house: House) -> None:
    delivery = await house.answer(0)
    forged = replace(delivery, envelope=replace(delivery.envelope, signature=bytes(64)))
    assert await house.asking.platform.receive(forged) is not None
    assert [each.kind for each in differences(house, after=timedelta(minutes=45))] == ["answered"]


async def test_a_correction_that_did_not_reach_all_is_named(house: House) -> None:
    await house.answer(0)
    await house.asking.take_in()
    for staff_id, role in (("s0101", "affair_officer"), ("s0102", "approver")):
        granted = AuthorityGranted(staff_id, OFFICE, role, (ROW,), "2026-04-01", "2027-03-31")
        await house.asking.platform.grant(granted)
    door = at_the_door(house, house.asking)
    (record,) = await house.asking.platform.records(resident(ASKING, 0))
    ProvisionRecordsDesk(house.answering.platform)
    wanted = CorrectionOrder(resident(ASKING, 0), record.number, "office", "別の課", "誤り")
    proposed = await door.correct_record(Caller("s0101", "", "訂正"), wanted)
    assert proposed is not None
    assert await door.correct_record(Caller("s0102", "", "訂正"), wanted, proposed.detail) is None
    await house.asking.send()
    (found,) = differences(house, after=timedelta(minutes=45))
    assert (found.kind, found.found) == ("correction", {PROVIDER: "なし"})
    await house.answering.take_in()
    assert differences(house, after=timedelta(minutes=45)) == []


async def tell(house: House, notice_id: str, *people: int) -> None:
    """見本市 tells 連携市 something about people, without being asked."""
    granted = AuthorityGranted("s0101", "税務課", "affair_officer", (ROW,), "2026-04-01", "2027-03-31")
    await house.answering.platform.grant(granted)
    about = (ROW, INFORMATION, LAYOUT, YEAR) if people else ("", "", "", "")
    subjects = tuple(resident(ANSWERING, index) for index in people)
    wanted = NoticeOrder(
        notice_id, "s0101", ASKING.code, OFFICE, "更正", "更正がありました。", *about, subjects
    )
    await Notices(house.answering.platform).send(wanted)


@pytest.mark.req("R-147", "R-153")
async def test_a_notice_about_persons_has_its_records_on_all_three_sides_too(house: House) -> None:
    Notices(house.asking.platform)
    soon = timedelta(minutes=45)
    await tell(house, "n-1", 0, 1)
    await tell(house, "n-2")
    await tell(house, "n-3", NO_RECORD)
    assert differences(house, after=soon) == [], "one waits, one is about nobody, one was never sent"
    await house.answering.send()
    assert [(each.kind, each.found) for each in differences(house, after=soon)] == [
        ("missing", {INQUIRER: "なし"})
    ]
    compared, found = await online(house, house.asking)
    assert (compared, [each.kind for each in found]) == (1, ["missing"])
    await house.post()
    assert differences(house, after=soon) == []
    assert await online(house, house.asking) == (1, [])
    assert await online(house, house.answering) == (2, [])
    (told,) = [each for each in found_in(house) if len(each.accounts) == 3]
    assert all(each.unasked and len(each.persons) == 2 for each in told.accounts)


@pytest.mark.req("R-146")
async def test_the_command_compares_folders_without_any_key(
    house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await a_day(house)
    folder = tmp_path / "house"
    for vault in folder.rglob("kek*"):
        assert vault.exists()

    def run(now: datetime) -> int:
        return offline([folder], "sqlite", SETTLE, now)

    soon = house.clock() + timedelta(minutes=45)
    assert await trio.to_thread.run_sync(run, soon) == 0
    said = capsys.readouterr()
    assert "照合 8 件 処理中 0 件 相違 0 件" in said.out
    house.clock.advance(timedelta(hours=2))
    await house.asking.platform.pending.tend(house.clock())
    assert await trio.to_thread.run_sync(run, house.clock() + timedelta(hours=1)) == 1
    said = capsys.readouterr()
    assert "保留" in said.out
    assert "still held at the provider" in said.out
    assert said.err.startswith("[I-258]")
    assert entry("I-258").next_ja in said.err
    for index in range(5):
        assert resident(ASKING, index) not in said.out
        assert resident(ANSWERING, index) not in said.out


def test_a_folder_without_a_ledger_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["records", "reconcile", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("[S-104]")
    assert main(["records", "reconcile"]) == 1
    assert "FOLDER" in capsys.readouterr().err


# -- an agency against the network ------------------------------------------------------------------------


def at_the_door(house: House, town: Town) -> BusinessClient:
    """The door of a town, with its way to the network."""
    server = BusinessServer(town.platform, town.addressing, None, timedelta(0), town.client)
    name = house.keys.new_line(f"urn:renkei:business:{town.agency.code}")
    return BusinessClient(Line(house.keys.on_the_line(name), server.handle))


async def online(house: House, town: Town, since: str = "", until: str = "") -> tuple[int, list[Difference]]:
    door = at_the_door(house, town)
    now = house.clock() + timedelta(minutes=45)
    found = []
    compared = 0
    for which in ("own", "network"):
        async for each in pages(door, which, since, until):
            compared += 1
            found += compare(each, now, SETTLE)[0]
    return compared, found


async def test_an_agency_compares_its_records_with_the_networks_page_by_page(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.platform.provision_records.PAGE", 3)
    monkeypatch.setattr("adapters.network.reference.accounts.PAGE", 2)
    await a_day(house)
    assert await online(house, house.asking) == (8, [])
    assert await online(house, house.answering) == (7, [])
    assert await online(house, house.other) == (0, [])
    assert await online(house, house.asking, "2026-11-22") == (0, [])
    assert await online(house, house.asking, "2026-11-21", "2026-11-21") == (8, [])


async def test_an_agency_that_lost_records_is_told_of_each_that_the_network_has(house: House) -> None:
    await house.ask(0)
    compared, found = await online(house, house.answering)
    assert (compared, [(each.kind, each.found) for each in found]) == (1, [("missing", {PROVIDER: "なし"})])


async def test_nobody_reads_the_records_of_others_exchanges(house: House) -> None:
    await house.ask(0)
    (own,) = (await house.asking.client.accounts(0, "", ""))[1]
    assert await house.asking.client.accounts_of([own.name]) == [own]
    assert await house.answering.client.accounts_of([own.name]) == [own]
    assert await house.other.client.accounts_of([own.name]) == [None]
    assert await house.other.client.accounts(0, "", "") == (0, [])
    operator = NetworkClient(*[house.line("network", "network")] * 2)
    assert await operator.accounts(0, "", "") == (0, [own]), "the operator reads all"
    registry = NetworkClient(*[house.line("registry", "network")] * 2)
    with pytest.raises(Refused) as refused:
        await registry.accounts(0, "", "")
    assert refused.value.refusal.code == "N-101"


async def test_nothing_personal_travels_when_records_are_compared(house: House) -> None:
    await a_day(house)
    after, found = await house.asking.client.accounts(0, "", "")
    told = pack([*found])
    codes = await house.asking.rows("SELECT code_index FROM code_conversion")
    assert after == 0
    for index in range(5):
        for secret in (resident(ASKING, index), house.asking.platform.person(resident(ASKING, index))):
            assert secret.encode() not in told
    assert codes
    assert not any(code.encode() in told for (code,) in codes)


async def test_without_the_network_it_says_so(house: House) -> None:
    server = BusinessServer(house.asking.platform, house.asking.addressing, None)
    name = house.keys.new_line(f"urn:renkei:business:{ASKING.code}")
    door = BusinessClient(Line(house.keys.on_the_line(name), server.handle))
    with pytest.raises(Refused) as refused:
        await door.accounts("own", 0, "", "")
    assert refused.value.refusal.code == "S-103"
