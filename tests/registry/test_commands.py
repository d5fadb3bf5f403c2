"""The commands about link codes, at the doors of running houses."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from adapters.business.client import BusinessClient
from adapters.business.server import BusinessServer
from adapters.registry.medium import read_requests, read_verdicts, write_requests, write_verdicts
from adapters.registry.reference import RegistryServer
from ops import cli, codes
from ops.commands import common
from ops.config import RegistryConfig
from ops.synthetic import write_register
from schemas.codes import integrated_number
from schemas.errors import Refused
from tests.house import (
    ANSWERING,
    ASKING,
    NO_CODE,
    OFFICER,
    OTHER,
    PEOPLE,
    RESIDENTS,
    House,
    Line,
    Town,
    files_with,
    order,
    resident,
)
from tests.registry.settling import codes_of, until_settled


class Commands:
    """Runs a command of ops.codes against a town of the house, as if its daemon were called."""

    def __init__(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        self._house = house
        self._patch = monkeypatch
        self._doors: dict[str, BusinessClient] = {}

    async def __call__(self, town: Town, command: Callable[..., int], *arguments: Any) -> int:
        code = town.agency.code
        if code not in self._doors:
            name = self._house.keys.new_line(f"urn:renkei:business:{code}")
            server = BusinessServer(town.platform, town.addressing, None)
            self._doors[code] = BusinessClient(Line(self._house.keys.on_the_line(name), server.handle))
        door = self._doors[code]
        # The command waits in a thread of its own while the house goes on here.
        self._patch.setattr(codes, "at_door", lambda _, work: trio.from_thread.run(work, door))
        return await trio.to_thread.run_sync(partial(command, SimpleNamespace(code=code), *arguments))


@pytest.fixture
def run(house: House, monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(house, monkeypatch)


@pytest.mark.req("R-118")
async def test_requests_go_to_the_registry_in_a_file_and_nothing_is_left_of_it(
    house: House, run: Commands, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    town, file = house.other, tmp_path / "medium" / "codes.csv"
    file.parent.mkdir()  # a test folder
    for index in (1, 2):
        await town.register(index)
    assert await run(town, codes.request, file) == 0
    ((one, first), (other, _)) = next(read_requests(file, OTHER.code))
    assert await town.registry.acquire([(one, first)]) == [""]
    write_verdicts(file, OTHER.code, [(one, ""), (other, "J-104")])
    assert await run(house.asking, codes.settle, file) == 1, "the file of another agency"
    assert await run(town, codes.settle, file) == 0
    assert not file.exists()  # a test folder
    await until_settled(house, town)
    errors = tmp_path / "none.csv"
    assert await run(town, codes.progress, 0.0, errors) == 0
    said = capsys.readouterr()
    assert "符号 取得 2 件 不可 1 件 待ち 0 件" in said.out
    assert "J-108" in said.err
    assert resident(OTHER, 2) in errors.read_text(encoding="cp932")
    assert files_with(tmp_path, *town.tokens) == []


@pytest.mark.req("R-118")
def test_the_registry_answers_a_file_in_its_place_and_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register, file = tmp_path / "register.csv", tmp_path / "codes.csv"
    write_register(register, PEOPLE)
    own = dict.fromkeys(("register", "authority", "tls_certificate", "tls_key"), str(register))
    config = RegistryConfig(**own, network="127.0.0.1:1", listen="127.0.0.1:2")
    monkeypatch.setattr(codes, "client_context", lambda *_: None)
    passed: list[Any] = []

    async def pass_on(_: RegistryServer, requests: Any) -> list[str]:
        passed.extend(requests)
        return ["N-201"] * len(requests)

    monkeypatch.setattr(RegistryServer, "_pass_on", pass_on)
    pairs = [("a" * 32, PEOPLE[0].individual_number), ("b" * 32, "123456789018")]
    write_requests(file, "990019", pairs)
    assert codes.answer(config, "990027", file) == 1, "another agency handed it in"
    assert passed == []
    assert codes.answer(config, "990019", file) == 0
    assert next(read_verdicts(file, "990019")) == [("a" * 32, "N-201"), ("b" * 32, "J-101")]
    assert passed == [("990019", "a" * 32, PEOPLE[0].resident_record_code)]
    with pytest.raises(Refused, match="J-107"):
        next(read_requests(file, "990019"))
    assert files_with(tmp_path, "123456789018") == []


async def test_a_code_is_retired_by_command(
    house: House, run: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    town = house.other
    who = resident(OTHER, 0)
    assert await run(town, codes.retire, "1", "died") == 1
    stranger = next(n for serial in range(7, 30) if (n := integrated_number(serial)) is not None)
    assert await run(town, codes.retire, stranger, "died") == 1
    assert await run(town, codes.retire, who, "died") == 0
    assert await codes_of(town).valid(who) == ""
    said = capsys.readouterr().err
    assert "A-102" in said
    assert "B-007" in said


async def test_a_provider_is_asked_and_its_office_decides_by_command(
    house: House, run: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    asking, answering = house.asking, house.answering
    assert await run(answering, codes.asked, OFFICER) == 0
    assert await asking.platform.inquire(order("q-1", NO_CODE)) is None
    await house.post()
    assert await run(asking, codes.ask, "q-2", OFFICER) == 1
    assert await run(asking, codes.ask, "q-1", OFFICER) == 0
    await house.post()
    assert await run(answering, codes.asked, OFFICER) == 0
    said = capsys.readouterr()
    person = RESIDENTS[ASKING.code][NO_CODE]
    assert "確認待ち 1 件" in said.out
    assert person.name in said.out
    number = said.out.split("[")[-1].split(" ")[0]
    known = {**asdict(RESIDENTS[ANSWERING.code][NO_CODE]), "address": "見本市別の町１番"}
    assert await answering.addressing.register(known) is None
    assert await run(answering, codes.decide, number, 0, known["integrated_number"], OFFICER) == 0
    assert await run(answering, codes.decide, number, 0, "", OFFICER) == 1
    said = capsys.readouterr()
    assert "I-226" not in said.out
    assert "I-227" in said.err


@pytest.mark.parametrize(
    ("command", "arguments", "expected"),
    [
        ("request", "--file f.csv", (Path("f.csv"),)),
        ("answer", "--file f.csv --agency 990019", ("990019", Path("f.csv"))),
        ("settle", "--file f.csv", (Path("f.csv"),)),
        ("progress", "--patience 3", (3.0, None)),
        ("retire", "--resident 1 --reason died", ("1", "died")),
        ("ask", "q-1 --by s1", ("q-1", "s1")),
        ("asked", "--by s1", ("s1",)),
        ("decide", "x 0 --nobody --by s1", ("x", 0, "", "s1")),
        ("decide", "x 1 --resident 5 --by s1", ("x", 1, "5", "s1")),
    ],
)
def test_what_is_typed_arrives(
    monkeypatch: pytest.MonkeyPatch, command: str, arguments: str, expected: tuple[Any, ...]
) -> None:
    arrived: list[tuple[Any, ...]] = []
    monkeypatch.setattr(common, "read", lambda kind, _: kind)

    def arrive(*given: Any) -> int:
        arrived.append(given)
        return 0

    monkeypatch.setattr(codes, command, arrive)
    assert cli.main(["codes", command, "--config", "c.toml", *arguments.split()]) == 0
    assert [given[1:] for given in arrived] == [expected]
