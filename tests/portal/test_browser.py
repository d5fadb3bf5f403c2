"""The residents' pages as a resident sees them: a real server, a real browser, a real ledger."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from adapters.portal.pages import portal, serve_portal
from broker.ledger.receipt import check_receipt
from tests.portal import browser as window
from tests.portal.town import HANAKO, ITEMS, LAYOUT, NOBODY, TARO, Town, open_town

HOSTILE = "<script>document.title='broken'</script>課"
ARRIVED = "return !document.documentElement.dataset.left && document.readyState === 'complete'"


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    async with open_town(tmp_path) as town:
        yield town


class Resident:
    """Somebody in front of a browser."""

    def __init__(self, browser: Chrome, address: str, folder: Path) -> None:
        self.browser = browser
        self.address = address
        self.folder = folder

    def open(self, path: str) -> None:
        self.browser.get(self.address + path)

    def press(self, wanted: str) -> None:
        """Press the button or follow the link that this selector finds, and wait for the page behind it."""
        self.browser.execute_script("document.documentElement.dataset.left = 1")
        self.browser.find_element(By.CSS_SELECTOR, wanted).click()
        self._until(ARRIVED)

    def back(self) -> None:
        self.browser.back()
        self._until("return document.readyState === 'complete'")

    def _until(self, script: str) -> None:
        # Between two pages there is a moment without any, in which asking is an error.
        wait = WebDriverWait(self.browser, 60, ignored_exceptions=[WebDriverException])
        wait.until(lambda browser: browser.execute_script(script))

    def log_in(self, token: str) -> None:
        self.open(f"/login?token={token}")
        self.press("#log-in")

    @property
    def text(self) -> str:
        return self.browser.find_element(By.TAG_NAME, "body").text

    def cards(self) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, "article")

    def download(self, link: WebElement) -> str:
        position = (link.get_attribute("href") or "").split("/")[-2]
        wanted = self.folder / "downloads" / f"renkei-proof-{position}.txt"
        link.click()
        # The browser may hold the place with an empty file first.
        WebDriverWait(self.browser, 60).until(lambda _: wanted.exists() and wanted.stat().st_size > 0)
        return wanted.read_text(encoding="utf-8")

    def look(self, name: str) -> None:
        """Take pictures at two widths; nothing sticks out, nothing is too faint to read."""
        for width in (1280, 360):
            window.set_width(self.browser, width)
            window.take_picture(self.browser, f"{name}-{width}", self.folder / "pictures")
            assert window.overflow(self.browser) <= 0
        assert window.faint_texts(self.browser) == []


def _visit(
    browser: Chrome, town: Town, address: str, folder: Path, tokens: dict[str, str], held: int
) -> None:
    someone = Resident(browser, address, folder)

    someone.open("/records")
    assert "ログインが必要です" in someone.text
    assert "見本市" not in someone.text
    someone.look("not-logged-in")

    someone.open(f"/login?token={tokens['hanako']}")
    someone.look("login")
    someone.press("#log-in")
    assert browser.current_url == f"{address}/records"
    assert (browser.get_cookie("renkei") or {})["httpOnly"] is True
    assert browser.title == "あなたの記録 - 連携市"
    checking, answered, refused = someone.cards()
    assert "確認中" in checking.text
    assert "2026年11月21日 09時12分 JST(+09:00)" in checking.text
    assert "提供あり" in answered.text
    for name in ("連携市", "見本市", "福祉部子育て支援課", "児童扶養手当法による", "81の項（第83条）"):
        assert name in answered.text
    items = [item.text for item in answered.find_elements(By.CSS_SELECTOR, ".items li")]
    assert items == [LAYOUT.item(code).name_ja for code in ITEMS]
    times = [t.get_attribute("datetime") for t in answered.find_elements(By.TAG_NAME, "time")]
    assert times == [
        "2026-11-20T14:05:10.000000+09:00",
        "2026-11-20T14:05:10.000000+09:00",
        "2026-11-20T14:05:30.000000+09:00",
    ]
    assert "提供なし" in refused.text
    assert "提供する機関に登録がありませんでした" in refused.text
    assert HOSTILE in refused.text
    assert "7年間保存" in someone.text
    someone.look("records")

    for card, events in ((checking, 1), (answered, 2), (refused, 2)):
        links = card.find_elements(By.CSS_SELECTOR, ".proofs a")
        proved = [check_receipt(someone.download(link), town.vkey) for link in links]
        assert len(proved) == events
        assert all(each.checkpoint.size == 8 for each in proved)
    assert proved[0].position + 1 == proved[1].position

    someone.press("#log-out")
    assert "ログアウトしました" in someone.text
    someone.look("logged-out")
    someone.back()
    assert browser.current_url == f"{address}/records"
    assert "ログインが必要です" in someone.text
    assert "見本市" not in someone.text

    someone.log_in(tokens["hanako"])
    assert "このリンクは使えません" in someone.text
    assert browser.get_cookie("renkei") is None
    someone.look("used-link")

    someone.log_in(tokens["taro"])
    (card,) = someone.cards()
    assert "障がい福祉課" in card.text
    assert "子育て支援課" not in someone.text
    someone.open(f"/records/{held}/proof")
    assert "ページが見つかりません" in someone.text
    someone.look("not-found")
    someone.press("main a")
    assert len(someone.cards()) == 1

    someone.log_in(tokens["nobody"])
    assert "表示できる記録はありません" in someone.text
    someone.look("no-records")
    # The refusals above are all that the browser had to say: the page keeps its own security policy.
    found = window.complaints(browser)
    assert [text for text in found if " 403 " not in text and " 404 " not in text] == []


@pytest.mark.req("R-349", "R-154")
async def test_a_resident_reads_her_records_and_takes_away_their_proofs(
    town: Town, nursery: trio.Nursery, tmp_path: Path
) -> None:
    await town.answered(HANAKO)
    await town.refused(HANAKO, office=HOSTILE)
    held = await town.held(HANAKO)
    await town.asked(TARO, office="障がい福祉課")
    app = portal(town.platform, town.links, secure=False)
    port = await nursery.start(serve_portal, app, "127.0.0.1", 0, None, None)
    tokens = {
        name: town.links.issue(number)
        for name, number in (("hanako", HANAKO), ("taro", TARO), ("nobody", NOBODY))
    }

    def visit() -> None:
        with window.chromium(tmp_path) as browser:
            _visit(browser, town, f"http://127.0.0.1:{port}", tmp_path, tokens, held)

    await trio.to_thread.run_sync(visit)
