"""The daemons put together: an agency, the reference network, the reference registry.

Each runs until SIGTERM or SIGINT, finishes the commit and the requests under way, and ends with exit 0.
"""

import secrets
import signal
import ssl
from collections.abc import Awaitable, Callable, Sequence
from csv import DictReader
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import structlog
import trio
from cryptography import x509

from adapters.business.server import BusinessServer
from adapters.http import Client, Handler, client_context, serve, server_context
from adapters.network.client import NetworkClient
from adapters.network.reference.core import EVENTS as NETWORK_EVENTS
from adapters.network.reference.core import PROJECTIONS as NETWORK_PROJECTIONS
from adapters.network.reference.core import NetworkCore
from adapters.network.reference.server import NetworkServer
from adapters.network.worker import NetworkWorker
from adapters.platform.inprocess import Platform
from adapters.registry.acquirer import Acquirer
from adapters.registry.client import RegistryClient
from adapters.registry.reference import RegistryServer
from broker.addressing import person
from broker.addressing.office import Addressing
from broker.addressing.staging import Staging
from broker.intermediate import hold, inquiry, link_code, provision, records, replica, staff
from broker.ledger.folder import LedgerFolder
from broker.linkage import incoming, log, outgoing
from broker.linkage.crypto import CertificateInvalid, SealingKey, Signer, new_sealing_secret
from broker.linkage.interface import LinkageInterface
from ops.config import AgencyConfig, ConfigurationError, NetworkConfig, RegistryConfig, address
from ops.logs import now
from schemas.law import Agency

AGENCY_EVENTS = (
    *outgoing.EVENTS,
    *incoming.EVENTS,
    *staff.EVENTS,
    *link_code.EVENTS,
    *replica.EVENTS,
    *hold.EVENTS,
    *inquiry.EVENTS,
    *provision.EVENTS,
)
AGENCY_PROJECTIONS = (*records.PROJECTIONS, *log.PROJECTIONS)
ADDRESSING = "addressing"
T = TypeVar("T")
LOOPBACK = frozenset(("127.0.0.1", "::1", "localhost"))

logger = structlog.get_logger(__name__)


def agency_folder(data: Path, code: str) -> LedgerFolder:
    """The ledger of an agency: linkage and intermediate interface."""
    return LedgerFolder(data, f"renkei/{code}", AGENCY_EVENTS, AGENCY_PROJECTIONS, now)


def addressing_folder(data: Path, code: str) -> LedgerFolder:
    """The ledger of its addressing function, with a vault of its own."""
    return LedgerFolder(
        data / ADDRESSING, f"renkei/{code}/{ADDRESSING}", person.EVENTS, person.PROJECTIONS, now
    )


def network_folder(data: Path) -> LedgerFolder:
    return LedgerFolder(data, "renkei/network", NETWORK_EVENTS, NETWORK_PROJECTIONS, now)


async def until_told(
    body: Callable[[trio.Nursery], Awaitable[None]],
    name: str,
    folders: Sequence[LedgerFolder] = (),
    stop: Callable[[], None] = lambda: None,
) -> None:
    """Run a daemon's tasks until a signal, then `stop` and cancel them: what has begun is finished.

    The ledgers run until the tasks have ended, so that a request under way can still be recorded.
    """
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as ledgers:
            for folder in folders:
                await ledgers.start(folder.ledger.run)
                await ledgers.start(folder.follower.run)
            async with trio.open_nursery() as nursery:
                await body(nursery)
                logger.info("ready", daemon=name)
                async for number in signals:
                    logger.info("stopping", daemon=name, signal=signal.Signals(number).name)
                    stop()
                    nursery.cancel_scope.cancel()
                    break
            ledgers.cancel_scope.cancel()


async def _serve(
    nursery: trio.Nursery, handler: Handler, where: str, config: AgencyConfig | NetworkConfig | RegistryConfig
) -> None:
    host, port = address(where)
    await nursery.start(serve, handler, host, port, _context(server_context, config))


def _client(where: str, config: AgencyConfig | RegistryConfig) -> Client:
    return Client(*address(where), _context(client_context, config))


def _context(
    make: Callable[[Path, Path, Path], ssl.SSLContext],
    config: AgencyConfig | NetworkConfig | RegistryConfig,
) -> ssl.SSLContext:
    files = Path(config.tls_certificate), Path(config.tls_key), Path(config.authority)
    return _usable("tls_certificate, tls_key, authority", lambda: make(*files))


