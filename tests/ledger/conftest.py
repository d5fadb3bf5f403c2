"""Places for ledgers, and ledgers that run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.ledger.postgres import PostgresDatabase
from broker.ledger.store import MemoryStore
from broker.ledger.vault import Vault
from tests.ledger.places import Place, open_sqlite, sign
from tests.servers import VERSIONS, Databases, new_ledger


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    vault = Vault(tmp_path / "vault")
    yield vault
    vault.close()


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
