"""The floors of the house: imports are read from the source; each that points up is named with the reason."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("schemas", "broker", "adapters", "ops")
LINES = {"h11", "hypercorn", "starlette", "socket", "ssl", "httpx", "http", "asyncio"}
IMPURE = {"random", "secrets", "time"}
SEALED_OFF = {
    "broker/linkage": ("broker.intermediate", "they exchange messages and know nothing of each other"),
    "broker/intermediate": ("broker.linkage", "they exchange messages and know nothing of each other"),
}


def imports(source: str) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, also inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.lineno, node.module or ""
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def faults(path: str, source: str) -> Iterator[str]:
    """What is wrong with the imports of one file (path relative to the root, with slashes)."""
    floor = FLOORS.index(path.split("/")[0])
    room = "/".join(path.split("/")[:2])
    for line, module in imports(source):
        top = module.split(".")[0]
        where = f"{path}:{line} imports {module}: "
        if top in FLOORS and FLOORS.index(top) > floor:
            yield where + f"{top} is a floor above {FLOORS[floor]}"
        if floor < 2 and top in LINES:
            yield where + "broker and schemas know no sockets and no HTTP"
        if room == "broker/ledger" and top in FLOORS and not module.startswith("broker.ledger"):
            yield where + "the ledger knows no domain word"
        if room in SEALED_OFF and module.startswith(SEALED_OFF[room][0]):
            yield where + SEALED_OFF[room][1]
        if path.startswith("broker/") and room != "broker/ledger" and top in IMPURE:
            yield where + "clock and randomness come in as arguments"
    if path.startswith("broker/") and room != "broker/ledger":
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Attribute) and node.attr in ("now", "utcnow", "today"):
                yield f"{path}:{node.lineno} reads a clock: the time comes in as an argument"


def test_no_import_points_up() -> None:
    files = [file for floor in FLOORS for file in (ROOT / floor).rglob("*.py")]
    assert len(files) > 50
    found = [
        fault
        for file in files
        for fault in faults(file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source", "reason"),
    [
        ("schemas/codes/__init__.py", "import broker.ledger", "floor above"),
        ("broker/linkage/x.py", "from adapters.http import Client", "floor above"),
        ("adapters/http.py", "def f():\n    from ops import cli", "floor above"),
        ("broker/ledger/x.py", "import socket", "no sockets"),
        ("broker/ledger/x.py", "from schemas.errors import Refusal", "no domain word"),
        ("broker/ledger/x.py", "from broker import linkage", "no domain word"),
        ("broker/linkage/x.py", "from broker.intermediate import hold", "exchange messages"),
        ("broker/intermediate/x.py", "from broker import linkage", "exchange messages"),
        ("broker/intermediate/x.py", "import secrets", "as arguments"),
        ("broker/linkage/x.py", "from datetime import datetime\ndatetime.now()", "reads a clock"),
    ],
)
def test_the_reader_of_imports_finds_each_fault(path: str, source: str, reason: str) -> None:
    assert any(reason in fault for fault in faults(path, source))


def test_what_the_plan_allows_is_no_fault() -> None:
    source = "from broker.ledger.events import event\nfrom schemas.errors import Refusal\nimport trio"
    assert list(faults("broker/intermediate/x.py", source)) == []
