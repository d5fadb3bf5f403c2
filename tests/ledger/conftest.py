"""Places for ledgers, and ledgers that run."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from broker.ledger.postgres import PostgresDatabase
from broker.ledger.store import MemoryStore
from broker.ledger.vault import Vault
from tests.ledger.places import Place, open_sqlite, sign
from tests.servers import VERSIONS, new_ledger, running


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    vault = Vault(tmp_path / "vault")
    yield vault
    vault.close()


class Databases:
    """A server of each version, started when a test first asks for it, and stopped after the last test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._running: dict[str, PostgresDatabase] = {}

    def __getitem__(self, version: str) -> PostgresDatabase:
        if version not in self._running:
            self._running[version] = self._stack.enter_context(running(version))
        return self._running[version]


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    with ExitStack() as stack:
        yield Databases(stack)


@pytest.fixture(params=VERSIONS)
def database(request: pytest.FixtureRequest, databases: Databases) -> PostgresDatabase:
    return databases[request.param]


@pytest.fixture(params=["memory", "sqlite", *VERSIONS])
def place(request: pytest.FixtureRequest, tmp_path: Path, databases: Databases) -> Iterator[Place]:
    """Every store that exists: a new one joins here and must keep the whole contract."""
    if request.param == "memory":
        place = Place(lambda: MemoryStore(sign), durable=False)
    elif request.param == "sqlite":
        place = Place(lambda: open_sqlite(tmp_path / "events.sqlite"), durable=True)
    else:
        place = Place(new_ledger(databases[request.param], sign), durable=True)
    yield place
    place.store.close()


@pytest.fixture
def sqlite_place(tmp_path: Path) -> Iterator[Place]:
    place = Place(lambda: open_sqlite(tmp_path / "events.sqlite"), durable=True)
    yield place
    place.store.close()
