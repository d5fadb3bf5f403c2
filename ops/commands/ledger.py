"""`renkei keys`, `retain`: keys and retention; `export`, `import`, `backup`, `restore`: copies of ledgers."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from ops.commands.common import Commands, add_store, keeper, words


def add(commands: Commands) -> None:
    _add_keys(commands)
    _add_copies(commands)


def _add_keys(commands: Commands) -> None:
    keys = commands.add_parser("keys", help="鍵の管理 (the keys of ledgers)")
    of_keys = keys.add_subparsers(dest="keys", required=True)
    listed = of_keys.add_parser("list", help="鍵の一覧 (every key and its state)")
    _add_folder(listed)
    listed.set_defaults(run=_keys_list)

    rotate = of_keys.add_parser("rotate", help="鍵暗号化鍵の取替え (a new key-encryption key)")
    _add_folder(rotate)
    rotate.set_defaults(run=_keys_rotate)

    destroy = of_keys.add_parser(
        "destroy", help="鍵の消去、請求と確認は別の人 (destroy a key: one person asks, another confirms)"
    )
    _add_folder(destroy)
    destroy.add_argument("key", metavar="KEY", help="一覧に出る鍵の名前 (as listed)")
    part = destroy.add_mutually_exclusive_group(required=True)
    part.add_argument("--rule", type=words, help="根拠となる規定 (the rule by which it is destroyed)")
    part.add_argument("--confirm", metavar="REQUEST", help="請求の番号 (the request that is confirmed)")
    destroy.add_argument("--by", type=words, required=True, metavar="NAME", help="担当者 (who you are)")
    destroy.set_defaults(run=_keys_destroy)

    retain = commands.add_parser("retain", help="保存期間 (what is kept until when, and what is due)")
    _add_folder(retain)
    who = retain.add_mutually_exclusive_group(required=True)
    who.add_argument("--dry-run", action="store_true", help="一覧だけ (only list)")
    who.add_argument("--by", type=words, metavar="NAME", help="消去を請求する担当者 (who asks)")
    retain.set_defaults(run=_retain)


def _add_folder(command: ArgumentParser) -> None:
    command.add_argument("folder", type=Path, help="台帳のフォルダー (a folder of ledgers)")
    add_store(command)


def _add_copies(commands: Commands) -> None:
    export = commands.add_parser("export", help="台帳の書き出し (write a ledger into one portable file)")
    export.add_argument("folder", type=Path, help="台帳のフォルダー (the folder of a ledger)")
    export.add_argument("--into", type=Path, required=True, metavar="FILE")
    add_store(export)
    export.set_defaults(run=_export)

    import_ = commands.add_parser("import", help="台帳の取り込み (put an exported ledger into a store)")
    import_.add_argument("file", type=Path)
    import_.add_argument("--into", type=Path, required=True, metavar="FOLDER")
    import_.add_argument(
        "--key", type=Path, metavar="FILE", help="手元の検証鍵 (your own copy of ledger.vkey)"
    )
    add_store(import_)
    import_.set_defaults(run=_import)

    backup = commands.add_parser("backup", help="控えの作成・更新 (make a backup, or bring it up to date)")
    of_whom = backup.add_mutually_exclusive_group(required=True)
    of_whom.add_argument("folder", type=Path, nargs="?", help="データフォルダー (a data folder)")
    of_whom.add_argument("--config", type=Path, metavar="FILE")
    backup.add_argument("--into", type=Path, required=True, metavar="FOLDER")
    add_store(backup)
    backup.set_defaults(run=_backup)

    restore = commands.add_parser("restore", help="控えからの復元 (make a data folder of a backup)")
    restore.add_argument("backup", type=Path)
    restore.add_argument("--into", type=Path, required=True, metavar="FOLDER", help="空のフォルダー (empty)")
    restore.add_argument(
        "--kek", type=Path, nargs="+", required=True, metavar="FILE", help="鍵暗号化鍵 (key-encryption keys)"
    )
    add_store(restore)
    restore.set_defaults(run=_restore)


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
    config = keeper(options)
    return backup(Path(config.data), config.store, options.into)


def _restore(options: Namespace) -> int:
    from ops.backup import restore

    return restore(options.backup, options.into, options.kek, options.store)
