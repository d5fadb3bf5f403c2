"""What a ledger goes through, in a process that may die on the way. Done again, it comes to the same end."""

import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import trio

from adapters.http import Client, Request, Response
from adapters.witness.client import WitnessClient, seal
from adapters.witness.server import WitnessServer
from broker.ledger import erasure, portable, projections
from broker.ledger.folder import VERIFIER_KEY, LedgerFolder
from broker.ledger.ledger import Change, Ledger, Unit
from broker.ledger.notes import Kind, NoteSigner, NoteVerifier
from broker.ledger.postgres import PostgresDatabase
from broker.ledger.tiles import export_tiles
from broker.ledger.witness import Witness
from schemas.law import Retention
from tests.failures.samples import pair
from tests.ledger.dying import FIRST, KEY, REQUEST, RULE, SECOND, die_at
from tests.ledger.samples import Counted, Known, Noted, Seen, Totals, clock

TYPES = (Noted, Counted, Known)
BULK = Unit("bulk", (Change("bulk", 0, tuple(map(Counted, range(300)))),))  # more than a tile
WITNESS = NoteSigner("test/witness", bytes(range(3, 35)), Kind.COSIGNATURE)
DATA, EXPORT, IMPORTED, BACKUP, RESTORED, TILES = "data", "events.renkei", "in", "backup", "restored", "tiles"


def address(root: Path) -> tuple[str, str]:
    """The store, as the commands take it, and the origin of the ledger."""
    store, origin = (root / "address").read_text(encoding="utf-8").split()
    return store, origin


@contextmanager
def house(root: Path) -> Iterator[LedgerFolder]:
    store, origin = address(root)
    with ExitStack() as stack:
        database = None
        if store != "sqlite":
            database = stack.enter_context(closing(PostgresDatabase(store)))
        open_store = database.store if database else None
        folder = LedgerFolder(root / DATA, origin, TYPES, [Totals(), Seen()], clock, open_store)
        yield stack.enter_context(closing(folder))


@asynccontextmanager
async def running(root: Path) -> AsyncIterator[Ledger]:
    with house(root) as folder:
        async with trio.open_nursery() as nursery:
            await nursery.start(folder.ledger.run)
            yield folder.ledger
            nursery.cancel_scope.cancel()


async def acknowledged(root: Path, ledger: Ledger, unit: Unit) -> None:
    """Append, and write down that it was acknowledged: so the file tells what must be there for ever."""
    outcome = await ledger.append(unit)
    with (root / "acknowledged").open("a", encoding="utf-8") as file:
        file.write(f"{unit.message_id} {outcome.first} {outcome.last}\n")


def furnish(root: Path) -> None:
    """A ledger with events that its projections have, and others that they have not."""

    async def work() -> None:
        async with running(root) as ledger:
            await acknowledged(root, ledger, pair("before"))
        with house(root) as folder:
            folder.tables.catch_up(folder.ledger.store, folder.ledger.registry)
        async with running(root) as ledger:
            await acknowledged(root, ledger, BULK)

    trio.run(work)


# -- the work ---------------------------------------------------------------------------------------------


def append(root: Path) -> None:
    """One after another, and several in one commit."""

    async def work() -> None:
        async with running(root) as ledger:
            for number in range(3):
                await acknowledged(root, ledger, pair("one", number))
            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(acknowledged, root, ledger, pair(f"many{number}"))

    trio.run(work)


class _Near:
    """A witness of this process, spoken to as over a line."""

    def __init__(self, server: WitnessServer) -> None:
        self._server = server

    async def request(self, method: str, path: str, body: bytes) -> Response:
        return await self._server.handle(Request(cast(Any, None), method, path, {}, body))


