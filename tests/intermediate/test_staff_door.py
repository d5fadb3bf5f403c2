"""Staff at the business system's door: registered by file, and the intermediate log as a command shows it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from adapters.business.client import BusinessClient
from adapters.business.files import (
    read_offices,
    read_revocations,
    read_staff,
    write_offices,
    write_revocations,
    write_staff,
)
from adapters.business.records import ErrorLine, OfficeRecord, RevocationRecord, StaffRecord
from adapters.business.server import BusinessServer
from adapters.http import serve, server_context
from adapters.platform.staffing import Caller, Search, Staffing
from broker.intermediate.operation import OperationRecorded
from broker.intermediate.staff import AuthorityGranted, AuthorityRevoked
from ops.cli import main
from schemas.errors import Refusal
from tests.house import ANSWERING, ASKING, ROW, House, Keys, Line, open_house, resident

SPAN = ("2026-04-01", "2027-03-31")
OFFICES = [
    OfficeRecord(ASKING.code, "K01", "子育て支援課", (ROW, "106"), *SPAN),
    OfficeRecord(ASKING.code, "A01", "監査課", (ROW,), *SPAN),
    OfficeRecord(ANSWERING.code, "Z07", "税務課", (), *SPAN),
]
STAFF = [
    StaffRecord("s0001", "K01", "affair_officer", (ROW,), *SPAN),
    StaffRecord("s0002", "K01", "affair_officer", (ROW, "2"), *SPAN),
    StaffRecord("s0901", "A01", "auditor", (ROW,), *SPAN),
    StaffRecord("s0903", "A01", "approver", (ROW,), *SPAN),
]


@pytest.fixture
async def bare(tmp_path: Path, keys: Keys) -> AsyncIterator[House]:
    """A house where nothing has happened yet."""
    async with open_house(tmp_path / "bare", keys) as house:
        yield house


@pytest.fixture
def business(keys: Keys) -> str:
    """The name of a business system's certificate."""
    return keys.new_line(f"urn:renkei:business:{ASKING.code}")


def records(found: Any) -> list[Any]:
    lines = list(found)
    assert not [line for line in lines if isinstance(line, ErrorLine)]
    return [record for _, record in lines]


@pytest.mark.req("R-076", "R-088", "R-097")
async def test_offices_staff_and_revocations_come_by_file_with_a_verdict_each(
    bare: House, business: str, tmp_path: Path
) -> None:
    town = bare.asking
    door = BusinessClient(
        Line(bare.keys.on_the_line(business), BusinessServer(town.platform, town.addressing, None).handle)
    )
    ended = [RevocationRecord("s0001", "2026-11-21"), RevocationRecord("s9999", "2026-11-21")]
    assert write_offices(tmp_path / "offices.csv", OFFICES) == []
    assert write_staff(tmp_path / "staff.csv", STAFF) == []
    assert write_revocations(tmp_path / "revocations.csv", ended) == []
    sent: Sequence[tuple[Callable[[Path], Any], str, list[Any], list[tuple[str, str]]]] = [
        (read_offices, "offices.csv", OFFICES, [("", "")] * 3),
        (read_staff, "staff.csv", STAFF, [("", ""), ("I-126", "2"), ("", ""), ("", "")]),
        (read_revocations, "revocations.csv", ended, [("", ""), ("I-127", "")]),
    ]
    for read, name, held, verdicts in sent:
        read_back = records(read(tmp_path / name))
        assert read_back == held
        assert await door.send(read_back) == verdicts
        position = town.platform.ledger.position
        assert await door.send(read_back) == verdicts
        assert town.platform.ledger.position == position, "the same file again leaves no event"
    assert {e.staff_id for e in await town.of_kind(AuthorityGranted)} == {"s0001", "s0901", "s0903"}
    assert len(await town.of_kind(AuthorityRevoked)) == 1
    staffing = Staffing(town.platform)
    assert (await staffing.authority("s0001", ROW, "2026-11-21"))[1] is None
    assert (await staffing.authority("s0001", ROW, "2026-11-22"))[1] == Refusal("I-101")
    assert not isinstance(await staffing.destination(ANSWERING.code, "Z07"), Refusal)


def test_a_file_of_offices_or_revocations_gives_every_fault_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "offices.csv"
    write_offices(
        path,
        [
            OFFICES[0],
            OfficeRecord("990011", "K02", "福祉課", ("1-",), "2026-04-01", "2026-03-31"),
            OFFICES[2],
        ],
    )
    found = list(read_offices(path))
    faults = [(f.line, f.item, f.code) for f in found if isinstance(f, ErrorLine)]
    assert faults == [
        (3, "機関コード", "B-006"),
        (3, "法令の表の項", "B-003"),
        (3, "有効終了日", "B-012"),
    ]
    assert [record for record in found if not isinstance(record, ErrorLine)] == [
        (2, OFFICES[0]),
        (4, OFFICES[2]),
    ]
    write_revocations(tmp_path / "r.csv", [RevocationRecord("s0001", "2026-02-30")])
    (fault,) = read_revocations(tmp_path / "r.csv")
    assert isinstance(fault, ErrorLine)
    assert (fault.line, fault.item, fault.code) == (2, "権限終了日", "B-012")


