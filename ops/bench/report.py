"""How the figures of a run are shown: tables on the terminal and in Markdown, and a picture.

`python -m ops.bench.report FILE...` turns JSON files of `renkei bench ledger` into the Markdown tables of
docs/benchmarks.md.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from ops.bench import figures
from ops.bench.figures import Append, Beside, Figures, Growth, Stock
from ops.terminal import console

Cells = Sequence[str]
Panel = Callable[[Any, Figures], None]


@dataclass(frozen=True)
class Section:
    """A table: its title, its columns, and its rows as they are shown. Columns after `words` hold numbers."""

    title: str
    columns: Cells
    rows: Sequence[Cells]
    words: int = 1


def sections(found: Figures) -> list[Section]:
    """All tables of a run, the numbers to reach first."""
    latencies = ("events/s", "p50 ms", "p99 ms")
    return [
        Section(
            "目標 (numbers to reach)",
            ("", "measure", "goal", "found"),
            [
                ("reached" if g.reached else "MISSED", g.measure, g.bound, number(g.value))
                for g in found.goals()
            ],
            words=3,
        ),
        Section(
            "追記 (durable append: sealed, logged, signed)",
            ("writers", "events a unit", *latencies, "mean batch", "bare events/s", "of bare"),
            [
                (str(a.writers), str(a.unit_events), *_speed(a), number(a.mean_batch), number(a.floor),
                 f"{a.of_floor:.2f}")
                for a in found.append
            ],
            words=0,
        ),
        Section(
            "標準のeventsourcing (the stock library, one event a call)",
            ("call", "threads", *latencies),
            [(s.call, str(s.writers), *_speed(s)) for s in found.stock],
        ),
        Section(
            "並行作業中の追記 (append beside other work)",
            ("load", "beside", *latencies),
            [(b.load, b.beside, *_speed(b)) for b in found.beside],
            words=2,
        ),
        Section(
            "台帳の大きさと追記 (append by size of the ledger)",
            ("events there", "writers", *latencies),
            [(f"{g.size:,}", str(g.writers), *_speed(g)) for g in found.growth],
            words=0,
        ),
        Section(
            "読み出し (reading the largest ledger)",
            ("what", "events/s"),
            [(name, number(rate)) for name, rate in found.reading.items()],
        ),
        Section(
            "条件 (conditions)",
            ("", ""),
            [
                ("store", found.store),
                ("measured at", found.at),
                *found.machine.items(),
                *found.settings.items(),
                ("bytes of an event's state", number(found.state_bytes)),
                ("the same, stock library", number(found.stock_state_bytes)),
                ("seconds for each measurement", f"{found.seconds:g}"),
                ("filling the largest ledger, events/s", number(found.fill)),
            ],
            words=2,
        ),
    ]  # fmt: skip


def _speed(row: Append | Stock | Beside | Growth) -> Cells:
    return number(row.rate), number(row.p50), number(row.p99)


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def show(found: Figures) -> None:
    """On the terminal."""
    show_tables(sections(found))


def show_tables(tables: Sequence[Section]) -> None:
    for section in tables:
        table = Table(title=section.title, title_justify="left", title_style="bold")
        for place, column in enumerate(section.columns):
            table.add_column(column, justify="left" if place < section.words else "right")
        for row in section.rows:
            table.add_row(*row, style="red" if row[0] == "MISSED" else None)
        console.print(table)


def markdown(found: Figures) -> str:
    """The same tables for a document."""
    return in_markdown(found.store, sections(found))


def in_markdown(title: str, tables: Sequence[Section]) -> str:
    lines = [f"## {title}", ""]
    for section in tables:
        align = ["---" if place < section.words else "---:" for place in range(len(section.columns))]
        lines += [f"### {section.title}", ""]
        lines += ["| " + " | ".join(cells) + " |" for cells in (section.columns, align, *section.rows)]
        lines.append("")
    return "\n".join(lines)


def draw(found: Figures, path: Path) -> None:
    """A picture of the run; the ending of the path says which kind, .svg or .png."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"renkei ledger on {found.store}, {found.at[:10]}", fontsize=14, fontweight="bold")
    panels: tuple[Callable[[Any, Figures], None], ...] = (
        _draw_append,
        _draw_growth,
        _draw_beside,
        _draw_reading,
    )
    for axes, panel in zip(figure.subplots(2, 2).flat, panels, strict=True):
        panel(axes, found)
        axes.spines[["top", "right"]].set_visible(False)
    note = " · ".join(
        [f"{found.machine['CPU']}, {found.machine['cores']} cores", found.machine["file system"],
         *(f"{name} {value}" for name, value in list(found.settings.items())[:3])]
    )  # fmt: skip
    figure.text(0.01, -0.02, note, fontsize=8, color="#555555")
    figure.savefig(path, dpi=150, bbox_inches="tight")


