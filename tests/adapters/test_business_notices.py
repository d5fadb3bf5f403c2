"""Notices by file: real cp932 files in, through the door by the commands, and what became of them back."""

from collections.abc import Awaitable, Callable
from csv import DictReader
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from adapters.business.notices import (
    CANCELLATIONS,
    NOTICES,
    RESIDENT_NOTICES,
    read_cancellations,
    read_ids,
    read_notices,
    read_resident_notices,
    write_resident_results,
)
from adapters.business.records import ErrorLine
from adapters.business.server import BusinessServer
from adapters.http import serve, server_context
from adapters.platform.notices import NoticeOrder
from adapters.platform.resident_notices import (
    Cancellation,
    ResidentNoticeOrder,
    ResidentNoticeResult,
    ResidentNotices,
)
from broker.intermediate.office import OfficeOpened
from broker.intermediate.resident_notice import NoticePublished
from broker.intermediate.staff import AuthorityGranted
from broker.ledger.ledger import Change, Unit
from ops.cli import main
from schemas.errors import entry
from tests.house import (
    ANSWERING,
    ASKING,
    INFORMATION,
    LAYOUT,
    OFFICE,
    OFFICER,
    ROW,
    YEAR,
    House,
    Town,
    asked_of,
    resident,
)

NUMBER, OTHER_NUMBER = resident(ASKING, 0), resident(ASKING, 1)
PUBLISHED = {
    "お知らせID": "r-1",
    "職員ID": OFFICER,
    "団体内統合宛名番号": NUMBER,
    "種類": "審査状況",
    "審査状況": "審査中",
    "件名": "現況届の審査",
    "本文": "審査しています。",
    "返答の選択肢": "はい／いいえ",
    "ひとこと欄": "1",
    "有効終了日": "2026-12-31",
}
CANCELLED = {"お知らせID": "r-1", "職員ID": OFFICER, "取消の理由": "誤りがありました。"}
SENT = {
    "連絡ID": "n-1",
    "職員ID": OFFICER,
    "宛先機関コード": ASKING.code,
    "宛先の所属": OFFICE,
    "件名": "所得の更正",
    "本文": "更正がありました。",
    "表の項": ROW,
    "特定個人情報": INFORMATION,
    "レイアウト": LAYOUT,
    "相当年度": YEAR,
    "団体内統合宛名番号": resident(ANSWERING, 0),
}
NOBODY = {"表の項": "", "特定個人情報": "", "レイアウト": "", "相当年度": "", "団体内統合宛名番号": ""}


def file(path: Path, *records: dict[str, str]) -> Path:
    rows = [",".join(records[0]), *(",".join(record.values()) for record in records)]
    path.write_bytes("".join(f"{row}\r\n" for row in rows).encode("cp932"))
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="cp932", newline="") as lines:
        return list(DictReader(lines))


def faults(found: Any) -> list[tuple[int, str, str]]:
    return [(each.line, each.item, each.code) for each in found if isinstance(each, ErrorLine)]


def test_the_headers_are_those_of_the_forms() -> None:
    assert RESIDENT_NOTICES.header == tuple(PUBLISHED)
    assert CANCELLATIONS.header == tuple(CANCELLED)
    assert NOTICES.header == tuple(SENT)


def test_notices_are_read_as_written_in_the_files(tmp_path: Path) -> None:
    plain = PUBLISHED | {"種類": "お知らせ", "審査状況": "", "返答の選択肢": "", "ひとこと欄": "0"}
    published = read_resident_notices(file(tmp_path / "r.csv", PUBLISHED, plain))
    about = (OFFICER, NUMBER)
    words = ("現況届の審査", "審査しています。")
    assert list(published) == [
        (
            2,
            ResidentNoticeOrder(
                "r-1", *about, "application", "under_review", *words, ("はい", "いいえ"), True, "2026-12-31"
            ),
        ),
        (3, ResidentNoticeOrder("r-1", *about, "general", "", *words, (), False, "2026-12-31")),
    ]
    cancelled = read_cancellations(file(tmp_path / "c.csv", CANCELLED))
    assert list(cancelled) == [(2, Cancellation("r-1", OFFICER, "誤りがありました。"))]
    order = NoticeOrder("n-1", OFFICER, ASKING.code, OFFICE, "所得の更正", "更正がありました。")
    sent = list(read_notices(file(tmp_path / "n.csv", SENT | NOBODY, SENT)))
    assert sent[0] == (2, order)
    law = {"row": ROW, "information": INFORMATION, "layout": LAYOUT, "fiscal_year": YEAR}
    assert sent[1] == (3, replace(order, **law, subjects=(resident(ANSWERING, 0),)))


