"""`renkei migrate`: the tables of a process's ledgers in PostgreSQL, made and brought up to this version.

Done by the role that owns the schemas, which is not the one that the daemon runs under: that one is let
append and read, and nothing else.
"""

from contextlib import closing

from psycopg.conninfo import conninfo_to_dict

from broker.ledger.postgres import PostgresDatabase, schema_of
from ops.audit import say
from ops.config import AgencyConfig, ConfigurationError, NetworkConfig
from ops.daemons import ADDRESSING


def migrate(config: AgencyConfig | NetworkConfig, owner: str) -> int:
    """Make what is missing; `owner` is the address as the owner of the schemas, empty: as in the file."""
    if config.store == "sqlite":
        raise ConfigurationError("store is sqlite: there are no tables to make")
    role = str(conninfo_to_dict(config.store).get("user", "")) if owner else ""
    with closing(PostgresDatabase(owner or config.store, size=1)) as database:
        for origin in origins(config):
            steps = database.migrate(origin, role)
            say(f"{schema_of(origin)}: {', '.join(steps) or '変更なし (nothing to do)'}")
    return 0


def origins(config: AgencyConfig | NetworkConfig) -> list[str]:
    """The ledgers of a process."""
    if isinstance(config, NetworkConfig):
        return ["renkei/network"]
    return [f"renkei/{config.code}", f"renkei/{config.code}/{ADDRESSING}"]
