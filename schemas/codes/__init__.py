"""Code lists of items, and the check digits of the numbers that agencies use.

The lists are data (`code_lists.tsv`). The check digit functions take text as it came and accept nothing but
ASCII digits of the exact length: no separators, no surrounding spaces, no full-width digits.
"""

import re
from dataclasses import dataclass
from functools import cache

from stdnum.jp import in_

from schemas import read_table

_HEADER = ("code_list", "value", "name_ja", "name_en")

SERIAL_DIGITS = 14
"""Digits of the serial part of an integrated address number; one check digit follows."""


@dataclass(frozen=True)
class Code:
    """One value of a code list with its names."""

    value: str
    name_ja: str
    name_en: str


@dataclass(frozen=True)
class CodeList:
    """A code list; `codes` stand in the order in which people should see them."""

    name: str
    codes: tuple[Code, ...]

    def __contains__(self, value: object) -> bool:
        return any(code.value == value for code in self.codes)

    def code(self, value: str) -> Code:
        """The code with this value. Raises ValueError, without repeating the value, if there is none."""
        for code in self.codes:
            if code.value == value:
                return code
        raise ValueError(f"no such value in code list {self.name}")


@cache
def code_lists() -> tuple[CodeList, ...]:
    """Every code list, in the order of the file."""
    grouped: dict[str, list[Code]] = {}
    for row in read_table(__name__, "code_lists.tsv", _HEADER):
        grouped.setdefault(row["code_list"], []).append(Code(row["value"], row["name_ja"], row["name_en"]))
    return tuple(CodeList(name, tuple(codes)) for name, codes in grouped.items())


def code_list(name: str) -> CodeList:
    """The code list `name`. Raises ValueError if there is none."""
    for found in code_lists():
        if found.name == name:
            return found
    raise ValueError(f"no such code list: {name}")


def individual_number_valid(number: str) -> bool:
    """Whether `number` is 12 digits with the check digit of ordinance 85 of 2014, article 5 (個人番号).

    This says nothing about whether the number was ever assigned.
    """
    return re.fullmatch("[0-9]{12}", number) is not None and in_.is_valid(number)


def local_government_code_valid(code: str) -> bool:
    """Whether `code` is 6 digits with a right check digit (全国地方公共団体コード).

    Weights 6 to 2, check digit = last digit of 11 - (sum mod 11). Whether the place exists is not looked at,
    so that fictional municipalities (prefecture 99) pass.
    """
    if re.fullmatch("[0-9]{6}", code) is None:
        return False
    total = sum(int(digit) * weight for digit, weight in zip(code[:5], (6, 5, 4, 3, 2), strict=True))
    return int(code[5]) == (11 - total % 11) % 10


def integrated_number(serial: int) -> str | None:
    """The 15-character integrated address number of `serial`, or None for a serial that is never issued.

    R-242: a serial of 14 digits, then 11 - (sum mod 11) with weights 2 to 7 repeating from the lowest digit;
    remainder 0 gives 0. For remainder 1 the result would be 10, which the source leaves open: about one
    serial in eleven is therefore skipped. Raises ValueError unless 1 <= serial < 10**14.
    """
    if not 1 <= serial < 10**SERIAL_DIGITS:
        raise ValueError(f"a serial lies between 1 and 10**{SERIAL_DIGITS} - 1")
    digits = f"{serial:0{SERIAL_DIGITS}d}"
    total = sum(int(digit) * (2 + place % 6) for place, digit in enumerate(reversed(digits)))
    match total % 11:
        case 0:
            return digits + "0"
        case 1:
            return None
        case remainder:
            return digits + str(11 - remainder)


def integrated_number_valid(number: str) -> bool:
    """Whether `number` is one that `integrated_number` can issue (R-242). The serial 0 is never issued."""
    if re.fullmatch(f"[0-9]{{{SERIAL_DIGITS + 1}}}", number) is None:
        return False
    serial = int(number[:-1])
    return serial > 0 and integrated_number(serial) == number
