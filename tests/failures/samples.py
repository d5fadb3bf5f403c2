"""Units whose events tell which unit they are of, and a ledger that runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from broker.ledger.ledger import Change, Ledger, NotStored, OutcomeUnknown, Unit
from broker.ledger.postgres import PostgresDatabase
from broker.ledger.store import Outcome, Store
from broker.ledger.vault import Vault
from broker.ledger.verify import Verdict, verify
from tests.ledger.places import SIGNER
from tests.ledger.samples import REGISTRY, Counted, Noted, clock

EVENTS = 3
SECRET = "秘密"  # noqa: S105 # what is sealed


def pair(name: str, number: int = 0) -> Unit:
    """A unit of two streams and three events; the unit of a greater number goes on from the one before."""
    own = (Noted(f"{name} {number}", SECRET), Counted(number))
    changes = (Change(name, 2 * number, own), Change(f"{name}/other", number, (Counted(1),)))
    return Unit(f"{name}-{number}", changes)


@asynccontextmanager
async def running(store: Store, vault: Vault) -> AsyncIterator[Ledger]:
    ledger = Ledger("test", store, REGISTRY, vault, clock)
    async with trio.open_nursery() as nursery:
        await nursery.start(ledger.run)
        yield ledger
        nursery.cancel_scope.cancel()


async def insist(ledger: Ledger, unit: Unit) -> Outcome:
    """Append under the same message id until the store has it."""
    while True:
        try:
            return await ledger.append(unit)
        except (NotStored, OutcomeUnknown):
            await trio.sleep(0.01)


def verified(database: PostgresDatabase, origin: str) -> Verdict:
    with database.rows(origin) as rows:
        return verify(rows, SIGNER.verifier_key)
