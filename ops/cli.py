"""The command `renkei`. Messages are Japanese first; errors say what to do next."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

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

    replay = commands.add_parser(
        "replay", help="イベントからの再構築と照合 (rebuild projections and compare)"
    )
    replay.add_argument("folder", type=Path)
    replay.add_argument("--into", type=Path, required=True)
    replay.set_defaults(run=_replay)

    audit = commands.add_parser("audit", help="監査 (audit)").add_subparsers(dest="audit", required=True)
    verify = audit.add_parser("verify", help="台帳の検証 (verify every ledger below a folder)")
    verify.add_argument("folder", type=Path)
    verify.set_defaults(run=_verify)
    receipt = audit.add_parser("receipt", help="証明書の検証 (check a downloaded proof)")
    receipt.add_argument("file", type=Path)
    receipt.add_argument("--key", type=Path, required=True, help="検証鍵 (ledger.vkey)")
    receipt.set_defaults(run=_receipt)

    demo = commands.add_parser("demo", help="デモンストレーション (the whole way of 200 inquiries)")
    demo.add_argument("--dir", type=Path, default=Path(".demo"))
    demo.add_argument("--stay", action="store_true", help="終了せずに動かし続ける (keep it running)")
    demo.set_defaults(run=_demo)

    options = parser.parse_args(arguments)
    chosen: Run = options.run
    status = 1
    try:
        status = chosen(options)
    except* (ConfigurationError, OSError) as group:
        # A file that cannot be read, an address that is taken: the operator's to mend, so no traceback.
        from ops.terminal import fail

        fault: BaseException = group
        while isinstance(fault, BaseExceptionGroup):
            fault = fault.exceptions[0]
        status = fail("S-104", str(fault))
    return status


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


def _replay(options: Namespace) -> int:
    from ops.audit import replay

    return replay(options.folder, options.into)


def _verify(options: Namespace) -> int:
    from ops.audit import verify

    return verify(options.folder)


def _receipt(options: Namespace) -> int:
    from ops.audit import receipt

    return receipt(options.file, options.key)


def _demo(options: Namespace) -> int:
    from ops.demo import demo

    return demo(options.dir, stay=options.stay)


if __name__ == "__main__":
    sys.exit(main())
