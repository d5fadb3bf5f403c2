"""`renkei notices`, `notify`: notices to residents, and from agency to agency."""

from argparse import Namespace
from pathlib import Path

from ops.commands.business import run_load
from ops.commands.common import (
    Commands,
    add_by,
    add_config,
    add_errors,
    add_purpose,
    agency,
    caller,
    words,
)


def add(commands: Commands) -> None:
    notices = commands.add_parser("notices", help="お知らせと連絡の状況 (what became of notices)")
    of_notices = notices.add_subparsers(dest="notices", required=True)
    for name, help_text, run in (
        ("show", "住民へのお知らせの状況 (of one notice to a resident)", _show),
        ("results", "住民へのお知らせの状況、ファイルで (of those in a file)", _results),
        ("sent", "他機関への連絡の状況、ファイルで (of those sent to agencies)", _results),
        ("inbox", "届いた連絡 (what lies in the inbox of an office)", _inbox),
        ("read", "届いた連絡の受付 (acknowledge)", _act),
        ("cancel", "住民へのお知らせの取消 (withdraw a notice to a resident)", _act),
    ):
        command = of_notices.add_parser(name, help=help_text)
        add_config(command)
        if run == _results:
            command.add_argument("file", type=Path, help="IDの一覧 (a file with the ids)")
        elif run == _inbox:
            command.add_argument("--office", default="", help="所属、なければ共通 (default: the common one)")
            command.add_argument("--persons", type=Path, metavar="FILE", help="人についての情報 (of persons)")
            add_purpose(command)
        else:
            command.add_argument("id", metavar="ID")
        if run in (_results, _inbox):
            command.add_argument("--into", type=Path, required=True, metavar="FILE", help="CSV")
        if run in (_act, _inbox):
            add_by(command, "職員 (who you are)")
        if name == "cancel":
            command.add_argument("--reason", type=words, required=True, help="取消の理由 (why)")
        command.set_defaults(run=run)

    notify = commands.add_parser("notify", help="ファイルによる他機関への連絡 (notices to agencies, by file)")
    add_config(notify)
    notify.add_argument("file", type=Path)
    add_errors(notify)
    notify.set_defaults(run=run_load, kind="agency-notices")


def _show(options: Namespace) -> int:
    from ops.notices import show

    return show(agency(options), options.id)


def _results(options: Namespace) -> int:
    from ops.notices import results

    return results(agency(options), options.file, options.into, options.notices)


def _inbox(options: Namespace) -> int:
    from ops.notices import inbox

    reader = caller(options, options.purpose)
    return inbox(agency(options), reader, options.office, options.into, options.persons)


def _act(options: Namespace) -> int:
    from ops.notices import acknowledge, cancel

    if options.notices == "read":
        return acknowledge(agency(options), options.id, options.by)
    return cancel(agency(options), options.id, options.by, options.reason)
