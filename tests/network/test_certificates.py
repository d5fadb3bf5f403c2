"""Certificates in use: revoked, expired, of a wrong agency, and renewed while messages are on their way."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from adapters.http import (
    Client,
    Request,
    Response,
    Revoked,
    Unreachable,
    client_context,
    guarded,
    nothing_revoked,
    serve,
    server_context,
)
from adapters.network.client import NetworkClient
from adapters.network.reference.registration import (
    CERTIFICATES,
    ConfigurationIssued,
    Configurations,
    Issued,
    NetworkCertified,
    Terms,
    Trust,
    decide_issue,
    evolve_issued,
)
from adapters.network.worker import NetworkWorker
from adapters.renewal import Renewed
from broker.linkage.crypto import (
    NOTHING_REVOKED,
    SealingKey,
    Signer,
    new_classical_secret,
    read_revocations,
)
from broker.linkage.partners import NETWORK, Directory, agency_uri, read_directory
from ops.certificates import create_authority, crl, issue, renew, revoke
from ops.config import NetworkConfig, write
from ops.demo import free_ports, start
from ops.synthetic import assessments_of
from schemas.errors import Refused
from schemas.messages import unpack
from tests.house import AGENCIES, ANSWERING, ASKING, OTHER, START, House, Keys, order

DAY = timedelta(days=1)
TERMS = Terms(DAY, 3 * DAY, assessments_of(agency.code for agency in AGENCIES), (("990027", "3"),))


# The line


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """An authority with a network and an agency, whose certificates may be renewed and revoked."""
    folder = tmp_path / "lines"
    create_authority(folder)
    issue(folder, "network", NETWORK, purpose="tls")
    issue(folder, "agency", agency_uri(ASKING.code), purpose="tls")
    return folder


def files(folder: Path, name: str) -> tuple[Path, Path, Path]:
    return folder / f"{name}-tls.pem", folder / f"{name}-tls.key", folder / "ca.pem"


def shown(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / f"{name}-tls.pem").read_bytes())


def looked_up(folder: Path) -> Revoked:
    """By the list in the authority's folder, which is read again when it changes."""
    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    path = folder / "ca.crl"
    present = Renewed(lambda: read_revocations(path.read_bytes(), authority), path)
    return lambda certificate: present().revoked(certificate, datetime.now(START.tzinfo))


class Door:
    """A door that says nothing until it may, and keeps the certificates of those who asked."""

    def __init__(self) -> None:
        self.callers: list[x509.Certificate] = []
        self.waiting = trio.Event()
        self.open = trio.Event()

    async def handle(self, request: Request) -> Response:
        self.callers.append(request.peer.certificate)
        if request.path == "/wait":
            self.waiting.set()
            await self.open.wait()
        return Response(200, b"welcome")


@asynccontextmanager
async def talking(
    lines: Path, handle: Callable[[Request], Awaitable[Response]], revoked: Revoked = nothing_revoked
) -> AsyncIterator[Client]:
    """A client of the agency, to a network behind this door."""
    async with trio.open_nursery() as nursery:

        async def run(*, task_status: trio.TaskStatus[int]) -> None:
            context = server_context(*files(lines, "network"))
            await serve(handle, "127.0.0.1", 0, context, task_status=task_status)

        port: int = await nursery.start(run)
        async with Client("127.0.0.1", port, client_context(*files(lines, "agency")), revoked) as client:
            yield client
        nursery.cancel_scope.cancel()


def code_of(response: Response) -> str:
    return str(unpack(response.body)["code"]) if response.status == 403 else ""


@pytest.mark.req("R-057", "R-058")
async def test_a_revoked_line_is_refused_at_the_door_also_where_it_was_open_before(lines: Path) -> None:
    door = Door()
    answers: list[Response] = []

    async def wait(client: Client) -> None:
        answers.append(await client.request("GET", "/wait"))

    async with talking(lines, guarded(door.handle, looked_up(lines))) as client:
        assert (await client.request("GET", "/")).body == b"welcome"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, client)
            await door.waiting.wait()
            revoke(lines, lines / "agency-tls.pem")
            door.open.set()
        assert code_of(answers[0]) == "N-121", "it waited when its certificate was revoked"
        asked = len(door.callers)
        assert code_of(await client.request("GET", "/")) == "N-121", "on a connection that was open"
    async with talking(lines, guarded(door.handle, looked_up(lines))) as client:
        assert code_of(await client.request("POST", "/", b"x")) == "N-121", "on a new one"
        assert len(door.callers) == asked, "nothing of it goes further than the door"
        renew(lines, "agency-tls")
        assert (await client.request("GET", "/")).body == b"welcome"


