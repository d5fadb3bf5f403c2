"""The line between two parties: HTTP/1.1 over mutual TLS 1.3, both ends (h11 on trio).

Both sides show a certificate of the same authority, so that whoever talks has been confirmed before
a byte of a message is read (R-057, R-058). Who the certificate names, and what that party may do, is
decided further in: this room only hands the verified certificate on.
"""

import math
import os
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote

import h11
import structlog
import trio
from cryptography import x509

from adapters.renewal import Renewed
from schemas.messages import pack

MAX_BODY: Final = 32 * 1024 * 1024  # bytes, of a request and of a response
HANDSHAKE: Final = 10.0  # seconds a caller has for the TLS handshake
IDLE: Final = 75.0  # seconds a server keeps a connection without a request
REST: Final = 50.0  # seconds a client trusts an idle connection: below IDLE, and below most firewalls
PATIENCE: Final = 30.0  # seconds for the first byte to the last of a message, and more by its length:
SLOWEST: Final = 2048.0  # bytes a second, an eighth of the thinnest model line (128 kbps, R-202)
GRACE: Final = 5.0  # seconds that requests in flight get when the server is cancelled
LINGER: Final = 5.0  # seconds of reading on after a refusal, so that the refusal is not lost
FAREWELL: Final = 2.0  # seconds for a close_notify to leave
LIFE: Final = 3600.0  # seconds after which a connection is renewed, and the certificates looked at again
LINES: Final = 64  # connections one client opens at the same time
SLICE: Final = 256 * 1024  # bytes encrypted at a stretch, before other tasks get their turn
METHODS: Final = frozenset({b"GET", b"POST", b"PUT", b"DELETE"})
_CONTINUE: Final = h11.InformationalResponse(status_code=100, headers=[])

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
_Stream = trio.SSLStream[trio.SocketStream]


@dataclass(frozen=True, slots=True)
class Peer:
    """The party at the other end, as TLS verified it; one object for all requests of a connection."""

    certificate: x509.Certificate


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request. `path` and `query` are percent-decoded; a name stands in `query` only once."""

    peer: Peer
    method: str
    path: str
    query: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response; a 204 or 304 carries no body."""

    status: int
    body: bytes = b""
    content_type: str = "application/msgpack"


Handler = Callable[[Request], Awaitable[Response]]
Tls = Callable[[], ssl.SSLContext]  # the context for the next connection
Revoked = Callable[[x509.Certificate], bool]  # whether the authority has revoked it by now


class Unreachable(Exception):
    """No whole answer came: no connection, TLS refused, time-out, or a broken protocol.

    The other side may still have acted on the request. The text names address and cause, never
    anything that was sent or received.
    """


def server_context(certificate: Path, key: Path, ca: Path) -> Tls:
    """TLS 1.3 for `serve`; a client must show a certificate of `ca`.

    When the files change, new connections go by the new ones. Raises OSError (ssl.SSLError is one) when a
    file is missing or does not hold what it should.
    """

    def make() -> ssl.SSLContext:
        context = _context(ssl.PROTOCOL_TLS_SERVER, certificate, key, ca)
        context.verify_mode = ssl.CERT_REQUIRED
        # A resumed session would skip the look at the client's certificate, which may have expired since.
        context.num_tickets = 0
        return context

    return Renewed(make, certificate, key, ca)


def client_context(certificate: Path, key: Path, ca: Path) -> Tls:
    """TLS 1.3 for `Client`; the server's certificate must be of `ca` and name the host or address called.

    When the files change, so do connections as for `server_context`. Raises OSError (ssl.SSLError is one)
    when a file is missing or does not hold what it should.
    """

    def make() -> ssl.SSLContext:
        return _context(ssl.PROTOCOL_TLS_CLIENT, certificate, key, ca)  # this protocol checks names by itself

    return Renewed(make, certificate, key, ca)


def _context(protocol: int, certificate: Path, key: Path, ca: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])
    # The empty password makes an encrypted key an error; without it OpenSSL asks on the terminal and waits.
    context.load_cert_chain(certificate, key, password="")
    context.load_verify_locations(cafile=ca)
    return context


def nothing_revoked(_: x509.Certificate) -> bool:
    """For a party that has no list of revoked certificates."""
    return False


def guarded(handler: Handler, revoked: Revoked) -> Handler:
    """The same door for everybody whose certificate is not revoked; others get a 403 with N-121.

    Each request is looked at, so that a connection that was open before the revocation is of no use after it,
    and so is the answer of a request that waited meanwhile.
    """

    async def guard(request: Request) -> Response:
        certificate = request.peer.certificate
        response = None if revoked(certificate) else await handler(request)
        if response is None or revoked(certificate):
            return Response(403, pack({"code": "N-121"}))
        return response

    return guard


