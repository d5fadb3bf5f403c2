"""Getting link codes: addressing -> registry -> network -> back here (Act art. 21-2, Order art. 27)."""

import math

import structlog
import trio

from adapters.network.client import NetworkClient
from adapters.network.worker import persist
from adapters.platform.inprocess import Platform
from adapters.registry.client import RegistryClient
from broker.addressing.office import Addressing

# A person waits in the list until the code has come; asking again sooner than this is harmless but idle.
PATIENCE = 5.0

log = structlog.get_logger(__name__)


class Acquirer:
    """Acquires a code for everyone who is registered and has none."""

    def __init__(
        self, addressing: Addressing, platform: Platform, registry: RegistryClient, network: NetworkClient
    ) -> None:
        self._addressing = addressing
        self._platform = platform
        self._registry = registry
        self._network = network
        self._asked: dict[str, float] = {}

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(persist, "acquisition", self._ask)
            nursery.start_soon(persist, "codes", self._take)

    async def _ask(self) -> None:
        """Ask the registry for everyone who waits; whom it does not know stays without a code (J-101)."""
        ledger = self._addressing.ledger
        end = ledger.position
        now = trio.current_time()
        self._asked = {number: at for number, at in self._asked.items() if at > now - PATIENCE}
        waiting = await self._addressing.acquisitions()
        wanted = [(number, person) for number, person in waiting if number not in self._asked]
        if not wanted:
            with trio.move_on_after(PATIENCE if waiting else math.inf):
                await ledger.wait_beyond(end)
            return
        verdicts = await self._registry.acquire(wanted)
        self._asked |= dict.fromkeys((number for number, _ in wanted), now)
        refused = {number: code for (number, _), code in zip(wanted, verdicts, strict=True) if code}
        await self._addressing.settle(refused)

    async def _take(self) -> None:
        """Take the codes that came, record them, and only then let both sides forget the numbers."""
        pairs = await self._network.codes()
        if not pairs:
            return
        numbers = await self._addressing.resolve([number for number, _ in pairs])
        async with trio.open_nursery() as nursery:
            for number, code in pairs:
                if number in numbers:
                    nursery.start_soon(self._platform.acquire_code, numbers[number], code)
        await self._addressing.settle(dict.fromkeys(numbers, ""))
        await self._network.forget([number for number, _ in pairs])
        log.info("codes_acquired", count=len(numbers))
