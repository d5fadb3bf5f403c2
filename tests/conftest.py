"""Which requirements have a passing test: collected from the `req` marks while the suite runs.

With the environment variable RENKEI_REQUIREMENTS naming a file, the run writes there, as JSON, the passing
tests by R-number. The marks travel in the reports, so it works with tests spread over processes.
"""

import json
import os
from collections import defaultdict
from pathlib import Path

import pytest

_shown: defaultdict[str, set[str]] = defaultdict(set)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("req"):
            item.user_properties.extend(("req", number) for number in mark.args)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        for name, value in report.user_properties:
            if name == "req":
                _shown[str(value)].add(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    target = os.environ.get("RENKEI_REQUIREMENTS")
    if target and not hasattr(session.config, "workerinput"):
        found = {number: sorted(tests) for number, tests in sorted(_shown.items())}
        Path(target).write_text(json.dumps(found, indent=1), encoding="utf-8")
