"""Inquiries by file: real cp932 files in, through the door by the commands, and what became of them back."""

from collections.abc import Awaitable, Callable
from csv import DictReader
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from adapters.business.client import BusinessClient
from adapters.business.files import write_inquiries
from adapters.business.records import InquiryRecord
from adapters.business.server import BusinessServer
from adapters.http import serve, server_context
from adapters.platform.staffing import Caller
from broker.intermediate.inquiry import InquiryRequested
from broker.linkage.outgoing import MessageQueued
from ops.cli import main
from schemas.messages import InquiryControl, decode
from tests.house import (
    ANSWERING,
    ASKING,
    INFORMATION,
    LAYOUT,
    NO_CODE,
    NO_RECORD,
    OFFICER,
    ROW,
    YEAR,
    House,
    Line,
    asked_of,
    resident,
)

CONFIG = """
code = "{code}"
name = "{name}"
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
Command = Callable[..., Awaitable[tuple[int, str, str]]]


def record(request_id: str, *people: int, **changes: Any) -> InquiryRecord:
    subjects = tuple(resident(ASKING, index) for index in people)
    asked = InquiryRecord(
        request_id, OFFICER, ANSWERING.code, ROW, INFORMATION, LAYOUT, YEAR, subjects, terminal="t-1"
    )
    return replace(asked, **changes)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="cp932", newline="") as stream:
        return list(DictReader(stream))


@pytest.fixture
def business(house: House) -> str:
    """The name of a business system's certificate."""
    return house.keys.new_line(f"urn:renkei:business:{ASKING.code}")


