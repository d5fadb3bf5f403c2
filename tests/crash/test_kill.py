"""A crash loses no inquiry and answers none twice: SIGKILL at random moments, the ledgers as witnesses."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
import trio

from ops import demo
from ops.cli import main
from tests.crash import orders as ordered
from tests.crash.day import business_day
from tests.crash.evidence import Evidence
from tests.ops.folders import copied, shared
from tests.ops.town import ANSWERER, ASKER, EVERYBODY, NETWORK, Town


def build(folder: Path) -> None:
    """Both cities with their residents, staff, incomes and link codes, everything stopped in good order."""
    demo.prepare(folder)
    ordered.write_input(folder / "input")
    with demo.processes(folder):
        trio.run(demo.wait_ready, folder)
        demo.load_files(folder)
        trio.run(demo.wait_for_codes, folder)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared(tmp_path_factory, "template", build)


@pytest.fixture
def town(template: Path, tmp_path: Path) -> Iterator[Town]:
    town = Town(copied(template, tmp_path / "town"))
    yield town
    town.close()


@pytest.mark.parametrize("seed", range(20))
async def test_no_inquiry_is_lost_and_none_answered_twice(
    seed: int, town: Town, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    rng = Random(seed)  # noqa: S311 - repeatable, not secret
    orders = ordered.orders(rng)
    records = [record for record, _ in orders]
    town.start(*EVERYBODY)
    open_at_the_end = await business_day(town, ordered.cities(), records, rng)
    assert not open_at_the_end, open_at_the_end
    record_property("killed", dict(town.killed))
    assert {NETWORK, ASKER, ANSWERER} <= town.killed.keys()
    assert set(town.stop().values()) == {0}
    assert [file.name for file in (town.folder / "log").glob("*.err") if file.stat().st_size] == []
    Evidence(town.folder).check({r.request_id: (r, e) for r, e in orders}, ordered.cities())
    assert main(["audit", "verify", str(town.folder)]) == 0
    assert main(["replay", str(town.folder), "--into", str(tmp_path / "rebuilt")]) == 0
    shutil.rmtree(tmp_path)  # twenty of them would fill a disk; what failed stays to be looked at
