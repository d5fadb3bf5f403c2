"""The parties of a run, put together as the daemons put theirs, and what all runs of a process start from.

A world is furnished once in a process: keys and certificates, agencies that know some people each, their
codes, records and staff. Every run then begins with a copy of its stores and files.
"""

import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache, partial
from math import inf
from pathlib import Path
from random import Random, random

import trio
from cryptography import x509

from adapters.business.client import BusinessClient
from adapters.business.server import BusinessServer
from adapters.network import client as network_client
from adapters.network import worker as network_worker
from adapters.network.client import NetworkClient
from adapters.network.reference import core as network
from adapters.network.reference import server as network_server
from adapters.network.reference.core import NetworkCore
from adapters.network.reference.registration import Terms, Trust
from adapters.network.reference.server import NetworkServer
from adapters.network.schedule import Backoff
from adapters.network.worker import NetworkWorker
from adapters.platform.inprocess import Platform
from adapters.registry import acquirer
from adapters.registry.acquirer import Acquirer
from adapters.registry.client import RegistryClient
from adapters.registry.reference import RegistryServer
from broker.addressing import person
from broker.addressing.office import Addressing
from broker.addressing.staging import Staging
from broker.ledger.folder import LedgerFolder
from broker.ledger.ledger import Ledger
from broker.ledger.projections import ProjectionTables
from broker.ledger.store import SignCheckpoint
from broker.linkage import partners
from broker.linkage.crypto import NOTHING_REVOKED, SealingKey, Signer, new_sealing_secret
from broker.linkage.interface import LinkageInterface
from broker.linkage.partners import NETWORK, agency_uri
from ops.certificates import create_authority, issue
from ops.daemons import ADDRESSING, AGENCY_EVENTS, AGENCY_PROJECTIONS
from ops.logs import JST
from ops.simulate.clockwork import Clockwork, Party, Process, replaced
from ops.simulate.disks import Disk
from ops.simulate.lines import Line, Weather, Wires
from ops.synthetic import Person, assessments_of, make_people, residents_of
from schemas.law import Agency

START = datetime(2026, 11, 21, 9, 30, tzinfo=JST)
PERMIT_LIFE = timedelta(hours=2)
SKEW = 120.0  # seconds that a clock may be wrong by
PAUSE = 120.0  # seconds between two attempts at most
TENDED = 7200.0  # seconds between two looks at what has become due
POLL = 6 * 3600.0  # seconds
INFORMATION = "地方税関係情報"
ROWS = ("81", "106", "3", "20", "2")
"""Rows of the law that staff may ask and answer under; which agencies each permits, the table says."""
KINDS = (
    "city",
    "city",
    "city",
    "designated_city",
    "town",
    "special_ward",
    "prefecture",
    "health_insurance_society",
)
SEED = 20261121  # of what all runs start from
PER_AGENCY = 8  # people that an agency knows
NETWORK_NAME, REGISTRY_NAME = "network", "registry"
_DIRECTORY = 50_000  # bytes: only directories are longer, and nothing in them is about a person
_CODE = re.compile(rb"[0-9a-f]{32}")


@dataclass(frozen=True)
class Furniture:
    """What all runs of a process share: who there is, their keys, and who lives where."""

    agencies: Mapping[str, Agency]
    people: tuple[Person, ...]
    known: Mapping[str, tuple[int, ...]]  # agency -> the people it knows, by their place in `people`
    numbers: Mapping[str, tuple[str, ...]]  # agency -> the integrated number of each of `people` there
    signers: Mapping[str, Signer]  # by the name of the party; the same certificate stands for its lines
    authority: x509.Certificate
    terms: Terms  # what the network publishes


def municipal_code(index: int) -> str:
    """A code of the fictional prefecture 99, with its check digit."""
    digits = f"99{index:03d}"
    total = sum(int(digit) * weight for digit, weight in zip(digits, (6, 5, 4, 3, 2), strict=True))
    return f"{digits}{(11 - total % 11) % 10}"


