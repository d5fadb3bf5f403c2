"""The bench from end to end with tiny numbers: what it measures is there, is shown, and is left nowhere."""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ops.bench import figures
from ops.bench.figures import Figures
from ops.bench.profile import profile
from ops.bench.report import draw, markdown, sections
from ops.cli import main
from ops.postgresql import Server
from tests.servers import QUICK, programs

TINY = ("--size", "500", "--seconds", "0.03")


def numbers(value: Any) -> Iterator[float]:
    """Every number in plain values."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from numbers(each)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def measured(store: str, folder: Path) -> tuple[dict[str, Any], Figures]:
    target = folder / "figures.json"
    assert main(["bench", "ledger", "--store", store, "--json", str(target), *TINY]) == 0
    values = json.loads(target.read_text(encoding="utf-8"))
    return values, Figures.read(values)


def check(values: dict[str, Any], found: Figures) -> None:
    assert found.json() == values
    assert [(a.writers, a.unit_events) for a in found.append] == [(1, 1), (1, 10), (1, 100), (8, 1), (64, 1)]
    assert [a.mean_batch for a in found.append[:3]] == [1, 10, 100]
    assert all(1 <= a.mean_batch <= a.writers for a in found.append[3:])
    calls = (figures.SAVE, figures.INSERT)
    assert [(s.call, s.writers) for s in found.stock] == [(c, w) for c in calls for w in (1, 8, 64)]
    assert {(g.size, g.writers) for g in found.growth} == {(n, w) for n in (1, 100, 500) for w in (1, 64)}
    works = {figures.IDLE, figures.SEALING, figures.REBUILDING}
    assert {b.beside for b in found.beside} == works
    assert len(found.beside) == 2 * len(works)
    assert list(found.reading) == [figures.SELECT, figures.FOLLOW, figures.REBUILD]
    every = list(numbers(values))
    assert len(every) > 100
    assert all(number > 0 for number in every)
    assert 450 <= found.state_bytes <= 550
    assert 450 <= found.stock_state_bytes <= 550
    assert found.machine["file system"] not in ("", "tmpfs")


def test_everything_is_measured_on_sqlite_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values, found = measured("sqlite", tmp_path)
    check(values, found)
    assert found.settings["synchronous"] == "FULL"
    assert len(values["goals"]) == 9
    printed = capsys.readouterr().out
    text = markdown(found)
    for section in sections(found):
        assert section.title in printed
        assert f"### {section.title}" in text
        assert all("| " + " | ".join(row) + " |" in text for row in section.rows)


def test_everything_is_measured_on_a_server_and_nothing_is_left_there(tmp_path: Path) -> None:
    with Server(programs("postgresql18"), settings=QUICK) as server:
        values, found = measured(server.url, tmp_path)
        with psycopg.connect(server.url) as connection:
            left = connection.execute(
                "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'bench%'"
            ).fetchall()
    check(values, found)
    assert left == []
    assert found.settings["fsync"] == "off"  # as this server has it: what is told is what was asked of it
    assert found.settings["PostgreSQL"].startswith("18")
    assert len(values["goals"]) == 10
    assert server.url not in json.dumps(values)


def test_the_profile_tells_where_the_threads_were(capsys: pytest.CaptureFixture[str]) -> None:
    profile("sqlite", 8, 0.2)
    printed = capsys.readouterr().out
    assert "sqlite, 8 writers" in printed
    assert "event loop" in printed
    assert "worker threads" in printed


def figures_of(store: str, good: bool) -> Figures:
    """A run in which every goal is just reached, or every one just missed."""
    ours, p99 = (50_000, 12.0) if good else (49_999, 12.1)
    sizes = {10_000: 1_150.0, 5_000_000: 1_000.0 if good else 999.0}
    return Figures(
        store=store, at="2026-11-21T00:00:00+00:00", size=5_000_000, seconds=9.0,
        machine={"CPU": "a CPU", "cores": "2", "file system": "ext4"},
        settings={"fsync": "on"},
        append=[
            figures.Append(writers, 1, ours, 1.0, 2.0, writers, 100_000.0, ours / 100_000)
            for writers in (1, 8, 64)
        ],
        stock=[figures.Stock(figures.SAVE, writers, 5_000.0, 1.0, 2.0) for writers in (1, 8, 64)],
        growth=[
            figures.Growth(size, writers, rate, 1.0, 2.0)
            for writers in (64, 1)
            for size, rate in sizes.items()
        ],
        beside=[
            figures.Beside("200 a second", figures.IDLE, 200.0, 1.0, 10.0),
            figures.Beside("200 a second", figures.SEALING, 200.0, 1.0, p99),
            figures.Beside("200 a second", figures.REBUILDING, 200.0, 1.0, p99),
        ],
        reading={figures.SELECT: 1e6, figures.FOLLOW: 1e5, figures.REBUILD: float(ours)},
        replay_memory=199.0 if good else 200.1,
    )  # fmt: skip


@pytest.mark.parametrize("good", [True, False])
@pytest.mark.parametrize(("store", "goals"), [("sqlite", 7), ("postgresql", 8)])
def test_each_goal_is_reached_at_its_bound_and_missed_beyond_it(store: str, goals: int, good: bool) -> None:
    assert [goal.reached for goal in figures_of(store, good).goals()] == [good] * goals


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
@pytest.mark.parametrize(("name", "start"), [("run.svg", b"<?xml"), ("run.png", b"\x89PNG")])
def test_a_run_is_drawn(tmp_path: Path, name: str, start: bytes) -> None:
    draw(figures_of("postgresql", True), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)


def test_a_picture_without_its_library_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.bench.ledger.find_spec", lambda name: None)
    target, picture = tmp_path / "figures.json", tmp_path / "run.svg"
    arguments = ["--store", "sqlite", "--json", str(target), "--picture", str(picture)]
    assert main(["bench", "ledger", *arguments]) == 1
    assert "matplotlib" in capsys.readouterr().err
    assert not target.exists()


def test_a_server_that_is_not_there_is_named_without_its_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "postgresql://renkei:secret-word@127.0.0.1:1/postgres"
    assert main(["bench", "ledger", "--store", url, "--json", str(tmp_path / "figures.json")]) == 1
    said = capsys.readouterr().err
    assert "[S-104]" in said
    assert "127.0.0.1" in said
    assert "secret-word" not in said
