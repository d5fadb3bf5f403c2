"""The house has floors: an import points down or stays in its own room. This test reads every import.

`violations` judges one file by its path and text, so that it can be shown sources that break each rule.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("schemas", "broker", "adapters", "ops")  # from the ground up

# fmt: off
WIRE = (
    "aiohttp", "asyncio", "ftplib", "h11", "h2", "http", "httpcore", "httpx", "hypercorn", "imaplib",
    "requests", "select", "selectors", "smtplib", "socket", "socketserver", "ssl", "starlette",
    "urllib.request", "urllib3", "uvicorn", "wsproto", "xmlrpc",
)
TRIO_WIRE = (
    "trio.socket", "trio.SSLListener", "trio.SSLStream", "trio.SocketListener", "trio.SocketStream",
    "trio.open_ssl_over_tcp_listeners", "trio.open_ssl_over_tcp_stream", "trio.open_tcp_listeners",
    "trio.open_tcp_stream", "trio.open_unix_socket", "trio.serve_listeners", "trio.serve_ssl_over_tcp",
    "trio.serve_tcp",
)
# fmt: on
STRANGERS = {"broker/linkage/": "broker.intermediate", "broker/intermediate/": "broker.linkage"}
DECIDING = ("broker/intermediate/", "broker/linkage/", "broker/addressing/")
CHANCE = ("random", "secrets", "time")
MORE_CHANCE = ("os.urandom", "uuid.uuid1", "uuid.uuid4")
CLOCKS = (
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
    "datetime.date.today",
)


def violations(path: str, source: str) -> list[str]:
    """One plain sentence for each import (or clock read) in `source` that the rules do not allow.

    `path` is relative to the root of the project, with slashes.
    """
    tree = ast.parse(source)
    floor = path.split("/")[0]
    pure = path.startswith(DECIDING) or decides(path, tree)
    found: list[str] = []

    def say(line: int, what: str, why: str) -> None:
        found.append(f"{path} line {line} imports {what}: {why}.")

    for line, target in imports(path, tree):
        top = target.split(".")[0]
        if top in FLOORS and FLOORS.index(top) > FLOORS.index(floor):
            say(line, target, f"{top} stands above {floor}, and an import points down or stays on its floor")
        if floor in ("schemas", "broker") and any(within(target, name) for name in WIRE + TRIO_WIRE):
            say(line, target, f"{floor} opens no sockets and speaks no HTTP or TLS; adapters do")
        for room, stranger in STRANGERS.items():
            if path.startswith(room) and within(target, stranger):
                say(line, target, "linkage and intermediate know each other by messages only")
        if path.startswith("broker/ledger/"):
            if top == "broker" and not within(target, "broker.ledger"):
                say(line, target, "the ledger is the ground floor of the broker and knows no other room")
            if top == "schemas" and not within(target, "schemas.errors"):
                say(line, target, "the ledger knows no domain word; of schemas it may use errors alone")
        if pure and any(within(target, name) for name in CHANCE):
            say(line, target, "a decision takes time and random numbers as arguments")

    for line, name in uses(tree):
        if pure and name in CLOCKS:
            found.append(f"{path} line {line} uses {name}: a decision takes the time as an argument.")
        if name in MORE_CHANCE and decides(path, tree):
            found.append(f"{path} line {line} uses {name}: a decision takes random numbers as arguments.")
        if floor in ("schemas", "broker") and any(within(name, wire) for wire in TRIO_WIRE):
            found.append(f"{path} line {line} uses {name}: {floor} opens no sockets; adapters do.")
    return found


def decides(path: str, tree: ast.AST) -> bool:
    """Whether the file holds decisions of the broker; its ledger only carries them out."""
    return (
        path.startswith("broker/")
        and not path.startswith("broker/ledger/")
        and any(
            isinstance(node, ast.FunctionDef) and node.name.startswith(("decide", "evolve"))
            for node in ast.walk(tree)
        )
    )


def within(target: str, name: str) -> bool:
    return target == name or target.startswith(name + ".")


def imports(path: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of everything imported; `from a import b` gives a.b."""
    package = path.removesuffix(".py").split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{origin}.{alias.name}"


def uses(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every dotted name whose first part was imported, under any alias."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                known[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    heads: set[ast.expr] = set()  # the a.b of an a.b.c already told; walking goes from the outside in
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            heads.add(node.value)
        if not isinstance(node, ast.Attribute | ast.Name) or node in heads:
            continue
        parts: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name) and inner.id in known:
            yield node.lineno, ".".join([known[inner.id], *reversed(parts)])


