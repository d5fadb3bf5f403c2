"""How the figures of `renkei bench linkage` are shown: tables on the terminal and in Markdown, and a picture.

`python -m ops.bench.linkage_report FILE...` turns JSON files into the Markdown tables of docs/benchmarks.md.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ops.bench.linkage_figures import ALONE, BULK, MOST, NATION, SIZE, TOGETHER, LinkageFigures
from ops.bench.report import FLOOR, OTHER, OURS, STOCK, Cells, Section, in_markdown, number, show_tables

_SHOWN = 0.02  # of the processor time of a process: rooms with less stand together
_FUNCTIONS = 12
_REST = "(the rest)"


def sections(found: LinkageFigures) -> list[Section]:
    """All tables of a run, the directions first."""
    names = list(found.single[0].processor)
    return [
        Section(
            "目標 (directions)",
            ("", "measure", "goal", "found"),
            [
                ("reached" if g.reached else "MISSED", g.measure, g.bound, number(g.value))
                for g in found.goals()
            ],
            words=3,
        ),
        Section(
            "一件の照会 (complete single inquiries)",
            ("KB", "in flight", "inquiries/s", "p50 ms", "p95 ms", "p99 ms", *_milliseconds(names)),
            [
                (str(s.size), str(s.in_flight), number(s.rate), number(s.p50), number(s.p95), number(s.p99),
                 *(number(s.processor[name]) for name in names))
                for s in found.single
            ],
            words=0,
        ),
        Section(
            "一括の照会 (one file)",
            ("KB", "persons", "answers/s", "ordered s", "answered s", "fetched s", *_milliseconds(names)),
            [
                (str(b.size), f"{b.persons:,}", number(b.rate), number(b.ordered), number(b.answered),
                 number(b.fetched), *(number(b.processor[name]) for name in names))
                for b in found.bulk
            ],
            words=0,
        ),
        Section(
            "一括の処理中の一件の照会 (single inquiries beside a bulk load)",
            ("beside", "a second", "inquiries", "p50 ms", "p95 ms", "p99 ms"),
            [
                (b.beside, number(b.rate), str(b.count), number(b.p50), number(b.p95), number(b.p99))
                for b in found.beside
            ],
        ),
        Section(
            "下限 (the floor: steps that cannot be left out, and what they cost bare)",
            ("load", "step", "processes", "count", "bytes", "µs each", "µs together", "ms until done"),
            [
                (s.load, s.step, ", ".join(f"{name} {number(n)}" for name, n in s.counts.items()),
                 number(s.count), number(s.size), number(s.processor), number(s.count * s.processor),
                 number(s.milliseconds))
                for s in found.steps
            ],
            words=3,
        ),
        Section(
            "下限との比較 (one inquiry of 5 KB against the floor; processor ms of all daemons)",
            ("load", "floor ms", "spent ms", "times", "waiting for the disk at least, ms"),
            [_against(found, load) for load in (ALONE, TOGETHER, BULK)],
        ),
        Section(
            f"必要な台数の目安 (sizing: requests a second and core, answers of {SIZE} KB)",
            ("load", "process", "processor ms", "a second and core", *(f"cores, {name}" for name in NATION)),
            list(_sizing(found)),
            words=2,
        ),
        *_profiles(found),
        Section(
            "条件 (conditions)",
            ("", ""),
            [
                ("store", found.store),
                ("measured at", found.at),
                *found.machine.items(),
                *found.settings.items(),
                *((f"bytes of an answer of {size} KB", str(n)) for size, n in found.answer_bytes.items()),
                ("seconds for each measurement", f"{found.seconds:g}"),
                *((f"memory of {name}, MB", number(peak)) for name, peak in found.memory.items()),
            ],
            words=2,
        ),
    ]  # fmt: skip


def _milliseconds(names: Sequence[str]) -> Iterator[str]:
    """What follows in a row: milliseconds of the processor for one inquiry, by process."""
    return (f"{name} ms" for name in names)


def _against(found: LinkageFigures, load: str) -> Cells:
    (processor, disk), spent = found.floor(load), found.spent(load)
    return load, number(processor), number(spent), number(spent / processor), number(disk)


def _sizing(found: LinkageFigures) -> Iterator[Cells]:
    """Cores = rate × processor seconds of one request: all of the nation goes through the network."""
    single = next(s for s in found.single if (s.size, s.in_flight) == (SIZE, MOST))
    bulk = next(b for b in found.bulk if b.size == SIZE)
    for load, processor in (("single", single.processor), ("bulk", bulk.processor)):
        for name, milliseconds in processor.items():
            if milliseconds:
                cores = (number(rate * milliseconds / 1e3) for rate in NATION.values())
                yield load, name, number(milliseconds), number(1e3 / milliseconds), *cores


def _profiles(found: LinkageFigures) -> Iterator[Section]:
    for load, processes in found.profile.items():
        rooms = {name: _gathered(parts) for name, parts in processes.items() if parts}
        named = dict.fromkeys(room for parts in rooms.values() for room in parts if room != _REST)
        yield Section(
            f"時間の行方 (where the processor time goes: {load})",
            ("room", *rooms),
            [(room, *(_percent(parts.get(room, 0)) for parts in rooms.values())) for room in (*named, _REST)],
        )
        functions = found.functions[load]
        rows = [
            (name, function, _percent(part))
            for name, parts in functions.items()
            for function, part in list(parts.items())[:_FUNCTIONS]
            if part >= _SHOWN
        ]
        yield Section(f"関数別 (by function of ours: {load})", ("process", "function", "part"), rows, words=2)


def _gathered(parts: dict[str, float]) -> dict[str, float]:
    shown = {room: part for room, part in parts.items() if part >= _SHOWN}
    return shown | {_REST: sum(parts.values()) - sum(shown.values())}


def _percent(part: float) -> str:
    return f"{100 * part:.0f}%" if part else ""


def show(found: LinkageFigures) -> None:
    """On the terminal."""
    show_tables(sections(found))


def markdown(found: LinkageFigures) -> str:
    """The same tables for a document."""
    return in_markdown(found.store, sections(found))


def draw(found: LinkageFigures, path: Path) -> None:
    """A picture of the run; the ending of the path says which kind, .svg or .png."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"renkei linkage on {found.store}, {found.at[:10]}", fontsize=14, fontweight="bold")
    panels: tuple[Callable[[Any, LinkageFigures], None], ...] = (
        _draw_rates,
        _draw_latencies,
        _draw_profile,
        _draw_floor,
    )
    for axes, panel in zip(figure.subplots(2, 2).flat, panels, strict=True):
        panel(axes, found)
        axes.spines[["top", "right"]].set_visible(False)
    note = " · ".join(
        [f"{found.machine['CPU']}, {found.machine['cores']} cores for all", found.machine["file system"],
         *(f"{name} {value}" for name, value in list(found.settings.items())[:3])]
    )  # fmt: skip
    figure.text(0.01, -0.02, note, fontsize=8, color="#555555")
    figure.savefig(path, dpi=150, bbox_inches="tight")