@pytest.mark.req("R-058")
async def test_a_server_with_a_revoked_certificate_is_asked_nothing(lines: Path) -> None:
    door = Door()
    async with talking(lines, door.handle, looked_up(lines)) as client:
        assert (await client.request("GET", "/")).status == 200
        revoke(lines, lines / "network-tls.pem")
        for _ in range(2):  # the line that was open, then a new one
            with pytest.raises(Unreachable, match="revoked"):
                await client.request("POST", "/", b"x")
        assert len(door.callers) == 1
        renew(lines, "network-tls")
        assert (await client.request("GET", "/")).status == 200


@pytest.mark.req("R-054", "R-058")
async def test_a_renewed_line_is_taken_up_without_a_stop_and_requests_under_way_are_answered(
    lines: Path,
) -> None:
    door = Door()
    answers: list[Response] = []

    async def wait(client: Client) -> None:
        answers.append(await client.request("GET", "/wait"))

    servers: list[x509.Certificate] = []

    def seen(certificate: x509.Certificate) -> bool:
        servers.append(certificate)
        return False

    before = shown(lines, "agency"), shown(lines, "network")
    async with talking(lines, door.handle, seen) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, client)
            await door.waiting.wait()
            for name in ("agency", "network"):
                renew(lines, f"{name}-tls")
            assert (await client.request("GET", "/")).status == 200
            assert (door.callers[-1], servers[-1]) == (shown(lines, "agency"), shown(lines, "network"))
            door.open.set()
        assert answers[0].body == b"welcome"
        assert (door.callers[0], servers[0]) == before
        await client.request("GET", "/")
        assert door.callers[-1] == shown(lines, "agency"), "nor is the old line used again"


def test_files_that_cannot_be_used_leave_the_present_ones_in_use(lines: Path) -> None:
    issue(lines, "next", NETWORK, purpose="tls")
    pem, key, _ = files(lines, "network")
    context = server_context(*files(lines, "network"))
    present = context()
    for spoil in (
        lambda: key.write_bytes(b"none"),
        key.unlink,
        lambda: key.write_bytes((lines / "next-tls.key").read_bytes()),  # of a pair, the key comes first
    ):
        spoil()
        assert context() is present
    pem.write_bytes((lines / "next-tls.pem").read_bytes())
    assert context() is not present
    assert context() is context()


# The configuration


class Network:
    """The house's network, with signing keys and a list of revoked certificates that may change."""

    def __init__(self, house: House, keys: Keys, folder: Path) -> None:
        shutil.copytree(keys.folder / "messages", folder)
        self.house, self.keys, self.folder = house, keys, folder
        self.signer = keys.signer("network")
        self.revocations = NOTHING_REVOKED
        self.configurations = self.opened()

    def opened(self, terms: Terms = TERMS) -> Configurations:
        """As after a start of the network."""
        core = self.house.core
        return Configurations(
            core.ledger,
            core.follower,
            Trust(self.keys.authority, lambda: self.signer, lambda: self.revocations),
            terms,
            [agency.code for agency in AGENCIES],
            self.house.clock,
        )

    def new_signer(self, name: str, uri: str, ago: timedelta = timedelta(0)) -> Signer:
        issue(self.folder, name, uri, purpose="signing", clock=lambda: self.house.clock() - ago)
        pem, key = (self.folder / f"{name}-signing{end}" for end in (".pem", ".key"))
        return Signer(pem.read_bytes(), key.read_bytes())

    def revoke(self, name: str) -> None:
        revoke(self.folder, self.folder / f"{name}-signing.pem", clock=self.house.clock)
        self.look_at_the_list()

    def look_at_the_list(self) -> None:
        self.revocations = read_revocations((self.folder / "ca.crl").read_bytes(), self.keys.authority)

    async def read(self, held: Directory | None = None) -> Directory:
        signed = await self.configurations.current()
        return read_directory(signed, self.keys.authority, self.house.clock(), held)

    async def hand_out(self) -> None:
        for town in self.house.towns.values():
            town.linkage.directory = await self.read(town.linkage.directory)


