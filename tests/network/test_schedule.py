"""Sending schedules and pauses as arithmetic, with the lines and days of the study (domain/traffic.md)."""

from collections.abc import Sequence
from datetime import datetime, time, timedelta
from itertools import pairwise

import hypothesis.strategies as st
import pytest
import trio
import trio.testing
from hypothesis import given

from adapters.http import Client, Unreachable
from adapters.network import worker
from adapters.network.client import NetworkClient
from adapters.network.schedule import Backoff, Schedule, read_schedule
from broker.linkage.outgoing import MessageQueued
from schemas.messages import NetworkVerdict
from tests.house import ASKING, NO_CODE, START, House, Town, order

DAY = timedelta(hours=8)
LINES = {"A": 10_000, "B": 128, "C": 128, "D": 128}
"""Model access lines in kbps (R-202)."""
PEOPLE = {"A": 1_000_000, "B": 100_000, "C": 50_000, "D": 10_000}
NATION = 128_057_352
"""Inhabitants by the census of 2010, by which the study divides (derived)."""
NATIONAL_YEAR = 9_173_538_531
RANKS = {"A": 10_000_000, "B": 1_000_000, "C": 100_000, "D": 10_000, "E": 1_000}
"""Linkages of one kind a year in the nation (連携件数ランク, R-209)."""
YEAR = {"A": 71_636_172, "B": 7_163_617, "C": 3_581_809, "D": 716_362}
BULK_DAY = {"A": 4_685_401, "B": 468_540, "C": 234_270, "D": 46_854}
"""KB a year, and of a bulk day (R-204, R-206); one KB is 8 kbit and a working day 8 hours there."""
NORMAL = {"A": 165.82, "B": 16.58, "C": 8.29, "D": 1.66}
BUSY = {"A": 331.65, "B": 33.17, "C": 16.58, "D": 3.32}
AT_BULK = {"A": 1_301.50, "B": 130.15, "C": 65.07, "D": 13.02}


async def until(town: Town, request_id: str, wanted: str) -> None:
    """Wait for the state of a request."""
    ledger = town.platform.ledger
    with trio.fail_after(30):
        while (await town.result(request_id)).state != wanted:
            await ledger.wait_beyond(ledger.position, poll=0.05)


