"""連絡 between authorities and お知らせ to residents: how they go, and what each side has on record."""

from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
import trio

from adapters.platform.notices import Acknowledgement, InboxNotice, NoticeOrder, Notices
from adapters.platform.resident_notices import Cancellation, ResidentNoticeOrder, ResidentNotices
from adapters.platform.staffing import Caller
from adapters.portal.cards import cards
from broker.intermediate import notice, received_notice, resident_notice
from broker.intermediate.notice import NoticeAcknowledged, NoticeDelivered, NoticeSent
from broker.intermediate.office import OfficeOpened
from broker.intermediate.operation import OperationRecorded
from broker.intermediate.received_notice import NoticeReceived
from broker.intermediate.staff import AuthorityGranted
from broker.ledger.ledger import Change, Unit
from broker.linkage.outgoing import MessageQueued
from schemas.errors import Refusal
from schemas.messages import LetterBody, LetterRequest, NetworkVerdict
from tests.house import (
    ANSWERING,
    ASKING,
    INFORMATION,
    LAYOUT,
    OFFICE,
    OFFICER,
    OTHER,
    ROW,
    START,
    STORED,
    YEAR,
    House,
    Town,
    asked_of,
    contents,
    files_with,
    resident,
)

AT = START.isoformat(timespec="microseconds")
SENDING = "税務課"


def order(notice_id: str = "n-1", *people: int, **changes: Any) -> NoticeOrder:
    """見本市 tells 連携市 something, about people under row 81 or about nobody."""
    about = (ROW, INFORMATION, LAYOUT, YEAR) if people else ("", "", "", "")
    subjects = tuple(resident(ANSWERING, index) for index in people)
    made = NoticeOrder(
        notice_id, OFFICER, ASKING.code, OFFICE, "所得の更正", "更正がありました。", *about, subjects
    )
    return replace(made, **changes)


