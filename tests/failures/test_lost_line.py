"""A line to the database that is lost: the caller of an append gets the truth."""

import os
import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from itertools import count
from time import sleep

import psycopg
import pytest
import trio

from broker.ledger import postgres
from broker.ledger.ledger import Ledger, NotStored, OutcomeUnknown, Unit
from broker.ledger.postgres import PostgresDatabase
from broker.ledger.store import Outcome
from broker.ledger.vault import Vault
from tests.failures.proxy import Line, Lost, Proxy, hang_up
from tests.failures.samples import EVENTS, insist, pair, running, verified
from tests.ledger.places import sign


class Cut:
    """Loses the line at one message of many, counted in both directions from the moment it is told to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun: set[Line] = set()
        self._left = 0

    def at(self, number: int) -> None:
        with self._lock:
            self._left = number

    def happened(self) -> bool:
        """Whether it came to that; it will not any more."""
        with self._lock:
            left, self._left = self._left, 0
        return left == 0

    def __call__(self, line: Line, kind: bytes, body: bytes) -> None:
        with self._lock:
            if line not in self._begun:  # a connection that is being opened takes as many as it takes
                if kind == b"Z":
                    self._begun.add(line)
                return
            if self._left == 0:
                return
            self._left -= 1
            if self._left:
                return
        line.cut()
        raise Lost


@pytest.fixture
def origin(database: PostgresDatabase) -> str:
    origin = f"test/{secrets.token_hex(8)}"
    database.migrate(origin)
    return origin


async def told(ledger: Ledger, unit: Unit) -> Outcome | NotStored | OutcomeUnknown:
    try:
        return await ledger.append(unit)
    except (NotStored, OutcomeUnknown) as error:
        return error


@pytest.mark.parametrize("prepared", [False, True])
async def test_cut_at_every_message(
    prepared: bool, database: PostgresDatabase, origin: str, vault: Vault
) -> None:
    """On a connection that knows the statements already, and on one that does not."""
    cut, results = Cut(), dict[str, Outcome | NotStored | OutcomeUnknown]()
    direct = database.store(origin, sign)
    units: list[Unit] = []
    with Proxy(database.url, cut) as proxy:
        for number in count(1):
            with closing(PostgresDatabase(proxy.url)) as through:
                async with running(through.store(origin, sign), vault) as ledger:
                    if prepared:
                        await ledger.append(pair(f"before{number}"))
                    unit = pair(f"unit{number}")
                    cut.at(number)
                    result = await told(ledger, unit)
                    cut_off = cut.happened()
            assert not isinstance(result, OutcomeUnknown)
            found = direct.outcomes([unit.message_id]).get(unit.message_id)
            assert (result if isinstance(result, Outcome) else None) == found
            units.append(unit)
            results[unit.message_id] = result
            if not cut_off:
                break
    assert {type(result) for result in results.values()} == {Outcome, NotStored}
    found_at_last = direct.outcomes(list(results))
    assert found_at_last == {m: result for m, result in results.items() if isinstance(result, Outcome)}
    async with running(direct, vault) as ledger:
        for unit in units:
            outcome = await ledger.append(unit)
            if first := found_at_last.get(unit.message_id):
                assert outcome == Outcome(first.first, first.last, repeated=True)
    assert direct.head().size == EVENTS * len(units) * (2 if prepared else 1)
    assert verified(database, origin).ok


class Held:
    """Loses the line for the client when it sends COMMIT, which arrives at the server when it is let go."""

    def __init__(self) -> None:
        self.holds = threading.Event()
        self.let_go = threading.Event()

    def __call__(self, line: Line, kind: bytes, body: bytes) -> None:
        if kind in b"PQ" and b"COMMIT" in body and not self.holds.is_set():
            hang_up(line.client, socket.SHUT_WR)
            self.holds.set()
            self.let_go.wait(60)


def wait_until_one_waits(url: str, given_up: Callable[[], object]) -> None:
    """Until somebody waits for the lock of a ledger."""
    waiting = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with psycopg.connect(url, autocommit=True) as connection:
        while not connection.execute(waiting).fetchall() and not given_up():
            sleep(0.01)


async def test_a_commit_that_arrives_late(database: PostgresDatabase, origin: str, vault: Vault) -> None:
    """The line is gone, nothing is stored, and yet it would be wrong to say so: the server goes on."""
    held, results = Held(), list[Outcome | NotStored | OutcomeUnknown]()

    async def append(ledger: Ledger) -> None:
        results.append(await told(ledger, pair("late")))

    with Proxy(database.url, held) as proxy, closing(PostgresDatabase(proxy.url)) as through:
        async with running(through.store(origin, sign), vault) as ledger:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(append, ledger)
                await trio.to_thread.run_sync(held.holds.wait)
                await trio.to_thread.run_sync(wait_until_one_waits, database.url, lambda: results)
                assert not database.store(origin, sign).outcomes(["late-0"])
                held.let_go.set()
            assert results == [Outcome(1, EVENTS)]
            assert await ledger.append(pair("late")) == Outcome(1, EVENTS, repeated=True)
    assert verified(database, origin).ok


async def test_a_transaction_that_does_not_end(
    database: PostgresDatabase, origin: str, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can know whether its COMMIT is still to come: the caller hears just that, and asks again."""
    monkeypatch.setattr(postgres, "_SETTINGS", postgres._SETTINGS + " -c lock_timeout=300ms")
    held = Held()
    with Proxy(database.url, held) as proxy, closing(PostgresDatabase(proxy.url)) as through:
        async with running(through.store(origin, sign), vault) as ledger:
            assert isinstance(await told(ledger, pair("late")), OutcomeUnknown)
            assert isinstance(await told(ledger, pair("late")), OutcomeUnknown)
            held.let_go.set()
            assert await insist(ledger, pair("late")) == Outcome(1, EVENTS, repeated=True)
    assert verified(database, origin).ok


