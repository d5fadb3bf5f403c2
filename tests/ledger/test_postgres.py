"""What holds for PostgreSQL beyond the contract: schemas and their migrations, roles, one pool for many."""

import secrets
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from eventsourcing.persistence import IntegrityError, OperationalError
from psycopg.sql import SQL, Identifier

from broker.ledger import postgres
from broker.ledger.postgres import PostgresDatabase, schema_of
from broker.ledger.store import SchemaMissing
from tests.ledger.places import sign, stored, unit
from tests.servers import new_ledger

# Everything that a schema consists of, in words that do not name it.
CATALOGUE = """
    SELECT 'column', c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
        || ' ' || a.attnotnull || ' ' || a.attstorage::text || ' ' || coalesce(l.collname, '')
        || ' ' || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
      FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
      LEFT JOIN pg_collation l ON l.oid = a.attcollation
      LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
     WHERE c.relnamespace = %(schema)s::regnamespace AND c.relkind = 'r' AND c.relname <> 'migration'
    UNION ALL
    SELECT 'constraint', c.relname || ' ' || k.conname || ' ' || pg_get_constraintdef(k.oid)
      FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
     WHERE k.connamespace = %(schema)s::regnamespace AND k.contype <> 'n' AND c.relname <> 'migration'
    UNION ALL
    SELECT 'index', replace(indexdef, %(schema)s::text, '') FROM pg_indexes
     WHERE schemaname = %(schema)s::text AND tablename <> 'migration'
    UNION ALL
    SELECT 'other', relkind::text || ' ' || relname FROM pg_class
     WHERE relnamespace = %(schema)s::regnamespace AND relkind NOT IN ('r', 'i', 't')
    ORDER BY 1, 2
"""


def described(database: PostgresDatabase, schema: str) -> list[tuple[str, ...]]:
    with psycopg.connect(database.url) as connection:
        connection.execute(SQL("SET search_path TO {}").format(Identifier(schema)))
        return connection.execute(CATALOGUE, {"schema": schema}).fetchall()


def test_the_migrations_lead_to_the_schema(database: PostgresDatabase) -> None:
    whole, stepwise = f"whole_{secrets.token_hex(4)}", f"test/{secrets.token_hex(4)}"
    with psycopg.connect(database.url) as connection:
        connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(whole)))
        connection.execute(SQL("SET search_path TO {}").format(Identifier(whole)))
        connection.execute((Path(postgres.__file__).parent / "schema.sql").read_bytes())
    assert database.migrate(stepwise) == [path.stem for path in postgres.MIGRATIONS]
    expected = described(database, whole)
    assert len(expected) > 25
    assert described(database, schema_of(stepwise)) == expected
    assert database.migrate(stepwise) == []


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [path.name[:4] for path in postgres.MIGRATIONS] == [
        f"{number:04}" for number in range(1, len(postgres.MIGRATIONS) + 1)
    ]


def test_a_schema_that_was_not_made_or_is_behind(database: PostgresDatabase) -> None:
    origin = f"test/{secrets.token_hex(4)}"
    with pytest.raises(SchemaMissing):
        database.store(origin, sign)
    database.migrate(origin)
    database.store(origin, sign)
    migration = SQL("{}.migration").format(Identifier(schema_of(origin)))
    with database.connection() as connection:
        connection.execute(SQL("UPDATE {} SET digest = 'x' WHERE name LIKE '0002%'").format(migration))
    with pytest.raises(SchemaMissing, match="0002"):
        database.migrate(origin)
    with database.connection() as connection:
        connection.execute(SQL("DELETE FROM {} WHERE name LIKE '0002%'").format(migration))
    with pytest.raises(SchemaMissing, match="0002"):
        database.store(origin, sign)


@pytest.mark.req("R-159", "R-229", "R-230")
def test_the_role_that_runs_can_append_and_read_and_nothing_else(database: PostgresDatabase) -> None:
    role, origin = f"run_{secrets.token_hex(4)}", f"test/{secrets.token_hex(4)}"
    with database.connection() as connection:
        connection.execute(SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(Identifier(role)))
    database.migrate(origin, role)
    database.migrate(f"{origin}/other")
    host = database.url.rpartition("@")[2]
    with closing(PostgresDatabase(f"postgresql://{role}:x@{host}", size=2)) as limited:
        store = limited.store(origin, sign)
        stored(store, unit("m1", ("a", 0, 2)))
        store.cosign(2, ["line"])
        assert (store.head().size, store.cosignatures(2)) == (2, ["line"])
        with pytest.raises(SchemaMissing):
            limited.store(f"{origin}/other", sign)
    schema = schema_of(origin)
    tables = ("stored_events", "unit", "node", "checkpoint", "cosignature", "migration")
    for table in tables:
        for statement in (
            f"UPDATE {schema}.{table} SET ctid = ctid",  # noqa: S608 # names of this test
            f"DELETE FROM {schema}.{table}",  # noqa: S608 # names of this test
            f"TRUNCATE {schema}.{table}",
            f"DROP TABLE {schema}.{table}",
            f"ALTER TABLE {schema}.{table} ADD COLUMN x int",
            f"CREATE TABLE {schema}.new (x int)",
            f"SELECT * FROM {schema}_other.{table}",  # noqa: S608 # names of this test
        ):
            with (
                psycopg.connect(f"postgresql://{role}:x@{host}") as connection,
                pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.FeatureNotSupported)),
            ):
                connection.execute(statement.encode())


def test_an_error_names_no_row(database: PostgresDatabase) -> None:
    """A row may be a person's, and an error's text reaches logs."""
    origin = f"test/{secrets.token_hex(4)}"
    database.migrate(origin)
    insert = SQL("INSERT INTO {}.unit VALUES ('SECRET-NAME', 1, 1), ('SECRET-NAME', 1, 1)")
    with pytest.raises(IntegrityError, match="23505") as caught, database.connection() as connection:
        connection.execute(insert.format(Identifier(schema_of(origin))))
    assert "SECRET-NAME" not in str(caught.value)


def test_a_server_that_is_not_there() -> None:
    with (
        closing(PostgresDatabase("postgresql://nobody@127.0.0.1:1/none", size=1)) as database,
        pytest.raises(OperationalError),
    ):
        database.store("test/x", sign)


def test_a_batch_too_large_for_a_pipeline(database: PostgresDatabase) -> None:
    """What does not fit the buffers of both ends must not make them wait for each other."""
    store = new_ledger(database, sign)()
    large = unit("m", ("a", 0, 1_500))
    events = tuple(
        type(event)(
            originator_id=event.originator_id,
            originator_version=event.originator_version,
            topic=event.topic,
            state=bytes(4_000),
        )
        for event in large.events
    )
    stored(store, type(large)("m", {"a": 0}, events))
    assert store.head().size == 1_500
    assert len(store.stream("a")) == 1_500
