"""The command `renkei`. Messages are Japanese first; errors say what to do next."""

import sqlite3
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from eventsourcing.persistence import PersistenceError

from broker.ledger.kek import VaultExposed, VaultLocked
from broker.ledger.ledger import lacks_space
from broker.ledger.projections import ProjectionMismatch
from broker.ledger.store import SchemaMissing
from ops.commands import (
    audit,
    business,
    certificates,
    codes,
    daemons,
    ledger,
    measure,
    notices,
    officers,
    records,
)
from ops.config import ConfigurationError

_ROOMS = (  # in the order of `renkei --help`
    daemons.add,
    business.add,
    records.add,
    officers.add,
    notices.add,
    codes.add,
    audit.add,
    ledger.add,
    certificates.add,
    measure.add,
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = ArgumentParser(
        prog="renkei",
        description="情報連携のためのイベントソーシング型メッセージブローカー (information linkage broker)",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for add in _ROOMS:
        add(commands)
    options = parser.parse_args(arguments)
    run: Callable[[Namespace], int] = options.run
    status = 1
    try:
        status = run(options)
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


if __name__ == "__main__":
    sys.exit(main())
