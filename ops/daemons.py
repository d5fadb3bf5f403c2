"""The daemons put together: an agency, the reference network, the reference registry.

Each runs until SIGTERM or SIGINT, finishes the commit and the requests under way, and ends with exit 0.
"""

import secrets
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import structlog
import trio
from cryptography import x509
from eventsourcing.persistence import PersistenceError

from adapters.business.server import BusinessServer
from adapters.http import Client, Handler, Revoked, Tls, client_context, guarded, serve, server_context
from adapters.network.client import NetworkClient
from adapters.network.reference.core import EVENTS as NETWORK_EVENTS
from adapters.network.reference.core import PROJECTIONS as NETWORK_PROJECTIONS
from adapters.network.reference.core import NetworkCore
from adapters.network.reference.registration import Terms, Trust
from adapters.network.reference.server import NetworkServer
from adapters.network.schedule import read_schedule
from adapters.network.worker import NetworkWorker, persist
from adapters.platform.inprocess import Platform
from adapters.registry.acquirer import Acquirer
from adapters.registry.client import RegistryClient
from adapters.registry.reference import RegistryServer
from adapters.renewal import Renewed
from adapters.witness.client import WitnessClient, seal
from adapters.witness.server import WitnessServer
from broker.addressing import person
from broker.addressing.office import Addressing
from broker.addressing.staging import Staging
from broker.intermediate import (
    approval,
    code_request,
    correction,
    disclosure,
    editing,
    hold,
    inquiry,
    link_code,
    notice,
    office,
    operation,
    provision,
    received_notice,
    records,
    replica,
    requests,
    resident_notice,
    second_person,
    sign_in,
    staff,
)
from broker.ledger.files import ensure_private_file
from broker.ledger.folder import LedgerFolder
from broker.ledger.merkle import ProofInvalid
from broker.ledger.notes import Kind, NoteInvalid, NoteSigner
from broker.ledger.store import SignCheckpoint, Store
from broker.ledger.vault import Vault
from broker.ledger.witness import Witness, logs_in
from broker.linkage import incoming, log, outgoing
from broker.linkage.crypto import (
    NOTHING_REVOKED,
    CertificateInvalid,
    Revocations,
    SealingKey,
    Signer,
    new_classical_secret,
    new_sealing_secret,
    read_revocations,
)
from broker.linkage.interface import LinkageInterface
from ops.config import AgencyConfig, ConfigurationError, NetworkConfig, RegistryConfig, address
from ops.logs import now
from schemas.law import Agency
from schemas.law.assessments import read_assessments
from schemas.law.lines import cells

if TYPE_CHECKING:
    from broker.ledger.postgres import PostgresDatabase

AGENCY_EVENTS = (
    *outgoing.EVENTS,
    *incoming.EVENTS,
    *staff.EVENTS,
    *office.EVENTS,
    *second_person.EVENTS,
    *editing.EVENTS,
    *operation.EVENTS,
    *sign_in.EVENTS,
    *link_code.EVENTS,
    *code_request.EVENTS,
    *replica.EVENTS,
    *hold.EVENTS,
    *disclosure.EVENTS,
    *inquiry.EVENTS,
    *provision.EVENTS,
    *correction.EVENTS,
    *notice.EVENTS,
    *received_notice.EVENTS,
    *resident_notice.EVENTS,
)
AGENCY_PROJECTIONS = (
    *records.PROJECTIONS,
    *requests.PROJECTIONS,
    *code_request.PROJECTIONS,
    *operation.PROJECTIONS,
    *hold.PROJECTIONS,
    *disclosure.PROJECTIONS,
    *approval.PROJECTIONS,
    *received_notice.PROJECTIONS,
    *resident_notice.PROJECTIONS,
    *log.PROJECTIONS,
)
ADDRESSING = "addressing"
T = TypeVar("T")
Witnesses = Callable[[], Sequence[WitnessClient]]
OpenStore = Callable[[str, SignCheckpoint], Store]
EXPIRY_SECONDS = 60.0
"""How often what is held under a lapsed permit is looked for; nothing is decided on one in between either."""
LOOPBACK = frozenset(("127.0.0.1", "::1", "localhost"))

