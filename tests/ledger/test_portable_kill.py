"""An export and an import that are killed go on where they were, to the same file and the same ledger.

As a process: `python -m tests.ledger.test_portable_kill WORK FILE STORE MOMENT`.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from secrets import token_hex

import pytest

from broker.ledger import portable
from broker.ledger.postgres import PostgresDatabase
from broker.ledger.store import Commit, Store
from broker.ledger.verify import verify, verify_file
from tests.ledger.places import AT, SIGNER, open_sqlite, sign
from tests.ledger.test_portable import cosign, everything, unit
from tests.servers import VERSIONS, Databases

KEY = SIGNER.verifier_key
COMMITS = 40
EACH = 100  # events in a commit
TOGETHER = 1_000  # events in a transaction of the import


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Fatal(list[Commit]):
    """Commits of which the last is never given: the transaction that they are put in is open then."""

    def __iter__(self) -> Iterator[Commit]:
        yield from self[:-1]
        _die()


class _Dying:
    """A store that does not survive its second transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._puts = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def put(self, commits: Sequence[Commit]) -> None:
        self._puts += 1
        self._store.put(_Fatal(commits) if self._puts == 2 else commits)


@contextmanager
def _opened(store: str) -> Iterator[Store]:
    """By its path, or by the address of a database and the ledger's name there."""
    url, _, origin = store.partition(" ")
    if origin:
        with closing(PostgresDatabase(url)) as database:
            yield database.store(origin, sign)
    else:
        with closing(open_sqlite(Path(store))) as there:
            yield there


def _work(work: str, path: Path, store: str, moment: str) -> None:
    portable._PUT = TOGETHER
    steps = 0

    def progress(done: int, total: int) -> None:
        nonlocal steps
        steps += 1
        if moment == str(steps):
            _die()

    with path.open("r+b") as file, _opened(store) as opened:
        if work == "export":
            portable.export(opened, KEY, file, progress=progress)
        else:
            taking: Store = _Dying(opened) if moment == "transaction" else opened  # type: ignore[assignment] # it passes on what it does not have
            portable.put(file, taking, KEY, progress=progress)


def killed(work: str, path: Path, store: str, moment: str) -> None:
    command = [sys.executable, "-m", "tests.ledger.test_portable_kill", work, str(path), store, moment]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "events.sqlite"
    with closing(open_sqlite(path)) as store:
        for number in range(COMMITS):
            store.append([unit(f"m-{number}", (f"s-{number % 7}", number // 7 * EACH, EACH))], AT)
        for size in (EACH, COMMITS * EACH):
            cosign(store, size)
    return path


@pytest.fixture(scope="module")
def whole(source: Path) -> bytes:
    path = source.with_name("whole.renkei")
    with path.open("w+b") as file, closing(open_sqlite(source)) as store:
        portable.export(store, KEY, file)
    return path.read_bytes()


@pytest.fixture(params=["sqlite", *VERSIONS])
def target(request: pytest.FixtureRequest, tmp_path: Path, databases: Databases) -> Iterator[str]:
    """An empty ledger that is in order at the end."""
    if request.param == "sqlite":
        path = tmp_path / "target.sqlite"
        open_sqlite(path).close()
        yield str(path)
        verdict = verify_file(path, KEY)
    else:
        database, origin = databases[request.param], f"test/{token_hex(8)}"
        database.migrate(origin)
        yield f"{database.url} {origin}"
        with database.rows(origin) as rows:
            verdict = verify(rows, KEY)
    assert verdict.ok, verdict
    assert verdict.events == COMMITS * EACH


@pytest.mark.parametrize("moment", ["25", "transaction"])
def test_a_killed_import_goes_on(
    moment: str, source: Path, whole: bytes, target: str, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.renkei"
    path.write_bytes(whole)
    killed("import", path, target, moment)
    with closing(open_sqlite(source)) as store, _opened(target) as taken, path.open("rb") as file:
        size = taken.head().size
        assert 0 < size < COMMITS * EACH
        assert [taken.head()] == store.checkpoints(size - 1, 1)
        assert portable.put(file, taken, KEY).finished
        assert everything(taken) == everything(store)


@pytest.mark.parametrize("moment", ["1", str(COMMITS)])
def test_a_killed_export_goes_on(moment: str, source: Path, whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "ledger.renkei"
    path.touch()
    killed("export", path, str(source), moment)
    assert whole.startswith(path.read_bytes())
    with path.open("r+b") as file, closing(open_sqlite(source)) as store:
        if path.stat().st_size:
            assert not portable.check(file, KEY).finished
        portable.export(store, KEY, file)
    assert path.read_bytes() == whole


if __name__ == "__main__":
    _work(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4])
