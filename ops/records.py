"""`renkei records`: provision records read, fetched by file, disclosed on paper, corrected."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from html import escape
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

from adapters.business.client import BusinessClient
from adapters.business.lists import write_errors
from adapters.business.output import replacing
from adapters.business.record_files import (
    read_corrections,
    read_people,
    write_corrections,
    write_records,
)
from adapters.business.records import ErrorLine
from adapters.http import Unreachable
from adapters.platform.provision_records import CorrectionOrder, Request
from adapters.platform.staffing import Caller
from adapters.portal.article23 import japanese_time, lines
from broker.intermediate.correction import ENTITLEMENT, IDENTITY, QUALITIES
from broker.intermediate.records import ProvisionRecord
from ops.business import at_door
from ops.config import AgencyConfig
from ops.logs import now
from ops.terminal import console, fail, progress_bar
from schemas.codes import integrated_number_valid
from schemas.errors import Refusal

BATCH = 100
"""Persons of one request for records."""
NEEDS_ANOTHER = "I-129"
T = TypeVar("T")


def _asked(config: AgencyConfig, work: Callable[[BusinessClient], Awaitable[T]]) -> T | Refusal:
    """What the door says; S-106 where it says nothing."""
    try:
        return at_door(config, work)
    except Unreachable as error:
        return Refusal("S-106", str(error))


def show(config: AgencyConfig, caller: Caller, resident: str, since: str, until: str) -> int:
    """Print the provision records of a person, item by item of article 23, each under its number."""
    if not integrated_number_valid(resident):
        return fail("A-102")
    found = _asked(config, lambda door: door.records(caller, [resident], since, until))
    if isinstance(found, Refusal):
        return fail(found.code, found.detail)
    (records,) = found
    console.print(f"情報提供等の記録 {len(records)} 件 (provision records)")
    for record in records:
        console.print(f"\n[{record.number}]", markup=False)
        for line in lines(record):
            console.print(
                f"  {line.reference_ja}  {line.label_ja}: {line.value}", markup=False, soft_wrap=True
            )
            console.print(f"      {line.reference_en}  {line.label_en}", markup=False, style="dim")
    return 0


def fetch(
    config: AgencyConfig, caller: Caller, file: Path, into: Path, span: tuple[str, str], *, provided: bool
) -> int:
    """Write the records of the persons in a file; with `provided` those alone that tell to whom we provided
    (R-140). Faults go to the error list beside `into`."""
    faults: list[ErrorLine] = []
    people: list[str] = []
    try:
        for line in read_people(file):
            if isinstance(line, ErrorLine):
                faults.append(line)
            else:
                people.append(line[1])
    except OSError as error:
        return fail("S-104", f"{file.name}: {error.strerror}")

    async def fetched(door: BusinessClient) -> list[tuple[str, ProvisionRecord]] | Refusal:
        found: list[tuple[str, ProvisionRecord]] = []
        with progress_bar() as progress:
            task = progress.add_task("記録の取得", total=len(people))
            rest = iter(dict.fromkeys(people))
            while part := list(islice(rest, BATCH)):
                answer = await door.records(caller, part, *span)
                if isinstance(answer, Refusal):
                    return answer
                found += [(n, r) for n, records in zip(part, answer, strict=True) for r in records]
                progress.advance(task, len(part))
        return found

    found = _asked(config, fetched)
    if isinstance(found, Refusal):
        return fail(found.code, found.detail)
    kept = [(n, r) for n, r in found if not provided or (r.side == "provider" and r.provided_at)]
    faults += write_records(into, kept)
    _errors(into, faults)
    console.print(f"記録 {len(kept)} 件 エラー {len(faults)} 件 (records / errors) → {into.name}")
    return 0


def _errors(into: Path, faults: Sequence[ErrorLine]) -> None:
    write_errors(into.with_name(f"{into.name}.errors.csv"), sorted(faults, key=attrgetter("line")))


def ask(config: AgencyConfig, caller: Caller, request: Request, into: Path | None) -> int:
    """What a person, or somebody for her, asks: a disclosure is written as a paper, all else is refused."""
    if not integrated_number_valid(request.integrated_number):
        return fail("A-102")
    found = _asked(config, lambda door: door.ask_about_records(caller, request))
    if isinstance(found, Refusal):
        return fail(found.code, found.detail)
    if into is not None:
        with replacing(into) as stream:
            stream.write(paper(config.name, request, found, now().isoformat()).encode())
        console.print(f"開示 {len(found)} 件 (records disclosed) → {into.name}", markup=False)
    return 0


def paper(agency: str, request: Request, records: Sequence[ProvisionRecord], at: str) -> str:
    """The disclosure as a page to be printed, Japanese first: each record item by item of article 23.

    Who asked stands there in words alone; neither names nor address numbers are on it.
    """
    quality, identity = QUALITIES[request.quality], IDENTITY[request.identity]
    shown = ENTITLEMENT.get(request.entitlement, ("", ""))[0]
    head = (
        ("開示する機関", "Agency", agency),
        ("開示の日時", "Time of disclosure", japanese_time(at)),
        ("請求した人", f"Asked by {quality[1]}", quality[0]),
        ("本人確認", "Identity checked by", "、".join(filter(None, (identity, shown)))),
        ("記録の件数", "Records", f"{len(records)} 件"),
    )
    parts = [_list((ja, en, value) for ja, en, value in head)]
    for record in records:
        parts.append(f'<h2>記録 {escape(record.number)} <span lang="en">Record</span></h2>')
        parts.append(
            _list(
                (
                    f"{line.label_ja}（{line.reference_ja}）",
                    f"{line.label_en} ({line.reference_en})",
                    line.value,
                )
                for line in lines(record)
            )
        )
    body = "\n".join(parts)
    return _PAPER.replace("{body}", body)


def _list(rows: Iterable[tuple[str, str, str]]) -> str:
    cells = "\n".join(
        f'<dt>{escape(ja)} <span lang="en">{escape(en)}</span></dt><dd>{escape(value)}</dd>'
        for ja, en, value in rows
    )
    return f"<dl>\n{cells}\n</dl>"


_PAPER = """<!DOCTYPE html>
<html lang="ja">
<head>
<meta charset="utf-8">
<title>情報提供等の記録の開示</title>
<style>
body { font-family: serif; line-height: 1.6; max-width: 44em; margin: 2em auto; padding: 0 1em; }
dt { font-weight: bold; margin-top: .5em; } dd { margin-left: 1.5em; }
span[lang=en] { font-weight: normal; font-size: .85em; color: #444; }
h2 { border-top: 1px solid; padding-top: .5em; break-after: avoid; }
</style>
</head>
<body>
<h1>情報提供等の記録の開示 <span lang="en">Disclosure of provision records</span></h1>
<p>番号法第23条の記録を、項目ごとに開示します。記録に誤りがあるときは、訂正を請求できます。利用停止は請求できません（番号法第31条）。
<span lang="en">The records under article 23 of the My Number Act, item by item. If something is wrong, a
correction can be asked for; a stop of use cannot (article 31).</span></p>
{body}
</body>
</html>
"""


def correct(config: AgencyConfig, caller: Caller, order: CorrectionOrder, act: str) -> int:
    """Correct a record, or confirm what another proposed; a proposal is no fault and says its number."""
    if not integrated_number_valid(order.integrated_number):
        return fail("A-102")
    refusal = _asked(config, lambda door: door.correct_record(caller, order, act))
    if refusal is None:
        console.print("訂正しました (corrected)")
        return 0
    return fail(refusal.code, refusal.detail)


def correct_file(config: AgencyConfig, caller: Caller, file: Path, into: Path) -> int:
    """The corrections of a file. Those that wait for a second person are written `into` a file of the same
    form, with their numbers, for that person to give in again; faults go to the error list beside it."""
    faults: list[ErrorLine] = []
    good: list[tuple[int, tuple[CorrectionOrder, str]]] = []
    try:
        for line in read_corrections(file):
            if isinstance(line, ErrorLine):
                faults.append(line)
            else:
                good.append(line)
    except OSError as error:
        return fail("S-104", f"{file.name}: {error.strerror}")
    waiting: list[tuple[CorrectionOrder, str]] = []

    async def corrected(door: BusinessClient) -> int:
        done = 0
        with progress_bar() as progress:
            task = progress.add_task("記録の訂正", total=len(good))
            for number, (order, act) in good:
                refusal = await door.correct_record(caller, order, act)
                if refusal is None:
                    done += 1
                elif refusal.code == NEEDS_ANOTHER:
                    waiting.append((order, refusal.detail))
                else:
                    item = "訂正後" if refusal.code in ("I-252", "I-253") else "記録番号"
                    faults.append(ErrorLine(number, item, refusal.code, ""))
                progress.advance(task)
        return done

    done = _asked(config, corrected)
    if isinstance(done, Refusal):
        return fail(done.code, done.detail)
    faults += write_corrections(into, waiting)
    _errors(into, faults)
    console.print(
        f"訂正 {done} 件 確認待ち {len(waiting)} 件 エラー {len(faults)} 件 "
        f"(corrected / to be confirmed / errors) → {into.name}"
    )
    return 0
