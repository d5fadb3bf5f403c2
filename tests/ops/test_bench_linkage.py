"""The bench of the linkage from end to end with tiny numbers: real processes, every figure, every table."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgpack
import psycopg
import pytest

from ops.bench import meter
from ops.bench.linkage_figures import (
    ALONE,
    BESIDE,
    BULK,
    IDLE,
    MOST,
    SIZE,
    TOGETHER,
    Beside,
    Bulk,
    LinkageFigures,
    Single,
    Step,
)
from ops.bench.linkage_report import draw, markdown, sections
from ops.bench.meter import Sampling
from ops.bench.town import SIZES, layout_key, write_layouts
from ops.cli import main
from ops.postgresql import Server
from schemas import items
from tests.servers import QUICK, programs

TINY = ("--persons", "12", "--seconds", "0.15")
DAEMONS = ("network", "990019", "990027")


def measured(store: str, folder: Path) -> LinkageFigures:
    target = folder / "figures.json"
    assert main(["bench", "linkage", "--store", store, "--json", str(target), *TINY]) == 0
    values = json.loads(target.read_text(encoding="utf-8"))
    found = LinkageFigures.read(values)
    assert found.json() == values
    return found


def check(found: LinkageFigures) -> None:
    assert [(s.size, s.in_flight) for s in found.single] == [(kb, n) for kb in SIZES for n in (1, 8, MOST)]
    assert all(0 < s.p50 <= s.p95 <= s.p99 and s.rate > 0 for s in found.single)
    assert [(b.size, b.persons) for b in found.bulk] == [(kb, 12) for kb in SIZES]
    assert all(0 < b.ordered < b.answered < b.fetched and b.rate > 0 for b in found.bulk)
    assert [b.beside for b in found.beside] == [IDLE, BESIDE]
    assert {name: round(size / 1e3) for name, size in found.answer_bytes.items()} == {
        "2": 2,
        "5": 5,
        "10": 10,
    }
    assert set(found.memory) == {*DAEMONS, "registry"}
    assert min(found.memory.values()) > 10
    for load in (TOGETHER, BULK):
        for name in DAEMONS:
            assert sum(found.profile[load][name].values()) in (0, pytest.approx(1))
            assert sum(found.functions[load][name].values()) in (0, pytest.approx(1))
    assert len(found.goals()) == 3
    counted(found)


def counted(found: LinkageFigures) -> None:
    """The counts are those that the way of a message has by its rules (R-052, R-053)."""
    alone = {
        step.step: {name: round(count) for name, count in step.counts.items()}
        for step in found.steps
        if step.load == ALONE
    }
    assert list(alone) == list(meter.STEPS)
    network, asking, answering = DAEMONS
    assert alone[meter.SIGN] == {network: 2, asking: 1, answering: 1}  # permit and note; inquiry; answer
    assert alone[meter.VERIFY] == {asking: 2, answering: 2}  # of the network's note and of the message
    assert alone[meter.SEAL] == alone[meter.OPEN] == {asking: 1, answering: 1}
    # Recorded on three sides. What comes at the same moment goes into one commit.
    assert alone[meter.WRITE] == alone[meter.CHECKPOINT]
    assert alone[meter.WRITE][network] == 2  # permitted; answered
    assert alone[meter.WRITE][asking] in (3, 4)  # ordered; permitted; answered; read up to there
    assert alone[meter.WRITE][answering] in (2, 3)  # received and answered; read up to there; relayed
    bulk = {step.step: step for step in found.steps if step.load == BULK}
    assert round(12 * bulk[meter.SIGN].count) == 4  # one envelope there and one back
    assert all(step.processor > 0 and step.milliseconds > 0 for step in found.steps)
    processor, disk = found.floor(ALONE)
    assert processor > 0
    assert disk > 0


def test_everything_is_measured_through_real_processes_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measured("sqlite", tmp_path)
    check(found)
    assert found.settings["synchronous"] == "FULL"
    printed = capsys.readouterr().out
    text = markdown(found)
    for section in sections(found):
        assert section.title[:20] in printed
        assert f"### {section.title}" in text
        assert all("| " + " | ".join(row) + " |" in text for row in section.rows)


def test_on_a_server_it_uses_a_database_of_its_own_and_leaves_none(tmp_path: Path) -> None:
    with Server(programs("postgresql18"), settings=QUICK) as server:
        found = measured(server.url, tmp_path)
        with psycopg.connect(server.url) as connection:
            left = connection.execute(
                "SELECT datname FROM pg_database WHERE datname LIKE 'renkei_bench%' "
                "UNION ALL SELECT nspname FROM pg_namespace WHERE nspname LIKE 'bench%'"
            ).fetchall()
    check(found)
    assert left == []
    assert found.settings["fsync"] == "off"  # as this server has it: what is told is what was asked of it
    assert server.url not in json.dumps(found.json())


def test_a_server_that_is_not_there_is_named_without_its_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "postgresql://renkei:secret-word@127.0.0.1:1/postgres"
    assert main(["bench", "linkage", "--store", url, "--json", str(tmp_path / "figures.json")]) == 1
    said = capsys.readouterr().err
    assert "[S-104]" in said
    assert "127.0.0.1" in said
    assert "secret-word" not in said


def test_a_picture_without_its_library_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.bench.linkage.find_spec", lambda name: None)
    arguments = [
        "--store",
        "sqlite",
        "--json",
        str(tmp_path / "x.json"),
        "--picture",
        str(tmp_path / "x.svg"),
    ]
    assert main(["bench", "linkage", *arguments]) == 1
    assert "matplotlib" in capsys.readouterr().err


def figures_of(good: bool) -> LinkageFigures:
    """A run in which every direction is just reached, or every one just missed."""
    processor = {"network": 1.0, "registry": 0.0, "990019": 3.0, "990027": 2.0, "bench": 1.0}
    rate, p99, answers = (300.0, 500.0, 4_167.0) if good else (299.0, 500.1, 4_166.0)
    parts: dict[str, Any] = {
        name: {"ledger: store": 0.6, "law": 0.01, "event loop": 0.39} for name in DAEMONS
    }
    profile = {TOGETHER: parts | {"registry": {}}, BULK: parts | {"registry": {}}}
    return LinkageFigures(
        store="sqlite", at="2026-11-21T00:00:00+00:00", persons=5_000, seconds=9.0,
        machine={"CPU": "a CPU", "cores": "2", "file system": "ext4"},
        settings={"synchronous": "FULL"},
        answer_bytes={str(size): size * 1_000 for size in SIZES},
        single=[
            Single(size, n, rate, 10.0, 20.0, p99, processor) for size in SIZES for n in (1, 8, MOST)
        ],
        bulk=[Bulk(size, 5_000, answers, 0.3, 1.0, 1.2, processor) for size in SIZES],
        beside=[Beside(what, 20.0, 180, 10.0, 20.0, 30.0) for what in (IDLE, BESIDE)],
        steps=[
            Step(load, step, {"network": 2.0}, 700.0, 25.0, 0.5)
            for load in (ALONE, TOGETHER, BULK)
            for step in meter.STEPS
        ],
        profile=profile, functions=profile,
        memory={"network": 90.0},
    )  # fmt: skip


@pytest.mark.parametrize("good", [True, False])
def test_each_direction_is_reached_at_its_bound_and_missed_beyond_it(good: bool) -> None:
    assert [goal.reached for goal in figures_of(good).goals()] == [good] * 3


def test_the_floor_is_the_sum_of_the_bare_steps() -> None:
    found = figures_of(True)
    processor, disk = found.floor(ALONE)
    assert processor == pytest.approx(len(meter.STEPS) * 2 * 25 / 1e3)
    assert disk == 1.0
    assert found.spent(TOGETHER) == 6.0  # the bench itself does not count
    row = next(row for s in sections(found) if "floor ms" in s.columns for row in s.rows)
    assert row == (ALONE, "0.45", "6.00", "13.3", "1.00")


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
@pytest.mark.parametrize(("name", "start"), [("run.svg", b"<?xml"), ("run.png", b"\x89PNG")])
def test_a_run_is_drawn(tmp_path: Path, name: str, start: bytes) -> None:
    draw(figures_of(True), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)


def test_the_bench_has_layouts_of_its_own_that_nobody_else_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_layouts(tmp_path / "layouts")
    known = items.layouts()
    monkeypatch.setattr(items, "_folders", [*items._folders])
    try:
        items.add_layouts(tmp_path / "layouts")
        assert items.layouts()[: len(known)] == known
        assert items.layout(layout_key(SIZE)).information == "地方税関係情報"
    finally:
        monkeypatch.undo()
        items.layouts.cache_clear()
    assert items.layouts() == known
    with pytest.raises(ValueError, match="no such layout"):
        items.layout(layout_key(SIZE))


def test_an_answer_has_the_size_that_is_asked_for_and_fits_its_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from random import Random

    from ops.bench.town import payload

    write_layouts(tmp_path / "layouts")
    monkeypatch.setattr(items, "_folders", [*items._folders])
    try:
        items.add_layouts(tmp_path / "layouts")
        for size in SIZES:
            record = payload(Random(7), size)  # noqa: S311 # test data
            assert items.validate(items.layout(layout_key(size)), record) == []
            assert 0 <= len(msgpack.packb(record)) - 1_000 * size < 250
    finally:
        monkeypatch.undo()
        items.layouts.cache_clear()


def test_a_look_says_which_room_the_thread_is_in() -> None:
    """Wherever it is deep in a library, the innermost function of ours counts; of none, the event loop."""
    seen: list[tuple[str, str]] = []

    class Key:
        def __hash__(self) -> int:
            import sys

            seen.append(meter._place(sys._getframe()))
            return 1

    items.validate(items.layouts()[0], {Key(): "x"})  # type: ignore[dict-item] # its hash is asked in there
    assert ("layouts of items", "schemas/items/__init__.py validate") in seen
    assert Sampling().end() == {"rooms": {}, "functions": {}}
