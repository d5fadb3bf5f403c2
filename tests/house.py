"""Three cities, a network and a registry in one process: real keys, ledgers and doors; a clock that is told.

The lines between them are either calls of the other side's door (a test can then alter, drop or repeat what
goes through) or, with `sockets`, HTTP over mutual TLS.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path
from shutil import copytree
from typing import Any, Literal
from urllib.parse import parse_qsl

import pytest
import trio
from cryptography import x509

from adapters.http import Client, Handler, Peer, Request, Response, client_context, serve, server_context
from adapters.network.client import NetworkClient
from adapters.network.reference import core as network
from adapters.network.reference.registration import Terms, Trust
from adapters.network.reference.server import NetworkServer
from adapters.network.worker import NetworkWorker
from adapters.platform.asking import InquiryOrder, InquiryResult
from adapters.platform.code_requests import CodeRequests
from adapters.platform.inprocess import Platform
from adapters.platform.link_codes import LinkCodes
from adapters.registry.acquirer import Acquirer
from adapters.registry.client import RegistryClient
from adapters.registry.reference import RegistryServer
from broker.addressing import person
from broker.addressing.office import Addressing
from broker.addressing.staging import Staging
from broker.intermediate.staff import AuthorityGranted
from broker.ledger.events import Recorded
from broker.ledger.folder import LedgerFolder
from broker.ledger.ledger import Ledger
from broker.linkage.crypto import NOTHING_REVOKED, SealingKey, Signer, new_sealing_secret
from broker.linkage.interface import LinkageInterface
from broker.linkage.outgoing import MessageQueued
from broker.linkage.partners import NETWORK, agency_uri, read_directory
from ops.certificates import create_authority, issue
from ops.daemons import ADDRESSING, AGENCY_EVENTS, AGENCY_PROJECTIONS
from ops.logs import JST
from ops.synthetic import assessments_of, income_of, make_people, residents_of
from schemas.errors import Refusal
from schemas.items import layout
from schemas.law import Agency
from schemas.law.necessity import necessary_items
from schemas.messages import Delivery, NetworkVerdict

START = datetime(2026, 11, 21, 9, 30, tzinfo=JST)
PERMIT_LIFE = timedelta(hours=1)
ASKING = Agency("990019", "連携市", "city")
ANSWERING = Agency("990027", "見本市", "city")
OTHER = Agency("990035", "例示市", "city")
AGENCIES = (ASKING, ANSWERING, OTHER)
TERMS = Terms(timedelta(days=1), timedelta(days=3), assessments_of(a.code for a in AGENCIES))
REGISTRY = "urn:renkei:registry"
SEED = 20261121
OFFICE, OFFICER = "子育て支援課", "s0001"
ROW, INFORMATION, LAYOUT, YEAR = "81", "地方税関係情報", "income_tax_certificate/1", "2026"
PEOPLE = make_people(SEED, 5)
LOG_COLUMNS = (
    "position",
    "at",
    "direction",
    "kind",
    "message_id",
    "partner",
    "processing_number",
    "checks",
    "step",
    "code",
)
STORED, NO_RECORD, NO_CODE = (0, 1, 2), 3, 4
"""見本市 holds records of the first three people, none of the fourth, and does not know the fifth."""
RESIDENTS = {a.code: residents_of(PEOPLE, a.code, a.name, SEED) for a in AGENCIES}


def resident(agency: Agency, index: int) -> str:
    """The integrated address number of one of PEOPLE in an agency."""
    return RESIDENTS[agency.code][index].integrated_number


def income(index: int, year: str = YEAR) -> dict[str, Any]:
    """A record whose amounts are found nowhere by chance: asked for under row 81, and not asked for."""
    record = income_of(RESIDENTS[ANSWERING.code][index : index + 1], year, SEED)[0]
    asked, unasked = f"86753091{year}{index}", f"76543219{year}{index}"
    return {**record.payload, "total_income": asked, "annual_tax": unasked}


NECESSARY = necessary_items(ROW, layout(LAYOUT))


def asked_of(index: int, year: str = YEAR) -> dict[str, Any]:
    """What an answer under row 81 says about one of PEOPLE."""
    return {item: income(index, year)[item] for item in NECESSARY}


def order(request_id: str, *people: int, **changes: Any) -> InquiryOrder:
    """連携市 asks 見本市 about people under row 81."""
    subjects = tuple(resident(ASKING, index) for index in people)
    asked = InquiryOrder(request_id, OFFICER, ANSWERING.code, ROW, INFORMATION, LAYOUT, YEAR, subjects)
    return replace(asked, **changes)


class Clock:
    """Stands still until told to go on."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, span: timedelta) -> None:
        self.now += span