@pytest.mark.req("R-081", "R-360")
@pytest.mark.parametrize(
    ("changes", "found"),
    [
        (
            {"団体内統合宛名番号": NUMBER[:-1] + str((int(NUMBER[-1]) + 1) % 10)},
            [("団体内統合宛名番号", "B-006")],
        ),
        ({"種類": "広告"}, [("種類", "B-005")]),
        ({"審査状況": ""}, [("審査状況", "B-002")]),
        ({"種類": "支払"}, [("審査状況", "B-010")]),
        ({"件名": ""}, [("件名", "B-002")]),
        ({"件名": "あ" * 101}, [("件名", "B-004")]),
        ({"本文": "あ" * 2001}, [("本文", "B-004")]),
        ({"返答の選択肢": "はい／はい"}, [("返答の選択肢", "B-011")]),
        ({"返答の選択肢": "はい／"}, [("返答の選択肢", "B-004")]),
        ({"ひとこと欄": "2", "有効終了日": "2026-02-30"}, [("ひとこと欄", "B-005"), ("有効終了日", "B-012")]),
    ],
)
def test_every_fault_of_a_notice_to_a_resident_is_found(
    tmp_path: Path, changes: dict[str, str], found: list[tuple[str, str]]
) -> None:
    path = file(tmp_path / "r.csv", PUBLISHED, PUBLISHED | changes)
    assert faults(read_resident_notices(path)) == [(3, *each) for each in found]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"宛先機関コード": "990018"}, [("宛先機関コード", "B-006")]),
        ({"宛先の所属": ""}, [("宛先の所属", "B-002")]),
        ({"表の項": ""}, [("表の項", "B-002")]),
        ({"団体内統合宛名番号": ""}, [("団体内統合宛名番号", "B-002")]),
        ({"レイアウト": "shoes/1"}, [("レイアウト", "B-005")]),
        ({"本文": "あ" * 4001}, [("本文", "B-004")]),
    ],
)
def test_every_fault_of_a_notice_to_an_agency_is_found(
    tmp_path: Path, changes: dict[str, str], found: list[tuple[str, str]]
) -> None:
    assert faults(read_notices(file(tmp_path / "n.csv", SENT | changes))) == [(2, *each) for each in found]


def test_a_reply_that_cp932_cannot_carry_costs_its_own_column_only(tmp_path: Path) -> None:
    at = "2026-11-21T09:30:00.000000+09:00"
    result = ResidentNoticeResult("r-1", "replied", at, "2026-12-31", at, at, "はい", "お願い🙏", "")
    (fault,) = write_resident_results(tmp_path / "out.csv", [result])
    assert (fault.item, fault.code) == ("ひとこと", "B-009")
    (row,) = rows(tmp_path / "out.csv")
    assert (row["状態"], row["返答"], row["返答日時"]) == ("返答済", "はい", at)
    assert "cp932" in row["ひとこと"]


def test_the_ids_to_look_after_stand_in_one_column(tmp_path: Path) -> None:
    path = file(tmp_path / "ids.csv", {"お知らせID": "r-1"}, {"お知らせID": "r-2"})
    assert list(read_ids(path, "お知らせID")) == [(2, "r-1"), (3, "r-2")]
    assert faults(read_ids(path, "連絡ID")) == [(1, "行", "B-001")]


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


