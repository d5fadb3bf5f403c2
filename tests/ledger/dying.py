"""A process that kills itself at a step: `python -m tests.ledger.dying WORK FOLDER STEP before|after COUNT`.

STEP is the beginning of an SQL statement of the vault, or module:Class.method. COUNT says which time it is.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import trio

from broker.ledger.vault import Vault

ROOT = Path(__file__).parents[2]
KEY, RULE = "sample/2026-11", "施行令第30条"
REQUEST, FIRST, SECOND = "0badcafe", "operator-a", "operator-b"


def died(work: str, folder: Path, step: str, when: str, number: int = 1) -> bool:
    """Run the work in a process of its own: whether it was killed, or came to its end."""
    command = [sys.executable, "-m", "tests.ledger.dying", work, str(folder), step, when, str(number)]
    ended = subprocess.run(command, cwd=ROOT, check=False).returncode
    assert ended in (0, -signal.SIGKILL), ended
    return ended != 0


class _Rows:
    """A connection that is the death of its process at one statement."""

    def __init__(self, rows: Any, execute: Callable[..., Any]) -> None:
        self._rows = rows
        self.execute = execute

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rows, name)


def _deadly(call: Callable[..., Any], when: str, number: int, meant: Callable[..., bool]) -> Any:
    times = count(1)

    def replaced(*arguments: Any) -> Any:
        if not meant(*arguments) or next(times) != number:
            return call(*arguments)
        if when == "after":
            call(*arguments)
        return os.kill(os.getpid(), signal.SIGKILL)

    return replaced


def _prepare(vault: Vault, step: str, when: str, number: int) -> None:
    if ":" in step:
        die_at(step, when, number)
    else:
        execute = _deadly(vault._rows.execute, when, number, lambda sql, *_: sql.startswith(step))
        vault._rows = _Rows(vault._rows, execute)  # type: ignore[assignment] # stands for a connection


def die_at(step: str, when: str, number: int) -> None:
    """Kill this process before or after this call of a function, module:Class.method."""
    module, _, path = step.partition(":")
    owner: Any = import_module(module)
    *names, last = path.split(".")
    for name in names:
        owner = getattr(owner, name)
    setattr(owner, last, _deadly(getattr(owner, last), when, number, lambda *_: True))


def _rotate(folder: Path, *death: Any) -> None:
    with closing(Vault(folder)) as vault:
        _prepare(vault, *death)
        vault.rotate()


def _destroy(work: str, folder: Path, *death: Any) -> None:
    from broker.ledger import erasure
    from tests.ledger.samples import clock
    from tests.ledger.test_erasure import open_folder, running

    async def carry_out() -> None:
        with closing(open_folder(folder)) as opened:
            async with running(opened) as ledger:
                _prepare(opened.vault, *death)
                if work == "ask":
                    await erasure.ask(ledger, KEY, RULE, FIRST, REQUEST)
                else:
                    await erasure.confirm(ledger, KEY, REQUEST, SECOND, clock)

    trio.run(carry_out)


if __name__ == "__main__":
    work, folder, step, when, number = sys.argv[1:]
    if work == "rotate":
        _rotate(Path(folder), step, when, int(number))
    else:
        _destroy(work, Path(folder), step, when, int(number))
