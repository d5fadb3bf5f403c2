"""CSV files about provision records: whose records to fetch, the records, and what is to be corrected
(R-155).

As in `files`: cp932, CRLF, a header line, and every fault of a record in the error list.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from adapters.business import checks
from adapters.business.form import TEXT, Column, Form
from adapters.business.output import write_csv
from adapters.business.records import ErrorLine, Line
from adapters.platform.provision_records import CorrectionOrder
from broker.intermediate.correction import ITEMS
from broker.intermediate.records import ProvisionRecord

_NUMBER = Column(
    "integrated_number",
    "団体内統合宛名番号",
    "9",
    checks.INTEGRATED_NUMBER_DIGITS,
    check=checks.integrated_number,
)
_ITEM_IDS = {japanese: item for item, (japanese, _) in ITEMS.items()}
PEOPLE = Form(_NUMBER)
CORRECTIONS = Form(
    _NUMBER,
    Column("record", "記録番号", "X"),
    Column("item", "訂正する項目", TEXT, check=checks.one_of(*_ITEM_IDS)),
    Column("new", "訂正後", TEXT),
    Column("reason", "訂正の理由", TEXT),
    Column("act", "確認番号", "X", required=False, added=True),
)
RECORD_HEADER = (
    "団体内統合宛名番号",
    "記録番号",
    "立場",
    "情報照会者",
    "情報提供者",
    "提供の求めの日時",
    "提供の日時",
    "情報の種類",
    "レイアウト",
    "情報の項目",
    "事務をつかさどる組織",
    "情報照会者の処理する事務",
    "不開示情報",
    "提供しなかった理由",
    "訂正",
)
_SIDES = {"inquirer": "照会", "provider": "提供"}


def read_people(path: Path) -> Iterator[Line[str]]:
    """The persons whose records are wanted. Raises OSError when the file cannot be read."""
    return PEOPLE.read(path, lambda v: v["integrated_number"])


def read_corrections(path: Path) -> Iterator[Line[tuple[CorrectionOrder, str]]]:
    """What is to be corrected, each with the id of the act that another proposed, or "". Raises OSError."""

    def made(v: dict[str, str]) -> tuple[CorrectionOrder, str]:
        item = _ITEM_IDS[v["item"]]
        return CorrectionOrder(v["integrated_number"], v["record"], item, v["new"], v["reason"]), v["act"]

    return CORRECTIONS.read(path, lambda v: made(dict(v)))


def write_corrections(path: Path, orders: Iterable[tuple[CorrectionOrder, str]]) -> list[ErrorLine]:
    """Writes what `read_corrections` reads: for the second person, with the ids of the acts to confirm."""
    cells = ([o.integrated_number, o.record, ITEMS[o.item][0], o.new, o.reason, act] for o, act in orders)
    return write_csv(path, CORRECTIONS.header, cells)


def write_records(path: Path, found: Iterable[tuple[str, ProvisionRecord]]) -> list[ErrorLine]:
    """The records of persons, a line each. Of one that was erased there are number and erasure alone."""
    return write_csv(path, RECORD_HEADER, (_cells(number, record) for number, record in found))


def _cells(number: str, r: ProvisionRecord) -> list[str]:
    if r.erased_at:
        return [number, r.number, _SIDES[r.side], *[""] * 10, f"消去 {r.erased_rule}", ""]
    told = [f"{ITEMS[c.item][0]}={c.new}（{c.corrected_at} {c.by or '自機関'}）" for c in r.corrections]
    return [
        number,
        r.number,
        _SIDES[r.side],
        r.inquirer_name,
        r.provider_name,
        r.requested_at,
        r.provided_at,
        r.information,
        r.layout,
        " ".join(r.items),
        r.office,
        r.affair,
        str(int(r.non_disclosure)),
        r.refusal,
        "／".join(told),
    ]
