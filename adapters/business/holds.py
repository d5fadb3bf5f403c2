"""CSV files about what an agency holds ready: holds (自動応答不可), non-disclosure (不開示該当), publication.

As in `files`: cp932, CRLF, a header line, and every fault of a record in the error list. 設定区分 is 1 to set
and 0 to release. What a hold leaves empty fits anything: of a person all records, of a row everybody.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from adapters.business import checks
from adapters.business.form import TEXT, Column, Finding, Form
from adapters.business.output import write_csv
from adapters.business.records import ErrorLine, Line
from adapters.platform.holdings import HoldOrder, NonDisclosureOrder, PublicationOrder
from schemas import items
from schemas.law.approval import hold_reasons, non_disclosure_reasons

_REASONS = {name: reason for reason, name in hold_reasons().items()}
_GROUNDS = {name: reason for reason, name in non_disclosure_reasons().items()}
_WANTED = Column("wanted", "設定区分", "X", 1, check=checks.one_of("0", "1"))
_LAYOUTS = tuple(layout.key for layout in items.layouts())


def _number(required: bool) -> Column:
    return Column(
        "integrated_number",
        "団体内統合宛名番号",
        "9",
        checks.INTEGRATED_NUMBER_DIGITS,
        required=required,
        check=checks.integrated_number,
    )


def _layout(required: bool) -> Column:
    return Column("layout", "レイアウト", "X", required=required, check=checks.one_of(*_LAYOUTS))


def _reason(known: Iterable[str]) -> Column:
    return Column("reason", "理由", "N", check=checks.one_of(*known))


def _year() -> Column:
    return Column(
        "fiscal_year", "相当年度", "9", checks.FISCAL_YEAR_DIGITS, required=False, check=checks.fiscal_year
    )


def _no_hold(values: Mapping[str, str]) -> Iterator[tuple[str, Finding]]:
    """What the order itself finds wrong once every column is right."""
    if len(values) == len(HOLDS.header):
        fault = _hold(values).fault()
        if fault is not None:
            yield fault.detail, (fault.code, "ほかの項目との組合せを確かめてください")


HOLDS = Form(
    _WANTED,
    _number(required=False),
    _layout(required=False),
    _year(),
    Column("law_row", "表の項", "X", required=False, check=checks.law_row),
    Column("item", "項目", "X", required=False),
    Column("value", "項目の値", TEXT, required=False),
    _reason(_REASONS),
    Column("starts", "開始日", "DATE", required=False),
    Column("ends", "終了日", "DATE", required=False),
    across=_no_hold,
)

NON_DISCLOSURES = Form(_WANTED, _number(required=True), _layout(required=False), _year(), _reason(_GROUNDS))

PUBLICATIONS = Form(
    _number(required=True),
    _layout(required=True),
    _year(),
    Column("until", "公開終了日", "DATE", required=False),
)


def _hold(v: Mapping[str, str]) -> HoldOrder:
    return HoldOrder(
        v["wanted"] == "1",
        v["integrated_number"],
        v["layout"],
        v["fiscal_year"],
        v["law_row"],
        v["item"],
        v["value"],
        _REASONS[v["reason"]],
        v["starts"],
        v["ends"],
    )


def _non_disclosure(v: Mapping[str, str]) -> NonDisclosureOrder:
    reason = _GROUNDS[v["reason"]]
    return NonDisclosureOrder(
        v["wanted"] == "1", v["integrated_number"], v["layout"], v["fiscal_year"], reason
    )


def _publication(v: Mapping[str, str]) -> PublicationOrder:
    return PublicationOrder(v["integrated_number"], v["layout"], v["fiscal_year"], v["until"])


def read_holds(path: Path) -> Iterator[Line[HoldOrder]]:
    """Holds to be set and released. Raises OSError when the file cannot be read."""
    return HOLDS.read(path, _hold)


def read_non_disclosures(path: Path) -> Iterator[Line[NonDisclosureOrder]]:
    """Flags of non-disclosure to be set and released. Raises OSError."""
    return NON_DISCLOSURES.read(path, _non_disclosure)


def read_publications(path: Path) -> Iterator[Line[PublicationOrder]]:
    """Ends of publication to be set and, where empty, cancelled. Raises OSError."""
    return PUBLICATIONS.read(path, _publication)


def write_holds(path: Path, orders: Iterable[HoldOrder]) -> list[ErrorLine]:
    """Writes what `read_holds` reads: also the present state (自動応答不可フラグ設定状況の確認, R-105)."""
    cells = (
        [
            str(int(o.wanted)),
            o.integrated_number,
            o.layout,
            o.fiscal_year,
            o.law_row,
            o.item,
            o.value,
            hold_reasons()[o.reason],
            o.starts,
            o.ends,
        ]
        for o in orders
    )
    return write_csv(path, HOLDS.header, cells)
