"""The reference registry server over its line: whom it serves, what it answers, and that it keeps nothing."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from adapters.http import Client, Response, Unreachable, client_context
from adapters.registry.client import RegistryClient
from adapters.registry.reference import RegistryServer
from schemas.errors import Refused
from schemas.messages import pack, unpack
from tests.house import ASKING, OTHER, PEOPLE, House, Keys, Line, files_with, open_house

NUMBER, KNOWN = "a" * 32, PEOPLE[0].individual_number


@pytest.fixture
async def served(tmp_path: Path, keys: Keys) -> AsyncIterator[House]:
    """A house on sockets in which nobody is registered anywhere."""
    async with open_house(tmp_path, keys, sockets=True) as house:
        yield house


async def answer(house: House, keys: Keys, name: str, method: str, path: str, body: bytes) -> Response:
    """What the registry says to whoever holds the certificate of this name."""
    line = Client("127.0.0.1", house.ports["registry"], client_context(*keys.line_files(name)))
    try:
        return await line.request(method, path, body)
    finally:
        await line.aclose()


@pytest.mark.req("R-115", "R-118")
async def test_the_registry_has_codes_made_for_those_it_knows_and_says_whom_it_does_not(
    served: House,
) -> None:
    other = PEOPLE[1].individual_number
    asked = [(NUMBER, KNOWN), ("b" * 32, "123456789018"), ("c" * 32, other)]
    assert await served.asking.registry.acquire(asked) == ["", "J-101", ""]
    staged = await served.asking.client.codes()
    assert sorted(number for number, _ in staged) == [NUMBER, "c" * 32], "the code comes with its number"
    assert await served.asking.registry.acquire([("b" * 32, "123456789018")]) == ["J-101"]
    assert await served.asking.registry.acquire([]) == []


@pytest.mark.parametrize("uri", ["urn:renkei:network", "urn:renkei:business:990019", "urn:renkei:registry"])
async def test_only_agencies_are_served(served: House, keys: Keys, uri: str) -> None:
    name = keys.new_line(uri)
    refused = await answer(served, keys, name, "POST", "/v1/acquisitions", pack([(NUMBER, KNOWN)]))
    assert (refused.status, unpack(refused.body)) == (403, {"code": "J-102"})
    line = served.line(name, "registry")
    with pytest.raises(Refused, match="J-102"):
        await RegistryClient(line).acquire([(NUMBER, KNOWN)])


async def test_an_agency_that_the_network_does_not_admit_gets_no_code(served: House, keys: Keys) -> None:
    line = served.line(keys.new_line("urn:renkei:agency:990043"), "registry")
    assert await RegistryClient(line).acquire([(NUMBER, KNOWN)]) == ["N-101"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/acquisitions", b"", 404),
        ("POST", "/v1/other", b"", 404),
        ("POST", "/v1/acquisitions", b"\xc1", 400),
        ("POST", "/v1/acquisitions", pack([("one",)]), 400),
        ("POST", "/v1/acquisitions", pack({"a": 1}, {"b": 2}), 400),
        ("POST", "/v1/acquisitions", pack(7), 400),
    ],
)
@pytest.mark.req("R-046")
async def test_what_is_no_request_is_refused(
    served: House, keys: Keys, method: str, path: str, body: bytes, status: int
) -> None:
    assert (await answer(served, keys, ASKING.code, method, path, body)).status == status


async def test_without_the_network_the_registry_says_so_and_promises_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cut(*_: object, **__: object) -> Response:
        raise Unreachable("the line is cut")

    through, KNOWN = house.other.registry, PEOPLE[1].individual_number  # the other one
    with monkeypatch.context() as patch:
        patch.setattr(house.registry_line, "request", cut)
        with pytest.raises(Refused, match="S-103"):
            await through.acquire([(NUMBER, KNOWN)])
    assert await through.acquire([(NUMBER, KNOWN)]) == [""]


@pytest.mark.req("R-116")
async def test_nothing_of_an_acquisition_stays_at_the_registry(served: House) -> None:
    """The number goes through it, and only the network has it afterwards."""
    assert await served.asking.registry.acquire([(NUMBER, KNOWN)]) == [""]
    assert files_with(served.folder, NUMBER) == ["network/staging.sqlite"]
    assert await served.asking.client.codes()
    await served.asking.client.forget([NUMBER])
    assert files_with(served.folder, NUMBER) == []


async def verdict(house: House, number: str, individual: str, **known: Any) -> str:
    """What a registry that knows this says about one request of 例示市."""
    (code,) = await RegistryServer(house.register, house.registry_line, **known).acquire(
        OTHER.code, [(number, individual)]
    )
    return code


@pytest.mark.req("R-115", "R-120")
async def test_what_the_law_refuses_is_refused_with_its_own_code(house: House) -> None:
    here, abroad = PEOPLE[1].individual_number, "123456789018"
    house.register[abroad] = ""
    assert await verdict(house, NUMBER, "210987654321") == "J-101", "nobody's number"
    assert await verdict(house, NUMBER, here, renumbered=[here]) == "J-103", "changed (Act art. 7(2))"
    assert await verdict(house, NUMBER, abroad) == "J-104", "no resident record code"
    for number in ("", here, abroad, PEOPLE[1].resident_record_code):
        assert await verdict(house, number, here) == "J-105", "Act art. 21-2(2)"
    asked = [(NUMBER, here), (NUMBER, PEOPLE[2].individual_number), ("b" * 32, PEOPLE[3].individual_number)]
    registry = RegistryServer(house.register, house.registry_line)
    assert await registry.acquire(OTHER.code, asked) == ["J-106", "J-106", ""], "ordinance art. 41-2"
    assert await registry.acquire(OTHER.code, asked[:1] * 2) == ["", ""], "the same request twice is one"
    assert await registry.acquire(OTHER.code, [(NUMBER, PEOPLE[2].individual_number)]) == ["N-202"]
    (found,) = [pair for pair in await house.other.client.codes() if pair[0] == NUMBER]
    await house.other.client.forget([NUMBER])
    assert await verdict(house, "c" * 32, here) == "N-201", "ordinance art. 44(2)"
    assert found[1]


def test_the_register_of_a_file_knows_what_was_changed(tmp_path: Path) -> None:
    file = tmp_path / "register.csv"
    file.write_text(
        "resident_record_code,individual_number,former_resident_record_code,former_individual_number\r\n"
        "11111111111,123456789018,22222222222,210987654321\r\n"
        "33333333333,345678901234,,\r\n",
        encoding="cp932",
    )
    registry = RegistryServer.read(file, Line.__new__(Line))
    assert vars(registry)["_register"] == {"123456789018": "11111111111", "345678901234": "33333333333"}
    assert vars(registry)["_former"] == {"11111111111": "22222222222"}
    assert vars(registry)["_renumbered"] == {"210987654321"}
    file.write_text("resident_record_code,individual_number\r\n1,2\r\n", encoding="cp932")
    assert vars(RegistryServer.read(file, Line.__new__(Line)))["_former"] == {}
