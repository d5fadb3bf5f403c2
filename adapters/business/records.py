"""What the files of business systems say, line by line.

A field that identifies a person stays out of `repr`, so that a record in a log line or a failing assertion
shows only the number that this municipality gave (R-242).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar


@dataclass(frozen=True)
class ResidentRecord:
    """One resident (住民): dates as YYYY-MM-DD, sex as 1 (男) or 2 (女), `protected` for 支援措置対象者."""

    integrated_number: str
    individual_number: str = field(repr=False)
    name: str = field(repr=False)
    kana: str = field(repr=False)
    birth_date: str = field(repr=False)
    sex: str = field(repr=False)
    address: str = field(repr=False)
    protected: bool = field(repr=False)


@dataclass(frozen=True)
class ReplicaRecord:
    """One person's information for the reference database; `payload` maps item codes to values."""

    integrated_number: str
    layout_key: str
    fiscal_year: str
    payload: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class StaffRecord:
    """A staff member's authority (職員): the law rows to ask under, from one date to another (YYYY-MM-DD)."""

    staff_id: str
    office: str
    official_role: str
    rows: tuple[str, ...]
    valid_from: str
    valid_until: str


@dataclass(frozen=True)
class RevocationRecord:
    """The end of all authority of a member of staff; `last_day` (YYYY-MM-DD) still counts."""

    staff_id: str
    last_day: str


@dataclass(frozen=True)
class OfficeRecord:
    """An office (所属) of this agency with the law rows in its charge, or of a partner, without any."""

    agency: str
    office: str
    name: str
    rows: tuple[str, ...]
    valid_from: str
    valid_until: str


@dataclass(frozen=True)
class InquiryRecord:
    """A request of a business system (照会): one question about one or more subjects (integrated numbers).

    `case_number` is the office's own mark (事案番号), `not_before` a time with its offset before which
    nothing is sent, `repeats` the request that it asks again, `terminal` where it was ordered, and `basis`
    19-8 or 19-9.
    """

    request_id: str
    staff_id: str
    provider: str
    row: str
    information: str
    layout: str
    fiscal_year: str
    subjects: tuple[str, ...]
    case_number: str = ""
    not_before: str = ""
    repeats: str = ""
    terminal: str = ""
    basis: str = "19-8"


@dataclass(frozen=True)
class ResultRecord:
    """What came of one subject of a request: a state in Japanese and, where it was refused, a code.

    Where it was answered, `payload` holds the items, `omitted` are those left out (by code), and `layout` is
    the key that they follow.
    """

    request_id: str
    integrated_number: str
    state: str
    code: str = ""
    layout: str = ""
    payload: Mapping[str, str | Sequence[str]] | None = field(default=None, repr=False)
    omitted: Sequence[str] = ()


@dataclass(frozen=True)
class ErrorLine:
    """One fault of one record. `line` is the record's first physical line, counted from 1 with the header.

    `item` names the column and `reason` says in Japanese what is wrong with it; neither holds a value.
    """

    line: int
    item: str
    code: str
    reason: str


R = TypeVar("R")
Record = ResidentRecord | ReplicaRecord | StaffRecord | RevocationRecord | OfficeRecord | InquiryRecord
Line: TypeAlias = tuple[int, R] | ErrorLine
