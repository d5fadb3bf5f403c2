"""The commands of a business system: load a file, ask from a file, show provision records."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import trio

from adapters.business.client import BusinessClient
from adapters.business.files import read_inquiries, read_residents, read_staff
from adapters.business.form import LINE
from adapters.business.income import read_income
from adapters.business.lists import write_errors, write_results
from adapters.business.records import ErrorLine, InquiryRecord, ResultRecord
from adapters.http import Client, Unreachable, client_context
from adapters.platform.asking import InquiryResult
from adapters.portal.article23 import lines
from ops.config import AgencyConfig, address
from ops.terminal import console, fail, progress_bar
from schemas.codes import integrated_number_valid

T = TypeVar("T")
BATCH = 200
READERS: dict[str, Callable[[Path], Iterator[Any]]] = {
    "residents": read_residents,
    "income": read_income,
    "staff": read_staff,
}
# The item at fault where the refusal of a record does not name one.
ITEMS = {"A-102": "団体内統合宛名番号", "A-103": "個人番号", "B-007": "団体内統合宛名番号"}
STATES = {
    "asked": "受付済",
    "waiting": "照会中",
    "answered": "回答済",
    "refused": "提供不可",
    "none": "未受付",
}


def client(config: AgencyConfig) -> BusinessClient:
    """The way to the daemon of this configuration."""
    context = client_context(
        Path(config.business_certificate), Path(config.business_key), Path(config.authority)
    )
    return BusinessClient(Client(*address(config.business), context))


def at_door(config: AgencyConfig, work: Callable[[BusinessClient], Awaitable[T]]) -> T:
    """Do something at the door of this configuration's daemon. Raises Unreachable."""

    async def opened() -> T:
        async with client(config) as door:
            return await work(door)

    return trio.run(opened)


def load(config: AgencyConfig, kind: str, file: Path, errors: Path) -> int:
    """Send the good records of a file to the daemon; the others and what it refuses go to the error list."""
    try:
        taken, faults = at_door(config, lambda door: _load(door, kind, file))
    except Unreachable as error:
        return fail("S-106", str(error))
    except OSError as error:
        return fail("S-104", f"{file.name}: {error.strerror}")
    write_errors(errors, sorted(faults, key=attrgetter("line")))
    console.print(
        f"登録 {taken} 件 エラー {len({f.line for f in faults})} 件 (accepted / errors) → {errors.name}"
    )
    return 0


async def _load(door: BusinessClient, kind: str, file: Path) -> tuple[int, list[ErrorLine]]:
    taken = 0
    faults: list[ErrorLine] = []
    with progress_bar() as progress:
        task = progress.add_task(f"一括登録 {kind}", total=_line_count(file))
        for batch in _batches(READERS[kind](file), faults):
            verdicts = await door.send([record for _, record in batch])
            for (line, _), (code, detail) in zip(batch, verdicts, strict=True):
                if code:
                    faults.append(ErrorLine(line, detail or ITEMS.get(code, LINE), code, ""))
                else:
                    taken += 1
            progress.advance(task, len(batch))
    return taken, faults


def _line_count(file: Path) -> int:
    with file.open("rb") as stream:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(1 << 20), b""))


def _batches(found: Iterator[Any], faults: list[ErrorLine]) -> Iterator[list[tuple[int, Any]]]:
    batch: list[tuple[int, Any]] = []
    for item in found:
        if isinstance(item, ErrorLine):
            faults.append(item)
            continue
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def inquire(config: AgencyConfig, file: Path, results: Path, errors: Path, patience: float) -> int:
    """Send the inquiries of a file, wait for what becomes of them, and write results and error list."""
    try:
        rows, faults, layouts = at_door(config, lambda door: _inquire(door, file, patience))
    except Unreachable as error:
        return fail("S-106", str(error))
    except OSError as error:
        return fail("S-104", f"{file.name}: {error.strerror}")
    write_errors(errors, sorted(faults, key=attrgetter("line")))
    unfit = write_results(results, layouts, rows)
    answered = sum(row.payload is not None for row in rows)
    wrong = len(faults) + len(unfit)
    console.print(
        f"照会 {len(rows)} 件 回答 {answered} 件 エラー {wrong} 件 (asked/answered/errors) → {results.name}"
    )
    return 0


async def _inquire(
    door: BusinessClient, file: Path, patience: float
) -> tuple[list[ResultRecord], list[ErrorLine], list[str]]:
    faults: list[ErrorLine] = []
    asked: dict[str, InquiryRecord] = {}
    with progress_bar() as progress:
        task = progress.add_task("照会登録", total=_line_count(file) - 1)
        for batch in _batches(read_inquiries(file), faults):
            verdicts = await door.send([record for _, record in batch])
            for (line, record), (code, detail) in zip(batch, verdicts, strict=True):
                if code in ("I-105", "B-008", "B-001", "S-103"):
                    # These were not recorded as inquiries of their own: they are in the error list.
                    faults.append(ErrorLine(line, detail or "照会ID", code, ""))
                if code not in ("B-008", "B-001", "S-103"):
                    asked.setdefault(record.request_id, record)
            progress.advance(task, len(batch))
        requests = list(asked)
        task = progress.add_task("回答待ち", total=len(requests))
        found = await _settled(door, requests, patience, lambda done: progress.update(task, completed=done))
    rows = [row for result in found for row in _rows(result, asked[result.request_id])]
    return rows, faults, sorted({record.layout for record in asked.values()})


async def _settled(
    door: BusinessClient, requests: Sequence[str], patience: float, show: Callable[[int], None]
) -> list[InquiryResult]:
    """Wait as long as there is progress; what stays open (held, say) is fetched another time."""
    before, since = -1, trio.current_time()
    while True:
        found = await door.results(requests, 0.5)
        closed = sum(result.state in ("answered", "refused") for result in found)
        show(closed)
        if closed != before:
            before, since = closed, trio.current_time()
        if closed == len(requests) or trio.current_time() - since > patience:
            return found


def _rows(result: InquiryResult, record: InquiryRecord) -> Iterator[ResultRecord]:
    for index, number in enumerate(record.subjects):
        row = ResultRecord(result.request_id, number, STATES[result.state], result.code)
        if result.state == "answered":
            code = result.codes[index]
            row = replace(
                row,
                code=code,
                state=STATES["refused"] if code else row.state,
                layout=record.layout,
                payload=None if code else result.payloads[index],
            )
        yield row


def show_records(config: AgencyConfig, resident: str) -> int:
    """Print the provision records of a person, item by item of article 23."""
    if not integrated_number_valid(resident):
        return fail("A-102")
    try:
        found = at_door(config, lambda door: door.records(resident))
    except Unreachable as error:
        return fail("S-106", str(error))
    console.print(f"情報提供等の記録 {len(found)} 件 (provision records)")
    for number, record in enumerate(found, 1):
        console.print(f"\n[{number}]", markup=False)
        for line in lines(record):
            console.print(
                f"  {line.reference_ja}  {line.label_ja}: {line.value}", markup=False, soft_wrap=True
            )
            console.print(f"      {line.reference_en}  {line.label_en}", markup=False, style="dim")
    return 0
