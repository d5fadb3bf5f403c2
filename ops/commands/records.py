"""`renkei records`: provision records, and what is done with them."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from broker.intermediate.correction import ENTITLEMENT, IDENTITY, ITEMS, PURPOSES, QUALITIES
from ops.commands.common import (
    Commands,
    add_by,
    add_config,
    add_confirm,
    add_days,
    add_resident,
    add_store,
    agency,
    caller,
    words,
)
from ops.config import ConfigurationError


def add(commands: Commands) -> None:
    # Not with the common arguments: what is required here is so only without a command below it.
    records = commands.add_parser("records", help="情報提供等の記録 (provision records)")
    records.add_argument("--config", type=Path, metavar="FILE")
    records.add_argument("--by", type=words, metavar="STAFF", help="閲覧する職員 (who reads)")
    records.add_argument("--purpose", choices=(*PURPOSES,), help="目的 (what for)")
    of_whom = records.add_mutually_exclusive_group()
    of_whom.add_argument("--resident", metavar="NUMBER", help="団体内統合宛名番号")
    of_whom.add_argument("--file", type=Path, help="団体内統合宛名番号の一覧 (a list of them)")
    records.add_argument("--into", type=Path, metavar="FILE", help="CSV (with --file)")
    records.add_argument("--provided", action="store_true", help="提供先だけ (to whom we provided)")
    add_days(records)
    records.set_defaults(run=_records)
    more = records.add_subparsers(dest="records")

    for name, kind, help_text in (
        ("disclose", "disclosure", "開示 (disclose on paper)"),
        ("stop-of-use", "stop_of_use", "利用停止の請求の受付 (a request to stop the use: always refused)"),
        ("transfer", "transfer", "事案の移送の求めの受付 (a request for transfer: always refused)"),
    ):
        request = more.add_parser(name, help=help_text)
        _add_asked(request, "--to" if kind == "disclosure" else "--asked-by", required=True)
        request.add_argument("--resident", required=True, metavar="NUMBER", help="団体内統合宛名番号")
        request.add_argument("--into", type=Path, required=kind == "disclosure", metavar="FILE", help="HTML")
        request.set_defaults(run=_ask, kind=kind)

    correct = more.add_parser("correct", help="訂正 (correct what a record says)")
    _add_asked(correct, "--asked-by", required=False)
    correct.add_argument("--file", type=Path, help="訂正のファイル (corrections from a file)")
    correct.add_argument("--into", type=Path, metavar="FILE", help="確認待ち (with --file: what waits)")
    add_resident(correct)
    correct.add_argument("--record", default="", metavar="NUMBER", help="記録番号")
    correct.add_argument("--item", choices=(*ITEMS,), default="", help="訂正する項目")
    correct.add_argument("--new", default="", help="訂正後 (the right value)")
    correct.add_argument("--reason", type=words, help="訂正の理由 (why)")
    add_confirm(correct)
    correct.set_defaults(run=_correct)

    compared = more.add_parser("reconcile", help="三者の記録の照合 (compare the records of all sides)")
    compared.add_argument("folders", type=Path, nargs="*", metavar="FOLDER", help="台帳 (ledgers at hand)")
    compared.add_argument("--config", type=Path, metavar="FILE", help="ネットワークと (with the network's)")
    add_store(compared)
    add_days(compared)
    compared.add_argument(
        "--settle",
        type=float,
        default=30.0,
        metavar="MINUTES",
        help="処理中とみなす分数 (for so long a difference counts as under way)",
    )
    compared.set_defaults(run=_reconcile)


def _add_asked(command: ArgumentParser, option: str, *, required: bool) -> None:
    """Who asks for it, and how that was checked."""
    add_config(command)
    add_by(command, "職員 (who you are)")
    command.add_argument(option, dest="quality", choices=(*QUALITIES,), required=required, default="")
    command.add_argument(
        "--identity-checked", dest="identity", choices=(*IDENTITY,), required=required, default=""
    )
    command.add_argument("--entitlement", choices=(*ENTITLEMENT,), default="", help="代理人の資格の書類")
    command.add_argument("--representative", type=words, metavar="NAME", help="代理人の氏名")


def _asked(options: Namespace) -> tuple[str, str, str, str]:
    return options.quality, options.identity, options.entitlement, options.representative or ""


def _records(options: Namespace) -> int:
    from ops.records import fetch, show

    wanted = [options.config, options.by, options.purpose, options.resident or options.file]
    if not all(wanted) or bool(options.file) != bool(options.into):
        raise ConfigurationError("--config --by --purpose (--resident | --file --into)")
    config = agency(options)
    reader = caller(options, options.purpose)
    span = (options.since or "", options.until or "")
    if options.file:
        return fetch(config, reader, options.file, options.into, span, provided=options.provided)
    return show(config, reader, options.resident, *span)


def _ask(options: Namespace) -> int:
    from adapters.platform.provision_records import Request
    from ops.records import ask

    request = Request(options.kind, options.resident, *_asked(options))
    return ask(agency(options), caller(options, "開示請求への対応"), request, options.into)


def _correct(options: Namespace) -> int:
    from adapters.platform.provision_records import CorrectionOrder
    from ops.records import correct, correct_file

    config = agency(options)
    clerk = caller(options, "記録の訂正")
    if options.file and options.into:
        return correct_file(config, clerk, options.file, options.into)
    what = (options.resident, options.record, options.item, options.new, options.reason)
    if options.file or options.into or not all(what):
        raise ConfigurationError("(--resident --record --item --new --reason | --file --into)")
    return correct(config, clerk, CorrectionOrder(*what, *_asked(options)), options.confirm)


def _reconcile(options: Namespace) -> int:
    from datetime import timedelta

    from ops.logs import now
    from ops.reconcile import offline, online

    settle = timedelta(minutes=options.settle)
    if bool(options.folders) == bool(options.config):
        raise ConfigurationError("(FOLDER... | --config FILE)")
    if options.folders:
        return offline(options.folders, options.store, settle, now())
    return online(agency(options), options.since or "", options.until or "", settle, now())