@pytest.fixture
def network(house: House, keys: Keys, tmp_path: Path) -> Network:
    return Network(house, keys, tmp_path / "authority")


@pytest.mark.req("R-058", "R-075")
async def test_a_configuration_is_issued_anew_when_something_in_it_changes(network: Network) -> None:
    house = network.house
    first = await network.read()
    position = house.core.ledger.position
    assert await network.read(first) == first
    assert house.core.ledger.position == position, "reading it writes nothing"

    crl(network.folder, clock=house.clock)
    network.look_at_the_list()
    listed = await network.read(first)
    assert (listed.serial, listed.revocations.number) == (first.serial + 1, 2)

    house.asking.linkage.signer = network.new_signer("renewed", agency_uri(ASKING.code))
    await house.asking.meet()
    renewed = await network.read(listed)
    assert renewed.serial == listed.serial + 1
    assert len(renewed.partners[ASKING.code].identities) == 2

    network.configurations = network.opened()
    assert await network.read(renewed) == renewed, "the same after a start of the network"
    network.configurations = network.opened(Terms(DAY, 3 * DAY))
    assert (await network.read(renewed)).serial == renewed.serial + 1
    assert house.core.ledger.position == position + 4, "each recorded once, beside the registration"


@pytest.mark.req("R-058", "R-075")
async def test_a_configuration_is_issued_anew_when_half_of_its_life_is_over(network: Network) -> None:
    first = await network.read()
    assert first.valid_until == START + DAY
    network.house.clock.advance(DAY / 2 - timedelta(microseconds=1))
    assert await network.read(first) == first
    network.house.clock.advance(timedelta(microseconds=1))
    second = await network.read(first)
    assert second.serial > first.serial
    assert second.valid_until == START + 1.5 * DAY
    assert second.partners == first.partners


def test_serials_rise_also_where_the_last_ones_were_lost_with_the_ledger() -> None:
    """A network restored from an old backup goes on above what agencies already hold."""
    held = ConfigurationIssued(int(START.timestamp()) + 3, "x", START.isoformat(), (START + DAY).isoformat())
    (issued,) = decide_issue(Issued((b"c",), held), b"c", "y", START, DAY)
    assert isinstance(issued, ConfigurationIssued)
    assert issued.serial == held.serial + 1
    certified, issued = decide_issue(Issued(), b"c", "y", START + DAY, DAY)
    assert certified == NetworkCertified(b"c")
    assert isinstance(issued, ConfigurationIssued)
    assert issued.serial > held.serial
    assert decide_issue(evolve_issued(Issued((b"c",)), issued), b"c", "y", START + DAY, DAY) == ()


async def test_a_configuration_holds_earlier_certificates_until_they_expire_and_not_many(
    network: Network,
) -> None:
    house = network.house
    for count in range(1, CERTIFICATES + 2):
        house.asking.linkage.signer = network.new_signer(f"renewed-{count}", agency_uri(ASKING.code))
        await house.asking.meet()
        known = await network.read()
        identities = known.partners[ASKING.code].identities
        assert identities[0] == house.asking.linkage.signer.identity
        assert len(identities) == min(count + 1, CERTIFICATES)
        house.clock.advance(DAY)
    network.signer = network.new_signer("network-2", NETWORK)
    house.clock.advance(362 * DAY)  # the second one, of the second day, has expired; the third has not
    identities = (await network.read()).partners[ASKING.code].identities
    assert len(identities) == CERTIFICATES - 1


# Messages under way


@pytest.mark.req("R-058")
async def test_an_agency_renews_while_its_messages_are_under_way(network: Network) -> None:
    house = network.house
    before = await house.ask(0)
    house.asking.linkage.signer = network.new_signer("renewed", agency_uri(ASKING.code))
    await house.asking.meet()
    await network.hand_out()
    assert await house.answering.platform.receive(before) is None, "signed by the certificate of before"
    await house.post()
    assert (await house.asking.result("q-1")).state == "answered"
    assert await house.asking.platform.inquire(order("q-2", 1)) is None
    await house.post()
    assert (await house.asking.result("q-2")).state == "answered"


