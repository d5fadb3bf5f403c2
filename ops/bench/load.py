"""What is put on a ledger, and how it is timed: writers, steady arrivals, the floor, the stock library."""

import itertools
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar
from uuid import uuid4

import trio
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate
from eventsourcing.domain import event as aggregate_event
from eventsourcing.persistence import StoredEvent

from broker.ledger.events import Recorded, event, personal
from broker.ledger.ledger import Change, Ledger, Unit
from broker.ledger.projections import Rows
from ops.bench.places import Row, WriteRows

SEALED_BYTES = 300  # with these the stored state of an event has about 500 bytes
STOCK_TEXT = 360  # likewise for the event of the stock library
_TIMER = 1e-3


@event("bench.recorded", retention="provision_record")
@dataclass(frozen=True)
class Entry:
    """An event like those of the agencies: a few clear fields, and something about a person."""

    request: str
    office: str
    year: int
    body: bytes = personal()


class Requests:
    """A simple projection: one row for each event."""

    name: ClassVar[str] = "requests"
    tables: ClassVar[Mapping[str, str]] = {
        "request": "position INTEGER PRIMARY KEY, request TEXT, office TEXT, year INTEGER"
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        entry = recorded.event
        rows.execute(
            "INSERT INTO request VALUES (?, ?, ?, ?)",
            (recorded.position, entry.request, entry.office, entry.year),
        )


class Draft:
    """Units with time-ordered message ids and stream names, as the agencies make them."""

    def __init__(self) -> None:
        self._number = itertools.count()
        self._body = secrets.token_bytes(SEALED_BYTES)  # a seal of it is another one each time

    def unit(self, events: int = 1) -> Unit:
        """A unit of one event in each of so many new streams."""
        message_id = f"{time.time_ns():016x}-{next(self._number):08x}"
        changes = (Change(f"request/{message_id}/{n}", 0, (self._entry(message_id),)) for n in range(events))
        return Unit(message_id, tuple(changes))

    def _entry(self, message_id: str) -> Entry:
        return Entry(message_id, "見本市 税務課", 2026, self._body)


@dataclass
class Timed:
    """What was done in which time; latencies in seconds."""

    seconds: float = 0.0
    events: int = 0
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.events / self.seconds

    def millisecond(self, part: float) -> float:
        """The latency that this part of the calls stayed within, in milliseconds."""
        return sorted(self.latencies)[int(part * (len(self.latencies) - 1))] * 1e3


async def busy(ledger: Ledger, writers: int, events: int, seconds: float) -> Timed:
    """So many writers, each with its next unit as soon as the one before is durable."""
    timed, draft = Timed(), Draft()
    begun = time.perf_counter()

    async def write() -> None:
        now = begun
        while now < begun + seconds:
            unit = draft.unit(events)
            asked = time.perf_counter()
            await ledger.append(unit)
            now = time.perf_counter()
            timed.latencies.append(now - asked)

    async with trio.open_nursery() as nursery:
        for _ in range(writers):
            nursery.start_soon(write)
    timed.seconds = time.perf_counter() - begun
    timed.events = len(timed.latencies) * events
    return timed


async def steady(ledger: Ledger, rate: float, seconds: float) -> Timed:
    """Units arriving at a steady rate whether or not earlier ones are done; waiting counts from arrival.

    A timer is up to a millisecond late by itself: that much is not counted.
    """
    timed, draft = Timed(), Draft()
    begun = time.perf_counter()

    async def write(arrival: float) -> None:
        asked = min(time.perf_counter(), arrival + _TIMER)
        await ledger.append(draft.unit())
        timed.latencies.append(time.perf_counter() - asked)

    async with trio.open_nursery() as nursery:
        for number in range(max(2, int(rate * seconds))):
            arrival = begun + number / rate
            await trio.sleep(max(0.0, arrival - time.perf_counter()))
            nursery.start_soon(write, arrival)
    timed.seconds, timed.events = time.perf_counter() - begun, len(timed.latencies)
    return timed


@contextmanager
def in_a_thread(work: Callable[[], None]) -> Iterator[None]:
    """A worker thread of this process does this work again and again meanwhile."""
    stop = threading.Event()

    def again() -> None:
        while not stop.is_set():
            work()

    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def bare(write: WriteRows, batch: int, seconds: float, states: Sequence[bytes], first: int = 1) -> Timed:
    """The floor: nothing but the rows, as many in a transaction as a commit of ours held."""
    timed, position = Timed(), first
    prefix = f"request/{time.time_ns():016x}-"
    begun = now = time.perf_counter()
    while now < begun + seconds:
        rows: list[Row] = [
            (n, f"{prefix}{n:08x}/0", 1, "bench.recorded/1", states[n % len(states)])
            for n in range(position, position + batch)
        ]
        write(rows)
        position += batch
        timed.latencies.append(time.perf_counter() - now)
        now = time.perf_counter()
    timed.seconds, timed.events = now - begun, position - first
    return timed


class Noted(Aggregate):
    """One event of the stock library, of the same size as ours."""

    @aggregate_event("Created")
    def __init__(self, body: str) -> None:
        self.body = body


class Stock:
    """The stock Application: one event a call, by so many threads."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._application: Application[Any] = Application(env=environment)
        self._body = secrets.token_hex(STOCK_TEXT // 2)
        self._state = secrets.token_bytes(500)

    def save(self) -> None:
        self._application.save(Noted(self._body))

    def insert(self) -> None:
        event = StoredEvent(originator_id=uuid4(), originator_version=1, topic="x:Noted", state=self._state)
        self._application.recorder.insert_events([event])

    def state_bytes(self) -> int:
        """The size of a stored event as `save` makes it."""
        stored = self._application.mapper.to_stored_event(Noted(self._body).collect_events()[0])
        return len(stored.state)

    def close(self) -> None:
        self._application.close()


def threads(call: Callable[[], None], number: int, seconds: float) -> Timed:
    """The same call by so many threads; an error in one of them is raised here."""
    timed, failed = Timed(), list[BaseException]()
    begun = time.perf_counter()

    def repeat() -> None:
        try:
            now = begun
            while now < begun + seconds:
                asked = time.perf_counter()
                call()
                now = time.perf_counter()
                timed.latencies.append(now - asked)
        except BaseException as error:  # noqa: BLE001 # raised again by the thread that waits
            failed.append(error)

    running = [threading.Thread(target=repeat) for _ in range(number)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if failed:
        raise failed[0]
    timed.seconds, timed.events = time.perf_counter() - begun, len(timed.latencies)
    return timed


def drain(rows: Iterable[Any]) -> Timed:
    """Read to the end and keep nothing."""
    begun = time.perf_counter()
    count = sum(1 for _ in rows)
    return Timed(time.perf_counter() - begun, count)
