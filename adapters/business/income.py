"""The fixed-length file of income and resident tax (所得課税証明書情報), as host systems write it.

One record a line, without a header: the integrated number in 15 bytes, then the items of the layout in their
order: a signed number as a sign (space, `+` or `-`) and its digits filled up with zeros, any other item in as
many bytes as it has digits. Spaces alone mean that there is no value. The last line is `T` and the number of
records in 9 digits, so that a file cut off on its way is noticed.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from adapters.business import checks
from adapters.business.form import LINE, Finding
from adapters.business.output import replacing
from adapters.business.records import ErrorLine, Line, ReplicaRecord
from adapters.business.text import LOST, decode, physical_lines
from schemas import items

LAYOUT = items.layout("income_tax_certificate/1")
TRAILER = "終了行"

_NUMBER_NAME = "団体内統合宛名番号"
_YEAR = "fiscal_year"
_TRAILER = re.compile(rb"T([0-9]{9})")
_SIGNED = re.compile("[ +-][0-9]+")
_NAMES = {item.code: item.name_ja for item in LAYOUT.leaves}


def _width(item: items.Item) -> int:
    if item.digits is None or item.max_occurs != 1:
        raise ValueError(f"{LAYOUT.key}: {item.code} has no fixed length")
    return item.digits + (item.type == "S9")


_COLUMNS = tuple((item, _width(item)) for item in LAYOUT.leaves)
RECORD_BYTES = checks.INTEGRATED_NUMBER_DIGITS + sum(width for _, width in _COLUMNS)
"""Length of a record without its line end."""


def read_income(path: Path) -> Iterator[Line[ReplicaRecord]]:
    """Each record with its line, or an ErrorLine for each of its faults. Raises OSError.

    A missing or wrong trailer is an ErrorLine at the end: the records before it have been given by then. What
    follows a trailer is refused, because no count vouches for it.
    """
    count = 0
    announced: int | None = None
    number = 0
    with path.open("rb") as stream:
        for number, raw in physical_lines(stream):
            line = None if raw is None else raw.removesuffix(b"\n").removesuffix(b"\r")
            if announced is not None:
                yield ErrorLine(number, LINE, "B-001", "終了行より後にある行です")
            elif line is not None and (trailer := _TRAILER.fullmatch(line)):
                announced = int(trailer[1])
            else:
                count += 1
                yield from _record(number, line)
    if announced is None:
        reason = "終了行がありません。ファイルが途中で切れた疑いがあります"
        yield ErrorLine(number + 1, TRAILER, "B-001", reason)
    elif announced != count:
        reason = f"終了行の件数は{announced}件、実際の行数は{count}件です"
        yield ErrorLine(number, TRAILER, "B-011", reason)


def _record(number: int, line: bytes | None) -> Iterator[Line[ReplicaRecord]]:
    if line is None or len(line) != RECORD_BYTES:
        yield ErrorLine(number, LINE, "B-001", f"行の長さが{RECORD_BYTES}バイトではありません")
        return
    start = checks.INTEGRATED_NUMBER_DIGITS
    integrated_number = decode(line[:start])
    faults = [ErrorLine(number, _NUMBER_NAME, *finding) for finding in _number(integrated_number)]
    payload: dict[str, str] = {}
    found: dict[str, Finding] = {}
    for item, width in _COLUMNS:
        value = _value(item, decode(line[start : start + width]))
        if isinstance(value, tuple):
            found[item.code] = value
        elif value:
            payload[item.code] = value
        start += width
    found.update(_misfits(payload, _NAMES.keys() - found.keys()))
    faults += _in_order(number, found)
    if faults:
        yield from faults
    else:
        yield number, ReplicaRecord(integrated_number, LAYOUT.key, payload[_YEAR], payload)


def _number(text: str) -> Iterable[Finding]:
    if LOST in text:
        return [("B-009", "cp932 の文字ではないバイトがあります")]
    number = text.rstrip(" ")
    return checks.integrated_number(number) if number else [("B-002", "必須の項目がありません")]


def _misfits(payload: Mapping[str, str], asked: Collection[str] | None = None) -> dict[str, Finding]:
    """What does not fit the layout, by item code. A year is digits only, though its type X allows letters."""
    found = {
        fault.item: (fault.code, fault.reason.rpartition(": ")[2])
        for fault in items.validate(LAYOUT, payload, asked)
    }
    for finding in checks.fiscal_year(payload[_YEAR]) if _YEAR in payload else ():
        found.setdefault(_YEAR, finding)
    return found


def _in_order(line: int, found: Mapping[str, Finding]) -> list[ErrorLine]:
    known = [code for code in _NAMES if code in found]
    unknown = [code for code in found if code not in _NAMES]
    return [ErrorLine(line, _NAMES.get(code, LINE), *found[code]) for code in known + unknown]


def _value(item: items.Item, text: str) -> str | Finding:
    """The value, empty for spaces, or what keeps the field from being read."""
    if LOST in text:
        return "B-009", "cp932 の文字ではないバイトがあります"
    if not text.strip(" "):
        return ""
    if item.type != "S9":
        return text.rstrip(" ")
    if _SIGNED.fullmatch(text) is None:
        return "B-003", f"符号1桁と{item.digits}桁の数字（前に零を詰める）ではありません"
    return str(int(text))


def write_income(path: Path, records: Iterable[ReplicaRecord]) -> list[ErrorLine]:
    """Writes what `read_income` reads; records that do not fit the layout are left out and reported.

    The lines of the faults count all records from 1. Raises ValueError for a record of another layout.
    """
    faults: list[ErrorLine] = []
    written = 0
    with replacing(path) as stream:
        for line, record in enumerate(records, start=1):
            if record.layout_key != LAYOUT.key:
                raise ValueError(f"{record.layout_key} has no fixed-length file")
            payload = {**record.payload, _YEAR: record.fiscal_year}
            found = [ErrorLine(line, _NUMBER_NAME, *finding) for finding in _number(record.integrated_number)]
            found += _in_order(line, _misfits(payload))
            faults += found
            if not found:
                stream.write((record.integrated_number + _fields(payload)).encode("ascii") + b"\r\n")
                written += 1
        stream.write(b"T%09d\r\n" % written)
    return faults


def _fields(payload: Mapping[str, str]) -> str:
    return "".join(
        f"{int(payload[item.code]): 0{width}d}" if item.type == "S9" else payload[item.code].ljust(width)
        for item, width in _COLUMNS
    )
