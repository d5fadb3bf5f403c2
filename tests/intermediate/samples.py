"""Events of the intermediate interface to begin scripts with, and a way to read the scripts."""

from collections.abc import Callable
from typing import Any, TypeVar

from broker.intermediate.inquiry import InquiryRequested
from broker.intermediate.provision import ProvisionRequested

S = TypeVar("S")
AT = "2026-11-21T09:30:00.000000+09:00"
LATER = "2026-11-21T09:31:00.000000+09:00"
UNTIL = "2026-11-21T10:30:00.000000+09:00"

ASKED = InquiryRequested(
    inquiry_id="i-1",
    request_ids=("q-1",),
    case_numbers=("",),
    repeats=("",),
    units=(2,),
    persons=("p1", "p2"),
    staff_id="s0001",
    terminal="t-1",
    office="子育て支援課",
    official_role="affair_officer",
    inquirer="990019",
    inquirer_name="連携市",
    provider="990027",
    provider_name="見本市",
    basis="19-8",
    law_version="v",
    law_row="81",
    affair="児童扶養手当の支給に関する事務",
    information="地方税関係情報",
    layout="income_tax_certificate/1",
    items=("fiscal_year", "total_income"),
    fiscal_year="2026",
    requested_at=AT,
    not_before="",
    non_disclosure=False,
    digests=("digest",),
    subjects=("n1", "n2"),
)
WANTED = ProvisionRequested(
    processing_number="x-1",
    inquiry_message="i-1",
    persons=("p1", "p2"),
    units=(2,),
    codes=("", ""),
    office="子育て支援課",
    official_role="affair_officer",
    inquirer="990019",
    inquirer_name="連携市",
    provider="990027",
    provider_name="見本市",
    basis="19-8",
    law_version="v",
    law_row="81",
    affair="児童扶養手当の支給に関する事務",
    information="地方税関係情報",
    layout="income_tax_certificate/1",
    items=("fiscal_year", "total_income"),
    requested_at=AT,
    valid_until=UNTIL,
    non_disclosure=False,
    subjects=("n1", "n2"),
    link_codes=("c1", "c2"),
    fiscal_years=("2026", "2026"),
)


def after(start: S, evolve: Callable[[S, Any], S], *happened: Any) -> S:
    """The state after these events."""
    for event in happened:
        start = evolve(start, event)
    return start
