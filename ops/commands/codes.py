"""`renkei codes`: how link codes are acquired and retired."""

from argparse import Namespace
from pathlib import Path

from ops.commands.common import Commands, add_by, add_config, add_resident, agency, registry


def add(commands: Commands) -> None:
    codes = commands.add_parser("codes", help="符号の管理 (link codes)")
    of_codes = codes.add_subparsers(dest="codes", required=True)
    for name, help_text, run in (
        ("request", "符号取得依頼をファイルに書く (write requests for the registry)", _request),
        ("answer", "住基側で依頼に答える (at the registry: answer the requests)", _answer),
        ("settle", "戻ったファイルを取り込み、削除する (take the verdicts in)", _settle),
        ("progress", "符号取得の進み具合 (how far the acquisition is)", _progress),
        ("retire", "符号の失効 (retire a person's code)", _retire),
        ("ask", "提供側に符号の取得を求める (ask a provider to acquire a code)", _ask),
        ("asked", "求められた人の一覧 (persons named by other agencies)", _asked),
        ("decide", "求められた人を決める (say who such a person is)", _decide),
    ):
        command = of_codes.add_parser(name, help=help_text)
        add_config(command)
        if name in ("request", "answer", "settle"):
            command.add_argument("--file", type=Path, required=True, metavar="FILE", help="媒体のファイル")
        if name in ("ask", "asked", "decide"):
            add_by(command, "担当者 (who)")
        command.set_defaults(run=run)
    of_code = of_codes.choices
    of_code["answer"].add_argument("--agency", required=True, metavar="CODE", help="持参した機関 (whose)")
    of_code["progress"].add_argument("--patience", type=float, default=0.0, help="待つ秒数 (seconds)")
    of_code["progress"].add_argument("--errors", type=Path, metavar="FILE", help="エラーリスト")
    of_code["retire"].add_argument("--resident", required=True, metavar="NUMBER")
    of_code["retire"].add_argument("--reason", required=True, choices=("died", "moved", "erased"))
    of_code["ask"].add_argument("request", metavar="ID", help="照会ID (the inquiry)")
    of_code["decide"].add_argument("number", metavar="ID", help="処理通番 (as listed)")
    of_code["decide"].add_argument("place", type=int, help="順番 (as listed)")
    found = of_code["decide"].add_mutually_exclusive_group(required=True)
    add_resident(found)
    found.add_argument("--nobody", action="store_true", help="該当なし (there is none)")


def _request(options: Namespace) -> int:
    from ops.codes import request

    return request(agency(options), options.file)


def _answer(options: Namespace) -> int:
    from ops.codes import answer

    return answer(registry(options), options.agency, options.file)


def _settle(options: Namespace) -> int:
    from ops.codes import settle

    return settle(agency(options), options.file)


def _progress(options: Namespace) -> int:
    from ops.codes import progress

    return progress(agency(options), options.patience, options.errors)


def _retire(options: Namespace) -> int:
    from ops.codes import retire

    return retire(agency(options), options.resident, options.reason)


def _ask(options: Namespace) -> int:
    from ops.codes import ask

    return ask(agency(options), options.request, options.by)


def _asked(options: Namespace) -> int:
    from ops.codes import asked

    return asked(agency(options), options.by)


def _decide(options: Namespace) -> int:
    from ops.codes import decide

    return decide(agency(options), options.number, options.place, options.resident, options.by)
