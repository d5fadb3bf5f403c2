"""The blocks of the study's picture (機能構成図): what each does, and how they work together."""

import ast
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from shutil import copytree
from types import FrameType
from typing import Any

import pytest

from adapters.business.client import BusinessClient
from adapters.business.income import read_income, write_income
from adapters.business.records import InquiryRecord, ReplicaRecord
from adapters.business.server import BusinessServer
from adapters.platform.officer import DecisionOrder
from adapters.platform.staffing import Caller
from broker.intermediate.inquiry import InquiryRequested
from broker.intermediate.operation import OperationRecorded
from broker.intermediate.records import ProcessingStatus, ProvisionRecords
from broker.intermediate.staff import AuthorityGranted
from broker.ledger.projections import Projection
from broker.linkage.incoming import MessageReceived
from broker.linkage.log import LinkageLog
from broker.linkage.outgoing import MessageQueued, MessageSettled
from schemas.errors import Refusal
from schemas.messages import AnswerControl, InquiryControl, decode, pack
from tests.house import (
    ANSWERING,
    ASKING,
    INFORMATION,
    LAYOUT,
    OFFICER,
    ROW,
    YEAR,
    House,
    Keys,
    Line,
    Town,
    asked_of,
    income,
    open_house,
    order,
    resident,
)
from tests.test_imports import ROOT, imports, within

LINKAGE, INTERMEDIATE = "broker/linkage/", "broker/intermediate/"
FUNCTIONS = {
    "情報提供ネットワークシステム接続": "adapters/network/client.py",
    "PF通信": "adapters/platform/inprocess.py",
    "暗号・署名": f"{LINKAGE}crypto.py",
    "認証・認可": f"{LINKAGE}partners.py",
    "連携確認（照会）": f"{INTERMEDIATE}inquiry.py",
    "連携確認（提供）": f"{INTERMEDIATE}provision.py",
    "ID変換": f"{INTERMEDIATE}link_code.py",
    "連携情報保管": f"{INTERMEDIATE}replica.py",
    "個別連携業務接続": "adapters/business/server.py",
}
"""Each function of the picture, and where it is done."""
LOGS: dict[type[Projection], str] = {
    LinkageLog: LINKAGE,
    ProvisionRecords: INTERMEDIATE,
    ProcessingStatus: INTERMEDIATE,
}
"""ログ管理機能 of each block: what its functions put out, to be looked up."""
PRIMITIVES = tuple(
    f"cryptography.hazmat.primitives.{name}" for name in ("asymmetric", "ciphers", "hashes", "hpke", "kdf")
)


HARMLESS = ("files.sync", "ledger.STORE_TROUBLE", "ledger.trouble_code")
"""What business connection uses of the ledger: a sync of its own files, and the names of troubles."""


def sources(*floors: str) -> dict[str, ast.AST]:
    """Every source file of these folders by its path from the root."""
    files = [file for floor in floors for file in sorted((ROOT / floor).rglob("*.py"))]
    return {file.relative_to(ROOT).as_posix(): ast.parse(file.read_text(encoding="utf-8")) for file in files}


def reached(room: str) -> set[str]:
    """Every source file that the files of a room import, and what those import, to the end."""
    trees = sources("schemas", "broker", "adapters", "ops")
    found: set[str] = set()
    ahead = [path for path in trees if path.startswith(room)]
    while ahead:
        path = ahead.pop()
        if path in found:
            continue
        found.add(path)
        for _, target in imports(path, trees[path]):
            parts = target.split(".")
            stems = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
            ahead += [
                file for stem in stems for file in (f"{stem}.py", f"{stem}/__init__.py") if file in trees
            ]
    return found


@contextmanager
def worked() -> Iterator[set[str]]:
    """The source files of ours in which a function was called meanwhile, in this thread."""
    found: set[str] = set()

    def hear(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(ROOT)):
            found.add(Path(frame.f_code.co_filename).relative_to(ROOT).as_posix())

    sys.setprofile(hear)
    try:
        yield found
    finally:
        sys.setprofile(None)


