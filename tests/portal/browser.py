"""A real Chromium for the tests, driven by selenium from a worker thread."""

import os
import shutil
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

INSTALL = "install it, on Debian with: apt-get install chromium chromium-driver"

# Every visible text whose contrast with the ground it stands on is below WCAG AA (4.5:1 for plain text).
FAINT = """
const channel = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const parse = c => c.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const ground = e => {
  for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c;
  }
  return [255, 255, 255];
};
const faint = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const e = walk.currentNode.parentElement;
  if (!walk.currentNode.data.trim()) continue;
  const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) faint.push(walk.currentNode.data.trim());
}
return faint;
"""


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is needed to test the pages as residents see them; {INSTALL}")
    return found


@contextmanager
def chromium(folder: Path) -> Iterator[Chrome]:
    """A headless browser with an empty profile; what it downloads goes to `folder`/downloads."""
    options = ChromeOptions()
    options.binary_location = _program("chromium")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={folder / 'profile'}",
    ):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(folder / "downloads")})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options, ChromeService(_program("chromedriver")))
    try:
        browser.set_page_load_timeout(60)
        yield browser
    finally:
        browser.quit()


def set_width(browser: Chrome, width: int) -> None:
    """Show pages as on a screen of this many CSS pixels."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def take_picture(browser: Chrome, name: str, otherwise: Path) -> None:
    """The whole page as a PNG file, in the folder RENKEI_SCREENSHOTS or else in `otherwise`."""
    folder = Path(os.environ.get("RENKEI_SCREENSHOTS", otherwise))
    folder.mkdir(parents=True, exist_ok=True)
    picture = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
    (folder / f"{name}.png").write_bytes(b64decode(picture["data"]))


def overflow(browser: Chrome) -> int:
    """How many pixels the page is wider than its window."""
    script = "const e = document.documentElement; return e.scrollWidth - e.clientWidth;"
    return int(browser.execute_script(script))


def faint_texts(browser: Chrome) -> list[str]:
    """Texts that people with weak sight could not read."""
    return list(browser.execute_script(FAINT))


def complaints(browser: Chrome) -> list[str]:
    """What the browser says against the page, such as a breach of its own content security policy."""
    log = browser.get_log("browser")  # type: ignore[no-untyped-call] # selenium leaves it open
    return [entry["message"] for entry in log if entry["level"] == "SEVERE"]
