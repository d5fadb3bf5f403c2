"""The reference registry server over its line: whom it serves, what it answers, and that it keeps nothing."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.http import Client, Response, Unreachable, client_context
from adapters.registry.client import RegistryClient
from schemas.errors import Refused
from schemas.messages import pack, unpack
from tests.house import ASKING, PEOPLE, House, Keys, files_with, open_house

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

    through = house.asking.registry
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
