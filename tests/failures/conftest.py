"""The stores of the contract tests, where things fail; and servers that these tests may kill."""

from tests.ledger.conftest import database, place, sqlite_place, vault

__all__ = ["database", "place", "sqlite_place", "vault"]