def test_each_end_notices_that_the_other_one_is_gone(database: PostgresDatabase) -> None:
    """Also where no word of it arrives: nobody waits or holds a lock for more than half a minute then."""
    with database.connection() as connection:
        asked = "SELECT name, setting FROM pg_settings WHERE name LIKE 'tcp_keepalives%'"
        rows = connection.execute(asked).fetchall()
        server = {row["name"].removeprefix("tcp_keepalives_"): int(row["setting"]) for row in rows}
        with socket.socket(fileno=os.dup(connection.fileno())) as line:
            assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            waits = [
                line.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            ]
            assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 30_000
    for idle, interval, tries in (waits, (server["idle"], server["interval"], server["count"])):
        assert 0 < idle + interval * tries <= 30


class Away:
    """Loses the line when the server says that it has committed, and every line from then on."""

    def __init__(self) -> None:
        self.away = self._once = False

    def __call__(self, line: Line, kind: bytes, body: bytes) -> None:
        if kind == b"C" and body == b"COMMIT\0" and not self._once:
            self.away = self._once = True
        if self.away:
            line.cut()
            raise Lost


async def test_a_server_that_stays_away(
    database: PostgresDatabase, origin: str, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "PATIENCE", 0.5)
    away = Away()
    with Proxy(database.url, away) as proxy, closing(PostgresDatabase(proxy.url)) as through:
        async with running(through.store(origin, sign), vault) as ledger:
            assert isinstance(await told(ledger, pair("away")), OutcomeUnknown)
            assert isinstance(await told(ledger, pair("other")), OutcomeUnknown)
            away.away = False
            assert await insist(ledger, pair("away")) == Outcome(1, EVENTS, repeated=True)
            assert await ledger.append(pair("other")) == Outcome(EVENTS + 1, 2 * EVENTS)
    assert verified(database, origin).ok