@pytest.mark.req("R-058")
async def test_a_message_under_way_is_refused_once_its_certificate_is_revoked(network: Network) -> None:
    house = network.house
    earlier = await house.ask(0)
    assert await house.answering.platform.receive(earlier) is None
    assert await house.asking.platform.inquire(order("q-2", 1)) is None
    await house.asking.send()
    under_way = (await house.answering.mail())[-1]
    house.clock.advance(timedelta(seconds=1))
    network.revoke(ASKING.code)
    await network.hand_out()
    refusal = await house.answering.platform.receive(under_way)
    assert refusal is not None
    assert refusal.code == "L-121"
    house.asking.linkage.signer = network.new_signer("renewed", agency_uri(ASKING.code))
    await house.asking.meet()
    await network.hand_out()
    assert await house.asking.platform.inquire(order("q-4", 2)) is None
    await house.post()
    assert (await house.asking.result("q-4")).state == "answered"


@pytest.mark.req("R-058")
async def test_a_message_under_an_expired_certificate_is_refused(network: Network) -> None:
    house = network.house
    house.asking.linkage.signer = network.new_signer(
        "ending", agency_uri(ASKING.code), 365 * DAY - timedelta(minutes=10)
    )
    await house.asking.meet()
    await network.hand_out()
    under_way = await house.ask(0)
    house.clock.advance(timedelta(minutes=20))
    refusal = await house.answering.platform.receive(under_way)
    assert refusal is not None
    assert refusal.code == "L-102"


@pytest.mark.req("R-058")
async def test_nothing_is_sent_to_a_partner_whose_only_certificate_is_revoked(network: Network) -> None:
    network.revoke(ANSWERING.code)
    await network.hand_out()
    refusal = await network.house.asking.platform.inquire(order("q-1", 0))
    assert refusal is not None
    assert refusal.code == "L-121"


@pytest.mark.req("R-057", "R-058")
async def test_nobody_acts_under_the_certificate_of_another_agency(network: Network, keys: Keys) -> None:
    house = network.house
    await network.hand_out()
    house.asking.linkage.signer = keys.signer(OTHER.code)
    under_way = await house.ask(0)
    refusal = await house.answering.platform.receive(under_way)
    assert refusal is not None
    assert refusal.code == "L-303"
    refusal = await house.core.register(
        ASKING.code, keys.signer(OTHER.code).certificate, house.asking.linkage.sealing_key.public
    )
    assert refusal is not None
    assert refusal.code == "N-102"


@pytest.mark.req("R-058")
async def test_the_network_renews_while_its_notes_are_under_way(network: Network) -> None:
    house = network.house
    await network.hand_out()
    under_way = await house.ask(0)
    network.signer = network.new_signer("network-2", NETWORK)
    await network.hand_out()
    directory = house.answering.linkage.directory
    assert directory is not None
    assert directory.network == network.signer.identity
    assert await house.answering.platform.receive(under_way) is None
    network.configurations = network.opened()
    assert len((await network.read()).networks) == 2, "also after a start of the network"


# Registration


@pytest.mark.req("R-057", "R-058")
async def test_the_network_registers_no_certificate_that_does_not_count(network: Network) -> None:
    house, uri = network.house, agency_uri(ASKING.code)
    create_authority(network.folder / "other", clock=house.clock)
    issue(network.folder / "other", "foreign", uri, purpose="signing", clock=house.clock)
    foreign = x509.load_pem_x509_certificate((network.folder / "other/foreign-signing.pem").read_bytes())
    expired = network.new_signer("expired", uri, 366 * DAY)
    leaked = network.new_signer("leaked", uri)
    public, position = house.asking.linkage.sealing_key.public, house.core.ledger.position
    network.revoke("leaked")
    house.revocations = network.revocations
    for certificate in (foreign.public_bytes(Encoding.DER), expired.certificate, leaked.certificate):
        refusal = await house.core.register(ASKING.code, certificate, public)
        assert refusal is not None
        assert refusal.code == "N-122"
    assert house.core.ledger.position == position
    assert await house.core.register(ASKING.code, network.new_signer("good", uri).certificate, public) is None