class Draw:
    """Repeatable bytes in place of random ones."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._count = count()

    def __call__(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += sha256(f"{self._seed}/{next(self._count)}".encode()).digest()
        return data[:size]


class Keys:
    """The certificates of everybody: for messages valid from START on, for lines (TLS) from now on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._messages, self._lines = folder / "messages", folder / "lines"
        self._made = count()
        names = {"network": NETWORK, "registry": REGISTRY} | {a.code: agency_uri(a.code) for a in AGENCIES}
        create_authority(self._messages, clock=lambda: START)
        create_authority(self._lines)
        for name, uri in names.items():
            issue(self._messages, name, uri, purpose="signing", clock=lambda: START)
            issue(self._lines, name, uri, purpose="tls")

    @property
    def authority(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self._messages / "ca.pem").read_bytes())

    def signer(self, name: str) -> Signer:
        stem = self._messages / f"{name}-signing"
        return Signer(stem.with_suffix(".pem").read_bytes(), stem.with_suffix(".key").read_bytes())

    def new_signer(self, uri: str, *, at: datetime = START) -> Signer:
        """Another certificate of the same authority."""
        name = f"made-{next(self._made)}"
        issue(self._messages, name, uri, purpose="signing", clock=lambda: at)
        return self.signer(name)

    def new_line(self, uri: str) -> str:
        """A certificate for lines under this name; returns what to call it by."""
        name = f"made-{next(self._made)}"
        issue(self._lines, name, uri, purpose="tls")
        return name

    def on_the_line(self, name: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self._lines / f"{name}-tls.pem").read_bytes())

    def line_files(self, name: str) -> tuple[Path, Path, Path]:
        stem = self._lines / f"{name}-tls"
        return stem.with_suffix(".pem"), stem.with_suffix(".key"), self._lines / "ca.pem"


class Line(Client):
    """A line without sockets: what is asked goes straight to the door of the other side."""

    def __init__(self, certificate: x509.Certificate, handler: Handler) -> None:
        self._peer = Peer(certificate)
        self._handler = handler

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        timeout: float = 30.0,  # noqa: ASYNC109 # as the line that it stands for
    ) -> Response:
        route, _, query = path.partition("?")
        return await self._handler(Request(self._peer, method, route, dict(parse_qsl(query)), body))

    async def aclose(self) -> None:
        """Nothing is open."""


