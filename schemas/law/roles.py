"""Official roles (職責), what each may do, what needs a second person, and the words for what officers do.

Check policy as data (R-059, R-063): `roles.tsv`, `second_person.tsv`, `operations.tsv`.
"""

from dataclasses import dataclass
from functools import cache

from schemas import read_table

ABILITIES = ("inquire", "answer", "approve", "administer", "audit")


@dataclass(frozen=True)
class Role:
    """An official role: `may` holds words of ABILITIES, `bases` the articles that it links information under.

    Bases are "19-8" (affairs of the law table) and "19-9" (affairs of ordinances).
    """

    id: str
    name_ja: str
    may: frozenset[str]
    bases: frozenset[str]

    @property
    def may_inquire(self) -> bool:
        return "inquire" in self.may

    @property
    def may_answer(self) -> bool:
        return "answer" in self.may


@dataclass(frozen=True)
class SecondPersonAct:
    """An act that needs a second person; who may propose it, who confirm."""

    id: str
    name_ja: str
    name_en: str
    proposer: str
    confirmer: str


@dataclass(frozen=True)
class OperationWord:
    """A word for what an officer does; `log` is "business" (業務ログ) or "audit" (監査ログ)."""

    id: str
    name_ja: str
    name_en: str
    log: str


@cache
def roles() -> dict[str, Role]:
    """All roles by identifier."""
    header = ("role", "name_ja", *(f"may_{ability}" for ability in ABILITIES), "bases")
    return {
        row["role"]: Role(
            row["role"],
            row["name_ja"],
            frozenset(ability for ability in ABILITIES if row[f"may_{ability}"] == "yes"),
            frozenset(row["bases"].split()),
        )
        for row in read_table("schemas.law", "roles.tsv", header)
    }


@cache
def second_person_acts() -> dict[str, SecondPersonAct]:
    """All acts that may need a second person, by identifier."""
    header = ("act", "name_ja", "name_en", "proposer", "confirmer")
    return {
        row["act"]: SecondPersonAct(
            row["act"], row["name_ja"], row["name_en"], row["proposer"], row["confirmer"]
        )
        for row in read_table("schemas.law", "second_person.tsv", header)
    }


@cache
def operation_words() -> dict[str, OperationWord]:
    """All words for operations, by identifier."""
    header = ("operation", "name_ja", "name_en", "log")
    return {
        row["operation"]: OperationWord(row["operation"], row["name_ja"], row["name_en"], row["log"])
        for row in read_table("schemas.law", "operations.tsv", header)
    }
