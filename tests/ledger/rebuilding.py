"""A process that rebuilds and dies, or runs out of room: `python -m tests.ledger.rebuilding FOLDER STEP`."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from broker.ledger.generations import Generations
from broker.ledger.projections import ProjectionTables, rebuild
from tests.ledger.places import open_sqlite
from tests.ledger.samples import REGISTRY, Seen, Totals

ROOT = Path(__file__).parents[2]
FULL = 3
# The steps, as what is called last: the process dies before it is done or after.
STEPS: dict[str, tuple[Any, str]] = {
    "copy": (ProjectionTables, "copy_to"),
    "follow": (ProjectionTables, "catch_up"),
    "close": (ProjectionTables, "close"),
    "switch": (Generations, "switch"),
    "link": (Path, "symlink_to"),
    "replace": (Path, "replace"),
    "remove": (Path, "unlink"),
}


def outcome(folder: Path, step: str) -> int:
    """Run it; its exit status."""
    command = [sys.executable, "-m", "tests.ledger.rebuilding", str(folder), step]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def _deadly(call: Callable[..., Any], when: str) -> Callable[..., Any]:
    def replaced(*arguments: Any, **named: Any) -> Any:
        if when == "after":
            call(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    return replaced


def _rebuild(folder: Path, step: str) -> None:
    store = open_sqlite(folder / "events.sqlite")
    if step == "full":
        # No file may grow beyond this; SQLite is told, as it is of a full disk, when it writes.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    else:
        name, _, when = step.partition(" ")
        owner, method = STEPS[name]
        setattr(owner, method, _deadly(getattr(owner, method), when))
    try:
        rebuild(folder / "projections.sqlite", [Totals(), Seen()], store, REGISTRY)
    except sqlite3.OperationalError:
        sys.exit(FULL)


if __name__ == "__main__":
    _rebuild(Path(sys.argv[1]), sys.argv[2])