@pytest.fixture
async def command(
    house: House, business: str, tmp_path: Path, nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> Command:
    """`renkei` at the door of 連携市: exit status, what it said, and what it said as an error."""
    town = house.asking
    handle = BusinessServer(town.platform, town.addressing, None).handle
    context = server_context(*house.keys.line_files(ASKING.code))
    port = await nursery.start(partial(serve, handle, "127.0.0.1", 0, context))
    certificate, key, authority = house.keys.line_files(business)
    text = CONFIG.format(
        code=ASKING.code,
        name=ASKING.name,
        authority=authority,
        certificate=certificate,
        key=key,
        port=port,
    )
    (tmp_path / "city.toml").write_text(text, encoding="utf-8")

    async def run(name: str, *arguments: Any) -> tuple[int, str, str]:
        given = [name, "--config", tmp_path / "city.toml", *arguments]
        status = await trio.to_thread.run_sync(main, [str(each) for each in given])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.mark.req("R-082", "R-084", "R-085", "R-090", "R-212")
async def test_a_file_is_asked_in_one_envelope_and_its_results_are_fetched_later(
    house: House, command: Command, tmp_path: Path
) -> None:
    file, out = tmp_path / "inquiries.csv", tmp_path / "results.csv"
    wrong = record("w-1", 0, row="x")
    records = [
        record("q-1", 0, case_number="K-1"),
        record("h-1", 0, NO_RECORD, 1, case_number="K-1"),
        record("q-2", NO_CODE),
        wrong,
        record("q-1", 0, case_number="K-1"),
        record("q-1", 1),
    ]
    assert write_inquiries(file, records) == []
    status, said, _ = await command("inquire", file, "--results", out, "--patience", "0")
    assert (status, "エラー 3 件" in said) == (0, True)
    assert {row["状態"] for row in rows(out)} == {"受付済"}
    assert [(row["行"], row["コード"]) for row in rows(tmp_path / "inquiries.csv.errors.csv")] == [
        ("5", "B-003"),
        ("6", "I-105"),
        ("7", "B-008"),
    ]
    (message,) = await house.asking.of_kind(MessageQueued)
    assert decode(InquiryControl, message.control).units == (1, 3, 1)
    (asked,) = await house.asking.of_kind(InquiryRequested)
    assert (asked.terminal, asked.staff_id) == ("t-1", OFFICER)
    await house.post()
    for arguments, expected in (
        (("--file", file), ["q-1", "h-1", "h-1", "h-1", "q-2", "q-1", "q-1"]),
        (("--case", "K-1"), ["h-1", "h-1", "h-1", "q-1"]),
        (("--request", "h-1"), ["h-1", "h-1", "h-1"]),
    ):
        status, said, _ = await command("results", *arguments, "--results", out)
        assert status == 0
        assert [row["照会ID"] for row in rows(out)] == expected
    found = rows(out)
    assert [(row["状態"], row["コード"], row["団体内統合宛名番号"]) for row in found] == [
        ("回答済", "", resident(ASKING, 0)),
        ("提供不可", "I-204", resident(ASKING, NO_RECORD)),
        ("回答済", "", resident(ASKING, 1)),
    ]
    assert asked_of(1)["total_income"] in found[2].values()
    _, said, _ = await command("status", "--file", file)
    assert [line.split()[:3] for line in said.splitlines()[1:]] == [
        ["q-1", "回答済", "K-1"],
        ["h-1", "回答済", "I-204"],
        ["q-2", "提供不可", "N-106"],
    ]
    _, said, _ = await command("status", "--request", "nothing")
    assert said.splitlines()[1].split() == ["nothing", "未受付"]


@pytest.mark.req("R-089")
async def test_a_file_is_withdrawn_and_the_result_of_that_is_read(
    house: House, command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "inquiries.csv"
    write_inquiries(file, [record("q-1", 0), record("q-2", 1)])
    await command("inquire", file, "--results", tmp_path / "r.csv", "--patience", "0")
    by = ("--by", OFFICER, "--purpose", "申請の取下げ")
    status, said, complaint = await command("withdraw", "--request", "q-2", *by)
    assert (status, "取りやめ 0 件" in said, "[I-112]" in complaint) == (1, True, True)
    status, said, complaint = await command("withdraw", "--file", file, *by)
    assert (status, "取りやめ 2 件" in said, complaint) == (0, True, "")
    _, said, _ = await command("status", "--file", file)
    assert said.count("取りやめ済  I-111") == 2
    status, _, complaint = await command("withdraw", "--request", "q-2", *by)
    assert (status, "[I-113]" in complaint) == (1, True)


async def test_a_file_that_is_not_there_is_named(command: Command, tmp_path: Path) -> None:
    for arguments in (("results", "--results", tmp_path / "r.csv"), ("status",)):
        status, _, complaint = await command(*arguments, "--file", tmp_path / "nowhere.csv")
        assert (status, "[S-104]" in complaint, "nowhere.csv" in complaint) == (1, True, True)


@pytest.mark.req("R-079", "R-091")
async def test_where_it_is_asked_for_only_who_is_signed_in_at_the_terminal_inquires(
    house: House, business: str
) -> None:
    town = house.asking
    server = BusinessServer(town.platform, town.addressing, None, timedelta(hours=8))
    door = BusinessClient(Line(house.keys.on_the_line(business), server.handle))
    submitted = [record("q-1", 0), record("q-2", 1, terminal="t-2"), record("q-3", 2, not_before="x")]
    assert await door.inquire(submitted) == [("I-128", ""), ("I-128", ""), ("B-001", "")]
    assert await door.send(submitted[:1]) == [("I-128", "")]
    assert await door.sign(Caller(OFFICER, "t-1", "端末の利用"), "in") == ""
    assert await door.inquire(submitted) == [("", ""), ("I-128", ""), ("B-001", "")]
    assert await door.withdraw(Caller(OFFICER, "t-2", "誤り"), ["q-1"]) == [("I-128", "")]
    assert await door.withdraw(Caller(OFFICER, "t-1", "誤り"), ["q-1"]) == [("", "")]
    assert await door.open_inquiries(["q-1", "q-2"], 0) == 0
