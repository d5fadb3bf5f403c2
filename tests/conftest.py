"""Notes which requirements the passing tests show: `@pytest.mark.req("R-052")`.

With RENKEI_REQUIREMENTS=path a run writes {"R-052": ["tests/...::test_..."], ...} there at its end. The
marks travel with the test reports, so that the workers of pytest-xdist need not know about each other.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

from tests.requirements import requirements
from tests.servers import Databases

# How long an example takes depends on what else the machine does; no test here is about that.
settings.register_profile("renkei", deadline=None)
settings.load_profile("renkei")


class Results:
    """What the reports of one run say. A test has passed when its call passed and no phase of it failed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._marked: dict[str, list[str]] = {}
        self._passed: set[str] = set()
        self._failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        ids = [str(value) for name, value in report.user_properties if name == "req"]
        if not ids:
            return
        self._marked[report.nodeid] = ids
        if report.failed:
            self._failed.add(report.nodeid)
        elif report.when == "call" and report.passed and not hasattr(report, "wasxfail"):
            self._passed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        shown: dict[str, list[str]] = {}
        for test in sorted(self._passed - self._failed):
            for id_ in self._marked[test]:
                shown.setdefault(id_, []).append(test)
        self._path.write_text(json.dumps(dict(sorted(shown.items())), indent=1) + "\n", encoding="utf-8")


def pytest_configure(config: pytest.Config) -> None:
    path = os.environ.get("RENKEI_REQUIREMENTS")
    if path and not hasattr(config, "workerinput"):  # a worker reports to the process that started it
        config.pluginmanager.register(Results(Path(path)), "renkei-requirements")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    known = {each.id for each in requirements()}
    for item in items:
        for mark in item.iter_markers("req"):
            for id_ in mark.args:
                if id_ not in known:
                    raise pytest.UsageError(f"{item.nodeid}: there is no requirement {id_}")
                if ("req", id_) not in item.user_properties:
                    item.user_properties.append(("req", id_))


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    with ExitStack() as stack:
        yield Databases(stack)
