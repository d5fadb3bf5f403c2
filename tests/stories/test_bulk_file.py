"""One file to five authorities goes as it is printed beside it, on a small scale."""

from pathlib import Path

import pytest

from tests.stories.bulk_file import told

HERE = Path(__file__).parent
LINES = 600


@pytest.mark.req("R-049", "R-072", "R-173", "R-177")
def test_one_file_to_five_authorities_goes_as_it_is_printed(tmp_path: Path) -> None:
    printed = (HERE / "bulk_file.txt").read_text(encoding="utf-8")
    assert [*told(tmp_path, LINES, print)] == printed.splitlines()
