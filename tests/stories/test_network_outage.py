"""The network that dies in the middle of a bulk run: it goes as it is printed beside it, on a small scale."""

from pathlib import Path

import pytest

from tests.stories.network_outage import AFTER, BEFORE, told
from tests.stories.six_cities import PROVIDERS, Plan

HERE = Path(__file__).parent
SMALL = Plan(300, PROVIDERS[:2])


@pytest.mark.req("R-074", "R-075", "R-201")
@pytest.mark.parametrize("back", [BEFORE, AFTER])
def test_agencies_go_on_fail_closed_and_catch_up_by_themselves(back: str, tmp_path: Path) -> None:
    printed = (HERE / f"network_outage_{back}.txt").read_text(encoding="utf-8")
    assert [*told(tmp_path, SMALL, back, print)] == printed.splitlines()