_COLORS = (FLOOR, OURS, STOCK, OTHER, "#5b8c5a", "#c9a227", "#a23b3b", "#6b7a86", "#2e8b8b", "#d3a4c0")


def _draw_rates(axes: Any, found: LinkageFigures) -> None:
    sizes = [b.size for b in found.bulk]
    single = {(s.size, s.in_flight): s.rate for s in found.single}
    flights = list(dict.fromkeys(s.in_flight for s in found.single))
    groups = [(f"single, {n} in flight", [single[size, n] for size in sizes]) for n in flights]
    groups.append((f"one file of {found.persons:,}", [b.rate for b in found.bulk]))
    width = 0.9 / len(groups)
    for nth, ((label, rates), color) in enumerate(zip(groups, _COLORS, strict=False)):
        places = [place + (nth - (len(groups) - 1) / 2) * width for place in range(len(sizes))]
        bars = axes.bar(places, rates, width=width * 0.92, label=label, color=color)
        axes.bar_label(bars, fmt="{:,.0f}", fontsize=7)
    axes.set_xticks(range(len(sizes)), [f"{size} KB" for size in sizes])
    axes.set_yscale("log")
    axes.margins(y=0.3)
    axes.set_title("complete inquiries a second (log scale)")
    axes.legend(fontsize=8, frameon=False, loc="upper left", ncols=2)


