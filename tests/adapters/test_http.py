"""The line between two parties, over real sockets with real certificates."""

import shutil
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from adapters import http
from adapters.http import Client, Request, Response, Tls, Unreachable, client_context, serve, server_context
from ops.certificates import create_authority, issue

AGENCY = "urn:renkei:agency:990019"
NETWORK = "urn:renkei:network"
Stream = trio.SSLStream[trio.SocketStream]


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority and the certificates of a network and an agency, good and bad ones."""
    folder = tmp_path_factory.mktemp("keys")
    create_authority(folder)
    issue(folder, "network", NETWORK, purpose="tls")
    issue(folder, "agency", AGENCY, purpose="tls")
    issue(folder, "agency", AGENCY, purpose="signing")
    issue(folder, "elsewhere", NETWORK, purpose="tls", hosts=("192.0.2.1", "network.example"))
    issue(folder, "expired", AGENCY, purpose="tls", clock=lambda: datetime.now(UTC) - timedelta(days=366))
    other = tmp_path_factory.mktemp("other")
    create_authority(other)
    issue(other, "stranger", AGENCY, purpose="tls")
    for file in other.glob("stranger*"):
        shutil.copy(file, folder)
    return folder


def as_server(keys: Path, name: str = "network-tls") -> Tls:
    return server_context(keys / f"{name}.pem", keys / f"{name}.key", keys / "ca.pem")


def as_client(keys: Path, name: str = "agency-tls") -> Tls:
    return client_context(keys / f"{name}.pem", keys / f"{name}.key", keys / "ca.pem")


def names_of(request: Request) -> list[str]:
    extension = request.peer.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return extension.value.get_values_for_type(x509.UniformResourceIdentifier)


async def echo(request: Request) -> Response:
    return Response(200, request.body)


class Desk:
    """A handler that keeps what it was asked, and answers with the path (or fails, for /fault)."""

    def __init__(self) -> None:
        self.seen: list[Request] = []

    async def __call__(self, request: Request) -> Response:
        self.seen.append(request)
        if request.path == "/fault":
            raise RuntimeError("見本市見本町一丁目")
        return Response(200, request.path.encode())

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.seen]

    @property
    def connections(self) -> int:
        return len({id(request.peer) for request in self.seen})


class Gate:
    """A handler that waits inside until it is opened."""

    def __init__(self, expected: int = 1) -> None:
        self._expected = expected
        self.inside = 0
        self.most = 0
        self.full = trio.Event()
        self.open = trio.Event()
        self.peers: list[http.Peer] = []

    async def __call__(self, request: Request) -> Response:
        self.peers.append(request.peer)
        self.inside += 1
        self.most = max(self.most, self.inside)
        if self.inside == self._expected:
            self.full.set()
        await self.open.wait()
        self.inside -= 1
        return Response(200, request.path.encode())


async def start(
    nursery: trio.Nursery, keys: Path, handler: http.Handler = echo, *, max_body: int = http.MAX_BODY
) -> int:
    async def run(*, task_status: trio.TaskStatus[int]) -> None:
        context = as_server(keys)
        await serve(handler, "127.0.0.1", 0, context, max_body=max_body, task_status=task_status)

    port: int = await nursery.start(run)
    return port


async def start_script(
    nursery: trio.Nursery, keys: Path, script: Callable[[Stream], Awaitable[None]]
) -> tuple[int, list[Stream]]:
    """A server that is not ours: runs `script` for every connection; gives its port and the connections."""
    connections: list[Stream] = []

    async def run(stream: Stream) -> None:
        connections.append(stream)
        with suppress(trio.BrokenResourceError):  # the client may hang up on a server like this
            await script(stream)
        await stream.aclose()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    wrapped = [trio.SSLListener(listener, as_server(keys)()) for listener in listeners]
    await nursery.start(trio.serve_listeners, run, wrapped)
    return listeners[0].socket.getsockname()[1], connections


@asynccontextmanager
async def raw_line(keys: Path, port: int) -> AsyncIterator[Stream]:
    """A client that is not ours: a bare TLS connection."""
    transport = await trio.open_tcp_stream("127.0.0.1", port)
    stream = trio.SSLStream(transport, as_client(keys)(), server_hostname="127.0.0.1")
    try:
        yield stream
    finally:
        await trio.aclose_forcefully(stream)


async def hurry(clock: MockClock) -> None:
    """Let a second pass whenever nobody has anything to do."""
    while True:
        await wait_all_tasks_blocked(0.01)
        clock.jump(1)


async def read_to_end(stream: Stream) -> bytes:
    return b"".join([bytes(data) async for data in stream])


async def read_until(stream: Stream, end: bytes) -> bytes:
    text = b""
    while end not in text:
        data = await stream.receive_some()
        assert data, f"closed after {text!r}"
        text += data
    return text


# Who may talk


@pytest.mark.req("R-057", "R-058")
async def test_both_ends_confirm_each_other_and_the_handler_sees_the_name_in_the_certificate(
    keys: Path, nursery: trio.Nursery
) -> None:
    desk = Desk()
    port = await start(nursery, keys, desk)
    async with Client("127.0.0.1", port, as_client(keys)) as client:
        assert (await client.request("GET", "/")).status == 200
    assert [names_of(request) for request in desk.seen] == [[AGENCY]]


def nameless(keys: Path) -> Tls:
    context = ssl.create_default_context(cafile=str(keys / "ca.pem"))
    return lambda: context


def outdated(keys: Path) -> Tls:
    context = as_client(keys)()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return lambda: context


BAD_CLIENTS: dict[str, tuple[Callable[[Path], Tls], str]] = {
    "without a certificate": (nameless, "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
    "of another authority": (
        lambda keys: as_client(keys, "stranger-tls"),
        "unable to get local issuer certificate",
    ),
    "expired": (lambda keys: as_client(keys, "expired-tls"), "certificate has expired"),
    "made for signing messages": (
        lambda keys: as_client(keys, "agency-signing"),
        "unsuitable certificate purpose",
    ),
    "with TLS 1.2": (outdated, "UNSUPPORTED_PROTOCOL"),
}


@pytest.mark.req("R-057", "R-058")
@pytest.mark.parametrize("kind", BAD_CLIENTS)
async def test_a_client_that_cannot_be_confirmed_is_refused_and_the_server_goes_on(
    keys: Path, nursery: trio.Nursery, kind: str
) -> None:
    desk = Desk()
    port = await start(nursery, keys, desk)
    make, reason = BAD_CLIENTS[kind]
    with capture_logs() as logs:
        async with Client("127.0.0.1", port, make(keys)) as client:
            with pytest.raises(Unreachable):
                await client.request("GET", "/bad")
    assert [(entry["event"], entry["reason"]) for entry in logs] == [("handshake_refused", reason)]
    async with Client("127.0.0.1", port, as_client(keys)) as client:
        assert (await client.request("GET", "/good")).status == 200
    assert desk.paths == ["/good"]


BAD_SERVERS = {
    "stranger-tls": "unable to get local issuer certificate",
    "expired-tls": "certificate has expired",
    "elsewhere-tls": "IP address mismatch",
    "agency-signing": "unsuitable certificate purpose",
}


@pytest.mark.req("R-058")
@pytest.mark.parametrize("name", BAD_SERVERS)
async def test_a_client_sends_nothing_to_a_server_it_cannot_confirm(
    keys: Path, nursery: trio.Nursery, name: str
) -> None:
    desk = Desk()
    port = await nursery.start(serve, desk, "127.0.0.1", 0, as_server(keys, name))
    async with Client("127.0.0.1", port, as_client(keys)) as client:
        with pytest.raises(Unreachable, match=BAD_SERVERS[name]):
            await client.request("GET", "/")
    assert desk.seen == []


async def test_a_caller_that_never_finishes_the_handshake_is_hung_up_on(
    keys: Path, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    port = await start(nursery, keys)
    nursery.start_soon(hurry, mock_clock)
    with capture_logs() as logs:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            assert await stream.receive_some() == b""
    assert logs[0]["reason"] == "TooSlowError"


def test_a_locked_key_is_an_error_not_a_question_on_the_terminal(keys: Path, tmp_path: Path) -> None:
    key = serialization.load_pem_private_key((keys / "agency-tls.key").read_bytes(), password=None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"a password"),
        )
    )
    with pytest.raises(ssl.SSLError):
        client_context(keys / "agency-tls.pem", locked, keys / "ca.pem")
    with pytest.raises(FileNotFoundError):
        client_context(keys / "agency-tls.pem", tmp_path / "missing.key", keys / "ca.pem")


@pytest.mark.req("R-057")
async def test_no_session_is_resumed_past_the_certificate(keys: Path, nursery: trio.Nursery) -> None:
    port = await start(nursery, keys)
    async with raw_line(keys, port) as stream:
        await stream.send_all(HIDDEN)
        await read_until(stream, b"\r\n\r\n")
        assert not stream.session.has_ticket


# Requests and answers


async def test_a_request_arrives_whole_and_so_does_the_answer(keys: Path, nursery: trio.Nursery) -> None:
    seen: list[Request] = []

    async def handler(request: Request) -> Response:
        seen.append(request)
        return Response(409, b"\x00\xff", "application/json")

    port = await start(nursery, keys, handler)
    async with Client("127.0.0.1", port, as_client(keys)) as client:
        response = await client.request("PUT", "/a%20b/c?wait=30&since=&name=%E9%80%A3", b"body")
    assert response == Response(409, b"\x00\xff", "application/json")
    (request,) = seen
    assert (request.method, request.path, request.body) == ("PUT", "/a b/c", b"body")
    assert request.query == {"wait": "30", "since": "", "name": "連"}


async def test_an_answer_without_content_leaves_the_connection_usable(
    keys: Path, nursery: trio.Nursery
) -> None:
    seen: list[http.Peer] = []

    async def handler(request: Request) -> Response:
        seen.append(request.peer)
        return Response(204)

    port = await start(nursery, keys, handler)
    async with Client("127.0.0.1", port, as_client(keys)) as client:
        for _ in range(2):
            response = await client.request("GET", "/poll")
            assert (response.status, response.body) == (204, b"")
    assert seen[0] is seen[1]
    async with raw_line(keys, port) as stream:
        await stream.send_all(HIDDEN)
        assert b"content-length" not in (await read_until(stream, b"\r\n\r\n")).lower()


async def test_a_thousand_requests_use_one_connection(keys: Path, nursery: trio.Nursery) -> None:
    desk = Desk()
    port = await start(nursery, keys, desk)
    async with Client("127.0.0.1", port, as_client(keys)) as client:
        for number in range(1000):
            assert (await client.request("POST", f"/{number}", b"x")).body == b"/%d" % number
    assert len(desk.seen) == 1000
    assert desk.connections == 1


async def test_bodies_of_many_megabytes_pass_both_ways(keys: Path, nursery: trio.Nursery) -> None:
    port = await start(nursery, keys)
    body = bytes(range(256)) * (5 * 4096 + 1)
    async with Client("127.0.0.1", port, as_client(keys)) as client:
        assert (await client.request("POST", "/", body)).body == body


async def test_many_tasks_share_a_client_and_each_gets_its_own_answer(
    keys: Path, nursery: trio.Nursery
) -> None:
    gate = Gate(expected=http.LINES)
    port = await start(nursery, keys, gate)
    answers: dict[int, bytes] = {}

    async def ask(number: int) -> None:
        answers[number] = (await client.request("GET", f"/{number}")).body

    async with Client("127.0.0.1", port, as_client(keys)) as client, trio.open_nursery() as tasks:
        for number in range(http.LINES + 20):
            tasks.start_soon(ask, number)
        await gate.full.wait()
        gate.open.set()
    assert gate.most == http.LINES
    assert answers == {number: b"/%d" % number for number in range(http.LINES + 20)}


async def test_a_handler_that_fails_gives_a_500_that_tells_nothing(keys: Path, nursery: trio.Nursery) -> None:
    desk = Desk()
    port = await start(nursery, keys, desk)
    async with Client("127.0.0.1", port, as_client(keys)) as client:
        with capture_logs() as logs:
            response = await client.request("POST", "/fault")
        assert (response.status, response.body) == (500, b"")
        assert logs == [{"event": "handler_failed", "error": "RuntimeError", "log_level": "error"}]
        assert (await client.request("POST", "/next")).body == b"/next"
    assert desk.connections == 1


async def test_a_long_poll_may_wait_longer_than_any_of_our_own_limits(
    keys: Path, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    gate = Gate()
    port = await start(nursery, keys, gate)
    async with Client("127.0.0.1", port, as_client(keys)) as client, trio.open_nursery() as tasks:

        async def ask() -> None:
            assert (await client.request("GET", "/poll", timeout=1000)).body == b"/poll"

        tasks.start_soon(ask)
        await gate.full.wait()
        mock_clock.jump(900)
        await wait_all_tasks_blocked()
        gate.open.set()


# What a server refuses

HEAD = b"POST /first HTTP/1.1\r\nHost: a\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
BAD_REQUESTS = {
    "two ideas of its length": (
        HEAD + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % (len(HIDDEN) + 5),
        400,
    ),
    "two lengths": (HEAD + b"Content-Length: 0\r\nContent-Length: 34\r\n\r\n", 400),
    "an unknown transfer coding": (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    "a space before the colon": (HEAD + b"Content-Length : 0\r\n\r\n", 400),
    "no host": (b"GET /first HTTP/1.1\r\n\r\n", 400),
    "a head without end": (HEAD + b"X: " + b"x" * 100_000, 431),
    "no HTTP at all": (b"\x00\x01\x02\x03 what\r\n\r\n", 400),
    "a proxy's target": (b"GET http://a/first HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a tunnel": (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    "an unknown method": (b"BREW /first HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    "a name twice in the query": (b"GET /first?a=1&a=2 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a query that is no UTF-8": (b"GET /first?a=%FF HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a declared length above the limit": (HEAD + b"Content-Length: 1001\r\n\r\n", 413),
    "chunks above the limit": (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001 + b"\r\n",
        413,
    ),
}


@pytest.mark.parametrize("kind", BAD_REQUESTS)
async def test_a_bad_request_is_refused_and_nothing_behind_it_is_read(
    keys: Path, nursery: trio.Nursery, kind: str
) -> None:
    desk = Desk()
    port = await start(nursery, keys, desk, max_body=1000)
    sent, status = BAD_REQUESTS[kind]
    async with raw_line(keys, port) as stream:
        await stream.send_all(sent + HIDDEN)
        answer = await read_until(stream, b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"connection: close" in answer.lower()
    async with Client("127.0.0.1", port, as_client(keys)) as client:
        assert (await client.request("GET", "/good")).status == 200
    assert desk.paths == ["/good"]


async def test_a_client_learns_that_its_body_was_too_large(keys: Path, nursery: trio.Nursery) -> None:
    """The body is far larger than what sockets buffer, so the refusal comes while it is still being sent."""
    desk = Desk()
    port = await start(nursery, keys, desk, max_body=1000)
    async with Client("127.0.0.1", port, as_client(keys)) as client:
        for _ in range(3):
            assert (await client.request("POST", "/large", bytes(20_000_000))).status == 413
        assert (await client.request("POST", "/small", bytes(1000))).status == 200
    assert desk.paths == ["/small"]


async def test_a_body_is_asked_for_only_when_it_would_be_taken(keys: Path, nursery: trio.Nursery) -> None:
    port = await start(nursery, keys, max_body=1000)
    ask = HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    async with raw_line(keys, port) as stream:
        await stream.send_all(ask % 4)
        assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        await stream.send_all(b"body")
        assert (await read_until(stream, b"body")).startswith(b"HTTP/1.1 200 ")
        await stream.send_all(ask % 1001)
        assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 413 ")


async def test_requests_sent_ahead_are_answered_in_order(keys: Path, nursery: trio.Nursery) -> None:
    desk = Desk()
    port = await start(nursery, keys, desk)
    async with raw_line(keys, port) as stream:
        await stream.send_all(HEAD + b"Content-Length: 4\r\n\r\nbody" + HIDDEN)
        assert (await read_until(stream, b"/hidden")).count(b"HTTP/1.1 200 ") == 2
    assert desk.paths == ["/first", "/hidden"]


async def test_a_caller_that_has_closed_its_half_is_still_answered(keys: Path, nursery: trio.Nursery) -> None:
    gate = Gate()
    port = await start(nursery, keys, gate)
    async with raw_line(keys, port) as stream:
        await stream.send_all(HIDDEN)
        await stream.transport_stream.send_eof()
        await gate.full.wait()
        gate.open.set()
        assert (await read_until(stream, b"/hidden")).startswith(b"HTTP/1.1 200 ")


async def test_a_caller_that_stops_in_mid_request_is_told_and_dropped(
    keys: Path, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    desk = Desk()
    port = await start(nursery, keys, desk)
    async with raw_line(keys, port) as stream:
        await stream.send_all(HEAD + b"Content-Length: 4\r\n\r\nbo")
        nursery.start_soon(hurry, mock_clock)
        assert (await read_to_end(stream)).startswith(b"HTTP/1.1 408 ")
    assert desk.seen == []


@pytest.mark.parametrize("sent", [HEAD, HEAD + b"Content-Length: 4\r\n\r\nbo"], ids=["head", "body"])
async def test_a_caller_that_vanishes_in_mid_request_is_nobodys_fault(
    keys: Path, nursery: trio.Nursery, sent: bytes
) -> None:
    desk = Desk()
    with capture_logs() as logs:
        async with trio.open_nursery() as server:
            port = await start(server, keys, desk)
            async with raw_line(keys, port) as stream:
                await stream.send_all(sent)
            async with Client("127.0.0.1", port, as_client(keys)) as client:
                await client.request("GET", "/good")
            await wait_all_tasks_blocked()
            server.cancel_scope.cancel()
    assert logs == []
    assert desk.paths == ["/good"]


async def test_a_thin_line_may_take_as_long_as_its_bytes_need(
    keys: Path, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    """128 kbps, the model line of the study, used up by four transfers at a time."""
    port = await start(nursery, keys)
    piece = bytes(4096)
    async with raw_line(keys, port) as stream:
        await stream.send_all(HEAD + b"Content-Length: %d\r\n\r\n" % (100 * len(piece)))
        for _ in range(100):
            await wait_all_tasks_blocked()
            mock_clock.jump(1)
            await stream.send_all(piece)
        assert (await read_until(stream, b"\r\n\r\n" + 100 * piece)).startswith(b"HTTP/1.1 200 ")


async def test_a_caller_that_does_not_take_its_answer_is_dropped(
    keys: Path, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    size = 16_000_000

    async def handler(_: Request) -> Response:
        return Response(200, bytes(size))

    port = await start(nursery, keys, handler)
    begun = trio.current_time()
    async with raw_line(keys, port) as stream:
        await stream.send_all(HIDDEN)
        with capture_logs() as logs:
            while not logs:
                await wait_all_tasks_blocked(0.01)
                mock_clock.jump(100)
        assert trio.current_time() - begun > size / http.SLOWEST
        assert logs == [{"event": "connection_failed", "error": "TooSlowError", "log_level": "error"}]


async def test_an_idle_connection_is_closed_with_a_goodbye(
    keys: Path, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    port = await start(nursery, keys)
    begun = trio.current_time()
    async with raw_line(keys, port) as stream:
        await stream.send_all(HIDDEN)
        nursery.start_soon(hurry, mock_clock)
        assert (await read_to_end(stream)).startswith(b"HTTP/1.1 200 ")  # without close_notify this raises
    assert trio.current_time() - begun >= http.IDLE


async def test_a_connection_does_not_outlive_the_look_at_its_certificate_for_long(
    keys: Path, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    gate = Gate()
    port = await start(nursery, keys, gate)
    async with Client("127.0.0.1", port, as_client(keys)) as client:
        async with trio.open_nursery() as tasks:

            async def ask() -> None:
                await client.request("GET", "/", timeout=10_000)

            tasks.start_soon(ask)
            await gate.full.wait()
            mock_clock.jump(http.LIFE + 1)
            gate.open.set()
        await client.request("GET", "/")
    assert len(gate.peers) == 2
    assert gate.peers[0] is not gate.peers[1]


# The end of a server


async def test_a_cancelled_server_finishes_what_it_has_begun(keys: Path) -> None:
    gate = Gate()
    stopped = trio.Event()
    async with trio.open_nursery() as outside:
        server = trio.CancelScope()

        async def run(*, task_status: trio.TaskStatus[int]) -> None:
            with server:
                await serve(gate, "127.0.0.1", 0, as_server(keys), task_status=task_status)
            stopped.set()

        port = await outside.start(run)
        async with raw_line(keys, port) as busy, raw_line(keys, port) as idle:
            await idle.do_handshake()
            await busy.send_all(HIDDEN)
            await gate.full.wait()
            server.cancel()
            with pytest.raises(trio.BrokenResourceError):  # the idle one is gone at once
                await idle.receive_some()
            assert not stopped.is_set()
            gate.open.set()
            answer = await read_to_end(busy)
            assert answer.endswith(b"/hidden")
            assert b"connection: close" in answer.lower()
            await stopped.wait()
        async with Client("127.0.0.1", port, as_client(keys)) as client:
            with pytest.raises(Unreachable, match="Connection refused"):
                await client.request("GET", "/late")


async def test_a_request_without_end_cannot_hold_a_cancelled_server(
    keys: Path, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    gate = Gate()
    stopped = trio.Event()
    scope = trio.CancelScope()

    async def run(*, task_status: trio.TaskStatus[int]) -> None:
        with scope:
            await serve(gate, "127.0.0.1", 0, as_server(keys), task_status=task_status)
        stopped.set()

    port = await nursery.start(run)
    async with Client("127.0.0.1", port, as_client(keys)) as client, trio.open_nursery() as tasks:

        async def ask() -> None:
            with pytest.raises(Unreachable):
                await client.request("GET", "/")

        tasks.start_soon(ask)
        await gate.full.wait()
        scope.cancel()
        await wait_all_tasks_blocked()
        assert not stopped.is_set()
        with capture_logs() as logs:
            mock_clock.jump(http.GRACE + 1)
            await stopped.wait()
        assert [entry["event"] for entry in logs] == ["request_cut_off_by_shutdown"]


# What a client meets


async def test_a_closed_port_is_unreachable(keys: Path) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    async with Client("127.0.0.1", port, as_client(keys)) as client:
        with pytest.raises(Unreachable, match=f"^127.0.0.1:{port}: Connection refused$"):
            await client.request("GET", "/")


async def test_a_time_out_is_unreachable_and_its_late_answer_reaches_nobody(
    keys: Path, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    gate = Gate()
    port = await start(nursery, keys, gate)
    async with Client("127.0.0.1", port, as_client(keys)) as client:
        async with trio.open_nursery() as tasks:

            async def ask() -> None:
                with pytest.raises(Unreachable, match="no answer within 5 s"):
                    await client.request("GET", "/late", timeout=5)

            tasks.start_soon(ask)
            await gate.full.wait()
            mock_clock.jump(6)
        gate.open.set()
        assert (await client.request("GET", "/next")).body == b"/next"


async def test_a_cancelled_request_leaves_no_half_used_connection(keys: Path, nursery: trio.Nursery) -> None:
    gate = Gate()
    port = await start(nursery, keys, gate)
    async with Client("127.0.0.1", port, as_client(keys)) as client:
        async with trio.open_nursery() as tasks:
            tasks.start_soon(client.request, "GET", "/given-up")
            await gate.full.wait()
            tasks.cancel_scope.cancel()
        gate.open.set()
        for path in ("/a", "/b"):
            assert (await client.request("GET", path)).body == path.encode()
    assert gate.peers[0] is not gate.peers[1]
    assert gate.peers[1] is gate.peers[2]


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BROKEN_ANSWERS = {
    "closed before any answer": b"",
    "closed in mid-head": b"HTTP/1.1 200 OK\r\nContent-",
    "closed in mid-body": ANSWER[:-1],
    "closed in mid-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok",
    "not HTTP": "見本市".encode() + b"\r\n\r\n",
}


@pytest.mark.parametrize("kind", BROKEN_ANSWERS)
async def test_an_answer_that_is_not_whole_is_unreachable(
    keys: Path, nursery: trio.Nursery, kind: str
) -> None:
    async def script(stream: Stream) -> None:
        await read_until(stream, b"\r\n\r\n")
        await stream.send_all(BROKEN_ANSWERS[kind])

    port, connections = await start_script(nursery, keys, script)
    async with Client("127.0.0.1", port, as_client(keys)) as client:
        with pytest.raises(Unreachable) as caught:
            await client.request("GET", "/")
    assert len(connections) == 1
    assert str(caught.value) == f"127.0.0.1:{port}: RemoteProtocolError"  # and no word of what was received


async def test_an_answer_cut_off_below_tls_is_unreachable(keys: Path, nursery: trio.Nursery) -> None:
    """Without a length only the end of the connection ends the answer: then TLS must have said goodbye."""

    async def script(stream: Stream) -> None:
        await read_until(stream, b"\r\n\r\n")
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\nhalf an ans")
        await stream.transport_stream.aclose()

    port, _ = await start_script(nursery, keys, script)
    async with Client("127.0.0.1", port, as_client(keys)) as client:
        with pytest.raises(Unreachable, match="UNEXPECTED_EOF"):
            await client.request("GET", "/")


async def test_an_answer_too_large_is_unreachable(keys: Path, nursery: trio.Nursery) -> None:
    async def handler(_: Request) -> Response:
        return Response(200, bytes(http.MAX_BODY + 1))

    port = await start(nursery, keys, handler)
    async with Client("127.0.0.1", port, as_client(keys)) as client:
        with pytest.raises(Unreachable):
            await client.request("GET", "/")


async def test_a_kept_connection_that_breaks_unanswered_is_replaced_once(
    keys: Path, nursery: trio.Nursery
) -> None:
    """Every connection answers its first request, and hangs up on the second without a word."""

    async def script(stream: Stream) -> None:
        await read_until(stream, b"\r\n\r\n")
        await stream.send_all(ANSWER)
        await read_until(stream, b"\r\n\r\n")

    port, connections = await start_script(nursery, keys, script)
    async with Client("127.0.0.1", port, as_client(keys)) as client:
        for _ in range(3):
            assert (await client.request("GET", "/")).body == b"ok"
    assert len(connections) == 3


async def test_a_request_is_sent_a_second_time_but_not_a_third(keys: Path, nursery: trio.Nursery) -> None:
    """Only the first request on the first connection is answered."""
    requests: list[bytes] = []

    async def script(stream: Stream) -> None:
        while True:
            requests.append(await read_until(stream, b"\r\n\r\n"))
            if len(requests) > 1:
                return
            await stream.send_all(ANSWER)

    port, connections = await start_script(nursery, keys, script)
    async with Client("127.0.0.1", port, as_client(keys)) as client:
        await client.request("GET", "/")
        with pytest.raises(Unreachable):
            await client.request("GET", "/")
    assert len(requests) == 3
    assert len(connections) == 2


async def test_a_request_is_not_sent_again_once_its_answer_has_begun(
    keys: Path, nursery: trio.Nursery
) -> None:
    async def script(stream: Stream) -> None:
        await read_until(stream, b"\r\n\r\n")
        await stream.send_all(ANSWER)
        await read_until(stream, b"\r\n\r\n")
        await stream.send_all(ANSWER[:-1])

    port, connections = await start_script(nursery, keys, script)
    async with Client("127.0.0.1", port, as_client(keys)) as client:
        await client.request("GET", "/")
        with pytest.raises(Unreachable):
            await client.request("GET", "/")
    assert len(connections) == 1


async def test_a_kept_connection_with_a_surplus_answer_is_not_used(keys: Path, nursery: trio.Nursery) -> None:
    """Else every request after it would get the answer to the one before."""

    async def script(stream: Stream) -> None:
        await read_until(stream, b"\r\n\r\n")
        await stream.send_all(ANSWER + ANSWER)
        await read_to_end(stream)

    port, connections = await start_script(nursery, keys, script)
    async with Client("127.0.0.1", port, as_client(keys)) as client:
        for _ in range(2):
            assert (await client.request("GET", "/")).body == b"ok"
    assert len(connections) == 2


async def test_a_kept_connection_on_which_anything_stirs_is_not_used(
    keys: Path, nursery: trio.Nursery
) -> None:
    go = trio.Event()

    async def script(stream: Stream) -> None:
        await read_until(stream, b"\r\n\r\n")
        await stream.send_all(ANSWER)
        await go.wait()
        await stream.send_all(ANSWER)
        await read_to_end(stream)

    port, connections = await start_script(nursery, keys, script)
    async with Client("127.0.0.1", port, as_client(keys)) as client:
        await client.request("GET", "/")
        go.set()
        await trio.lowlevel.wait_readable(client._idle[0].stream.transport_stream.socket)
        await client.request("GET", "/")
    assert len(connections) == 2


async def test_a_connection_that_has_rested_too_long_is_not_trusted(
    keys: Path, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    """A firewall may have forgotten it: what is sent on it would vanish until the time-out."""
    desk = Desk()
    port = await start(nursery, keys, desk)
    async with Client("127.0.0.1", port, as_client(keys)) as client:
        await client.request("GET", "/")
        mock_clock.jump(http.REST - 1)
        await client.request("GET", "/")
        assert desk.connections == 1
        mock_clock.jump(http.REST + 1)
        await client.request("GET", "/")
        assert desk.connections == 2


async def test_connections_that_are_no_longer_needed_are_closed(
    keys: Path, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    both = trio.Event()

    async def script(stream: Stream) -> None:
        text = b""
        while data := await stream.receive_some():
            text += data
            if text.endswith(b"\r\n\r\n"):
                if len(connections) == 2:
                    both.set()
                await both.wait()
                await stream.send_all(ANSWER)

    port, connections = await start_script(nursery, keys, script)
    async with Client("127.0.0.1", port, as_client(keys)) as client:
        async with trio.open_nursery() as tasks:
            tasks.start_soon(client.request, "GET", "/")
            tasks.start_soon(client.request, "GET", "/")
        for _ in range(2):
            mock_clock.jump(http.REST - 1)
            await client.request("GET", "/")
        assert len(client._idle) == 1
    assert len(connections) == 2


async def test_a_closed_client_refuses_and_drops_what_is_under_way_when_it_is_answered(
    keys: Path, nursery: trio.Nursery
) -> None:
    gate = Gate()
    port = await start(nursery, keys, gate)
    client = Client("127.0.0.1", port, as_client(keys))
    async with trio.open_nursery() as tasks:

        async def ask() -> None:
            assert (await client.request("GET", "/")).status == 200

        tasks.start_soon(ask)
        await gate.full.wait()
        await client.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await client.request("GET", "/")
        gate.open.set()
    # An unclosed socket would be a ResourceWarning, and warnings are errors here.


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/a b"), ("GE T", "/"), ("GET", "/\r\nx: y"), ("GET", "/連携")]
)
async def test_what_http_does_not_allow_is_the_callers_error(keys: Path, method: str, path: str) -> None:
    async with Client("127.0.0.1", 1, as_client(keys)) as client:
        with pytest.raises(ValueError, match="not allowed"):
            await client.request(method, path)
