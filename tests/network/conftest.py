"""The house in which these tests run, and one whose parties talk over real lines."""

from collections.abc import AsyncIterator
from pathlib import Path
from shutil import copytree

import pytest

from tests.house import House, Keys, furnished, house, keys, open_house

__all__ = ["furnished", "house", "keys", "wired"]


@pytest.fixture
async def wired(tmp_path: Path, keys: Keys, furnished: Path) -> AsyncIterator[House]:
    """A furnished house in which network and registry listen on sockets, with mutual TLS."""
    copytree(furnished, tmp_path / "house")
    async with open_house(tmp_path / "house", keys, opening=2, sockets=True) as house:
        for town in house.towns.values():
            await town.look_around()
        yield house
