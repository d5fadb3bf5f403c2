"""The daemon's sealing of checkpoints, where what it needs is away."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import trio
from eventsourcing.persistence import OperationalError

from adapters.witness.client import WitnessClient
from broker.ledger.folder import LedgerFolder
from broker.ledger.ledger import Change, Unit
from broker.ledger.merkle import ReadTile
from broker.ledger.projections import Projection
from ops.config import NetworkConfig
from ops.daemons import keep_sealed
from tests.ledger.samples import Counted, Totals, clock


class Failing(WitnessClient):
    """The store goes away while the proof for a witness is made."""

    def __init__(self) -> None:
        self.name = "test/witness"
        self.asked = 0
        self.asked_often = trio.Event()

    def has_signed(self, lines: Sequence[str]) -> bool:
        return False

    async def cosign(self, read: ReadTile, note: str) -> list[str]:
        self.asked += 1
        if self.asked == 6:
            self.asked_often.set()
        raise OperationalError("the server cannot be reached")


async def test_a_store_that_goes_away_while_sealing_ends_no_daemon(tmp_path: Path) -> None:
    config = NetworkConfig(
        data="",
        authority="",
        tls_certificate="",
        tls_key="",
        signing_certificate="",
        signing_key="",
        listen="",
        agencies=(),
        seal_seconds=0,
    )
    projections: list[Projection] = [Totals()]
    witness = Failing()
    with closing(LedgerFolder(tmp_path, "test/sealing", (Counted,), projections, clock)) as folder:
        async with trio.open_nursery() as nursery:
            await nursery.start(folder.ledger.run)
            await folder.ledger.append(Unit("m", (Change("a", 0, (Counted(1),)),)))
            nursery.start_soon(keep_sealed, (folder, folder), config, (lambda: [witness, witness], list))
            with trio.fail_after(30):
                await witness.asked_often.wait()
            nursery.cancel_scope.cancel()
        # The ledger whose witnesses do not fail is sealed all the same.
        assert folder.ledger.store.cosigned(1) == 1