logger = structlog.get_logger(__name__)


def agency_folder(data: Path, code: str, open_store: OpenStore | None = None) -> LedgerFolder:
    """The ledger of an agency: linkage and intermediate interface."""
    return LedgerFolder(data, f"renkei/{code}", AGENCY_EVENTS, AGENCY_PROJECTIONS, now, open_store)


def addressing_folder(data: Path, code: str, open_store: OpenStore | None = None) -> LedgerFolder:
    """The ledger of its addressing function, with a vault of its own."""
    return LedgerFolder(
        data / ADDRESSING,
        f"renkei/{code}/{ADDRESSING}",
        person.EVENTS,
        person.PROJECTIONS,
        now,
        open_store,
    )


def network_folder(data: Path, open_store: OpenStore | None = None) -> LedgerFolder:
    return LedgerFolder(data, "renkei/network", NETWORK_EVENTS, NETWORK_PROJECTIONS, now, open_store)


@contextmanager
def opened_database(store: str) -> Iterator["PostgresDatabase | None"]:
    """The database at this address, or None for events in the folders of their ledgers (sqlite)."""
    if store == "sqlite":
        yield None
        return
    from broker.ledger.postgres import PostgresDatabase

    with closing(PostgresDatabase(store)) as database:
        yield database


@contextmanager
def opened_stores(store: str) -> Iterator[OpenStore | None]:
    """How this process opens its ledgers' stores: through one pool, or None for files in their folders."""
    with opened_database(store) as database:
        yield database.store if database else None


def open_ledger(path: Path, origin: str, open_store: OpenStore | None) -> LedgerFolder:
    """The ledger that lies here: of which kind it is, its origin tells."""
    _, *rest = origin.split("/")
    if rest == ["network"]:
        return network_folder(path, open_store)
    if rest[1:] == [ADDRESSING]:
        return addressing_folder(path.parent, rest[0], open_store)
    return agency_folder(path, rest[0], open_store)


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
    nursery: trio.Nursery,
    handler: Handler,
    where: str,
    config: AgencyConfig | NetworkConfig | RegistryConfig,
    revocations: Callable[[], Revocations],
) -> None:
    host, port = address(where)
    door = guarded(handler, _revoked(revocations))
    await nursery.start(serve, door, host, port, _context(server_context, config))


def _client(
    where: str, config: AgencyConfig | RegistryConfig, revocations: Callable[[], Revocations]
) -> Client:
    return Client(*address(where), _context(client_context, config), _revoked(revocations))


def _revoked(revocations: Callable[[], Revocations]) -> Revoked:
    return lambda certificate: revocations().revoked(certificate, now())


def _listed(config: NetworkConfig | RegistryConfig) -> Callable[[], Revocations]:
    """What the list of revoked certificates says now."""
    if not config.crl:
        return lambda: NOTHING_REVOKED
    path, authority = Path(config.crl), _usable("authority", lambda: _authority(config))
    return _usable("crl", lambda: Renewed(lambda: read_revocations(path.read_bytes(), authority), path))


def _context(
    make: Callable[[Path, Path, Path], Tls],
    config: AgencyConfig | NetworkConfig | RegistryConfig,
) -> Tls:
    files = Path(config.tls_certificate), Path(config.tls_key), Path(config.authority)
    return _usable("tls_certificate, tls_key, authority", lambda: make(*files))


def _authority(config: AgencyConfig | NetworkConfig | RegistryConfig) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Path(config.authority).read_bytes())


def _signer(config: AgencyConfig | NetworkConfig) -> Renewed[Signer]:
    certificate, key = Path(config.signing_certificate), Path(config.signing_key)
    return Renewed(lambda: Signer(certificate.read_bytes(), key.read_bytes()), certificate, key)