@pytest.fixture
async def command(
    house: House, tmp_path: Path, nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> Command:
    """`renkei` at the door of one of the cities: exit status, what it said, and what it said as an error."""
    for town, office, opened in (
        (house.asking, OFFICE, OfficeOpened(ASKING.code, OFFICE, OFFICE, (ROW,), "2026-04-01", "2027-03-31")),
        (house.answering, "税務課", None),
    ):
        granted = AuthorityGranted(OFFICER, office, "affair_officer", (ROW,), "2026-04-01", "2027-03-31")
        await write(town, f"staff/{OFFICER}", granted)
        if opened is not None:
            await write(town, f"office/{ASKING.code}/{OFFICE}", opened)
        agency = town.agency
        business = house.keys.new_line(f"urn:renkei:business:{agency.code}")
        handle = BusinessServer(town.platform, town.addressing, None).handle
        context = server_context(*house.keys.line_files(agency.code))
        port = await nursery.start(partial(serve, handle, "127.0.0.1", 0, context))
        certificate, key, authority = house.keys.line_files(business)
        text = CONFIG.format(
            code=agency.code,
            name=agency.name,
            authority=authority,
            certificate=certificate,
            key=key,
            port=port,
        )
        (tmp_path / f"{agency.code}.toml").write_text(text, encoding="utf-8")

    async def run(code: str, names: str, *arguments: Any) -> tuple[int, str, str]:
        given = [*names.split(), "--config", tmp_path / f"{code}.toml", *arguments]
        status = await trio.to_thread.run_sync(main, [str(each) for each in given])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


async def write(town: Town, stream: str, event: Any) -> None:
    ledger = town.platform.ledger
    before = len(await ledger.stream(stream))
    await ledger.append(Unit(f"test/{stream}/{before}", (Change(stream, before, (event,)),)))


@pytest.mark.req("R-360", "R-363")
async def test_notices_to_residents_are_published_looked_after_and_withdrawn_by_file(
    house: House, command: Command, tmp_path: Path
) -> None:
    residents = ResidentNotices(house.asking.platform)
    wrong = PUBLISHED | {"お知らせID": "r-3", "件名": ""}
    unknown = PUBLISHED | {"お知らせID": "r-4", "職員ID": "s9999"}
    second = PUBLISHED | {"お知らせID": "r-2", "団体内統合宛名番号": OTHER_NUMBER}
    path = file(tmp_path / "notices.csv", PUBLISHED, second, wrong, unknown)
    for _ in range(2):  # the same file again changes nothing
        status, said, _ = await command(ASKING.code, "load", "notices", path)
        assert (status, said.split()[1:6:3]) == (0, ["2", "2"])
        listed = [
            (row["行"], row["項目"], row["コード"]) for row in rows(tmp_path / "notices.csv.errors.csv")
        ]
        assert listed == [("4", "件名", "B-002"), ("5", "行", "I-101")]
        assert len(await house.asking.of_kind(NoticePublished)) == 2

    house.clock.advance(timedelta(hours=1))
    await residents.open(NUMBER, residents.notice("r-1"))
    await residents.reply(NUMBER, residents.notice("r-1"), "はい", "お願いします")
    cancelled = file(
        tmp_path / "cancel.csv", CANCELLED | {"お知らせID": "r-2"}, CANCELLED | {"お知らせID": "r-9"}
    )
    status, said, _ = await command(ASKING.code, "load", "cancellations", cancelled)
    assert (status, [row["コード"] for row in rows(tmp_path / "cancel.csv.errors.csv")]) == (0, ["I-242"])

    ids = file(tmp_path / "ids.csv", *({"お知らせID": f"r-{n}"} for n in (1, 2, 9)))
    status, said, _ = await command(ASKING.code, "notices results", ids, "--into", tmp_path / "out.csv")
    assert status == 0
    assert "状況 3 件 エラー 0 件" in said
    first, withdrawn, none = rows(tmp_path / "out.csv")
    assert (first["状態"], first["返答"], first["ひとこと"]) == ("返答済", "はい", "お願いします")
    assert first["登録日時"] == "2026-11-21T09:30:00.000000+09:00"
    assert first["開封日時"] == "2026-11-21T10:30:00.000000+09:00"
    assert (withdrawn["状態"], withdrawn["取消日時"]) == ("取消済", "2026-11-21T10:30:00.000000+09:00")
    assert (none["状態"], none["登録日時"]) == ("未登録", "")
    assert (tmp_path / "out.csv").stat().st_mode & 0o777 == 0o600


@pytest.mark.req("R-360")
async def test_one_notice_to_a_resident_is_looked_after_and_withdrawn_alone(
    house: House, command: Command, tmp_path: Path
) -> None:
    await command(ASKING.code, "load", "notices", file(tmp_path / "notices.csv", PUBLISHED))
    status, said, _ = await command(ASKING.code, "notices show", "r-1")
    assert status == 0
    assert "状態 (state): 未読" in said
    why = ("--by", OFFICER, "--reason", "誤りがありました。")
    assert await command(ASKING.code, "notices cancel", "r-1", *why) == (0, "", "")
    status, said, _ = await command(ASKING.code, "notices show", "r-1")
    assert "状態 (state): 取消済" in said
    for arguments in (("notices cancel", "r-9", *why), ("notices show", "r-9")):
        status, _, said = await command(ASKING.code, *arguments)
        assert (status, said[:7]) == (1, "[I-242]")
        assert entry("I-242").next_ja in said


@pytest.mark.req("R-083", "R-088")
async def test_notices_to_an_agency_go_by_file_from_inbox_to_acknowledgement(
    house: House, command: Command, tmp_path: Path
) -> None:
    elsewhere = SENT | NOBODY | {"連絡ID": "n-2", "宛先の所属": "ない課"}
    refused = SENT | {"連絡ID": "n-3", "職員ID": "s9999"}
    status, said, _ = await command(
        ANSWERING.code, "notify", file(tmp_path / "sent.csv", SENT, elsewhere, refused)
    )
    assert status == 0
    assert [row["コード"] for row in rows(tmp_path / "sent.csv.errors.csv")] == ["I-101"]
    await house.post()

    inbox, persons = tmp_path / "inbox.csv", tmp_path / "persons.csv"
    who = ("--by", OFFICER, "--purpose", "連絡の確認")
    arguments = ("notices inbox", *who, "--office", OFFICE, "--into", inbox, "--persons", persons)
    assert (await command(ASKING.code, *arguments))[0] == 0
    (arrived,) = rows(inbox)
    assert (arrived["件名"], arrived["送信した所属"], arrived["状態"]) == ("所得の更正", "税務課", "受信")
    (person,) = rows(persons)
    assert person["団体内統合宛名番号"] == NUMBER
    assert asked_of(0)["total_income"] in person.values()
    assert (await command(ASKING.code, "notices inbox", *who, "--into", inbox))[0] == 0
    (common,) = rows(inbox)
    assert (common["宛先の所属"], common["コード"]) == ("ない課", "I-247")

    status, _, said = await command(ASKING.code, "notices inbox", *who, "--office", "会計課", "--into", inbox)
    assert (status, said[:7]) == (1, "[I-249]")
    read = ("notices read", arrived["連絡番号"], "--by")
    status, _, said = await command(ASKING.code, *read, "s9999")
    assert (status, said[:7]) == (1, "[I-249]")
    assert await command(ASKING.code, *read, OFFICER) == (0, "", "")
    await house.post()

    ids = file(tmp_path / "ids.csv", *({"連絡ID": f"n-{n}"} for n in (1, 2, 3, 4)))
    assert (await command(ANSWERING.code, "notices sent", ids, "--into", tmp_path / "out.csv"))[0] == 0
    states = [(row["状態"], row["コード"], row["受付した所属"]) for row in rows(tmp_path / "out.csv")]
    assert states == [
        ("受付済", "", OFFICE),
        ("到達", "I-247", ""),
        ("送信不可", "I-101", ""),
        ("未登録", "", ""),
    ]
