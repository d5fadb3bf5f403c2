"""A table that ships with the program is read exactly or not at all."""

import sys
from pathlib import Path

import pytest

from schemas import read_table


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "probe_tables"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "probe_tables", raising=False)
    return folder


def test_remarks_are_skipped_and_cells_kept_as_written(package: Path) -> None:
    (package / "t.tsv").write_text('# remark\na\tb\n\n 1 \t"x"\n\t\u2028\n', encoding="utf-8")
    assert read_table("probe_tables", "t.tsv", ("a", "b")) == [
        {"a": " 1 ", "b": '"x"'},
        {"a": "", "b": "\u2028"},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b\ta\n", r"t\.tsv:1: header"),
        ("# r\na\tb\n1\n", r"t\.tsv:3: 1 cells, 2 expected"),
        ("# only remarks\n", "no header"),
    ],
)
def test_a_table_that_does_not_fit_names_file_and_line(package: Path, text: str, message: str) -> None:
    (package / "t.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_table("probe_tables", "t.tsv", ("a", "b"))
