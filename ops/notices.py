"""The commands about notices: what became of them, an office's inbox, acknowledging, withdrawing."""

from collections.abc import Iterator
from pathlib import Path

from adapters.business.lists import write_errors, write_results
from adapters.business.notices import STATES, read_ids, write_inbox, write_resident_results
from adapters.business.notices import write_results as write_notice_results
from adapters.business.records import ErrorLine, ResultRecord
from adapters.http import Unreachable
from adapters.platform.notices import Acknowledgement, InboxNotice
from adapters.platform.resident_notices import Cancellation
from adapters.platform.staffing import Caller
from ops.business import at_door
from ops.config import AgencyConfig
from ops.terminal import console, fail
from schemas.errors import Refusal


def show(config: AgencyConfig, notice_id: str) -> int:
    """Print what became of one notice to a resident."""
    try:
        (found,) = at_door(config, lambda door: door.resident_notices([notice_id]))
    except Unreachable as error:
        return fail("S-106", str(error))
    if found.state == "none":
        return fail("I-242", notice_id)
    for label, value in (
        ("状態 (state)", STATES[found.state]),
        ("登録 (published)", found.published_at),
        ("有効終了日 (last day)", found.valid_until),
        ("開封 (opened)", found.opened_at),
        ("返答 (reply)", " ".join(part for part in (found.replied_at, found.choice, found.text) if part)),
        ("取消 (withdrawn)", found.cancelled_at),
    ):
        console.print(f"{label}: {value or '-'}", markup=False, soft_wrap=True)
    return 0


def results(config: AgencyConfig, file: Path, into: Path, whose: str) -> int:
    """What became of the notices of a file, as a file: to residents ("results") or agencies ("sent")."""
    column = "お知らせID" if whose == "results" else "連絡ID"
    try:
        read = list(read_ids(file, column))
        ids = [line[1] for line in read if not isinstance(line, ErrorLine)]
        if whose == "results":
            unfit = write_resident_results(into, at_door(config, lambda door: door.resident_notices(ids)))
        else:
            unfit = write_notice_results(into, at_door(config, lambda door: door.notices(ids)))
    except Unreachable as error:
        return fail("S-106", str(error))
    except OSError as error:
        return fail("S-104", f"{file.name}: {error.strerror}")
    faults = [line for line in read if isinstance(line, ErrorLine)]
    write_errors(into.with_name(into.name + ".errors.csv"), faults)
    console.print(f"状況 {len(ids)} 件 エラー {len(faults) + len(unfit)} 件 (found / errors) → {into.name}")
    return 0


def inbox(config: AgencyConfig, caller: Caller, office: str, into: Path, persons: Path | None) -> int:
    """Write what lies in the inbox of an office and, where wanted, what it says about persons."""
    try:
        found = at_door(config, lambda door: door.inbox(caller, office))
    except Unreachable as error:
        return fail("S-106", str(error))
    if isinstance(found, Refusal):
        return fail(found.code)
    unfit = write_inbox(into, found)
    if persons is not None:
        layouts = sorted({each.layout for each in found if each.subjects})
        unfit += write_results(persons, layouts, (row for each in found for row in _rows(each)))
    console.print(f"受信箱 {len(found)} 件 エラー {len(unfit)} 件 (notices / errors) → {into.name}")
    return 0


def _rows(found: InboxNotice) -> Iterator[ResultRecord]:
    number = f"{found.sender}/{found.notice}"
    for person, code, payload in zip(found.subjects, found.codes, found.payloads, strict=True):
        state = STATES["refused"] if code else STATES[found.state]
        yield ResultRecord(number, person, state, code, found.layout, None if code else payload)


def acknowledge(config: AgencyConfig, number: str, staff_id: str) -> int:
    """An officer has read the notice of this number (sender/notice)."""
    sender, _, notice = number.partition("/")
    return _done(config, Acknowledgement(sender, notice, staff_id))


def cancel(config: AgencyConfig, notice_id: str, staff_id: str, reason: str) -> int:
    """Withdraw one notice to a resident."""
    return _done(config, Cancellation(notice_id, staff_id, reason))


def _done(config: AgencyConfig, order: Acknowledgement | Cancellation) -> int:
    try:
        ((code, detail),) = at_door(config, lambda door: door.send([order]))
    except Unreachable as error:
        return fail("S-106", str(error))
    return fail(code, detail) if code else 0
