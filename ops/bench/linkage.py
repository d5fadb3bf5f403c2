"""`renkei bench linkage`: whole inquiries between two cities, through real processes over mutual TLS.

An inquiry is whole from the order at the business door to the result fetched there: permitted by the network,
answered, recorded on three sides. Sizes and loads are measured in turns, and the medians of the rounds are
reported. Counting and sampling have runs of their own.
"""

import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from importlib.util import find_spec
from itertools import count, cycle, islice
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, TypeVar

import msgpack
import psycopg
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from eventsourcing.persistence import PersistenceError
from rich.progress import Progress

from adapters.business.client import BusinessClient
from adapters.business.records import InquiryRecord
from adapters.http import Unreachable
from broker.linkage.crypto import SealingKey, Signer, new_sealing_secret, seal
from ops import demo
from ops.bench import figures, meter
from ops.bench.linkage_figures import (
    ALONE,
    BESIDE,
    BULK,
    IDLE,
    MOST,
    SIZE,
    TOGETHER,
    Beside,
    Bulk,
    LinkageFigures,
    Single,
    Step,
)
from ops.bench.linkage_report import draw, show
from ops.bench.load import Timed
from ops.bench.places import Place, disk_folder, file_system, opened
from ops.bench.town import (
    ANSWERING,
    ASKING,
    SIZES,
    YEAR,
    BenchFailed,
    Town,
    database,
    layout_key,
    payload,
    people_for,
    populate,
    prepared,
)
from ops.postgresql import ServerFailed
from ops.terminal import fail, progress_bar

ROUNDS = 3
IN_FLIGHT = (1, 8, MOST)
PARTS = (0.5, 0.95, 0.99)
ARRIVALS = 20.0  # single inquiries a second while a bulk load runs
COUNTED = 10  # exchanges that are counted, one after another
BARE = 0.1  # seconds for each bare step
WAIT = 60.0  # seconds that a question for results waits
FETCHED = 1_000  # results in one request

T = TypeVar("T")