def drained(schedule: Schedule, kilobytes: int, size: int, begun: datetime) -> datetime:
    """When the last of so many KB has left, in messages of `size` KB."""
    now = free_at = begun
    for _ in range(-(-kilobytes // size)):
        now = schedule.leaves_at(free_at, now)
        free_at = schedule.free_at(size * 1_000, now)
    return free_at


@pytest.mark.req("R-204")
@pytest.mark.parametrize("city", LINES)
def test_a_mean_day_of_the_year_leaves_within_the_day(city: str) -> None:
    """The year is laid on 240 working days; what a city sends in it is by its share of the inhabitants."""
    assert NATIONAL_YEAR * PEOPLE[city] / NATION == pytest.approx(YEAR[city], abs=1)
    schedule = Schedule(bytes_per_second=LINES[city] * 1_000 // 8)
    took = drained(schedule, YEAR[city] // 240, 5, START) - START
    assert took < DAY / 15


@pytest.mark.req("R-209")
def test_each_rank_of_linkages_keeps_the_line_of_a_city_busy_a_tenth_as_long_as_the_one_above() -> None:
    """One kind of information about one person, 5 KB, sent and received, for 100,000 people."""
    schedule = Schedule(bytes_per_second=LINES["B"] * 1_000 // 8)
    once = (schedule.free_at(2 * 5_000, START) - START).total_seconds()
    busy = [a_year * PEOPLE["B"] / NATION / 240 * once for a_year in RANKS.values()]
    assert busy == pytest.approx([20.3, 2.03, 0.203, 0.0203, 0.00203], rel=0.01)


@pytest.mark.req("R-202", "R-203", "R-205")
def test_normal_and_busy_loads_stay_far_below_the_lines() -> None:
    for city, line in LINES.items():
        assert YEAR[city] * 8 / (960 * 3_600) == pytest.approx(NORMAL[city], abs=0.01)
        assert YEAR[city] * 8 / (480 * 3_600) == pytest.approx(BUSY[city], abs=0.01)
        assert BUSY[city] < line * 0.26


@pytest.mark.req("R-199", "R-200", "R-206")
@pytest.mark.parametrize("city", LINES)
def test_a_bulk_day_within_its_share_of_the_line_takes_as_long_as_the_study_says(city: str) -> None:
    """City B alone does not get its bulk day through an 8 hour day at full speed: it has to spread it."""
    schedule = Schedule(bytes_per_second=LINES[city] * 1_000 // 8)
    took = drained(schedule, BULK_DAY[city], 500, START) - START
    exact = timedelta(seconds=BULK_DAY[city] * 8 / LINES[city])
    assert abs(took - exact) < timedelta(minutes=1)
    assert (took > DAY) == (AT_BULK[city] > LINES[city]) == (city == "B")


@pytest.mark.req("R-200")
def test_what_does_not_fit_into_the_hours_of_bulk_goes_on_the_next_day() -> None:
    night = Schedule(bytes_per_second=16_000, opens=time(20), closes=time(4))
    evening = datetime.combine(START.date(), time(20), START.tzinfo)
    assert night.leaves_at(START, START) == evening
    assert night.leaves_at(START, evening + timedelta(hours=5)) == evening + timedelta(hours=5)
    assert night.leaves_at(evening + timedelta(hours=9), evening) == evening + timedelta(days=1)
    end = drained(night, BULK_DAY["B"], 500, START)
    assert evening + timedelta(days=1) < end < evening + timedelta(days=1, minutes=20)
    day = Schedule(opens=time(9), closes=time(17))
    assert day.leaves_at(START, START) == START
    assert day.leaves_at(START, evening) == datetime.combine(
        evening.date() + timedelta(days=1), time(9), evening.tzinfo
    )


@pytest.mark.req("R-200")
@given(st.integers(1, 10**6), st.lists(st.integers(1, 10**7), min_size=1, max_size=20))
def test_bulk_never_fills_more_than_its_share(rate: int, sizes: list[int]) -> None:
    schedule, now = Schedule(bytes_per_second=rate), START
    free_at = START
    for size in sizes:
        now = schedule.leaves_at(free_at, now)
        free_at = schedule.free_at(size, now)
    assert (free_at - START).total_seconds() >= sum(sizes) / rate - 1e-3


@pytest.mark.req("R-200")
def test_a_schedule_is_configured_as_hours_and_bytes() -> None:
    assert read_schedule(16_000, "20:00-06:30") == Schedule(16_000, time(20), time(6, 30))
    assert read_schedule(0, "") == Schedule()
    for rate, hours in ((-1, ""), (0, "20:00"), (0, "late-early"), (0, "20:00-25:00")):
        with pytest.raises(ValueError):  # noqa: PT011 # whatever is wrong with it
            read_schedule(rate, hours)


@pytest.mark.req("R-082", "R-200", "R-201")
async def test_bulk_waits_for_its_hours_and_single_inquiries_for_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "LOOK_AGAIN", 0.01)
    town = house.asking
    night = Schedule(opens=time(20), closes=time(6))
    running = worker.NetworkWorker(
        town.platform, town.client, house.keys.authority, lambda: town.linkage.signer, house.clock, night
    )
    file = [order(f"b-{number}", number % 3) for number in range(12)]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.run)
        assert await town.platform.inquire_many(file) == [None] * 12
        assert await town.platform.inquire(order("q-1", 0)) is None
        await until(town, "q-1", "waiting")
        assert (await town.result("b-0")).state == "asked", "it came first, and waits for the night"
        house.clock.advance(timedelta(hours=11))
        await until(town, "b-11", "waiting")
        nursery.cancel_scope.cancel()


def test_without_a_limit_bulk_leaves_at_once() -> None:
    assert Schedule().leaves_at(Schedule().free_at(10**9, START), START) == START


@pytest.mark.req("R-201")
@given(st.integers(1, 10_000), st.floats(0, 1))
def test_pauses_grow_up_to_a_ceiling_and_are_spread(failures: int, chance: float) -> None:
    backoff = Backoff(first=0.1, longest=30.0)
    pause = backoff.pause(failures, chance)
    assert 0.05 <= pause <= 30.0
    assert pause <= backoff.pause(failures + 1, chance)
    assert backoff.pause(failures, 0.0) * 2 == pytest.approx(backoff.pause(failures, 1.0))
    assert [backoff.pause(n, 1.0) for n in (1, 2, 3, 9, 10)] == [0.1, 0.2, 0.4, 25.6, 30.0]


@pytest.mark.req("R-201")
async def test_a_loop_pauses_longer_after_each_failure_and_begins_anew_after_a_success(
    autojump_clock: trio.testing.MockClock,
) -> None:
    tried: list[float] = []

    async def step() -> None:
        tried.append(round(trio.current_time(), 3))
        if len(tried) == 14:
            scope.cancel()
        if len(tried) not in (7, 8):
            raise Unreachable("nobody there")

    start = trio.current_time()
    with trio.CancelScope() as scope:
        await worker.persist("test", step, Backoff(first=0.1, longest=1.0), lambda: 1.0)
    pauses = [round(later - earlier, 3) for earlier, later in pairwise(tried)]
    assert tried[0] == round(start, 3)
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 0.0, 0.0, 0.1, 0.2, 0.4, 0.8, 1.0]


class Flaky(NetworkClient):
    """The line breaks three times: before a message arrives, and twice after it did, before the verdict."""

    def __init__(self, line: Client) -> None:
        super().__init__(line, line)
        self.sent: list[tuple[bytes, ...]] = []

    async def submit(self, messages: Sequence[MessageQueued]) -> list[NetworkVerdict]:
        self.sent.append(tuple(m.control + m.sealed + m.signature for m in messages))
        if len(self.sent) == 1:
            raise Unreachable("cut")
        verdicts = await super().submit(messages)
        if len(self.sent) < 4:
            raise Unreachable("cut")
        return verdicts


@pytest.mark.req("R-201")
async def test_without_a_verdict_the_same_bytes_are_sent_again_and_after_one_nothing_is(house: House) -> None:
    town = house.asking
    client = Flaky(house.line(ASKING.code, "network"))
    running = worker.NetworkWorker(
        town.platform, client, house.keys.authority, lambda: town.linkage.signer, house.clock
    )
    assert await town.platform.inquire(order("q-1", 0)) is None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.run)
        await until(town, "q-1", "waiting")
        assert await town.platform.inquire(order("q-2", NO_CODE)) is None
        await until(town, "q-2", "refused")
        nursery.cancel_scope.cancel()
    assert len(client.sent[0]) == 1
    assert client.sent[:4] == [client.sent[0]] * 4
    assert len(client.sent) == 5, "the refused one was sent once"
    exchanges = await house.core.follower.query("SELECT code FROM exchange ORDER BY code")
    assert exchanges == [("",), ("N-106",)]
