"""The commands for inquiries: ask from a file, read states and results, withdraw."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from pathlib import Path

import trio

from adapters.business.client import BusinessClient
from adapters.business.files import read_inquiries
from adapters.business.lists import write_errors, write_results
from adapters.business.records import ErrorLine, InquiryRecord, ResultRecord
from adapters.http import Unreachable
from adapters.platform.asking import InquiryResult
from adapters.platform.staffing import Caller
from ops.business import at_door, batches, line_count
from ops.config import AgencyConfig
from ops.terminal import console, fail, progress_bar
from schemas.items import layouts

TOGETHER = 25_000
"""Lines of a file in one submission: what goes to one provider becomes one envelope, or a few more."""
AT_ONCE = 1_000
STATES = {
    "deferred": "処理待ち",
    "asked": "受付済",
    "waiting": "照会中",
    "withdrawing": "取りやめ依頼中",
    "withdrawn": "取りやめ済",
    "expired": "期限切れ",
    "answered": "回答済",
    "partly": "一部回答済",
    "refused": "提供不可",
    "none": "未受付",
}


@dataclass(frozen=True)
class Chosen:
    """Which inquiries: those of a file of inquiries, of a case (事案番号), or one by its request id."""

    file: Path | None = None
    case: str = ""
    request: str = ""

    async def asked(self, door: BusinessClient) -> list[tuple[str, str]]:
        """Their request ids with their providers, where a file tells; its lines with a fault are left out.

        Raises OSError.
        """
        if self.file is not None:
            good = (line[1] for line in read_inquiries(self.file) if not isinstance(line, ErrorLine))
            return [(record.request_id, record.provider) for record in good]
        return [(request, "") for request in (await door.of_case(self.case) if self.case else [self.request])]

    async def ids(self, door: BusinessClient) -> list[str]:
        """Their request ids alone."""
        return [request for request, _ in await self.asked(door)]


def inquire(config: AgencyConfig, file: Path, results: Path, errors: Path, patience: float) -> int:
    """Send the inquiries of a file, wait for what becomes of them, and write results and error list."""
    faults: list[ErrorLine] = []

    async def work(door: BusinessClient) -> list[ResultRecord]:
        return await _inquire(door, file, patience, faults)

    return _reported(config, file, work, results, errors, faults)


def fetch(config: AgencyConfig, chosen: Chosen, results: Path) -> int:
    """Write what became of inquiries that were sent before (R-085)."""

    async def work(door: BusinessClient) -> list[ResultRecord]:
        found = await _results(door, await chosen.asked(door))
        return [row for result in found for row in _rows(result, result.subjects)]

    return _reported(config, chosen.file, work, results)


def _reported(
    config: AgencyConfig,
    file: Path | None,
    work: Callable[[BusinessClient], Awaitable[list[ResultRecord]]],
    results: Path,
    errors: Path | None = None,
    faults: Sequence[ErrorLine] = (),
) -> int:
    try:
        rows = at_door(config, work)
    except Unreachable as error:
        return fail("S-106", str(error))
    except OSError as error:
        return fail("S-104", f"{file.name if file is not None else ''}: {error.strerror}")
    if errors is not None:
        write_errors(errors, sorted(faults, key=attrgetter("line")))
    known = {layout.key for layout in layouts()}
    unfit = write_results(results, sorted(known & {row.layout for row in rows}), rows)
    answered = sum(row.payload is not None for row in rows)
    wrong = len(faults) + len(unfit)
    console.print(
        f"照会 {len(rows)} 件 回答 {answered} 件 エラー {wrong} 件 (asked/answered/errors) → {results.name}"
    )
    return 0


async def _inquire(
    door: BusinessClient, file: Path, patience: float, faults: list[ErrorLine]
) -> list[ResultRecord]:
    asked: dict[str, InquiryRecord] = {}
    with progress_bar() as progress:
        task = progress.add_task("照会登録", total=line_count(file) - 1)
        for batch in batches(read_inquiries(file), faults, TOGETHER):
            verdicts = await door.inquire([record for _, record in batch])
            for (line, record), (code, detail) in zip(batch, verdicts, strict=True):
                if _unrecorded(code):
                    faults.append(ErrorLine(line, detail or "照会ID", code, ""))
                if code == "I-105" or not _unrecorded(code):
                    asked.setdefault(record.request_id, record)
            progress.advance(task, len(batch))
        requests = list(asked)
        task = progress.add_task("回答待ち", total=len(requests))
        await _settled(door, requests, patience, lambda done: progress.update(task, completed=done))
        found = await _results(door, [(request, record.provider) for request, record in asked.items()])
    return [row for result in found for row in _rows(result, asked[result.request_id].subjects)]


def _unrecorded(code: str) -> bool:
    """Whether an order with this verdict left no inquiry of its own: then it is in the error list."""
    return code in ("I-105", "I-128") or code.startswith(("B-", "S-"))


async def _settled(
    door: BusinessClient, requests: Sequence[str], patience: float, show: Callable[[int], None]
) -> None:
    """Wait as long as there is progress; what stays open (held, say) is fetched another time."""
    before, since = -1, trio.current_time()
    while True:
        closed = len(requests) - await door.open_inquiries(requests, 0.5)
        show(closed)
        if closed != before:
            before, since = closed, trio.current_time()
        if closed == len(requests) or trio.current_time() - since > patience:
            return


async def _results(door: BusinessClient, asked: Sequence[tuple[str, str]]) -> list[InquiryResult]:
    """What became of these requests, in their order.

    They are fetched provider by provider: what goes to one is one inquiry, and opened as one every time.
    """
    near = [request for request, _ in sorted(dict(asked).items(), key=itemgetter(1))]
    parts = [near[start : start + AT_ONCE] for start in range(0, len(near), AT_ONCE)]
    found = {result.request_id: result for part in parts for result in await door.results(part, 0)}
    return [found[request] for request, _ in asked]


def _rows(result: InquiryResult, subjects: Sequence[str]) -> Iterator[ResultRecord]:
    """One line for each subject; one line too where nothing is known of an inquiry."""
    for index, number in enumerate(subjects or ("",)):
        code = result.codes[index] if result.codes else result.code
        state = STATES["refused"] if code and result.state == "answered" else STATES[result.state]
        if not result.payloads or code:
            yield ResultRecord(result.request_id, number, state, code, result.layout)
            continue
        omitted = result.omitted[index]
        state = STATES["partly"] if omitted else state
        payload = result.payloads[index]
        yield ResultRecord(result.request_id, number, state, "", result.layout, payload, omitted)


def show_states(config: AgencyConfig, chosen: Chosen) -> int:
    """Print where inquiries stand, one by one or those of a file (R-090)."""

    async def states(door: BusinessClient) -> list[tuple[str, str, str, str, str]]:
        ids = await chosen.ids(door)
        known = {each.request_id: each for each in await door.inquiry_status(ids)}
        return [
            (request, STATES[each.state], each.code, each.case_number, each.changed_at)
            if (each := known.get(request)) is not None
            else (request, STATES["none"], "", "", "")
            for request in dict.fromkeys(ids)
        ]

    try:
        found = at_door(config, states)
    except Unreachable as error:
        return fail("S-106", str(error))
    except OSError as error:
        return fail("S-104", f"{chosen.file.name if chosen.file is not None else ''}: {error.strerror}")
    console.print(f"照会 {len(found)} 件 (inquiries)")
    for cells in found:
        console.print("  ".join(cell for cell in cells if cell), markup=False, soft_wrap=True)
    return 0


def withdraw(config: AgencyConfig, chosen: Chosen, caller: Caller) -> int:
    """Withdraw inquiries (取りやめ) and print a verdict for each; 1 if one was not withdrawn."""

    async def work(door: BusinessClient) -> list[tuple[str, str]]:
        ids = await chosen.ids(door)
        verdicts = await door.withdraw(caller, ids)
        return [(request, code) for request, (code, _) in zip(ids, verdicts, strict=True)]

    try:
        found = at_door(config, work)
    except Unreachable as error:
        return fail("S-106", str(error))
    except OSError as error:
        return fail("S-104", f"{chosen.file.name if chosen.file is not None else ''}: {error.strerror}")
    refused = [(request, code) for request, code in found if code]
    console.print(f"取りやめ {len(found) - len(refused)} 件 エラー {len(refused)} 件 (withdrawn / errors)")
    for request, code in refused:
        fail(code, request)
    return 1 if refused else 0