@pytest.mark.req("R-079", "R-091")
async def test_where_it_is_asked_for_only_who_is_signed_in_at_the_terminal_acts(
    bare: House, business: str
) -> None:
    town = bare.asking
    server = BusinessServer(town.platform, town.addressing, None, timedelta(hours=8))
    door = BusinessClient(Line(bare.keys.on_the_line(business), server.handle))
    for record in STAFF:
        assert await town.platform.grant(AuthorityGranted(**vars(record))) is None
    auditor, stranger = Caller("s0901", "terminal-1", "定期監査"), Caller("s9999", "terminal-1", "定期監査")
    elsewhere, absent = replace(auditor, terminal="terminal-2"), Refusal("I-128")
    assert await door.operations(auditor, Search()) == absent
    assert await door.sign(stranger, "in") == "I-122"
    assert await door.sign(auditor, "in") == ""
    assert not isinstance(await door.operations(auditor, Search()), Refusal)
    assert await door.operations(elsewhere, Search()) == absent
    assert await door.sign(elsewhere, "in") == ""
    assert await door.operations(auditor, Search()) == absent, "at one terminal at a time"
    bare.clock.advance(timedelta(hours=8))
    assert await door.operations(elsewhere, Search()) == absent, "it has lapsed"
    assert await door.sign(elsewhere, "in") == ""
    assert await door.sign(elsewhere, "out") == ""
    assert await door.operations(elsewhere, Search()) == absent
    words = [e.operation for e in await town.of_kind(OperationRecorded)]
    assert words == ["sign_in", "read_operations", "sign_in", "sign_in", "sign_out"]


CONFIG = """
code = "{code}"
name = "連携市"
kind = "city"
data = "data"
authority = "{authority}"
tls_certificate = "{certificate}"
tls_key = "{key}"
signing_certificate = "{certificate}"
signing_key = "{key}"
network = "127.0.0.1:1"
registry = "127.0.0.1:1"
business = "127.0.0.1:{port}"
business_certificate = "{certificate}"
business_key = "{key}"
"""


@pytest.fixture
async def command(
    bare: House, business: str, tmp_path: Path, nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Awaitable[tuple[int, str, str]]]:
    """`renkei` at the door of 連携市: exit status, what it printed, and what it printed as an error."""
    town = bare.asking
    for record in STAFF:
        assert await town.platform.grant(AuthorityGranted(**vars(record))) is None
    handle = BusinessServer(town.platform, town.addressing, None).handle
    context = server_context(*bare.keys.line_files(ASKING.code))
    port = await nursery.start(partial(serve, handle, "127.0.0.1", 0, context))
    certificate, key, authority = bare.keys.line_files(business)
    config = tmp_path / "agency.toml"
    text = CONFIG.format(code=ASKING.code, authority=authority, certificate=certificate, key=key, port=port)
    config.write_text(text, encoding="utf-8")

    async def run(*arguments: str) -> tuple[int, str, str]:
        name, *rest = arguments
        status = await trio.to_thread.run_sync(main, [name, "--config", str(config), *rest])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.mark.req("R-098", "R-156", "R-157")
async def test_the_command_shows_the_log_of_a_person_only_with_a_second_person(
    command: Callable[..., Awaitable[tuple[int, str, str]]],
) -> None:
    number = resident(ASKING, 0)
    auditor = ("operations", "--by", "s0901", "--purpose", "開示請求の確認", "--resident", number)
    second = ("operations", "--by", "s0903", "--purpose", "開示請求の確認", "--resident", number)
    status, _, said = await command(*auditor)
    assert status == 1
    assert said.startswith("[I-129]")
    act = said.splitlines()[0].split()[-1]
    status, _, said = await command(*auditor, "--act", act)
    assert (status, said[:7]) == (1, "[I-124]")
    status, _, said = await command(*auditor, "--confirm", act)
    assert (status, said[:7]) == (1, "[I-121]")
    status, said, _ = await command(*second, "--confirm", act)
    assert (status, said.strip()) == (0, "確認しました (confirmed)")
    status, said, _ = await command(*auditor, "--act", act)
    assert status == 0
    header, line = said.splitlines()
    assert header == "中間ログ 1 件 (intermediate log)"
    for part in ("中間ログの閲覧", "s0901", "監査担当者", "A01", number, "開示請求の確認"):
        assert part in line
    status, said, _ = await command(
        "operations", "--by", "s0901", "--purpose", "定期監査", "--to", "2026-11-20"
    )
    assert (status, said.strip()) == (0, "中間ログ 0 件 (intermediate log)")
    status, _, said = await command(auditor[0], "--by", "s0001", *auditor[3:5])
    assert (status, said[:7]) == (1, "[I-122]")
    assert (await command("sign-in", "--by", "s0901"))[0] == 0
    status, _, said = await command("sign-in", "--by", "s9999")
    assert (status, said[:7]) == (1, "[I-122]")
    assert (await command("sign-out", "--by", "s0901"))[0] == 0
    status, _, said = await command(*auditor[:-1], "123456789012345")
    assert (status, said[:7]) == (1, "[A-102]")
