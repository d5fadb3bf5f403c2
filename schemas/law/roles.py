"""Official roles (職責) and what each may do on the network: check policy as data (R-059, R-063)."""

from csv import DictReader
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Role:
    """An official role; `may_inquire` and `may_answer` under any legal basis of the law table."""

    id: str
    name_ja: str
    may_inquire: bool
    may_answer: bool


@cache
def roles() -> dict[str, Role]:
    """All roles by identifier."""
    lines = files("schemas.law").joinpath("roles.tsv").read_text(encoding="utf-8").splitlines()
    return {
        row["role"]: Role(
            row["role"], row["name_ja"], row["may_inquire"] == "yes", row["may_answer"] == "yes"
        )
        for row in DictReader(lines, delimiter="\t")
    }
