"""The reference database (参照用DB): what it holds, where it comes from, and what is answered from it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.business.client import BusinessClient
from adapters.business.income import read_income, write_income
from adapters.business.records import ReplicaRecord
from adapters.business.server import BusinessServer
from adapters.platform.holdings import PublicationOrder
from broker.intermediate.link_code import LinkCodeAcquired
from broker.intermediate.provision import InformationProvided, ProvisionRequested
from broker.intermediate.replica import ReplicaRegistered
from broker.intermediate.staff import AuthorityGranted
from schemas import items
from schemas.codes import code_list
from schemas.items import Item, layout, layouts
from schemas.law import table_at
from schemas.law.necessity import necessary_items
from schemas.law.registry import businesses
from schemas.messages import Permit, decode
from tests.house import (
    ANSWERING,
    INFORMATION,
    LAYOUT,
    OFFICE,
    OFFICER,
    ROW,
    START,
    YEAR,
    House,
    Line,
    asked_of,
    files_with,
    income,
    order,
    resident,
)

HOUSEHOLD = "resident_record/1"
WELFARE = "livelihood_protection/1"
HER = resident(ANSWERING, 0)
OF_HOUSEHOLD = {
    "household_relation": "06",
    "household_member_count": "3",
    "entered_on": "2019-04-01",
    "entry_ended_on": items.OPEN_END,
    "entry_end_reason": "0",
}
OF_WELFARE = {"receipt": "1", "started_on": "2025-07-01"}
NEW_KIND: dict[str, list[tuple[str, ...]]] = {
    "layouts.tsv": [
        ("id", "version", "name_ja", "information", "updated"),
        ("livelihood_protection", "1", "生活保護受給情報", "生活保護関係情報", "原本の登録・変更の都度"),
    ],
    "livelihood_protection_1.tsv": [
        ("code", "name_ja", "parent", "level", "type", "digits", "min_occurs", "max_occurs", "code_list"),
        ("livelihood_protection", "生活保護関係情報", "", "0", "GROUP", "", "1", "1", ""),
        ("receipt", "受給有無", "livelihood_protection", "1", "X", "1", "1", "1", ""),
        ("started_on", "開始年月日", "livelihood_protection", "1", "DATE", "", "0", "1", ""),
    ],
}
"""A kind of welfare information that no layout of ours is for: given to the program as data."""


@pytest.fixture
def welfare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A further layout, known during one test."""
    for name, rows in NEW_KIND.items():
        text = "".join("\t".join(row) + "\n" for row in rows)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(items, "_folders", [*items._folders])
    items.add_layouts(tmp_path)
    yield
    monkeypatch.undo()
    layouts.cache_clear()


@pytest.fixture
def door(house: House) -> BusinessClient:
    """The one door of 見本市 through which all its business systems bring what they have."""
    name = house.keys.new_line(f"urn:renkei:business:{ANSWERING.code}")
    server = BusinessServer(house.answering.platform, house.answering.addressing, None)
    return BusinessClient(Line(house.keys.on_the_line(name), server.handle))


def good(found: Iterator[Any]) -> list[Any]:
    return [line[1] for line in found if isinstance(line, tuple)]


def sample(item: Item) -> Any:
    """A value that fits an item of any layout, or a list of it."""
    if item.code_list is not None:
        value = code_list(item.code_list).codes[0].value
    else:
        value = {"DATE": "2026-04-01", "N": "あ"}.get(item.type, "1")
    return [value] if item.max_occurs > 1 else value


async def answer(house: House, request_id: str, row: str, information: str, key: str, year: str = "") -> Any:
    """What 連携市 is told about her."""
    granted = AuthorityGranted(OFFICER, OFFICE, "affair_officer", (ROW, row), "2026-04-01", "2027-03-31")
    assert await house.asking.platform.grant(granted) is None
    asked = order(request_id, 0, row=row, information=information, layout=key, fiscal_year=year)
    assert await house.asking.platform.inquire(asked) is None
    await house.post()
    result = await house.asking.result(request_id)
    return result.payloads[0] if result.payloads else (result.codes or result.code)


@pytest.mark.req("R-134")
def test_items_form_attributes_and_updates_are_laid_down_for_each_kind_of_information() -> None:
    for found in layouts():
        assert found.updated, found.key
        assert found.leaves
        for item in found.leaves:
            assert item.name_ja
            assert item.type in ("X", "N", "9", "S9", "DATE")
            assert item.digits is not None or item.type == "DATE"
            assert item.max_occurs >= 1


