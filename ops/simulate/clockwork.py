"""Time, chance and the order of tasks in the hand of one generator; processes that can be killed."""

import random
import secrets
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from hashlib import sha256
from random import Random
from typing import Any, TypeVar

import trio
from trio.testing import MockClock

T = TypeVar("T")
STALL = 0.03  # share of calls on a disk that take their time
SLOW_DISK = 0.05  # seconds that they take on average
ROUNDS, A_WHILE = 1_000_000, 600.0  # calls, and the seconds that so many should take at least
REMEMBERED = 5_000  # lines of the trace that are kept to be shown


class Killed(BaseException):
    """The process that this task belonged to was killed. Nothing may catch it but who runs processes."""


class Violation(Exception):
    """A rule does not hold: which one, and where (ids and codes, nothing personal)."""

    def __init__(self, rule: str, where: str) -> None:
        super().__init__(f"{rule}: {where}")
        self.rule = rule
        self.where = where


class Clockwork:
    """What one run is determined by, and what it leaves: its trace, and how often each thing happened."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)  # noqa: S311 # it has to be repeatable, not secret
        self.faults: Counter[str] = Counter()
        self.calm = False  # once true, no fault is injected any more
        self.last: deque[str] = deque(maxlen=REMEMBERED)
        self._moment, self._calls = 0.0, 0  # how many calls there were since this moment
        self._trace = sha256()

    def note(self, *words: object) -> None:
        """A line of the trace. What it says must follow from the seed alone."""
        line = f"{trio.current_time():.6f} {' '.join(map(str, words))}"
        self._trace.update(line.encode() + b"\n")
        self.last.append(line)

    def fault(self, kind: str, *words: object) -> None:
        """Count an injected fault and trace it."""
        self.faults[kind] += 1
        self.note("fault", kind, *words)

    @property
    def trace(self) -> str:
        return self._trace.hexdigest()

    def chance(self, probability: float) -> bool:
        """Whether something goes wrong now; never once all is calm."""
        return not self.calm and self.rng.random() < probability

    def run(self, main: Callable[[], Awaitable[T]]) -> T:
        """Run trio on virtual time. Nothing else may run trio in this process meanwhile."""
        with self._taking_over():
            return trio.run(main, clock=MockClock(autojump_threshold=0))

    @contextmanager
    def _taking_over(self) -> Iterator[None]:
        # trio's own generator and switch are those that it offers to Hypothesis for the same purpose.
        scheduler = Random(self.rng.getrandbits(64))  # noqa: S311
        shared = random.getstate()  # of the generator behind random.random()
        random.seed(self.rng.getrandbits(64))
        with ExitStack() as stack:
            stack.callback(random.setstate, shared)
            for target, name, value in (
                (trio._core._run, "_r", scheduler),
                (trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
                (trio.to_thread, "run_sync", self._call),
                (secrets, "token_bytes", self.rng.randbytes),
                (secrets, "token_hex", lambda size: self.rng.randbytes(size).hex()),
            ):
                stack.enter_context(replaced(target, name, value))
            yield

    async def _call(self, call: Callable[..., T], *arguments: Any, **_limits: Any) -> T:
        """In the place of a worker thread: other tasks take their turns, then it is done at one stroke."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.rng.random() < STALL:
            with trio.CancelScope(shield=True):
                await trio.sleep(self.rng.expovariate(1 / SLOW_DISK))
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
        process = PROCESS.get()
        if process is not None and process.killed:
            raise Killed
        self._calls += 1
        if self._calls == ROUNDS:
            if trio.current_time() < self._moment + A_WHILE:
                raise Violation("nothing goes round and round", process.name if process is not None else "")
            self._calls, self._moment = 0, trio.current_time()
        return call(*arguments)


@contextmanager
def replaced(target: Any, name: str, value: Any) -> Iterator[None]:
    """Another value for an attribute, for a while."""
    before = getattr(target, name)
    setattr(target, name, value)
    try:
        yield
    finally:
        setattr(target, name, before)


class Process:
    """One start of a party. Its tasks know it by PROCESS, so that what is killed acts no more."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.killed = False
        self.scope = trio.CancelScope()
        self.nursery: trio.Nursery | None = None
        self.door: Callable[[Any], Awaitable[Any]] | None = None

    @asynccontextmanager
    async def serving(self, door: Callable[[Any], Awaitable[Any]]) -> AsyncIterator[trio.Nursery]:
        """Meanwhile it answers requests, in tasks of this nursery."""
        async with trio.open_nursery() as nursery:
            self.door, self.nursery = door, nursery
            try:
                yield nursery
            finally:
                self.door = self.nursery = None

    def kill(self) -> None:
        """End it where it stands. Its tasks run at most to where they next wait."""
        self.killed = True
        self.door = self.nursery = None
        self.scope.cancel()


PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


class Party:
    """Somebody who runs a process: started, killed, started again.

    `body` opens what the process needs, and answers at its door (`Process.serving`) until it is cancelled.
    """

    def __init__(self, clockwork: Clockwork, name: str, body: Callable[[Process], Awaitable[None]]) -> None:
        self._clockwork = clockwork
        self.name = name
        self._body = body
        self.process: Process | None = None
        self.starts = 0
        self.down = trio.Event()
        self.down.set()

    async def run(self) -> bool:
        """One life of the process; whether it was stopped, and not killed. Any other end is a violation."""
        self.down = trio.Event()
        self.starts += 1
        process = self.process = Process(self.name)
        PROCESS.set(process)
        self._clockwork.note(self.name, "starts")
        try:
            with process.scope:
                await self._body(process)
        except* Killed:
            pass
        except* Violation:
            raise
        except* Exception as group:
            if not process.killed:
                raise Violation("no process ends by itself", f"{self.name}: {described(group)}") from group
        finally:
            self.process = None
            self.down.set()
            self._clockwork.note(self.name, "ended")
        return not process.killed

    @property
    def up(self) -> Process | None:
        """The process, if its door is open."""
        process = self.process
        return process if process is not None and process.door is not None else None

    async def kill(self) -> None:
        """Kill the process, if there is one, and wait until all of its tasks have ended."""
        if self.process is not None:
            self.process.kill()
        await self.down.wait()

    async def stop(self) -> None:
        """End it as an operator does: what has begun is finished."""
        if self.process is not None:
            self.process.scope.cancel()
        await self.down.wait()


def described(fault: BaseException) -> str:
    """The first fault of a group by its type and where it was raised; its text may hold what is personal."""
    while isinstance(fault, BaseExceptionGroup):
        fault = fault.exceptions[0]
    trace = fault.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}" if trace is not None else "?"
    return f"{type(fault).__name__} in {where}"
