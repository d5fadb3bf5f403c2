"""The processes of one folder, started, killed, stopped and asked by tests."""

import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen
from typing import Any

from adapters.business.client import BusinessClient
from adapters.http import Unreachable
from ops.business import at_door, client
from ops.config import AgencyConfig, read
from ops.demo import ANSWERING, ASKING, start

NETWORK, REGISTRY, ASKER, ANSWERER = "network", "registry", ASKING[0], ANSWERING[0]
EVERYBODY = (NETWORK, REGISTRY, ASKER, ANSWERER)
PATIENCE = 120.0


class Town:
    """A folder with configurations, and the processes that run on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.killed: Counter[str] = Counter()
        self._processes: dict[str, Popen[bytes]] = {}
        self._said: dict[str, int] = {}

    def start(self, *names: str) -> None:
        for name in names:
            command = name if name in (NETWORK, REGISTRY) else "serve"
            self._said[name] = self._ready_count(name)
            self._processes[name] = start(command, self.config(name))

    def _ready_count(self, name: str) -> int:
        log = self.folder / "log" / f"{name}.log"
        return log.read_text(encoding="utf-8").count('"event": "ready"') if log.exists() else 0

    def _begun(self, name: str) -> None:
        """Wait until a daemon says that it is ready: before that, SIGTERM ends it as any process."""
        with_patience = time.monotonic() + PATIENCE
        while self._ready_count(name) == self._said[name]:
            assert time.monotonic() < with_patience, self.last_words()
            time.sleep(0.05)

    def config(self, name: str) -> Path:
        return self.folder / f"{name}.toml"

    def kill(self, name: str) -> None:
        """SIGKILL: no handler runs, nothing is flushed, no connection is closed in order."""
        process = self._processes.pop(name)
        if (status := process.poll()) is not None:
            raise AssertionError(f"{name} ended by itself with {status}\n{self.last_words()}")
        process.kill()
        process.wait()
        self.killed[name] += 1

    def stop(self) -> dict[str, int]:
        """SIGTERM; the exit status of each. The agencies first: then the network has nobody to wait for."""
        statuses = {}
        agencies = [name for name in self._processes if name not in (NETWORK, REGISTRY)]
        for group in (agencies, (NETWORK, REGISTRY)):
            processes = [(name, self._processes.pop(name)) for name in group if name in self._processes]
            for name, process in processes:
                self._begun(name)
                process.send_signal(signal.SIGTERM)
            for name, process in processes:
                statuses[name] = process.wait(PATIENCE)
        return statuses

    def close(self) -> None:
        """Leave no process behind, whatever happened."""
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()

    def door(self, code: str) -> BusinessClient:
        return client(read(AgencyConfig, self.config(code)))

    def until(self, code: str, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The status of an agency once it is as wanted. Fails when it does not become so."""
        deadline = time.monotonic() + PATIENCE
        status: dict[str, Any] = {}
        while time.monotonic() < deadline:
            try:
                status = at_door(read(AgencyConfig, self.config(code)), lambda door: door.status())
            except Unreachable:
                status = {}
            if status and done(status):
                return status
            time.sleep(0.05)
        raise AssertionError(f"{code} is {status or 'not reachable'}\n{self.last_words()}")

    def ready(self, *codes: str) -> None:
        """Wait until these agencies answer at their doors."""
        for code in codes:
            self.until(code, lambda status: True)

    def last_words(self, lines: int = 12) -> str:
        """The tails of all logs, for a test that failed."""
        return "\n".join(
            f"-- {file.name}\n" + "\n".join(file.read_text(encoding="utf-8").splitlines()[-lines:])
            for file in sorted((self.folder / "log").iterdir())
        )
