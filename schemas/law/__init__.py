"""Who may ask whom for what, for which affair; and how long records are kept.

The table of article 2 of the ordinance (令和六年デジタル庁・総務省令第九号) is data, one file per version
with the day from which it is in force (`versions.toml`). Its columns `inquirer` and `provider` are wordings
of law; `wordings.tsv` says which kinds of agency (`kinds.tsv`) each covers. Where a wording asks for more
than a kind ("who operates public housing", "who pays a benefit under another statute") it covers only
agencies that hold that capacity (`capacities.tsv`), as their registration states. In doubt the answer is no.

Powers that other laws hand from governors to mayors (大都市特例) make those mayors inquirers too, by the
words in parentheses of Act art. 19(8). `entrusted.tsv` holds those that the sources state, and no others:
elsewhere 都道府県知事 covers prefectures only.

`schemas.law.judgement` is the one entry point that asks of any basis of provision whether it permits.
"""

import tomllib
from calendar import monthrange
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from types import MappingProxyType

from schemas import parse_table, read_table

_TABLE_HEADER = ("row", "inquirer", "affair", "provider", "information", "article")
_WORDINGS_HEADER = ("wording", "kinds", "capacities", "capable_kinds", "note")
_ENTRUSTED_HEADER = ("row", "kind", "capacity", "basis")
_DELETED = "-"
_LEVELS = ("prefecture", "municipality", "local", "state", "other")


@dataclass(frozen=True)
class Kind:
    """A kind of agency with its Japanese name and an English description.

    `level` says whose organ it is: "prefecture", "municipality", "local" (another local public body), "state"
    or "other".
    """

    kind: str
    name_ja: str
    name_en: str
    level: str

    def __post_init__(self) -> None:
        if self.level not in _LEVELS:
            raise ValueError(f"{self.kind}: unknown level {self.level}")


@dataclass(frozen=True)
class Capacity:
    """What a wording asks of the single agency beyond its kind, in Japanese and as an English predicate."""

    capacity: str
    name_ja: str
    name_en: str


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        row["kind"]: Kind(**row)
        for row in read_table(__name__, "kinds.tsv", ("kind", "name_ja", "name_en", "level"))
    }
)
"""Every kind of agency by its identifier."""

CAPACITIES: Mapping[str, Capacity] = MappingProxyType(
    {
        row["capacity"]: Capacity(**row)
        for row in read_table(__name__, "capacities.tsv", ("capacity", "name_ja", "name_en"))
    }
)
"""Every capacity by its identifier."""


@dataclass(frozen=True)
class Agency:
    """An agency as the law sees it. `kind` is a key of KINDS, `capacities` are keys of CAPACITIES; ValueError
    otherwise."""

    code: str
    name: str
    kind: str
    capacities: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of agency: {self.kind}")
        if unknown := self.capacities - CAPACITIES.keys():
            raise ValueError(f"unknown capacity: {min(unknown)}")


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
    """A wording of the table: it covers every agency of one of `kinds`, and one of `capable` (kind, capacity)
    if the agency holds the capacity. `note` says why a capacity is asked for."""

    text: str
    kinds: frozenset[str]
    capable: frozenset[tuple[str, str]]
    note: str

    def covers(self, agency: Agency) -> bool:
        return agency.kind in self.kinds or any(
            (agency.kind, capacity) in self.capable for capacity in agency.capacities
        )


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
    """One version of the table. `rows` keeps the order of the law, deleted rows included.

    `wordings` are those of its columns by their text, `entrusted` maps a row to whoever acts in the place of
    its inquirer (Act art. 19(8)). Raises ValueError for a wording that is not known.
    """

    def __init__(
        self,
        version: str,
        in_force_from: date,
        rows: tuple[LawRow, ...],
        wordings: Mapping[str, Wording],
        entrusted: Mapping[str, Wording],
    ) -> None:
        self.version = version
        self.in_force_from = in_force_from
        self.rows = rows
        self.wordings = wordings
        self.entrusted = entrusted
        self._by_row: dict[str, list[LawRow]] = {}
        for row in rows:
            for text in (row.inquirer, row.provider):
                if text not in wordings:
                    raise ValueError(f"{version}: wording without kinds of agency: {text}")
            if row.information:
                self._by_row.setdefault(row.row, []).append(row)

    def lines(self, row: str) -> Sequence[LawRow]:
        """The lines of a row that permit something, in the order of the law; none for an unknown row."""
        return self._by_row.get(row, ())

    def permits(self, inquirer: Agency, provider: Agency, row: str, information: str) -> LawRow | None:
        """The line under which `inquirer` may obtain `information` from `provider`, or None (R-060, R-064).

        `information` is one name as it stands in the table. A deleted row (削除) never permits, nor does a
        row number that does not exist.
        """
        for line in self.provided(provider, row, information):
            if self.asks(inquirer, line):
                return line
        return None

    def asks(self, inquirer: Agency, line: LawRow) -> bool:
        """Is this agency an inquirer (情報照会者) of the line?"""
        entrusted = self.entrusted.get(line.row)
        return self.wordings[line.inquirer].covers(inquirer) or (
            entrusted is not None and entrusted.covers(inquirer)
        )

    def provided(self, provider: Agency, row: str, information: str) -> Iterable[LawRow]:
        """The lines of a row by which this agency provides `information`, whoever asks."""
        return (
            line
            for line in self.lines(row)
            if information in line.information and self.wordings[line.provider].covers(provider)
        )


