"""What holds for every answer of the portal: its headers, and that no fault of ours says anything."""

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_log = structlog.get_logger()


class Guard:
    """ASGI middleware: sets HEADERS on every answer, and answers `failed` when a handler raises."""

    def __init__(self, app: ASGIApp, failed: Response) -> None:
        self._app = app
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            await self._app(scope, receive, guarded)
        except Exception as fault:  # noqa: BLE001 - a text or traceback could hold personal data
            _log.error("portal_failed", error=type(fault).__name__)
            if not started:
                await self._failed(scope, receive, guarded)


def from_own_page(request: Request, *, secure: bool) -> bool:
    """Whether a form of ours sent this, and not another site's.

    Our pages send no referrer, which makes browsers write `Origin: null`: what counts is Sec-Fetch-Site
    (W3C Fetch Metadata). Origin decides only for a client that does not send it.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    scheme = "https" if secure else "http"
    return request.headers.get("origin") == f"{scheme}://{request.headers.get('host')}"
