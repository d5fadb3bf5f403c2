"""`renkei load`, `inquire`, `results`, `withdraw`: what a business system does by files.

What became of inquiries is also told by `renkei status`, among the daemons.
"""

from argparse import Namespace
from pathlib import Path

from ops.commands.common import (
    Commands,
    add_by,
    add_choice,
    add_config,
    add_errors,
    add_purpose,
    agency,
    caller,
    choice,
    errors,
)


def add(commands: Commands) -> None:
    load = commands.add_parser("load", help="ファイルの一括登録 (register the records of a file)")
    add_config(load)
    load.add_argument(
        "kind",
        choices=(
            "residents",
            "income",
            "staff",
            "revocations",
            "offices",
            "holds",
            "non-disclosure",
            "publications",
            "notices",
            "cancellations",
            "agency-notices",
        ),
    )
    load.add_argument("file", type=Path)
    add_errors(load)
    load.set_defaults(run=run_load)

    inquire = commands.add_parser("inquire", help="ファイルによる情報照会 (inquiries from a file)")
    add_config(inquire)
    inquire.add_argument("file", type=Path)
    inquire.add_argument("--results", type=Path, required=True, help="結果ファイル (CSV)")
    add_errors(inquire)
    inquire.add_argument(
        "--patience",
        type=float,
        default=10.0,
        help="進展のないまま待つ秒数 (seconds to wait without progress)",
    )
    inquire.set_defaults(run=_inquire)

    results = commands.add_parser("results", help="照会結果の取得 (what became of inquiries sent before)")
    results.add_argument("--results", type=Path, required=True, help="結果ファイル (CSV)")
    results.set_defaults(run=_results)
    withdraw = commands.add_parser("withdraw", help="照会の取りやめ (withdraw inquiries)")
    add_by(withdraw, "職員 (who)")
    add_purpose(withdraw, "理由 (why)")
    withdraw.set_defaults(run=_withdraw)
    for command in (results, withdraw):
        add_config(command)
        add_choice(command, required=True)


def run_load(options: Namespace) -> int:
    """Also `renkei notify`, for its kind of file."""
    from ops.business import load

    return load(agency(options), options.kind, options.file, errors(options))


def _inquire(options: Namespace) -> int:
    from ops.inquiries import inquire

    return inquire(agency(options), options.file, options.results, errors(options), options.patience)


def _results(options: Namespace) -> int:
    from ops.inquiries import fetch

    return fetch(agency(options), choice(options), options.results)


def _withdraw(options: Namespace) -> int:
    from ops.inquiries import withdraw

    return withdraw(agency(options), choice(options), caller(options, options.purpose))
