"""The commands of a business system: load a file, show provision records, staff and its log."""

from collections.abc import Awaitable, Callable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import trio

from adapters.business.client import BusinessClient
from adapters.business.files import (
    read_offices,
    read_residents,
    read_revocations,
    read_staff,
)
from adapters.business.form import LINE
from adapters.business.holds import read_holds, read_non_disclosures, read_publications
from adapters.business.income import read_income
from adapters.business.lists import write_errors
from adapters.business.notices import read_cancellations, read_notices, read_resident_notices
from adapters.business.records import ErrorLine
from adapters.http import Client, Unreachable, client_context
from adapters.platform.staffing import Caller, Search
from ops.config import AgencyConfig, address
from ops.terminal import console, fail, progress_bar
from schemas.codes import integrated_number_valid
from schemas.errors import Refusal
from schemas.law.roles import operation_words, roles

T = TypeVar("T")
BATCH = 200
READERS: dict[str, Callable[[Path], Iterator[Any]]] = {
    "residents": read_residents,
    "income": read_income,
    "staff": read_staff,
    "revocations": read_revocations,
    "offices": read_offices,
    "holds": read_holds,
    "non-disclosure": read_non_disclosures,
    "publications": read_publications,
    "notices": read_resident_notices,
    "cancellations": read_cancellations,
    "agency-notices": read_notices,
}
# The item at fault where the refusal of a record does not name one.
ITEMS = {"A-102": "団体内統合宛名番号", "A-103": "個人番号", "B-007": "団体内統合宛名番号"}


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
        task = progress.add_task(f"一括登録 {kind}", total=line_count(file))
        for batch in batches(READERS[kind](file), faults):
            verdicts = await door.send([record for _, record in batch])
            for (line, _), (code, detail) in zip(batch, verdicts, strict=True):
                if code:
                    faults.append(ErrorLine(line, detail or ITEMS.get(code, LINE), code, ""))
                else:
                    taken += 1
            progress.advance(task, len(batch))
    return taken, faults


def line_count(file: Path) -> int:
    """Lines of a file, for showing progress. Raises OSError."""
    with file.open("rb") as stream:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(1 << 20), b""))


def batches(
    found: Iterator[Any], faults: list[ErrorLine], size: int = BATCH
) -> Iterator[list[tuple[int, Any]]]:
    """The good records of a file with their lines, so many at a time; the faults go to `faults`."""
    batch: list[tuple[int, Any]] = []
    for item in found:
        if isinstance(item, ErrorLine):
            faults.append(item)
            continue
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def sign(config: AgencyConfig, caller: Caller, direction: str) -> int:
    """Tell the daemon that a member of staff signed "in" or "out" at this terminal."""
    try:
        code = at_door(config, lambda door: door.sign(caller, direction))
    except Unreachable as error:
        return fail("S-106", str(error))
    return fail(code) if code else 0


def show_operations(config: AgencyConfig, caller: Caller, search: Search, act: str, *, confirm: bool) -> int:
    """Print the intermediate log, the latest entry first, or let a second person agree to a reading."""
    if search.integrated_number and not integrated_number_valid(search.integrated_number):
        return fail("A-102")
    try:
        found = at_door(config, lambda door: door.operations(caller, search, act, confirm=confirm))
    except Unreachable as error:
        return fail("S-106", str(error))
    if isinstance(found, Refusal):
        return fail(found.code, found.detail)
    if confirm:
        console.print("確認しました (confirmed)")
        return 0
    console.print(f"中間ログ {len(found)} 件 (intermediate log)")
    words, offices = operation_words(), roles()
    for each in found:
        known, role = words.get(each.operation), offices.get(each.official_role)
        who = " ".join((each.staff_id, each.office, role.name_ja if role is not None else "")).strip()
        cells = (each.at, each.log, known.name_ja if known is not None else each.operation, who)
        about = (" ".join(each.subjects), each.target, each.purpose, each.terminal)
        console.print("  ".join(cell for cell in (*cells, *about) if cell), markup=False, soft_wrap=True)
    return 0