def checkpoint(root: Path) -> None:
    """Seal the latest one: signed by the second key and by a witness."""
    own = NoteVerifier((root / DATA / VERIFIER_KEY).read_text(encoding="utf-8"))
    with closing(Witness(root / "witness.sqlite", [WITNESS], lambda origin: [own])) as witness:
        near = cast(Client, _Near(WitnessServer(witness, "/witness", clock)))
        asked = [WitnessClient(near, "/witness", [WITNESS.verifier_key])]
        with house(root) as folder:
            sealed = trio.run(seal, folder.ledger.store, [folder.sealing_signer], asked, clock)
    assert not sealed.missing


def project(root: Path) -> None:
    with house(root) as folder:
        folder.tables.catch_up(folder.ledger.store, folder.ledger.registry)


def rebuild(root: Path) -> None:
    with house(root) as folder:
        trio.run(folder.follower.rebuild)


def rotate(root: Path) -> None:
    with house(root) as folder:
        folder.vault.rotate()


def destroy(root: Path) -> None:
    """What is past its time: one person asks, another one confirms."""

    async def work() -> None:
        async with running(root) as ledger:
            await erasure.ask(ledger, KEY, RULE, FIRST, REQUEST)
            await erasure.confirm(ledger, KEY, REQUEST, SECOND, clock)

    trio.run(work)


@contextmanager
def as_agency() -> Iterator[None]:
    """For the commands that tell by its origin what a ledger holds: this one is an agency's."""
    from ops import daemons

    with (
        patch.object(daemons, "AGENCY_EVENTS", TYPES),
        patch.object(daemons, "AGENCY_PROJECTIONS", [Totals(), Seen()]),
    ):
        yield


def retain(root: Path) -> None:
    """Ask for the destruction of all that is past its time."""
    from ops import keys

    kept = {"sample": Retention(0, "test", RULE)}
    with as_agency(), patch.object(keys, "retentions", lambda: kept):
        assert keys.retain(root / DATA, address(root)[0], FIRST, lambda: clock() + timedelta(days=40)) == 0


def export(root: Path) -> None:
    from ops import backup

    assert backup.export(root / DATA, root / EXPORT, address(root)[0]) == 0


def import_(root: Path) -> None:
    from ops import backup

    assert backup.import_(root / EXPORT, root / IMPORTED, target(root), None) == 0


def publish(root: Path) -> None:
    with house(root) as folder:
        export_tiles(folder.ledger.store, root / TILES)


def back_up(root: Path) -> None:
    from ops import backup

    assert backup.backup(root / DATA, address(root)[0], root / BACKUP) == 0


def restore(root: Path) -> None:
    from ops import backup

    kek = root / DATA / "vault" / "kek"
    with as_agency():
        assert backup.restore(root / BACKUP, root / RESTORED, [kek], target(root)) == 0


def target(root: Path) -> str:
    """Where a ledger is put that was exported from here: a store that has none of this origin yet."""
    there = root / "target"
    return there.read_text(encoding="utf-8") if there.exists() else "sqlite"


WORK: dict[str, Callable[[Path], None]] = {
    each.__name__.rstrip("_"): each
    for each in (
        append, checkpoint, project, rebuild, rotate, retain, destroy,
        export, import_, publish, back_up, restore,
    )
}  # fmt: skip


# Processes are forked from one that has imported everything: a new one takes no time to begin.
_processes = get_context("forkserver")
_processes.set_forkserver_preload(["__main__", __name__, "ops.backup"])


def apart(function: Callable[..., None], *arguments: Any) -> int | None:
    """Call a function in a process of its own; returns the status with which that ended."""
    process = _processes.Process(target=function, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def dies(work: str, root: Path, step: str, when: str, count: int) -> bool:
    """Do the work in a process that kills itself at a step (tests.ledger.dying): whether it came to that."""
    return apart(_do, work, root, step, when, count) == -signal.SIGKILL


def _do(work: str, root: Path, step: str, when: str, count: int) -> None:
    projections.BATCH, portable._PAGE, portable._PUT = (
        100,
        5,
        5,
    )  # so that there is more than one of everything
    die_at(step, when, count)
    WORK[work](root)