def sealing_key(config: AgencyConfig, vault: Vault) -> SealingKey:
    """The key for which partners seal. Raises ConfigurationError."""
    if config.sealing == "classical":
        return SealingKey(vault.secret("sealing_classical", new_classical_secret))
    if config.sealing != "hybrid":
        raise ConfigurationError(f"sealing: {config.sealing} is neither hybrid nor classical")
    return SealingKey(vault.secret("sealing", new_sealing_secret))


def _usable(keys: str, make: Callable[[], T]) -> T:
    """What these keys of the configuration stand for. Raises ConfigurationError."""
    try:
        return make()
    except (OSError, ValueError, CertificateInvalid) as error:
        raise ConfigurationError(f"{keys}: {error}") from error


async def keep_sealed(
    folders: Sequence[LedgerFolder], config: AgencyConfig | NetworkConfig, witnesses: Sequence[Witnesses]
) -> None:
    """Seal the latest checkpoint of each ledger from time to time. Who is away is asked again next time."""
    while True:
        await trio.sleep(config.seal_seconds)
        for folder, of_folder in zip(folders, witnesses, strict=True):
            log = logger.bind(ledger=folder.ledger.name)
            try:
                sealed = await seal(folder.ledger.store, [folder.sealing_signer], of_folder(), now)
                if sealed.lines:
                    log.info("sealed", size=sealed.size, signatures=len(sealed.lines))
                for refusal in sealed.missing:
                    log.warning("not cosigned", code=refusal.code, detail=refusal.detail)
            except* (PersistenceError, NoteInvalid, ProofInvalid, OSError) as group:
                # Alone, or of several witnesses at once: a store that is away ends no daemon.
                log.warning("not sealed", errors=[str(error) for error in group.exceptions])


def _witnesses(config: AgencyConfig, revocations: Callable[[], Revocations]) -> Witnesses:
    """The witnesses of one ledger; connected when first used, once their keys are there."""
    known: list[WitnessClient] = []

    def connected() -> Sequence[WitnessClient]:
        for where, prefix, file in config.witnesses[len(known) :]:
            keys = Path(file).read_text(encoding="utf-8").splitlines()
            known.append(WitnessClient(_client(where, config, revocations), prefix, keys))
        return known

    return connected