def test_every_import_points_down_or_stays_in_its_room() -> None:
    files = [file for floor in FLOORS for file in sorted((ROOT / floor).rglob("*.py"))]
    assert {file.relative_to(ROOT).parts[0] for file in files} == set(FLOORS), "a floor is missing"
    found = [
        sentence
        for file in files
        for sentence in violations(file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8"))
    ]
    assert not found, "\n" + "\n".join(found)


UP = "stands above"
WIRED = "no sockets"
MESSAGES = "by messages only"
GROUND = "knows no other room"
WORDLESS = "no domain word"
ARGUMENT = "argument"

FORBIDDEN = [
    ("schemas/law/__init__.py", "import broker", UP),
    ("schemas/law/__init__.py", "from broker.ledger import codec", UP),
    ("broker/linkage/seal.py", "import adapters.http", UP),
    ("broker/linkage/seal.py", "def late():\n    from adapters import http", UP),
    ("broker/linkage/seal.py", "if TYPE_CHECKING:\n    from ops.cli import main", UP),
    ("adapters/http.py", "import ops.certificates as keys", UP),
    ("broker/linkage/seal.py", "import h11", WIRED),
    ("broker/linkage/seal.py", "from http.client import HTTPSConnection", WIRED),
    ("broker/ledger/store.py", "import urllib.request", WIRED),
    ("broker/ledger/store.py", "import socket as s", WIRED),
    ("broker/ledger/store.py", "from trio import socket", WIRED),
    ("broker/ledger/store.py", "import trio\ntrio.open_tcp_stream('a', 1)", WIRED),
    ("schemas/items/__init__.py", "from starlette.requests import Request", WIRED),
    ("schemas/items/__init__.py", "import csv, ssl", WIRED),
    ("schemas/items/__init__.py", "import hypercorn.trio", WIRED),
    ("schemas/items/__init__.py", "import httpx", WIRED),
    ("broker/linkage/check.py", "import broker.intermediate.inquiry", MESSAGES),
    ("broker/linkage/check.py", "from broker import intermediate", MESSAGES),
    ("broker/linkage/check.py", "from ..intermediate import inquiry", MESSAGES),
    ("broker/linkage/__init__.py", "from ..intermediate.inquiry import decide", MESSAGES),
    ("broker/intermediate/inquiry.py", "from .. import linkage", MESSAGES),
    ("broker/intermediate/inquiry.py", "from broker.linkage.seal import open", MESSAGES),
    ("broker/ledger/store.py", "import broker.addressing", GROUND),
    ("broker/ledger/store.py", "from .. import applications", GROUND),
    ("broker/ledger/store.py", "import schemas", WORDLESS),
    ("broker/ledger/store.py", "from schemas import errors, law", WORDLESS),
    ("broker/ledger/store.py", "from schemas.items import layout", WORDLESS),
    ("broker/ledger/store.py", "from schemas import *", WORDLESS),
    ("broker/intermediate/inquiry.py", "import random", ARGUMENT),
    ("broker/linkage/check.py", "from secrets import token_bytes", ARGUMENT),
    ("broker/addressing/numbers.py", "from time import monotonic", ARGUMENT),
    ("broker/addressing/numbers.py", "import datetime\ndatetime.datetime.now()", ARGUMENT),
    ("broker/linkage/check.py", "from datetime import datetime as dt\nclock = dt.utcnow", ARGUMENT),
    ("broker/intermediate/inquiry.py", "import datetime as d\ndef f(now=d.date.today):\n    ...", ARGUMENT),
    ("broker/applications/review.py", "import random\ndef decide_review(): ...", ARGUMENT),
    ("broker/applications/review.py", "import uuid\ndef decide():\n    return uuid.uuid4()", ARGUMENT),
    (
        "broker/applications/review.py",
        "from os import urandom\ndef evolve():\n    return urandom(1)",
        ARGUMENT,
    ),
    (
        "broker/applications/review.py",
        "from datetime import datetime\ndef decide(): datetime.now()",
        ARGUMENT,
    ),
]


@pytest.mark.parametrize(("path", "source", "why"), FORBIDDEN)
def test_a_forbidden_import_is_found_and_explained_with_its_line(path: str, source: str, why: str) -> None:
    (sentence,) = violations(path, "from typing import TYPE_CHECKING\n" + source)
    assert sentence.startswith(f"{path} line ")
    line = int(sentence.split(" line ")[1].split()[0])
    assert 2 <= line <= 1 + len(source.splitlines())
    assert why in sentence


ALLOWED = [
    ("ops/cli.py", "import adapters.http, broker.ledger, schemas.law, ssl, time"),
    ("adapters/network/relay.py", "import h11\nfrom broker.linkage import check\nfrom adapters import http"),
    (
        "broker/linkage/seal.py",
        "from . import check\nfrom ..ledger import store\nfrom schemas.law import LawTable",
    ),
    ("broker/linkage/seal.py", "import urllib.parse, trio, brokerage\ntrio.Lock()"),
    (
        "broker/ledger/store.py",
        "from schemas.errors import Refused\nfrom schemas import errors\nfrom . import codec",
    ),
    ("broker/ledger/store.py", "import time, secrets\nfrom datetime import datetime\ndatetime.now()"),
    (
        "broker/intermediate/inquiry.py",
        "from datetime import datetime\ndef decide(now: datetime): now.date()",
    ),
    ("broker/ledger/projections.py", "import time\ndef evolve(): ..."),
    ("broker/linkage/seal.py", "import os\ndef seal():\n    return os.urandom(12)"),
    ("broker/intermediate/inquiry.py", "class Clock: ...\nrandom = Clock()\nrandom.now()"),
]


@pytest.mark.parametrize(("path", "source"), ALLOWED)
def test_an_allowed_import_passes(path: str, source: str) -> None:
    assert violations(path, source) == []
