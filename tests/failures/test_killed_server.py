"""A database server that dies under load ten times: nothing is lost, and everything goes on by itself."""

from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
import trio

from broker.ledger.ledger import Ledger
from broker.ledger.postgres import PostgresDatabase
from broker.ledger.projections import Follower, ProjectionTables
from broker.ledger.store import Outcome
from broker.ledger.vault import Vault
from ops.postgresql import Server
from tests.failures.samples import EVENTS, insist, pair, running, verified
from tests.ledger.places import sign
from tests.ledger.samples import REGISTRY, Seen, Totals
from tests.servers import programs

ORIGIN = "test/killed"
WRITERS, KILLS, BETWEEN = 12, 10, 60


@pytest.fixture
def server() -> Iterator[Server]:
    """One that keeps what it has committed: with the settings that it comes with."""
    with Server(programs("postgresql18")) as server:
        yield server


async def test_killed_ten_times_under_load(server: Server, vault: Vault, tmp_path: Path) -> None:
    acknowledged: dict[str, Outcome] = {}
    live = ProjectionTables(tmp_path / "live.sqlite", [Totals(), Seen()])
    replayed = ProjectionTables(tmp_path / "replayed.sqlite", [Totals(), Seen()])
    done = trio.Event()

    async def write(ledger: Ledger, name: str) -> None:
        for number in count():
            unit = pair(name, number)
            acknowledged[unit.message_id] = await insist(ledger, unit)
            if done.is_set():
                return

    async def progress() -> None:
        goal = len(acknowledged) + BETWEEN
        while len(acknowledged) < goal:  # noqa: ASYNC110 # nobody tells when
            await trio.sleep(0.001)

    with closing(PostgresDatabase(server.url)) as database, closing(live), closing(replayed):
        database.migrate(ORIGIN)
        async with running(database.store(ORIGIN, sign), vault) as ledger, trio.open_nursery() as following:
            follower = Follower(ledger, live)
            await following.start(follower.run)
            async with trio.open_nursery() as writers:
                for writer in range(WRITERS):
                    writers.start_soon(write, ledger, f"writer{writer}")
                for _ in range(KILLS):
                    await progress()
                    await trio.to_thread.run_sync(server.kill)
                    await trio.to_thread.run_sync(server.start)
                await progress()
                done.set()
            size = EVENTS * len(acknowledged)
            await follower.reach(size)
            following.cancel_scope.cancel()
        store = database.store(ORIGIN, sign)
        assert store.head().size == size
        assert store.outcomes(list(acknowledged)) == {
            message_id: Outcome(outcome.first, outcome.last) for message_id, outcome in acknowledged.items()
        }
        assert verified(database, ORIGIN).ok
        replayed.catch_up(store, REGISTRY)
        assert live.state() == replayed.state()
        assert live.query("SELECT count(*), min(position), max(position) FROM seen") == [(size, 1, size)]
