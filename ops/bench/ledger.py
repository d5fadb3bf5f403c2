"""`renkei bench ledger`: one run over one store.

What is compared is measured in turns, a round of each, and the medians of the rounds are reported: a disk
that slows down for a while slows down both sides of a ratio.
"""

import json
import multiprocessing
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import mean, median
from typing import TypeVar

import psycopg
import trio
from eventsourcing.persistence import PersistenceError
from rich.progress import Progress

from broker.ledger.events import Registry
from broker.ledger.folder import checkpoint_signer, note_signer
from broker.ledger.ledger import MAX_EVENTS, Ledger
from broker.ledger.notes import Kind, NoteSigner, parts
from broker.ledger.projections import BATCH, ProjectionTables, rebuild
from broker.ledger.store import Store, StoredUnit, unsigned
from broker.ledger.vault import Vault
from ops.bench import figures
from ops.bench.figures import Append, Beside, Figures, Growth
from ops.bench.load import (
    Draft,
    Entry,
    Requests,
    Stock,
    Timed,
    bare,
    busy,
    drain,
    in_a_thread,
    steady,
    threads,
)
from ops.bench.places import Place, WriteRows, disk_folder, file_system, opened
from ops.bench.report import draw, show
from ops.postgresql import ServerFailed
from ops.tables import BEHIND
from ops.terminal import fail, progress_bar

ROUNDS = 3
LOADS = ((1, 1), (1, 10), (1, 100), (8, 1), (figures.MOST_WRITERS, 1))  # writers, events in each unit
WRITERS = (1, 8, figures.MOST_WRITERS)
STEADY = 200.0  # appends a second, far from what a ledger can take

Measure = Callable[[Ledger], Awaitable[Timed]]
Work = Callable[[], AbstractContextManager[None]]
T = TypeVar("T")


