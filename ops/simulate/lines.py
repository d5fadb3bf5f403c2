"""Lines without sockets, on which everything happens that happens on lines."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import parse_qsl

import trio
from cryptography import x509

from adapters.http import Client, Peer, Request, Response, Unreachable
from broker.ledger.ledger import STORE_TROUBLE
from ops.simulate.clockwork import PROCESS, Clockwork, Killed, Party, Violation, described

NOTICED = 60.0  # seconds after which a broken line is noticed at the latest


@dataclass(frozen=True)
class Weather:
    """How often a message on a line meets what; the delays are seconds on average."""

    lost: float = 0.03
    answer_lost: float = 0.03
    twice: float = 0.03
    late: float = 0.05
    delay: float = 0.03
    long_delay: float = 20.0


class Wires:
    """All lines of a run. `heard` is told every body that reaches a party: (party, bytes)."""

    def __init__(
        self,
        clockwork: Clockwork,
        nursery: trio.Nursery,
        weather: Weather,
        parties: Mapping[str, Party],
        heard: Callable[[str, bytes], None] = lambda party, body: None,
    ) -> None:
        self._clockwork = clockwork
        self._nursery = nursery
        self._weather = weather
        self._parties = parties
        self._heard = heard
        self._cuts: list[frozenset[str]] = []
        self._sent: dict[tuple[str, str], int] = {}
        self._arrived: dict[tuple[str, str], int] = {}

    def line(self, sender: str, certificate: x509.Certificate, receiver: str) -> "Line":
        return Line(self, sender, Peer(certificate), receiver)

    @contextmanager
    def cut(self, group: frozenset[str]) -> Iterator[None]:
        """For a while nothing passes between this group and all others."""
        self._cuts.append(group)
        try:
            yield
        finally:
            self._cuts.remove(group)

    def _severed(self, one: str, other: str) -> bool:
        return any((one in group) != (other in group) for group in self._cuts)

    async def exchange(self, sender: str, receiver: str, request: Request, patience: float) -> Response:
        """Raises Unreachable, as a client of real lines does; the other side may have acted."""
        call = _Call(sender, receiver, request)
        key = (sender, receiver)
        call.number = self._sent[key] = self._sent.get(key, 0) + 1
        self._clockwork.note(sender, "asks", receiver, request.method, request.path, call.number)
        for _ in range(2 if self._hits("request twice", self._weather.twice, call) else 1):
            self._nursery.start_soon(self._carry, call, patience)
        with trio.move_on_after(patience):
            await call.answered.wait()
        if call.response is None:
            self._clockwork.note(sender, "hears nothing of", receiver, call.number)
            raise Unreachable(f"{receiver}: no answer")
        self._clockwork.note(sender, "hears", receiver, call.number, call.response.status)
        return call.response

    async def _carry(self, call: "_Call", patience: float) -> None:
        await self._travel(call)
        if self._breaks("request lost", self._weather.lost, call):
            await self._notice(call, patience)
            return
        party = self._parties[call.receiver]
        process = party.up
        if process is None or process.nursery is None:
            self._clockwork.note(call.receiver, "is down for", call.sender, call.number)
            call.answered.set()
            return
        key = (call.sender, call.receiver)
        if call.number < self._arrived.get(key, 0):
            self._clockwork.fault("request overtaken", *key, call.number)
        self._arrived[key] = max(call.number, self._arrived.get(key, 0))
        self._heard(call.receiver, call.request.body)
        process.nursery.start_soon(self._serve, party, call, patience)

    async def _serve(self, party: Party, call: "_Call", patience: float) -> None:
        """In a task of the receiver. As a real server does, it tells nothing of an exception but a 500."""
        process = party.process
        if process is None or process.door is None:
            call.answered.set()
            return
        PROCESS.set(process)
        response = None
        try:
            response = await process.door(call.request)
        except* Killed:
            raise
        except* STORE_TROUBLE:
            response = Response(500)
        except* Exception as group:
            raise Violation(
                "every request gets an answer", f"{call.receiver} {call.request.path}: {described(group)}"
            ) from group
        finally:
            if response is None:  # the process went away: so did the line
                call.answered.set()
        if response is not None:
            self._nursery.start_soon(self._return, call, response, patience)

    async def _return(self, call: "_Call", response: Response, patience: float) -> None:
        PROCESS.set(None)
        await self._travel(call)
        if self._breaks("answer lost", self._weather.answer_lost, call):
            await self._notice(call, patience)
            return
        if not call.answered.is_set():
            self._heard(call.sender, response.body)
            call.response = response
            call.answered.set()

    async def _travel(self, call: "_Call") -> None:
        delay = self._clockwork.rng.expovariate(1 / self._weather.delay)
        if self._hits("delay", self._weather.late, call):
            delay += self._clockwork.rng.expovariate(1 / self._weather.long_delay)
        await trio.sleep(delay)

    def _breaks(self, kind: str, probability: float, call: "_Call") -> bool:
        if self._severed(call.sender, call.receiver):
            self._clockwork.fault(f"{kind} in a partition", call.sender, call.receiver, call.number)
            return True
        return self._hits(kind, probability, call)

    def _hits(self, kind: str, probability: float, call: "_Call") -> bool:
        if not self._clockwork.chance(probability):
            return False
        self._clockwork.fault(kind, call.sender, call.receiver, call.number)
        return True

    async def _notice(self, call: "_Call", patience: float) -> None:
        """A line that broke is noticed after a while, however long the caller would have waited."""
        await trio.sleep(self._clockwork.rng.uniform(0, min(patience, NOTICED)))
        call.answered.set()


class _Call:
    """A request on its way, and its answer once it is there; none: the line broke."""

    def __init__(self, sender: str, receiver: str, request: Request) -> None:
        self.sender = sender
        self.receiver = receiver
        self.request = request
        self.number = 0
        self.answered = trio.Event()
        self.response: Response | None = None


class Line(Client):
    """One party's line to the door of another."""

    def __init__(self, wires: Wires, sender: str, peer: Peer, receiver: str) -> None:
        self._wires = wires
        self._sender = sender
        self._peer = peer
        self._receiver = receiver

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        timeout: float = 30.0,  # noqa: ASYNC109 # as the line that it stands for
    ) -> Response:
        route, _, query = path.partition("?")
        request = Request(self._peer, method, route, dict(parse_qsl(query)), body)
        return await self._wires.exchange(self._sender, self._receiver, request, timeout)

    async def aclose(self) -> None:
        """Nothing is open."""