def furnish(folder: Path, count: int) -> Furniture:
    """Invent the parties, and make their keys."""
    rng = Random(SEED)  # noqa: S311 # it has to be repeatable, not secret
    agencies = [
        Agency(municipal_code(i), f"例示{i}", KINDS[(i - 1) % len(KINDS)]) for i in range(1, count + 1)
    ]
    people = tuple(make_people(SEED, max(2 * PER_AGENCY, 2 * count // 3)))
    names = {NETWORK_NAME: NETWORK, REGISTRY_NAME: "urn:renkei:registry"}
    names |= {a.code: agency_uri(a.code) for a in agencies}
    names |= {business(a.code): f"urn:renkei:business:{a.code}" for a in agencies}
    create_authority(folder, clock=lambda: START)
    signers = {}
    for name, uri in names.items():
        issue(folder, name, uri, purpose="signing", clock=lambda: START)
        stem = folder / f"{name}-signing"
        signers[name] = Signer(stem.with_suffix(".pem").read_bytes(), stem.with_suffix(".key").read_bytes())
    return Furniture(
        agencies={a.code: a for a in agencies},
        terms=Terms(timedelta(days=1), timedelta(days=3), assessments_of(a.code for a in agencies)),
        people=people,
        known={a.code: tuple(sorted(rng.sample(range(len(people)), PER_AGENCY))) for a in agencies},
        numbers={
            a.code: tuple(r.integrated_number for r in residents_of(people, a.code, a.name, SEED))
            for a in agencies
        },
        signers=signers,
        authority=x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes()),
    )


def business(agency: str) -> str:
    """The name of an agency's business system on its line."""
    return f"business-{agency}"


@dataclass(frozen=True)
class Office:
    """What a running agency has open."""

    folder: LedgerFolder
    people: LedgerFolder
    staging: Staging
    platform: Platform


@dataclass(frozen=True)
class Hub:
    """What the running network has open."""

    folder: LedgerFolder
    staging: Staging
    core: NetworkCore


_read = lru_cache(maxsize=64)(partners._directory)


STRETCHED = (
    # Idle waiting: whatever comes ends it at once, so that nothing but quiet is skipped.
    (network_client, "POLL", POLL),
    (network_server, "MAX_WAIT", POLL),
    (network_worker, "DIRECTORY_LIFE", POLL),
    (acquirer, "PATIENCE", TENDED),
    (network_worker, "LOOK_AGAIN", TENDED),
    (network_worker.persist, "__defaults__", (Backoff(longest=PAUSE), random)),
    # Nobody but this process appends to its ledgers, so that nobody looks for the appends of others.
    (Ledger.wait_beyond, "__kwdefaults__", {**(Ledger.wait_beyond.__kwdefaults__ or {}), "poll": inf}),
    # Nobody reads while another writes, so that no reader needs a connection of its own.
    (
        ProjectionTables,
        "query",
        lambda tables, sql, parameters=(): tables._rows.execute(sql, parameters).fetchall(),
    ),
    # A hundred agencies read one and the same configuration; it is taken apart once.
    (partners, "_directory", lambda *parts: _read(*parts[:-1], START)),
)


@contextmanager
def stretched() -> Iterator[None]:
    """With the changes of STRETCHED."""
    with ExitStack() as stack:
        for target, name, value in STRETCHED:
            stack.enter_context(replaced(target, name, value))
        yield


class World:
    """The parties of one run. `folder` holds their files, `disks` their stores by the ledger's origin."""

    def __init__(
        self, clockwork: Clockwork, furniture: Furniture, folder: Path, disks: Mapping[str, Disk]
    ) -> None:
        self.clockwork = clockwork
        self.furniture = furniture
        self.folder = folder
        self.disks = {origin: disk.copy(clockwork) for origin, disk in disks.items()}
        self.skews: dict[str, float] = {}
        self.offices: dict[str, Office] = {}
        self.hub: Hub | None = None
        self.heard: dict[str, set[bytes]] = defaultdict(set)  # party -> what may be a link code
        self.parties = {
            NETWORK_NAME: Party(clockwork, NETWORK_NAME, self._network),
            REGISTRY_NAME: Party(clockwork, REGISTRY_NAME, self._registry),
        }
        for code in furniture.agencies:
            self.parties[code] = Party(clockwork, code, self._agency)
        self.wires: Wires

    def connect(self, nursery: trio.Nursery, weather: Weather) -> None:
        """Lay the lines; what travels on them is carried by tasks of this nursery."""
        self.wires = Wires(self.clockwork, nursery, weather, self.parties, self._hear)

    def _hear(self, party: str, body: bytes) -> None:
        if len(body) < _DIRECTORY:
            self.heard[party].update(_CODE.findall(body))

    def clock(self, name: str) -> datetime:
        """What the clock on this party's wall shows."""
        return START + timedelta(seconds=trio.current_time() + self.skews.get(name, 0.0))

    def line(self, sender: str, receiver: str) -> Line:
        certificate = self.furniture.signers[sender].identity.certificate
        return self.wires.line(sender, certificate, receiver)

    def business(self, agency: str) -> BusinessClient:
        """The end of an agency's business system."""
        return BusinessClient(self.line(business(agency), agency))

    def _store(self, origin: str, sign: SignCheckpoint) -> Disk:
        if origin not in self.disks:
            self.disks[origin] = Disk(origin, sign, self.clockwork)
        return self.disks[origin]

    async def _agency(self, process: Process) -> None:
        code = process.name
        clock = partial(self.clock, code)
        data, random_bytes = self.folder / code, self.clockwork.rng.randbytes
        with ExitStack() as stack:
            folder = stack.enter_context(
                closing(
                    LedgerFolder(
                        data, f"renkei/{code}", AGENCY_EVENTS, AGENCY_PROJECTIONS, clock, self._store
                    )
                )
            )
            people = stack.enter_context(
                closing(
                    LedgerFolder(
                        data / ADDRESSING,
                        f"renkei/{code}/{ADDRESSING}",
                        person.EVENTS,
                        person.PROJECTIONS,
                        clock,
                        self._store,
                    )
                )
            )
            staging = stack.enter_context(closing(Staging(data / ADDRESSING / "staging.sqlite")))
            sealing = SealingKey(folder.vault.secret("sealing", new_sealing_secret))
            furniture = self.furniture
            linkage = LinkageInterface(
                furniture.agencies[code], furniture.signers[code], sealing, furniture.authority
            )
            addressing = Addressing(people.ledger, people.follower, staging, lambda: random_bytes(16).hex())
            platform = Platform(folder.ledger, folder.follower, linkage, addressing, clock, random_bytes)
            client = NetworkClient(self.line(code, NETWORK_NAME), self.line(code, NETWORK_NAME))
            worker = NetworkWorker(platform, client, furniture.authority, lambda: linkage.signer, clock)
            acquirer = Acquirer(addressing, platform, RegistryClient(self.line(code, REGISTRY_NAME)), client)
            door = BusinessServer(platform, addressing, None, network=client)
            self.offices[code] = Office(folder, people, staging, platform)
            async with _running(folder, people), process.serving(door.handle) as nursery:
                nursery.start_soon(worker.run)
                nursery.start_soon(acquirer.run)
                nursery.start_soon(network_worker.persist, "due", partial(_tend, platform))
                await trio.sleep_forever()

    async def _network(self, process: Process) -> None:
        clock = partial(self.clock, process.name)
        data = self.folder / process.name
        with (
            closing(
                LedgerFolder(data, "renkei/network", network.EVENTS, network.PROJECTIONS, clock, self._store)
            ) as folder,
            closing(Staging(data / "staging.sqlite")) as staging,
        ):
            furniture = self.furniture
            signer = furniture.signers[process.name]
            trust = Trust(furniture.authority, lambda: signer, lambda: NOTHING_REVOKED)
            core = NetworkCore(
                folder, staging, trust, furniture.agencies, PERMIT_LIFE, furniture.terms, clock
            )
            self.hub = Hub(folder, staging, core)
            async with _running(folder), process.serving(NetworkServer(core).handle):
                await trio.sleep_forever()

    async def _registry(self, process: Process) -> None:
        register = {p.individual_number: p.resident_record_code for p in self.furniture.people}
        server = RegistryServer(register, self.line(process.name, NETWORK_NAME))
        async with process.serving(server.handle):
            await trio.sleep_forever()


async def _tend(platform: Platform) -> None:
    """What is held under a permit that has lapsed is ended."""
    await platform.expire(platform.clock())
    await trio.sleep(TENDED)


@asynccontextmanager
async def _running(*folders: LedgerFolder) -> AsyncIterator[None]:
    """Ledgers that write, and projections that follow, until the end of the block."""
    async with trio.open_nursery() as nursery:
        for folder in folders:
            await nursery.start(folder.ledger.run)
            await nursery.start(folder.follower.run)
        yield
        nursery.cancel_scope.cancel()
