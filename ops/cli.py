"""The command `renkei`. Messages are Japanese first; errors say what to do next."""

import sqlite3
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path

from eventsourcing.persistence import PersistenceError

from broker.ledger.kek import VaultExposed, VaultLocked
from broker.ledger.ledger import lacks_space
from broker.ledger.projections import ProjectionMismatch
from broker.ledger.store import SchemaMissing
from ops.config import AgencyConfig, ConfigurationError, NetworkConfig, RegistryConfig, read

Run = Callable[[Namespace], int]


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = ArgumentParser(
        prog="renkei",
        description="情報連携のためのイベントソーシング型メッセージブローカー (information linkage broker)",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help_text, run in (
        ("serve", "機関の常駐プロセス (an agency's daemon)", _serve),
        ("network", "参照用情報提供ネットワークシステム (the reference network)", _network),
        ("registry", "参照用住基CS (the reference registry server)", _registry),
    ):
        command = commands.add_parser(name, help=help_text)
        command.add_argument("--config", type=Path, required=True, metavar="FILE")
        command.set_defaults(run=run)

    migrate = commands.add_parser("migrate", help="データベースの表の作成・更新 (make or update the tables)")
    migrate.add_argument("--config", type=Path, required=True, metavar="FILE")
    migrate.add_argument(
        "--owner", default="", metavar="URL", help="表の所有者としての接続先 (the address as their owner)"
    )
    migrate.set_defaults(run=_migrate)

    load = commands.add_parser("load", help="ファイルの一括登録 (register the records of a file)")
    load.add_argument("--config", type=Path, required=True, metavar="FILE")
    load.add_argument("kind", choices=("residents", "income", "staff"))
    load.add_argument("file", type=Path)
    load.add_argument("--errors", type=Path, help="エラーリスト (default: FILE.errors.csv)")
    load.set_defaults(run=_load)

    inquire = commands.add_parser("inquire", help="ファイルによる情報照会 (inquiries from a file)")
    inquire.add_argument("--config", type=Path, required=True, metavar="FILE")
    inquire.add_argument("file", type=Path)
    inquire.add_argument("--results", type=Path, required=True, help="結果ファイル (CSV)")
    inquire.add_argument("--errors", type=Path, help="エラーリスト (default: FILE.errors.csv)")
    inquire.add_argument(
        "--patience",
        type=float,
        default=10.0,
        help="進展のないまま待つ秒数 (seconds to wait without progress)",
    )
    inquire.set_defaults(run=_inquire)

    records = commands.add_parser("records", help="情報提供等の記録の表示 (provision records of a resident)")
    records.add_argument("--config", type=Path, required=True, metavar="FILE")
    records.add_argument("--resident", required=True, metavar="NUMBER", help="団体内統合宛名番号")
    records.set_defaults(run=_records)

    state = commands.add_parser("status", help="台帳と投影の位置 (where ledgers and projections stand)")
    state.add_argument("--config", type=Path, required=True, metavar="FILE")
    state.set_defaults(run=_status)

    rebuild = commands.add_parser(
        "rebuild", help="投影の作り直し、業務は止めない (build projections anew while all goes on)"
    )
    rebuild.add_argument("--config", type=Path, required=True, metavar="FILE")
    rebuild.add_argument("--projection", metavar="NAME", help="一つだけ (only this one)")
    rebuild.set_defaults(run=_rebuild)

    moment = "時刻（時差付き）または位置 (a time with its offset, or a position)"
    replay = commands.add_parser(
        "replay", help="イベントからの再構築と照合・復元 (rebuild projections and compare, or as they stood)"
    )
    replay.add_argument("folder", type=Path)
    replay.add_argument("--into", type=Path, required=True)
    replay.add_argument("--to", metavar="TIME|POSITION", help=f"復元する{moment}")
    replay.set_defaults(run=_replay)

    audit = commands.add_parser("audit", help="監査 (audit)").add_subparsers(dest="audit", required=True)
    verify = audit.add_parser("verify", help="台帳の検証 (verify every ledger below a folder)")
    verify.add_argument("folder", type=Path)
    verify.set_defaults(run=_verify)
    trace = audit.add_parser("trace", help="メッセージの足跡 (the life of a message across ledgers)")
    trace.add_argument("id", metavar="ID")
    trace.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    trace.set_defaults(run=_trace)
    diff = audit.add_parser("diff", help="二つの時点の間の変化 (what changed between two moments, and why)")
    diff.add_argument("folder", type=Path)
    diff.add_argument("--from", dest="since", required=True, metavar="TIME|POSITION", help=moment)
    diff.add_argument("--to", dest="until", required=True, metavar="TIME|POSITION", help=moment)
    diff.add_argument("--projection", metavar="NAME", help="一つだけ (only this one)")
    diff.set_defaults(run=_diff)
    for command in (replay, verify, trace, diff):
        command.add_argument("--store", default="sqlite", metavar="URL", help="PostgreSQL")
    receipt = audit.add_parser("receipt", help="証明書の検証 (check a downloaded proof)")
    receipt.add_argument("file", type=Path)
    receipt.add_argument("--key", type=Path, required=True, help="検証鍵 (ledger.vkey)")
    receipt.set_defaults(run=_receipt)

    tiles = audit.add_parser("tiles", help="台帳の木の公開用ファイル (the log as static files)")
    tiles.add_argument("folder", type=Path)
    tiles.add_argument("--into", type=Path, required=True)
    tiles.add_argument("--store", default="sqlite", metavar="URL", help="PostgreSQL")
    tiles.set_defaults(run=_tiles)
    stamp = audit.add_parser(
        "timestamp", help="チェックポイントの時刻認証 (time-stamp an exported checkpoint)"
    )
    stamp.add_argument("folder", type=Path, help="audit tiles の書き出し先 (where audit tiles wrote one log)")
    stamp_part = stamp.add_mutually_exclusive_group(required=True)
    stamp_part.add_argument("--request", type=Path, metavar="FILE", help="要求を書く (write the request)")
    stamp_part.add_argument(
        "--response", type=Path, metavar="FILE", help="応答を確かめて残す (keep the answer)"
    )
    stamp.add_argument(
        "--roots", type=Path, metavar="FILE", help="時刻認証局の証明書 (of the authority, PEM)"
    )
    stamp.set_defaults(run=_timestamp)

    keys = commands.add_parser("keys", help="鍵の管理 (the keys of ledgers)")
    of_keys = keys.add_subparsers(dest="keys", required=True)
    listed = of_keys.add_parser("list", help="鍵の一覧 (every key and its state)")
    listed.set_defaults(run=_keys_list)
    rotated = of_keys.add_parser("rotate", help="鍵暗号化鍵の取替え (a new key-encryption key)")
    rotated.set_defaults(run=_keys_rotate)
    destroyed = of_keys.add_parser(
        "destroy", help="鍵の消去、請求と確認は別の人 (destroy a key: one person asks, another confirms)"
    )
    destroyed.set_defaults(run=_keys_destroy)
    retain = commands.add_parser("retain", help="保存期間 (what is kept until when, and what is due)")
    retain.set_defaults(run=_retain)
    for command in (listed, rotated, destroyed, retain):
        command.add_argument("folder", type=Path, help="台帳のフォルダー (a folder of ledgers)")
        command.add_argument("--store", default="sqlite", metavar="URL", help="PostgreSQL")
    destroyed.add_argument("key", metavar="KEY", help="一覧に出る鍵の名前 (as listed)")
    part = destroyed.add_mutually_exclusive_group(required=True)
    part.add_argument("--rule", type=_words, help="根拠となる規定 (the rule by which it is destroyed)")
    part.add_argument("--confirm", metavar="REQUEST", help="請求の番号 (the request that is confirmed)")
    destroyed.add_argument("--by", type=_words, required=True, metavar="NAME", help="担当者 (who you are)")
    who = retain.add_mutually_exclusive_group(required=True)
    who.add_argument("--dry-run", action="store_true", help="一覧だけ (only list)")
    who.add_argument("--by", type=_words, metavar="NAME", help="消去を請求する担当者 (who asks)")

    exported = commands.add_parser("export", help="台帳の書き出し (write a ledger into one portable file)")
    exported.add_argument("folder", type=Path, help="台帳のフォルダー (the folder of a ledger)")
    exported.add_argument("--into", type=Path, required=True, metavar="FILE")
    exported.set_defaults(run=_export)
    imported = commands.add_parser("import", help="台帳の取り込み (put an exported ledger into a store)")
    imported.add_argument("file", type=Path)
    imported.add_argument("--into", type=Path, required=True, metavar="FOLDER")
    imported.add_argument(
        "--key", type=Path, metavar="FILE", help="手元の検証鍵 (your own copy of ledger.vkey)"
    )
    imported.set_defaults(run=_import)
    backup = commands.add_parser("backup", help="控えの作成・更新 (make a backup, or bring it up to date)")
    of_whom = backup.add_mutually_exclusive_group(required=True)
    of_whom.add_argument("folder", type=Path, nargs="?", help="データフォルダー (a data folder)")
    of_whom.add_argument("--config", type=Path, metavar="FILE")
    backup.add_argument("--into", type=Path, required=True, metavar="FOLDER")
    backup.set_defaults(run=_backup)
    restore = commands.add_parser("restore", help="控えからの復元 (make a data folder of a backup)")
    restore.add_argument("backup", type=Path)
    restore.add_argument("--into", type=Path, required=True, metavar="FOLDER", help="空のフォルダー (empty)")
    restore.add_argument(
        "--kek", type=Path, nargs="+", required=True, metavar="FILE", help="鍵暗号化鍵 (key-encryption keys)"
    )
    restore.set_defaults(run=_restore)
    for command in (exported, imported, backup, restore):
        command.add_argument("--store", default="sqlite", metavar="URL", help="PostgreSQL")

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

    measures = commands.add_parser("bench", help="性能の測定 (measure)").add_subparsers(
        dest="bench", required=True
    )
    bench = measures.add_parser("ledger", help="台帳の性能 (the ledger against bare writing)")
    bench.add_argument("--store", required=True, help="sqlite, postgresql (自前のサーバー), postgresql://...")
    bench.add_argument("--json", type=Path, required=True, metavar="FILE")
    bench.add_argument("--picture", type=Path, metavar="FILE", help=".svg, .png")
    bench.add_argument(
        "--size", type=_size, default=5_000_000, help="最大の台帳の件数 (events in the largest ledger)"
    )
    bench.add_argument(
        "--seconds", type=float, default=9.0, help="測定ごとの秒数 (seconds for each measurement)"
    )
    bench.set_defaults(run=_bench)

    options = parser.parse_args(arguments)
    chosen: Run = options.run
    status = 1
    try:
        status = chosen(options)
    except* (ConfigurationError, OSError) as group:
        # A file that cannot be read, an address that is taken: the operator's to mend, so no traceback.
        status = _fail("S-104", group)
    except* ProjectionMismatch as group:
        status = _fail("S-105", group)
    except* (PersistenceError, sqlite3.OperationalError) as group:
        status = _fail("S-107", group)
    except* SchemaMissing as group:
        status = _fail("S-108", group)
    except* VaultExposed as group:
        status = _fail("S-114", group)
    except* VaultLocked as group:
        status = _fail("S-115", group)
    return status


def _fail(code: str, fault: BaseException) -> int:
    """Say what the first fault of a group is."""
    from ops.terminal import fail

    while isinstance(fault, BaseExceptionGroup):
        fault = fault.exceptions[0]
    return fail("S-109" if lacks_space(fault) else code, str(fault))


def _words(text: str) -> str:
    """What an event keeps for good: one line, not too long, not empty."""
    text = text.strip()
    if not (0 < len(text) <= 100 and text.isprintable()):
        raise ArgumentTypeError("1–100 characters in one line")
    return text


def _size(text: str) -> int:
    """The smallest of the ledgers that are compared has a 500th of the events of the largest one."""
    if not (text.isdecimal() and int(text) >= 500):
        raise ArgumentTypeError("500–")
    return int(text)


# Each command imports what it needs when it runs: `renkei audit` starts without TLS, `renkei serve` without
# the demo.


def _serve(options: Namespace) -> int:
    from ops.daemons import run_agency
    from ops.logs import configure

    config = read(AgencyConfig, options.config)
    configure(config.code, config.log)
    run_agency(config)
    return 0


def _network(options: Namespace) -> int:
    from ops.daemons import run_network
    from ops.logs import configure

    config = read(NetworkConfig, options.config)
    configure("network", config.log)
    run_network(config)
    return 0


def _registry(options: Namespace) -> int:
    from ops.daemons import run_registry
    from ops.logs import configure

    config = read(RegistryConfig, options.config)
    configure("registry", config.log)
    run_registry(config)
    return 0


def _migrate(options: Namespace) -> int:
    from ops.migrate import migrate

    return migrate(_with_ledgers(options.config), options.owner)


def _with_ledgers(path: Path) -> AgencyConfig | NetworkConfig:
    """The configuration of a process that keeps ledgers: an agency's, or the network's."""
    if "\nagencies" in path.read_text(encoding="utf-8"):
        return read(NetworkConfig, path)
    return read(AgencyConfig, path)


def _load(options: Namespace) -> int:
    from ops.business import load

    return load(read(AgencyConfig, options.config), options.kind, options.file, _errors(options))


def _inquire(options: Namespace) -> int:
    from ops.business import inquire

    config = read(AgencyConfig, options.config)
    return inquire(config, options.file, options.results, _errors(options), options.patience)


def _errors(options: Namespace) -> Path:
    given: Path | None = options.errors
    return given if given is not None else options.file.with_name(options.file.name + ".errors.csv")


def _records(options: Namespace) -> int:
    from ops.business import show_records

    return show_records(read(AgencyConfig, options.config), options.resident)


def _status(options: Namespace) -> int:
    from ops.tables import status

    return status(_with_ledgers(options.config))


def _rebuild(options: Namespace) -> int:
    from ops.tables import rebuild

    return rebuild(_with_ledgers(options.config), options.projection)


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


def _receipt(options: Namespace) -> int:
    from ops.audit import receipt

    return receipt(options.file, options.key)


def _keys_list(options: Namespace) -> int:
    from ops.keys import list_keys

    return list_keys(options.folder, options.store)


def _keys_rotate(options: Namespace) -> int:
    from ops.keys import rotate

    return rotate(options.folder, options.store)


def _keys_destroy(options: Namespace) -> int:
    from ops.keys import ask, confirm

    if options.confirm is not None:
        return confirm(options.folder, options.store, options.key, options.confirm, options.by)
    return ask(options.folder, options.store, options.key, options.rule, options.by)


def _retain(options: Namespace) -> int:
    from ops.keys import retain

    return retain(options.folder, options.store, options.by)


def _export(options: Namespace) -> int:
    from ops.backup import export

    return export(options.folder, options.into, options.store)


def _import(options: Namespace) -> int:
    from ops.backup import import_

    return import_(options.file, options.into, options.store, options.key)


def _backup(options: Namespace) -> int:
    from ops.backup import backup

    if options.config is None:
        return backup(options.folder, options.store, options.into)
    config = _with_ledgers(options.config)
    return backup(Path(config.data), config.store, options.into)


def _restore(options: Namespace) -> int:
    from ops.backup import restore

    return restore(options.backup, options.into, options.kek, options.store)


def _bench(options: Namespace) -> int:
    from ops.bench.ledger import bench_ledger

    return bench_ledger(options.store, options.json, options.picture, options.size, options.seconds)


def _demo(options: Namespace) -> int:
    from ops.demo import demo

    return demo(options.dir, stay=options.stay, store=options.store)


if __name__ == "__main__":
    sys.exit(main())
