"""What the tests run as processes: `python -m tests.ledger.processes WORK FOLDER ARGUMENT...`."""

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import trio

from broker.ledger.events import Recorded
from broker.ledger.ledger import Change, Ledger, StreamMoved, Unit
from broker.ledger.projections import ProjectionTables, Rows
from broker.ledger.vault import Vault
from tests.ledger.places import open_sqlite, opened
from tests.ledger.samples import REGISTRY, Counted, Noted, Seen, clock

ROOT = Path(__file__).parents[2]
WRITERS = 4
SHARED = "shared"


def start(work: str, folder: Path, argument: str) -> subprocess.Popen[str]:
    """Start one, its input and output piped."""
    command = [sys.executable, "-m", "tests.ledger.processes", work, str(folder), argument]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def tell(process: subprocess.Popen[str], lines: str) -> None:
    assert process.stdin is not None
    process.stdin.write(lines)
    process.stdin.flush()


def told(process: subprocess.Popen[str]) -> str:
    """Its next line, without the end of line; empty when it has ended."""
    assert process.stdout is not None
    line = process.stdout.readline()
    return line.removesuffix("\n") if line.endswith("\n") else ""


def events_of(name: str, number: int) -> tuple[Any, ...]:
    """What a process appends under this name as its unit of this number."""
    return (Noted(f"{name} {number}", "秘密"), Counted(number))


async def _append(folder: Path, name: str) -> None:
    """For each line of input, a round: every writer appends one unit, and tells of it once it is stored.

    It tells message id, first and last position. Each unit also extends the one stream that all share.
    """
    with closing(Vault(folder / "vault")) as vault, opened(folder) as store:
        await _append_with(Ledger("test", store, REGISTRY, vault, clock), name)


async def _append_with(ledger: Ledger, name: str) -> None:

    async def write(stream: str, number: int) -> None:
        own = events_of(stream, number)
        while True:
            seen = len(ledger.store.stream(SHARED))
            changes = (Change(stream, number * len(own), own), Change(SHARED, seen, (Counted(1),)))
            try:
                outcome = await ledger.append(Unit(f"{stream}-{number}", changes))
            except StreamMoved:
                continue
            print(f"{stream}-{number}", outcome.first, outcome.last, flush=True)
            return

    async with trio.open_nursery() as nursery:
        await nursery.start(ledger.run)
        print("ready", flush=True)
        number = 0
        while await trio.to_thread.run_sync(sys.stdin.readline):
            async with trio.open_nursery() as writers:
                for writer in range(WRITERS):
                    writers.start_soon(write, f"{name}-{writer}", number)
            number += 1
        nursery.cancel_scope.cancel()


class _Fatal(Seen):
    """Kills its process when it meets a position."""

    def __init__(self, position: int) -> None:
        self._position = position

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        super().apply(rows, recorded)
        if recorded.position == self._position:
            os.kill(os.getpid(), signal.SIGKILL)


def _project(folder: Path, position: int) -> None:
    store = open_sqlite(folder / "events.sqlite")
    tables = ProjectionTables(folder / "projections.sqlite", [_Fatal(position)])
    tables.catch_up(store, REGISTRY)


if __name__ == "__main__":
    work, folder = sys.argv[1], Path(sys.argv[2])
    if work == "append":
        trio.run(_append, folder, sys.argv[3])
    else:
        _project(folder, int(sys.argv[3]))
