"""`renkei demo`, `bench`, `simulate`: to see it work, to measure it, and to try it with faults."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

from ops.commands.common import Commands


def add(commands: Commands) -> None:
    demo = commands.add_parser("demo", help="デモンストレーション (the whole way of 200 inquiries)")
    demo.add_argument("--dir", type=Path, default=Path(".demo"))
    demo.add_argument("--stay", action="store_true", help="終了せずに動かし続ける (keep it running)")
    demo.add_argument(
        "--store",
        choices=("sqlite", "postgresql"),
        default="sqlite",
        help="記録の保管先 (where events are kept)",
    )
    demo.set_defaults(run=_demo)

    bench = commands.add_parser("bench", help="性能の測定 (measure)").add_subparsers(
        dest="bench", required=True
    )
    ledger = bench.add_parser("ledger", help="台帳の性能 (the ledger against bare writing)")
    _add_report(ledger)
    ledger.add_argument(
        "--size", type=_size, default=5_000_000, help="最大の台帳の件数 (events in the largest ledger)"
    )
    ledger.add_argument(
        "--seconds", type=float, default=9.0, help="測定ごとの秒数 (seconds for each measurement)"
    )
    ledger.set_defaults(run=_bench_ledger)
    linkage = bench.add_parser("linkage", help="情報連携の性能 (whole inquiries between two agencies)")
    _add_report(linkage)
    linkage.add_argument(
        "--persons", type=_persons, default=5_000, help="一括照会の人数 (persons of one file)"
    )
    linkage.add_argument(
        "--seconds", type=float, default=9.0, help="一つの測定の秒数 (for each measurement of singles)"
    )
    linkage.set_defaults(run=_bench_linkage)

    simulate = commands.add_parser(
        "simulate", help="障害のある網の模擬実行 (a whole network with faults, by seeds)"
    )
    simulate.add_argument("--agencies", type=_agencies, default=100, help="機関の数 (2–900)")
    simulate.add_argument("--days", type=float, default=3.0, help="仮想の日数 (virtual days)")
    which = simulate.add_mutually_exclusive_group()
    which.add_argument("--seeds", type=_seeds, default=range(1, 201), help="シードの数 (how many seeds)")
    which.add_argument("--seed", type=_one_seed, dest="seeds", help="この一つだけ (only this one, again)")
    simulate.set_defaults(run=_simulate)


def _add_report(command: ArgumentParser) -> None:
    """What is measured, and where the figures go."""
    command.add_argument(
        "--store", required=True, help="sqlite, postgresql (自前のサーバー), postgresql://..."
    )
    command.add_argument("--json", type=Path, required=True, metavar="FILE")
    command.add_argument("--picture", type=Path, metavar="FILE", help=".svg, .png")


def _size(text: str) -> int:
    """The smallest of the ledgers that are compared has a 500th of the events of the largest one."""
    if not (text.isdecimal() and int(text) >= 500):
        raise ArgumentTypeError("500–")
    return int(text)


def _persons(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise ArgumentTypeError("1–")
    return int(text)


def _agencies(text: str) -> int:
    if not (text.isdecimal() and 2 <= int(text) <= 900):
        raise ArgumentTypeError("2–900")
    return int(text)


def _seeds(text: str) -> range:
    if not (text.isdecimal() and int(text) > 0):
        raise ArgumentTypeError("1–")
    return range(1, int(text) + 1)


def _one_seed(text: str) -> range:
    if not text.isdecimal():
        raise ArgumentTypeError("0–")
    return range(int(text), int(text) + 1)


def _demo(options: Namespace) -> int:
    from ops.demo import demo

    return demo(options.dir, stay=options.stay, store=options.store)


def _bench_ledger(options: Namespace) -> int:
    from ops.bench.ledger import bench_ledger

    return bench_ledger(options.store, options.json, options.picture, options.size, options.seconds)


def _bench_linkage(options: Namespace) -> int:
    from ops.bench.linkage import bench_linkage

    return bench_linkage(options.store, options.json, options.picture, options.persons, options.seconds)


def _simulate(options: Namespace) -> int:
    from ops.simulate.command import simulate

    return simulate(options.agencies, options.days, options.seeds)
