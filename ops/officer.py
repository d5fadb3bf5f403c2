"""The officer's commands: holds that stand, what waits for a decision, and decisions (renkei holds, held)."""

from collections.abc import Sequence
from pathlib import Path

from adapters.business.holds import write_holds
from adapters.http import Unreachable
from adapters.platform.holdings import HoldOrder
from adapters.platform.officer import DecisionOrder, InquiryContent, Waiting
from adapters.platform.staffing import Caller
from ops.business import at_door
from ops.config import AgencyConfig
from ops.terminal import console, fail
from schemas.errors import Refusal, entry
from schemas.items import layout
from schemas.law.approval import hold_reasons
from schemas.law.roles import roles

MODES = {
    "automatic": "自動 (automatic)",
    "afterwards": "事後に確認 (afterwards)",
    "together": "まとめて可 (together)",
    "one_by_one": "一件ずつ (one by one)",
    "four_eyes": "二人で確認 (four eyes)",
}


def show_holds(config: AgencyConfig, into: Path | None) -> int:
    """Print every hold that stands, or write them as the file that `load holds` reads."""
    try:
        found = at_door(config, lambda door: door.holds())
        if into is not None:
            write_holds(into, found)
    except Unreachable as error:
        return fail("S-106", str(error))
    except OSError as error:
        return fail("S-104", f"{into}: {error.strerror}")
    console.print(f"自動応答不可 {len(found)} 件 (holds)")
    for each in () if into is not None else found:
        what = (each.integrated_number, each.layout, each.fiscal_year, each.law_row, each.item, each.value)
        days = f"{each.starts or '…'}～{each.ends or '…'}"
        _line(hold_reasons()[each.reason], days, *what)
    return 0


def hold(config: AgencyConfig, caller: Caller, order: HoldOrder, act: str) -> int:
    """Set or release one hold."""
    try:
        code, detail = at_door(config, lambda door: door.hold(caller, order, act))
    except Unreachable as error:
        return fail("S-106", str(error))
    if code:
        return fail(code, detail)
    console.print("設定しました (set)" if order.wanted else "解除しました (released)")
    return 0


def show_waiting(config: AgencyConfig, caller: Caller) -> int:
    """List what waits for this officer."""
    try:
        found = at_door(config, lambda door: door.held(caller))
    except Unreachable as error:
        return fail("S-106", str(error))
    if isinstance(found, Refusal):
        return fail(found.code, found.detail)
    console.print(f"判断待ち {len(found)} 件 (waiting)")
    for each in found:
        _waiting(each)
    return 0


def show_content(config: AgencyConfig, caller: Caller, number: str) -> int:
    """Show what was asked, about whom, and what would be sent (R-108)."""
    try:
        found = at_door(config, lambda door: door.held_content(caller, number))
    except Unreachable as error:
        return fail("S-106", str(error))
    if isinstance(found, Refusal):
        return fail(found.code, found.detail)
    _waiting(found.waiting)
    role = roles().get(found.official_role)
    _line("照会者 (inquirer)", found.inquirer, found.waiting.inquirer_name, found.waiting.office)
    _line("職責 (role)", role.name_ja if role is not None else found.official_role)
    _line("根拠 (basis)", found.basis, found.waiting.law_row, found.affair)
    _line("項目 (items)", found.layout, *(_name(found, item) for item in found.items))
    for person in found.persons:
        reasons = [hold_reasons().get(reason, reason) for reason in person.reasons]
        console.print()
        _line("対象者 (person)", person.integrated_number, person.fiscal_year, *reasons)
        if person.code:
            _line("  ", person.code, entry(person.code).cause_ja)
        for item, value in person.payload.items():
            _line(f"  {_name(found, item)}", str(value))
        if person.omitted:
            _line("  提供しない項目 (omitted)", *(_name(found, item) for item in person.omitted))
    if found.waiting.proposed:
        withheld = (*found.withheld_persons, *(_name(found, item) for item in found.withheld_items))
        _line("起案済み、提供しないもの (proposed, withheld)", *(withheld or ("なし",)))
    return 0


def decide(config: AgencyConfig, caller: Caller, orders: Sequence[DecisionOrder]) -> int:
    """Carry out decisions; what became of each. Exit 1 if one was not."""
    try:
        found = at_door(config, lambda door: door.decide(caller, orders))
    except Unreachable as error:
        return fail("S-106", str(error))
    for order, (code, _) in zip(orders, found, strict=True):
        _line(order.processing_number, code, entry(code).cause_ja if code else "実施しました (done)")
    return int(any(code not in ("", "I-237") for code, _ in found))


def _name(content: InquiryContent, item: str) -> str:
    return layout(content.layout).item(item).name_ja


def _waiting(each: Waiting) -> None:
    state = "起案済み (proposed)" if each.proposed else MODES[each.mode]
    about = (each.inquirer_name, each.office, each.law_row, each.information, f"{each.persons}名")
    _line(each.processing_number, each.requested_at[:16], *about, state, each.valid_until[:16])


def _line(*cells: str) -> None:
    console.print("  ".join(cell for cell in cells if cell), markup=False, soft_wrap=True)
