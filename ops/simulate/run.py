"""One run by its seed: from a furnished world through the days to calm, and what became of it."""

import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time

import structlog
import trio

from ops.simulate.checks import Checks
from ops.simulate.clockwork import Clockwork, Party, Violation
from ops.simulate.disks import Disk
from ops.simulate.lines import Weather
from ops.simulate.workload import Days, Truth, settle_in
from ops.simulate.world import POLL, SKEW, TENDED, Furniture, World, furnish, stretched

PAUSE = 600.0  # seconds that a party is down on average
PROJECTIONS_LOST = 0.2  # share of restarts after which projections begin anew
CALM = POLL + 2 * TENDED


@contextmanager
def place() -> Iterator[Path]:
    """A folder for the files of simulated parties, in memory where the system has a place for that."""
    memory = Path("/dev/shm")  # noqa: S108 # in it a folder of our own is made
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@contextmanager
def _simulated() -> Iterator[None]:
    """What waits is stretched, and nothing is logged: a log would only tell of what was injected."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        with stretched():
            yield
    finally:
        structlog.configure(**before)


@dataclass(frozen=True)
class Report:
    """What came of a seed. Counts are by kind; each of `violations` says time, rule and place."""

    seed: int
    trace: str
    faults: Counter[str]
    outcomes: Counter[str]
    violations: tuple[str, ...]
    seconds: float  # of a processor
    last: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True)
class Start:
    """What all runs of a process start from."""

    folder: Path
    furniture: Furniture
    disks: dict[str, Disk]
    truth: Truth


def prepare(folder: Path, agencies: int) -> Start:
    """Furnish a world; its files, and those of the runs, lie in the folder."""
    clockwork = Clockwork(agencies)
    clockwork.calm = True
    world = World(clockwork, furnish(folder / "keys", agencies), folder / "start", {})
    truth = Truth()

    async def begin() -> None:
        async with trio.open_nursery() as nursery:
            await _open(world, nursery)
            await settle_in(world, truth)
            await trio.sleep(POLL)
            await _close(world)
            nursery.cancel_scope.cancel()

    with _simulated():
        clockwork.run(begin)
    return Start(folder, world.furniture, world.disks, truth)


def run(start: Start, seed: int, days: float) -> Report:
    """Run one seed."""
    began = process_time()
    clockwork = Clockwork(seed)
    folder = start.folder / f"run-{seed}"
    shutil.copytree(start.folder / "start", folder)
    world = World(clockwork, start.furniture, folder, start.disks)
    truth = start.truth.copy()
    outcomes: Counter[str] = Counter()
    violations: list[str] = []

    def said(rule: str, where: str) -> str:
        return f"{clockwork.last[-1].split()[0]} s, {rule}: {where}"

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for name in world.parties:
                world.skews[name] = clockwork.rng.uniform(-SKEW, SKEW)
            await _open(world, nursery)
            await Days(world, truth, days).live()
            await trio.sleep(CALM)
            checks = Checks(world, truth)
            checks.run()
            outcomes.update(checks.outcomes)
            violations.extend(said(*broken) for broken in checks.violations)
            await _close(world)
            nursery.cancel_scope.cancel()

    try:
        with _simulated():
            clockwork.run(main)
    except* Violation as group:
        fault: BaseException = group
        while isinstance(fault, BaseExceptionGroup):
            fault = fault.exceptions[0]
        if isinstance(fault, Violation):
            violations.append(said(fault.rule, fault.where))
    finally:
        shutil.rmtree(folder)
    return Report(
        seed,
        clockwork.trace,
        clockwork.faults,
        outcomes,
        tuple(violations),
        process_time() - began,
        tuple(clockwork.last),
    )


async def _open(world: World, nursery: trio.Nursery) -> None:
    """Lay the lines and start everybody; whoever is killed is started again."""
    world.connect(nursery, Weather())
    for party in world.parties.values():
        nursery.start_soon(_keep_running, world, party)


async def _keep_running(world: World, party: Party) -> None:
    clockwork = world.clockwork
    while True:
        if await party.run():
            return
        await trio.sleep(1.0 if clockwork.calm else clockwork.rng.expovariate(1 / PAUSE))
        if clockwork.chance(PROJECTIONS_LOST):
            clockwork.fault("projections lost", party.name)
            for file in (world.folder / party.name).rglob("projections.sqlite*"):
                file.unlink()
        if clockwork.chance(0.5):
            clockwork.fault("clock set", party.name)
            world.skews[party.name] = clockwork.rng.uniform(-SKEW, SKEW)


async def _close(world: World) -> None:
    for party in world.parties.values():
        await party.stop()