@pytest.mark.req("R-123", "R-134", "R-135")
@pytest.mark.parametrize("key", [found.key for found in layouts()])
async def test_it_holds_exactly_what_the_layout_of_the_information_says(
    house: House, door: BusinessClient, key: str
) -> None:
    """Registered from a business system: the items of the layout, all that are required and no others, for
    information that the ministerial ordinance names."""
    assert any(layout(key).information in row.information for row in table_at(START.date()).rows)
    payload = {item.code: sample(item) for item in layout(key).leaves}
    required = [item.code for item in layout(key).leaves if item.min_occurs]

    def record(values: dict[str, Any]) -> ReplicaRecord:
        return ReplicaRecord(HER, key, "2030", values)

    lacking = [{code: payload[code] for code in payload if code != left_out} for left_out in required]
    verdicts = await door.send([record(payload | {"full_name": "見本　花子"}), *map(record, lacking)])
    assert verdicts == [("B-010", "full_name"), *(("B-002", left_out) for left_out in required)]
    held = "SELECT COUNT(*) FROM reference_database WHERE layout = ? AND fiscal_year = '2030'"
    assert await house.answering.rows(held, key) == [(0,)]
    assert await door.send([record(payload)]) == [("", "")]
    assert await house.answering.rows(held, key) == [(1,)]


@pytest.mark.req("R-123", "R-124", "R-132")
async def test_it_is_updated_from_business_systems_singly_and_by_file(
    house: House, door: BusinessClient, tmp_path: Path
) -> None:
    """What is answered is what was brought last, and which copy that was stands in the record."""
    told = []
    for number, changed in enumerate(("101", "102", "103")):
        record = ReplicaRecord(HER, LAYOUT, YEAR, income(0) | {"total_income": changed})
        if number == 1:
            write_income(tmp_path / "income.txt", [record])
            (record,) = good(read_income(tmp_path / "income.txt"))
        assert await door.send([record]) == [("", "")]
        told.append(await answer(house, f"q-{number}", ROW, INFORMATION, LAYOUT, YEAR))
    assert told == [asked_of(0) | {"total_income": changed} for changed in ("101", "102", "103")]
    provided = await house.answering.of_kind(InformationProvided)
    sources = await house.answering.platform.ledger.at([source for e in provided for source in e.sources])
    assert [source.event.payload["total_income"] for source in sources] == ["101", "102", "103"]


@pytest.mark.req("R-123", "R-126")
async def test_it_is_a_copy_that_is_kept_and_managed_here_and_sealed(
    house: House, door: BusinessClient
) -> None:
    """Nobody asks the business system at the time of an inquiry; here it is said until when a copy counts."""
    assert await answer(house, "q-1", ROW, INFORMATION, LAYOUT, YEAR) == asked_of(0)
    (copy,) = [e for e in await house.answering.of_kind(ReplicaRegistered) if e.integrated_number == HER]
    assert copy.payload == income(0)
    assert files_with(house.answering.data, income(0)["total_income"]) == []
    assert await door.send([PublicationOrder(HER, LAYOUT, YEAR, "2026-11-20")]) == [("", "")]
    assert await answer(house, "q-2", ROW, INFORMATION, LAYOUT, YEAR) == ("I-204",)


@pytest.mark.req("R-127", "R-141")
@pytest.mark.usefixtures("welfare")
async def test_household_income_and_welfare_are_supplied_by_link_code_when_inquired(
    house: House, door: BusinessClient, tmp_path: Path
) -> None:
    """The resident register brings the household, the tax system its file of income, and welfare what it has;
    a kind of information that is new needs data alone."""
    assert businesses()["information", "住民票関係情報"] == "住民基本台帳"
    assert businesses()["information", INFORMATION] == "個人住民税"
    of_tax = ReplicaRecord(HER, LAYOUT, "2025", income(0, "2025"))
    write_income(tmp_path / "income.txt", [of_tax])
    assert (
        await door.send(
            [
                ReplicaRecord(HER, HOUSEHOLD, "", OF_HOUSEHOLD),
                *good(read_income(tmp_path / "income.txt")),
                ReplicaRecord(HER, WELFARE, "", OF_WELFARE),
            ]
        )
        == [("", "")] * 3
    )
    told = {
        HOUSEHOLD: await answer(house, "q-1", ROW, "住民票関係情報", HOUSEHOLD),
        LAYOUT: await answer(house, "q-2", ROW, INFORMATION, LAYOUT, "2025"),
        WELFARE: await answer(house, "q-3", "20", "生活保護関係情報", WELFARE),
    }
    assert told == {HOUSEHOLD: OF_HOUSEHOLD, LAYOUT: asked_of(0, "2025"), WELFARE: OF_WELFARE}
    assert set(told[LAYOUT]) == set(necessary_items(ROW, layout(LAYOUT)))
    (code,) = [
        e.link_code for e in await house.answering.of_kind(LinkCodeAcquired) if e.integrated_number == HER
    ]
    permits = [decode(Permit, delivery.note) for delivery in await house.answering.mail()]
    assert {permit.link_codes for permit in permits} == {(code,)}
    assert len(await house.answering.of_kind(ProvisionRequested)) == len(told)
