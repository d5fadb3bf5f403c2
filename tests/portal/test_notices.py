"""Notices from the agency in the residents' pages: who sees which, what opening and replying leave behind."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from adapters.platform.resident_notices import ResidentNotices
from adapters.portal.pages import portal, serve_portal
from broker.intermediate.received_notice import NoticeReceived
from broker.intermediate.resident_notice import (
    NoticeCancelled,
    NoticeOpened,
    NoticePublished,
    NoticeReplied,
    State,
    state_of,
    stream,
)
from broker.ledger.ledger import Change, Unit
from tests.portal import browser as window
from tests.portal.test_browser import Resident
from tests.portal.test_pages import OWN, Visitor, logged_in, served
from tests.portal.town import HANAKO, ITEMS, LAYOUT, NOBODY, TARO, Town, later, open_town

DAY = 24 * 60
CHOICES = ("希望する", "希望しない")


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    async with open_town(tmp_path) as town:
        yield town


@pytest.fixture
async def visitor(town: Town, nursery: trio.Nursery) -> Visitor:
    return Visitor(await served(town, nursery))


async def publish(town: Town, resident: str, notice_id: str = "n-1", **changes: Any) -> str:
    """A notice as the agency publishes it; by what its page is found."""
    notice = ResidentNotices(town.platform).notice(notice_id)
    published = NoticePublished(
        notice=notice,
        person=town.platform.person(resident),
        office="福祉部子育て支援課",
        published_at=town.clock.text(),
        valid_until="2026-11-30",
        digest="digest",
        notice_id=notice_id,
        staff_id="S-0001",
        integrated_number=resident,
        kind="general",
        status="",
        title="予防接種のご案内",
        text="お子さんの予防接種の時期です。\n会場は保健センターです。",
        choices=(),
        free_text=False,
    )
    await append(town, notice, replace(published, **changes))
    return notice


async def append(town: Town, notice: str, event: Any) -> None:
    key = stream(notice)
    before = len(await town.platform.ledger.stream(key))
    await town.platform.ledger.append(Unit(f"test/{key}/{before}", (Change(key, before, (event,)),)))


async def withdraw(town: Town, notice: str, reason: str = "会場が変わりました。") -> None:
    await append(town, notice, NoticeCancelled("福祉部子育て支援課", town.clock.text(), "S-0001", reason))


async def state(town: Town, notice: str) -> State:
    return state_of(await town.platform.ledger.stream(stream(notice)))


@pytest.mark.req("R-355", "R-363")
async def test_a_notice_is_unread_until_its_person_opens_it(town: Town, visitor: Visitor) -> None:
    notice = await publish(town, HANAKO)
    await logged_in(town, visitor)
    assert "（未読1件）" in (await visitor.get("/records")).text
    page = (await visitor.get("/notices")).text
    assert "未読 <span" in page
    assert f'<a href="/notices/{notice}">予防接種のご案内</a>' in page
    assert "会場は保健センターです。" not in page
    assert (await state(town, notice)).opened is None

    later(town.clock, 3)
    first = await visitor.get(f"/notices/{notice}")
    assert first.status == 200
    assert "会場は保健センターです。" in first.text
    assert "2026年11月21日 09時30分 JST(+09:00)" in first.text
    later(town.clock, 3)
    assert (await visitor.get(f"/notices/{notice}")).status == 200
    assert (await state(town, notice)).opened == NoticeOpened("2026-11-21T09:33:00.000000+09:00")
    assert len(await town.platform.ledger.stream(stream(notice))) == 2
    page = (await visitor.get("/notices")).text
    assert "未読" not in page
    assert "既読 <span" in page


async def test_everyone_sees_and_opens_their_own_notices_only(town: Town, visitor: Visitor) -> None:
    mine = await publish(town, HANAKO, "n-1", title="花子さんへ", choices=CHOICES)
    theirs = await publish(town, TARO, "n-2", title="太郎さんへ", choices=CHOICES)
    await logged_in(town, visitor)
    page = (await visitor.get("/notices")).text
    assert "花子さんへ" in page
    assert "太郎さんへ" not in page
    for path in (theirs, "0" * 32, "n-2", "../records", theirs.upper(), "x" * 5000):
        answer = await visitor.get(f"/notices/{path}")
        assert answer.status == 404
        assert "太郎さんへ" not in answer.text
    assert (await visitor.post(f"/notices/{theirs}/reply", choice="0")).status == 404
    assert len(await town.platform.ledger.stream(stream(theirs))) == 1
    await logged_in(town, visitor, TARO)
    assert (await visitor.get(f"/notices/{theirs}")).status == 200
    assert (await visitor.get(f"/notices/{mine}")).status == 404
    await logged_in(town, visitor, NOBODY)
    assert "お知らせはありません。" in (await visitor.get("/notices")).text


async def test_without_a_session_no_notice_is_shown_and_none_is_opened(town: Town, visitor: Visitor) -> None:
    notice = await publish(town, HANAKO, choices=CHOICES)
    for answer in (
        await visitor.get("/notices"),
        await visitor.get(f"/notices/{notice}"),
        await visitor.post(f"/notices/{notice}/reply", choice="0"),
    ):
        assert answer.status == 403
        assert "予防接種" not in answer.text
    assert len(await town.platform.ledger.stream(stream(notice))) == 1


async def test_the_address_of_a_notice_tells_nothing_of_its_person(town: Town) -> None:
    first, second = [await publish(town, HANAKO, notice_id) for notice_id in ("n-1", "n-2")]
    assert first != second
    for notice in (first, second):
        assert len(notice) == 32
        assert town.platform.person(HANAKO) not in notice
        assert HANAKO not in notice


@pytest.mark.req("R-356")
async def test_a_person_replies_by_a_choice_and_a_few_words(town: Town, visitor: Visitor) -> None:
    notice = await publish(town, HANAKO, choices=CHOICES, free_text=True)
    await logged_in(town, visitor)
    page = (await visitor.get(f"/notices/{notice}")).text
    for choice in CHOICES:
        assert choice in page
    answer = await visitor.post(f"/notices/{notice}/reply", choice="1", text=" 来月\r\nお願いします ")
    assert (answer.status, answer.headers["Location"]) == (303, f"/notices/{notice}")
    replied = NoticeReplied("2026-11-21T09:30:00.000000+09:00", "希望しない", "来月\nお願いします")
    assert (await state(town, notice)).replied == replied
    page = (await visitor.get(f"/notices/{notice}")).text
    assert "返答を受け付けました" in page
    assert "希望しない" in page
    assert '<form method="post" action="/notices' not in page

    again = await visitor.post(f"/notices/{notice}/reply", choice="0")
    assert again.status == 303
    assert (await state(town, notice)).replied == replied


@pytest.mark.parametrize(
    "fields",
    [
        {"none": "1"},
        {"choice": "2"},
        {"choice": "-1"},
        {"choice": "希望する?"},
        {"choice": "0", "text": "あ" * 201},
    ],
)
async def test_a_reply_that_was_not_asked_for_is_shown_what_is_wrong(
    town: Town, visitor: Visitor, fields: dict[str, str]
) -> None:
    notice = await publish(town, HANAKO, choices=CHOICES, free_text=True)
    await logged_in(town, visitor)
    answer = await visitor.post(f"/notices/{notice}/reply", OWN, **fields)
    assert answer.status == 400
    assert 'role="alert"' in answer.text
    assert (await state(town, notice)).replied is None


async def test_a_notice_that_asks_for_nothing_takes_no_reply(town: Town, visitor: Visitor) -> None:
    notice = await publish(town, HANAKO)
    await logged_in(town, visitor)
    assert "<textarea" not in (await visitor.get(f"/notices/{notice}")).text
    assert (await visitor.post(f"/notices/{notice}/reply", text="ありがとう")).status == 400
    assert (await state(town, notice)).replied is None


@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}])
async def test_another_site_cannot_reply_for_a_person(
    town: Town, visitor: Visitor, headers: dict[str, str]
) -> None:
    notice = await publish(town, HANAKO, choices=CHOICES)
    await logged_in(town, visitor)
    assert (await visitor.post(f"/notices/{notice}/reply", headers, choice="0")).status == 403
    assert len(await town.platform.ledger.stream(stream(notice))) == 1
    assert (await visitor.post(f"/notices/{notice}/reply", OWN, choice="0")).status == 303


@pytest.mark.req("R-360")
async def test_a_withdrawn_notice_says_so_and_why(town: Town, visitor: Visitor) -> None:
    notice = await publish(town, HANAKO, choices=CHOICES)
    await withdraw(town, notice)
    await logged_in(town, visitor)
    assert "取り消し <span" in (await visitor.get("/notices")).text
    page = (await visitor.get(f"/notices/{notice}")).text
    assert "取り消されました" in page
    assert "会場が変わりました。" in page
    assert "会場は保健センターです。" not in page
    assert (await visitor.post(f"/notices/{notice}/reply", choice="0")).status == 303
    found = await state(town, notice)
    assert (found.opened, found.replied) == (None, None)


async def test_after_its_last_day_a_notice_is_read_but_not_replied_to(town: Town, visitor: Visitor) -> None:
    notice = await publish(town, HANAKO, choices=CHOICES)
    later(town.clock, 9 * DAY)  # 30 November, the last day
    await logged_in(town, visitor)
    assert "返答をお願いします" in (await visitor.get("/notices")).text
    later(town.clock, DAY)
    await logged_in(town, visitor)
    page = (await visitor.get("/notices")).text
    assert "期間終了" in page
    assert "未読" not in page
    assert "返答は受け付けていません" in (await visitor.get(f"/notices/{notice}")).text
    assert (await visitor.post(f"/notices/{notice}/reply", choice="0")).status == 303
    found = await state(town, notice)
    assert found.opened is not None
    assert found.replied is None


@pytest.mark.req("R-362")
@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("not_reviewed", "受付済み"),
        ("under_review", "審査中"),
        ("reviewed", "審査が終わりました"),
        ("rejected", "認められませんでした"),
    ],
)
async def test_a_notice_tells_where_the_review_of_an_application_stands(
    town: Town, visitor: Visitor, status: str, words: str
) -> None:
    notice = await publish(town, HANAKO, kind="application", status=status)
    await logged_in(town, visitor)
    page = (await visitor.get(f"/notices/{notice}")).text
    assert "申請の審査状況" in page
    assert words in page


async def test_the_newest_notice_is_first(town: Town, visitor: Visitor) -> None:
    for number, word in enumerate("三二一"):
        await publish(town, HANAKO, f"n-{number}", title=f"{word}番目")
        later(town.clock, 1)
    await logged_in(town, visitor)
    page = (await visitor.get("/notices")).text
    places = [page.index(f"{word}番目") for word in "一二三"]
    assert places == sorted(places)


async def test_hostile_text_in_a_notice_is_shown_as_text(town: Town, visitor: Visitor) -> None:
    hostile = "<script>alert(1)</script>\"'><b>"
    notice = await publish(
        town, HANAKO, title=hostile, text=hostile, office=hostile, choices=(hostile,), free_text=True
    )
    await logged_in(town, visitor)
    pages = [await visitor.get("/notices"), await visitor.get(f"/notices/{notice}")]
    await visitor.post(f"/notices/{notice}/reply", choice="0", text=hostile)
    pages.append(await visitor.get(f"/notices/{notice}"))
    await withdraw(town, notice, hostile)
    pages.append(await visitor.get(f"/notices/{notice}"))
    for page in pages:
        assert page.status == 200
        assert "<script" not in page.text
        assert "<b>" not in page.text


async def test_a_session_ends_for_notices_too(town: Town, visitor: Visitor) -> None:
    await logged_in(town, visitor)
    later(town.clock, 15)
    assert (await visitor.get("/notices")).status == 403


def received(town: Town, resident: str, *, code: str = "") -> NoticeReceived:
    return NoticeReceived(
        notice="m-1",
        persons=(town.platform.person(resident),),
        sender="990027",
        sender_name="見本市",
        receiver="990019",
        receiver_name="連携市",
        sender_office="税務課",
        official_role="affair_officer",
        to_office="子育て支援課",
        law_version="v",
        law_row="81",
        affair="児童扶養手当法による児童扶養手当の支給に関する事務",
        information=LAYOUT.information,
        layout=LAYOUT.key,
        items=ITEMS,
        sent_at="2026-11-21T09:00:00.000000+09:00",
        non_disclosure=False,
        inbox="子育て支援課",
        code="",
        codes=(code,),
        received_at=town.clock.text(),
        title="t",
        text="x",
        subjects=(resident,),
        payloads=({"total_income": "8642097"},),
    )


@pytest.mark.parametrize(
    ("code", "words"), [("", "情報が提供されました"), ("I-248", "不備があったため、情報は使われませんでした")]
)
async def test_what_agencies_told_each_other_unasked_is_among_the_records(
    town: Town, visitor: Visitor, code: str, words: str
) -> None:
    event = received(town, HANAKO, code=code)
    outcome = await town.platform.ledger.append(
        Unit("test/notice", (Change("received_notice/x", 0, (event,)),))
    )
    await logged_in(town, visitor)
    page = (await visitor.get("/records")).text
    assert "見本市が連携市に情報を知らせました（連絡）" in page
    assert "2026年11月21日 09時00分 JST(+09:00)（求めによらない連絡）" in page
    assert words in page
    assert "8642097" not in page
    assert page.count("/proof") == 1
    assert "連絡の証明をダウンロード" in page
    assert (await visitor.get(f"/records/{outcome.first}/proof")).status == 200


def _visit(browser: Chrome, address: str, folder: Path, token: str) -> None:
    someone = Resident(browser, address, folder)
    someone.log_in(token)
    assert "（未読2件）" in someone.text
    someone.press("nav a:last-of-type")
    assert browser.current_url == f"{address}/notices"
    titles = [card.find_element(By.TAG_NAME, "h3").text for card in someone.cards()]
    assert titles == ["給食費の口座振替について", "児童手当の現況届の審査", "予防接種のご案内", "会場の変更"]
    someone.look("notices")

    someone.press("article:nth-of-type(3) a")
    assert browser.title == "予防接種のご案内 - 連携市"
    assert "（未読1件）" in someone.text
    someone.look("notice-open")
    browser.find_element(By.CSS_SELECTOR, "label[for=choice-1]").click()
    browser.find_element(By.ID, "text").send_keys("来月にお願いします")
    someone.press("#send")
    assert "返答を受け付けました" in someone.text
    assert "来月にお願いします" in someone.text
    someone.look("notice-replied")

    for title, words in (
        ("児童手当の現況届の審査", "審査中"),
        ("会場の変更", "取り消されました"),
        ("給食費の口座振替について", "返答は受け付けていません"),
    ):
        someone.open("/notices")
        someone.press(f"article:nth-of-type({1 + titles.index(title)}) a")
        assert browser.title == f"{title} - 連携市"
        assert words in someone.text
        someone.look(f"notice-{words}")
    assert window.complaints(browser) == []


@pytest.mark.req("R-355", "R-356")
async def test_a_resident_reads_notices_and_replies(
    town: Town, nursery: trio.Nursery, tmp_path: Path
) -> None:
    withdrawn = await publish(town, HANAKO, "n-0", title="会場の変更")
    await withdraw(town, withdrawn)
    later(town.clock, 10)
    wanted = await publish(town, HANAKO, "n-1", choices=CHOICES, free_text=True)
    later(town.clock, 10)
    text = "児童手当の現況届を受け付け、審査しています。終わりましたら、このページでお知らせします。"
    await publish(
        town,
        HANAKO,
        "n-2",
        kind="application",
        status="under_review",
        title="児童手当の現況届の審査",
        text=text,
    )
    later(town.clock, 10)
    over = {"title": "給食費の口座振替について", "valid_until": "2026-11-20", "choices": CHOICES}
    await publish(town, HANAKO, "n-3", kind="payment", **over)
    app = portal(town.platform, town.links, secure=False)
    port = await nursery.start(serve_portal, app, "127.0.0.1", 0, None, None)
    token = town.links.issue(HANAKO)

    def visit() -> None:
        with window.chromium(tmp_path) as browser:
            _visit(browser, f"http://127.0.0.1:{port}", tmp_path, token)

    await trio.to_thread.run_sync(visit)
    replied = (await state(town, wanted)).replied
    assert replied is not None
    assert (replied.choice, replied.text) == ("希望しない", "来月にお願いします")
