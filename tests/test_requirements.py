"""What `make requirements` says about requirements that no test shows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.requirements import report, requirements

REASONED = [each for each in requirements() if each.cannot]


def said(*shown: str) -> list[str]:
    """Only what is said about requirements without a test."""
    lines = report(set(shown))
    return lines[lines.index("MUST without a passing test:") + 1 :]


def test_a_must_without_a_test_is_named_in_its_group_with_its_reason_or_as_not_yet() -> None:
    lines = said("R-002", "R-003")
    assert lines[0].startswith("A ")
    assert lines[1] == "  R-001 連携インターフェース機能／中間インターフェース機能: not yet"
    assert lines[2].startswith("  R-004 ")
    for each in REASONED:
        assert f"  {each.id} {each.topic}: {each.cannot}" in lines


def test_when_all_others_are_shown_only_those_with_a_reason_are_left() -> None:
    left = said(*(each.id for each in requirements() if not each.cannot))
    groups = list(dict.fromkeys(each.group for each in REASONED))
    assert [line for line in left if not line.startswith(" ")] == groups
    assert [line.split()[0] for line in left if line.startswith(" ")] == [each.id for each in REASONED]


def test_a_reason_is_one_sentence_about_a_must() -> None:
    assert REASONED
    for each in REASONED:
        assert each.level == "MUST"
        assert each.cannot == each.cannot.strip()
        assert each.cannot.index("。") == len(each.cannot) - 1


def test_what_cannot_be_shown_and_is_shown_is_an_error(tmp_path: Path) -> None:
    id_ = REASONED[0].id
    with pytest.raises(ValueError, match=id_):
        report({id_})
    (tmp_path / "results.json").write_text(json.dumps({id_: ["tests/test_some.py::test_thing"]}))
    command = [sys.executable, "-m", "tests.requirements", str(tmp_path / "results.json")]
    ended = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert ended.returncode == 1
    assert id_ in ended.stderr
    assert not ended.stdout
