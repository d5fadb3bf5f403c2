"""Holds and the officer's desk at the business system's door, and as the commands show them."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import trio

from adapters.business.client import BusinessClient
from adapters.business.holds import read_holds, write_holds
from adapters.business.server import BusinessServer
from adapters.http import serve, server_context
from adapters.platform.holdings import HoldOrder, NonDisclosureOrder, PublicationOrder
from adapters.platform.officer import DecisionOrder
from adapters.platform.staffing import Caller
from broker.intermediate.staff import AuthorityGranted
from ops.cli import main
from schemas.errors import Refusal
from schemas.items import layout
from tests.house import ANSWERING, LAYOUT, ROW, YEAR, House, Line, asked_of, order, resident
from tests.intermediate.test_staff_door import CONFIG

HER = resident(ANSWERING, 0)
CLERK = Caller("t0001", "窓口1", "照会への回答")
HOLD = HoldOrder(True, HER, "", "", "", "", "", "protected_person", "", "2027-03-31")
Command = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
async def town(house: House) -> House:
    """見本市 has a clerk and a chief in charge of the row."""
    for staff_id, role in (("t0001", "affair_officer"), ("t0002", "affair_manager")):
        granted = AuthorityGranted(staff_id, "税務課", role, (ROW,), "2026-04-01", "2027-03-31")
        await house.answering.platform.grant(granted)
    return house


@pytest.fixture
def business(house: House) -> str:
    """The name of a business system's certificate."""
    return house.keys.new_line(f"urn:renkei:business:{ANSWERING.code}")


async def held(house: House) -> str:
    """連携市 asks about her, and it is held: the processing number."""
    assert await house.asking.platform.inquire(order("q-1", 0)) is None
    await house.post()
    ((number,),) = await house.answering.rows(
        "SELECT SUBSTR(stream, 11) FROM awaiting_approval WHERE kind = 'held'"
    )
    return str(number)


@pytest.mark.req("R-105", "R-106", "R-107", "R-108", "R-139", "R-140")
async def test_holds_and_decisions_go_through_the_door(town: House, business: str) -> None:
    house, agency = town, town.answering
    server = BusinessServer(agency.platform, agency.addressing, None)
    door = BusinessClient(Line(house.keys.on_the_line(business), server.handle))
    assert await door.send([HOLD, HoldOrder(True, "", "", "", "", "", "", "court_order", "", "")]) == [
        ("", ""),
        ("B-002", "integrated_number"),
    ]
    assert await door.holds() == [HOLD]
    assert await door.send([NonDisclosureOrder(True, HER, "", "", "protected_person")]) == [("", "")]
    assert await door.send([PublicationOrder(HER, LAYOUT, "2020", "2026-01-01")]) == [("", "")]
    number = await held(house)
    listed = await door.held(CLERK)
    assert not isinstance(listed, Refusal)
    assert [each.processing_number for each in listed] == [number]
    shown = await door.held_content(CLERK, number)
    assert not isinstance(shown, Refusal)
    assert shown.waiting == listed[0]
    assert [(p.integrated_number, dict(p.payload)) for p in shown.persons] == [(HER, asked_of(0))]
    assert await door.held_content(CLERK, "unknown") == Refusal("I-232")
    approve, release = (DecisionOrder(number, verdict, (), (), ()) for verdict in ("approve", "release"))
    assert await door.decide(CLERK, [approve]) == [("I-237", "")]
    assert await door.decide(CLERK, [release]) == [("I-233", "")]
    chief = Caller("t0002", "窓口1", "決裁")
    assert await door.decide(chief, [release]) == [("", "")]
    await house.post()
    assert (await house.asking.result("q-1")).payloads == (asked_of(0),)
    (found,) = await door.recipients(HER, LAYOUT, YEAR)
    assert (found.inquirer, found.law_row) == ("990019", ROW)
    (record,) = await agency.platform.records(HER)
    assert record.non_disclosure


@pytest.mark.req("R-079", "R-091")
async def test_who_is_not_signed_in_at_the_terminal_sees_and_decides_nothing(
    town: House, business: str
) -> None:
    house, agency = town, town.answering
    server = BusinessServer(agency.platform, agency.addressing, None, timedelta(hours=8))
    door = BusinessClient(Line(house.keys.on_the_line(business), server.handle))
    await agency.platform.hold(HOLD)
    number = await held(house)
    absent = Refusal("I-128")
    assert await door.held(CLERK) == absent
    assert await door.held_content(CLERK, number) == absent
    assert await door.decide(CLERK, [DecisionOrder(number, "refuse", (), (), ())]) == [("I-128", "")]
    assert await door.sign(CLERK, "in") == ""
    assert not isinstance(await door.held(CLERK), Refusal)


