"""Who may ask whom for what, for which affair; and how long records are kept.

The table of article 2 of the ordinance (令和六年デジタル庁・総務省令第九号) is data, one file per version
with the day from which it is in force (`versions.toml`). Its columns `inquirer` and `provider` are wordings
of law; `wordings.tsv` says which kinds of agency (`kinds.tsv`) each covers. A wording that needs facts which
are not held here is marked there and permits nothing: where in doubt the answer is no.

Powers that other laws hand from governors to mayors of designated cities (大都市特例) are not in this table
and are not applied: 都道府県知事 covers prefectures only.
"""

import tomllib
from calendar import monthrange
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import resources
from types import MappingProxyType

from schemas import read_table

_TABLE_HEADER = ("row", "inquirer", "affair", "provider", "information", "article")
_DELETED = "-"


@dataclass(frozen=True)
class Kind:
    """A kind of agency with its Japanese name and an English description."""

    kind: str
    name_ja: str
    name_en: str


KINDS: Mapping[str, Kind] = MappingProxyType(
    {row["kind"]: Kind(**row) for row in read_table(__name__, "kinds.tsv", ("kind", "name_ja", "name_en"))}
)
"""Every kind of agency by its identifier."""


@dataclass(frozen=True)
class Agency:
    """An agency as the law sees it. `kind` is a key of KINDS; ValueError otherwise."""

    code: str
    name: str
    kind: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of agency: {self.kind}")


@dataclass(frozen=True)
class LawRow:
    """One pair of row and provider: the affair for which `inquirer` may obtain `information`.

    `row` is the number in the table (十の二 = "10-2"), `article` the article of the same ordinance that lists
    the exact affairs and items.
    """

    row: str
    inquirer: str
    affair: str
    provider: str
    information: tuple[str, ...]
    article: str


@dataclass(frozen=True)
class Wording:
    """A wording of the table and the kinds that it covers; `note` says what is left out and why."""

    text: str
    kinds: frozenset[str]
    note: str


@dataclass(frozen=True)
class Retention:
    """How long a class of record is kept: whole years, and the law or policy that says so.

    `rule` is its short name, by which records are erased once the period is over.
    """

    years: int
    basis: str
    rule: str

    def ends(self, month: str) -> date:
        """The last day on which a record of this month (YYYY-MM) is kept, and with it the whole month."""
        year, number = int(month[:4]) + self.years, int(month[5:])
        return date(year, number, monthrange(year, number)[1])


class LawTable:
    """One version of the table. `rows` keeps the order of the law, deleted rows included."""

    def __init__(self, version: str, in_force_from: date, rows: tuple[LawRow, ...]) -> None:
        self.version = version
        self.in_force_from = in_force_from
        self.rows = rows
        known = wordings()
        self._by_row: dict[str, list[tuple[LawRow, frozenset[str], frozenset[str]]]] = {}
        for row in rows:
            if row.information:
                matched = (row, known[row.inquirer].kinds, known[row.provider].kinds)
                self._by_row.setdefault(row.row, []).append(matched)

    def permits(self, inquirer: Agency, provider: Agency, row: str, information: str) -> LawRow | None:
        """The line under which `inquirer` may obtain `information` from `provider`, or None (R-060, R-064).

        `information` is one name as it stands in the table. A deleted row (削除) never permits, nor does a
        row number that does not exist.
        """
        for line, inquirers, providers in self._by_row.get(row, ()):
            if inquirer.kind in inquirers and provider.kind in providers and information in line.information:
                return line
        return None


def split_information(cell: str) -> tuple[str, ...]:
    """The names of information in one cell.

    `、` separates names only where every piece then ends in 情報; elsewhere it belongs to one long name and
    the whole cell is taken as that name. A deleted row has none.
    """
    if cell == _DELETED:
        return ()
    pieces = tuple(cell.split("、"))
    return pieces if all(piece.endswith("情報") for piece in pieces) else (cell,)


@cache
def wordings() -> Mapping[str, Wording]:
    """Every wording of inquirers and providers by its text. Raises ValueError if a kind is unknown."""
    found: dict[str, Wording] = {}
    for row in read_table(__name__, "wordings.tsv", ("wording", "kinds", "note")):
        kinds = frozenset(row["kinds"].split())
        if not kinds <= KINDS.keys() or row["wording"] in found:
            raise ValueError(f"wordings.tsv: unknown kind, or wording twice: {row['wording']}")
        found[row["wording"]] = Wording(row["wording"], kinds, row["note"])
    return MappingProxyType(found)


@cache
def tables() -> tuple[LawTable, ...]:
    """Every version of the table, the oldest first."""
    versions = tomllib.loads(resources.files(__name__).joinpath("versions.toml").read_text(encoding="utf-8"))
    found = [
        LawTable(
            version["id"],
            version["in_force_from"],
            tuple(
                LawRow(
                    row=row["row"],
                    inquirer=row["inquirer"],
                    affair=row["affair"],
                    provider=row["provider"],
                    information=split_information(row["information"]),
                    article=row["article"],
                )
                for row in read_table(__name__, version["file"], _TABLE_HEADER)
            ),
        )
        for version in versions["version"]
    ]
    return tuple(sorted(found, key=lambda table: table.in_force_from))


def table_at(day: date) -> LawTable:
    """The table in force on `day` (a day in Japan). Raises ValueError if none held here was in force yet."""
    for table in reversed(tables()):
        if table.in_force_from <= day:
            return table
    raise ValueError(f"no law table in force on {day.isoformat()}")


@cache
def retentions() -> Mapping[str, Retention]:
    """Every retention class with its period."""
    return MappingProxyType(
        {
            row["class"]: Retention(int(row["years"]), row["basis"], row["rule"])
            for row in read_table(__name__, "retention.tsv", ("class", "years", "basis", "rule"))
        }
    )


def retention(class_name: str) -> Retention:
    """The period of a retention class. Raises ValueError if there is none of that name."""
    try:
        return retentions()[class_name]
    except KeyError:
        raise ValueError(f"no such retention class: {class_name}") from None