def bench_ledger(store: str, target: Path, picture: Path | None, size: int, seconds: float) -> int:
    """Measure, say what was found, and write it to `target` (JSON) and `picture` (SVG or PNG)."""
    if picture is not None and find_spec("matplotlib") is None:
        return fail("S-104", "--picture: matplotlibがありません (pip install 'renkei[bench]')")
    try:
        found = measured(store, size, seconds)
    except (psycopg.Error, PersistenceError, ServerFailed) as error:
        return fail("S-104", f"--store: {error}")
    target.write_text(json.dumps(found.json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    show(found)
    if picture is not None:
        draw(found, picture)
    return 0


def measured(store: str, size: int, seconds: float) -> Figures:
    """One run: `size` events in the largest ledger, about `seconds` for each measurement."""
    with disk_folder() as folder, opened(store, folder) as place, progress_bar() as progress:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        found = Figures(place.name, at, size, seconds, figures.machine(file_system(folder)), place.settings())
        with closing(Vault(folder / "vault")) as vault:
            bench = _Bench(place, vault, folder, found, progress)
            bench.appends()
            bench.stock()
            bench.ledgers()
        return found


@dataclass
class _Bench:
    place: Place
    vault: Vault
    folder: Path
    found: Figures
    progress: Progress

    def __post_init__(self) -> None:
        self._sign = checkpoint_signer(note_signer(self.vault, "renkei/bench"))
        self._registry = Registry([Entry])
        self._round = self.found.seconds / ROUNDS

    # -- appends against the floor ------------------------------------------------------------------------

    def appends(self) -> None:
        """Ours and bare writing in turns, with the same number of events in a transaction."""
        rounds: dict[tuple[int, int], list[tuple[Timed, float, Timed]]] = {load: [] for load in LOADS}
        with self.place.store("append", self._sign) as store, self.place.floor() as write:
            self._busy(store, figures.MOST_WRITERS, 1)  # to warm up
            states = [stored.state for stored in store.events(0, 1_000)]
            self.found.state_bytes = mean(len(state) for state in states)
            first = 1
            for load in self._rounds("appending", LOADS):
                ours, batch = self._batched(store, *load)
                bottom = self._bare(write, batch, states, first)
                first += bottom.events
                rounds[load].append((ours, batch, bottom))
        for (writers, unit_events), taken in rounds.items():
            speed = _middle([timed for timed, _, _ in taken])
            size = mean(batch for _, batch, _ in taken)
            floor = median(bottom.rate for _, _, bottom in taken)
            ratio = median(timed.rate / bottom.rate for timed, _, bottom in taken)
            self.found.append.append(Append(writers, unit_events, *speed, size, floor, ratio))

    def _batched(self, store: Store, writers: int, unit_events: int) -> tuple[Timed, float]:
        """What was timed, and how many events a commit had."""
        self.place.settle()
        before = store.head().size
        ours = self._busy(store, writers, unit_events)
        return ours, ours.events / len(store.checkpoints(before, ours.events))

    def _bare(self, write: WriteRows, batch: float, states: Sequence[bytes], first: int) -> Timed:
        self.place.settle()
        return bare(write, max(1, round(batch)), self._round, states, first)

    # -- the stock library --------------------------------------------------------------------------------

    def stock(self) -> None:
        rounds: dict[tuple[str, int], list[Timed]] = {}
        cases = [(call, writers) for call in (figures.SAVE, figures.INSERT) for writers in WRITERS]
        with closing(Stock(self.place.stock())) as stock:
            self.found.stock_state_bytes = stock.state_bytes()
            calls = {figures.SAVE: stock.save, figures.INSERT: stock.insert}
            for call, writers in self._rounds("the stock library", cases):
                self.place.settle()
                taken = threads(calls[call], writers, self._round)
                rounds.setdefault((call, writers), []).append(taken)
        self.found.stock = [figures.Stock(*case, *_middle(taken)) for case, taken in rounds.items()]

    # -- ledgers of several sizes -------------------------------------------------------------------------

    def ledgers(self) -> None:
        """Fill ledgers, append to them in turns, read the largest one, and append beside other work."""
        small, middle, size = self.found.size // 500, self.found.size // 5, self.found.size
        with ExitStack() as stack:
            stores = {n: stack.enter_context(self.place.store(f"of{n}", self._sign)) for n in (middle, size)}
            for events, store in stores.items():
                self.found.fill = self._fill(store, events)
                self.place.settle(f"of{events}")
            self._read(f"of{size}", stores[size])
            self._beside(f"of{size}", stores[size])
            self._growth(small, stores)

    def _fill(self, store: Store, events: int) -> float:
        """Sealed units as they come every day, but in commits as large as a ledger makes them; the rate."""
        task = self.progress.add_task(f"a ledger of {events:,}", total=events)
        draft = Draft()
        begun = time.perf_counter()
        with ThreadPoolExecutor(1) as writer:
            written = writer.submit(store.head)
            for done in range(0, events, MAX_EVENTS):
                at = datetime.now(UTC).isoformat(timespec="microseconds")
                units = [self._sealed(draft, at) for _ in range(min(MAX_EVENTS, events - done))]
                written.result()
                written = writer.submit(store.append, units, at)  # type: ignore[arg-type] # only its end counts
                self.progress.update(task, completed=done)
            written.result()
        self.progress.remove_task(task)
        return events / (time.perf_counter() - begun)

    def _sealed(self, draft: Draft, at: str) -> StoredUnit:
        unit = draft.unit()
        (change,) = unit.changes
        (entry,) = change.events
        if key := self._registry.key_id(entry, at):
            self.vault.ensure([key])
        stored = self._registry.encode(change.stream, 1, entry, unit.message_id, at, self.vault)
        return StoredUnit(unit.message_id, {change.stream: 0}, (stored,))

    def _read(self, ledger: str, store: Store) -> None:
        task = self.progress.add_task("reading", total=3)
        self.found.reading[figures.SELECT] = drain(self.place.select(ledger)).rate
        self.progress.advance(task)
        self.found.reading[figures.FOLLOW] = drain(_pages(store)).rate
        self.progress.advance(task)
        # In a process of its own: its memory is that of the replay alone.
        spawned = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawned) as process:
            replayed = process.submit(replay, self.place, ledger, self.folder / "replayed.sqlite")
            self.found.reading[figures.REBUILD], self.found.replay_memory = replayed.result()
        self.progress.remove_task(task)

    def _beside(self, ledger: str, store: Store) -> None:
        loads: dict[str, Measure] = {
            f"{STEADY:.0f} a second": partial(steady, rate=STEADY, seconds=self._round),
            f"{figures.MOST_WRITERS} writers": partial(
                busy, writers=figures.MOST_WRITERS, events=1, seconds=self._round
            ),
        }
        works: dict[str, Work] = {
            figures.IDLE: nullcontext,
            figures.SEALING: partial(in_a_thread, _sealing(store)),
            figures.REBUILDING: partial(_rebuilding, self.place, ledger, self.folder / "live.sqlite"),
        }
        rounds: dict[tuple[str, str], list[Timed]] = {}
        for load, work in self._rounds(
            "appending beside", [(load, work) for load in loads for work in works]
        ):
            self.place.settle()
            rounds.setdefault((load, work), []).append(self._on(store, loads[load], works[work]))
        self.found.beside = [Beside(*case, *_middle(taken)) for case, taken in rounds.items()]

    def _growth(self, small: int, stores: dict[int, Store]) -> None:
        rounds: dict[tuple[int, int], list[Timed]] = {}
        sizes = [small, *stores]
        cases = [(size, writers) for writers in (figures.MOST_WRITERS, 1) for size in sizes]
        for size, writers in self._rounds("appending by size", cases):
            with self._of_size(size, stores) as store:
                self.place.settle()
                taken = self._busy(store, writers, 1)
            rounds.setdefault((size, writers), []).append(taken)
        self.found.growth = [Growth(*case, *_middle(taken)) for case, taken in rounds.items()]

    @contextmanager
    def _of_size(self, size: int, stores: dict[int, Store]) -> Iterator[Store]:
        """A large ledger hardly grows by being measured; a small one is made anew each time."""
        if size in stores:
            yield stores[size]
        else:
            name = f"small{secrets.token_hex(4)}"
            with self.place.store(name, self._sign) as store:
                self._fill(store, size)
                self.place.settle(name)
                yield store

    # -- how it is measured -------------------------------------------------------------------------------

    def _busy(self, store: Store, writers: int, unit_events: int) -> Timed:
        return self._on(store, partial(busy, writers=writers, events=unit_events, seconds=self._round))

    def _on(self, store: Store, measure: Measure, work: Work = nullcontext) -> Timed:
        """Measure with the ledger running over this store, as in a daemon, and with this work beside it."""

        async def run() -> Timed:
            ledger = Ledger("renkei/bench", store, self._registry, self.vault, partial(datetime.now, UTC))
            async with trio.open_nursery() as nursery:
                await nursery.start(ledger.run)
                timed = await measure(ledger)
                nursery.cancel_scope.cancel()
            return timed

        with work():
            return trio.run(run)

    def _rounds(self, name: str, cases: Sequence[T]) -> Iterator[T]:
        """Every case once in every round, so that all of them meet the same good and bad moments."""
        return iter(self.progress.track([*cases] * ROUNDS, description=name))


def replay(place: Place, ledger: str, into: Path) -> tuple[float, float]:
    """Rebuild a projection of a whole ledger: events a second, and the peak of resident memory in MB."""
    with place.store(ledger, unsigned) as store, closing(ProjectionTables(into, [Requests()])) as tables:
        begun = time.perf_counter()
        count = tables.catch_up(store, Registry([Entry]))
        return count / (time.perf_counter() - begun), _peak_memory()


def _peak_memory() -> float:
    """Of this process alone: what getrusage says includes the process that started it."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("the system does not say how much memory was used")


def _pages(store: Store) -> Iterator[object]:
    """What a follower reads: all events, batch by batch."""
    position = 0
    while page := store.events(position, BATCH):
        yield from page
        position = page[-1].id


def _sealing(store: Store) -> Callable[[], None]:
    """Cosign the last checkpoint by Ed25519 and by ML-DSA-44 and keep both lines, ten times a second."""
    kinds = (Kind.COSIGNATURE, Kind.ML_DSA_44)
    signers = [NoteSigner("renkei/bench/witness", secrets.token_bytes(32), kind) for kind in kinds]

    def seal() -> None:
        head = store.head()
        text, _ = parts(head.note)
        store.cosign(head.size, [signer.line(text, int(time.time())) for signer in signers])
        time.sleep(0.1)

    return seal


@contextmanager
def _rebuilding(place: Place, ledger: str, path: Path) -> Iterator[None]:
    """Another process rebuilds the projection beside the live one, as `renkei rebuild` does, meanwhile."""
    spawned = multiprocessing.get_context("spawn")
    under_way = spawned.Event()
    process = spawned.Process(target=_rebuild_again, args=(place, ledger, path, under_way))
    process.start()
    try:
        if not under_way.wait(60):
            raise ServerFailed("the rebuild did not begin")
        yield
    finally:
        process.kill()
        process.join()


def _rebuild_again(place: Place, ledger: str, path: Path, under_way: Event) -> None:
    os.nice(BEHIND)
    projections, registry = [Requests()], Registry([Entry])
    with place.store(ledger, unsigned) as store:
        ProjectionTables(path, projections).close()
        while True:
            rebuild(path, projections, store, registry, progress=lambda _: under_way.set())


def _middle(taken: Sequence[Timed]) -> tuple[float, float, float]:
    """Rate, p50 and p99: the medians of the rounds."""
    halves = median(timed.millisecond(0.5) for timed in taken)
    return median(timed.rate for timed in taken), halves, median(timed.millisecond(0.99) for timed in taken)
