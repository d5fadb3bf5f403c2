"""A day at the business door: everything is asked while processes are killed and started again."""

import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from random import Random
from typing import Any

import trio

from adapters.business.client import BusinessClient
from adapters.business.records import InquiryRecord
from adapters.http import Unreachable
from tests.crash.orders import Cities
from tests.ops.town import ANSWERER, ASKER, EVERYBODY, NETWORK, PATIENCE, Town

BATCH = 10
PACE = 0.25  # seconds at most between a batch and the next: about what a batch takes on its way and back
CLOSED = frozenset(("answered", "refused"))


@dataclass(frozen=True)
class Kill:
    """Who is killed, and when: some seconds after a batch begins."""

    victim: str
    batch: int
    delay: float


def kills(rng: Random, batches: int) -> list[Kill]:
    """At least one kill of each party to an inquiry, and a few more of anybody."""
    victims = [NETWORK, ASKER, ANSWERER, *rng.choices(EVERYBODY, (3, 1, 3, 3), k=rng.randint(1, 3))]
    return [Kill(victim, rng.randrange(batches), rng.uniform(0.0, PACE)) for victim in victims]


class NotYet(Exception):
    """What is waited for has not come about."""


async def insist(ask: Callable[[], Awaitable[Any]]) -> Any:
    """Ask until there is an answer, as a business system does whose connection broke."""
    while True:
        try:
            return await ask()
        except (Unreachable, NotYet):
            await trio.sleep(0.05)


async def send(door: BusinessClient, batch: Sequence[Any]) -> None:
    """Send a batch, with the same ids, until each of its records was taken or refused for good."""
    waiting = list(batch)

    async def once() -> None:
        verdicts = await door.send(waiting)
        waiting[:] = [r for r, (code, _) in zip(waiting, verdicts, strict=True) if code == "S-103"]
        if waiting:
            raise NotYet

    await insist(once)


def acquisition_numbers(town: Town) -> int:
    """How many are kept at this moment, at the network and in both cities."""
    total = 0
    for file in town.folder.rglob("staging.sqlite"):
        with closing(sqlite3.connect(file)) as rows:
            total += rows.execute("SELECT COUNT(*) FROM staged").fetchone()[0]
    return total


async def emptied(door: BusinessClient, queue: str) -> None:
    """Wait until nothing is left in a queue that the status names."""

    async def once() -> None:
        if (await door.status())[queue]:
            raise NotYet

    await insist(once)


async def business_day(town: Town, cities: Cities, orders: Sequence[InquiryRecord], rng: Random) -> str:
    """Newcomers registered, everything asked and closed while processes die; returns what stays open."""
    planned = kills(rng, len(orders) // BATCH)

    async def strike(kill: Kill) -> None:
        await trio.sleep(kill.delay)
        town.kill(kill.victim)
        town.start(kill.victim)

    async def forgotten() -> None:
        if acquisition_numbers(town):
            raise NotYet

    requests = [order.request_id for order in orders]
    found: list[Any] = []
    async with town.door(ASKER) as asker, town.door(ANSWERER) as answerer:
        with trio.move_on_after(PATIENCE):
            await insist(asker.status)
            await insist(answerer.status)
            arrived, known, incomes = cities.newcomers()
            async with trio.open_nursery() as nursery:
                for number, first in enumerate(range(0, len(orders), BATCH)):
                    for kill in planned:
                        if kill.batch == number:
                            nursery.start_soon(strike, kill)
                    if number == 0:
                        for door, records in ((asker, arrived), (answerer, known), (answerer, incomes)):
                            await send(door, records)
                    if first + BATCH >= len(orders):
                        await emptied(asker, "waiting_for_codes")
                        await emptied(answerer, "waiting_for_codes")
                    await send(asker, orders[first : first + BATCH])
                    await trio.sleep(rng.uniform(0.0, PACE))
            while not found or any(result.state not in CLOSED for result in found):
                found = await insist(lambda: asker.results(requests, 2.0))
            # Closed for the office; the provider may still lack the network's word on its last answers.
            await emptied(asker, "outbox")
            await emptied(answerer, "outbox")
            await insist(forgotten)
            return ""
    states = Counter(result.state for result in found)
    return f"after {PATIENCE:g} s: {dict(states)}, killed: {dict(town.killed)}\n{town.last_words()}"