@pytest.fixture
async def command(
    town: House,
    business: str,
    tmp_path: Path,
    nursery: trio.Nursery,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """`renkei` at the door of 見本市: exit status, what it printed, and what it printed as an error."""
    agency = town.answering
    handle = BusinessServer(agency.platform, agency.addressing, None).handle
    context = server_context(*town.keys.line_files(ANSWERING.code))
    port = await nursery.start(serve, handle, "127.0.0.1", 0, context)
    certificate, key, authority = town.keys.line_files(business)
    config = tmp_path / "agency.toml"
    text = CONFIG.format(
        code=ANSWERING.code, authority=authority, certificate=certificate, key=key, port=port
    )
    config.write_text(text, encoding="utf-8")

    async def run(*arguments: str) -> tuple[int, str, str]:
        place = 2 if arguments[0] == "held" else 1
        given = [*arguments[:place], "--config", str(config), *arguments[place:]]
        status = await trio.to_thread.run_sync(main, given)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.mark.req("R-095", "R-105", "R-106", "R-108")
async def test_the_commands_of_an_officer(command: Command, town: House, tmp_path: Path) -> None:
    stranger = replace(HOLD, integrated_number=resident(ANSWERING, 4))
    write_holds(tmp_path / "holds.csv", [HOLD, stranger])
    status, said, _ = await command("load", "holds", str(tmp_path / "holds.csv"))
    assert status == 0
    assert "登録 1 件 エラー 1 件" in said
    status, said, _ = await command("holds")
    assert said.splitlines() == [
        "自動応答不可 1 件 (holds)",
        f"支援措置対象者  …～2027-03-31  {HER}",
    ]
    assert (await command("holds", "--into", str(tmp_path / "state.csv")))[0] == 0
    assert list(read_holds(tmp_path / "state.csv")) == [(2, HOLD)]

    single = ("hold", "--by", "t0001", "--purpose", "申出", "--resident", HER)
    corrected = ("--reason", "under_correction", "--to", "2026-12-31")
    status, said, _ = await command(*single, *corrected)
    assert (status, said.strip()) == (0, "設定しました (set)")
    status, said, _ = await command(*single, *corrected, "--release")
    assert (status, said.strip()) == (0, "解除しました (released)")
    status, _, said = await command(*single, "--reason", "protected_person", "--release")
    assert (status, said[:7]) == (1, "[I-129]")

    number = await held(town)
    clerk, chief = ("--by", "t0001", "--purpose", "回答"), ("--by", "t0002", "--purpose", "決裁")
    status, said, _ = await command("held", "list", *clerk)
    assert said.splitlines()[0] == "判断待ち 1 件 (waiting)"
    for part in (number, "連携市", ROW, "二人で確認"):
        assert part in said.splitlines()[1]
    assert HER not in said, "the list does not say about whom"
    status, said, _ = await command("held", "show", number, *clerk)
    known = layout(LAYOUT)
    for item, value in asked_of(0).items():
        assert f"{known.item(item).name_ja}  {value}" in said
    for part in (HER, "支援措置対象者", "事務取扱担当者", "19-8"):
        assert part in said
    status, _, said = await command("held", "show", "unknown", *clerk)
    assert (status, said[:7]) == (1, "[I-232]")
    limit = ("--withhold-item", "total_income")
    status, said, _ = await command("held", "limit", number, *limit, *clerk)
    assert (status, said.split()[:2]) == (0, [number, "I-237"])
    status, said, _ = await command("held", "show", number, *chief)
    assert "起案済み、提供しないもの (proposed, withheld)  総所得額" in said
    status, said, _ = await command("held", "release", number, *clerk)
    assert (status, said.split()[:2]) == (1, [number, "I-233"])
    status, said, _ = await command("held", "release", number, *chief)
    assert (status, said.strip()) == (0, f"{number}  実施しました (done)")
    await town.post()
    (payload,) = (await town.asking.result("q-1")).payloads
    assert payload == {item: value for item, value in asked_of(0).items() if item != "total_income"}
    status, said, _ = await command("held", "list", *clerk)
    assert said.strip() == "判断待ち 0 件 (waiting)"