def door(house: House, town: Town, signed_in: timedelta = timedelta(0)) -> BusinessClient:
    """The door of an agency as one of its business systems comes to it."""
    name = house.keys.new_line(f"urn:renkei:business:{town.agency.code}")
    server = BusinessServer(town.platform, town.addressing, None, signed_in)
    return BusinessClient(Line(house.keys.on_the_line(name), server.handle))


def asked(request_id: str, *people: int, terminal: str = "") -> InquiryRecord:
    return InquiryRecord(**vars(order(request_id, *people, terminal=terminal)))


async def units(town: Town, *kinds: type[Any]) -> list[list[str]]:
    """The rooms of events that were recorded together, for each unit with an event of one of these kinds."""
    together = groupby(await town.events(), key=lambda recorded: recorded.message_id)
    found = [[recorded.event for recorded in unit] for _, unit in together]
    return [
        [type(each).__module__ for each in unit] for unit in found if any(isinstance(e, kinds) for e in unit)
    ]


@pytest.mark.req("R-001")
def test_the_two_blocks_are_whole_each_without_the_other_and_without_their_neighbours() -> None:
    linkage, intermediate = reached(LINKAGE), reached(INTERMEDIATE)
    assert not [path for path in linkage if path.startswith((INTERMEDIATE, "adapters/", "ops/"))]
    assert not [path for path in intermediate if path.startswith((LINKAGE, "adapters/", "ops/"))]
    assert {FUNCTIONS["暗号・署名"], FUNCTIONS["認証・認可"]} <= linkage
    assert {FUNCTIONS["ID変換"], FUNCTIONS["連携情報保管"]} <= intermediate


@pytest.mark.req("R-001", "R-016", "R-038", "R-129")
async def test_between_a_business_system_and_the_network_both_blocks_act_in_one_unit(house: House) -> None:
    """On both sides and both ways: what one interface decides and what the other does is one commit."""
    assert await door(house, house.asking).send([asked("q-1", 0)]) == [("", "")]
    await house.post()
    inquiry, provision = "broker.intermediate.inquiry", "broker.intermediate.provision"
    outgoing, incoming = "broker.linkage.outgoing", "broker.linkage.incoming"
    assert await units(house.asking, MessageQueued) == [[outgoing, inquiry]]
    assert await units(house.asking, MessageSettled) == [[outgoing, inquiry]]
    assert await units(house.asking, MessageReceived) == [[incoming, inquiry]]
    (answered,) = await units(house.answering, MessageReceived)
    assert answered == [incoming, provision, provision, outgoing]


@pytest.mark.req("R-016")
async def test_one_agency_asks_and_answers_at_the_same_time(house: House) -> None:
    granted = AuthorityGranted(OFFICER, "税務課", "affair_officer", (ROW,), "2026-04-01", "2027-03-31")
    assert await house.answering.platform.grant(granted) is None
    record = ReplicaRecord(resident(ASKING, 1), LAYOUT, YEAR, income(1))
    assert await door(house, house.asking).send([record]) == [("", "")]
    back = replace(order("q-2"), provider=ASKING.code, subjects=(resident(ANSWERING, 1),))
    assert await house.asking.platform.inquire(order("q-1", 0)) is None
    assert await house.answering.platform.inquire(back) is None
    await house.post()
    assert (await house.asking.result("q-1")).payloads == (asked_of(0),)
    assert (await house.answering.result("q-2")).payloads == (asked_of(1),)


@pytest.mark.req("R-002")
async def test_the_linkage_interface_makes_and_checks_every_byte_of_every_message(house: House) -> None:
    """What the network relays is what was signed and sealed there, and nothing else makes a message."""
    makers = [
        path
        for path, tree in sources("schemas", "broker", "adapters", "ops").items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("MessageQueued")
    ]
    assert set(makers) == {f"{LINKAGE}interface.py"}
    assert await house.asking.platform.inquire(order("q-1", 0)) is None
    await house.post()
    for sender, receiver, control in (
        (house.asking, house.answering, InquiryControl),
        (house.answering, house.asking, AnswerControl),
    ):
        (made,) = await sender.of_kind(MessageQueued)
        (relayed,) = await receiver.mail()
        (taken,) = await receiver.of_kind(MessageReceived)
        assert made.checks == ("partner", "role", "sign", "seal")
        assert taken.checks == ("partner", "role", "open", "verify", "replay")
        envelope = relayed.envelope
        for each in (envelope, taken):
            assert (each.control, each.sealed, each.signature) == (made.control, made.sealed, made.signature)
        assert vars(decode(control, envelope.control))["message_id"] == made.message_id