OURS, FLOOR, STOCK, OTHER = "#1f5a96", "#b9c4ce", "#d98032", "#7a4f9a"


def _draw_append(axes: Any, found: Figures) -> None:
    saved = {s.writers: s.rate for s in found.stock if s.call == figures.SAVE}
    single = [a for a in found.append if a.unit_events == 1]
    groups: list[tuple[str, str, list[float]]] = [
        ("bare writing, same batch", FLOOR, [a.floor for a in single]),
        ("ours: sealed, logged, signed", OURS, [a.rate for a in single]),
        ("stock Application.save", STOCK, [saved[a.writers] for a in single]),
    ]
    for nth, (label, color, rates) in enumerate(groups):
        places = [place + (nth - 1) * 0.27 for place in range(len(single))]
        axes.bar_label(
            axes.bar(places, rates, width=0.25, label=label, color=color), fmt="{:,.0f}", fontsize=7
        )
    axes.set_xticks(range(len(single)), [f"{a.writers} writer{'s' * (a.writers > 1)}" for a in single])
    axes.set_yscale("log")
    axes.margins(y=0.25)
    axes.set_title("durable appends, events a second (log scale)")
    axes.legend(fontsize=8, frameon=False, loc="upper left")


def _draw_growth(axes: Any, found: Figures) -> None:
    for writers, color in zip(dict.fromkeys(g.writers for g in found.growth), (OURS, STOCK), strict=True):
        rows = [g for g in found.growth if g.writers == writers]
        first = 1 / rows[0].rate
        axes.plot(
            [g.size for g in rows], [1 / g.rate / first for g in rows], "o-", color=color,
            label=f"{writers} writer{'s' * (writers > 1)}",
        )  # fmt: skip
    axes.axhline(1.15, color="#888888", linestyle="--", linewidth=1, label="goal: at most 1.15")
    axes.set_xscale("log")
    axes.set_ylim(0, 1.1 * max(1.15, axes.get_ylim()[1]))
    axes.set_xlabel("events in the ledger")
    axes.set_title("cost of an append, the smallest ledger = 1")
    axes.legend(fontsize=8, frameon=False, loc="lower left")


def _draw_beside(axes: Any, found: Figures) -> None:
    works = (figures.IDLE, figures.SEALING, figures.REBUILDING)
    loads = list(dict.fromkeys(b.load for b in found.beside))
    for nth, (work, color) in enumerate(zip(works, (FLOOR, OURS, OTHER), strict=True)):
        p99 = [next(b.p99 for b in found.beside if (b.load, b.beside) == (load, work)) for load in loads]
        places = [place + (nth - 1) * 0.27 for place in range(len(loads))]
        bars = axes.bar(places, p99, width=0.25, label=f"beside: {work}", color=color)
        axes.bar_label(bars, fmt="{:.1f}", fontsize=7)
    axes.set_xticks(range(len(loads)), loads)
    axes.margins(y=0.3)  # room for the legend above the bars
    axes.set_title("append p99, milliseconds")
    axes.legend(fontsize=8, frameon=False, loc="upper left")


def _draw_reading(axes: Any, found: Figures) -> None:
    names, rates = list(found.reading), list(found.reading.values())
    axes.bar_label(axes.barh(names, rates, color=(FLOOR, OURS, OTHER)), fmt=" {:,.0f}", fontsize=8)
    axes.axvline(50_000, color="#888888", linestyle="--", linewidth=1, label="goal of the rebuild: 50,000")
    axes.margins(x=0.15)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.invert_yaxis()
    axes.set_title(f"reading {found.size:,} events, events a second")
    axes.legend(fontsize=8, frameon=False, loc="lower right")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(markdown(Figures.read(json.loads(Path(name).read_text(encoding="utf-8")))))
