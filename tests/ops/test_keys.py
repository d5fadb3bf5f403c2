"""`renkei keys` and `renkei retain` on ledgers at work: what is destroyed is gone, every reader says so."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from csv import DictReader
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from adapters.portal.cards import cards
from broker.intermediate.inquiry import InquiryAnswered
from broker.ledger.events import Recorded, key_of
from broker.ledger.folder import VERIFIER_KEY, LedgerFolder
from broker.ledger.ledger import Change, Unit
from broker.ledger.notes import NoteVerifier
from broker.ledger.postgres import PostgresDatabase
from broker.ledger.projections import ProjectionTables
from broker.ledger.vault import Erased
from broker.linkage.crypto import SealingKey, new_sealing_secret, parties
from broker.linkage.incoming import MessageReceived
from broker.linkage.outgoing import MessageQueued
from ops import keys as commands
from ops.backup import backup, export, restore
from ops.cli import main
from ops.daemons import ADDRESSING, AGENCY_PROJECTIONS, addressing_folder, agency_folder, open_ledger
from ops.logs import JST, now
from ops.postgresql import Server
from schemas.errors import Refusal, entry
from schemas.law import retention
from tests import house as at_home
from tests.house import (
    ANSWERING,
    ASKING,
    House,
    contents,
    income,
    order,
    resident,
)
from tests.ops.conftest import Finished
from tests.ops.folders import READER, copied, renkei
from tests.ops.town import ANSWERER
from tests.ops.town import Town as Processes
from tests.portal import town as residents
from tests.portal.test_pages import Visitor, logged_in, served
from tests.servers import QUICK, programs

keys, furnished, house = at_home.keys, at_home.furnished, at_home.house

RULE, FIRST, SECOND = "番号法施行令第30条", "管理者 甲", "管理者 乙"
REQUEST = re.compile(r"--confirm ([0-9a-f]{8}) ")
ERASED = re.compile(r"番号法施行令第30条.*の規定により\d{4}-\d{2}-\d{2}に消去済み")
NOVEMBER, DECEMBER = "2026-11", "2026-12"
IN_DECEMBER = timedelta(days=20)


def ledger_in(folder: Path) -> LedgerFolder:
    origin = NoteVerifier((folder / VERIFIER_KEY).read_text(encoding="utf-8")).name
    return open_ledger(folder, origin, None)


async def run(*arguments: object) -> int:
    """A command beside the ledgers at work, on connections of its own as another process has them."""
    return await trio.to_thread.run_sync(main, [str(argument) for argument in arguments])


async def destroy(capsys: pytest.CaptureFixture[str], folder: Path, key: str, rule: str = RULE) -> None:
    """Both persons' parts."""
    capsys.readouterr()
    assert await run("keys", "destroy", folder, key, "--rule", rule, "--by", FIRST) == 0
    found = REQUEST.search(capsys.readouterr().out)
    assert found is not None
    assert await run("keys", "destroy", folder, key, "--confirm", found[1], "--by", SECOND) == 0
    assert f"{key}: {rule}の規定により" in capsys.readouterr().out


async def exchange(house: House, person: int, request_id: str) -> None:
    """連携市 asks about somebody, and 見本市 answers."""
    for town in house.towns.values():
        await town.look_around()
    assert await house.asking.platform.inquire(order(request_id, person)) is None
    await house.post()


def everything(folder: LedgerFolder) -> bytes:
    """All that the ledger's own keys open of its events, and of the messages that came for it."""
    events = folder.ledger.store.events(0, 100_000)
    recorded = [folder.ledger.registry.decode(stored, folder.vault) for stored in events]
    sealing = SealingKey(folder.vault.secret("sealing", new_sealing_secret))
    receiver = folder.ledger.name.rpartition("/")[2]
    messages = [
        sealing.open(r.event.sealed, parties(r.event.kind, r.event.partner, receiver))
        for r in recorded
        if isinstance(r.event, MessageReceived) and not r.erased
    ]
    return b"\n".join([contents(recorded), *messages])


def ledgers_of(house: House) -> dict[Path, LedgerFolder]:
    found = {house.folder / "network": house.network}
    for town in house.towns.values():
        found |= {town.data: town.folder, town.data / "addressing": town.people}
    return found


async def sealed_by(folder: LedgerFolder, key: str) -> list[Recorded]:
    positions = [s.id for s in folder.ledger.store.events(0, 100_000) if key_of(s.state) == key]
    return await folder.ledger.at(positions)


