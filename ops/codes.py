"""The commands about link codes: requests on a medium, how far the acquisition is, retirement, and what other
agencies ask to be acquired (Order arts. 26(3), 27)."""

from collections.abc import Awaitable, Callable
from itertools import chain
from pathlib import Path
from socket import gethostname
from typing import Any

import trio

from adapters.business.client import BusinessClient
from adapters.business.lists import write_errors
from adapters.business.records import ErrorLine
from adapters.http import Client, Unreachable, client_context
from adapters.platform.staffing import Caller
from adapters.registry.medium import read_requests, read_verdicts, write_requests, write_verdicts
from adapters.registry.reference import RegistryServer
from ops.business import at_door
from ops.config import AgencyConfig, RegistryConfig, address
from ops.terminal import console, fail, progress_bar
from schemas import errors
from schemas.codes import integrated_number_valid
from schemas.errors import Refused

PAUSE = 0.5
PURPOSE = "符号取得の求め"


def request(config: AgencyConfig, file: Path) -> int:
    """Write the requests of everybody who waits for a code into a file for the registry."""

    async def written(door: BusinessClient) -> int:
        found: list[tuple[str, str]] = []
        after = -1
        while after:
            page, after = await door.codes("request", max(after, 0))
            found += [(number, individual) for number, individual in page]
        write_requests(file, config.code, found)
        console.print(f"符号取得依頼 {len(found)} 件 (requests) → {file.name}")
        return 0

    return _at(config, written)


def answer(config: RegistryConfig, agency: str, file: Path) -> int:
    """At the registry: tell the network, and put the verdicts in the place of the requests in the file."""

    async def answered() -> list[tuple[str, str]]:
        context = client_context(Path(config.tls_certificate), Path(config.tls_key), Path(config.authority))
        line = Client(*address(config.network), context)
        try:
            registry = RegistryServer.read(Path(config.register), line)
            verdicts: list[tuple[str, str]] = []
            for batch in batches:
                given = await registry.acquire(agency, batch)
                verdicts += [(number, code) for (number, _), code in zip(batch, given, strict=True)]
            return verdicts
        finally:
            await line.aclose()

    try:
        batches = list(read_requests(file, agency))  # all of it is right before any of it is passed on
        verdicts = trio.run(answered)
    except Refused as error:
        return fail(error.refusal.code, error.refusal.detail)
    except Unreachable as error:
        return fail("S-103", str(error))
    write_verdicts(file, agency, verdicts)
    refused_ones = sum(bool(code) for _, code in verdicts)
    console.print(
        f"符号取得依頼 {len(verdicts)} 件 不可 {refused_ones} 件 (requests / refused) → {file.name}"
    )
    return 0


def settle(config: AgencyConfig, file: Path) -> int:
    """Take the registry's verdicts from the file that came back, and remove it: its numbers have served."""

    async def settled(door: BusinessClient) -> int:
        for batch in batches:
            await door.codes("settle", batch)
        return 0

    try:
        batches = list(read_verdicts(file, config.code))
    except Refused as error:
        return fail(error.refusal.code, error.refusal.detail)
    status = _at(config, settled)
    if status == 0:
        file.unlink()
        taken = sum(map(len, batches))
        console.print(f"結果 {taken} 件を取り込み、ファイルを削除しました (taken in, removed)")
    return status


def progress(config: AgencyConfig, patience: float, list_file: Path | None) -> int:
    """Wait as long as codes come in, then say how many have one and list who was refused one."""

    async def shown(door: BusinessClient) -> int:
        found = await _waited(door, patience)
        refused = sum(found["refused"].values())
        console.print(
            f"符号 取得 {found['acquired']} 件 不可 {refused} 件 待ち {found['waiting']} 件 "
            "(acquired / refused / waiting)"
        )
        for code, number in sorted(found["refused"].items()):
            console.print(f"  {code}: {number} 件 {errors.entry(code).cause_ja}")
        if list_file is not None:
            write_errors(list_file, await _refused(door))
        return 0

    return _at(config, shown)


async def _waited(door: BusinessClient, patience: float) -> dict[str, Any]:
    found: dict[str, Any] = await door.codes("progress", None)
    before, since = found["waiting"], trio.current_time()
    with progress_bar() as bar:
        total = found["waiting"] + found["acquired"] + sum(found["refused"].values())
        task = bar.add_task("符号の取得", total=total, completed=total - found["waiting"])
        while found["waiting"] and trio.current_time() - since < patience:
            await trio.sleep(PAUSE)
            found = await door.codes("progress", None)
            if found["waiting"] != before:
                before, since = found["waiting"], trio.current_time()
            bar.update(task, completed=total - found["waiting"])
    return found


async def _refused(door: BusinessClient) -> list[ErrorLine]:
    """One line for each person without a code; the item is the integrated address number."""
    pages = []
    after = -1
    while after:
        page, after = await door.codes("refused", max(after, 0))
        pages.append(page)
    return [ErrorLine(n, number, code, "") for n, (number, code) in enumerate(chain.from_iterable(pages), 1)]


def retire(config: AgencyConfig, resident: str, reason: str) -> int:
    """Retire the link code of a person who died, moved or is to be erased."""
    if not integrated_number_valid(resident):
        return fail("A-102")
    values = {"integrated_number": resident, "reason": reason}
    return _at(config, lambda door: _said(door, "retire", values, "符号を失効させました (retired)"))


def ask(config: AgencyConfig, request_id: str, by: str) -> int:
    """Ask the provider of an inquiry to acquire the codes that it lacks (N-106)."""
    values = {"request_id": request_id, "caller": _caller(by)}
    return _at(config, lambda door: _said(door, "ask", values, "提供側に符号の取得を求めました (asked)"))


def asked(config: AgencyConfig, by: str) -> int:
    """Show the persons whom other agencies named and an officer has to find."""

    async def shown(door: BusinessClient) -> int:
        code, found = await door.codes("asked", {"caller": _caller(by)})
        if code:
            return fail(code)
        console.print(f"符号取得の求め 確認待ち {len(found)} 件 (to be looked at)")
        for each in found:
            head = f"\n[{each['processing_number']} {each['place']}] {each['inquirer']} {each['received_at']}"
            console.print(head, markup=False)
            console.print(f"  {each['code']} {errors.entry(each['code']).cause_ja}", markup=False)
            console.print("  " + " ".join(each["items"].values()), markup=False)
        return 0

    return _at(config, shown)


def decide(config: AgencyConfig, processing_number: str, place: int, resident: str, by: str) -> int:
    """Say who a person on that list is; with "", that there is no such person here."""
    values = {
        "processing_number": processing_number,
        "place": place,
        "integrated_number": resident,
        "caller": _caller(by),
    }
    return _at(config, lambda door: _said(door, "decide", values, "記録しました (recorded)"))


def _caller(by: str) -> dict[str, str]:
    return vars(Caller(by, gethostname(), PURPOSE))


async def _said(door: BusinessClient, call: str, values: dict[str, Any], done: str) -> int:
    code = await door.codes(call, values)
    if code:
        return fail(code)
    console.print(done)
    return 0


def _at(config: AgencyConfig, work: Callable[[BusinessClient], Awaitable[int]]) -> int:
    try:
        return at_door(config, work)
    except Unreachable as error:
        return fail("S-106", str(error))