def _draw_latencies(axes: Any, found: LinkageFigures) -> None:
    rows = [(f"{s.in_flight} in flight", s.p50, s.p99) for s in found.single if s.size == SIZE]
    rows += [(f"{b.rate:g} a second\nbeside\n{b.beside}", b.p50, b.p99) for b in found.beside]
    for nth, (label, color) in enumerate((("p50", FLOOR), ("p99", OURS))):
        places = [place + (nth - 0.5) * 0.4 for place in range(len(rows))]
        bars = axes.bar(places, [row[nth + 1] for row in rows], width=0.37, label=label, color=color)
        axes.bar_label(bars, fmt="{:,.0f}", fontsize=7)
    axes.axhline(500, color="#888888", linestyle="--", linewidth=1, label="direction for the p99: 500 ms")
    axes.set_xticks(range(len(rows)), [row[0] for row in rows], fontsize=7)
    axes.set_yscale("log")
    axes.margins(y=0.3)
    axes.set_title(f"single inquiries of {SIZE} KB, milliseconds (log scale)")
    axes.legend(fontsize=8, frameon=False, loc="upper left")


def _draw_profile(axes: Any, found: LinkageFigures) -> None:
    bars = [
        (f"{name}\n{load.partition(',')[0]}", parts)
        for load, processes in found.profile.items()
        for name, parts in processes.items()
        if parts and found.single[-1].processor.get(name)
    ]
    rooms = list(dict.fromkeys(room for _, parts in bars for room in list(parts)[:6]))[: len(_COLORS) - 1]
    bottoms = [0.0] * len(bars)
    for room, color in zip((*rooms, _REST), (*_COLORS[1:][: len(rooms)], FLOOR), strict=True):
        heights = [
            100 * (parts.get(room, 0) if room != _REST else 1 - sum(parts.get(each, 0) for each in rooms))
            for _, parts in bars
        ]
        axes.bar(range(len(bars)), heights, bottom=bottoms, width=0.7, label=room, color=color)
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    axes.set_xticks(range(len(bars)), [name for name, _ in bars], fontsize=8)
    axes.set_title("where the processor time goes, percent")
    axes.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3)


def _draw_floor(axes: Any, found: LinkageFigures) -> None:
    loads = (ALONE, TOGETHER, BULK)
    groups = (
        ("floor: bare steps", FLOOR, [found.floor(load)[0] for load in loads]),
        ("spent by all daemons", OURS, [found.spent(load) for load in loads]),
    )
    for nth, (label, color, values) in enumerate(groups):
        places = [place + (nth - 0.5) * 0.4 for place in range(len(loads))]
        axes.bar_label(
            axes.bar(places, values, width=0.37, label=label, color=color), fmt="{:.2f}", fontsize=8
        )
    axes.set_xticks(range(len(loads)), loads, fontsize=8)
    axes.set_yscale("log")
    axes.margins(y=0.3)
    axes.set_title("milliseconds of the processor for one inquiry (log scale)")
    axes.legend(fontsize=8, frameon=False, loc="upper right")


if __name__ == "__main__":
    for file in sys.argv[1:]:
        print(markdown(LinkageFigures.read(json.loads(Path(file).read_text(encoding="utf-8")))))
