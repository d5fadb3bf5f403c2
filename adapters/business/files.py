"""The CSV files of business systems: residents (住民), staff (職員), offices (所属), inquiries (照会).

cp932, CRLF, a header line. Readers give `(line, record)` for every good record and an `ErrorLine` for every
fault of the others, reading only as they are asked (R-125, R-173, R-176). Writers replace the file as a whole
and give back the faults of the records that cp932 cannot carry, which are left out.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from adapters.business import checks
from adapters.business.form import TEXT, Column, Finding, Form
from adapters.business.output import write_csv
from adapters.business.records import (
    ErrorLine,
    InquiryRecord,
    Line,
    OfficeRecord,
    ResidentRecord,
    RevocationRecord,
    StaffRecord,
)
from schemas import items
from schemas.law.judgement import ORDINANCE, STATUTORY
from schemas.law.roles import roles

NAME_CHARACTERS = 100
"""Limit of a name and of its reading: N 100 in the Digital Agency's item definitions (項目定義書)."""

_ROLE_IDS = {role.name_ja: role.id for role in roles().values()}
_PERIOD = ("valid_from", "valid_until")
_FISCAL_YEAR = Column(
    "fiscal_year", "相当年度", "9", checks.FISCAL_YEAR_DIGITS, required=False, check=checks.fiscal_year
)
BASES = (STATUTORY, ORDINANCE)
"""Items of Act article 19 by which one inquires: the law's table, and the affairs of an ordinance."""
_INTEGRATED_NUMBER = "団体内統合宛名番号"


def _period_in_order(values: Mapping[str, str]) -> Iterator[tuple[str, Finding]]:
    if all(day in values for day in _PERIOD) and values["valid_until"] < values["valid_from"]:
        yield "valid_until", ("B-012", "有効開始日より前の日付です")


def _fits_layout_and_basis(values: Mapping[str, str]) -> Iterator[tuple[str, Finding]]:
    if "row" in values and values.get("basis") in ("", STATUTORY):  # a task is asked for on its own basis
        yield from (("row", finding) for finding in checks.law_row(values["row"]))
    if "layout" in values and values.get("fiscal_year") == "":
        leaves = items.layout(values["layout"]).leaves
        if any(item.code == _FISCAL_YEAR.code for item in leaves):
            yield _FISCAL_YEAR.code, ("B-002", "この様式には相当年度が必要です")


RESIDENTS = Form(
    Column(
        "integrated_number",
        _INTEGRATED_NUMBER,
        "9",
        checks.INTEGRATED_NUMBER_DIGITS,
        check=checks.integrated_number,
    ),
    Column(
        "individual_number",
        "個人番号",
        "9",
        checks.INDIVIDUAL_NUMBER_DIGITS,
        check=checks.individual_number,
    ),
    Column("name", "氏名", "N", NAME_CHARACTERS),
    Column("kana", "氏名カナ", "N", NAME_CHARACTERS, check=checks.katakana),
    Column("birth_date", "生年月日", "DATE", check=checks.birth_date),
    Column("sex", "性別", "X", 1, check=checks.one_of("1", "2")),
    Column("address", "住所", TEXT),
    Column("protected", "保護区分", "X", 1, check=checks.one_of("0", "1")),
)

STAFF = Form(
    Column("staff_id", "職員ID", "X"),
    Column("office", "所属", TEXT),
    Column("official_role", "職責", "N", check=checks.one_of(*_ROLE_IDS)),
    Column("rows", "法令の表の項", "X", check=checks.affairs),
    Column("valid_from", "有効開始日", "DATE"),
    Column("valid_until", "有効終了日", "DATE"),
    across=_period_in_order,
)

REVOCATIONS = Form(Column("staff_id", "職員ID", "X"), Column("last_day", "権限終了日", "DATE"))

OFFICES = Form(
    Column("agency", "機関コード", "X", check=checks.agency),
    Column("office", "所属コード", "X"),
    Column("name", "所属名", TEXT),
    Column("rows", "法令の表の項", "X", required=False, check=checks.affairs),
    Column("valid_from", "有効開始日", "DATE"),
    Column("valid_until", "有効終了日", "DATE"),
    across=_period_in_order,
)

INQUIRIES = Form(
    Column("request_id", "照会ID", "X"),
    Column("staff_id", "職員ID", "X"),
    Column("provider", "提供機関コード", "X", check=checks.agency),
    Column("row", "表の項", "X", check=checks.affair),
    Column("information", "特定個人情報", "N"),
    Column("layout", "レイアウト", "X", check=checks.one_of(*(layout.key for layout in items.layouts()))),
    _FISCAL_YEAR,
    Column("subjects", _INTEGRATED_NUMBER, "X", check=checks.subjects),
    Column("case_number", "事案番号", TEXT, required=False, added=True),
    Column("not_before", "処理開始日時", "X", required=False, added=True, check=checks.moment),
    Column("repeats", "元の照会ID", "X", required=False, added=True),
    Column("terminal", "端末", TEXT, required=False, added=True),
    Column("basis", "根拠", "X", required=False, added=True, check=checks.one_of(*BASES)),
    across=_fits_layout_and_basis,
)