class Town:
    """One agency with all that it has. Its network and its registry are reached over lines of the house."""

    def __init__(self, house: "House", agency: Agency) -> None:
        self._house = house
        self._tokens = Draw(f"tokens/{agency.code}/{house.opening}")
        self.agency = agency
        self.data = house.folder / agency.code
        self.tokens: list[str] = []
        self.taken = 0
        self.folder = LedgerFolder(
            self.data, f"renkei/{agency.code}", AGENCY_EVENTS, AGENCY_PROJECTIONS, house.clock
        )
        self.people = LedgerFolder(
            self.data / ADDRESSING,
            f"renkei/{agency.code}/{ADDRESSING}",
            person.EVENTS,
            person.PROJECTIONS,
            house.clock,
        )
        self.staging = Staging(self.data / ADDRESSING / "staging.sqlite")
        sealing = SealingKey(self.folder.vault.secret("sealing", new_sealing_secret))
        self.linkage = LinkageInterface(agency, house.keys.signer(agency.code), sealing, house.keys.authority)
        self.addressing = Addressing(self.people.ledger, self.people.follower, self.staging, self._token)
        draw = Draw(f"{agency.code}/{house.opening}")
        self.platform = Platform(
            self.folder.ledger, self.folder.follower, self.linkage, self.addressing, house.clock, draw
        )
        codes = LinkCodes(self.platform.ledger, self.platform.follower)
        self.requests = CodeRequests(self.platform, self.addressing, codes)
        line = house.line(agency.code, "network")
        self.client = NetworkClient(line, line)
        self.registry = RegistryClient(house.line(agency.code, "registry"))

    def _token(self) -> str:
        self.tokens.append(self._tokens(16).hex())
        return self.tokens[-1]

    def worker(self) -> NetworkWorker:
        """The agency's own loops; from here on the directory is fetched anew when it may be old."""
        house = self._house
        return NetworkWorker(
            self.platform, self.client, house.keys.authority, lambda: self.linkage.signer, house.clock
        )

    def acquirer(self) -> Acquirer:
        return Acquirer(self.addressing, self.platform, self.registry, self.client)

    def close(self) -> None:
        self.staging.close()
        self.people.close()
        self.folder.close()

    async def register(self, index: int) -> None:
        """One of PEOPLE becomes known here."""
        values = asdict(RESIDENTS[self.agency.code][index])
        assert await self.addressing.register(values) is None

    async def acquire(self) -> None:
        """Link codes for everybody who lacks one, step by step as the acquirer takes them."""
        verdicts = await self.registry.acquire(await self.addressing.acquisitions())
        assert not any(verdicts), verdicts
        pairs = await self.client.codes()
        numbers = await self.addressing.resolve([number for number, _ in pairs])
        for number, code in pairs:
            await self.platform.acquire_code(numbers[number], code)
        await self.addressing.settle(dict.fromkeys(numbers, ""))
        await self.client.forget([number for number, _ in pairs])

    async def meet(self) -> None:
        """Register at the network."""
        await self.client.register(self.linkage.signer.certificate, self.linkage.sealing_key.public)

    async def look_around(self) -> None:
        """Read the directory."""
        house = self._house
        data = await self.client.directory()
        self.linkage.directory = read_directory(data, house.keys.authority, house.clock())

    async def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Read the projections as they are now."""
        await self.platform.follower.reach(self.platform.ledger.position)
        return await self.platform.follower.query(sql, parameters)

    async def outbox(self) -> list[MessageQueued]:
        rows = await self.rows("SELECT position FROM outbox ORDER BY position")
        return [r.event for r in await self.platform.ledger.at([row[0] for row in rows])]

    async def send(self) -> list[NetworkVerdict]:
        """Send what is queued and record the verdicts."""
        messages = await self.outbox()
        verdicts = await self.client.submit(messages) if messages else []
        for verdict in verdicts:
            await self.platform.settle(verdict)
        return verdicts

    async def mail(self) -> list[Delivery]:
        """Everything that lies in the mailbox, read or not."""
        return await self._house.core.mailbox(self.agency.code, 0, 0)

    async def take_in(self) -> list[Refusal | None]:
        """Receive what came since the last time; what became of each."""
        deliveries = await self._house.core.mailbox(self.agency.code, self.taken, 0)
        outcomes = []
        for delivery in deliveries:
            outcomes.append(await self.platform.receive(delivery))
            self.taken = delivery.position
        return outcomes

    async def events(self) -> list[Recorded]:
        """Everything in the ledger of linkage and intermediate interface, opened."""
        return await events_of(self.platform.ledger)

    async def of_kind(self, kind: Any) -> list[Any]:
        """The events of one kind, opened."""
        return [r.event for r in await self.events() if isinstance(r.event, kind)]

    async def log(self) -> list[dict[str, Any]]:
        """The linkage log, the oldest entry first."""
        found = await self.rows("SELECT * FROM linkage_log ORDER BY position")
        return [dict(zip(LOG_COLUMNS, row, strict=True)) for row in found]

    async def result(self, request_id: str) -> InquiryResult:
        return (await self.platform.results([request_id]))[0]


class House:
    """The network and the registry, and every town on a line to them."""

    def __init__(self, folder: Path, keys: Keys, opening: int, terms: Terms) -> None:
        self.folder = folder
        self.keys = keys
        self.opening = opening
        self.clock = Clock()
        self.network = LedgerFolder(
            folder / "network", "renkei/network", network.EVENTS, network.PROJECTIONS, self.clock
        )
        self.staging = Staging(folder / "network" / "staging.sqlite")
        self.signer = keys.signer("network")
        self.revocations = NOTHING_REVOKED
        self.core = network.NetworkCore(
            self.network,
            self.staging,
            Trust(keys.authority, lambda: self.signer, lambda: self.revocations),
            {a.code: a for a in AGENCIES},
            PERMIT_LIFE,
            terms,
            self.clock,
        )
        self.server = NetworkServer(self.core)
        self.register = {p.individual_number: p.resident_record_code for p in PEOPLE}
        self.handlers: dict[str, Handler] = {"network": self.server.handle}
        self.ports: dict[str, int] = {}
        self.towns: dict[str, Town] = {}
        self._clients: list[Client] = []

    @property
    def asking(self) -> Town:
        return self.towns[ASKING.code]

    @property
    def answering(self) -> Town:
        return self.towns[ANSWERING.code]

    @property
    def other(self) -> Town:
        return self.towns[OTHER.code]

    def line(self, name: str, door: Literal["network", "registry"]) -> Client:
        """A line of the party `name` to a door."""
        line: Client
        if door in self.ports:
            line = Client("127.0.0.1", self.ports[door], client_context(*self.keys.line_files(name)))
        else:
            line = Line(self.keys.on_the_line(name), self.handlers[door])
        self._clients.append(line)
        return line

    async def open(self, nursery: trio.Nursery, *, sockets: bool) -> None:
        await nursery.start(self.network.ledger.run)
        await nursery.start(self.network.follower.run)
        if sockets:
            await self._serve(nursery, "network")
        self.registry_line = self.line("registry", "network")
        self.handlers["registry"] = RegistryServer(self.register, self.registry_line).handle
        if sockets:
            await self._serve(nursery, "registry")
        for agency in AGENCIES:
            town = self.towns[agency.code] = Town(self, agency)
            for folder in (town.folder, town.people):
                await nursery.start(folder.ledger.run)
                await nursery.start(folder.follower.run)

    async def _serve(self, nursery: trio.Nursery, door: str) -> None:
        context = server_context(*self.keys.line_files(door))
        self.ports[door] = await nursery.start(partial(serve, self.handlers[door], "127.0.0.1", 0, context))

    async def hang_up(self) -> None:
        self.core.stop_polls()
        for client in self._clients:
            await client.aclose()

    def close(self) -> None:
        for town in self.towns.values():
            town.close()
        self.staging.close()
        self.network.close()

    async def introduce(self) -> None:
        """Everybody is registered and has read the directory."""
        for town in self.towns.values():
            await town.meet()
        for town in self.towns.values():
            await town.look_around()

    async def furnish(self) -> None:
        """Everybody knows everybody; residents, their codes, records and staff are where they should be."""
        await self.introduce()
        known = {ASKING: range(5), ANSWERING: range(4), OTHER: range(1)}
        for agency, people in known.items():
            async with trio.open_nursery() as nursery:
                for index in people:
                    nursery.start_soon(self.towns[agency.code].register, index)
            await self.towns[agency.code].acquire()
        for index in STORED:
            number = resident(ANSWERING, index)
            assert await self.answering.platform.register_replica(number, LAYOUT, YEAR, income(index)) is None
        rows = (ROW, "106", "2")
        granted = AuthorityGranted(OFFICER, OFFICE, "affair_officer", rows, "2026-04-01", "2027-03-31")
        await self.asking.platform.grant(granted)

    async def ask(self, *people: int, request_id: str = "q-1") -> Delivery:
        """連携市 asks and the network permits: what lies in the mailbox of 見本市."""
        assert await self.asking.platform.inquire(order(request_id, *people)) is None
        assert [verdict.code for verdict in await self.asking.send()] == [""]
        return (await self.answering.mail())[-1]

    async def answer(self, *people: int) -> Delivery:
        """連携市 asks and 見本市 answers: what lies in the mailbox of 連携市."""
        assert await self.answering.platform.receive(await self.ask(*people)) is None
        assert [verdict.code for verdict in await self.answering.send()] == [""]
        return (await self.asking.mail())[-1]

    async def post(self) -> None:
        """Carry messages until there are none."""
        moved = 1
        while moved:
            moved = 0
            for town in self.towns.values():
                moved += len(await town.send()) + len(await town.take_in())


@asynccontextmanager
async def open_house(
    folder: Path, keys: Keys, *, opening: int = 1, sockets: bool = False, terms: Terms = TERMS
) -> AsyncIterator[House]:
    """A house at work in a folder; opened again there it has all that it had (`opening` counts)."""
    house = House(folder, keys, opening, terms)
    try:
        async with trio.open_nursery() as nursery:
            await house.open(nursery, sockets=sockets)
            yield house
            await house.hang_up()
            nursery.cancel_scope.cancel()
    finally:
        house.close()


async def events_of(ledger: Ledger) -> list[Recorded]:
    """All events of a ledger, opened."""
    return await ledger.at(range(1, ledger.position + 1))


def leaves(value: Any) -> Iterator[bytes]:
    """Everything that stands in an event, as bytes."""
    if isinstance(value, dict):
        for pair in value.items():
            yield from leaves(pair)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from leaves(each)
    else:
        yield value if isinstance(value, bytes) else str(value).encode()


def contents(recorded: Sequence[Recorded]) -> bytes:
    """Every value of opened events in one piece, to search in."""
    return b"\n".join(leaf for r in recorded for leaf in leaves([r.stream, r.message_id, vars(r.event)]))


def files_with(folder: Path, *needles: str) -> list[str]:
    """The files under a folder, journals too, in whose bytes one of these texts stands."""
    found = []
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        data = file.read_bytes()
        if any(needle.encode() in data for needle in needles):
            found.append(str(file.relative_to(folder)))
    return found


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Path:
    """The folder of a furnished house, to be copied."""

    async def furnish(folder: Path) -> None:
        async with open_house(folder, keys) as house:
            await house.furnish()

    folder = tmp_path_factory.mktemp("furnished") / "house"
    trio.run(furnish, folder)
    return folder


@pytest.fixture
async def house(tmp_path: Path, keys: Keys, furnished: Path) -> AsyncIterator[House]:
    """A furnished house without sockets."""
    copytree(furnished, tmp_path / "house")
    async with open_house(tmp_path / "house", keys, opening=2) as house:
        for town in house.towns.values():
            await town.look_around()
        yield house