def _authority(config: AgencyConfig) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Path(config.authority).read_bytes())


def _signer(config: AgencyConfig | NetworkConfig) -> Signer:
    return Signer(Path(config.signing_certificate).read_bytes(), Path(config.signing_key).read_bytes())


def _usable(keys: str, make: Callable[[], T]) -> T:
    """What these keys of the configuration stand for. Raises ConfigurationError."""
    try:
        return make()
    except (OSError, ValueError, CertificateInvalid) as error:
        raise ConfigurationError(f"{keys}: {error}") from error


def run_agency(config: AgencyConfig) -> None:
    """`renkei serve`. Raises ConfigurationError."""
    if config.portal and not config.portal_certificate and address(config.portal)[0] not in LOOPBACK:
        raise ConfigurationError(f"portal {config.portal} is not a loopback address and has no certificate")
    authority = _usable("authority", lambda: _authority(config))
    agency = _usable("kind", lambda: Agency(config.code, config.name, config.kind))
    signer = _usable("signing_certificate, signing_key", lambda: _signer(config))
    data = Path(config.data)
    folder, people = agency_folder(data, config.code), addressing_folder(data, config.code)
    staging = Staging(data / ADDRESSING / "staging.sqlite")
    sealing = SealingKey(folder.vault.secret("sealing", new_sealing_secret))
    linkage = LinkageInterface(agency, signer, sealing, authority)
    addressing = Addressing(people.ledger, people.follower, staging, lambda: secrets.token_hex(16))
    platform = Platform(folder.ledger, folder.follower, linkage, addressing, now, secrets.token_bytes)
    network = NetworkClient(_client(config.network, config), _client(config.network, config))
    worker = NetworkWorker(platform, network, authority, now)
    acquirer = Acquirer(addressing, platform, RegistryClient(_client(config.registry, config)), network)

    async def body(nursery: trio.Nursery) -> None:
        link = await _portal(nursery, config, platform) if config.portal else None
        business = BusinessServer(platform, addressing, link)
        await _serve(nursery, business.handle, config.business, config)
        nursery.start_soon(worker.run)
        nursery.start_soon(acquirer.run)

    try:
        trio.run(until_told, body, config.code, (folder, people))
    finally:
        staging.close()
        people.close()
        folder.close()


async def _portal(nursery: trio.Nursery, config: AgencyConfig, platform: Platform) -> Callable[[str], str]:
    """Serve the portal; returns how to make a one-time login address."""
    from adapters.portal.login import Links
    from adapters.portal.pages import portal, serve_portal

    host, port = address(config.portal)
    secure = bool(config.portal_certificate)
    certificate = Path(config.portal_certificate) if secure else None
    key = Path(config.portal_key) if secure else None
    links = Links(now, lambda: secrets.token_urlsafe(32))
    app = portal(platform, links, secure=secure)
    port = await nursery.start(serve_portal, app, host, port, certificate, key)
    scheme = "https" if secure else "http"
    return lambda integrated_number: f"{scheme}://{host}:{port}/login?token={links.issue(integrated_number)}"


def run_network(config: NetworkConfig) -> None:
    """`renkei network`."""
    signer = _usable("signing_certificate, signing_key", lambda: _signer(config))
    admitted = _usable("agencies", lambda: {agency[0]: Agency(*agency) for agency in config.agencies})
    data = Path(config.data)
    folder = network_folder(data)
    staging = Staging(data / "staging.sqlite")
    core = NetworkCore(folder, staging, signer, admitted, timedelta(minutes=config.permit_minutes), now)

    async def body(nursery: trio.Nursery) -> None:
        await _serve(nursery, NetworkServer(core).handle, config.listen, config)

    try:
        trio.run(until_told, body, "network", (folder,), core.stop_polls)
    finally:
        staging.close()
        folder.close()


def run_registry(config: RegistryConfig) -> None:
    """`renkei registry`."""
    with Path(config.register).open(encoding="cp932", newline="") as file:
        register = {row["individual_number"]: row["resident_record_code"] for row in DictReader(file)}
    server = RegistryServer(register, _client(config.network, config))

    async def body(nursery: trio.Nursery) -> None:
        await _serve(nursery, server.handle, config.listen, config)

    trio.run(until_told, body, "registry")
