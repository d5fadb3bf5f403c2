"""The stories go as they are printed beside them."""

from pathlib import Path

import pytest

from tests.stories import protected_person

HERE = Path(__file__).parent


@pytest.mark.req("R-095", "R-102", "R-106", "R-108", "R-147", "R-153", "R-154")
async def test_the_story_of_a_protected_person_goes_as_it_is_printed() -> None:
    printed = (HERE / "protected_person.txt").read_text(encoding="utf-8")
    assert await protected_person.lines() == printed.splitlines()
