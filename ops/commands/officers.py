"""`renkei sign-in`, `sign-out`, `operations`, `holds`, `hold`, `held`: what staff and officers do."""

from argparse import Namespace
from pathlib import Path

from ops.commands.common import (
    Commands,
    add_by,
    add_config,
    add_confirm,
    add_days,
    add_purpose,
    add_resident,
    agency,
    caller,
    day,
    words,
)


def add(commands: Commands) -> None:
    for direction, text in (("in", "端末での職員認証の記録"), ("out", "端末の利用終了")):
        signing = commands.add_parser(
            f"sign-{direction}", help=f"{text} (a member of staff signs {direction})"
        )
        add_config(signing)
        add_by(signing, "職員 (who)")
        signing.set_defaults(run=_sign, direction=direction)

    operations = commands.add_parser("operations", help="中間ログの閲覧 (what officers and functions did)")
    add_config(operations)
    add_by(operations, "操作者 (who reads)")
    add_purpose(operations)
    operations.add_argument("--staff", type=words, metavar="STAFF", help="この職員の (of whom)")
    add_resident(operations)
    add_days(operations)
    agreed = operations.add_mutually_exclusive_group()
    agreed.add_argument("--act", default="", metavar="ID", help="確認された操作 (after it was confirmed)")
    add_confirm(agreed)
    operations.set_defaults(run=_operations)

    holds = commands.add_parser("holds", help="自動応答不可の設定状況 (every hold that stands)")
    add_config(holds)
    holds.add_argument("--into", type=Path, metavar="FILE", help="CSV に書く (write them as CSV)")
    holds.set_defaults(run=_holds)

    hold = commands.add_parser("hold", help="自動応答不可の設定・解除 (set or release one hold)")
    add_config(hold)
    add_by(hold, "操作者 (who you are)")
    add_purpose(hold)
    hold.add_argument("--reason", required=True, help="protected_person, under_correction, …")
    add_resident(hold)
    for name in ("layout", "fiscal-year", "row", "item", "value"):
        hold.add_argument(f"--{name}", default="")
    hold.add_argument("--from", dest="starts", type=day, metavar="DAY")
    hold.add_argument("--to", dest="ends", type=day, metavar="DAY")
    hold.add_argument("--release", action="store_true", help="解除 (release it)")
    add_confirm(hold)
    hold.set_defaults(run=_hold)

    _add_held(commands)


def _add_held(commands: Commands) -> None:
    held = commands.add_parser("held", help="判断待ちの提供 (provisions that wait for an officer)")
    of_held = held.add_subparsers(dest="held", required=True)
    for name, help_text, run in (
        ("list", "一覧 (list)", _held_list),
        ("show", "照会の内容 (the content of an inquiry)", _held_show),
        ("approve", "提供を認める (approve)", _decide),
        ("limit", "一部だけ認める (approve in part)", _decide),
        ("refuse", "提供しない (refuse)", _decide),
        ("release", "起案されたものを送出する (release what another proposed)", _decide),
        ("confirm", "事後に確認する (found right afterwards)", _decide),
        ("object", "事後に指摘する (found wrong afterwards)", _decide),
    ):
        command = of_held.add_parser(name, help=help_text)
        add_config(command)
        add_by(command, "操作者 (who you are)")
        add_purpose(command)
        if name != "list":
            command.add_argument("number", nargs=1 if name == "show" else "+", help="処理番号")
        if run == _decide:
            command.add_argument(
                "--person",
                action="append",
                default=[],
                metavar="NUMBER",
                help="この人だけ (only this person)",
            )
            command.add_argument("--withhold-person", action="append", default=[], metavar="NUMBER")
            command.add_argument("--withhold-item", action="append", default=[], metavar="ITEM")
        command.set_defaults(run=run)


def _sign(options: Namespace) -> int:
    from ops.business import sign

    return sign(agency(options), caller(options, "端末の利用"), options.direction)


def _operations(options: Namespace) -> int:
    from adapters.platform.staffing import Search
    from ops.business import show_operations

    search = Search(options.staff or "", options.resident, options.since or "", options.until or "")
    act = options.act or options.confirm
    reader = caller(options, options.purpose)
    return show_operations(agency(options), reader, search, act, confirm=bool(options.confirm))


def _holds(options: Namespace) -> int:
    from ops.officer import show_holds

    return show_holds(agency(options), options.into)


def _hold(options: Namespace) -> int:
    from adapters.platform.holdings import HoldOrder
    from ops.officer import hold

    order = HoldOrder(
        not options.release,
        options.resident,
        options.layout,
        options.fiscal_year,
        options.row,
        options.item,
        options.value,
        options.reason,
        options.starts or "",
        options.ends or "",
    )
    return hold(agency(options), caller(options, options.purpose), order, options.confirm)


def _held_list(options: Namespace) -> int:
    from ops.officer import show_waiting

    return show_waiting(agency(options), caller(options, options.purpose))


def _held_show(options: Namespace) -> int:
    from ops.officer import show_content

    return show_content(agency(options), caller(options, options.purpose), options.number[0])


def _decide(options: Namespace) -> int:
    from adapters.platform.officer import DecisionOrder
    from ops.officer import decide

    parts = (tuple(options.person), tuple(options.withhold_person), tuple(options.withhold_item))
    orders = [DecisionOrder(number, options.held, *parts) for number in options.number]
    return decide(agency(options), caller(options, options.purpose), orders)
