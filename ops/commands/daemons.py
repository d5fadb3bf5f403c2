"""`renkei serve`, `network`, `registry`: the daemons; `migrate`, `status`, `rebuild`: their tables."""

from argparse import Namespace

from ops.commands.common import Commands, add_choice, add_config, agency, choice, keeper, network, registry


def add(commands: Commands) -> None:
    for name, help_text, run in (
        ("serve", "機関の常駐プロセス (an agency's daemon)", _serve),
        ("network", "参照用情報提供ネットワークシステム (the reference network)", _network),
        ("registry", "参照用住基CS (the reference registry server)", _registry),
    ):
        daemon = commands.add_parser(name, help=help_text)
        add_config(daemon)
        daemon.set_defaults(run=run)

    migrate = commands.add_parser("migrate", help="データベースの表の作成・更新 (make or update the tables)")
    add_config(migrate)
    migrate.add_argument(
        "--owner", default="", metavar="URL", help="表の所有者としての接続先 (the address as their owner)"
    )
    migrate.set_defaults(run=_migrate)

    status = commands.add_parser("status", help="台帳と投影の位置 (where ledgers and projections stand)")
    add_config(status)
    add_choice(status, required=False)
    status.set_defaults(run=_status)

    rebuild = commands.add_parser(
        "rebuild", help="投影の作り直し、業務は止めない (build projections anew while all goes on)"
    )
    add_config(rebuild)
    rebuild.add_argument("--projection", metavar="NAME", help="一つだけ (only this one)")
    rebuild.set_defaults(run=_rebuild)


def _serve(options: Namespace) -> int:
    from ops.daemons import run_agency
    from ops.logs import configure

    config = agency(options)
    configure(config.code, config.log)
    run_agency(config)
    return 0


def _network(options: Namespace) -> int:
    from ops.daemons import run_network
    from ops.logs import configure

    config = network(options)
    configure("network", config.log)
    run_network(config)
    return 0


def _registry(options: Namespace) -> int:
    from ops.daemons import run_registry
    from ops.logs import configure

    config = registry(options)
    configure("registry", config.log)
    run_registry(config)
    return 0


def _migrate(options: Namespace) -> int:
    from ops.migrate import migrate

    return migrate(keeper(options), options.owner)


def _status(options: Namespace) -> int:
    if options.file is not None or options.case or options.request:
        from ops.inquiries import show_states

        return show_states(agency(options), choice(options))
    from ops.tables import status

    return status(keeper(options))


def _rebuild(options: Namespace) -> int:
    from ops.tables import rebuild

    return rebuild(keeper(options), options.projection)
