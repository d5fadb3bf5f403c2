"""The residents' pages: log in by a one-time link, read one's own provision records, take away their proofs.

No script, nothing from elsewhere, and nothing personal in an address: a session knows whose it is.
"""

import socket
from contextlib import aclosing
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from adapters.platform.inprocess import Platform
from adapters.platform.resident_notices import ResidentNotices
from adapters.portal.cards import cards
from adapters.portal.guard import Guard, from_own_page
from adapters.portal.login import Links
from adapters.portal.notices import UNFIT, Words, view
from adapters.portal.problems import (
    FAILED,
    FOREIGN,
    LINK,
    LOGGED_OUT,
    LOGIN,
    NOT_FOUND,
    UNREADABLE,
    Problem,
)
from broker.intermediate.resident_notice import PUBLISHED
from broker.ledger.receipt import receipt
from schemas.law import retention

MAX_BODY = 4096
READ_TIMEOUT = 30

_templates = Environment(
    loader=PackageLoader("adapters.portal"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def portal(platform: Platform, links: Links, *, secure: bool) -> Starlette:
    """The application. `secure`: it is reached over HTTPS, and its cookie must never travel otherwise."""
    pages = _Pages(platform, links, secure)
    return Starlette(
        routes=[
            Route("/login", pages.ask, methods=["GET"]),
            Route("/login", pages.log_in, methods=["POST"]),
            Route("/logout", pages.log_out, methods=["POST"]),
            Route("/records", pages.records, methods=["GET"]),
            Route("/records/{position}/proof", pages.proof, methods=["GET"]),
            Route("/notices", pages.notices, methods=["GET"]),
            Route("/notices/{notice}", pages.notice, methods=["GET"]),
            Route("/notices/{notice}/reply", pages.reply, methods=["POST"]),
            Route("/portal.css", pages.style, methods=["GET"]),
            Route("/logged-out.css", pages.last_style, methods=["GET"]),
        ],
        middleware=[Middleware(Guard, failed=pages.problem(500, FAILED))],
        exception_handlers={HTTPException: pages.refused},
    )


async def serve_portal(
    app: Starlette,
    host: str,
    port: int,
    certificate: Path | None,
    key: Path | None,
    *,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; reports the port (0 takes a free one). With a certificate: HTTPS.

    Cancelled, it closes the idle connections and gives those at work three seconds. Raises OSError where the
    address is taken, and ssl.SSLError or OSError for files that are no certificate and key.
    """
    config = Config()
    config.certfile = str(certificate) if certificate is not None else None
    config.keyfile = str(key) if key is not None else None
    config.loglevel = "WARNING"
    config.include_server_header = False
    config.read_timeout = READ_TIMEOUT
    config.create_ssl_context()  # before anything is opened: fails on a bad file
    stop = trio.Event()

    async def run(*, task_status: trio.TaskStatus[list[str]]) -> None:
        # Out of reach of the cancellation, which `stop` answers: what is being said is said to its end.
        with trio.CancelScope(shield=True):
            await serve(
                app,  # type: ignore[arg-type] # the same protocol, declared with other types
                config,
                shutdown_trigger=stop.wait,
                task_status=task_status,
            )

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=config.backlog) as listener:
        taken = listener.getsockname()[1]
        config.bind = [f"fd://{listener.detach()}"]
    async with trio.open_nursery() as nursery:
        try:
            await nursery.start(run)
            task_status.started(taken)
            await trio.sleep_forever()
        finally:
            stop.set()


class _Pages:
    def __init__(self, platform: Platform, links: Links, secure: bool) -> None:
        self._platform = platform
        self._notices = ResidentNotices(platform)
        self._links = links
        self._secure = secure
        # With the prefix a browser takes the cookie only from this very host, over HTTPS (RFC 6265bis).
        self._cookie = "__Host-renkei" if secure else "renkei"
        self._style = resources.files("adapters.portal").joinpath("portal.css").read_bytes()

    async def ask(self, request: Request) -> Response:
        """The button. Programs that look into a link beforehand send GET, and must not use it up."""
        token = request.query_params.get("token", "")
        if not token:
            return self.problem(403, LINK)
        return self._page("login.html", token=token)

    async def log_in(self, request: Request) -> Response:
        if not from_own_page(request, secure=self._secure):
            return self.problem(403, FOREIGN)
        form = await _form(request)
        if form is None:
            return self.problem(400, UNREADABLE)
        session = self._links.redeem(form.get("token", ""))
        if session is None:
            return self.problem(403, LINK)
        self._links.logout(request.cookies.get(self._cookie, ""))
        response = RedirectResponse("/records", status_code=303)
        response.set_cookie(
            self._cookie, session, path="/", secure=self._secure, httponly=True, samesite="strict"
        )
        return response

    async def log_out(self, request: Request) -> Response:
        if not from_own_page(request, secure=self._secure):
            return self.problem(403, FOREIGN)
        self._links.logout(request.cookies.get(self._cookie, ""))
        response = self.problem(200, LOGGED_OUT)
        response.delete_cookie(self._cookie, path="/", secure=self._secure, httponly=True, samesite="strict")
        return response

    async def records(self, request: Request) -> Response:
        resident = self._resident(request)
        if resident is None:
            return self.problem(403, LOGIN)
        return self._page(
            "records.html",
            here="records",
            unread=await self._unread(resident),
            cards=await cards(self._platform, resident),
            years=retention("provision_record").years,
        )

    async def proof(self, request: Request) -> Response:
        resident = self._resident(request)
        if resident is None:
            return self.problem(403, LOGIN)
        own = {str(p.position): p.position for c in await cards(self._platform, resident) for p in c.proofs}
        position = own.get(request.path_params["position"])
        if position is None:
            return self.problem(404, NOT_FOUND)
        store = self._platform.ledger.store
        # Under a checkpoint that others signed too, as soon as there is one.
        size = await trio.to_thread.run_sync(store.cosigned, position)
        text = await trio.to_thread.run_sync(receipt, store, position, size)
        name = f"renkei-proof-{position}.txt"
        return Response(
            text,
            media_type="text/plain",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    async def notices(self, request: Request) -> Response:
        resident = self._resident(request)
        if resident is None:
            return self.problem(403, LOGIN)
        found = [view(state, self._today()) for state in await self._notices.of_resident(resident)]
        unread = sum(notice.state == PUBLISHED for notice in found)
        return self._page("notices.html", here="notices", unread=unread, notices=found)

    async def notice(self, request: Request) -> Response:
        """One notice. That it was opened is on record before it is shown (R-363)."""
        resident = self._resident(request)
        if resident is None:
            return self.problem(403, LOGIN)
        return await self._notice(resident, request.path_params["notice"], 200, None)

    async def reply(self, request: Request) -> Response:
        if not from_own_page(request, secure=self._secure):
            return self.problem(403, FOREIGN)
        resident = self._resident(request)
        if resident is None:
            return self.problem(403, LOGIN)
        form = await _form(request)
        if form is None:
            return self.problem(400, UNREADABLE)
        notice = request.path_params["notice"]
        state = await self._notices.open(resident, notice)
        if state is None or state.published is None:
            return self.problem(404, NOT_FOUND)
        choices = dict(
            zip(map(str, range(len(state.published.choices))), state.published.choices, strict=True)
        )
        choice = choices.get(form.get("choice", ""), "")
        text = "\n".join(form.get("text", "").strip().splitlines())
        refusal = await self._notices.reply(resident, notice, choice, text)
        if refusal is not None and refusal.code == "I-246":
            return await self._notice(resident, notice, 400, UNFIT)
        # Withdrawn, over or replied to in the meantime: the page of the notice says so.
        return RedirectResponse(f"/notices/{notice}", status_code=303)

    async def _notice(self, resident: str, notice: str, status: int, wrong: Words | None) -> Response:
        state = await self._notices.open(resident, notice)
        if state is None:
            return self.problem(404, NOT_FOUND)
        return self._page(
            "notice.html",
            status,
            here="",
            unread=await self._unread(resident),
            notice=view(state, self._today()),
            wrong=wrong,
        )

    async def _unread(self, resident: str) -> int:
        found = await self._notices.of_resident(resident)
        return sum(state.standing(self._today()) == PUBLISHED for state in found)

    def _today(self) -> str:
        return self._platform.clock().date().isoformat()

    async def style(self, _request: Request) -> Response:
        return Response(self._style, media_type="text/css")

    async def last_style(self, _request: Request) -> Response:
        """The style of the page after logout: fetching it takes the records away from the back button.

        Browsers keep a page that was left, in spite of no-store, and would show it to the next person. They
        put it aside only once the new page is there, so the answer to the logout itself comes too early.
        """
        return Response(self._style, media_type="text/css", headers={"Clear-Site-Data": '"cache"'})

    async def refused(self, _request: Request, fault: Exception) -> Response:
        """What the router itself refuses: no such page, no such method."""
        status = fault.status_code if isinstance(fault, HTTPException) else 500
        headers = fault.headers if isinstance(fault, HTTPException) else None
        response = self.problem(status, NOT_FOUND if status == 404 else UNREADABLE)
        response.headers.update(headers or {})
        return response

    def problem(self, status: int, problem: Problem) -> Response:
        style = "/logged-out.css" if problem is LOGGED_OUT else "/portal.css"
        return self._page("problem.html", status, style, problem=problem, back=problem is NOT_FOUND)

    def _resident(self, request: Request) -> str | None:
        return self._links.resident(request.cookies.get(self._cookie, ""))

    def _page(self, name: str, status: int = 200, style: str = "/portal.css", **values: Any) -> Response:
        agency = self._platform.linkage.agency.name
        return HTMLResponse(
            _templates.get_template(name).render(agency=agency, style=style, **values), status
        )


async def _form(request: Request) -> dict[str, str] | None:
    """The fields of a small form, or None where it is none."""
    body = b""
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > MAX_BODY:
                return None
    try:
        fields = parse_qs(body.decode("ascii"), strict_parsing=True, max_num_fields=8)
    except ValueError:
        return None
    return {name: values[0] for name, values in fields.items()}
