"""A demo before its first step and a finished one, each made once for all tests of this room."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from ops import demo
from tests.house import furnished, house, keys
from tests.ops.folders import copied, renkei, shared

__all__ = ["furnished", "house", "keys"]


@dataclass(frozen=True)
class Finished:
    """What a command said and left: its exit status, both streams, and the folder it worked in."""

    folder: Path
    status: int
    said: str
    complained: str


def _run(base: Path) -> None:
    result = renkei("demo", "--dir", base / "demo")
    outcome = {"status": result.returncode, "said": result.stdout, "complained": result.stderr}
    (base / "outcome.json").write_text(json.dumps(outcome), encoding="utf-8")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Nobody may change anything in its folder, nor open a ledger (SQLite then puts files beside it): who
    wants to, takes `demo_copy`."""
    base = shared(tmp_path_factory, "demo", _run)
    outcome = json.loads((base / "outcome.json").read_text(encoding="utf-8"))
    return Finished(base / "demo", **outcome)


@pytest.fixture
def demo_copy(finished: Finished, tmp_path: Path) -> Path:
    """The finished demo's folder again, for one test alone."""
    assert finished.status == 0, finished.complained
    return copied(finished.folder, tmp_path / "copy")


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates, input and configurations of a demo that has not begun; nobody may change them."""
    return shared(tmp_path_factory, "fresh", demo.prepare)
