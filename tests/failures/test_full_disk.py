"""A full disk: a clear error, nothing acknowledged is lost, and work goes on by itself once there is room."""

import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
import trio
from eventsourcing.persistence import PersistenceError

from broker.ledger.folder import EVENTS, VERIFIER_KEY, LedgerFolder
from broker.ledger.ledger import Change, Ledger, NoSpace, NotStored, Unit
from broker.ledger.postgres import PostgresDatabase
from broker.ledger.store import Outcome
from broker.ledger.vault import Vault
from broker.ledger.verify import verify_file
from ops.cli import main
from ops.postgresql import Server
from schemas.errors import entry
from tests.failures import steps
from tests.failures.disks import Limit, ServerLimit, SmallDisk, small_disk
from tests.failures.samples import SECRET, pair, running, verified
from tests.failures.steps import TYPES, apart
from tests.ledger.places import sign
from tests.ledger.samples import Known, Noted, Seen, Totals, clock
from tests.servers import QUICK, programs

ORIGIN = "test/full"


def large(number: int, size: int) -> Unit:
    name = f"large{number}"
    return Unit(name, (Change(name, 0, (Noted(name + "x" * size, SECRET),)),))


def with_new_key(number: int, size: int) -> Unit:
    name = f"person{number}"
    return Unit(name, (Change(name, 0, (Known(name, SECRET),)),))


class Appended:
    """What a ledger acknowledged, and what it refused."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.acknowledged: dict[str, Outcome] = {}
        self.refused: list[tuple[Unit, NotStored]] = []

    async def until_refused(self, make: Callable[[int, int], Unit], size: int = 0) -> None:
        """Files may have had some room left in them."""
        for number in range(200):
            unit = make(number, size)
            try:
                self.acknowledged[unit.message_id] = await self._ledger.append(unit)
            except NotStored as error:
                self.refused.append((unit, error))
                return
        pytest.fail("there was always room")

    async def again(self) -> None:
        for unit, _ in self.refused:
            self.acknowledged[unit.message_id] = await self._ledger.append(unit)

    def check(self) -> None:
        stored = self._ledger.store.outcomes(list(self.acknowledged))
        assert stored == self.acknowledged
        assert self._ledger.store.head().size == sum(o.last - o.first + 1 for o in stored.values())


def projections_in(folder: Path) -> set[Path]:
    return {file.resolve() for file in folder.glob("projections*.sqlite")}


async def _on_sqlite(folder: Path, disk: SmallDisk | Limit, kind: type[NotStored]) -> None:
    with closing(LedgerFolder(folder, ORIGIN, TYPES, [Totals(), Seen()], clock)) as home:
        ledger, follower = home.ledger, home.follower
        appended = Appended(ledger)
        async with trio.open_nursery() as nursery:
            await nursery.start(ledger.run)
            await nursery.start(follower.run)
            appended.acknowledged["before-0"] = await ledger.append(pair("before"))
            await follower.reach(3)
            disk.fill()
            try:
                await appended.until_refused(large, 20_000)
                await appended.until_refused(with_new_key)
                with pytest.raises((sqlite3.Error, OSError, PersistenceError)):
                    await follower.rebuild()
                assert (await ledger.stream("before"))[0].event == Noted("before 0", SECRET)
                assert await follower.query("SELECT position FROM seen LIMIT 3") == [(1,), (2,), (3,)]
            finally:
                disk.empty()
            await appended.again()
            size = ledger.store.head().size
            await follower.reach(size)
            await follower.rebuild()
            assert await follower.query("SELECT count(*), max(position) FROM seen") == [(size, size)]
            assert not await follower.query("SELECT * FROM parked")
            nursery.cancel_scope.cancel()
        appended.check()
        assert [type(error) for _, error in appended.refused] == [kind, kind]
        # The rebuild that failed has left nothing behind.
        assert len(projections_in(folder)) == 1
    assert verify_file(folder / EVENTS, (folder / VERIFIER_KEY).read_text(encoding="utf-8")).ok


def on_sqlite_with_a_limit(folder: Path) -> None:
    trio.run(_on_sqlite, folder, Limit(1), NotStored)


def test_files_that_may_not_grow(tmp_path: Path) -> None:
    """In a process of its own, as nothing in it can write then."""
    assert apart(on_sqlite_with_a_limit, tmp_path / "data") == 0


async def test_a_full_file_system(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4) as disk:
        await _on_sqlite(disk.path / "data", disk, NoSpace)


def test_commands_on_a_full_file_system(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They say what is the matter, and may be given again."""
    with small_disk(tmp_path / "disk", 4) as disk:
        (disk.path / "address").write_text("sqlite renkei/full", encoding="utf-8")
        steps.furnish(disk.path)
        data = str(disk.path / "data")
        commands = (
            ["keys", "rotate", data],
            ["export", data, "--into", str(disk.path / "events.renkei")],
            ["backup", data, "--into", str(disk.path / "backup")],
            ["audit", "tiles", data, "--into", str(disk.path / "tiles")],
        )
        disk.fill()
        for command in commands:
            assert main(command) == 1
            assert "[S-109]" in capsys.readouterr().err
        disk.empty()
        for command in commands:
            assert main(command) == 0
        assert main(["audit", "verify", data]) == 0


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(programs("postgresql18"), settings=QUICK | {"max_wal_size": "64MB"})
    yield server
    server.remove()


def move(data: Path, onto: Path) -> None:
    subprocess.run(["/usr/bin/cp", "--archive", data, onto], check=True)
    shutil.rmtree(data)
    data.symlink_to(onto)


@contextmanager
def started(server: Server) -> Iterator[None]:
    server.start()
    try:
        yield
    finally:
        server.stop()


async def _on_a_server(
    server: Server, vault: Vault, fill: Callable[[], None], empty: Callable[[], None]
) -> Sequence[NotStored]:
    with closing(PostgresDatabase(server.url)) as database:
        database.migrate(ORIGIN)
        async with running(database.store(ORIGIN, sign), vault) as ledger:
            appended = Appended(ledger)
            appended.acknowledged["before-0"] = await ledger.append(pair("before"))
            fill()
            try:
                await appended.until_refused(large, 900_000)
                assert (await ledger.stream("before"))[0].event == Noted("before 0", SECRET)
            finally:
                empty()
            await appended.again()
            appended.check()
        assert verified(database, ORIGIN).ok
    return [error for _, error in appended.refused]


async def test_a_server_whose_files_may_not_grow(server: Server, vault: Vault) -> None:
    """The segments of its log have 16 MB and may be written; what grows beyond that are its tables."""
    with started(server):
        limit = ServerLimit(20 << 20, server)
        (refused,) = await _on_a_server(server, vault, limit.fill, limit.empty)
    assert "File too large" in str(refused)


async def test_a_server_on_a_full_file_system(server: Server, vault: Vault) -> None:
    with small_disk(server.folder / "disk", 160) as disk:
        move(server.data, disk.path / "data")

        def fill() -> None:
            """All but a little, when the server has just begun a segment of its log."""
            with psycopg.connect(server.url, autocommit=True) as connection:
                connection.execute("SELECT pg_switch_wal()")
                connection.execute("CREATE TABLE filler ()")
            disk.fill(left=3 << 20)

        with started(server):
            (refused,) = await _on_a_server(server, vault, fill, disk.empty)
    assert isinstance(refused, NoSpace)
    assert "空きがない" in entry(refused.code).cause_ja
    assert "No space left on device" in str(refused)
