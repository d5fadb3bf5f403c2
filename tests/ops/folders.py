"""Folders with whole systems in them: made once in a run of the tests, copied, started and asked."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ops.demo import free_ports

READER = ("--by", "s0001", "--purpose", "inspection")
"""Who reads provision records in the demo's cities, and what for."""
_ADDRESS = re.compile(r'"127\.0\.0\.1:([1-9]\d*)"')


def shared(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], None]) -> Path:
    """A folder that the first worker builds for all of them; nobody may change anything in it."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # otherwise the parent outlives this run
    made, making = base / name, base / f"{name}.making"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            if making.exists():  # of a worker that could not finish it: this one shall see the reason, too
                shutil.rmtree(making)
            making.mkdir(mode=0o700)
            build(making)
            making.rename(made)
    return made


def copied(source: Path, target: Path) -> Path:
    """A copy whose processes listen on ports of their own."""
    shutil.copytree(source, target)
    configurations = sorted(target.glob("*.toml"))
    texts = [file.read_text(encoding="utf-8") for file in configurations]
    old = sorted({port for text in texts for port in _ADDRESS.findall(text)})
    new = dict(zip(old, free_ports(len(old)), strict=True))
    for file, text in zip(configurations, texts, strict=True):
        file.write_text(_ADDRESS.sub(lambda match: f'"127.0.0.1:{new[match[1]]}"', text), encoding="utf-8")
    return target


def renkei(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would and take down what it says."""
    return subprocess.run(
        [sys.executable, "-m", "ops", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        check=False,
        stdin=subprocess.DEVNULL,
    )
