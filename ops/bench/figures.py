"""The figures of one run, and what they are held against."""

import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

MOST_WRITERS = 64
IDLE, SEALING, REBUILDING = "nothing", "sealing a checkpoint", "rebuilding a projection"
SELECT, FOLLOW, REBUILD = "bare streamed SELECT", "follower, batch by batch", "projection rebuild"
SAVE, INSERT = "Application.save", "recorder.insert_events"


@dataclass(frozen=True)
class Append:
    """Durable appends, sealing and log included; latencies in milliseconds, rates in events a second.

    `floor` is the rate of bare writing with as many rows in a transaction as the mean batch here, and
    `of_floor` the median of the ratios of the rounds.
    """

    writers: int
    unit_events: int
    rate: float
    p50: float
    p99: float
    mean_batch: float
    floor: float
    of_floor: float


@dataclass(frozen=True)
class Stock:
    """The stock library with so many threads, one event a call."""

    call: str
    writers: int
    rate: float
    p50: float
    p99: float


@dataclass(frozen=True)
class Beside:
    """Appends while something else goes on in the same process; `load` says how they come."""

    load: str
    beside: str
    rate: float
    p50: float
    p99: float


@dataclass(frozen=True)
class Growth:
    """Appends to a ledger that already holds so many events."""

    size: int
    writers: int
    rate: float
    p50: float
    p99: float


@dataclass(frozen=True)
class Goal:
    """One line of the numbers to reach."""

    measure: str
    bound: str
    value: float
    reached: bool


@dataclass
class Figures:
    """Everything that a run found; rates in events a second, memory in MB (10**6 bytes)."""

    store: str
    at: str
    size: int
    seconds: float
    machine: dict[str, str]
    settings: dict[str, str]
    state_bytes: float = 0.0
    stock_state_bytes: float = 0.0
    append: list[Append] = field(default_factory=list)
    stock: list[Stock] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)
    beside: list[Beside] = field(default_factory=list)
    reading: dict[str, float] = field(default_factory=dict)
    fill: float = 0.0
    replay_memory: float = 0.0

    def goals(self) -> list[Goal]:
        """The numbers to reach, each with what was reached. Two of them are asked of PostgreSQL alone."""
        ours = next(a for a in self.append if (a.writers, a.unit_events) == (MOST_WRITERS, 1))
        stock = next(s for s in self.stock if (s.call, s.writers) == (SAVE, MOST_WRITERS))
        goals = [at_least("append, 64 writers, against bare writing", ours.of_floor, 0.5)]
        if self.store != "sqlite":
            goals.append(at_least("append, 64 writers, against Application.save", ours.rate / stock.rate, 10))
        goals.append(at_least("replay into projections, events a second", self.reading[REBUILD], 50_000))
        for load in dict.fromkeys(b.load for b in self.beside):
            p99 = {b.beside: b.p99 for b in self.beside if b.load == load}
            for work in (SEALING, REBUILDING):
                goals.append(at_most(f"append p99 while {work}, {load}", p99[work] / p99[IDLE], 1.2))
        for writers in dict.fromkeys(g.writers for g in self.growth):
            cost = {g.size: 1 / g.rate for g in self.growth if g.writers == writers}
            small, large = min(cost), max(cost)
            goals.append(
                at_most(
                    f"append at {large:,} events against {small:,}, writers: {writers}",
                    cost[large] / cost[small],
                    1.15,
                )
            )
        goals.append(at_most(f"memory of a replay of {self.size:,} events, MB", self.replay_memory, 200))
        return goals

    def json(self) -> dict[str, Any]:
        """Everything, with the goals, as plain values."""
        return asdict(self) | {"goals": [asdict(goal) for goal in self.goals()]}

    @classmethod
    def read(cls, values: dict[str, Any]) -> "Figures":
        """What `json` made."""
        kinds = {"append": Append, "stock": Stock, "growth": Growth, "beside": Beside}
        plain = {name: value for name, value in values.items() if name != "goals"}
        return cls(**plain | {n: [kind(**row) for row in values[n]] for n, kind in kinds.items()})


def at_least(measure: str, value: float, bound: float) -> Goal:
    return Goal(measure, f"≥ {bound:,}", value, value >= bound)


def at_most(measure: str, value: float, bound: float) -> Goal:
    return Goal(measure, f"≤ {bound:,}", value, value <= bound)


def machine(file_system: str) -> dict[str, str]:
    """What the figures were measured on."""
    return {
        "CPU": _line("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": _line("/proc/meminfo", "MemTotal"),
        "file system": file_system,
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
    }


def _line(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")
