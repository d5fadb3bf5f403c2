"""A line to a PostgreSQL server that fails between two messages of the protocol, where a test wants it to."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from urllib.parse import urlsplit, urlunsplit

# Called with each message before it is passed on: its type (empty where it begins a connection) and body.
Decide = Callable[["Line", bytes, bytes], None]


class Lost(Exception):
    """Raised by what decides: this message and all that follow it in its direction are not passed on."""


class Line:
    """One connection of a client, and the proxy's own to the server."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        for end in (client, server):  # a message goes at once, and does not wait for the next one
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def cut(self) -> None:
        hang_up(self.client)
        hang_up(self.server)


def hang_up(end: socket.socket, direction: int = socket.SHUT_RDWR) -> None:
    with suppress(OSError):  # the other side was first
        end.shutdown(direction)


class Proxy:
    """Passes the messages of every connection, each after `decide(line, type, body)` has returned for it.

    It is called in the thread of a connection and a direction, and may wait.
    """

    def __init__(self, url: str, decide: Decide = lambda line, kind, body: None) -> None:
        self.decide = decide
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._server = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        user = parts.netloc.rpartition("@")[0]
        # Without encryption, of which the first messages of a connection would otherwise speak.
        self.url = urlunsplit(
            parts._replace(netloc=f"{user}@127.0.0.1:{port}", query="sslmode=disable&gssencmode=disable")
        )
        self._lines: list[Line] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            try:
                line = Line(client, socket.create_connection(self._server))
            except OSError:
                client.close()
                continue
            self._lines.append(line)
            for ends in ((line.client, line.server), (line.server, line.client)):
                thread = threading.Thread(target=self._pass, args=(line, *ends))
                self._threads.append(thread)
                thread.start()

    def _pass(self, line: Line, source: socket.socket, target: socket.socket) -> None:
        begins = source is line.client
        with suppress(Lost):
            try:
                while True:
                    kind = b"" if begins else _read(source, 1)
                    length = _read(source, 4)
                    body = _read(source, int.from_bytes(length) - 4)
                    begins = False
                    self.decide(line, kind, body)
                    target.sendall(kind + length + body)
            except (OSError, EOFError):
                hang_up(target, socket.SHUT_WR)

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        hang_up(self._listener)
        self._listener.close()
        for line in self._lines:
            line.cut()
        for thread in self._threads:
            thread.join()
        for line in self._lines:
            line.client.close()
            line.server.close()


def _read(source: socket.socket, size: int) -> bytes:
    """Raises EOFError where the connection ends before."""
    parts = bytearray()
    while len(parts) < size:
        part = source.recv(size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)
