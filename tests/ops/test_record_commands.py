"""`renkei records` at a real door: fetched by file, disclosed on paper, corrected by two, compared online."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pytest
import trio

from adapters.business.output import write_csv
from adapters.business.record_files import (
    CORRECTIONS,
    PEOPLE,
    RECORD_HEADER,
    read_corrections,
)
from adapters.business.server import BusinessServer
from adapters.business.text import rows
from adapters.http import serve, server_context
from adapters.platform.provision_records import ProvisionRecordsDesk
from broker.intermediate.correction import RecordCorrected, RecordRequestRefused, RecordsDisclosed
from broker.intermediate.operation import OperationRecorded
from broker.intermediate.staff import AuthorityGranted
from ops.cli import main
from schemas.errors import entry
from tests.house import ANSWERING, NO_RECORD, OFFICE, ROW, House, order, resident
from tests.intermediate.test_staff_door import CONFIG

FIRST, SECOND = "s0101", "s0102"
HER = resident(ANSWERING, 0)
READER = ("--by", FIRST, "--purpose", "inspection")
CARD = ("--identity-checked", "individual_number_card")
Command = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
async def command(
    house: House, tmp_path: Path, nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> Command:
    """`renkei records` at the door of 見本市, which answered about two people and not about a third."""
    town = house.answering
    for staff_id, role in ((FIRST, "affair_officer"), (SECOND, "approver")):
        await town.platform.grant(
            AuthorityGranted(staff_id, OFFICE, role, (ROW,), "2026-04-01", "2027-03-31")
        )
    ProvisionRecordsDesk(house.asking.platform)
    assert await house.asking.platform.inquire(order("q-1", 0, 1, NO_RECORD)) is None
    await house.post()
    server = BusinessServer(town.platform, town.addressing, None, network=town.client)
    context = server_context(*house.keys.line_files(ANSWERING.code))
    port = await nursery.start(partial(serve, server.handle, "127.0.0.1", 0, context))
    name = house.keys.new_line(f"urn:renkei:business:{ANSWERING.code}")
    certificate, key, authority = house.keys.line_files(name)
    config = tmp_path / "agency.toml"
    config.write_text(
        CONFIG.format(
            code=ANSWERING.code, authority=authority, certificate=certificate, key=key, port=port
        ).replace("連携市", "見本市"),
        encoding="utf-8",
    )

    async def run(*arguments: object) -> tuple[int, str, str]:
        words = [*map(str, arguments)]
        place = (
            1 if words and words[0] in ("disclose", "stop-of-use", "transfer", "correct", "reconcile") else 0
        )
        words[place:place] = ["--config", str(config)]
        status = await trio.to_thread.run_sync(main, ["records", *words])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def cells(file: Path) -> list[tuple[str, ...]]:
    with file.open("rb") as stream:
        return [row.cells or () for row in rows(stream)]


@pytest.mark.req("R-160")
async def test_who_reads_says_for_what_and_is_recorded(house: House, command: Command) -> None:
    status, out, err = await command("--resident", HER, *READER)
    assert (status, err) == (0, "")
    assert out.startswith("情報提供等の記録 1 件 (provision records)")
    (noted,) = [e for e in await house.answering.of_kind(OperationRecorded) if e.operation == "read_records"]
    assert (noted.staff_id, noted.purpose, noted.subjects) == (FIRST, "監査・点検", (HER,))
    status, out, err = await command("--resident", HER, "--by", "s9999", "--purpose", "inspection")
    assert (status, out) == (1, "")
    assert err.startswith("[I-122]")
    status, out, err = await command("--resident", HER, "--by", FIRST)
    assert (status, out) == (1, "")
    assert err.startswith("[S-104]")
    with pytest.raises(SystemExit):
        await command("--resident", HER, "--by", FIRST, "--purpose", "好奇心")


@pytest.mark.req("R-155", "R-140")
async def test_records_are_fetched_by_file_and_those_to_whom_we_provided_extracted(
    command: Command, tmp_path: Path
) -> None:
    people, into = tmp_path / "people.csv", tmp_path / "records.csv"
    write_csv(people, PEOPLE.header, [[resident(ANSWERING, index)] for index in (0, NO_RECORD)] + [["1"]])
    status, out, _ = await command("--file", people, "--into", into, *READER)
    assert status == 0
    assert "記録 2 件 エラー 1 件" in out
    header, hers, other = cells(into)
    assert header == RECORD_HEADER
    found = dict(zip(header, hers, strict=True))
    assert (found["団体内統合宛名番号"], found["立場"]) == (HER, "提供")
    assert (found["情報照会者"], found["情報提供者"]) == ("連携市", "見本市")
    assert found["提供の日時"]
    assert "total_income" in found["情報の項目"].split()
    assert dict(zip(header, other, strict=True))["提供しなかった理由"] == "I-204"
    (_, fault) = cells(tmp_path / "records.csv.errors.csv")
    assert fault[:3] == ("4", "団体内統合宛名番号", "B-004")
    status, _, _ = await command("--file", people, "--into", into, "--provided", *READER)
    assert status == 0
    assert [line[0] for line in cells(into)[1:]] == [HER]
    assert (await command("--file", people, *READER))[0] == 1
    missing = await command("--file", tmp_path / "none.csv", "--into", into, *READER)
    assert missing[0] == 1


class Page(HTMLParser):
    """The texts of a page by their elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "meta":
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._inside.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.found.append((self._inside[-1], data.strip()))


