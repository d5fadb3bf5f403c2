"""Many at once: two processes in one ledger, many ledgers in one process, one message id from everywhere."""

import secrets
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from time import perf_counter

import pytest
import trio

from broker.ledger.ledger import Ledger
from broker.ledger.postgres import PostgresDatabase
from broker.ledger.store import Outcome, Store
from broker.ledger.vault import Vault
from broker.ledger.verify import Verdict, verify_file
from tests.failures.samples import EVENTS, pair, running, verified
from tests.ledger.places import SIGNER, Place, opened, sign
from tests.ledger.processes import SHARED, WRITERS, start, tell, told
from tests.ledger.samples import REGISTRY, clock
from tests.servers import VERSIONS, Databases

ROUNDS = 8
AGENCIES = 200


class Home:
    """A folder with a vault and a store that other processes can open, too."""

    def __init__(self, folder: Path, database: PostgresDatabase | None) -> None:
        self.folder = folder
        self._database = database
        self._origin = f"test/{secrets.token_hex(8)}"
        if database is not None:
            database.migrate(self._origin)
            (folder / "database").write_text(f"{database.url} {self._origin}", encoding="utf-8")

    def is_valid(self) -> bool:
        if self._database is None:
            return verify_file(self.folder / "events.sqlite", SIGNER.verifier_key).ok
        return verified(self._database, self._origin).ok


@pytest.fixture(params=["sqlite", *VERSIONS])
def home(request: pytest.FixtureRequest, tmp_path: Path, databases: Databases) -> Home:
    """One for every durable store."""
    return Home(tmp_path, databases[request.param] if request.param in VERSIONS else None)


def test_two_processes_append_to_one_ledger(home: Home) -> None:
    """Round by round, so that neither is done before the other has begun; within a round they race."""
    with opened(home.folder):
        running = [start("append", home.folder, name) for name in ("one", "two")]
        assert [told(process) for process in running] == ["ready", "ready"]
    outcomes: dict[str, tuple[int, int]] = {}
    for _ in range(ROUNDS):
        for process in running:
            tell(process, "\n")
        for process in running:
            for _ in range(WRITERS):
                message_id, first, last = told(process).split()
                outcomes[message_id] = (int(first), int(last))
    for process in running:
        assert process.communicate()[0] == ""
        assert process.returncode == 0
    assert len(outcomes) == 2 * WRITERS * ROUNDS
    with opened(home.folder) as store:
        positions = [event.id for event in store.events(0, 1_000_000)]
        assert positions == list(range(1, 3 * len(outcomes) + 1))
        assert sorted(outcomes.values()) == [(first, first + 2) for first in positions[::3]]
        assert {m: (o.first, o.last) for m, o in store.outcomes(list(outcomes)).items()} == outcomes
        versions = [event.originator_version for event in store.stream(SHARED)]
        assert versions == list(range(1, len(outcomes) + 1))
    assert home.is_valid()


def test_one_message_id_from_two_processes(home: Home) -> None:
    """What another process has stored, at the same moment or earlier, is not stored again."""
    with opened(home.folder):
        running = [start("append", home.folder, "same") for _ in range(2)]
        assert [told(process) for process in running] == ["ready", "ready"]
    for _ in range(ROUNDS):
        answers = []
        for process in running:
            tell(process, "\n")
        for process in running:
            answers.append(sorted(told(process) for _ in range(WRITERS)))
        assert answers[0] == answers[1]
    for process in running:
        process.communicate()
    late = start("append", home.folder, "same")
    assert told(late) == "ready"
    tell(late, "\n")
    with opened(home.folder) as store:
        for _ in range(WRITERS):
            message_id, first, last = told(late).split()
            assert store.outcomes([message_id]) == {message_id: Outcome(int(first), int(last))}
        late.communicate()
        assert store.head().size == 3 * WRITERS * ROUNDS
    assert home.is_valid()


async def test_one_message_id_from_many_tasks(place: Place, vault: Vault) -> None:
    """At once, in a batch or in batches one after another; later; after a restart."""
    outcomes: list[Outcome] = []

    async def append(ledger: Ledger) -> None:
        outcomes.append(await ledger.append(pair("unit")))

    for store in place.before_and_after():
        async with running(store, vault) as ledger:
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(append, ledger)
            await append(ledger)
    assert [outcome.repeated for outcome in outcomes].count(False) == 1
    assert {(outcome.first, outcome.last) for outcome in outcomes} == {(1, EVENTS)}
    assert place.store.head().size == EVENTS


async def test_two_hundred_agencies_with_ten_connections(
    databases: Databases, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    database = databases["postgresql18"]
    run = secrets.token_hex(4)
    origins = [f"test/{run}/{number}" for number in range(AGENCIES)]
    begun = perf_counter()
    for origin in origins:
        database.migrate(origin)
    record_property("seconds for a schema", (perf_counter() - begun) / AGENCIES)
    acknowledged: dict[str, list[Outcome]] = {origin: [] for origin in origins}

    async def work(ledger: Ledger, origin: str) -> None:
        for number in range(4):
            acknowledged[origin].append(await ledger.append(pair("unit", number)))

    with closing(Vault(tmp_path / "vault")) as vault, closing(PostgresDatabase(database.url)) as pooled:
        stores: dict[str, Store] = {origin: pooled.store(origin, sign) for origin in origins}
        async with trio.open_nursery() as ledgers:
            async with trio.open_nursery() as writers:
                for origin, store in stores.items():
                    ledger = Ledger(origin, store, REGISTRY, vault, clock)
                    await ledgers.start(ledger.run)
                    writers.start_soon(work, ledger, origin)
            ledgers.cancel_scope.cancel()
        assert pooled.pool.get_stats()["pool_size"] <= 10
        for origin, outcomes in acknowledged.items():
            assert outcomes == [Outcome(first, first + 2) for first in range(1, 4 * EVENTS, EVENTS)]
            assert verified(pooled, origin) == Verdict(4 * EVENTS)
