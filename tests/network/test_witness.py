"""The reference network as a witness of the agencies' ledgers."""

from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from adapters.network.reference.server import NetworkServer
from adapters.witness.client import WitnessClient, seal
from adapters.witness.server import WitnessServer
from broker.ledger.notes import Kind, NoteSigner
from broker.ledger.receipt import check_receipt, receipt
from broker.ledger.witness import Witness, logs_in
from tests.house import House, Line, order

NETWORK = NoteSigner("renkei/network", bytes(range(32)), Kind.COSIGNATURE)
ORIGIN = "renkei/990019"


@pytest.fixture
def server(house: House, tmp_path: Path) -> Iterator[NetworkServer]:
    """The network's door, which is a witness for the logs in a folder that is empty at first."""
    (tmp_path / "logs").mkdir()
    with closing(Witness(tmp_path / "witness.sqlite", [NETWORK], logs_in(tmp_path / "logs"))) as witness:
        yield NetworkServer(house.core, WitnessServer(witness, "/witness", house.clock))


async def test_the_network_cosigns_the_ledger_of_an_agency_that_it_admitted(
    house: House, server: NetworkServer, tmp_path: Path
) -> None:
    town = house.asking
    await town.platform.inquire(order("q-1", 0))
    line = Line(house.keys.on_the_line("990019"), server.handle)
    witness = WitnessClient(line, "/witness", [NETWORK.verifier_key])
    store = town.folder.ledger.store
    sealed = await seal(store, [], [witness], house.clock)
    assert [refusal.detail for refusal in sealed.missing] == ["renkei/network: HTTP 404"]

    key = (house.folder / "990019" / "ledger.vkey").read_text(encoding="utf-8")
    (tmp_path / "logs" / "renkei_990019.vkey").write_text(key, encoding="utf-8")
    sealed = await seal(store, [], [witness], house.clock)
    assert sealed.missing == ()
    proved = check_receipt(receipt(store, sealed.size), key, NETWORK.verifier_key)
    assert [(each.name, each.time) for each in proved.signed] == [
        (ORIGIN, 0),
        ("renkei/network", int(house.clock().timestamp())),
    ]
    shown = await line.request("GET", f"/witness/{sha256(ORIGIN.encode()).hexdigest()}/checkpoint")
    assert shown.body.decode().startswith(f"{ORIGIN}\n{sealed.size}\n")
    assert (await line.request("GET", "/v1/directory")).status == 200


async def test_a_network_without_a_witness_cosigns_nothing(house: House) -> None:
    line = Line(house.keys.on_the_line("990019"), NetworkServer(house.core).handle)
    assert (await line.request("POST", "/witness/add-checkpoint")).status == 404
