"""`renkei simulate`: many seeds over several processes, and what they found."""

import gc
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from rich.table import Table

from ops.simulate.run import Report, Start, place, prepare, run
from ops.terminal import console, fail, progress_bar

SHOWN = 40  # lines of the trace of a seed that is run alone
_start: Start | None = None  # of this process, once it has furnished its world


def simulate(agencies: int, days: float, seeds: Sequence[int]) -> int:
    """Run these seeds and show what happened; 1 where a rule was broken."""
    began = time.perf_counter()
    reports: list[Report] = []
    try:
        with progress_bar() as bar:
            task = bar.add_task("シミュレーション", total=len(seeds))
            for report in reports_of(agencies, days, seeds):
                reports.append(report)
                bar.advance(task)
    except BrokenProcessPool:
        return fail("S-152")
    reports.sort(key=lambda report: report.seed)
    _show(reports, agencies, days, time.perf_counter() - began)
    broken = [report for report in reports if report.violations]
    for report in broken:
        for violation in report.violations:
            console.print(f"[red]seed {report.seed}[/red] {violation}", soft_wrap=True)
        console.print(f"  renkei simulate --agencies {agencies} --days {days:g} --seed {report.seed}")
    if len(seeds) == 1:
        if broken:
            console.print(*reports[0].last[-SHOWN:], sep="\n", soft_wrap=True)
        console.print(f"trace {reports[0].trace}")
    return fail("S-151", f"{len(broken)}/{len(reports)}") if broken else 0


def reports_of(agencies: int, days: float, seeds: Sequence[int]) -> Iterator[Report]:
    """What came of each seed, as it comes. Raises BrokenProcessPool."""
    spawn = multiprocessing.get_context("spawn")
    processes = min(os.cpu_count() or 1, len(seeds))
    with (
        place() as folder,
        _fixed_hashes(),
        ProcessPoolExecutor(processes, spawn, _furnish, (folder, agencies)) as pool,
    ):
        for done in as_completed([pool.submit(_run, seed, days) for seed in seeds]):
            yield done.result()


@contextmanager
def _fixed_hashes() -> Iterator[None]:
    """Processes started meanwhile give sets of texts the same order as any other such process."""
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONHASHSEED"]
        else:
            os.environ["PYTHONHASHSEED"] = before


def _furnish(folder: Path, agencies: int) -> None:
    """Each process makes a world of its own to start from."""
    global _start
    _start = prepare(folder / str(os.getpid()), agencies)
    gc.freeze()  # it lives as long as the process: no collection need look at it
    gc.disable()  # a run leaves little behind; it is collected between two of them


def _run(seed: int, days: float) -> Report:
    if _start is None:
        raise RuntimeError("this process has no world to start from")
    gc.collect()
    return run(_start, seed, days)


def _show(reports: Sequence[Report], agencies: int, days: float, seconds: float) -> None:
    faults: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    for report in reports:
        faults += report.faults
        outcomes += report.outcomes
    for title, counts in (
        ("注入した障害 (injected faults)", faults),
        ("照会の結果 (outcomes by person)", outcomes),
    ):
        table = Table("", title=title, title_justify="left", min_width=50)
        table.add_column("件数", justify="right")
        for kind, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
            table.add_row(kind, f"{count:,}")
        console.print(table)
    console.print(
        f"{agencies} 機関 (agencies), {days:g} 日 (days), seeds {len(reports)}, {seconds:.0f} 秒 (s); "
        f"違反 (violations): {sum(len(report.violations) for report in reports)}"
    )
