"""One question for all callers: does the law of that day permit this information for this affair?"""

from collections.abc import Mapping, Sequence
from datetime import date

from schemas.errors import Refusal
from schemas.law import Agency, LawRow, LawTable, table_at
from schemas.law.ordinances import (
    IndependentUse,
    OrdinanceInquiry,
    Ordinances,
    permits_ordinance_inquiry,
)

STATUTORY, ORDINANCE = "19-8", "19-9"
"""The bases of provision over the network: items 8 and 9 of article 19 of the Act (R-434)."""


def judge(
    basis: str,
    inquirer: Agency,
    provider: Agency,
    row: str,
    information: str,
    day: date,
    *,
    version: str | None = None,
    ordinances: Mapping[str, Ordinances] | None = None,
    law: Sequence[LawTable] | None = None,
) -> LawRow | OrdinanceInquiry | Refusal:
    """The line that permits it, or why not.

    `basis` is STATUTORY, and `row` a row of the law table, or ORDINANCE, and `row` a task of the inquirer's
    `ordinances` (by agency code). `day` is the day of the inquiry in Japan: the law in force on it decides,
    whenever the question is asked (R-411); `version`, if given, must be that law's. `law` are the versions to
    choose from, the oldest first, without it those that ship with the program. Refusals: L-104 not in the law
    table of that day; L-113 not in the ordinance tables of that day; the detail names the item.
    """
    try:
        table = table_at(day, law)
    except ValueError:
        return Refusal("L-104", "day")
    if version is not None and version != table.version:
        return Refusal("L-104", "law_version")
    if basis == STATUTORY:
        return table.permits(inquirer, provider, row, information) or Refusal("L-104")
    if basis == ORDINANCE:
        own = (ordinances or {}).get(inquirer.code)
        if own is None:
            return Refusal("L-113", "inquirer")
        return permits_ordinance_inquiry(own, provider, row, information, day, table)
    return Refusal("L-104", "basis")


def affair_of(
    basis: str,
    inquirer: str,
    row: str,
    day: date,
    *,
    ordinances: Mapping[str, Ordinances] | None = None,
    law: Sequence[LawTable] | None = None,
) -> str:
    """The words of the affair as records show it: of the row, or, for a task of its own, of the ordinance of
    the agency with that code. "" where there is none on that day."""
    if basis == ORDINANCE:
        own = (ordinances or {}).get(inquirer)
        uses = own.on(IndependentUse, day) if own is not None else ()
        return next((use.affair for use in uses if use.task == row), "")
    try:
        return next((line.affair for line in table_at(day, law).lines(row)), "")
    except ValueError:
        return ""