def _resident(v: Mapping[str, str]) -> ResidentRecord:
    return ResidentRecord(
        v["integrated_number"],
        v["individual_number"],
        v["name"],
        v["kana"],
        v["birth_date"],
        v["sex"],
        v["address"],
        protected=v["protected"] == "1",
    )


def _staff_member(v: Mapping[str, str]) -> StaffRecord:
    return StaffRecord(
        v["staff_id"],
        v["office"],
        _ROLE_IDS[v["official_role"]],
        tuple(v["rows"].split(" ")),
        v["valid_from"],
        v["valid_until"],
    )


def _office(v: Mapping[str, str]) -> OfficeRecord:
    rows = tuple(v["rows"].split())
    return OfficeRecord(v["agency"], v["office"], v["name"], rows, v["valid_from"], v["valid_until"])


def _inquiry(v: Mapping[str, str]) -> InquiryRecord:
    return InquiryRecord(
        v["request_id"],
        v["staff_id"],
        v["provider"],
        v["row"],
        v["information"],
        v["layout"],
        v["fiscal_year"],
        tuple(v["subjects"].split(" ")),
        v["case_number"],
        v["not_before"],
        v["repeats"],
        v["terminal"],
        v["basis"] or BASES[0],
    )


def read_residents(path: Path) -> Iterator[Line[ResidentRecord]]:
    """The residents of a file. Raises OSError when it cannot be read."""
    return RESIDENTS.read(path, _resident)


def read_staff(path: Path) -> Iterator[Line[StaffRecord]]:
    """The staff of a file, with the identifier of the role whose name it holds. Raises OSError."""
    return STAFF.read(path, _staff_member)


def read_revocations(path: Path) -> Iterator[Line[RevocationRecord]]:
    """The revocations (権限の取消し) of a file. Raises OSError when it cannot be read."""
    return REVOCATIONS.read(path, lambda v: RevocationRecord(v["staff_id"], v["last_day"]))


def read_offices(path: Path) -> Iterator[Line[OfficeRecord]]:
    """The offices (所属) of a file. Raises OSError when it cannot be read."""
    return OFFICES.read(path, _office)


def read_inquiries(path: Path) -> Iterator[Line[InquiryRecord]]:
    """The inquiries of a file. Raises OSError when it cannot be read."""
    return INQUIRIES.read(path, _inquiry)


def write_residents(path: Path, records: Iterable[ResidentRecord]) -> list[ErrorLine]:
    """Writes what `read_residents` reads."""
    cells = (
        [
            r.integrated_number,
            r.individual_number,
            r.name,
            r.kana,
            r.birth_date,
            r.sex,
            r.address,
            str(int(r.protected)),
        ]
        for r in records
    )
    return write_csv(path, RESIDENTS.header, cells)


def write_staff(path: Path, records: Iterable[StaffRecord]) -> list[ErrorLine]:
    """Writes what `read_staff` reads. Raises KeyError for a role that schemas.law does not know."""
    cells = (
        [
            r.staff_id,
            r.office,
            roles()[r.official_role].name_ja,
            " ".join(r.rows),
            r.valid_from,
            r.valid_until,
        ]
        for r in records
    )
    return write_csv(path, STAFF.header, cells)


def write_revocations(path: Path, records: Iterable[RevocationRecord]) -> list[ErrorLine]:
    """Writes what `read_revocations` reads."""
    return write_csv(path, REVOCATIONS.header, ([r.staff_id, r.last_day] for r in records))


def write_offices(path: Path, records: Iterable[OfficeRecord]) -> list[ErrorLine]:
    """Writes what `read_offices` reads."""
    cells = ([r.agency, r.office, r.name, " ".join(r.rows), r.valid_from, r.valid_until] for r in records)
    return write_csv(path, OFFICES.header, cells)


def write_inquiries(path: Path, records: Iterable[InquiryRecord]) -> list[ErrorLine]:
    """Writes what `read_inquiries` reads."""
    cells = (
        [
            r.request_id,
            r.staff_id,
            r.provider,
            r.row,
            r.information,
            r.layout,
            r.fiscal_year,
            " ".join(r.subjects),
            r.case_number,
            r.not_before,
            r.repeats,
            r.terminal,
            r.basis,
        ]
        for r in records
    )
    return write_csv(path, INQUIRIES.header, cells)