@pytest.mark.req("R-054", "R-058")
async def test_a_new_key_signs_once_the_network_knows_it(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = network.house
    town, present = house.asking, house.asking.linkage.signer
    renewed = network.new_signer("renewed", agency_uri(ASKING.code))
    worker = NetworkWorker(town.platform, town.client, network.keys.authority, lambda: renewed, house.clock)

    async def away(certificate: bytes, sealing_key: bytes) -> None:
        raise Unreachable("the line is cut")

    with monkeypatch.context() as patch:
        patch.setattr(town.client, "register", away)
        with pytest.raises(Unreachable):
            await worker.refresh()
    assert town.linkage.signer is present
    await worker.refresh()
    assert town.linkage.signer is renewed
    assert town.linkage.directory is not None
    assert town.linkage.directory.partners[ASKING.code].identity == renewed.identity


# The daemon


@pytest.mark.req("R-054", "R-057", "R-058")
def test_a_running_network_takes_up_renewed_keys_and_revocations(tmp_path: Path, lines: Path) -> None:
    for name, uri in (("network", NETWORK), ("agency", agency_uri(ASKING.code))):
        issue(lines, name, uri, purpose="signing")
    (tmp_path / "log").mkdir()
    (port,) = free_ports(1)
    config = NetworkConfig(
        data=str(tmp_path / "data"),
        authority=str(lines / "ca.pem"),
        tls_certificate=str(lines / "network-tls.pem"),
        tls_key=str(lines / "network-tls.key"),
        signing_certificate=str(lines / "network-signing.pem"),
        signing_key=str(lines / "network-signing.key"),
        crl=str(lines / "ca.crl"),
        listen=f"127.0.0.1:{port}",
        agencies=((ASKING.code, ASKING.name, ASKING.kind),),
        log=str(tmp_path / "log" / "network.log"),
    )
    write(config, tmp_path / "network.toml")
    daemon = start("network", tmp_path / "network.toml")
    try:
        trio.run(renewed_and_revoked, lines, port)
    finally:
        daemon.terminate()
        assert daemon.wait(60) == 0, (tmp_path / "log" / "network.log").read_text(encoding="utf-8")


async def renewed_and_revoked(lines: Path, port: int) -> None:
    authority = x509.load_pem_x509_certificate((lines / "ca.pem").read_bytes())
    pem, key, ca = files(lines, "agency")
    leaked = lines / "leaked.pem", lines / "leaked.key", ca
    shutil.copy(pem, leaked[0])
    shutil.copy(key, leaked[1])
    async with (
        Client("127.0.0.1", port, client_context(*leaked)) as old,
        Client("127.0.0.1", port, client_context(pem, key, ca)) as line,
    ):
        with trio.fail_after(60):
            while True:
                try:
                    await old.request("GET", "/v1/directory")
                    break
                except Unreachable:
                    await trio.sleep(0.05)
        network = NetworkClient(line, line)
        certificate = x509.load_pem_x509_certificate((lines / "agency-signing.pem").read_bytes())
        public = SealingKey(new_classical_secret()).public
        await network.register(certificate.public_bytes(Encoding.DER), public)

        async def read(held: Directory | None = None) -> Directory:
            return read_directory(await network.directory(), authority, datetime.now(START.tzinfo), held)

        first = await read()
        assert first.classical == (ASKING.code,)
        for stem in ("network-signing", "network-tls", "agency-tls"):
            renew(lines, stem)
        second = await read(first)
        assert second.networks[1:] == first.networks
        assert (
            second.network.certificate.public_bytes(Encoding.PEM)
            == (lines / "network-signing.pem").read_bytes()
        )
        assert (await old.request("GET", "/v1/directory")).status == 200, "replaced, and valid"
        revoke(lines, lines / "leaked.pem")
        assert code_of(await old.request("GET", "/v1/directory")) == "N-121"
        third = await read(second)
        assert third.revocations.number == second.revocations.number + 1
        revoke(lines, lines / "agency-signing.pem")
        with pytest.raises(Refused, match="N-122"):
            await network.register(certificate.public_bytes(Encoding.DER), public)
