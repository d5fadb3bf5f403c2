"""The residents' pages over real connections: who sees what, and what every answer carries."""

import ssl
from collections.abc import AsyncIterator
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path
from urllib.parse import urlencode

import pytest
import trio
from structlog.testing import capture_logs

from adapters.portal.pages import portal, serve_portal
from broker.ledger.receipt import check_receipt
from ops.certificates import issue
from tests.portal.town import HANAKO, NOBODY, TARO, Town, later, open_town

OWN = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    async with open_town(tmp_path) as town:
        yield town


class Answer:
    """What came back, read to its end."""

    def __init__(self, response: HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.text = response.read().decode()

    @property
    def cookie(self) -> str:
        return str(self.headers["Set-Cookie"] or "")


class Visitor:
    """One browser's worth of requests, without a browser; keeps its session cookie."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self._port = port
        self._context = context
        self.session = ""

    async def get(self, path: str, **headers: str) -> Answer:
        return await trio.to_thread.run_sync(self._send, "GET", path, None, headers)

    async def post(self, path: str, headers: dict[str, str] = OWN, **fields: str) -> Answer:
        return await trio.to_thread.run_sync(self._send, "POST", path, urlencode(fields), headers)

    async def log_in(self, token: str) -> Answer:
        answer = await self.post("/login", token=token)
        self.session = answer.cookie.partition(";")[0]
        return answer

    def _send(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> Answer:
        if self._context is None:
            connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        else:
            connection = HTTPSConnection("127.0.0.1", self._port, timeout=30, context=self._context)
        try:
            connection.request(method, path, body, {"Cookie": self.session, **headers})
            return Answer(connection.getresponse())
        finally:
            connection.close()


async def served(town: Town, nursery: trio.Nursery) -> int:
    app = portal(town.platform, town.links, secure=False)
    port: int = await nursery.start(serve_portal, app, "127.0.0.1", 0, None, None)
    return port


@pytest.fixture
async def visitor(town: Town, nursery: trio.Nursery) -> Visitor:
    return Visitor(await served(town, nursery))


async def logged_in(town: Town, visitor: Visitor, resident: str = HANAKO) -> Visitor:
    answer = await visitor.log_in(town.links.issue(resident))
    assert (answer.status, answer.headers["Location"]) == (303, "/records")
    return visitor


async def test_looking_at_a_link_does_not_use_it_up(town: Town, visitor: Visitor) -> None:
    token = town.links.issue(HANAKO)
    for _ in range(2):
        preview = await visitor.get(f"/login?token={token}")
        assert (preview.status, preview.cookie) == (200, "")
        assert token in preview.text
    assert (await visitor.log_in(token)).status == 303
    assert (await visitor.get("/records")).status == 200


async def test_the_cookie_is_for_this_site_only_and_no_script_reads_it(town: Town, visitor: Visitor) -> None:
    answer = await visitor.log_in(town.links.issue(HANAKO))
    attributes = {part.strip().lower() for part in answer.cookie.split(";")[1:]}
    assert attributes == {"httponly", "path=/", "samesite=strict"}


async def test_a_used_or_invented_link_says_what_to_do(town: Town, visitor: Visitor) -> None:
    token = town.links.issue(HANAKO)
    await visitor.log_in(token)
    for bad in (token, "invented", ""):
        answer = await visitor.post("/login", token=bad)
        assert answer.status in (400, 403)
        assert answer.cookie == ""
        assert "次にすること" in answer.text
    assert "新しいリンクを受け取ってください" in (await visitor.post("/login", token=token)).text
    assert (await visitor.get("/login")).status == 403


async def test_a_link_that_is_too_old_opens_nothing(town: Town, visitor: Visitor) -> None:
    token = town.links.issue(HANAKO)
    later(town.clock, 15)
    answer = await visitor.log_in(token)
    assert (answer.status, answer.cookie) == (403, "")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "null"},
        {"Origin": "https://elsewhere.example"},
    ],
)
async def test_a_form_of_another_site_does_nothing(
    town: Town, visitor: Visitor, headers: dict[str, str]
) -> None:
    token = town.links.issue(HANAKO)
    answer = await visitor.post("/login", headers, token=token)
    assert (answer.status, answer.cookie) == (403, "")
    await visitor.log_in(token)
    assert (await visitor.post("/logout", headers)).status == 403
    assert (await visitor.get("/records")).status == 200


async def test_an_old_browser_is_told_by_its_origin(town: Town, nursery: trio.Nursery) -> None:
    port = await served(town, nursery)
    origin = {"Origin": f"http://127.0.0.1:{port}"}
    answer = await Visitor(port).post("/login", origin, token=town.links.issue(HANAKO))
    assert answer.status == 303


@pytest.mark.parametrize(
    "body", ["x" * 5000, "no-equals-sign", "&".join(f"f{n}=1" for n in range(20)), "\xff"]
)
async def test_a_form_that_is_none_is_refused(visitor: Visitor, body: str) -> None:
    answer = await trio.to_thread.run_sync(visitor._send, "POST", "/login", body, OWN)
    assert answer.status == 400
    assert "読み取れません" in answer.text


async def test_without_a_session_there_is_nothing_to_see(town: Town, visitor: Visitor) -> None:
    position = await town.answered(HANAKO)
    for path in ("/records", f"/records/{position}/proof"):
        for session in ("", "renkei=guessed"):
            visitor.session = session
            answer = await visitor.get(path)
            assert answer.status == 403
            assert "見本市" not in answer.text
            assert "ログインが必要です" in answer.text


async def test_a_session_ends_unused_and_by_logging_out(town: Town, visitor: Visitor) -> None:
    await logged_in(town, visitor)
    later(town.clock, 15)
    assert (await visitor.get("/records")).status == 403
    await logged_in(town, visitor)
    out = await visitor.post("/logout")
    assert out.status == 200
    assert "ログアウトしました" in out.text
    assert out.cookie.startswith('renkei="";')
    assert (await visitor.get("/records")).status == 403


async def test_logging_in_again_ends_the_session_before(town: Town, visitor: Visitor) -> None:
    before = (await logged_in(town, visitor)).session
    await logged_in(town, visitor, TARO)
    visitor.session = before
    assert (await visitor.get("/records")).status == 403


@pytest.mark.req("R-349", "R-154")
async def test_everyone_sees_their_own_records_and_no_others(town: Town, visitor: Visitor) -> None:
    mine = await town.answered(HANAKO)
    theirs = await town.refused(TARO)
    await logged_in(town, visitor)
    hanako = await visitor.get("/records")
    assert "福祉部子育て支援課" in hanako.text
    assert "健康福祉部障がい福祉課" not in hanako.text
    assert (await visitor.get(f"/records/{mine}/proof")).status == 200
    assert (await visitor.get(f"/records/{theirs}/proof")).status == 404
    await logged_in(town, visitor, TARO)
    taro = await visitor.get("/records")
    assert "健康福祉部障がい福祉課" in taro.text
    assert "福祉部子育て支援課" not in taro.text.replace("健康福祉部", "")
    assert (await visitor.get(f"/records/{mine}/proof")).status == 404
    assert (await visitor.get(f"/records/{theirs}/proof")).status == 200
    await logged_in(town, visitor, NOBODY)
    assert "表示できる記録はありません" in (await visitor.get("/records")).text


async def test_no_number_of_the_resident_is_in_the_page(town: Town, visitor: Visitor) -> None:
    await town.answered(HANAKO)
    await town.held(HANAKO)
    page = (await (await logged_in(town, visitor)).get("/records")).text
    assert HANAKO not in page
    assert town.platform.person(HANAKO) not in page
    assert "8642097" not in page


async def test_proofs_of_request_and_outcome_can_be_checked(town: Town, visitor: Visitor) -> None:
    await town.turned_down(TARO)
    request = await town.answered(HANAKO)
    outcome = request + 2  # the network's permit stands between
    await logged_in(town, visitor)
    page = (await visitor.get("/records")).text
    for position, topic in ((request, b"inquiry.requested/1"), (outcome, b"inquiry.answered/1")):
        assert f"/records/{position}/proof" in page
        answer = await visitor.get(f"/records/{position}/proof")
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["Content-Disposition"] == f'attachment; filename="renkei-proof-{position}.txt"'
        proved = check_receipt(answer.text, town.vkey)
        assert (proved.position, proved.checkpoint.size) == (position, 5)
        assert topic in proved.record
        assert HANAKO.encode() not in proved.record
    assert (await visitor.get(f"/records/{request + 1}/proof")).status == 404


@pytest.mark.parametrize("position", ["0", "-1", "01", "%E4%B8%80", "9" * 5000, "1.0", "x"])
async def test_an_invented_position_is_not_found(town: Town, visitor: Visitor, position: str) -> None:
    await town.answered(HANAKO)
    await logged_in(town, visitor)
    answer = await visitor.get(f"/records/{position}/proof")
    assert answer.status == 404
    assert "ページが見つかりません" in answer.text


async def test_what_is_open_has_a_proof_of_the_request_only(town: Town, visitor: Visitor) -> None:
    position = await town.asked(HANAKO)
    page = (await (await logged_in(town, visitor)).get("/records")).text
    assert "相手の機関の回答を待っています" in page
    assert page.count("/proof") == 1
    assert f"/records/{position}/proof" in page


async def test_a_proof_that_would_tell_of_others_is_not_given(town: Town, visitor: Visitor) -> None:
    position = await town.answered(HANAKO, TARO, codes=("", "I-204"))
    await logged_in(town, visitor)
    page = (await visitor.get("/records")).text
    assert "提供あり" in page
    assert "I-204" not in page
    assert "ほかの人も含まれる" in page
    assert "/proof" not in page
    for place in range(position, position + 3):
        assert (await visitor.get(f"/records/{place}/proof")).status == 404
    await logged_in(town, visitor, TARO)
    assert "I-204" in (await visitor.get("/records")).text


@pytest.mark.req("R-361")
async def test_records_marked_for_non_disclosure_are_left_out(town: Town, visitor: Visitor) -> None:
    position = await town.answered(HANAKO, non_disclosure=True)
    await logged_in(town, visitor)
    page = (await visitor.get("/records")).text
    assert "表示できる記録はありません" in page
    assert "見本市" not in page
    assert (await visitor.get(f"/records/{position}/proof")).status == 404


async def test_the_newest_record_is_first(town: Town, visitor: Visitor) -> None:
    await town.answered(HANAKO, requested_at="2026-11-20T14:05:10.000000+09:00", office="二番目の課")
    await town.answered(HANAKO, requested_at="2026-11-19T14:05:10.000000+09:00", office="三番目の課")
    await town.held(HANAKO, office="一番目の課")
    page = (await (await logged_in(town, visitor)).get("/records")).text
    places = [page.index(f"{word}番目の課") for word in "一二三"]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("row", "basis"),
    [
        ("81", "第2条の表 81の項（第83条）"),
        ("10-2", "第2条の表 10の2の項（第12条の2）"),
        ("999", "第2条の表 999の項</p>"),
    ],
)
async def test_the_legal_basis_is_named(town: Town, visitor: Visitor, row: str, basis: str) -> None:
    await town.turned_down(HANAKO, law_row=row)
    assert basis in (await (await logged_in(town, visitor)).get("/records")).text


async def test_one_odd_record_does_not_hide_the_others(town: Town, visitor: Visitor) -> None:
    await town.turned_down(HANAKO, requested_at="gestern", layout="shoes/1", code="Z-999", law_row="")
    await town.answered(HANAKO)
    page = await (await logged_in(town, visitor)).get("/records")
    assert page.status == 200
    assert "gestern" in page.text
    assert "福祉部子育て支援課" in page.text


async def test_hostile_text_is_shown_as_text(town: Town, visitor: Visitor) -> None:
    hostile = "<script>alert(1)</script>\"'><b>"
    await town.refused(
        HANAKO, inquirer_name=hostile, office=hostile, affair=hostile, law_row=hostile, items=(hostile,)
    )
    page = (await (await logged_in(town, visitor)).get("/records")).text
    login = (await visitor.get("/login?" + urlencode({"token": '"><script>'}))).text
    for text in (page, login):
        assert "<script" not in text
        assert "&lt;script&gt;" in text
    assert "<b>" not in page


async def test_every_answer_carries_the_headers(town: Town, visitor: Visitor) -> None:
    position = await town.answered(HANAKO)
    await logged_in(town, visitor)
    answers = [
        await visitor.get(path)
        for path in (
            "/records",
            f"/records/{position}/proof",
            "/portal.css",
            "/logged-out.css",
            "/login",
            "/login?token=x",
            "/nowhere",
            "/records/",
            "/logout",
        )
    ]
    answers += [await visitor.post("/records"), await visitor.post("/login", token="x")]  # noqa: S106
    answers.append(await visitor.log_in(town.links.issue(HANAKO)))
    assert sorted({answer.status for answer in answers}) == [200, 303, 307, 403, 404, 405]
    for answer in answers:
        assert answer.headers["Content-Security-Policy"] == (
            "default-src 'none'; style-src 'self'; form-action 'self'; "
            "frame-ancestors 'none'; base-uri 'none'"
        )
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Server"] is None
        assert "Traceback" not in answer.text
        assert "<script" not in answer.text
        assert "style=" not in answer.text


async def test_a_fault_of_ours_says_nothing_of_anybody(
    town: Town, visitor: Visitor, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def broken(integrated_number: str) -> None:
        raise LookupError(f"no key for {integrated_number}")

    await logged_in(town, visitor)
    monkeypatch.setattr(town.platform, "records", broken)
    with capture_logs() as logged:
        answer = await visitor.get("/records")
    assert answer.status == 500
    assert "ただいま表示できません" in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert logged == [{"event": "portal_failed", "error": "LookupError", "log_level": "error"}]
    written = capfd.readouterr()
    assert HANAKO not in answer.text + written.out + written.err


async def test_over_https_the_cookie_stays_there(town: Town, nursery: trio.Nursery, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    issue(keys, "portal", "urn:renkei:agency:990019", purpose="tls")
    app = portal(town.platform, town.links, secure=True)
    port: int = await nursery.start(
        serve_portal, app, "127.0.0.1", 0, keys / "portal-tls.pem", keys / "portal-tls.key"
    )
    visitor = Visitor(port, ssl.create_default_context(cafile=str(keys / "ca.pem")))
    answer = await visitor.log_in(town.links.issue(HANAKO))
    assert visitor.session.startswith("__Host-renkei=")
    attributes = {part.strip().lower() for part in answer.cookie.split(";")[1:]}
    assert attributes == {"httponly", "path=/", "samesite=strict", "secure"}
    assert (await visitor.get("/records")).status == 200
    wrong_scheme = {"Origin": f"http://127.0.0.1:{port}"}
    assert (await visitor.post("/logout", wrong_scheme)).status == 403


async def test_a_bad_certificate_stops_it_before_it_listens(town: Town, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    app = portal(town.platform, town.links, secure=True)
    with pytest.raises(ssl.SSLError):
        await serve_portal(app, "127.0.0.1", 0, bad, bad)


async def test_a_taken_address_is_said(town: Town, nursery: trio.Nursery) -> None:
    port = await served(town, nursery)
    app = portal(town.platform, town.links, secure=False)
    with pytest.raises(OSError, match="in use"):
        await serve_portal(app, "127.0.0.1", port, None, None)


async def test_cancelled_it_finishes_what_it_is_saying_and_lets_go(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go_on = trio.Event(), trio.Event()
    real = town.platform.records

    async def slow(integrated_number: str) -> object:
        asked.set()
        await go_on.wait()
        return await real(integrated_number)

    await town.answered(HANAKO)
    answers: list[Answer] = []
    async with trio.open_nursery() as clients, trio.open_nursery() as server:
        port = await served(town, server)
        visitor = await logged_in(town, Visitor(port))
        monkeypatch.setattr(town.platform, "records", slow)

        async def visit() -> None:
            answers.append(await visitor.get("/records"))

        clients.start_soon(visit)
        await asked.wait()
        server.cancel_scope.cancel()
        go_on.set()
    assert [answer.status for answer in answers] == [200]
    assert "見本市" in answers[0].text
    with pytest.raises(OSError, match="failed"):
        await trio.open_tcp_stream("127.0.0.1", port)
