"""The law table arranged for those who work by it: by affair, by information, by kind of local government.

Beside views of the table (R-397, R-398, R-404, R-405) stands what the sources state about the tables of their
time: figures (R-400 to R-403), numbers of articles (R-434 to R-437), the business of an affair (R-406), and
representative procedures with the origin of everything that they need (R-407 to R-412).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from types import MappingProxyType

from schemas import read_table
from schemas.law import KINDS, LawRow, LawTable, Wording

BY_TABLE, BY_OTHER_LAW, SOME = "◎", "○", "△"
"""Marks (R-405): concerned by the words of the table itself; by other law; only some of that kind."""

DESTINATIONS = ("inside", "registry_network", "national_network", "letter")
"""Where linkage goes (連携先, R-410): inside, the registry network, the national network, a letter."""

_ORIGINS = (*DESTINATIONS, "applicant", "issued")
_ITEM_HEADER = (
    "procedure",
    "number",
    "name_ja",
    "destination",
    "holder",
    "business",
    "serials",
    "controls",
    "information",
    "source",
)
_PROCEDURE_HEADER = (
    "procedure",
    "name_ja",
    "former_table_1",
    "former_table_2",
    "rows",
    "steps",
    "source",
    "valid_from",
    "valid_until",
)


def by_affair(table: LawTable) -> Mapping[str, tuple[LawRow, ...]]:
    """The lines of each row, in the order of the law (事務による整理, R-397)."""
    found: dict[str, tuple[LawRow, ...]] = {}
    for line in table.rows:
        found[line.row] = (*found.get(line.row, ()), line)
    return MappingProxyType(found)


def by_information(table: LawTable) -> Mapping[str, tuple[LawRow, ...]]:
    """The lines that name each kind of information (特定個人情報による整理, R-397)."""
    found: dict[str, tuple[LawRow, ...]] = {}
    for line in table.rows:
        for name in line.information:
            found[name] = (*found.get(name, ()), line)
    return MappingProxyType(found)


@dataclass(frozen=True)
class Concern:
    """Whether prefectures and municipalities are concerned (R-398): "○" yes, "△" only some, "×" no."""

    prefecture: str
    municipality: str


def concern(wording: Wording) -> Concern:
    """Which local governments a wording covers; boards of education stand with theirs."""
    return Concern(*(_concern(wording, level) for level in ("prefecture", "municipality")))


def _concern(wording: Wording, level: str) -> str:
    heads = {kind for category in local_governments().values() for kind in category.kinds}
    of_level = {name for name, kind in KINDS.items() if kind.level == level}
    if of_level & heads <= wording.kinds or of_level - heads & wording.kinds:
        return "○"
    covered = wording.kinds | {kind for kind, _ in wording.capable}
    return "△" if of_level & covered else "×"


@dataclass(frozen=True)
class LocalGovernment:
    """A kind of local government by which the sources mark (R-404), and the kinds of agency in it."""

    category: str
    name_ja: str
    kinds: frozenset[str]


@cache
def local_governments() -> Mapping[str, LocalGovernment]:
    """Every kind of local government by its identifier, the largest first."""
    rows = read_table("schemas.law", "local_governments.tsv", ("category", "name_ja", "kinds"))
    return MappingProxyType(
        {
            row["category"]: LocalGovernment(row["category"], row["name_ja"], frozenset(row["kinds"].split()))
            for row in rows
        }
    )


def inquirer_mark(table: LawTable, row: str, category: str) -> str:
    """How a kind of local government is the inquirer of a row: BY_TABLE, BY_OTHER_LAW, SOME or ""."""
    kinds = local_governments()[category].kinds
    for line in table.lines(row):
        if mark := _mark(table.wordings[line.inquirer], kinds, BY_TABLE):
            return mark
        if line.row in table.entrusted:
            return _mark(table.entrusted[line.row], kinds, BY_OTHER_LAW)
    return ""


def provider_mark(table: LawTable, information: str, category: str) -> str:
    """How a kind of local government is concerned as provider of a kind of information, under any row."""
    kinds = local_governments()[category].kinds
    marks = {
        _mark(table.wordings[line.provider], kinds, BY_TABLE)
        for line in by_information(table).get(information, ())
    }
    return next((mark for mark in (BY_TABLE, SOME) if mark in marks), "")


def _mark(wording: Wording, kinds: frozenset[str], whole: str) -> str:
    if kinds <= wording.kinds:
        return whole
    return SOME if kinds & (wording.kinds | {kind for kind, _ in wording.capable}) else ""


def groups(table: LawTable) -> Mapping[str, tuple[str, ...]]:
    """The rows of today sorted as the sources sort table 2 (R-403): "A" a local government is an inquirer,
    "B" it is a provider only, "unrelated". Whoever needs a capacity counts; deleted rows do not."""
    found: dict[str, tuple[str, ...]] = {"A": (), "B": (), "unrelated": ()}
    local = {name for name, kind in KINDS.items() if kind.level in ("prefecture", "municipality")}

    def concerned(wording: Wording) -> bool:
        return bool(local & wording.kinds) or any(kind in local for kind, _ in wording.capable)

    for row, lines in by_affair(table).items():
        if not table.lines(row):
            continue
        if any(concerned(table.wordings[line.inquirer]) for line in lines):
            group = "A"
        elif any(concerned(table.wordings[line.provider]) for line in lines):
            group = "B"
        else:
            group = "unrelated"
        found[group] = (*found[group], row)
    return MappingProxyType(found)


@dataclass(frozen=True)
class Figure:
    """A number that a source states about the tables of its time; `requirement` asks for it."""

    figure: str
    value: int
    requirement: str
    meaning: str
    source: str


@cache
def figures() -> Mapping[str, Figure]:
    """Every figure by its identifier."""
    rows = read_table("schemas.law", "figures.tsv", ("figure", "value", "requirement", "meaning", "source"))
    return MappingProxyType(
        {
            row["figure"]: Figure(
                row["figure"], int(row["value"]), row["requirement"], row["meaning"], row["source"]
            )
            for row in rows
        }
    )


@dataclass(frozen=True)
class Article:
    """Where a rule stood in 2013 ("" if it was not there) and where it stands today."""

    matter: str
    title_ja: str
    former: str
    present: str
    requirement: str


@cache
def articles() -> Mapping[str, Article]:
    """Every moved rule by its identifier."""
    header = ("matter", "title_ja", "former", "present", "requirement")
    return MappingProxyType(
        {row["matter"]: Article(**row) for row in read_table("schemas.law", "articles.tsv", header)}
    )


@cache
def businesses() -> Mapping[tuple[str, str], str]:
    """The business of an affair ("affair", row) or of a kind of information ("information", name) (R-406)."""
    rows = read_table("schemas.law", "businesses.tsv", ("side", "of", "business", "source"))
    return MappingProxyType({(row["side"], row["of"]): row["business"] for row in rows})


@dataclass(frozen=True)
class ProcedureItem:
    """Something that a procedure needs. `origin` is one of DESTINATIONS, "applicant" (the resident hands it
    in) or "issued" (the authority writes it); `information` its name in the law table ("" for none)."""

    procedure: str
    number: str
    name_ja: str
    origin: str
    holder: str
    business: str
    serials: str
    controls: str
    information: str
    source: str


@dataclass(frozen=True)
class Procedure:
    """A representative procedure: its items of the former tables 1 and 2, and the rows of today."""

    procedure: str
    name_ja: str
    former_table_1: str
    former_table_2: tuple[str, ...]
    rows: tuple[str, ...]
    steps: tuple[str, ...]
    source: str
    valid_from: date
    valid_until: date
    items: tuple[ProcedureItem, ...]


@cache
def procedures() -> Mapping[str, Procedure]:
    """Every representative procedure by its identifier. Raises ValueError for an unknown origin."""
    items: dict[str, tuple[ProcedureItem, ...]] = {}
    for row in read_table("schemas.law", "procedure_items.tsv", _ITEM_HEADER):
        item = ProcedureItem(*row.values())
        if item.origin not in _ORIGINS:
            raise ValueError(f"procedure_items.tsv: unknown destination {item.origin}")
        items[item.procedure] = (*items.get(item.procedure, ()), item)
    return MappingProxyType(
        {
            row["procedure"]: Procedure(
                procedure=row["procedure"],
                name_ja=row["name_ja"],
                former_table_1=row["former_table_1"],
                former_table_2=tuple(row["former_table_2"].split()),
                rows=tuple(row["rows"].split()),
                steps=tuple(row["steps"].split("|")),
                source=row["source"],
                valid_from=date.fromisoformat(row["valid_from"]),
                valid_until=date.fromisoformat(row["valid_until"]),
                items=items.get(row["procedure"], ()),
            )
            for row in read_table("schemas.law", "procedures.tsv", _PROCEDURE_HEADER)
        }
    )


def origin(item: ProcedureItem, procedure: Procedure, table: LawTable) -> str:
    """Where an item is to be had under this law: over the national network if a row of the procedure names
    the information, else as the source says. What the source had come over the network and the law does not
    name falls back to papers from the resident (R-412); a paper whose content the network gives is deemed
    handed in (Act art. 22(2), R-439), such as the family register (R-438)."""
    named = any(item.information in line.information for row in procedure.rows for line in table.lines(row))
    if named:
        return "national_network"
    return "applicant" if item.origin == "national_network" else item.origin
