"""The figures of one run of `renkei bench linkage`, and what they are held against."""

from dataclasses import asdict, dataclass, field
from typing import Any

from ops.bench.figures import Goal, at_least, at_most
from ops.bench.meter import WRITE

MOST = 64  # inquiries in flight
SIZE = 5  # KB of the answers by which the directions are stated
ALONE, TOGETHER, BULK = "single, one at a time", f"single, {MOST} in flight", "bulk, for one person"
IDLE, BESIDE = "nothing", "a bulk load"
NATION = {"normal": 530.88, "busy": 1061.75, "bulk": 4166.67}
"""Messages of 5 KB a second of all municipalities (traffic model, section 5)."""


@dataclass(frozen=True)
class Single:
    """Complete single inquiries with so many in flight: rate a second, latencies in milliseconds.

    `processor` says how many milliseconds of the processor each process spent on one inquiry.
    """

    size: int
    in_flight: int
    rate: float
    p50: float
    p95: float
    p99: float
    processor: dict[str, float]


@dataclass(frozen=True)
class Bulk:
    """One file about so many persons: answers a second from the order to the last result fetched.

    `ordered`, `answered` and `fetched` are the seconds after which the orders were recorded, nobody was open
    any more, and all results were there. `processor` as in Single, for one person.
    """

    size: int
    persons: int
    rate: float
    ordered: float
    answered: float
    fetched: float
    processor: dict[str, float]


@dataclass(frozen=True)
class Beside:
    """Single inquiries that come at a steady rate while something else goes on; latencies in milliseconds."""

    beside: str
    rate: float
    count: int
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Step:
    """One unavoidable step of one inquiry: how often each process takes it, over how many bytes, and what it
    costs bare: microseconds of the processor, and milliseconds until it is done."""

    load: str
    step: str
    counts: dict[str, float]
    size: float
    processor: float
    milliseconds: float

    @property
    def count(self) -> float:
        return sum(self.counts.values())


@dataclass
class LinkageFigures:
    """Everything that a run found; memory in MB (10**6 bytes).

    `profile` has for each load and process the part of its processor time by room, and `functions` likewise
    by function, the dearest first.
    """

    store: str
    at: str
    persons: int
    seconds: float
    machine: dict[str, str]
    settings: dict[str, str]
    answer_bytes: dict[str, int] = field(default_factory=dict)
    single: list[Single] = field(default_factory=list)
    bulk: list[Bulk] = field(default_factory=list)
    beside: list[Beside] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    profile: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    functions: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)

    def goals(self) -> list[Goal]:
        """The directions, each with what was reached."""
        single = next(s for s in self.single if (s.size, s.in_flight) == (SIZE, MOST))
        bulk = next(b for b in self.bulk if b.size == SIZE)
        return [
            at_least(f"single inquiries a second, {SIZE} KB, {MOST} in flight", single.rate, 300),
            at_most(f"their p99, ms, {MOST} in flight", single.p99, 500),
            at_least(f"bulk answers a second, {SIZE} KB", bulk.rate, 4_167),
        ]

    def floor(self, load: str) -> tuple[float, float]:
        """What one inquiry costs at least: milliseconds of the processor, and of waiting for the disk."""
        steps = [step for step in self.steps if step.load == load]
        processor = sum(step.count * step.processor for step in steps) / 1e3
        return processor, sum(step.count * step.milliseconds for step in steps if step.step == WRITE)

    def spent(self, load: str) -> float:
        """What one inquiry of this load did cost: milliseconds of the processor, of all daemons."""
        if load == BULK:
            found = next(b.processor for b in self.bulk if b.size == SIZE)
        else:
            wanted = (SIZE, 1 if load == ALONE else MOST)
            found = next(s.processor for s in self.single if (s.size, s.in_flight) == wanted)
        return sum(milliseconds for name, milliseconds in found.items() if name != "bench")

    def json(self) -> dict[str, Any]:
        """Everything, with the goals, as plain values."""
        return asdict(self) | {"goals": [asdict(goal) for goal in self.goals()]}

    @classmethod
    def read(cls, values: dict[str, Any]) -> "LinkageFigures":
        """What `json` made."""
        kinds = {"single": Single, "bulk": Bulk, "beside": Beside, "steps": Step}
        plain = {name: value for name, value in values.items() if name != "goals"}
        return cls(**plain | {n: [kind(**row) for row in values[n]] for n, kind in kinds.items()})