def bench_linkage(store: str, target: Path, picture: Path | None, persons: int, seconds: float) -> int:
    """Measure, say what was found, and write it to `target` (JSON) and `picture` (SVG or PNG)."""
    if picture is not None and find_spec("matplotlib") is None:
        return fail("S-104", "--picture: matplotlibがありません (pip install 'renkei[bench]')")
    try:
        found = measured(store, persons, seconds)
    except Exception as error:
        trouble = error
        while isinstance(trouble, ExceptionGroup):
            trouble = trouble.exceptions[0]
        if isinstance(trouble, psycopg.Error | PersistenceError | ServerFailed):
            return fail("S-104", f"--store: {trouble}")
        if isinstance(trouble, BenchFailed | Unreachable):
            return fail("S-153", str(trouble))
        raise
    target.write_text(json.dumps(found.json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    show(found)
    if picture is not None:
        draw(found, picture)
    return 0


def measured(store: str, persons: int, seconds: float) -> LinkageFigures:
    """One run: a file about so many persons, about `seconds` for each measurement of single inquiries."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    with disk_folder() as folder, opened(store, folder) as place, progress_bar() as progress:
        machine = figures.machine(file_system(folder))
        found = LinkageFigures(place.name, at, persons, seconds, machine, place.settings())
        with database(place) as address:
            town = prepared(folder / "town", address, people_for(persons))
            with town.at_work():
                bench = _Bench(town, place, found, progress)
                trio.run(bench.run)
        return found


@dataclass
class _Bench:
    town: Town
    place: Place
    found: LinkageFigures
    progress: Progress
    serial: Iterator[int] = field(default_factory=count)

    async def run(self) -> None:
        await populate(self.town, self.progress)
        self.found.answer_bytes = {str(size): self._answer_bytes(size) for size in SIZES}
        async with self.town.door(ASKING) as door:
            await self._busy(door, SIZE, 8, self._round)  # to warm up
            await self.single(door)
            await self.bulk(door)
            await self.beside(door)
            await self.count(door)
            await self.profile(door)
        self.found.memory = self.town.peaks()

    @property
    def _round(self) -> float:
        return self.found.seconds / ROUNDS

    def _answer_bytes(self, size: int) -> int:
        return len(msgpack.packb(payload(Random(0), size)))  # noqa: S311 # all are of this length

    # -- the measurements ---------------------------------------------------------------------------------

    async def single(self, door: BusinessClient) -> None:
        rounds: dict[tuple[int, int], list[tuple[Timed, dict[str, float]]]] = {}
        for size, in_flight in self._rounds("single", [(s, n) for s in SIZES for n in IN_FLIGHT]):
            with self._spending() as spent:
                timed = await self._busy(door, size, in_flight, self._round)
            rounds.setdefault((size, in_flight), []).append((timed, spent(timed.events)))
        for case, taken in rounds.items():
            times = [timed for timed, _ in taken]
            rate = median(t.rate for t in times)
            p50, p95, p99 = (median(t.millisecond(part) for t in times) for part in PARTS)
            processor = _medians([spent for _, spent in taken])
            self.found.single.append(Single(*case, rate, p50, p95, p99, processor))

    async def bulk(self, door: BusinessClient) -> None:
        persons = self.found.persons
        rounds: dict[int, list[tuple[tuple[float, float, float], dict[str, float]]]] = {}
        for size in self._rounds("bulk", SIZES):
            with self._spending() as spent:
                times = await self._file(door, size)
            rounds.setdefault(size, []).append((times, spent(persons)))
        for size, taken in rounds.items():
            ordered, answered, fetched = (median(s) for s in zip(*(s for s, _ in taken), strict=True))
            processor = _medians([spent for _, spent in taken])
            self.found.bulk.append(
                Bulk(size, persons, persons / fetched, ordered, answered, fetched, processor)
            )

    async def beside(self, door: BusinessClient) -> None:
        for what in (IDLE, BESIDE):
            stop = trio.Event()
            async with trio.open_nursery() as nursery:
                if what == BESIDE:
                    nursery.start_soon(self._files, door, stop)
                timed = await self._arrivals(door)
                stop.set()
            p50, p95, p99 = map(timed.millisecond, PARTS)
            self.found.beside.append(Beside(what, ARRIVALS, timed.events, p50, p95, p99))

    async def count(self, door: BusinessClient) -> None:
        """How often the unavoidable steps are taken, and what each costs bare."""
        await self._counted(ALONE, partial(self._alone, door))
        await self._counted(TOGETHER, partial(self._busy, door, SIZE, MOST, self._round))
        await self._counted(BULK, partial(self._file, door, SIZE), self.found.persons)

    async def _counted(self, load: str, work: Callable[[], Awaitable[Any]], persons: int = 0) -> None:
        self.town.tell("count")
        done = await work()
        told = self.town.tell("end")
        inquiries = persons or done.events
        for step in meter.STEPS:
            calls = {name: counts[step][0] for name, counts in told.items() if counts[step][0]}
            if total := sum(calls.values()):
                size = sum(counts[step][1] for counts in told.values()) / total
                each = {name: number / inquiries for name, number in calls.items()}
                cost = self._bare(step, max(1, round(size)))
                self.found.steps.append(Step(load, step, each, size, *cost))

    async def _alone(self, door: BusinessClient) -> Timed:
        timed = Timed(events=COUNTED)
        for _ in range(COUNTED):
            await self._inquiry(door, SIZE)
        return timed

    async def profile(self, door: BusinessClient) -> None:
        loads: dict[str, Callable[[], Awaitable[Any]]] = {
            TOGETHER: partial(self._busy, door, SIZE, MOST, self.found.seconds),
            BULK: partial(self._file, door, SIZE),
        }
        for load, work in loads.items():
            self.town.tell("sample")
            await work()
            told = self.town.tell("end")
            self.found.profile[load] = {name: _parts(each["rooms"]) for name, each in told.items()}
            self.found.functions[load] = {name: _parts(each["functions"]) for name, each in told.items()}

    # -- the loads ----------------------------------------------------------------------------------------

    def _order(self, size: int, number: str) -> InquiryRecord:
        return InquiryRecord(
            f"bench-{next(self.serial)}",
            demo.OFFICER,
            ANSWERING,
            demo.LAW_ROW,
            demo.INFORMATION,
            layout_key(size),
            YEAR,
            (number,),
        )

    async def _inquiry(self, door: BusinessClient, size: int) -> None:
        """One inquiry from the order to the result. Raises BenchFailed for anything but an answer."""
        order = self._order(size, self.town.numbers[next(self.serial) % len(self.town.numbers)])
        _all_taken(await door.send([order]))
        _all_answered(await door.results([order.request_id], WAIT))

    async def _busy(self, door: BusinessClient, size: int, in_flight: int, seconds: float) -> Timed:
        """So many at the same time, each followed by the next as soon as its result is there."""
        timed = Timed()
        begun = time.perf_counter()

        async def ask() -> None:
            now = begun
            while now < begun + seconds:
                asked = time.perf_counter()
                await self._inquiry(door, size)
                now = time.perf_counter()
                timed.latencies.append(now - asked)

        async with trio.open_nursery() as nursery:
            for _ in range(in_flight):
                nursery.start_soon(ask)
        timed.seconds, timed.events = time.perf_counter() - begun, len(timed.latencies)
        return timed

    async def _arrivals(self, door: BusinessClient) -> Timed:
        """Inquiries at a steady rate, whether or not earlier ones are done."""
        timed = Timed()
        begun = time.perf_counter()

        async def ask(arrival: float) -> None:
            await self._inquiry(door, SIZE)
            timed.latencies.append(time.perf_counter() - arrival)

        async with trio.open_nursery() as nursery:
            for number in range(max(2, int(ARRIVALS * self.found.seconds))):
                arrival = begun + number / ARRIVALS
                await trio.sleep(max(0.0, arrival - time.perf_counter()))
                nursery.start_soon(ask, arrival)
        timed.seconds, timed.events = time.perf_counter() - begun, len(timed.latencies)
        return timed

    async def _files(self, door: BusinessClient, stop: trio.Event) -> None:
        while not stop.is_set():
            await self._file(door, SIZE)

    async def _file(self, door: BusinessClient, size: int) -> tuple[float, float, float]:
        """The orders of one file together; after how many seconds they were recorded, answered, fetched."""
        numbers = islice(cycle(self.town.numbers), self.found.persons)
        orders = [self._order(size, number) for number in numbers]
        ids = [order.request_id for order in orders]
        begun = time.perf_counter()
        _all_taken(await door.inquire(orders))
        ordered = time.perf_counter() - begun
        while await door.open_inquiries(ids, WAIT):
            pass
        answered = time.perf_counter() - begun
        for start in range(0, len(ids), FETCHED):
            _all_answered(await door.results(ids[start : start + FETCHED], 0))
        return ordered, answered, time.perf_counter() - begun

    # -- how it is measured -------------------------------------------------------------------------------

    def _rounds(self, name: str, cases: Sequence[T]) -> Iterator[T]:
        """Every case once in every round, so that all of them meet the same good and bad moments."""
        return iter(self.progress.track([*cases] * ROUNDS, description=name))

    @contextmanager
    def _spending(self) -> Iterator[Callable[[int], dict[str, float]]]:
        """What each process spends on one of so many inquiries: milliseconds of the processor."""
        before, own = self.town.spent(), time.process_time()

        def spent(inquiries: int) -> dict[str, float]:
            found = {
                name: now.processor - before[name].processor for name, now in self.town.spent().items()
            } | {"bench": time.process_time() - own}
            return {name: 1e3 * seconds / inquiries for name, seconds in found.items()}

        yield spent

    def _bare(self, step: str, size: int) -> tuple[float, float]:
        """One step alone, over so many bytes: microseconds of the processor, milliseconds until done."""
        data = os.urandom(size)
        if step == meter.WRITE:
            with self.place.floor() as write:
                positions = count(1)
                return _timed(lambda: write([(n := next(positions), f"bench/{n}", 1, "bench/1", data)]))
        return _timed(self._calls(data)[step])

    def _calls(self, data: bytes) -> dict[str, Callable[[], object]]:
        stem = self.town.folder / "certificates" / f"{ASKING}-signing"
        signer = Signer(stem.with_suffix(".pem").read_bytes(), stem.with_suffix(".key").read_bytes())
        signature = signer.sign(data)
        key = SealingKey(new_sealing_secret())
        # What is opened is as long as what was counted, box and all.
        box = seal(data[: max(0, len(data) - (len(seal(b"", key.public, b""))))], key.public, b"")
        cipher, nonce = AESGCM(AESGCM.generate_key(256)), os.urandom(12)
        sealed = cipher.encrypt(nonce, data, b"")
        log = Ed25519PrivateKey.generate()
        return {
            meter.SIGN: lambda: signer.sign(data),
            meter.VERIFY: lambda: signer.identity.verifies(signature, data),
            meter.SEAL: lambda: seal(data, key.public, b""),
            meter.OPEN: lambda: key.open(box, b""),
            meter.VAULT_SEAL: lambda: cipher.encrypt(os.urandom(12), data, b""),
            meter.VAULT_OPEN: lambda: cipher.decrypt(nonce, sealed, b""),
            meter.CHECKPOINT: lambda: log.sign(data),
            meter.HASH: lambda: sha256(data).digest(),
        }


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    begun, used, calls = time.perf_counter(), time.process_time(), 0
    while (now := time.perf_counter()) < begun + BARE or calls < 3:
        call()
        calls += 1
    return 1e6 * (time.process_time() - used) / calls, 1e3 * (now - begun) / calls


def _all_taken(verdicts: Sequence[tuple[str, str]]) -> None:
    refused = sorted({(code, detail) for code, detail in verdicts if code})
    if refused:
        raise BenchFailed(f"orders were refused: {refused}")


def _all_answered(results: Sequence[Any]) -> None:
    wrong = sorted(
        {
            (result.state, result.code, *result.codes)
            for result in results
            if result.state != "answered" or any(result.codes)
        }
    )
    if wrong:
        raise BenchFailed(f"not answered: {wrong}")


def _medians(taken: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: median(each[name] for each in taken) for name in taken[0]}


def _parts(seconds: dict[str, float]) -> dict[str, float]:
    """Of the whole, the largest first."""
    total = sum(seconds.values()) or 1.0
    return {name: each / total for name, each in sorted(seconds.items(), key=lambda pair: -pair[1])}