@pytest.mark.req("R-003", "R-004", "R-005")
async def test_one_exchange_sets_every_function_of_the_picture_to_work(tmp_path: Path, keys: Keys) -> None:
    with worked() as found:
        async with open_house(tmp_path, keys) as house:
            await house.furnish()
            assert await door(house, house.asking).send([asked("q-1", 0)]) == [("", "")]
            await house.post()
            assert (await house.asking.result("q-1")).payloads == (asked_of(0),)
            for log, block in LOGS.items():
                assert log.__module__.startswith(block.replace("/", "."))
                for town in (house.asking, house.answering):
                    table = next(iter(log.tables))
                    assert await town.rows(f"SELECT 1 FROM {table}"), table  # noqa: S608 # ours
    assert {name: where for name, where in FUNCTIONS.items() if where not in found} == {}


@pytest.mark.req("R-006", "R-158")
def test_the_functions_for_personal_information_are_one_group_apart_from_business_connection() -> None:
    """They need nothing of it, and it has neither events nor a ledger: it holds nothing about anybody."""
    group = [where for where in FUNCTIONS.values() if where.startswith(INTERMEDIATE)]
    assert len(group) == 4
    assert not [path for path in reached(INTERMEDIATE) if path.startswith("adapters/")]
    for path, tree in sources("adapters/business").items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                assert not [d for d in node.decorator_list if ast.unparse(d).startswith("event(")], path
        ledger = {target for _, target in imports(path, tree) if within(target, "broker.ledger")}
        assert ledger <= {f"broker.ledger.{name}" for name in HARMLESS}, path


@pytest.mark.req("R-007")
async def test_linkage_stands_on_the_connection_and_is_the_same_on_any(
    tmp_path: Path, keys: Keys, furnished: Path
) -> None:
    """Over calls and over mutual TLS on sockets the same is checked, logged and answered; and the functions
    for linkage know nothing of the connection below them."""
    logs = []
    for sockets in (False, True):
        folder = tmp_path / str(sockets)
        copytree(furnished, folder)
        async with open_house(folder, keys, opening=2, sockets=sockets) as house:
            for town in house.towns.values():
                await town.look_around()
            assert bool(house.ports) == sockets
            assert await house.asking.platform.inquire(order("q-1", 0)) is None
            await house.post()
            assert (await house.asking.result("q-1")).payloads == (asked_of(0),)
            columns = ("direction", "kind", "partner", "checks", "step", "code")
            logs += [[tuple(entry[name] for name in columns) for entry in await house.asking.log()]]
    assert logs[0] == logs[1]
    assert logs[0]
    assert FUNCTIONS["情報提供ネットワークシステム接続"] not in reached(LINKAGE)


@pytest.mark.req("R-008")
async def test_one_function_encrypts_and_signs_and_one_says_who_somebody_is_inside_and_outside(
    house: House,
) -> None:
    """The agency's own systems and other agencies are told by the same look at a certificate."""
    trees = sources("schemas", "broker", "adapters")
    users = {
        path
        for path, tree in trees.items()
        for _, target in imports(path, tree)
        if not path.startswith("broker/ledger/") and any(within(target, name) for name in PRIMITIVES)
    }
    assert users == {FUNCTIONS["暗号・署名"]}
    readers = [path for path, tree in trees.items() if "SubjectAlternativeName" in ast.unparse(tree)]
    assert readers == [FUNCTIONS["暗号・署名"]]

    own = BusinessServer(house.asking.platform, house.asking.addressing, None)
    for uri, inside, outside in (
        (f"urn:renkei:business:{ASKING.code}", 200, 403),
        (f"urn:renkei:agency:{ASKING.code}", 403, 200),
        ("urn:renkei:nobody", 403, 403),
    ):
        certificate = house.keys.on_the_line(house.keys.new_line(uri))
        at_home = await Line(certificate, own.handle).request("POST", "/v1/status", pack(None))
        elsewhere = await Line(certificate, house.server.handle).request("GET", "/v1/directory")
        assert (at_home.status, elsewhere.status) == (inside, outside), uri