async def verified(house: House) -> bool:
    return await run("audit", "verify", house.folder) == 0


# -- a month is destroyed -----------------------------------------------------------------------------


async def test_a_destroyed_month_is_nowhere_and_the_log_still_verifies(
    house: House, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    await exchange(house, 0, "november")
    house.clock.advance(IN_DECEMBER)
    await exchange(house, 1, "december")
    november, december = (str(income(person)["total_income"]).encode() for person in (0, 1))
    asking = house.asking
    opened = everything(asking.folder)
    assert november in opened
    assert december in opened
    for key in (f"provision_record/{NOVEMBER}", f"linkage_log/{NOVEMBER}"):
        await destroy(capsys, asking.data, key)
    opened = everything(asking.folder)
    assert november not in opened
    assert december in opened
    (answered,) = [
        r for r in await asking.events() if isinstance(r.event, InquiryAnswered) and r.at[:7] == NOVEMBER
    ]
    assert answered.erased is not None
    assert answered.event.payloads is answered.erased
    assert ERASED.match(str(answered.event.payloads))
    assert await verified(house)
    # Neither a file, nor a copy of the folder made now with all its keys, nor a rebuilt projection has it.
    copy = shutil.copytree(asking.data, tmp_path / "copy")
    with_copy = ledger_in(copy)
    (tmp_path / "rebuilt").mkdir()
    with closing(ProjectionTables(tmp_path / "rebuilt" / "projections.sqlite", AGENCY_PROJECTIONS)) as tables:
        tables.catch_up(with_copy.ledger.store, with_copy.ledger.registry)
    assert november not in everything(with_copy)
    assert december in everything(with_copy)
    with_copy.close()
    # Nor has an export or a backup that is made now, nor what is restored of it with the key of the vault.
    (tmp_path / "made").mkdir()
    keks = [asking.data / "vault" / "kek", asking.data / "addressing" / "vault" / "kek"]
    for call in (
        partial(export, asking.data, tmp_path / "made" / "export", "sqlite"),
        partial(backup, asking.data, "sqlite", tmp_path / "made" / "backup"),
        partial(restore, tmp_path / "made" / "backup", tmp_path / "restored", keks, "sqlite"),
    ):
        assert await trio.to_thread.run_sync(call) == 0
    restored = ledger_in(tmp_path / "restored")
    assert november not in everything(restored)
    assert december in everything(restored)
    restored.close()
    for folder in (asking.data, copy, tmp_path / "rebuilt", tmp_path / "made", tmp_path / "restored"):
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert files
        assert not [file for file in files if november in file.read_bytes()]


async def test_every_reader_tells_of_an_erased_exchange(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    await exchange(house, 0, "november")
    house.clock.advance(IN_DECEMBER)
    await exchange(house, 1, "december")
    for town in (house.asking, house.answering):
        await destroy(capsys, town.data, f"provision_record/{NOVEMBER}")
        (record,) = await town.platform.records(resident(town.agency, 0))
        assert record.erased_rule == RULE
        (card,) = await cards(town.platform, resident(town.agency, 0))
        assert (card.state, card.proofs, len(card.lines)) == ("erased", (), 1)
        assert ERASED.fullmatch(card.lines[0].value)
        (other,) = await cards(town.platform, resident(town.agency, 1))
        assert (other.state, len(other.lines)) == ("answered", 10)
    result = await house.asking.result("november")
    assert (result.state, result.code, result.codes) == ("refused", "I-207", ("I-207",))
    assert (await house.asking.result("december")).codes == ("",)
    assert await house.asking.platform.inquire(order("november", 0)) == Refusal("I-105")


async def test_a_person_who_was_erased_at_the_provider_is_not_found_there(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    answering = house.answering
    who = answering.platform.person(resident(ANSWERING, 0))
    await destroy(capsys, answering.data, f"person/{who}")
    await exchange(house, 0, "gone")
    await exchange(house, 1, "there")
    result = await house.asking.result("gone")
    assert (result.state, result.code) == ("refused", "I-201")
    assert (await house.asking.result("there")).codes == ("",)
    # The person comes back: a next generation, and what was erased stays erased.
    link_code = (await house.answering.of_kind(MessageQueued))[-1].link_codes[0]
    await answering.platform.acquire_code(resident(ANSWERING, 0), link_code)
    assert (
        await answering.platform.register_replica(
            resident(ANSWERING, 0), at_home.LAYOUT, at_home.YEAR, income(0)
        )
        is None
    )
    states = {state.id: bool(state.destroyed) for state in answering.folder.vault.states()}
    assert states[f"person/{who}"]
    assert not states[f"person/{who}~2"]
    assert all(r.erased for r in await sealed_by(answering.folder, f"person/{who}"))
    assert not any(r.erased for r in await sealed_by(answering.folder, f"person/{who}~2"))


async def test_a_record_that_was_erased_is_not_provided(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the copies of income were erased: the code was acquired again after the request."""
    answering = house.answering
    who = answering.platform.person(resident(ANSWERING, 0))
    (acquired,) = await answering.platform.ledger.stream(f"link_code/{who}")
    assert await run("keys", "destroy", answering.data, f"person/{who}", "--rule", RULE, "--by", FIRST) == 0
    found = REQUEST.search(capsys.readouterr().out)
    assert found is not None
    await answering.platform.acquire_code(resident(ANSWERING, 0), "another")
    await answering.platform.acquire_code(resident(ANSWERING, 0), acquired.event.link_code)
    arguments = ("keys", "destroy", answering.data, f"person/{who}", "--confirm", found[1], "--by", SECOND)
    assert await run(*arguments) == 0
    await exchange(house, 0, "gone")
    assert (await house.asking.result("gone")).code == "I-204"


async def test_a_person_whose_code_was_erased_is_not_asked_about(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    who = house.asking.platform.person(resident(ASKING, 0))
    await destroy(capsys, house.asking.data, f"person/{who}")
    assert await house.asking.platform.inquire(order("q", 0)) == Refusal("I-103")


async def test_addressing_does_not_know_whom_it_erased(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    addressing, people = house.asking.addressing, house.asking.people
    number = resident(ASKING, 0)
    who = people.vault.blind("person", number)
    await destroy(capsys, house.asking.data, f"person/{who}")  # found in the addressing ledger below it
    assert not await addressing.knows(number)
    assert await addressing.guard(number, b"salt") is None
    assert await house.asking.platform.inquire(order("q", 0)) == Refusal("I-104")
    assert await addressing.knows(resident(ASKING, 1))
    await house.asking.register(0)
    assert await addressing.knows(number)
    assert [r.event.wire.name for r in await sealed_by(people, f"person/{who}~2")] == ["person.registered"]
    assert await addressing.acquisitions() == []


async def test_somebody_erased_before_the_registry_was_asked_is_not_asked_about(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    answering = house.answering
    await answering.register(4)
    who = answering.people.vault.blind("person", resident(ANSWERING, 4))
    assert len(await answering.addressing.acquisitions()) == 1
    number = answering.tokens[-1]
    await destroy(capsys, answering.data, f"person/{who}")
    assert await answering.addressing.acquisitions() == []
    assert await answering.addressing.resolve([number]) == {}


async def test_a_message_that_was_erased_is_not_sent(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    asking = house.asking
    assert await asking.platform.inquire(order("gone", 0)) is None
    await destroy(capsys, asking.data, f"linkage_log/{NOVEMBER}")
    assert await asking.platform.inquire(order("there", 1)) is None
    await asking.worker()._send()
    assert (await asking.result("gone")).code == "L-306"
    assert (await asking.result("there")).state == "waiting"
    assert await asking.outbox() == []


async def test_the_network_passes_over_what_was_erased(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    asking, answering = house.asking, house.answering
    delivery = await house.ask(0, request_id="answered late")
    assert await asking.platform.inquire(order("gone", 1)) is None
    await asking.send()
    assert await answering.platform.receive(delivery) is None
    assert len(await answering.mail()) == 2
    await destroy(capsys, house.folder / "network", f"provision_record/{NOVEMBER}")
    assert await answering.mail() == []
    await house.ask(2, request_id="there")
    assert len(await answering.mail()) == 1
    # The permit that the answer stands on is gone.
    assert [verdict.code for verdict in await answering.send()] == ["N-108"]
    await house.post()
    assert (await asking.result("there")).codes == ("",)


async def test_a_code_that_the_network_erased_is_not_translated(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = await house.network.follower.query("SELECT person FROM issued_person WHERE agency = '990027'")
    for (who,) in rows:
        await destroy(capsys, house.folder / "network", f"person/{who}")
    assert await house.asking.platform.inquire(order("q", 0)) is None
    assert [verdict.code for verdict in await house.asking.send()] == ["N-106"]


# -- the commands -------------------------------------------------------------------------------------


async def test_the_list_shows_each_key_and_its_state(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    await exchange(house, 0, "november")
    asking = house.asking
    await destroy(capsys, asking.data, f"provision_record/{NOVEMBER}")
    assert (
        await run("keys", "destroy", asking.data, f"linkage_log/{NOVEMBER}", "--rule", "r", "--by", FIRST)
        == 0
    )
    who = asking.folder.vault.blind("person", resident(ASKING, 1))
    await destroy(capsys, asking.data, f"person/{who}")
    await exchange(house, 2, "again")
    capsys.readouterr()
    assert await run("keys", "list", asking.data) == 0
    said = capsys.readouterr().out.splitlines()
    today = now().date().isoformat()
    assert said[0] == f"renkei/990019 (KEK {asking.folder.vault.kek_id})"
    assert f"  provision_record/{NOVEMBER}: {Erased(RULE, today)}" in said
    assert f"  provision_record/{NOVEMBER}~2: 使用中 (in use)" in said
    (asked,) = [line for line in said if line.startswith(f"  linkage_log/{NOVEMBER}:")]
    assert re.fullmatch(rf".*: 消去を請求中 \(asked to be destroyed\): [0-9a-f]{{8}} {FIRST} r", asked)
    assert f"  linkage_log/{NOVEMBER}~2: 使用中 (in use)" in said
    assert "  person/*: 使用中 4 件、消去済み 1 件 (in use / destroyed)" in said
    assert f"renkei/990019/addressing (KEK {asking.people.vault.kek_id})" in said
    assert "  person/*: 使用中 5 件、消去済み 0 件 (in use / destroyed)" in said
    assert not [line for line in said if "secret" in line]


async def test_rotation_under_a_house_at_work(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    await exchange(house, 0, "before")
    before = {path: folder.vault.kek_id for path, folder in ledgers_of(house).items()}
    opened = {path: everything(folder) for path, folder in ledgers_of(house).items()}
    events = {path: folder.ledger.store.head() for path, folder in ledgers_of(house).items()}
    assert await run("keys", "rotate", house.folder) == 0
    said = capsys.readouterr().out
    for path, folder in ledgers_of(house).items():
        assert f"{folder.ledger.name}: KEK {before[path]} → " in said
        assert everything(folder) == opened[path]
        assert folder.ledger.store.head() == events[path]
        assert [file.name for file in sorted((path / "vault").iterdir())] == ["kek", "vault.sqlite"]
    await exchange(house, 1, "after")
    assert (await house.asking.result("after")).codes == ("",)
    assert await verified(house)


async def test_the_refusals_of_the_commands(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    await exchange(house, 0, "november")
    data, key = house.asking.data, f"provision_record/{NOVEMBER}"

    async def refused(code: str, *arguments: object) -> None:
        capsys.readouterr()
        assert await run("keys", "destroy", *arguments) == 1
        assert capsys.readouterr().err.startswith(f"[{code}] {entry(code).cause_ja}")

    by = ("--by", FIRST)
    await refused("S-110", house.folder, key, "--rule", RULE, *by)  # several ledgers have one of this name
    await refused("S-110", data, "provision_record/1999-01", "--rule", RULE, *by)
    await refused("S-110", data, "secret/log", "--rule", RULE, *by)
    await refused("S-113", data, key, "--confirm", "00000000", *by)
    assert await run("keys", "destroy", data, key, "--rule", RULE, *by) == 0
    found = REQUEST.search(capsys.readouterr().out)
    assert found is not None
    await refused("S-112", data, key, "--confirm", found[1], *by)
    await refused("S-111", data, key, "--rule", "another", *by)
    await refused("S-113", data, key, "--confirm", "00000000", "--by", SECOND)
    (card,) = await cards(house.asking.platform, resident(ASKING, 0))
    assert card.state == "answered"


@pytest.mark.parametrize(
    "arguments",
    [
        ["destroy", "folder", "key", "--by", "a"],
        ["destroy", "folder", "key", "--rule", "r"],
        ["destroy", "folder", "key", "--rule", "r", "--confirm", "c", "--by", "a"],
        ["destroy", "folder", "key", "--rule", " ", "--by", "a"],
        ["destroy", "folder", "key", "--rule", "r", "--by", "a\nb"],
        ["destroy", "folder", "key", "--rule", "r", "--by", "a" * 101],
        ["list"],
    ],
)
def test_a_command_that_lacks_something_is_not_run(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["keys", *arguments])
    assert ended.value.code == 2
    assert "usage: renkei keys" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["keys", "list"], ["keys", "rotate"], ["retain", "--dry-run"]])
def test_a_folder_without_a_ledger(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("[S-104]")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("code", "harm"), [("S-114", "chmod"), ("S-115", "unlink")])
async def test_an_unusable_key_file_is_refused_in_the_words_of_the_catalogue(
    house: House, code: str, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kek = house.folder / "network" / "vault" / "kek"
    kept = kek.read_bytes()
    if harm == "chmod":
        kek.chmod(0o644)
    else:
        kek.unlink()
    capsys.readouterr()
    assert await run("keys", "list", house.folder / "network") == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"[{code}] {entry(code).cause_ja}")
    assert str(kek) in said.err
    kek.unlink(missing_ok=True)
    with os.fdopen(os.open(kek, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        file.write(kept)
    assert await run("keys", "list", house.folder / "network") == 0


# -- retention ----------------------------------------------------------------------------------------


def at(text: str) -> Any:
    return lambda: datetime.fromisoformat(text).replace(tzinfo=JST)


async def retained(folder: Path, by: str | None, when: str) -> int:
    call = partial(commands.retain, folder, "sqlite", by, at(when))
    return await trio.to_thread.run_sync(call)


async def test_retention_shows_what_is_due_and_asks_for_it(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    await exchange(house, 0, "november")
    house.clock.advance(IN_DECEMBER)
    await exchange(house, 1, "december")
    data, folder = house.asking.data, house.asking.folder
    november, december = f"provision_record/{NOVEMBER}", f"provision_record/{DECEMBER}"
    size = folder.ledger.store.head().size
    counted = len(await sealed_by(folder, november))
    assert counted > 0

    async def lines(by: str | None, when: str) -> list[str]:
        capsys.readouterr()
        assert await retained(data, by, when) == 0
        return capsys.readouterr().out.splitlines()

    early = await lines(None, "2033-11-30T23:59:59")
    assert f"  {november}: {counted} 件 (events) 2033-11-30 まで (until) 保存中 (kept)" in early
    ended = "2033-11-30 まで (until) 期間満了、消去の対象 (over: to be destroyed)"
    over = f"  {november}: {counted} 件 (events) {ended}"
    due = await lines(None, "2033-12-01T00:00:00")
    assert over in due
    assert f"  {december}: {counted} 件 (events) 2033-12-31 まで (until) 保存中 (kept)" in due
    persons = [line for line in due if line.startswith("  person/*: 5 鍵 (keys) ")]
    assert len(persons) == 2  # of the agency, and of its addressing
    assert all(
        line.endswith("本人の記録が閉じられるまで期限なし (no end until the person's entry is closed)")
        for line in persons
    )
    total = sum(int(number) for line in due for number in re.findall(r"(\d+) 件", line))
    assert total == size + house.asking.people.ledger.store.head().size
    assert folder.ledger.store.head().size == size  # a dry run changes nothing

    asked = "\n".join(await lines(FIRST, "2033-12-01T00:00:00"))
    requests = dict(re.findall(r"renkei keys destroy \S+ (\S+) --confirm ([0-9a-f]{8}) ", asked))
    assert requests.keys() == {november, f"linkage_log/{NOVEMBER}"}
    again = "\n".join(await lines(SECOND, "2033-12-01T00:00:00"))
    assert dict(re.findall(r"renkei keys destroy \S+ (\S+) --confirm ([0-9a-f]{8}) ", again)) == requests
    assert over + "、消去を請求済み (asked)" in again
    arguments = ("keys", "destroy", data, november, "--confirm", requests[november], "--by")
    assert await run(*arguments, FIRST) == 1
    assert await run(*arguments, SECOND) == 0
    after = await lines(None, "2033-12-01T00:00:00")
    assert not [line for line in after if line.startswith(f"  {november}:")]
    (card,) = await cards(house.asking.platform, resident(ASKING, 0))
    assert ERASED.fullmatch(card.lines[0].value)
    assert "番号法施行令第30条 (Order art. 30)" in card.lines[0].value
    assert await verified(house)


# -- with processes -----------------------------------------------------------------------------------


@pytest.fixture
def town(finished: Finished, tmp_path: Path) -> Iterator[Processes]:
    town = Processes(copied(finished.folder, tmp_path / "demo"))
    yield town
    town.close()


def test_a_daemon_at_work_says_of_an_erased_record_that_it_was_erased(town: Processes) -> None:
    with (town.folder / "input" / "residents-990027.csv").open(encoding="cp932", newline="") as lines:
        numbers = [row["団体内統合宛名番号"] for row in DictReader(lines)]
    town.start(ANSWERER)
    town.ready(ANSWERER)

    def records(number: str) -> str:
        result = renkei("records", "--config", town.config(ANSWERER), "--resident", number, *READER)
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout

    number = next(number for number in numbers if "情報照会者" in records(number))
    listed = renkei("keys", "list", town.folder / ANSWERER)
    (key,) = re.findall(r"(provision_record/\d{4}-\d{2}):", listed.stdout)
    asked = renkei("keys", "destroy", town.folder / ANSWERER, key, "--rule", RULE, "--by", FIRST)
    request = REQUEST.search(asked.stdout)
    assert request is not None, asked.stderr
    done = renkei("keys", "destroy", town.folder / ANSWERER, key, "--confirm", request[1], "--by", SECOND)
    assert (done.returncode, done.stderr) == (0, "")
    said = records(number)
    assert "情報照会者" not in said
    assert ERASED.search(said)
    assert re.search(r"erased under 番号法施行令第30条 on \d{4}-\d{2}-\d{2}", said)
    assert town.stop() == {ANSWERER: 0}
    assert renkei("audit", "verify", town.folder / ANSWERER).returncode == 0


# -- the residents' page, a database, and the calendar ------------------------------------------------


async def test_the_residents_page_says_that_a_record_was_erased(
    tmp_path: Path, nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> None:
    async with residents.open_town(tmp_path) as town:
        visitor = await logged_in(town, Visitor(await served(town, nursery)), residents.HANAKO)
        first = await town.answered(residents.HANAKO)
        shared = await town.answered(residents.HANAKO, residents.TARO)
        assert (await visitor.get(f"/records/{first}/proof")).status == 200
        await destroy(capsys, tmp_path / "data", f"provision_record/{NOVEMBER}")
        town.clock.now += IN_DECEMBER
        await town.refused(residents.HANAKO)
        await logged_in(town, visitor, residents.HANAKO)
        page = await visitor.get("/records")
        assert page.status == 200
        assert page.text.count("番号法施行令第30条の規定により") == 2
        assert page.text.count("erased under 番号法施行令第30条 on ") == 2
        assert page.text.count("情報照会者の処理する事務") == 1  # of the one record that is there
        for position in (first, first + 2, shared):
            assert (await visitor.get(f"/records/{position}/proof")).status == 404
        nursery.cancel_scope.cancel()


def test_the_commands_work_on_events_in_a_database(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Server(programs("postgresql18"), settings=QUICK) as server:
        origins = (f"renkei/{ASKING.code}", f"renkei/{ASKING.code}/{ADDRESSING}")
        with closing(PostgresDatabase(server.url)) as database:
            for origin in origins:
                database.migrate(origin)
            folder = agency_folder(tmp_path, ASKING.code, database.store)
            addressing_folder(tmp_path, ASKING.code, database.store).close()
            message = MessageQueued("m", "inquiry", "990027", "", 1, (), b"", b"", b"", ("secret-code",))
            unit = Unit("m", (Change("outgoing/m", 0, (message,)),))
            commands._at_work(folder.ledger, lambda ledger: ledger.append(unit))
            folder.close()
        key, url = f"linkage_log/{now().isoformat()[:7]}", ("--store", server.url)
        assert main(["retain", str(tmp_path), "--dry-run", *url]) == 0
        assert f"  {key}: 1 件 (events) " in capsys.readouterr().out
        arguments = ["keys", "destroy", str(tmp_path), key, *url]
        assert main([*arguments, "--rule", RULE, "--by", FIRST]) == 0
        found = REQUEST.search(capsys.readouterr().out)
        assert found is not None
        assert main([*arguments, "--confirm", found[1], "--by", SECOND]) == 0
        assert main(["keys", "list", str(tmp_path), *url]) == 0
        assert ERASED.search(capsys.readouterr().out)
        assert main(["keys", "rotate", str(tmp_path), *url]) == 0


@pytest.mark.parametrize(
    ("name", "month", "last"),
    [
        ("provision_record", "2026-11", date(2033, 11, 30)),
        ("provision_record", "2026-12", date(2033, 12, 31)),
        ("provision_record", "2028-02", date(2035, 2, 28)),
        ("linkage_log", "2025-02", date(2032, 2, 29)),
        ("reference_data", "2026-01", date(2031, 1, 31)),
    ],
)
def test_a_month_is_kept_to_the_end_of_its_last_day(name: str, month: str, last: date) -> None:
    assert retention(name).ends(month) == last
