"""Places for ledgers, and ledgers that run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.ledger.store import MemoryStore
from broker.ledger.vault import Vault
from tests.ledger.places import Place, open_sqlite, sign


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    vault = Vault(tmp_path / "vault")
    yield vault
    vault.close()


@pytest.fixture(params=["memory", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Every store that exists: a new one joins here and must keep the whole contract."""
    if request.param == "memory":
        place = Place(lambda: MemoryStore(sign), durable=False)
    else:
        place = Place(lambda: open_sqlite(tmp_path / "events.sqlite"), durable=True)
    yield place
    place.store.close()


@pytest.fixture
def sqlite_place(tmp_path: Path) -> Iterator[Place]:
    place = Place(lambda: open_sqlite(tmp_path / "events.sqlite"), durable=True)
    yield place
    place.store.close()
