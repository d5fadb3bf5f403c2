"""The officer's desk: what waits, what is seen, what is decided, and that nothing held leaves without it."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from adapters.platform.holdings import HoldOrder
from adapters.platform.officer import DecisionOrder, InquiryContent, OfficersDesk, Waiting
from adapters.platform.pending import Pending
from adapters.platform.staffing import Caller, Staffing
from broker.intermediate.operation import OperationRecorded
from broker.intermediate.provision import (
    InformationProvided,
    ProvisionExpired,
    ProvisionHeld,
    ProvisionRefused,
    ProvisionReleased,
    ProvisionRequested,
    ProvisionReviewed,
    ProvisionWithdrawn,
)
from broker.intermediate.staff import AuthorityGranted
from broker.ledger.events import Recorded
from broker.ledger.ledger import Unit
from broker.ledger.store import Outcome
from broker.linkage.outgoing import MessageQueued
from schemas.errors import Refusal
from schemas.law.approval import Line, Policy
from schemas.messages import AnswerControl, decode
from tests.house import (
    ANSWERING,
    LAYOUT,
    NECESSARY,
    PERMIT_LIFE,
    RESIDENTS,
    ROW,
    YEAR,
    House,
    asked_of,
    contents,
    order,
    resident,
)

HER, HIM, OTHER_PERSON = resident(ANSWERING, 0), resident(ANSWERING, 1), resident(ANSWERING, 2)
TAX, CLERK, CHIEF, STRANGER = "税務課", "t0001", "t0002", "t0003"


def caller(staff_id: str = CLERK, purpose: str = "照会への回答") -> Caller:
    return Caller(staff_id, "窓口1", purpose)


async def desk_of(house: House) -> OfficersDesk:
    """The desk of 見本市 with a clerk and a chief in charge of the row, and one in charge of another."""
    for staff_id, role, rows in (
        (CLERK, "affair_officer", (ROW,)),
        (CHIEF, "affair_manager", (ROW,)),
        (STRANGER, "affair_officer", ("2",)),
    ):
        granted = AuthorityGranted(staff_id, TAX, role, rows, "2026-04-01", "2027-03-31")
        await house.answering.platform.grant(granted)
    return OfficersDesk(house.answering.platform, Staffing(house.answering.platform))


async def hold(house: House, number: str, reason: str = "protected_person") -> None:
    condition = HoldOrder(True, number, "", "", "", "", "", reason, "", "")
    assert await house.answering.platform.hold(condition) is None


async def held(house: House, *people: int, request_id: str = "q-1") -> str:
    """連携市 asks, and 見本市 holds it: the processing number."""
    assert await house.asking.platform.inquire(order(request_id, *people)) is None
    await house.post()
    return str((await house.answering.of_kind(ProvisionRequested))[-1].processing_number)


async def waiting(desk: OfficersDesk, who: Caller) -> list[Waiting]:
    return await desk.waiting(who)


def said(number: str, verdict: str, **parts: tuple[str, ...]) -> DecisionOrder:
    nothing = {"persons": (), "withheld_persons": (), "withheld_items": ()}
    return DecisionOrder(number, verdict, **(nothing | parts))


async def decide(desk: OfficersDesk, who: Caller, decision: DecisionOrder) -> str:
    (outcome,) = await desk.decide(who, [decision])
    return outcome.code if outcome is not None else ""


# 保護対象者の話


@pytest.mark.req("R-095", "R-102", "R-103", "R-106", "R-108", "R-147", "R-153")
async def test_the_story_of_a_protected_person(house: House) -> None:
    """Hold, inquiry, what the officer sees, refusal and release, and what each side knows of it."""
    desk = await desk_of(house)
    await hold(house, HER)
    first = await held(house, 0)
    assert (await house.asking.result("q-1")).state == "waiting"

    (listed,) = await desk.waiting(caller())
    assert (listed.processing_number, listed.kind, listed.persons) == (first, "held", 1)
    assert (listed.inquirer_name, listed.law_row, listed.mode) == ("連携市", ROW, "four_eyes")
    shown = await desk.show(caller(), first)
    assert isinstance(shown, InquiryContent)
    assert (shown.inquirer, shown.official_role, shown.items) == ("990019", "affair_officer", NECESSARY)
    (person,) = shown.persons
    assert (person.integrated_number, person.reasons) == (HER, ("protected_person",))
    assert (person.code, person.payload, person.fiscal_year) == ("", asked_of(0), YEAR)

    assert await decide(desk, caller(), said(first, "refuse")) == ""
    await house.post()
    refused = await house.asking.result("q-1")
    assert (refused.state, refused.payloads) == ("refused", ())
    assert "I-205" in (refused.code, *refused.codes)

    second = await held(house, 0, request_id="q-2")
    assert await decide(desk, caller(), said(second, "approve")) == "I-237"
    await house.post()
    assert (await house.asking.result("q-2")).state == "waiting"
    assert await decide(desk, caller(), said(second, "release")) == "I-233"
    assert await decide(desk, caller(CHIEF), said(second, "release")) == ""
    await house.post()
    answered = await house.asking.result("q-2")
    assert (answered.codes, answered.payloads) == (("",), (asked_of(0),))
    assert await desk.waiting(caller()) == []

    records = await house.answering.platform.records(HER)
    assert [(each.refusal, bool(each.provided_at)) for each in records] == [("", True), ("I-205", False)]
    assert await house.answering.platform.records(HIM) == []
    for reason in (b"protected_person", b"court_order"):
        assert reason not in contents(await house.asking.events()), "the other side learns no reason"


@pytest.mark.req("R-098", "R-108")
async def test_everything_that_an_officer_does_is_recorded_with_who_when_and_what_for(house: House) -> None:
    desk = await desk_of(house)
    await hold(house, HER)
    number = await held(house, 0)
    house.clock.advance(timedelta(minutes=5))
    await desk.show(caller(purpose="内容の確認"), number)
    await decide(desk, caller(purpose="起案"), said(number, "approve"))
    await decide(desk, caller(CHIEF, "決裁"), said(number, "release"))
    done = await house.answering.of_kind(OperationRecorded)
    assert [(each.operation, each.staff_id, each.purpose) for each in done] == [
        ("read_inquiry", CLERK, "内容の確認"),
        ("approve_answer", CLERK, "起案"),
        ("release_answer", CHIEF, "決裁"),
    ]
    assert {(each.at, each.subjects, each.target) for each in done} == {
        (house.clock().isoformat(timespec="microseconds"), (HER,), f"provision/{number}")
    }
    (released,) = await house.answering.of_kind(ProvisionReleased)
    assert (released.staff_id, released.purpose) == (CHIEF, "決裁")


@pytest.mark.req("R-092", "R-097")
async def test_the_answer_of_an_officer_carries_the_officers_office_and_role(house: House) -> None:
    desk = await desk_of(house)
    await hold(house, HER)
    number = await held(house, 0, 1)
    await decide(desk, caller(), said(number, "approve"))
    await decide(desk, caller(CHIEF), said(number, "release"))
    (message,) = await house.answering.outbox()
    control = decode(AnswerControl, message.control)
    assert (control.office, control.official_role, control.persons) == (TAX, "affair_officer", (0, 1))
    await house.ask(2, request_id="q-2")
    await house.answering.take_in()
    automatic = decode(AnswerControl, (await house.answering.outbox())[-1].control)
    assert automatic.official_role == "automatic_response"


@pytest.mark.req("R-057", "R-097", "R-108")
async def test_who_is_not_in_charge_sees_and_decides_nothing(house: House) -> None:
    desk = await desk_of(house)
    await hold(house, HER)
    number = await held(house, 0)
    for nobody in (STRANGER, "t0009"):
        assert await desk.waiting(caller(nobody)) == []
        assert await desk.show(caller(nobody), number) == Refusal("I-236")
        assert await decide(desk, caller(nobody), said(number, "refuse")) == "I-236"
    assert await desk.show(caller(), "unknown") == Refusal("I-232")
    assert await decide(desk, caller(), said("unknown", "approve")) == "I-232"
    assert await decide(desk, caller(), said(number, "guess")) == "I-238"
    assert await decide(desk, caller(), said(number, "approve", persons=(HIM,))) == "I-238"
    await decide(desk, caller(), said(number, "approve"))
    assert await decide(desk, caller(STRANGER), said(number, "release")) == "I-236"
    assert await house.answering.of_kind(ProvisionReleased) == []


@pytest.mark.req("R-095")
async def test_an_officer_lets_part_of_a_household_and_part_of_the_items_go(house: House) -> None:
    desk = await desk_of(house)
    await hold(house, HER, "under_correction")
    number = await held(house, 0, 1)
    limit = said(number, "limit", withheld_persons=(HER,), withheld_items=("total_income",))
    assert await decide(desk, caller(), limit) == ""
    await house.post()
    result = await house.asking.result("q-1")
    rest = {item: value for item, value in asked_of(1).items() if item != "total_income"}
    assert (result.codes, result.payloads) == (("I-231", ""), ({}, rest))
    (hers,) = await house.answering.platform.records(HER)
    (his,) = await house.answering.platform.records(HIM)
    assert (hers.refusal, hers.provided_at) == ("I-231", "")
    assert (his.refusal, bool(his.provided_at)) == ("", True)


@pytest.mark.req("R-096")
async def test_several_are_decided_at_once_each_with_a_verdict_of_its_own(house: House) -> None:
    desk = await desk_of(house)
    await hold(house, HER, "under_correction")
    await hold(house, HIM, "office_decision")
    one, two = await held(house, 0), await held(house, 1, request_id="q-2")
    outcomes = await desk.decide(caller(), [said(one, "approve"), said(two, "approve")])
    assert outcomes == [None, Refusal("I-234")]
    assert await decide(desk, caller(), said(two, "approve")) == ""


@pytest.mark.req("R-094", "R-096", "R-101")
async def test_what_left_by_itself_is_looked_at_afterwards(house: House) -> None:
    desk = await desk_of(house)
    house.answering.platform.policy = Policy((Line(ROW, "*", "", "afterwards"),))
    number = await held(house, 0)
    assert (await house.asking.result("q-1")).state == "answered"
    (listed,) = await desk.waiting(caller())
    assert (listed.processing_number, listed.kind) == (number, "afterwards")
    assert await decide(desk, caller(STRANGER), said(number, "object")) == "I-236"
    assert await decide(desk, caller(), said(number, "object")) == ""
    assert [each.approved for each in await house.answering.of_kind(ProvisionReviewed)] == [False]
    assert await desk.waiting(caller()) == []
    assert await decide(desk, caller(), said(number, "confirm")) == "I-232"


@pytest.mark.req("R-102")
async def test_a_hold_that_comes_between_the_look_and_the_decision_is_taken_into_account(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = await desk_of(house)
    await hold(house, HER, "under_correction")
    number = await held(house, 0)
    append = house.answering.platform.ledger.append

    async def protected_at_the_last_moment(unit: Unit) -> Outcome:
        monkeypatch.undo()
        await hold(house, HER)
        return await append(unit)

    monkeypatch.setattr(house.answering.platform.ledger, "append", protected_at_the_last_moment)
    assert await decide(desk, caller(), said(number, "approve")) == "I-237"
    assert await house.answering.outbox() == []


# 取りやめ, 失効


@pytest.mark.req("R-089")
async def test_what_was_withdrawn_cannot_be_released(house: House) -> None:
    desk = await desk_of(house)
    await hold(house, HER, "under_correction")
    number = await held(house, 0)
    withdrawing = Caller("s0001", "窓口9", "申請の取下げ")
    assert await Pending(house.asking.platform).withdraw(["q-1"], withdrawing) == [None]
    await house.post()
    assert len(await house.answering.of_kind(ProvisionWithdrawn)) == 1
    assert await decide(desk, caller(), said(number, "approve")) == "I-232"
    assert await desk.waiting(caller()) == []
    assert await house.answering.of_kind(InformationProvided) == []


@pytest.mark.req("R-106")
async def test_a_permit_that_lapsed_ends_what_is_held(house: House) -> None:
    desk = await desk_of(house)
    await hold(house, HER, "under_correction")
    number = await held(house, 0)
    platform = house.answering.platform
    assert await platform.expire(house.clock()) == 0
    house.clock.advance(PERMIT_LIFE + timedelta(seconds=1))
    assert await decide(desk, caller(), said(number, "approve")) == "I-235"
    assert await platform.expire(house.clock()) == 1
    assert await platform.expire(house.clock()) == 0
    assert len(await house.answering.of_kind(ProvisionExpired)) == 1
    assert await desk.waiting(caller()) == []
    (hers,) = await platform.records(HER)
    assert (hers.provided_at, hers.closed) == ("", True)


# 保護対象者について、ほかの人に見えるもの


@pytest.mark.req("R-102")
async def test_others_cannot_tell_a_protected_person_from_anybody_who_is_handled(house: House) -> None:
    """The same work by hand for one who is protected and one under correction looks alike to the inquirer."""
    desk = await desk_of(house)
    await hold(house, HER)
    await hold(house, HIM, "under_correction")
    for index, request_id in ((0, "q-1"), (1, "q-2")):
        number = await held(house, index, request_id=request_id)
        seen = await house.asking.result(request_id)
        assert (seen.state, seen.code, seen.codes, seen.payloads) == ("waiting", "", (), ())
        await decide(desk, caller(), said(number, "refuse"))
    await house.post()
    one, two = await house.asking.result("q-1"), await house.asking.result("q-2")
    assert (one.state, one.code, one.codes) == (two.state, two.code, two.codes)
    rows = await house.answering.rows("SELECT * FROM processing_status")
    assert len({row[1:3] for row in rows}) == 1, "nor who reads the list of what is processed"


# Whatever is asked, held and decided


def units_of(events: list[Recorded]) -> Mapping[str, list[Any]]:
    """The events that were appended together."""
    found = defaultdict(list)
    for recorded in events:
        found[recorded.message_id].append(recorded.event)
    return found


@pytest.mark.req("R-102", "R-106", "R-147", "R-148", "R-153")
@pytest.mark.parametrize("seed", range(3))
async def test_nothing_held_leaves_without_release_and_every_disclosure_has_its_record(
    house: House, seed: int
) -> None:
    chance = Random(seed)  # noqa: S311 # a script of events, not a secret
    desk = await desk_of(house)
    reasons = ("protected_person", "under_correction", "court_order", "office_decision")
    barred: dict[str, bool] = {}
    for step in range(16):
        match chance.randrange(5):
            case 0:
                condition = HoldOrder(
                    chance.random() < 0.7,
                    chance.choice((HER, HIM, OTHER_PERSON)),
                    *chance.choice((("", ""), (LAYOUT, YEAR))),
                    *("", "", ""),
                    chance.choice(reasons),
                    *("", ""),
                )
                assert await house.answering.platform.hold(condition) is None
            case 1 | 2:
                people = chance.sample(range(3), chance.randint(1, 3))
                on = {each.integrated_number for each in await house.answering.platform.holds()}
                barred[f"q-{step}"] = any(resident(ANSWERING, index) in on for index in people)
                assert await house.asking.platform.inquire(order(f"q-{step}", *people)) is None
                await house.post()
            case _:
                for each in await desk.waiting(caller()):
                    verdict = chance.choice(("approve", "refuse", "limit", "release"))
                    items = chance.sample(NECESSARY, 1) if verdict == "limit" else ()
                    who = caller(chance.choice((CLERK, CHIEF)))
                    decision = said(each.processing_number, verdict, withheld_items=tuple(items))
                    await desk.decide(who, [decision])
        if chance.random() < 0.2:
            house.clock.advance(timedelta(minutes=20))
            await house.answering.platform.expire(house.clock())
    await house.post()

    events = await house.answering.events()
    held: set[tuple[str, int]] = set()
    free: dict[tuple[str, int], tuple[str, ...]] = {}
    for recorded in events:
        e, number = recorded.event, recorded.stream
        match e:
            case ProvisionHeld():
                held |= {(number, place) for place in e.persons}
            case ProvisionReleased():
                free |= {(number, place): e.withheld_items for place in e.persons}
            case InformationProvided():
                for place, code in zip(e.persons, e.codes, strict=True):
                    assert code or (number, place) not in held or (number, place) in free
    sent = 0
    for together in units_of(events).values():
        messages = [e for e in together if isinstance(e, MessageQueued) and e.kind == "answer"]
        recorded_here = {
            e.answer_message: e for e in together if isinstance(e, InformationProvided | ProvisionRefused)
        }
        assert {message.message_id for message in messages} == recorded_here.keys()
        for message in messages:
            control = decode(AnswerControl, message.control)
            record = recorded_here[message.message_id]
            assert (control.persons, control.code) == (record.persons, getattr(record, "code", ""))
            sent += 1
    assert sent > 0
    by_number = {e.processing_number: e for e in await house.answering.of_kind(ProvisionRequested)}
    for step in range(16):
        result = await house.asking.result(f"q-{step}")
        for place, payload in enumerate(result.payloads):
            if payload:
                where = (f"provision/{result.processing_number}", place)
                person = by_number[result.processing_number].subjects[place]
                index = [r.integrated_number for r in RESIDENTS[ANSWERING.code]].index(person)
                rest = {k: v for k, v in asked_of(index).items() if k not in free.get(where, ())}
                assert payload == rest, "neither another person's nor what was withheld"
                assert where in free or not (where in held or barred[f"q-{step}"])


@pytest.mark.req("R-110", "R-111")
async def test_many_persons_are_looked_up_together_and_answered_in_parts(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One inquiry about many: how often the projections are asked does not grow with the persons."""
    platform = house.answering.platform
    asked: list[str] = []
    query = platform.follower.query

    async def counted(sql: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        asked.append(sql)
        return await query(sql, parameters)

    monkeypatch.setattr(platform.follower, "query", counted)
    counts = []
    for request_id, people in (("q-1", (0,)), ("q-2", (0, 1, 2))):
        await house.ask(*people, request_id=request_id)
        asked.clear()
        assert await house.answering.take_in() == [None]
        counts.append(len(asked))
    assert counts[0] == counts[1]
    assert len(await house.answering.of_kind(InformationProvided)) == 2


# 自動応答不可の設定と解除


@pytest.mark.req("R-098", "R-104")
async def test_the_hold_on_a_protected_person_is_released_by_two_persons(house: House) -> None:
    desk = await desk_of(house)
    order_to_set = HoldOrder(True, HER, "", "", "", "", "", "protected_person", "", "")
    release = replace(order_to_set, wanted=False)
    assert await desk.hold(caller("t0009"), order_to_set) == Refusal("I-122")
    assert await desk.hold(caller(purpose="申出"), order_to_set) is None
    waits = await desk.hold(caller(purpose="措置の終了"), release)
    assert waits is not None
    assert waits.code == "I-129"
    assert await house.answering.platform.holds() == [order_to_set], "nothing is released yet"
    assert await desk.hold(caller(), release, waits.detail) == Refusal("I-121")
    assert await desk.hold(caller(STRANGER), release, waits.detail) == Refusal("I-122")
    other = replace(release, integrated_number=HIM)
    assert await desk.hold(caller(CHIEF), other, waits.detail) is None, "there is nothing to release"
    assert await desk.hold(caller(CHIEF), release, waits.detail) is None
    assert await house.answering.platform.holds() == []
    correction = replace(order_to_set, reason="under_correction")
    assert await desk.hold(caller(), correction) is None
    assert await desk.hold(caller(), replace(correction, wanted=False)) is None
    done = await house.answering.of_kind(OperationRecorded)
    assert [each.operation for each in done] == ["set_hold", "propose", "confirm", "set_hold", "release_hold"]
    assert {each.subjects for each in done if each.operation == "set_hold"} == {(HER,)}
