"""Which lines the daemons use: every socket of real processes, taken down by the audit hook of Python.

docs/lines.md is the table that a firewall is set by; here it is held to what the processes do.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from http.client import HTTPConnection
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import trio

from adapters.business.files import read_inquiries, read_residents
from adapters.business.income import read_income
from adapters.business.records import StaffRecord
from adapters.http import Client, client_context
from adapters.platform.asking import InquiryResult
from ops import demo
from ops.config import AgencyConfig, NetworkConfig, RegistryConfig, address, read, write
from schemas.messages import pack
from tests.ops.folders import copied
from tests.ops.town import ANSWERER, ASKER, EVERYBODY, NETWORK, PATIENCE, REGISTRY, Town

HOOK = """
import os, sys
_file = os.open(os.environ["SOCKETS"] + f"/{os.getpid()}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
os.write(_file, ("\\t".join(sys.orig_argv) + "\\n").encode())
def _hear(event, arguments):
    if event in ("socket.bind", "socket.connect", "socket.sendto"):
        os.write(_file, f"{event} {arguments[1]!r}\\n".encode())
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        os.write(_file, f"{event} {arguments[0]!r}\\n".encode())
sys.addaudithook(_hear)
"""
"""Runs as sitecustomize before anything else of a process."""

FEW = 5


class Lines:
    """What the processes of a town have bound, dialled and looked up."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, config: Path, event: str) -> set[str]:
        """Everything of one kind that the daemon with this configuration did."""
        found: set[str] = set()
        for file in self._folder.iterdir():
            command, *events = file.read_text(encoding="utf-8").splitlines()
            if str(config) in command.split("\t"):
                found |= {line.partition(" ")[2] for line in events if line.startswith(f"{event} ")}
        return found


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lines:
    for name in ("hook", "sockets"):
        (tmp_path / name).mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hook"))
    monkeypatch.setenv("SOCKETS", str(tmp_path / "sockets"))
    return Lines(tmp_path / "sockets")


@pytest.fixture
def town(fresh: Path, tmp_path: Path, lines: Lines) -> Iterator[Town]:
    """Two cities, network and registry. The cities' checkpoints are cosigned by the network alone, and the
    answering city's also by the asking one."""
    town = Town(copied(fresh, tmp_path / "town"))
    config = read(AgencyConfig, town.config(ASKER))
    write(replace(config, witnesses=config.witnesses[:1]), town.config(ASKER))
    try:
        town.start(*EVERYBODY)
        yield town
    finally:
        town.close()


def written(*addresses: str) -> set[str]:
    """Addresses of a configuration as the hook writes them down."""
    return {repr(address(each)) for each in addresses if each}


def records(found: Iterator[Any]) -> Iterator[Any]:
    return (line[1] for line in found if isinstance(line, tuple))


async def work(town: Town) -> tuple[InquiryResult, str]:
    """Residents, codes, records of tax, one inquiry from city to city, and the page of whom it was about."""
    folder = town.folder / "input"
    staff = StaffRecord(demo.OFFICER, "課", "affair_officer", ("81",), "2026-04-01", "2027-03-31")
    numbers: list[str] = []
    async with town.door(ASKER) as asking, town.door(ANSWERER) as answering:
        for code, door in ((ASKER, asking), (ANSWERER, answering)):
            residents = list(islice(records(read_residents(folder / f"residents-{code}.csv")), FEW))
            neighbours, numbers = numbers, [each.integrated_number for each in residents]
            await door.send(residents)
            await door.send([staff])
        known = dict(zip(neighbours, numbers, strict=True))  # the same people, by both cities' numbers
        taxes = records(read_income(folder / "income.txt"))
        await answering.send([each for each in taxes if each.integrated_number in known.values()])
        await demo.wait_for_codes(town.folder)
        order = next(records(read_inquiries(folder / "inquiries.csv")))
        await asking.inquire([order])
        (result,) = await asking.results([order.request_id], PATIENCE)
        return result, page(await answering.portal_link(known[order.subjects[0]]))


def page(link: str) -> str:
    """The provision records that a resident sees who follows a link."""
    where, _, token = link.removeprefix("http://").partition("/login?token=")
    line = HTTPConnection(where, timeout=PATIENCE)
    try:
        line.request("POST", "/login", urlencode({"token": token}), {"Sec-Fetch-Site": "same-origin"})
        cookie = line.getresponse()
        cookie.read()
        session = str(cookie.headers["Set-Cookie"]).partition(";")[0]
        line.request("GET", "/records", headers={"Cookie": session})
        return line.getresponse().read().decode()
    finally:
        line.close()


def until_cosigned(town: Town) -> None:
    """Wait until the witnesses of both cities were asked."""
    deadline = time.monotonic() + PATIENCE
    logs = [town.folder / "log" / f"{code}.log" for code in (ASKER, ANSWERER)]
    while not all('"event": "sealed"' in log.read_text(encoding="utf-8") for log in logs):
        assert time.monotonic() < deadline, town.last_words()
        time.sleep(0.1)


@pytest.mark.req("R-012", "R-013", "R-014", "R-034", "R-067", "R-129", "R-130", "R-132")
def test_daemons_listen_and_dial_only_where_their_configuration_says(town: Town, lines: Lines) -> None:
    """A firewall that lets through nothing else keeps nobody from working, and the network calls nobody."""
    town.ready(ASKER, ANSWERER)
    demo.admit_logs(town.folder)
    answered, seen = trio.run(work, town)
    assert (answered.state, answered.codes) == ("answered", ("",))
    assert demo.ASKING[1] in seen, "what passed is shown to its resident, too"
    assert "地方税関係情報" in seen
    until_cosigned(town)
    asker, answerer = (read(AgencyConfig, town.config(code)) for code in (ASKER, ANSWERER))
    network = read(NetworkConfig, town.config(NETWORK))
    registry = read(RegistryConfig, town.config(REGISTRY))
    assert town.stop() == dict.fromkeys(EVERYBODY, 0)

    for city in (asker, answerer):
        config = town.config(city.code)
        assert lines.of(config, "socket.bind") == written(city.business, city.portal, city.witness)
    centre = written(network.listen, registry.listen)
    assert lines.of(town.config(ASKER), "socket.connect") == centre, "no other city"
    assert lines.of(town.config(ANSWERER), "socket.connect") == centre | written(asker.witness)
    for name, where in ((NETWORK, network.listen), (REGISTRY, registry.listen)):
        assert lines.of(town.config(name), "socket.bind") == written(where)
    assert lines.of(town.config(NETWORK), "socket.connect") == set()
    assert lines.of(town.config(REGISTRY), "socket.connect") == written(network.listen)
    for name in EVERYBODY:
        assert lines.of(town.config(name), "socket.sendto") == set()
        assert lines.of(town.config(name), "socket.getaddrinfo") <= {"'127.0.0.1'"}
        assert lines.of(town.config(name), "socket.gethostbyname") == set()


@pytest.mark.req("R-067")
def test_nothing_but_the_designated_communication_gets_an_answer_at_a_door(town: Town) -> None:
    """Neither who speaks without a certificate, nor who comes with one that is for another door."""
    town.ready(ASKER, ANSWERER)
    asker, answerer = (read(AgencyConfig, town.config(code)) for code in (ASKER, ANSWERER))
    for where in (asker.business, asker.witness, asker.network):
        with socket.create_connection(address(where), PATIENCE) as line:
            line.sendall(b"POST /v1/status HTTP/1.1\r\nHost: city\r\nContent-Length: 0\r\n\r\n")
            with suppress(ConnectionResetError):
                assert b"HTTP" not in line.recv(1_000)

    async def status(certificate: str, key: str, where: str, path: str) -> int:
        context = client_context(Path(certificate), Path(key), Path(asker.authority))
        client = Client(*address(where), context)
        try:
            return (await client.request("POST", path, pack(None))).status
        finally:
            await client.aclose()

    own = asker.business_certificate, asker.business_key
    neighbour = answerer.business_certificate, answerer.business_key
    assert trio.run(status, *own, asker.business, "/v1/status") == 200
    assert trio.run(status, *neighbour, asker.business, "/v1/status") == 403
    assert trio.run(status, answerer.tls_certificate, answerer.tls_key, asker.business, "/v1/status") == 403
    assert trio.run(status, *own, asker.network, "/v1/registration") == 403
