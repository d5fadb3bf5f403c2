"""The network dies in the middle of a bulk run and comes back: `python -m tests.stories.network_outage`.

連携市 asks other cities from a file, by real processes over mutual TLS, when the network is killed (SIGKILL).
The agencies go on from the configuration that they have in memory: orders are accepted, checked and queued.
Once validity and grace of the configuration are over they fail closed. When the network is back they catch up
by themselves, and the records of all sides agree.
"""

import sys
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from adapters.business.client import BusinessClient
from adapters.business.records import InquiryRecord
from adapters.platform.asking import InquiryResult
from ops.business import at_door
from ops.config import AgencyConfig, read, write
from ops.logs import now
from tests.ops.town import NETWORK, PATIENCE, Town
from tests.stories.bulk_file import said
from tests.stories.six_cities import ASKING, KINDS, SINGLE, Cities, Plan, at_work, prepare

VALID, GRACE = 4, 6  # seconds: enough for agencies that are short of processor time, short enough to wait for
DAY = 24 * 3600
PACE = 1.0  # seconds at least between one bulk message and the next
BEFORE, AFTER = "before", "after"
AT_ONCE = 1_000
Note = Callable[[str], None]


def told(folder: Path, plan: Plan, back: str, note: Note) -> Iterator[str]:
    """The story with the network back BEFORE the end of the grace, or AFTER it; times go to `note`."""
    began = time.monotonic()
    grace = DAY if back == BEFORE else GRACE
    cities = prepare(folder, plan, configuration_seconds=VALID, grace_seconds=grace)
    _slow_line(folder, plan)
    with at_work(folder, cities) as town:
        note(f"準備 {time.monotonic() - began:.1f} 秒")
        began = time.monotonic()
        yield from _told(town, cities, back)
        note(f"経過 {time.monotonic() - began:.1f} 秒")
    yield "■ すべての台帳の照合と検証 (reconciliation and verification of all ledgers)"
    yield f"   {said('records', 'reconcile', '--settle', 0, folder).strip()}"
    verified = Counter(line.split()[0] for line in said("audit", "verify", folder).splitlines())
    yield f"   台帳の検証: {dict(verified)}"


def _told(town: Town, cities: Cities, back: str) -> Iterator[str]:
    orders = cities.orders()
    half = len(orders) // 2
    yield "■ 一括照会の途中でネットワークが SIGKILL で止まる (killed in the middle of a bulk run)"
    yield _ordered(town, orders[:half])
    town.until(ASKING[0], lambda status: status["outbox"] < len(cities.plan.providers))
    town.kill(NETWORK)

    yield "■ 手元の構成情報で続ける (agencies go on from the configuration in memory)"
    yield _ordered(town, orders[half:])
    status = town.until(ASKING[0], lambda status: True)
    yield f"   構成情報は有効 (still configured): {_configured(status)}"
    yield f"   まだ送られていない照会がある (some wait to be sent): {status['outbox'] > 0}"
    refused: list[InquiryRecord] = []
    if back == AFTER:
        yield "■ 有効期間と猶予が過ぎると止まる (fail closed after validity and grace)"
        town.until(ASKING[0], lambda status: not _configured(status))
        refused = [
            replace(order, request_id=f"late-{n}")
            for n, order in enumerate(o for o in orders if o.request_id.startswith(SINGLE.prefix))
        ][: len(orders) // 10]
        yield _ordered(town, refused)
        waiting = town.until(ASKING[0], lambda status: True)["outbox"]
        yield f"   送らずに保管されている照会がある (what was queued before is kept): {waiting > 0}"

    yield "■ ネットワークが戻ると、ひとりでに追いつく (they catch up by themselves)"
    town.start(NETWORK)
    if refused:
        town.until(ASKING[0], _configured)
        again = [replace(o, request_id=f"again-{o.request_id}", repeats=o.request_id) for o in refused]
        yield _ordered(town, again)
        refused += again
    held = cities.plan.each(KINDS[-1]) * len(cities.plan.providers)
    ids = list(dict.fromkeys(order.request_id for order in [*orders, *refused]))
    _settled(town, ids, held)
    for code, _ in (ASKING, *cities.plan.providers):
        town.until(code, lambda status: status["outbox"] == 0)

    yield "■ 行ごとの結果 (a verdict for each line)"
    found: Counter[tuple[str, str, str]] = Counter()
    for result in at_door(_asking(town), lambda door: _results(door, ids)):
        code = next(filter(None, (result.code, *result.codes)), "")
        found[result.request_id.rpartition("-")[0].partition("-99")[0], result.state, code] += 1
    for (prefix, state, code), count in sorted(found.items()):
        yield f"   {prefix}: {count} 件 {state} {code}".rstrip()


def _slow_line(folder: Path, plan: Plan) -> None:
    """The asking city sends one bulk message every PACE seconds: so the network dies in the middle."""
    file = folder / f"{ASKING[0]}.toml"
    size = 40 * plan.lines // len(plan.providers)  # bytes of a message, at least
    write(replace(read(AgencyConfig, file), bulk_bytes_per_second=int(size / PACE)), file)


def _ordered(town: Town, orders: Sequence[InquiryRecord]) -> str:
    """Order as from one file, and say what the door said."""
    verdicts = at_door(_asking(town), lambda door: door.inquire(orders))
    refused = Counter(code for code, _ in verdicts if code)
    return (
        f"   照会 {len(orders)} 件: 受付 {len(orders) - refused.total()} 件 {dict(sorted(refused.items()))}"
    )


def _asking(town: Town) -> AgencyConfig:
    return read(AgencyConfig, town.config(ASKING[0]))


def _configured(status: dict[str, Any]) -> bool:
    return now() < datetime.fromisoformat(status["configured_until"])


def _settled(town: Town, ids: Sequence[str], held: int) -> None:
    """Wait until nobody is open but those who are held."""
    deadline = time.monotonic() + PATIENCE
    while at_door(_asking(town), lambda door: door.open_inquiries(ids, 0.2)) > held:
        assert time.monotonic() < deadline, town.last_words()


async def _results(door: BusinessClient, ids: Sequence[str]) -> list[InquiryResult]:
    parts = [ids[start : start + AT_ONCE] for start in range(0, len(ids), AT_ONCE)]
    return [result for part in parts for result in await door.results(part, 0)]


def run() -> None:
    parser = ArgumentParser(description="the network dies in the middle of a bulk run and comes back")
    parser.add_argument("--lines", type=int, default=5_000)
    parser.add_argument("--back", choices=(BEFORE, AFTER), default=AFTER, help="the end of the grace")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        for line in told(
            Path(folder), Plan(options.lines), options.back, lambda text: print(text, file=sys.stderr)
        ):
            print(line, flush=True)  # what this is for


if __name__ == "__main__":
    run()
