"""Checks of single values that several files share. Each gives findings: catalogue code and reason."""

import re
from collections.abc import Callable, Iterator
from datetime import datetime

from adapters.business.form import Finding
from schemas import codes, items

INTEGRATED_NUMBER_DIGITS = codes.SERIAL_DIGITS + 1
INDIVIDUAL_NUMBER_DIGITS = 12
FISCAL_YEAR_DIGITS = 4


def _number(value: str, digits: int, valid: Callable[[str], bool]) -> Iterator[Finding]:
    if re.fullmatch("[0-9]+", value) is None:
        yield "B-003", "数字ではありません"
    elif len(value) != digits:
        yield "B-004", f"{digits}桁ではありません"
    elif not valid(value):
        yield "B-006", "検査数字が合いません"


def integrated_number(value: str) -> Iterator[Finding]:
    """15 digits with the check digit of R-242."""
    return _number(value, INTEGRATED_NUMBER_DIGITS, codes.integrated_number_valid)


def individual_number(value: str) -> Iterator[Finding]:
    """12 digits with the check digit of ordinance 85 of 2014, article 5."""
    return _number(value, INDIVIDUAL_NUMBER_DIGITS, codes.individual_number_valid)


def fiscal_year(value: str) -> Iterator[Finding]:
    """4 digits of the western calendar."""
    return _number(value, FISCAL_YEAR_DIGITS, lambda _: True)


def subjects(value: str) -> Iterator[Finding]:
    """Integrated numbers separated by a space, each once; a reason counts the subjects from 1."""
    numbers = value.split(" ")
    for place, number in enumerate(numbers, start=1):
        for code, reason in integrated_number(number):
            yield code, f"{place}件目: {reason}"
        if number in numbers[: place - 1]:
            yield "B-011", f"{place}件目: 同じ番号が重なっています"


_ROW = "[0-9]+(-[0-9]+)*"
_TASK = "[A-Za-z][A-Za-z0-9_-]*"


def affairs(value: str) -> Iterator[Finding]:
    """Affairs separated by a space, each once, as `affair` has them."""
    found = value.split(" ")
    if not all(re.fullmatch(f"{_ROW}|{_TASK}", each) for each in found):
        yield "B-003", "表の項は 10-2、条例の事務は英字で始まる番号の形で、半角の空白で区切ります"
    if len(set(found)) != len(found):
        yield "B-011", "同じ項が重なっています"


def affair(value: str) -> Iterator[Finding]:
    """One row number of the law table such as `10-2`, or one task of an ordinance of the agency (R-376)."""
    if re.fullmatch(f"{_ROW}|{_TASK}", value) is None:
        yield "B-003", "表の項は 10-2、条例の事務は英字で始まる番号の形で書きます"


def law_row(value: str) -> Iterator[Finding]:
    """One row number of the law table."""
    if re.fullmatch(_ROW, value) is None:
        yield "B-003", "表の項は 10-2 の形で書きます"


def agency(value: str) -> Iterator[Finding]:
    """The code of an agency. Six digits are a local government's and carry a check digit."""
    if re.fullmatch("[0-9]{6}", value) and not codes.local_government_code_valid(value):
        yield "B-006", "検査数字が合いません"


def moment(value: str) -> Iterator[Finding]:
    """A time with its offset from UTC, such as 2026-11-21T18:00:00+09:00."""
    try:
        known = datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        known = False
    if not known:
        yield "B-012", "日時は 2026-11-21T18:00:00+09:00 の形で、時差まで書きます"


def birth_date(value: str) -> Iterator[Finding]:
    """A real day: the open ends of a period are no birth dates."""
    if value in (items.OPEN_BEGINNING, items.OPEN_END):
        yield "B-012", "実際にはない日付です"


def katakana(value: str) -> Iterator[Finding]:
    """Full-width katakana, with a full-width space between the parts of a name."""
    if re.fullmatch("[ァ-ヶ・ー\u3000]+", value) is None:
        yield "B-003", "全角のカタカナではありません"


def one_of(*choices: str) -> Callable[[str], Iterator[Finding]]:
    """A check that the value is one of `choices`."""

    def check(value: str) -> Iterator[Finding]:
        if value not in choices:
            yield "B-005", "コード表にない値です"

    return check
