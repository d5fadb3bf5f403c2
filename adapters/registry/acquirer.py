"""Getting link codes: addressing -> registry -> network -> back here (Act art. 21-2, Order art. 27).

The same loop serves the initial acquisition of everybody (一斉取得) and the single ones that follow: who is
registered and has no code waits, and at most 500 are on their way at a time. What was interrupted is asked
again with the same numbers, and asking again changes nothing.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import structlog
import trio

from adapters.network.client import NetworkClient
from adapters.network.worker import persist
from adapters.platform.desk import Desk
from adapters.platform.link_codes import LinkCodes
from adapters.registry.client import RegistryClient
from broker.addressing.office import Addressing

# A person waits in the list until the code has come; asking again sooner than this is harmless but idle.
PATIENCE = 5.0

log = structlog.get_logger(__name__)


class AcquisitionDesk:
    """What happens to acquisitions whoever brings the news: a line to the registry, a medium, an office."""

    def __init__(self, addressing: Addressing, codes: LinkCodes) -> None:
        self._addressing = addressing
        self._codes = codes

    async def settle(self, verdicts: Sequence[tuple[str, str]]) -> None:
        """The registry's verdicts: (acquisition number, code of the catalogue). Without a code the network
        was told, and the link code will come."""
        refused = {number: code for number, code in verdicts if code}
        known = [number for number, code in refused.items() if code == "N-201"]
        for number, person in (await self._addressing.resolve(known)).items():
            if not await self._codes.valid(person):
                # The network says that we have the code, and nobody of this number has it here.
                refused[number] = "I-224"
        await self._addressing.settle(refused)

    async def retire(self, integrated_number: str, reason: str) -> None:
        """A person died, moved or is to be erased: nothing is acquired any longer, and the code is retired
        here at once, and at the network as soon as it can be told."""
        await self._addressing.leave(integrated_number, reason)
        await self._codes.retire(integrated_number, reason)


class Acquirer:
    """Acquires a code for everyone who is registered and has none, and lets go of the retired ones.

    Without a `registry`, requests go to it by medium alone.
    """

    def __init__(
        self,
        addressing: Addressing,
        desk: Desk,
        registry: RegistryClient | None,
        network: NetworkClient,
    ) -> None:
        self._addressing = addressing
        self._codes = LinkCodes(desk.ledger, desk.follower)
        self._desk = AcquisitionDesk(addressing, self._codes)
        self._registry = registry
        self._network = network
        self._asked: dict[str, float] = {}

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            if self._registry is not None:
                nursery.start_soon(persist, "acquisition", partial(self._ask, self._registry))
            nursery.start_soon(persist, "codes", self._take)
            nursery.start_soon(persist, "retirement", self._tell)

    async def _ask(self, registry: RegistryClient) -> None:
        """Ask the registry for everyone who waits; whom it does not know stays without a code."""
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
        verdicts = await registry.acquire(wanted)
        self._asked |= dict.fromkeys((number for number, _ in wanted), now)
        await self._desk.settle([(number, code) for (number, _), code in zip(wanted, verdicts, strict=True)])

    async def _take(self) -> None:
        """Take what came: codes for those who waited, and the order to retire others."""
        pairs = await self._network.codes()
        coming = {number: code for number, code in pairs if number}
        withdrawn = [code for number, code in pairs if not number]
        if coming:
            await self._record(coming)
        if withdrawn:
            await self._withdraw(withdrawn)

    async def _record(self, coming: Mapping[str, str]) -> None:
        """Record the codes, and only then let both sides forget the numbers."""
        persons = await self._addressing.resolve(list(coming))
        outcomes = dict.fromkeys(persons, "")

        async def one(number: str) -> None:
            refusal = await self._codes.acquire(persons[number], coming[number])
            if refusal is not None:
                outcomes[number] = refusal.code

        async with trio.open_nursery() as nursery:
            for number in persons:
                nursery.start_soon(one, number)
        await self._addressing.settle(outcomes)
        # Of the others, some were recorded just before a crash; the rest is wanted no longer.
        others = [number for number in coming if number not in persons]
        held = await self._codes.persons([coming[number] for number in others])
        await self._network.retire([coming[n] for n in others if coming[n] not in held])
        await self._network.forget([n for n in coming if n in persons or coming[n] in held])
        log.info("codes_acquired", count=len(persons))

    async def _withdraw(self, withdrawn: Sequence[str]) -> None:
        """The network retired codes of ours: theirs end here, too, and new ones are acquired."""
        for person in (await self._codes.persons(withdrawn)).values():
            await self._addressing.want(person)
            await self._codes.retire(person, "withdrawn")
        await self._network.retire(withdrawn)
        await self._codes.told(withdrawn)
        log.info("codes_withdrawn", count=len(withdrawn))

    async def _tell(self) -> None:
        """Tell the network of codes that were retired here."""
        codes = await self._codes.untold()
        if codes:
            await self._network.retire(codes)
            await self._codes.told(codes)
        else:
            await trio.sleep(PATIENCE)