def run_agency(config: AgencyConfig) -> None:
    """`renkei serve`. Raises ConfigurationError."""
    if config.portal and not config.portal_certificate and address(config.portal)[0] not in LOOPBACK:
        raise ConfigurationError(f"portal {config.portal} is not a loopback address and has no certificate")
    authority = _usable("authority", lambda: _authority(config))
    agency = _usable("kind", lambda: _agency(config.code, config.name, config.kind))
    signer = _usable("signing_certificate, signing_key", lambda: _signer(config))
    schedule = _usable(
        "bulk_bytes_per_second, bulk_hours",
        lambda: read_schedule(config.bulk_bytes_per_second, config.bulk_hours),
    )
    data = Path(config.data)
    with opened_stores(config.store) as open_store, ExitStack() as stack:
        folder = stack.enter_context(closing(agency_folder(data, config.code, open_store)))
        people = stack.enter_context(closing(addressing_folder(data, config.code, open_store)))
        staging = stack.enter_context(closing(Staging(data / ADDRESSING / "staging.sqlite")))
        witness = stack.enter_context(closing(_witness(folder, data))) if config.witness else None
        linkage = LinkageInterface(agency, signer(), sealing_key(config, folder.vault), authority)

        def revocations() -> Revocations:
            return linkage.directory.revocations if linkage.directory is not None else NOTHING_REVOKED

        addressing = Addressing(people.ledger, people.follower, staging, lambda: secrets.token_hex(16))
        platform = Platform(folder.ledger, folder.follower, linkage, addressing, now, secrets.token_bytes)
        network = NetworkClient(*(_client(config.network, config, revocations) for _ in range(2)))
        worker = NetworkWorker(platform, network, authority, signer, now, schedule)
        registry = RegistryClient(_client(config.registry, config, revocations)) if config.registry else None
        acquirer = Acquirer(addressing, platform, registry, network)

        async def expire() -> None:
            await platform.expire(now())
            await trio.sleep(EXPIRY_SECONDS)

        async def body(nursery: trio.Nursery) -> None:
            link = await _portal(nursery, config, platform) if config.portal else None
            business = BusinessServer(
                platform, addressing, link, timedelta(hours=config.sign_in_hours), network
            )
            await _serve(nursery, business.handle, config.business, config, revocations)
            nursery.start_soon(worker.run)
            nursery.start_soon(acquirer.run)
            nursery.start_soon(persist, "expiry", expire)
            nursery.start_soon(
                keep_sealed,
                (folder, people),
                config,
                (_witnesses(config, revocations), _witnesses(config, revocations)),
            )
            if witness is not None:
                door = WitnessServer(witness, "/witness", now)
                await _serve(nursery, door.handle, config.witness, config, revocations)

        trio.run(until_told, body, config.code, (folder, people))


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
    authority = _usable("authority", lambda: _authority(config))
    revocations = _listed(config)
    admitted = _usable("agencies", lambda: {agency[0]: _agency(*agency) for agency in config.agencies})
    data = Path(config.data)
    with (
        opened_stores(config.store) as open_store,
        closing(network_folder(data, open_store)) as folder,
        closing(Staging(data / "staging.sqlite")) as staging,
        closing(_witness(folder, data)) as witness,
    ):
        core = NetworkCore(
            folder,
            staging,
            Trust(authority, signer, revocations),
            admitted,
            timedelta(minutes=config.permit_minutes),
            _terms(config),
            now,
        )
        server = NetworkServer(core, WitnessServer(witness, "/witness", now))

        async def body(nursery: trio.Nursery) -> None:
            await _serve(nursery, server.handle, config.listen, config, revocations)
            nursery.start_soon(keep_sealed, (folder,), config, (tuple,))

        trio.run(until_told, body, "network", (folder,), core.stop_polls)


def _agency(code: str, name: str, kind: str) -> Agency:
    """Of the configuration: after the kind stand the capacities. Raises ValueError for unknown ones."""
    kind, *capacities = kind.split()
    return Agency(code, name, kind, frozenset(capacities))


def _terms(config: NetworkConfig) -> Terms:
    """What the network publishes; a line that cannot be read permits nothing, and is in the log."""
    assessments = ordinances = ""
    if config.assessments:
        assessments = _usable("assessments", lambda: Path(config.assessments).read_text(encoding="utf-8"))
        for fault in read_assessments(assessments)[1]:
            logger.warning("assessment left out", line=fault.line, item=fault.item, code=fault.code)
    if config.ordinances:
        ordinances = _usable("ordinances", lambda: Path(config.ordinances).read_text(encoding="utf-8"))
    return Terms(
        timedelta(seconds=config.configuration_seconds),
        timedelta(seconds=config.grace_seconds),
        cells(assessments),
        cells(ordinances),
    )


def _witness(folder: LedgerFolder, data: Path) -> Witness:
    """This process as a witness of others' logs: of those whose verifier keys lie in `logs`."""
    name = f"{folder.ledger.name}/witness"
    secret = folder.vault.secret("witness", lambda: secrets.token_bytes(32))
    signer = NoteSigner(name, secret, Kind.COSIGNATURE)
    (data / "logs").mkdir(exist_ok=True, mode=0o700)
    ensure_private_file(data / "witness.vkey", f"{signer.verifier_key}\n".encode())
    return Witness(data / "witness.sqlite", [signer], logs_in(data / "logs"))


def run_registry(config: RegistryConfig) -> None:
    """`renkei registry`."""
    revocations = _listed(config)
    server = RegistryServer.read(Path(config.register), _client(config.network, config, revocations))

    async def body(nursery: trio.Nursery) -> None:
        await _serve(nursery, server.handle, config.listen, config, revocations)

    trio.run(until_told, body, "registry")
