"""An agency's acquirer at work until nothing is left to be done, and a registry that knows of changes."""

from collections.abc import Collection, Mapping
from types import MappingProxyType

import trio

from adapters.platform.link_codes import LinkCodes
from adapters.registry.acquirer import Acquirer, AcquisitionDesk
from adapters.registry.client import RegistryClient
from adapters.registry.reference import RegistryServer
from tests.house import House, Line, Town

PATIENCE = 60.0  # seconds, so that what never happens fails instead of hanging
NOTHING: Mapping[str, str] = MappingProxyType({})


def registry_of(
    house: House, town: Town, renumbered: Collection[str] = (), former: Mapping[str, str] = NOTHING
) -> RegistryClient:
    """A registry over the register of the house that knows which numbers and record codes were changed."""
    server = RegistryServer(house.register, house.registry_line, renumbered, former)
    return RegistryClient(Line(house.keys.on_the_line(town.agency.code), server.handle))


def codes_of(town: Town) -> LinkCodes:
    return LinkCodes(town.platform.ledger, town.platform.follower)


def desk_of(town: Town) -> AcquisitionDesk:
    return AcquisitionDesk(town.addressing, codes_of(town))


async def until_settled(house: House, town: Town, registry: RegistryClient | None = None) -> None:
    """Run the acquirer until nobody waits, nothing lies at the network, and nothing is left to be told."""
    acquirer = Acquirer(town.addressing, town.platform, registry or town.registry, town.client)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(acquirer.run)
            while (  # noqa: ASYNC110 # what is waited for is in three stores
                await town.addressing.acquisitions()
                or await house.core.codes.waiting(town.agency.code, 0)
                or await codes_of(town).untold()
            ):
                await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
