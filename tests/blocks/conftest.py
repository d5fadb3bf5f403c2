"""The house in which these tests run."""

from tests.house import furnished, house, keys

__all__ = ["furnished", "house", "keys"]
