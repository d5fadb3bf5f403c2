"""The columns of a CSV file, and the check of a record against them that reports every fault."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from adapters.business.records import ErrorLine, Line
from adapters.business.text import LOST, Row, rows
from schemas import items

R = TypeVar("R")

LINE = "行"
"""What an error line names where no single column is at fault."""

TEXT = "TEXT"
"""Type of a column that may mix half-width and full-width characters and line ends, such as an address."""

_LINE_END = re.compile("\r?\n")

Finding = tuple[str, str]
"""A catalogue code and a reason in Japanese, without the value."""


def _no_finding(_value: str) -> Iterable[Finding]:
    return ()


def _no_relation(_values: Mapping[str, str]) -> Iterable[tuple[str, Finding]]:
    return ()


@dataclass(frozen=True)
class Column:
    """One column: a type of `schemas.items` with a limit in characters, or TEXT without; a check of its own.

    `check` sees only values that are there and have the right type. A column that was `added` later, at the
    end, may be missing in a file as a whole; it is then empty.
    """

    code: str
    name_ja: str
    type: str
    digits: int | None = None
    required: bool = True
    added: bool = False
    check: Callable[[str], Iterable[Finding]] = _no_finding


class Form:
    """The columns of one kind of file, in order.

    `across` looks at several columns together: of those without a fault of their own it gives column codes
    with findings.
    """

    def __init__(
        self,
        *columns: Column,
        across: Callable[[Mapping[str, str]], Iterable[tuple[str, Finding]]] = _no_relation,
    ) -> None:
        self.header = tuple(column.name_ja for column in columns)
        self._columns = {column.code: column for column in columns}
        self._least = sum(not column.added for column in columns)
        self._across = across
        typed = [column for column in columns if column.type != TEXT]
        self._typed = frozenset(column.code for column in typed)
        fields = (
            items.Item(
                column.code,
                column.name_ja,
                parent=None,
                level=0,
                type=column.type,
                digits=column.digits,
                min_occurs=int(column.required),
                max_occurs=1,
                code_list=None,
            )
            for column in typed
        )
        self._layout = items.Layout("file", 1, "", "", tuple(fields))

    def read(self, path: Path, build: Callable[[Mapping[str, str]], R]) -> Iterator[Line[R]]:
        """Each record of the file as `build` makes it with its line, or one ErrorLine for each fault.

        Without the agreed header nobody can say which column is which, nor whether the file is cp932 at all:
        such a file gives one ErrorLine and no record. Raises OSError when the file cannot be read.
        """
        with path.open("rb") as stream:
            records = rows(stream)
            head = next(records, None)
            width = 0 if head is None or head.cells is None else len(head.cells)
            if width < self._least or head is None or head.cells != self.header[:width]:
                reason = "見出し行が決められた項目名の並びではないため、ファイル全体を読みません"
                yield ErrorLine(1, LINE, "B-001", reason)
                return
            for row in records:
                values, faults = self._checked(row, width)
                if faults:
                    yield from faults
                else:
                    yield row.line, build(values)

    def _checked(self, row: Row, width: int) -> tuple[Mapping[str, str], list[ErrorLine]]:
        lost = ("B-009", f"{'・'.join(map(str, row.lost))}行目に cp932 の文字ではないバイトがあります")
        if row.cells is None or len(row.cells) != width:
            if row.cells is None:
                reason = "行が長すぎるか、引用符が正しく閉じていません"
            else:
                reason = f"項目の数が{width}ではありません"
            findings = [("B-001", reason), *([lost] if row.lost else [])]
            return {}, [ErrorLine(row.line, LINE, *finding) for finding in findings]
        values = dict.fromkeys(self._columns, "") | dict(zip(self._columns, row.cells, strict=False))
        found: dict[str, list[Finding]] = {code: [lost] for code, value in values.items() if LOST in value}
        for step in (self._of_type, self._of_columns, self._across):
            sound = {code: value for code, value in values.items() if code not in found}
            for code, finding in step(sound):
                found.setdefault(code, []).append(finding)
        return values, [
            ErrorLine(row.line, column.name_ja, *finding)
            for code, column in self._columns.items()
            for finding in found.get(code, ())
        ]

    def _of_type(self, values: Mapping[str, str]) -> Iterator[tuple[str, Finding]]:
        typed = self._typed & values.keys()
        payload = {code: values[code] for code in typed if values[code]}
        for fault in items.validate(self._layout, payload, asked=typed):
            name = self._columns[fault.item].name_ja
            yield fault.item, (fault.code, fault.reason.removeprefix(f"{name}: "))
        for code in values.keys() - typed:
            if not values[code]:
                if self._columns[code].required:
                    yield code, ("B-002", "必須の項目がありません")
            elif any(unicodedata.category(sign) == "Cc" for sign in _LINE_END.sub("", values[code])):
                yield code, ("B-003", "制御文字が含まれています")

    def _of_columns(self, values: Mapping[str, str]) -> Iterator[tuple[str, Finding]]:
        for code, value in values.items():
            if value:
                for finding in self._columns[code].check(value):
                    yield code, finding