@pytest.mark.req("R-009")
async def test_the_four_needs_of_linkage_are_met(house: House, tmp_path: Path) -> None:
    """アクセス制御, アクセス記録の保存, 対象個人情報の特定, 既存システムの差異の吸収, in one exchange."""
    record = ReplicaRecord(resident(ANSWERING, 0), LAYOUT, "2025", income(0, "2025"))
    write_income(tmp_path / "income.txt", [record])
    (read,) = [line[1] for line in read_income(tmp_path / "income.txt") if isinstance(line, tuple)]
    assert await door(house, house.answering).send([read]) == [("", "")]
    stranger = replace(asked("q-1", 0), staff_id="s9999", fiscal_year="2025")
    one = replace(asked("q-2", 0), fiscal_year="2025")
    assert await door(house, house.asking).send([stranger]) == [("I-101", "")]
    assert await door(house, house.asking).send([one]) == [("", "")]
    await house.post()
    refused, answered = [await house.asking.result(name) for name in ("q-1", "q-2")]
    assert (refused.state, refused.code, refused.payloads) == ("refused", "I-101", ())
    assert answered.payloads == (asked_of(0, "2025"),), "found by code, from a file of fixed length"
    for town, agency in ((house.asking, ASKING), (house.answering, ANSWERING)):
        found = await town.platform.records(resident(agency, 0))
        assert [each.provided_at != "" for each in found if each.information == INFORMATION][:1] == [True]
        assert await town.log()


@pytest.mark.req("R-011")
async def test_staff_come_in_at_terminals_of_business_systems_and_at_those_of_the_interface(
    house: House,
) -> None:
    """An inquiry is ordered at a business terminal, and an answer let go at a dedicated one: each only by who
    is signed in there, and each on record with its terminal."""
    for town, staff_id in ((house.asking, OFFICER), (house.answering, "t0001")):
        granted = AuthorityGranted(staff_id, "課", "affair_manager", (ROW,), "2026-04-01", "2027-03-31")
        assert await town.platform.grant(granted) is None
    held = resident(ANSWERING, 0)
    assert await house.answering.platform.set_hold(held, True, "office_decision") is None
    business = door(house, house.asking, timedelta(hours=8))
    dedicated = door(house, house.answering, timedelta(hours=8))
    clerk = Caller(OFFICER, "業務端末1", "児童手当の審査")
    officer = Caller("t0001", "専用端末1", "照会への回答")

    assert await business.send([asked("q-1", 0, terminal=clerk.terminal)]) == [("I-128", "")]
    assert await business.sign(clerk, "in") == ""
    assert await business.send([asked("q-1", 0, terminal=clerk.terminal)]) == [("", "")]
    await house.post()
    assert await dedicated.held(officer) == Refusal("I-128")
    assert await dedicated.sign(officer, "in") == ""
    waiting = await dedicated.held(officer)
    assert not isinstance(waiting, Refusal)
    approve = DecisionOrder(waiting[0].processing_number, "approve", (), (), ())
    assert await dedicated.decide(officer, [approve]) == [("", "")]
    await house.post()
    assert (await house.asking.result("q-1")).payloads == (asked_of(0),)
    (ordered,) = await house.asking.of_kind(InquiryRequested)
    assert ordered.terminal == clerk.terminal
    done = await house.answering.of_kind(OperationRecorded)
    assert {each.terminal for each in done} == {officer.terminal}


@pytest.mark.req("R-074")
async def test_a_message_is_staged_until_the_network_has_spoken_also_through_a_stop(
    tmp_path: Path, keys: Keys
) -> None:
    async with open_house(tmp_path, keys) as house:
        await house.furnish()
        assert await house.asking.platform.inquire(order("q-1", 0)) is None
        staged = await house.asking.outbox()
    async with open_house(tmp_path, keys, opening=2) as house:
        for town in house.towns.values():
            await town.look_around()
        assert await house.asking.outbox() == staged
        assert len(staged) == 1
        await house.post()
        assert await house.asking.outbox() == []
        assert (await house.asking.result("q-1")).payloads == (asked_of(0),)
