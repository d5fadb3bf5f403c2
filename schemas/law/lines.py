"""Reads the tables that an agency, and not this program, keeps: bad lines are named, the good ones go on.

A file is UTF-8 text, one line per entry, cells separated by a tab and never quoted. Lines that start with `#`
are remarks. The first cell names the table, the others are its cells in the order of the fields of the class
that holds a line: text, or a day as YYYY-MM-DD (0000-01-01 and 9999-12-31 for an open beginning and end).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from typing import Any, Generic, TypeVar

from schemas.errors import Refusal
from schemas.items import OPEN_BEGINNING, OPEN_END

T = TypeVar("T")


@dataclass(frozen=True)
class LineFault:
    """A line that was not taken in: its number from 1, the item, and why (B-001 wrong shape or table, B-002
    empty, B-005 not one of the values allowed, B-012 no such day or end before beginning, or a code of the
    table's own). `reason` is Japanese."""

    line: int
    item: str
    code: str
    reason: str


class LineInvalid(Exception):
    """Raised by the class of a line, when its cells do not go together; `refusal.detail` names the item."""

    def __init__(self, item: str, code: str, reason: str) -> None:
        super().__init__(code)
        self.refusal = Refusal(code, item)
        self.reason = reason


@dataclass(frozen=True)
class Read(Generic[T]):
    """What was read of a file: the good lines with their numbers, and the faults, each in file order."""

    lines: tuple[tuple[int, T], ...]
    faults: tuple[LineFault, ...]


def read_lines(text: str, classes: Mapping[str, type[T]], may_be_empty: frozenset[str]) -> Read[T]:
    """Read a file. `classes` maps the name of a table to the frozen dataclass of its lines.

    The same line twice is a fault of the second. Items named in `may_be_empty` need no value.
    """
    good: list[tuple[int, T]] = []
    faults: list[LineFault] = []
    seen: set[str] = set()
    for number, line in _numbered(text):
        try:
            if line in seen:
                raise LineInvalid("", "B-001", "同じ行が2回あります")
            seen.add(line)
            good.append((number, _line(line.split("\t"), classes, may_be_empty)))
        except LineInvalid as error:
            faults.append(LineFault(number, error.refusal.detail, error.refusal.code, error.reason))
    return Read(tuple(good), tuple(faults))


def cells(text: str, faults: Sequence[LineFault] = ()) -> tuple[tuple[str, ...], ...]:
    """The lines of a file as cells, without remarks and without those at fault: how a table travels."""
    bad = {fault.line for fault in faults}
    return tuple(tuple(line.split("\t")) for number, line in _numbered(text) if number not in bad)


def joined(rows: Iterable[Sequence[str]]) -> str:
    """The text of a table that came as cells."""
    return "\n".join("\t".join(row) for row in rows)


def keep(read: Read[T], check: Callable[[T], None]) -> Read[T]:
    """What of it stands when the lines are looked at beside each other: `check` raises LineInvalid."""
    good, faults = [], list(read.faults)
    for number, line in read.lines:
        try:
            check(line)
            good.append((number, line))
        except LineInvalid as error:
            faults.append(LineFault(number, error.refusal.detail, error.refusal.code, error.reason))
    return Read(tuple(good), tuple(sorted(faults, key=lambda fault: fault.line)))


def require_period(begins: date, ends: date, item: str = "valid_until") -> None:
    """Raises LineInvalid, naming the item that holds the end, if a period ends before it begins."""
    if ends < begins:
        raise LineInvalid(item, "B-012", "終わりの日が始まりの日より前です")


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        line = line.removesuffix("\r")
        if line.strip() and not line.startswith("#"):
            yield number, line


def _line(given: Sequence[str], classes: Mapping[str, type[T]], may_be_empty: frozenset[str]) -> T:
    if given[0] not in classes:
        raise LineInvalid("table", "B-001", "表の名前が決まりと違います")
    wanted: Any = classes[given[0]]
    items = fields(wanted)
    if len(given) - 1 != len(items):
        raise LineInvalid("", "B-001", f"項目の数が{len(items) + 1}ではありません")
    values = dict(_values(((item.name, item.type) for item in items), given[1:], may_be_empty))
    made: T = wanted(**values)
    return made


def _values(
    items: Iterator[tuple[str, Any]], given: Sequence[str], may_be_empty: frozenset[str]
) -> Iterator[tuple[str, Any]]:
    for (name, kind), cell in zip(items, given, strict=True):
        if cell != cell.strip():
            raise LineInvalid(name, "B-003", "前後に空白があります")
        if not cell and name not in may_be_empty:
            raise LineInvalid(name, "B-002", "必須の項目が空です")
        if kind is date:
            yield name, _day(name, cell)
        elif kind == tuple[str, ...]:
            yield name, tuple(filter(None, cell.split("|")))
        else:
            yield name, cell


def _day(name: str, cell: str) -> date:
    if cell in (OPEN_BEGINNING, OPEN_END):
        return date.min if cell == OPEN_BEGINNING else date.max
    try:
        day = date.fromisoformat(cell)
    except ValueError:
        raise LineInvalid(name, "B-012", "日付（YYYY-MM-DD）ではないか、実際にはない日付です") from None
    if day.isoformat() != cell:
        raise LineInvalid(name, "B-012", "日付は YYYY-MM-DD の形で書きます")
    return day