async def serve(
    handler: Handler,
    host: str,
    port: int,
    context: Tls,
    *,
    max_body: int = MAX_BODY,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer requests until cancelled; `task_status.started` gives the port (a free one for port 0).

    A handler may wait as long as it likes (long polls), and is not cancelled when its caller goes away:
    what it began, it finishes. An exception it raises becomes a 500 without its text. On cancellation
    idle connections close at once and requests in flight have `GRACE` seconds to be answered.

    Raises OSError when host and port cannot be bound.
    """
    service = _Service(handler, context, max_body)
    listeners = await trio.open_tcp_listeners(port, host=host)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.wait_for_the_end)
            await nursery.start(trio.serve_listeners, service.connection, listeners)
            task_status.started(listeners[0].socket.getsockname()[1])
    finally:
        for listener in listeners:
            listener.socket.close()


class _Service:
    """What the connections of one server share."""

    def __init__(self, handler: Handler, context: Tls, max_body: int) -> None:
        self._handler = handler
        self._context = context
        self._max_body = max_body
        self._busy: set[trio.CancelScope] = set()  # one shielded scope for each request in flight
        self._last_call = math.inf  # when the last request must be done; finite once cancelled

    async def wait_for_the_end(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._last_call = trio.current_time() + GRACE
            for scope in self._busy:
                scope.deadline = self._last_call

    async def connection(self, transport: trio.SocketStream) -> None:
        """One connection from accept to close. Nothing it meets may end the server."""
        try:
            stream = trio.SSLStream(transport, self._context(), server_side=True)
            peer = await self._greet(stream)
            if peer is not None:
                await self._converse(stream, peer)
        except trio.BrokenResourceError:
            return  # the peer left without a word; who left a request half-sent hears from its own time-out
        except Exception as fault:  # noqa: BLE001 - one connection's fault must not stop the others
            _log.error("connection_failed", error=type(fault).__name__)

    async def _greet(self, stream: _Stream) -> Peer | None:
        address = stream.transport_stream.socket.getpeername()[0]
        try:
            with trio.fail_after(HANDSHAKE):
                await stream.do_handshake()
        except (trio.BrokenResourceError, trio.TooSlowError) as fault:
            _log.warning("handshake_refused", address=address, reason=_reason(fault))
            return None
        return Peer(_shown(stream))

    async def _converse(self, stream: _Stream, peer: Peer) -> None:
        wire = h11.Connection(h11.SERVER)
        renewal = trio.current_time() + LIFE
        keep = True
        while keep:
            if not wire.trailing_data[0]:
                with trio.move_on_after(IDLE) as idle:
                    data = await stream.receive_some()
                if idle.cancelled_caught or not data:
                    break
                wire.receive_data(bytes(data))
            # From its first byte on a request is out of reach of a cancelled server, up to the last call.
            with trio.CancelScope(shield=True, deadline=self._last_call) as work:
                self._busy.add(work)
                try:
                    keep = await self._answer(wire, stream, peer, renewal)
                finally:
                    self._busy.discard(work)
            if work.cancelled_caught:
                _log.warning("request_cut_off_by_shutdown")
                return
        await _close(stream)

    async def _answer(self, wire: h11.Connection, stream: _Stream, peer: Peer, renewal: float) -> bool:
        """Take one request and answer it; True if another may follow on this connection."""
        request = await self._take(wire, stream, peer)
        if isinstance(request, Request):
            try:
                response = await self._handler(request)
            except Exception as fault:  # noqa: BLE001 - the caller gets a 500; a text could hold personal data
                _log.error("handler_failed", error=type(fault).__name__)
                response = Response(500)
            keep = self._last_call == math.inf and trio.current_time() < renewal
            await _reply(wire, stream, response, keep)
            if wire.our_state is h11.DONE and wire.their_state is h11.DONE:
                wire.start_next_cycle()
                return keep
        elif request is not None:
            await _reply(wire, stream, Response(request), keep=False)
            # Closing with unread bytes resets the connection, and the reset overtakes the refusal.
            with trio.move_on_after(LINGER):
                while await stream.receive_some():
                    pass
        return False

    async def _take(self, wire: h11.Connection, stream: _Stream, peer: Peer) -> Request | int | None:
        """The next request, or the status that refuses it, or None when the peer had no more to say."""
        head: h11.Request | None = None
        chunks: list[bytes] = []
        size = 0
        with trio.move_on_after(PATIENCE) as patience:
            try:
                while True:
                    event = wire.next_event()
                    if event is h11.NEED_DATA:
                        if wire.they_are_waiting_for_100_continue:
                            await stream.send_all(_bytes(wire, _CONTINUE))
                        data = await stream.receive_some()
                        patience.deadline += len(data) / SLOWEST
                        wire.receive_data(bytes(data))
                    elif isinstance(event, h11.Data):
                        size += len(event.data)
                        if size > self._max_body:
                            return 413
                        chunks.append(event.data)
                    elif isinstance(event, h11.Request):
                        head = event
                        refusal = self._look_at(event)
                        if refusal:
                            return refusal
                    elif isinstance(event, h11.EndOfMessage) and head is not None:
                        return _request(peer, head, b"".join(chunks))
                    else:
                        return None
            except h11.RemoteProtocolError as fault:
                return fault.error_status_hint
            except ValueError:  # of _request: the target is not one we can read
                return 400
        return 408

    def _look_at(self, head: h11.Request) -> int:
        """The status that refuses a request by its head alone, or 0."""
        if head.method not in METHODS:
            return 501
        fields = dict(head.headers)
        length = fields.get(b"content-length")
        if length is not None and b"transfer-encoding" in fields:
            return 400  # two opinions on where the message ends are a way to smuggle (RFC 9112, 6.1)
        if length is not None and int(length) > self._max_body:
            return 413
        return 0


def _request(peer: Peer, head: h11.Request, body: bytes) -> Request:
    target = head.target.decode("ascii")
    if not target.startswith("/"):
        raise ValueError("not in origin form")
    path, _, text = target.partition("?")
    query: dict[str, str] = {}
    if text:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict")
        query = dict(pairs)
        if len(query) != len(pairs):
            raise ValueError("a name stands twice in the query")
    if "%" in path:
        path = unquote(path, errors="strict")
    return Request(peer, head.method.decode("ascii"), path, query, body)


async def _reply(wire: h11.Connection, stream: _Stream, response: Response, keep: bool) -> None:
    headers = []
    if response.status not in (204, 304):
        headers.append(("content-length", str(len(response.body))))
        headers.append(("content-type", response.content_type))
    if not keep:
        headers.append(("connection", "close"))
    with trio.fail_after(PATIENCE + len(response.body) / SLOWEST):
        await _send(wire, stream, h11.Response(status_code=response.status, headers=headers), response.body)


async def _send(wire: h11.Connection, stream: _Stream, head: h11.Request | h11.Response, body: bytes) -> None:
    """Send a whole message. Its framing is a content length, so the body goes out as it is."""
    first = _bytes(wire, head)
    if body:
        wire.send(h11.Data(data=body))
    wire.send(h11.EndOfMessage())
    if len(body) <= SLICE:
        await stream.send_all(first + body)
        return
    await stream.send_all(first)
    view = memoryview(body)
    for start in range(0, len(body), SLICE):
        await stream.send_all(view[start : start + SLICE])


def _bytes(wire: h11.Connection, event: h11.Event) -> bytes:
    return wire.send(event) or b""


async def _close(stream: _Stream) -> None:
    """Say goodbye (close_notify) and close; a peer that does not read cannot hold us here."""
    with trio.move_on_after(FAREWELL, shield=True):
        await stream.aclose()


def _reason(fault: BaseException) -> str:
    """What went wrong, in words that hold nothing a peer sent (h11's texts quote the offending bytes)."""
    while fault.__cause__ is not None:  # trio wraps: BrokenResourceError from SSLError, OSError from a group
        fault = fault.__cause__
    if isinstance(fault, ExceptionGroup):
        return _reason(fault.exceptions[0])
    if isinstance(fault, ssl.SSLCertVerificationError):
        return fault.verify_message
    if isinstance(fault, ssl.SSLError):
        return fault.reason or type(fault).__name__
    if isinstance(fault, OSError) and fault.errno:
        known = fault.errno > 0  # below zero is a resolver's own code
        return os.strerror(fault.errno) if known else fault.strerror or type(fault).__name__
    return type(fault).__name__


def _shown(stream: _Stream) -> x509.Certificate:
    """The certificate that the other side showed."""
    return x509.load_der_x509_certificate(stream.getpeercert(binary_form=True))


class _Line:
    """One connection of a client, between its handshake and its end."""

    __slots__ = ("context", "heard", "rested", "server", "stream", "wire")

    def __init__(self, stream: _Stream, context: ssl.SSLContext) -> None:
        self.stream = stream
        self.context = context
        self.server = _shown(stream)
        self.wire = h11.Connection(h11.CLIENT)
        self.heard = False  # whether a byte of the present answer was read
        self.rested = 0.0  # since when it lies in the pool

    def fresh(self) -> bool:
        """Whether it can be used again: an idle line with something to read was closed, or is out of step."""
        quiet = not self.stream.transport_stream.socket.is_readable()
        return quiet and trio.current_time() - self.rested < REST

    async def exchange(self, request: h11.Request, body: bytes, patience: trio.CancelScope) -> Response:
        self.heard = False
        await _send(self.wire, self.stream, request, body)
        status, content_type = 0, ""
        chunks: list[bytes] = []
        size = 0
        while True:
            event = self.wire.next_event()
            if event is h11.NEED_DATA:
                data = await self.stream.receive_some()
                patience.deadline += len(data) / SLOWEST
                self.heard = self.heard or bool(data)
                self.wire.receive_data(bytes(data))
            elif isinstance(event, h11.Data):
                size += len(event.data)
                if size > MAX_BODY:
                    raise h11.RemoteProtocolError("answer too large")
                chunks.append(event.data)
            elif isinstance(event, h11.Response):
                status = event.status_code
                content_type = dict(event.headers).get(b"content-type", b"").decode("latin-1")
            elif isinstance(event, h11.EndOfMessage):
                return Response(status, b"".join(chunks), content_type)


class Client(trio.abc.AsyncResource):
    """Requests to one server, over connections that are kept and shared by any number of tasks.

    At most `LINES` requests are under way at the same time; more wait their turn in order of arrival. A
    server whose certificate is revoked is asked nothing.
    """

    def __init__(self, host: str, port: int, context: Tls, revoked: Revoked = nothing_revoked) -> None:
        self._host = host
        self._port = port
        self._context = context
        self._revoked = revoked
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._idle: deque[_Line] = deque()  # last used at the right, and taken first
        self._turns = trio.Semaphore(LINES)
        self._closed = False

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        timeout: float = 30.0,  # noqa: ASYNC109 - the caller's patience, translated into Unreachable here
    ) -> Response:
        """Send one request and wait for its whole answer, `timeout` seconds and more by the length of both.

        `path` comes with its query, percent-encoded. The request may reach the server twice: when a kept
        connection breaks before a byte of the answer came, it is sent once more on a new one.

        Raises Unreachable; ValueError for a method or path that HTTP does not allow;
        trio.ClosedResourceError after `aclose`.
        """
        if self._closed:
            raise trio.ClosedResourceError("this client is closed")
        headers = [("host", self._address)]
        if body or method != "GET":
            headers.append(("content-length", str(len(body))))
            headers.append(("content-type", "application/msgpack"))
        try:
            head = h11.Request(method=method, target=path, headers=headers)
        except (h11.LocalProtocolError, UnicodeEncodeError):
            raise ValueError("method or path not allowed in HTTP") from None
        try:
            with trio.fail_after(timeout + len(body) / SLOWEST) as patience:
                async with self._turns:
                    return await self._exchange(head, body, patience)
        except trio.TooSlowError:
            raise Unreachable(f"{self._address}: no answer within {timeout:g} s") from None
        except (OSError, trio.BrokenResourceError, h11.RemoteProtocolError) as fault:
            # Cut the chain: h11 and OpenSSL may quote what was received, and tracebacks end in logs.
            raise Unreachable(f"{self._address}: {_reason(fault)}") from None

    async def aclose(self) -> None:
        """Close the kept connections; those in use close when their answer is there."""
        self._closed = True
        while self._idle:
            await _close(self._idle.pop().stream)

    async def _exchange(self, head: h11.Request, body: bytes, patience: trio.CancelScope) -> Response:
        line = await self._kept()
        if line is not None:
            try:
                return await self._over(line, head, body, patience)
            except (trio.BrokenResourceError, h11.RemoteProtocolError):
                if line.heard:
                    raise
        return await self._over(await self._open(), head, body, patience)

    async def _kept(self) -> _Line | None:
        while self._idle:
            line = self._idle.pop()
            # A line of before our certificate was renewed is of the old one, which may be revoked next.
            if line.fresh() and line.context is self._context() and not self._revoked(line.server):
                return line
            await trio.aclose_forcefully(line.stream)
        return None

    async def _open(self) -> _Line:
        context = self._context()
        transport = await trio.open_tcp_stream(self._host, self._port)
        stream = trio.SSLStream(transport, context, server_hostname=self._host)
        try:
            await stream.do_handshake()
            line = _Line(stream, context)
            if self._revoked(line.server):
                raise Unreachable(f"{self._address}: the certificate of the other side is revoked")
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return line

    async def _over(
        self, line: _Line, head: h11.Request, body: bytes, patience: trio.CancelScope
    ) -> Response:
        try:
            response = await line.exchange(head, body, patience)
        except BaseException:  # also when cancelled: a line in mid-answer never goes back to the pool
            await trio.aclose_forcefully(line.stream)
            raise
        wire = line.wire
        whole = wire.our_state is h11.DONE and wire.their_state is h11.DONE and not wire.trailing_data[0]
        if not whole or self._closed:
            await _close(line.stream)
            return response
        wire.start_next_cycle()
        line.rested = trio.current_time()
        self._idle.append(line)
        if line.rested - self._idle[0].rested > REST:
            await _close(self._idle.popleft().stream)
        return response
