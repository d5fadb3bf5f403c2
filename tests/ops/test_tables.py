"""Where projections stand, and how they are rebuilt: the operator's commands beside a daemon at work."""

import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from eventsourcing.persistence import StoredEvent

from adapters.business.client import BusinessClient
from adapters.business.records import StaffRecord
from broker.ledger.folder import PROJECTIONS
from broker.ledger.generations import Generations
from broker.ledger.store import StoredUnit
from ops.business import at_door
from ops.cli import main
from ops.config import AgencyConfig, read
from ops.daemons import agency_folder
from ops.logs import now
from tests.ops.folders import renkei
from tests.ops.town import ASKER, Town

LEDGERS = (ASKER, f"{ASKER}/addressing")


@pytest.fixture
def town(demo_copy: Path) -> Iterator[Town]:
    """The finished demo, with none of its processes at work."""
    town = Town(demo_copy)
    try:
        yield town
    finally:
        town.close()


def config(town: Town) -> str:
    return str(town.config(ASKER))


async def _send(records: list[StaffRecord], door: BusinessClient) -> list[tuple[str, str]]:
    return await door.send(records)


def append_unknown(folder: Path) -> None:
    """An event that a later version of the software left in the ledger of the asking city."""
    with closing(agency_folder(folder / ASKER, ASKER)) as opened:
        later = StoredEvent(originator_id="later", originator_version=1, topic="later/1", state=b"\x95")
        opened.ledger.store.append([StoredUnit("later", {"later": 0}, (later,))], now().isoformat())


def test_where_a_ledger_and_its_projections_stand(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--config", config(town)]) == 0
    lines = capsys.readouterr().out.splitlines()
    ends = [line for line in lines if line.startswith("renkei/")]
    assert [line.split()[0] for line in ends] == [f"renkei/{name}" for name in LEDGERS]
    end = ends[0].split()[1]
    assert f"  outbox {end} 最新 (up to date)" in lines
    assert main(["status", "--config", str(town.config("network"))]) == 0
    assert capsys.readouterr().out.startswith("renkei/network @")


def test_an_event_that_was_parked_is_shown_with_what_to_do(
    town: Town, capsys: pytest.CaptureFixture[str]
) -> None:
    append_unknown(town.folder)
    assert main(["status", "--config", config(town)]) == 0
    behind = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  outbox")]
    assert "遅れ 1 件" in behind[0]
    result = renkei("rebuild", "--config", config(town), "--projection", "outbox")
    assert (result.returncode, result.stderr) == (0, "")
    printed = result.stdout
    assert "REBUILT renkei/990019 outbox @" in printed
    assert "PARKED  renkei/990019 outbox @" in printed
    assert main(["status", "--config", config(town)]) == 1
    printed_both = capsys.readouterr()
    assert "保留 1 件 (parked)" in printed_both.out
    assert "S-131" in printed_both.err


def test_projections_are_rebuilt_while_the_daemon_works(
    town: Town, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What was changed by hand is right again, and the daemon goes on in the new tables."""
    files = {name: town.folder / name / PROJECTIONS for name in LEDGERS}
    with closing(sqlite3.connect(files[ASKER])) as rows, rows:
        shown = "FROM processing_status WHERE code = 'I-202'"
        ((state, count),) = rows.execute(f"SELECT state, COUNT(*) {shown} GROUP BY state").fetchall()
        assert rows.execute(f"DELETE {shown}").rowcount == count > 0
    town.start(ASKER)
    town.ready(ASKER)
    agency = read(AgencyConfig, town.config(ASKER))
    wrong_person = ("inquiry", state, "I-202", count)
    assert wrong_person not in at_door(agency, lambda door: door.status())["processing"]
    # Status is given only once the projections show what was appended.
    for number in range(3):
        assert renkei("rebuild", "--config", config(town)).returncode == 0
        officer = StaffRecord(f"s9{number}", "税務課", "affair_officer", ("81",), "2026-01-01", "2027-01-01")
        assert at_door(agency, partial(_send, [officer])) == [("", "")]
        assert wrong_person in at_door(agency, lambda door: door.status())["processing"]
    assert {Generations(file).live().name for file in files.values()} == {"projections.3.sqlite"}
    assert town.stop() == {ASKER: 0}
    capsys.readouterr()
    shutil.rmtree(town.folder / "990027")
    shutil.rmtree(town.folder / "network")
    assert main(["replay", str(town.folder), "--into", str(tmp_path / "into")]) == 0
    assert main(["status", "--config", config(town)]) == 0
    assert "遅れ" not in capsys.readouterr().out


def test_a_projection_that_does_not_exist(town: Town) -> None:
    result = renkei("rebuild", "--config", config(town), "--projection", "nothing")
    assert result.returncode == 1
    assert "S-137" in result.stderr
    assert "linkage_log" in result.stderr


def test_a_rebuild_beside_another_one_is_refused(town: Town) -> None:
    with Generations(town.folder / ASKER / PROJECTIONS).alone() as alone:
        assert alone
        result = renkei("rebuild", "--config", config(town))
    assert result.returncode == 1
    assert "S-133" in result.stderr


def test_no_room_for_a_rebuild(town: Town) -> None:
    """No file may grow beyond a limit: to SQLite it is a disk that takes no more."""
    before = (town.folder / ASKER / PROJECTIONS).read_bytes()
    result = subprocess.run(
        [sys.executable, "-m", "ops", "rebuild", "--config", config(town)],
        capture_output=True,
        encoding="utf-8",
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert result.returncode == 1
    assert "S-139" in result.stderr
    assert (town.folder / ASKER / PROJECTIONS).read_bytes() == before
    assert not (town.folder / ASKER / "projections.1.sqlite").exists()


def test_a_daemon_does_not_serve_projections_of_another_ledger(town: Town) -> None:
    """As after a restore of the events alone. It says so and ends; rebuilt, it serves."""
    shutil.copy(town.folder / "990027" / PROJECTIONS, town.folder / ASKER / PROJECTIONS)
    result = renkei("serve", "--config", town.config(ASKER))
    assert result.returncode == 1
    assert "S-105" in result.stderr
    assert "Traceback" not in result.stderr
    assert '"code": "S-105"' in (town.folder / "log" / f"{ASKER}.log").read_text(encoding="utf-8")
    assert renkei("rebuild", "--config", config(town)).returncode == 0
    town.start(ASKER)
    town.ready(ASKER)
    assert town.stop() == {ASKER: 0}