def split_information(cell: str) -> tuple[str, ...]:
    """The names of information in one cell.

    `、` separates names only where every piece then ends in 情報; elsewhere it belongs to one long name and
    the whole cell is taken as that name. A deleted row has none.
    """
    if cell == _DELETED:
        return ()
    pieces = tuple(cell.split("、"))
    return pieces if all(piece.endswith("情報") for piece in pieces) else (cell,)


def load(folder: Traversable) -> tuple[LawTable, ...]:
    """Every version of the table in a folder, the oldest first.

    The folder holds `versions.toml` (id, in_force_from, file, and entrusted where there is such a file),
    `wordings.tsv` for all versions, and the files that are named. Raises ValueError if something is amiss.
    """
    known = _wordings(_table(folder, "wordings.tsv", _WORDINGS_HEADER))
    versions = tomllib.loads(folder.joinpath("versions.toml").read_text(encoding="utf-8"))["version"]
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
                for row in _table(folder, version["file"], _TABLE_HEADER)
            ),
            known,
            _entrusted(folder, version.get("entrusted")),
        )
        for version in versions
    ]
    days = {table.in_force_from for table in found}
    if not found or len(days) != len(found) or len({table.version for table in found}) != len(found):
        raise ValueError("versions.toml: no version, or two of one id or day")
    return tuple(sorted(found, key=lambda table: table.in_force_from))


def _table(folder: Traversable, name: str, header: tuple[str, ...]) -> list[dict[str, str]]:
    return parse_table(folder.joinpath(name).read_text(encoding="utf-8"), name, header)


def _wordings(rows: list[dict[str, str]]) -> Mapping[str, Wording]:
    found: dict[str, Wording] = {}
    for row in rows:
        kinds = frozenset(row["kinds"].split())
        capacities = frozenset(row["capacities"].split())
        capable = KINDS.keys() if row["capable_kinds"] == "*" else frozenset(row["capable_kinds"].split())
        if (
            not kinds | capable <= KINDS.keys()
            or not capacities <= CAPACITIES.keys()
            or row["wording"] in found
        ):
            raise ValueError(f"wordings.tsv: unknown kind or capacity, or wording twice: {row['wording']}")
        pairs = frozenset((kind, capacity) for kind in capable - kinds for capacity in capacities)
        found[row["wording"]] = Wording(row["wording"], kinds, pairs, row["note"])
    return MappingProxyType(found)


def _entrusted(folder: Traversable, name: str | None) -> Mapping[str, Wording]:
    """By row: who acts in the place of its inquirer. The wording's text and note are the laws that say so."""
    found: dict[str, Wording] = {}
    for row in _table(folder, name, _ENTRUSTED_HEADER) if name else ():
        if row["kind"] not in KINDS or row["capacity"] not in CAPACITIES.keys() | {""}:
            raise ValueError(f"{name}: unknown kind or capacity in row {row['row']}")
        before = found.get(row["row"], Wording("", frozenset(), frozenset(), ""))
        found[row["row"]] = Wording(
            row["row"],
            before.kinds | ({row["kind"]} if not row["capacity"] else set()),
            before.capable | ({(row["kind"], row["capacity"])} if row["capacity"] else set()),
            "、".join(filter(None, (before.note, row["basis"]))),
        )
    return MappingProxyType(found)


def wordings() -> Mapping[str, Wording]:
    """Every wording of inquirers and providers by its text."""
    return tables()[0].wordings


@cache
def tables() -> tuple[LawTable, ...]:
    """Every version of the table that ships with the program, the oldest first."""
    return load(resources.files(__name__))


def table_at(day: date, among: Sequence[LawTable] | None = None) -> LawTable:
    """The table in force on `day` (a day in Japan), of those that ship with the program or of `among`, the
    oldest first. Raises ValueError if none was in force yet."""
    for table in reversed(tables() if among is None else among):
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