class Desks:
    """The notices of both cities; the sender has an officer, the receiver an office with two."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.sender = Notices(house.answering.platform)
        self.receiver = Notices(house.asking.platform)

    async def inbox(self, office: str) -> list[InboxNotice]:
        """What an officer of 連携市 reads there."""
        found = await self.receiver.inbox(Caller(OFFICER, "terminal-1", "連絡の確認"), office)
        assert not isinstance(found, Refusal)
        return found

    async def furnish(self) -> None:
        await grant(self.house.answering, OFFICER, SENDING)
        await grant(self.house.asking, "s0002", "会計課")
        opened = OfficeOpened(ASKING.code, OFFICE, OFFICE, (ROW,), "2026-04-01", "2027-03-31")
        await write(self.house.asking, f"office/{ASKING.code}/{OFFICE}", opened)


async def grant(
    town: Town, staff_id: str, office: str, role: str = "affair_officer", rows: tuple[str, ...] = (ROW,)
) -> None:
    granted = AuthorityGranted(staff_id, office, role, rows, "2026-04-01", "2027-03-31")
    await write(town, f"staff/{staff_id}", granted)


async def write(town: Town, stream: str, *events: Any) -> None:
    ledger = town.platform.ledger
    before = len(await ledger.stream(stream))
    await ledger.append(Unit(f"test/{stream}/{before}", (Change(stream, before, events),)))


@pytest.fixture
async def desks(house: House) -> Desks:
    desks = Desks(house)
    await desks.furnish()
    return desks


async def state_of_sent(desks: Desks, notice_id: str = "n-1") -> tuple[str, str]:
    (result,) = await desks.sender.results([notice_id])
    return result.state, result.code


@pytest.mark.req("R-083", "R-088")
async def test_a_notice_reaches_its_office_and_the_sender_learns_who_read_it(desks: Desks) -> None:
    assert await desks.sender.send(order()) is None
    assert await state_of_sent(desks) == ("sent", "")
    assert [verdict.code for verdict in await desks.house.answering.send()] == [""]
    assert await state_of_sent(desks) == ("permitted", "")
    await desks.house.post()
    assert await state_of_sent(desks) == ("delivered", "")

    (arrived,) = await desks.inbox(OFFICE)
    assert (arrived.title, arrived.text) == ("所得の更正", "更正がありました。")
    assert (arrived.sender_name, arrived.sender_office) == ("見本市", SENDING)
    assert (arrived.state, arrived.code, arrived.subjects) == ("received", "", ())
    assert await desks.inbox(received_notice.COMMON) == []

    desks.house.clock.advance(timedelta(minutes=5))
    read = Acknowledgement(arrived.sender, arrived.notice, OFFICER)
    assert await desks.receiver.acknowledge(read) is None
    assert await desks.receiver.acknowledge(read) is None  # once more changes nothing
    await desks.house.post()
    (result,) = await desks.sender.results(["n-1"])
    assert (result.state, result.office) == ("acknowledged", OFFICE)
    assert result.delivered_at == AT
    assert result.acknowledged_at == (START + timedelta(minutes=5)).isoformat(timespec="microseconds")
    assert [a.state for a in await desks.inbox(OFFICE)] == ["acknowledged"]
    assert len(await desks.house.asking.of_kind(received_notice.ReceivedNoticeAcknowledged)) == 1


@pytest.mark.req("R-083")
async def test_a_notice_about_persons_carries_what_the_receiver_needs_and_no_more(desks: Desks) -> None:
    people = STORED[:2]
    assert await desks.sender.send(order("n-1", *people)) is None
    await desks.house.post()
    (arrived,) = await desks.inbox(OFFICE)
    assert arrived.codes == ("", "")
    assert arrived.subjects == tuple(resident(ASKING, index) for index in people)
    assert arrived.payloads == tuple(asked_of(index) for index in people)


async def test_both_sides_have_a_record_of_what_a_notice_disclosed(desks: Desks) -> None:
    await desks.sender.send(order("n-1", 0))
    await desks.house.post()
    (sent,) = await desks.house.answering.of_kind(NoticeSent)
    (received,) = await desks.house.asking.of_kind(NoticeReceived)
    for record in (sent, received):
        assert (record.inquirer_name, record.provider_name) == ("連携市", "見本市")
        assert (record.law_row, record.information, record.layout) == (ROW, INFORMATION, LAYOUT)
        assert record.items == tuple(asked_of(0))
        assert (record.sender_office, record.office) == (SENDING, OFFICE)
        assert record.affair.startswith("児童扶養手当法")
        assert record.requested_at == AT
    assert sent.persons == (desks.house.answering.platform.person(resident(ANSWERING, 0)),)
    assert received.persons == (desks.house.asking.platform.person(resident(ASKING, 0)),)
    (read,) = await desks.house.answering.platform.ledger.at(sent.sources)
    assert read.event.layout == LAYOUT


@pytest.mark.req("R-083")
async def test_each_person_finds_the_record_of_a_notice_at_both_sides(desks: Desks) -> None:
    await desks.sender.send(order("n-1", 0, 1))
    (waiting,) = await desks.house.answering.platform.records(resident(ANSWERING, 0))
    assert (waiting.side, waiting.closed, waiting.provided_at, waiting.unasked) == (
        "provider",
        False,
        "",
        True,
    )
    desks.house.clock.advance(timedelta(minutes=1))
    await desks.house.post()
    for town, agency, side in (
        (desks.house.answering, ANSWERING, "provider"),
        (desks.house.asking, ASKING, "inquirer"),
    ):
        for index in (0, 1):
            (record,) = await town.platform.records(resident(agency, index))
            assert (record.side, record.unasked, record.refusal) == (side, True, "")
            assert record.provided_at >= record.requested_at == AT
            assert (record.inquirer_name, record.items) == ("連携市", tuple(asked_of(index)))
            (card,) = await cards(town.platform, resident(agency, index))
            assert (card.state, card.unasked, card.shared) == ("answered", True, True)
    refused = order("n-2", 2, receiver=OTHER.code)
    await desks.sender.send(refused)
    await desks.house.post()
    (record,) = await desks.house.answering.platform.records(resident(ANSWERING, 2))
    assert (record.refusal, record.provided_at) == ("N-106", "")


@pytest.mark.req("R-098")
async def test_who_sent_and_who_read_a_notice_stands_in_the_record_of_operations(
    desks: Desks, residents: ResidentNotices
) -> None:
    await desks.sender.send(order("n-1", 0))
    await desks.house.post()
    (arrived,) = await desks.inbox(OFFICE)
    await desks.receiver.acknowledge(Acknowledgement(arrived.sender, arrived.notice, OFFICER))
    await residents.publish(to_resident())
    await residents.cancel(Cancellation("r-1", OFFICER, "誤り"))
    (sent,) = await desks.house.answering.of_kind(OperationRecorded)
    assert (sent.operation, sent.staff_id, sent.office) == ("notify", OFFICER, SENDING)
    assert (sent.subjects, sent.target) == ((resident(ANSWERING, 0),), arrived.notice)
    done = await desks.house.asking.of_kind(OperationRecorded)
    words = ["read_notice", "acknowledge_notice", "publish_notice", "cancel_notice"]
    assert [each.operation for each in done] == words
    assert {(each.staff_id, each.office) for each in done} == {(OFFICER, OFFICE)}
    assert [each.subjects for each in done[:2]] == [(resident(ASKING, 0),)] * 2
    assert (done[0].terminal, done[0].purpose) == ("terminal-1", "連絡の確認")


async def test_nothing_of_a_notice_lies_in_clear_in_any_file(desks: Desks) -> None:
    await desks.sender.send(order("n-1", 0, title="秘密の題名"))
    await desks.house.post()
    needles = ("秘密の題名", "更正がありました", resident(ANSWERING, 0), resident(ASKING, 0))
    assert files_with(desks.house.folder, *needles) == []
    assert "秘密の題名".encode() in contents(await desks.house.asking.events())


@pytest.mark.req("R-088")
async def test_a_notice_for_an_office_that_is_not_there_is_kept_and_marked(desks: Desks) -> None:
    await desks.sender.send(order(to_office="ない課"))
    await desks.house.post()
    assert await state_of_sent(desks) == ("delivered", "I-247")
    for office in ("ない課", "会計課"):
        refused = await desks.receiver.inbox(Caller(OFFICER, "terminal-1", "連絡の確認"), office)
        assert refused == Refusal("I-249")
    (arrived,) = await desks.inbox(received_notice.COMMON)
    assert (arrived.to_office, arrived.code) == ("ない課", "I-247")
    # Whoever may handle notices passes it on.
    assert await desks.receiver.acknowledge(Acknowledgement(arrived.sender, arrived.notice, "s0002")) is None
    await desks.house.post()
    assert await state_of_sent(desks) == ("acknowledged", "I-247")


async def test_a_notice_is_acknowledged_by_an_officer_of_its_office_alone(desks: Desks) -> None:
    await grant(desks.house.asking, "s0003", OFFICE, "reception")
    await desks.sender.send(order())
    await desks.house.post()
    (arrived,) = await desks.inbox(OFFICE)
    for staff_id in ("s0002", "s0003", "s9999"):
        refused = await desks.receiver.acknowledge(Acknowledgement(arrived.sender, arrived.notice, staff_id))
        assert refused == Refusal("I-249")
    unknown = Acknowledgement(arrived.sender, "0" * 32, OFFICER)
    assert await desks.receiver.acknowledge(unknown) == Refusal("I-242")


async def test_the_same_notice_again_has_the_first_outcome(desks: Desks) -> None:
    outcomes = []

    async def send() -> None:
        outcomes.append(await desks.sender.send(order("n-1", 0)))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(send)
    assert outcomes == [None] * 5
    assert len(await desks.house.answering.of_kind(NoticeSent)) == 1
    assert len(await desks.house.answering.outbox()) == 1
    assert await desks.sender.send(order("n-1", 0, text="ほかの文")) == Refusal("I-241")
    refused = order("n-2", staff_id="s9999")
    assert [await desks.sender.send(refused) for _ in range(2)] == [Refusal("I-101")] * 2
    await grant(desks.house.answering, "s9999", SENDING)
    assert await desks.sender.send(refused) == Refusal("I-101")
    assert await state_of_sent(desks, "n-2") == ("refused", "I-101")


@pytest.mark.parametrize(
    ("people", "changes", "code"),
    [
        ((), {"staff_id": "s9999"}, "I-101"),
        ((0,), {"row": "106"}, "I-102"),
        ((0,), {"information": "医療保険給付関係情報"}, "I-206"),
        ((3,), {}, "I-204"),
        ((4,), {}, "I-104"),
        ((0, 3), {}, "I-204"),
        ((), {"receiver": "999999"}, "L-101"),
    ],
)
async def test_a_notice_that_may_not_go_is_refused_and_on_record(
    desks: Desks, people: tuple[int, ...], changes: dict[str, Any], code: str
) -> None:
    refusal = await desks.sender.send(order("n-1", *people, **changes))
    assert refusal is not None
    assert refusal.code == code
    assert await state_of_sent(desks) == ("refused", code)
    assert await desks.house.answering.outbox() == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"title": ""}, "B-002"),
        ({"row": ROW}, "B-002"),
        ({"subjects": ("1",)}, "B-002"),
        ({"text": "あ" * 4001}, "B-004"),
    ],
)
async def test_an_order_that_is_none_is_not_recorded(
    desks: Desks, changes: dict[str, Any], code: str
) -> None:
    refusal = await desks.sender.send(order(**changes))
    assert refusal is not None
    assert refusal.code == code
    assert await state_of_sent(desks) == ("none", "")


async def test_law_and_role_are_checked_before_a_notice_leaves(desks: Desks) -> None:
    await grant(desks.house.answering, "s0004", SENDING, "system_administrator")
    await grant(desks.house.answering, "s0005", SENDING, rows=("2",))
    assert await desks.sender.send(order("n-1", staff_id="s0004")) == Refusal("L-103")
    assert await desks.sender.send(order("n-2", 0, staff_id="s0005", row="2")) == Refusal("L-104")
    logged = [(r["step"], r["code"]) for r in await desks.house.answering.log() if r["kind"] == "notice"]
    assert logged == [("role", "L-103"), ("role", "L-104")]
    assert await desks.house.answering.outbox() == []


async def test_what_is_held_does_not_leave_in_a_notice(desks: Desks) -> None:
    number = resident(ANSWERING, 0)
    await desks.house.answering.platform.set_hold(number, True, "protected_person")
    assert await desks.sender.send(order("n-1", 0)) == Refusal("I-245")
    assert await desks.sender.send(order("n-2", 1, 0)) == Refusal("I-245")
    assert await desks.house.answering.outbox() == []
    assert await desks.sender.send(order("n-3", 1)) is None


@pytest.mark.req("R-081")
async def test_information_about_a_wrong_person_is_not_taken_in_and_the_sender_is_told(
    desks: Desks, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = desks.house.answering.platform.addressing.guards

    async def of_somebody_else(asked: Any) -> Any:
        return [b"0" * 32, *(await real(asked))[1:]]

    monkeypatch.setattr(desks.house.answering.platform.addressing, "guards", of_somebody_else)
    await desks.sender.send(order("n-1", 0, 1))
    await desks.house.post()
    (arrived,) = await desks.inbox(OFFICE)
    assert arrived.codes == ("I-248", "")
    assert arrived.payloads == ({}, asked_of(1))
    (result,) = await desks.sender.results(["n-1"])
    assert (result.state, result.codes) == ("delivered", ("I-248", ""))


async def test_the_network_refuses_a_notice_about_somebody_whom_the_receiver_has_no_code_of(
    desks: Desks,
) -> None:
    await desks.sender.send(order("n-1", 1, receiver=OTHER.code))
    assert [verdict.code for verdict in await desks.house.answering.send()] == ["N-106"]
    assert await state_of_sent(desks) == ("refused", "N-106")
    assert await desks.house.other.mail() == []


PERSON = {"guard_salt": b"s" * 16, "guard": b"g", "non_disclosure": False, "payload": {}}
WHOLE = {"title": "t", "text": "x", "layout": "", "subject": None}


@pytest.mark.parametrize(
    ("bodies", "code"),
    [
        ([{}], "L-305"),
        ([{**WHOLE, "title": 1}], "L-305"),
        ([{**WHOLE, "more": "x"}], "L-305"),
        ([{"title": "t", "text": "x", "layout": ""}], "L-305"),
        ([WHOLE, {}], "L-305"),
        ([{**WHOLE, "subject": {**PERSON, "payload": "x"}}], "L-305"),
        # Words about a person whom the network has translated no code of.
        ([{**WHOLE, "subject": PERSON}], "L-107"),
    ],
)
async def test_a_notice_that_cannot_be_read_is_refused_and_logged(
    desks: Desks, bodies: list[dict[str, Any]], code: str
) -> None:
    nothing = dict.fromkeys(("processing_number", "letter_to", "law_version", "law_row", "information"), "")
    platform = desks.house.answering.platform
    letter = await platform.letter(
        LetterRequest(
            message_id="m-1",
            kind="notice",
            office=SENDING,
            official_role="affair_officer",
            receiver=ASKING.code,
            to_office=OFFICE,
            sent_at=AT,
            link_codes=(),
            bodies=tuple(map(LetterBody, bodies)),
            **nothing,
        ),
        START,
    )
    assert isinstance(letter, MessageQueued)
    await platform.ledger.append(Unit("test/m-1", (Change("outgoing/m-1", 0, (letter,)),)))
    await desks.house.post()
    assert [r["code"] for r in await desks.house.asking.log() if r["direction"] == "in"] == [code]
    assert await desks.inbox(OFFICE) == []
    assert await desks.house.asking.outbox() == []


async def test_a_notice_that_is_delivered_twice_lies_in_the_inbox_once(desks: Desks) -> None:
    await desks.sender.send(order())
    await desks.house.answering.send()
    (delivery,) = await desks.house.asking.mail()
    for _ in range(2):
        assert await desks.house.asking.platform.receive(delivery) is None
    assert len(await desks.inbox(OFFICE)) == 1
    assert len(await desks.house.asking.outbox()) == 1


# お知らせ


def to_resident(notice_id: str = "r-1", **changes: Any) -> ResidentNoticeOrder:
    made = ResidentNoticeOrder(
        notice_id=notice_id,
        staff_id=OFFICER,
        integrated_number=resident(ASKING, 0),
        kind="application",
        status="under_review",
        title="現況届の審査",
        text="審査しています。",
        choices=("はい", "いいえ"),
        free_text=True,
        valid_until="2026-12-31",
    )
    return replace(made, **changes)


@pytest.fixture
def residents(house: House) -> ResidentNotices:
    return ResidentNotices(house.asking.platform)


@pytest.mark.req("R-355", "R-356", "R-360", "R-362", "R-363")
async def test_the_agency_sees_when_a_notice_was_opened_and_what_was_replied(
    house: House, residents: ResidentNotices
) -> None:
    person = resident(ASKING, 0)
    opened = OfficeOpened(ASKING.code, OFFICE, "福祉部子育て支援課", (ROW,), "2026-04-01", "2027-03-31")
    await write(house.asking, f"office/{ASKING.code}/{OFFICE}", opened)
    assert await residents.publish(to_resident()) is None
    (found,) = await residents.of_resident(person)
    assert found.published is not None
    assert (found.published.status, found.published.office) == ("under_review", "福祉部子育て支援課")
    page = found.published.notice
    (result,) = await residents.results(["r-1"])
    assert (result.state, result.published_at, result.opened_at) == ("published", AT, "")

    house.clock.advance(timedelta(hours=1))
    opened_at = house.clock().isoformat(timespec="microseconds")
    assert await residents.open(person, page) is not None
    house.clock.advance(timedelta(hours=1))
    assert await residents.reply(person, page, "はい", "お願いします") is None
    assert await residents.reply(person, page, "はい", "お願いします") is None
    assert await residents.reply(person, page, "いいえ", "") == Refusal("I-244")
    (result,) = await residents.results(["r-1"])
    assert (result.state, result.opened_at) == ("replied", opened_at)
    assert (result.choice, result.text) == ("はい", "お願いします")
    assert [result.state for result in await residents.results(["r-1", "r-2"])] == ["replied", "none"]


async def test_nobody_else_opens_or_replies_to_a_notice(house: House, residents: ResidentNotices) -> None:
    await residents.publish(to_resident())
    page, other = residents.notice("r-1"), resident(ASKING, 1)
    assert await residents.of_resident(other) == []
    assert await residents.open(other, page) is None
    assert await residents.reply(other, page, "はい", "") == Refusal("I-242")
    assert [result.state for result in await residents.results(["r-1"])] == ["published"]


async def test_a_protected_person_has_her_own_notices(house: House, residents: ResidentNotices) -> None:
    await house.asking.platform.set_hold(resident(ASKING, 0), True, "protected_person")
    await residents.publish(to_resident())
    assert len(await residents.of_resident(resident(ASKING, 0))) == 1


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"staff_id": "s9999"}, "I-101"),
        ({"integrated_number": resident(OTHER, 1)}, "I-104"),
        ({"valid_until": "2026-11-20"}, "I-243"),
        ({"title": ""}, "B-002"),
        ({"title": "あ" * 101}, "B-004"),
        ({"status": ""}, "B-005"),
        ({"kind": "general"}, "B-005"),
        ({"kind": "other", "status": ""}, "B-005"),
        ({"choices": ("はい", "はい")}, "B-011"),
        ({"choices": ("",)}, "B-004"),
        ({"choices": tuple("一二三四五六七八九")}, "B-011"),
    ],
)
async def test_a_notice_to_a_resident_that_cannot_be_is_refused(
    residents: ResidentNotices, changes: dict[str, Any], code: str
) -> None:
    refusal = await residents.publish(to_resident(**changes))
    assert refusal is not None
    assert refusal.code == code
    assert [result.state for result in await residents.results(["r-1"])] == ["none"]


async def test_the_same_notice_to_a_resident_is_published_once(
    house: House, residents: ResidentNotices
) -> None:
    outcomes = []

    async def publish() -> None:
        outcomes.append(await residents.publish(to_resident()))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(publish)
    assert outcomes == [None] * 5
    assert len(await house.asking.of_kind(resident_notice.NoticePublished)) == 1
    assert await residents.publish(to_resident(title="ほかの題名")) == Refusal("I-241")


@pytest.mark.req("R-360")
async def test_a_notice_is_withdrawn_with_a_reason_once(house: House, residents: ResidentNotices) -> None:
    person, page = resident(ASKING, 0), residents.notice("r-1")
    await residents.publish(to_resident())
    assert await residents.cancel(Cancellation("r-1", "s9999", "誤り")) == Refusal("I-101")
    assert await residents.cancel(Cancellation("r-2", OFFICER, "誤り")) == Refusal("I-242")
    assert await residents.cancel(Cancellation("r-1", OFFICER, "誤り")) is None
    assert await residents.cancel(Cancellation("r-1", OFFICER, "ほかの理由")) is None
    state = await residents.open(person, page)
    assert state is not None
    assert state.opened is None
    assert state.cancelled is not None
    assert state.cancelled.reason == "誤り"
    assert await residents.reply(person, page, "はい", "") == Refusal("I-243")
    assert [result.state for result in await residents.results(["r-1"])] == ["cancelled"]


async def test_a_notice_ends_with_its_last_day(house: House, residents: ResidentNotices) -> None:
    person, page = resident(ASKING, 0), residents.notice("r-1")
    await residents.publish(to_resident(valid_until="2026-11-21"))
    house.clock.advance(timedelta(hours=14))  # half past eleven that night
    assert [result.state for result in await residents.results(["r-1"])] == ["published"]
    house.clock.advance(timedelta(hours=1))
    assert [result.state for result in await residents.results(["r-1"])] == ["expired"]
    assert await residents.reply(person, page, "はい", "") == Refusal("I-243")


async def test_nothing_of_a_notice_to_a_resident_lies_in_clear(
    house: House, residents: ResidentNotices
) -> None:
    await residents.publish(to_resident(title="秘密の題名"))
    await residents.reply(resident(ASKING, 0), residents.notice("r-1"), "はい", "秘密の返答")
    await residents.cancel(Cancellation("r-1", OFFICER, "秘密の理由"))
    needles = ("秘密の題名", "秘密の返答", "秘密の理由", "under_review", resident(ASKING, 0))
    assert files_with(house.folder, *needles) == []


# 状態遷移


def sent() -> NoticeSent:
    law = ("", "", "", "", "")
    return NoticeSent(
        "m", (), "a", "A", "b", "B", "課", "affair_officer", "課", *law, (), AT, False, (), "d",
        "n", "s", "", (), "t", "x",
    )  # fmt: skip


VERDICT = NetworkVerdict("m", "", "", AT, "", ())
STEPS: dict[str, Any] = {
    notice.SENT: notice.NoticePermitted(AT),
    notice.REFUSED: notice.NoticeRefused("network", "N-103", AT),
    notice.DELIVERED: NoticeDelivered(AT, "", ()),
    notice.ACKNOWLEDGED: NoticeAcknowledged(AT, "課"),
}


WAYS: list[tuple[tuple[Any, ...], str]] = [
    ((sent(),), "sent"),
    ((sent(), STEPS["sent"]), "permitted"),
    ((sent(), STEPS["refused"]), "refused"),
    ((sent(), STEPS["sent"], STEPS["delivered"]), "delivered"),
    ((sent(), STEPS["delivered"]), "delivered"),
    ((sent(), STEPS["delivered"], STEPS["acknowledged"]), "acknowledged"),
    ((sent(), STEPS["sent"], STEPS["acknowledged"]), "acknowledged"),
]


@pytest.mark.parametrize(("events", "step"), WAYS)
def test_what_is_decided_on_a_sent_notice_can_follow(events: tuple[Any, ...], step: str) -> None:
    state = notice.state_of(events)
    assert state.step == step
    for receipt, code in product((STEPS["delivered"], STEPS["acknowledged"]), ("", "N-103")):
        decided = notice.decide_receipt(state, receipt, "b")
        assert not isinstance(decided, Refusal)
        for follows in (decided, notice.decide_verdict(state, replace(VERDICT, code=code))):
            assert notice.state_of((*events, *follows)).step != "none"
    assert notice.decide_receipt(state, STEPS["delivered"], "c") == Refusal("L-107", "letter_to")


def test_a_receipt_for_a_notice_that_was_refused_or_never_sent_changes_nothing() -> None:
    refused = notice.state_of((sent(), STEPS["refused"]))
    assert notice.decide_receipt(refused, STEPS["delivered"], "b") == ()
    assert notice.decide_receipt(notice.State(), STEPS["delivered"], "b") == Refusal("L-107", "letter_to")


@pytest.mark.parametrize(
    ("module", "events"),
    [
        (notice, (STEPS["delivered"],)),
        (notice, (sent(), sent())),
        (notice, (sent(), STEPS["refused"], STEPS["delivered"])),
        (received_notice, (received_notice.ReceivedNoticeAcknowledged("課", AT, "s"),)),
    ],
)
def test_a_step_that_cannot_follow_is_an_error(module: Any, events: tuple[Any, ...]) -> None:
    with pytest.raises(KeyError):
        module.state_of(events)


def test_a_resident_notice_goes_its_steps_and_no_others() -> None:
    published = resident_notice.NoticePublished(
        "n", "p", "課", AT, "2026-12-31", "d", "id", "s", "1", "general", "", "t", "x", ("一",), False
    )
    events: dict[str, Any] = {
        "publish": published,
        "open": resident_notice.NoticeOpened(AT),
        "reply": resident_notice.NoticeReplied(AT, "一", ""),
        "cancel": resident_notice.NoticeCancelled("課", AT, "s", "r"),
    }
    allowed = set()
    for way in product(events, repeat=3):
        state = resident_notice.State()
        try:
            for name in way:
                state = resident_notice.evolve(state, events[name])
        except KeyError:
            continue
        allowed.add(way)
    assert allowed == {("publish", "open", "reply"), ("publish", "open", "cancel")}
    state = resident_notice.evolve(resident_notice.State(), published)
    replied = resident_notice.decide_reply(state, "一", "", AT)
    assert replied == (resident_notice.NoticeOpened(AT), resident_notice.NoticeReplied(AT, "一", ""))
    assert resident_notice.decide_reply(resident_notice.State(), "一", "", AT) == Refusal("I-242")
