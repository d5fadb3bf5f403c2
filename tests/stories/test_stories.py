"""The stories go as they are printed beside them."""

from pathlib import Path

import pytest

from tests.stories import life_of_a_code, protected_person

HERE = Path(__file__).parent


@pytest.mark.req("R-095", "R-102", "R-106", "R-108", "R-147", "R-153", "R-154")
async def test_the_story_of_a_protected_person_goes_as_it_is_printed() -> None:
    printed = (HERE / "protected_person.txt").read_text(encoding="utf-8")
    assert await protected_person.lines() == printed.splitlines()


@pytest.mark.req("R-109", "R-112", "R-114", "R-116", "R-117", "R-118", "R-119", "R-120")
async def test_the_life_of_a_link_code_goes_as_it_is_printed() -> None:
    printed = (HERE / "life_of_a_code.txt").read_text(encoding="utf-8")
    assert await life_of_a_code.lines() == printed.splitlines()