@pytest.mark.req("R-163")
async def test_a_disclosure_is_a_paper_item_by_item_without_a_name(
    house: House, command: Command, tmp_path: Path
) -> None:
    paper = tmp_path / "paper.html"
    asked = ("--to", "proxy", *CARD, "--entitlement", "power_of_attorney", "--representative", "代理 太郎")
    status, out, err = await command("disclose", "--by", FIRST, "--resident", HER, *asked, "--into", paper)
    assert (status, err) == (0, "")
    assert "開示 1 件" in out
    text = paper.read_text(encoding="utf-8")
    values = [each for tag, each in Page(text).found if tag == "dd"]
    for value in ("見本市", "任意代理人", "個人番号カード、委任状", "1 件", "連携市", OFFICE, "該当しない"):
        assert value in values
    names = [each for tag, each in Page(text).found if tag == "dt"]
    for matter in ("情報照会者（法第23条第1項第1号）", "情報の項目（法第23条第1項第3号）"):
        assert matter in names
    for secret in ("代理 太郎", HER):
        assert secret not in text
        assert secret not in out
    (event,) = await house.answering.of_kind(RecordsDisclosed)
    assert event.representative == "代理 太郎"
    unchecked = ("--to", "proxy", *CARD, "--representative", "代理 太郎")
    status, out, err = await command(
        "disclose", "--by", FIRST, "--resident", HER, *unchecked, "--into", tmp_path / "none.html"
    )
    assert (status, out) == (1, "")
    assert err.startswith("[I-254]")
    assert not (tmp_path / "none.html").exists()


@pytest.mark.req("R-162")
async def test_a_stop_of_use_and_a_transfer_are_refused_with_a_code_of_their_own(
    house: House, command: Command
) -> None:
    for name, code in (("stop-of-use", "I-256"), ("transfer", "I-257")):
        status, out, err = await command(
            name, "--by", FIRST, "--resident", HER, "--asked-by", "person", *CARD
        )
        assert (status, out) == (1, "")
        assert err.startswith(f"[{code}] {entry(code).cause_ja}")
    refused = await house.answering.of_kind(RecordRequestRefused)
    assert [(e.kind, e.subject) for e in refused] == [("stop_of_use", HER), ("transfer", HER)]


@pytest.mark.req("R-161")
async def test_two_members_of_staff_correct_a_record_and_it_shows_beside_what_it_said(
    house: House, command: Command
) -> None:
    _, out, _ = await command("--resident", HER, *READER)
    number = out.split("[")[1].split("]")[0]
    wanted = (
        "--resident",
        HER,
        "--record",
        number,
        "--item",
        "office",
        "--new",
        "こども課",
        "--reason",
        "誤り",
    )
    status, out, err = await command("correct", "--by", FIRST, *wanted)
    assert status == 1
    assert err.startswith("[I-129]")
    act = err.splitlines()[0].split()[-1]
    status, out, err = await command("correct", "--by", FIRST, *wanted, "--confirm", act)
    assert err.startswith("[I-121]")
    assert await command("correct", "--by", SECOND, *wanted, "--confirm", act) == (
        0,
        "訂正しました (corrected)\n",
        "",
    )
    _, out, _ = await command("--resident", HER, *READER)
    assert f"事務をつかさどる組織: {OFFICE}" in out
    assert f"訂正（事務をつかさどる組織）: こども課（訂正前: {OFFICE}。この機関による訂正" in out
    assert (await command("correct", "--by", FIRST, "--resident", HER))[0] == 1


@pytest.mark.req("R-155", "R-161")
async def test_records_are_corrected_by_file_and_confirmed_by_the_file_that_comes_of_it(
    house: House, command: Command, tmp_path: Path
) -> None:
    (hers,) = await house.answering.platform.records(HER)
    his = resident(ANSWERING, 1)
    (other,) = await house.answering.platform.records(his)
    wanted, waiting, rest = (tmp_path / name for name in ("wanted.csv", "waiting.csv", "rest.csv"))
    lines = [
        [HER, hers.number, "事務をつかさどる組織", "こども課", "誤り", ""],
        [his, other.number, "不開示情報", "yes", "申出", ""],
        [his, hers.number, "不開示情報", "yes", "申出", ""],
        [his, other.number, "好きな項目", "yes", "申出", ""],
    ]
    write_csv(wanted, CORRECTIONS.header, lines)
    status, out, _ = await command("correct", "--by", FIRST, "--file", wanted, "--into", waiting)
    assert status == 0
    assert "訂正 0 件 確認待ち 2 件 エラー 2 件" in out
    faults = [line[:3] for line in cells(tmp_path / "waiting.csv.errors.csv")[1:]]
    assert faults == [("4", "記録番号", "I-251"), ("5", "訂正する項目", "B-005")]
    assert len([each for each in read_corrections(waiting) if isinstance(each, tuple)]) == 2
    status, out, _ = await command("correct", "--by", SECOND, "--file", waiting, "--into", rest)
    assert status == 0
    assert "訂正 2 件 確認待ち 0 件 エラー 0 件" in out
    assert len(await house.answering.of_kind(RecordCorrected)) == 2
    assert (await house.answering.platform.records(his))[0].non_disclosure


async def test_an_agency_compares_its_records_with_the_networks(
    house: House, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.logs.now", lambda: house.clock() + timedelta(minutes=45))
    said = "照合 1 件 処理中 0 件 相違 0 件 (compared, under way, differences)\n"
    assert await command("reconcile") == (0, said, "")
    await house.ask(1, request_id="q-2")
    assert (await command("reconcile", "--settle", "60"))[0] == 0
    status, out, err = await command("reconcile", "--from", "2026-11-21", "--to", "2026-11-21")
    assert status == 1
    assert "記録がない (no record) [提供側 (provider): なし]" in out
    assert "照合 2 件 処理中 0 件 相違 1 件" in out
    assert err.startswith("[I-258]")
    assert "照合 0 件" in (await command("reconcile", "--from", "2026-11-22"))[1]
