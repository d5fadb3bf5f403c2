"""`renkei audit`, `replay`: what auditors do with ledgers, and projections as they stood."""

from argparse import Namespace
from pathlib import Path

from ops.commands.common import Commands, add_config, add_store, agency
from ops.config import ConfigurationError

_MOMENT = "時刻（時差付き）または位置 (a time with its offset, or a position)"


def add(commands: Commands) -> None:
    replay = commands.add_parser(
        "replay", help="イベントからの再構築と照合・復元 (rebuild projections and compare, or as they stood)"
    )
    replay.add_argument("folder", type=Path)
    replay.add_argument("--into", type=Path, required=True)
    replay.add_argument("--to", metavar="TIME|POSITION", help=f"復元する{_MOMENT}")
    add_store(replay)
    replay.set_defaults(run=_replay)

    audit = commands.add_parser("audit", help="監査 (audit)").add_subparsers(dest="audit", required=True)
    verify = audit.add_parser("verify", help="台帳の検証 (verify every ledger below a folder)")
    verify.add_argument("folder", type=Path)
    add_store(verify)
    verify.set_defaults(run=_verify)

    trace = audit.add_parser("trace", help="メッセージの足跡 (the life of a message across ledgers)")
    trace.add_argument("id", metavar="ID")
    trace.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    add_store(trace)
    trace.set_defaults(run=_trace)

    diff = audit.add_parser("diff", help="二つの時点の間の変化 (what changed between two moments, and why)")
    diff.add_argument("folder", type=Path)
    diff.add_argument("--from", dest="since", required=True, metavar="TIME|POSITION", help=_MOMENT)
    diff.add_argument("--to", dest="until", required=True, metavar="TIME|POSITION", help=_MOMENT)
    diff.add_argument("--projection", metavar="NAME", help="一つだけ (only this one)")
    add_store(diff)
    diff.set_defaults(run=_diff)

    receipt = audit.add_parser("receipt", help="証明書の検証 (check a downloaded proof)")
    receipt.add_argument("file", type=Path)
    receipt.add_argument("--key", type=Path, required=True, help="検証鍵 (ledger.vkey)")
    receipt.set_defaults(run=_receipt)

    record = audit.add_parser("record", help="一件の記録の証明 (the proof of one record that came in)")
    add_config(record)
    of_what = record.add_mutually_exclusive_group(required=True)
    of_what.add_argument("--message", default="", metavar="ID", help="受信したメッセージの番号")
    of_what.add_argument("--request", default="", metavar="ID", help="照会ID、その回答 (what answered it)")
    record.add_argument(
        "--place", type=int, default=0, metavar="N", help="何件目か、0から (place of the record, from 0)"
    )
    record.add_argument("--out", type=Path, required=True, metavar="FILE", help="証明の書き出し先 (JSON)")
    record.set_defaults(run=_record)

    check = audit.add_parser("check-record", help="一件の記録の証明の検証 (check the proof of a record)")
    check.add_argument("file", type=Path)
    check.add_argument("--authority", type=Path, required=True, metavar="FILE", help="認証局の証明書 (PEM)")
    check.set_defaults(run=_check_record)

    tiles = audit.add_parser("tiles", help="台帳の木の公開用ファイル (the log as static files)")
    tiles.add_argument("folder", type=Path)
    tiles.add_argument("--into", type=Path, required=True)
    add_store(tiles)
    tiles.set_defaults(run=_tiles)

    stamp = audit.add_parser(
        "timestamp", help="チェックポイントの時刻認証 (time-stamp an exported checkpoint)"
    )
    stamp.add_argument("folder", type=Path, help="audit tiles の書き出し先 (where audit tiles wrote one log)")
    part = stamp.add_mutually_exclusive_group(required=True)
    part.add_argument("--request", type=Path, metavar="FILE", help="要求を書く (write the request)")
    part.add_argument("--response", type=Path, metavar="FILE", help="応答を確かめて残す (keep the answer)")
    stamp.add_argument(
        "--roots", type=Path, metavar="FILE", help="時刻認証局の証明書 (of the authority, PEM)"
    )
    stamp.set_defaults(run=_timestamp)


def _replay(options: Namespace) -> int:
    from ops.replay import replay

    return replay(options.folder, options.into, options.to, options.store)


def _verify(options: Namespace) -> int:
    from ops.audit import verify

    return verify(options.folder, options.store)


def _trace(options: Namespace) -> int:
    from ops.trace import trace

    return trace(options.id, options.folders, options.store)


def _diff(options: Namespace) -> int:
    from ops.replay import diff

    return diff(options.folder, options.since, options.until, options.projection, options.store)


def _receipt(options: Namespace) -> int:
    from ops.audit import receipt

    return receipt(options.file, options.key)


def _record(options: Namespace) -> int:
    from ops.record_proof import record

    return record(agency(options), options.message, options.request, options.place, options.out)


def _check_record(options: Namespace) -> int:
    from ops.record_proof import check

    return check(options.file, options.authority)


def _tiles(options: Namespace) -> int:
    from ops.publish import tiles

    return tiles(options.folder, options.into, options.store)


def _timestamp(options: Namespace) -> int:
    from ops.publish import keep, request_timestamp

    if options.request is not None:
        return request_timestamp(options.folder, options.request)
    if options.roots is None:
        raise ConfigurationError("--response: --roots FILE")
    return keep(options.folder, options.response, options.roots)
