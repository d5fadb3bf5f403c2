"""What people do over the days, and what goes wrong meanwhile; all of it drawn by the run's generator.

A business system sends a record again until it was acknowledged. What it was told is kept: the checks hold
the ledgers to it.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any

import trio

from adapters.business.income import LAYOUT
from adapters.business.records import (
    InquiryRecord,
    OfficeRecord,
    ReplicaRecord,
    ResidentRecord,
    StaffRecord,
)
from adapters.http import Unreachable
from adapters.platform.holdings import HoldOrder
from adapters.platform.notices import NoticeOrder
from adapters.platform.officer import DecisionOrder
from adapters.platform.staffing import Caller
from ops.simulate.world import INFORMATION, NETWORK_NAME, REGISTRY_NAME, ROWS, START, World
from ops.synthetic import income_of, residents_of
from schemas.errors import Refusal
from schemas.law import Agency, tables, wordings
from schemas.law.approval import hold_reasons

OFFICE, OFFICER, MANAGER, STRANGER = "子育て支援課", "s0001", "s0002", "s0009"
YEARS = ("2025", "2026")
NOT_TAKEN = frozenset(("S-102", "S-103", "S-107", "S-109"))
"""Verdicts that say: not now. The record is sent again."""
PATIENCE = 120.0  # seconds before it is, at most


@dataclass(frozen=True)
class Order:
    """An order as the plan has it; `people` are places in the furniture."""

    agency: str
    kind: str
    record: InquiryRecord
    people: tuple[int, ...]


class Truth:
    """What happened outside of all ledgers."""

    def __init__(self) -> None:
        self.orders: dict[tuple[str, str], Order] = {}  # by agency and request id
        self.verdicts: dict[tuple[str, str], str] = {}  # what the sender was told at last
        self.residents: set[tuple[str, int]] = set()  # acknowledged
        self.payloads: dict[tuple[str, int, str], list[dict[str, Any]]] = defaultdict(list)  # ever sent
        self.replicas: set[tuple[str, int, str]] = set()  # acknowledged

    def copy(self) -> "Truth":
        """The same, to go on from in another run."""
        other = Truth()
        other.residents |= self.residents
        other.replicas |= self.replicas
        for key, payloads in self.payloads.items():
            other.payloads[key] += payloads
        return other


class Town:
    """The people of one agency, at its business system and its terminals."""

    def __init__(self, world: World, truth: Truth, agency: Agency) -> None:
        self._world = world
        self._truth = truth
        self._clockwork = world.clockwork
        self.agency = agency
        self._client = world.business(agency.code)

    async def insist(
        self, ask: Callable[[Sequence[Any]], Awaitable[Sequence[str]]], records: Sequence[Any]
    ) -> list[str]:
        """Ask until every record was taken or refused for good; the codes that were told."""
        told: dict[int, str] = {}
        while len(told) < len(records):
            left = [place for place in range(len(records)) if place not in told]
            try:
                codes = await ask([records[place] for place in left])
            except Unreachable:
                codes = ()
            told |= {p: code for p, code in zip(left, codes, strict=False) if code not in NOT_TAKEN}
            if len(told) < len(records):
                await trio.sleep(self._clockwork.rng.uniform(1, PATIENCE))
        return [told[place] for place in range(len(records))]

    async def _send(self, records: Sequence[Any]) -> list[str]:
        return [code for code, _ in await self._client.send(records)]

    async def send(self, what: str, records: Sequence[Any]) -> list[str]:
        """Records of one kind through the door for business systems."""
        codes = await self.insist(self._send, records)
        self._clockwork.note(self.agency.code, what, *codes)
        return codes

    def number(self, person: int) -> str:
        return self._world.furniture.numbers[self.agency.code][person]

    def resident(self, person: int) -> ResidentRecord:
        people = self._world.furniture.people[person : person + 1]
        found = residents_of(people, self.agency.code, self.agency.name, 1)[0]
        return replace(found, integrated_number=self.number(person), protected=False)

    async def register(self, people: Sequence[int]) -> None:
        codes = await self.send("registers", [self.resident(person) for person in people])
        self._truth.residents |= {
            (self.agency.code, person) for person, code in zip(people, codes, strict=True) if not code
        }

    async def replicate(self, people: Sequence[int], year: str, version: int) -> None:
        """Records for the reference database; their amounts are found with nobody else."""
        code = self.agency.code
        records = []
        for person in people:
            record = income_of([self.resident(person)], year, person)[0]
            mark = f"{int(code) % 10_000}{person:03d}{version}"
            payload = {**record.payload, "total_income": mark, "annual_tax": mark}
            self._truth.payloads[code, person, year].append(payload)
            records.append(ReplicaRecord(record.integrated_number, record.layout_key, year, payload))
        codes = await self.send("stores", records)
        self._truth.replicas |= {
            (code, person, year) for person, told in zip(people, codes, strict=True) if not told
        }

    async def staff(self) -> None:
        grants = [(OFFICER, "affair_officer"), (MANAGER, "affair_manager")]
        await self.send(
            "grants",
            [StaffRecord(who, OFFICE, role, ROWS, "2026-04-01", "2027-03-31") for who, role in grants],
        )

    async def hold(self, person: int, reason: str, *, wanted: bool) -> None:
        order = HoldOrder(wanted, self.number(person), "", "", "", "", "", reason, "", "")
        await self.send("holds" if wanted else "frees", [order])

    async def order(self, orders: Sequence[Order], *, together: bool) -> None:
        """Orders of one submission, each for itself or as few inquiries as possible."""
        for order in orders:
            self._truth.orders[order.agency, order.record.request_id] = order
        ask = self._ask_together if together else self._send
        codes = await self.insist(ask, [order.record for order in orders])
        for order, code in zip(orders, codes, strict=True):
            self._clockwork.note(order.agency, "orders", order.record.request_id, order.kind, code)
            self._truth.verdicts[order.agency, order.record.request_id] = code

    async def _ask_together(self, records: Sequence[InquiryRecord]) -> list[str]:
        return [code for code, _ in await self._client.inquire(records)]

    async def withdraw(self, request_ids: Sequence[str]) -> None:
        """The office needs the answer no more."""

        async def ask(ids: Sequence[str]) -> list[str]:
            return [code for code, _ in await self._client.withdraw(_caller(OFFICER), ids)]

        codes = await self.insist(ask, request_ids)
        self._clockwork.note(self.agency.code, "withdraws", *request_ids, *codes)

    async def leave(self, person: int) -> None:
        """Somebody moved away: the link code is retired."""

        async def ask(numbers: Sequence[str]) -> list[str]:
            asked = {"integrated_number": numbers[0], "reason": "moved"}
            return [str(await self._client.codes("retire", asked))]

        codes = await self.insist(ask, [self.number(person)])
        self._clockwork.note(self.agency.code, "retires", *codes)

    async def notify(self, notice: NoticeOrder) -> None:
        """Say something about people to another agency's office, and look there for what came."""
        office = OfficeRecord(notice.receiver, OFFICE, OFFICE, (), "2026-04-01", "2027-03-31")
        await self.send("knows an office", [office])
        await self.send("notifies", [notice])

    async def look_at_held(self) -> None:
        """An officer decides about all that waits; where a second one has to agree, that one mostly does."""
        rng = self._clockwork.rng
        officer, manager = _caller(OFFICER), _caller(MANAGER)
        try:
            held = await self._client.held(officer)
            for waiting in () if isinstance(held, Refusal) else held:
                content = await self._client.held_content(officer, waiting.processing_number)
                if isinstance(content, Refusal):
                    continue
                verdict = rng.choices(("approve", "refuse", "limit"), (4, 2, 1))[0]
                items = content.items[:2] if verdict == "limit" else ()
                decision = DecisionOrder(waiting.processing_number, verdict, (), (), items)
                [(code, _)] = await self._client.decide(officer, [decision])
                self._clockwork.note(self.agency.code, "decides", verdict, code)
                if code == "I-237" and rng.random() < 0.8:
                    release = DecisionOrder(waiting.processing_number, "release", (), (), ())
                    [(code, _)] = await self._client.decide(manager, [release])
                    self._clockwork.note(self.agency.code, "releases", code)
        except Unreachable:
            self._clockwork.note(self.agency.code, "looks in vain")


def permitted(inquirer: Agency, provider: Agency, row: str, information: str) -> bool:
    """Whether the newest table has a line for this: the law read without the product's help."""
    return any(
        line.row == row
        and inquirer.kind in wordings()[line.inquirer].kinds
        and provider.kind in wordings()[line.provider].kinds
        and information in line.information
        for line in tables()[-1].rows
    )


def _caller(staff_id: str) -> Caller:
    return Caller(staff_id, "t-1", "事務")


class Days:
    """The course of a run."""

    def __init__(self, world: World, truth: Truth, days: float) -> None:
        self._world = world
        self._truth = truth
        self._clockwork = world.clockwork
        self._rng = world.clockwork.rng
        self._seconds = days * 86_400
        self._towns = {code: Town(world, truth, agency) for code, agency in world.furniture.agencies.items()}
        self._counter = 0

    async def live(self) -> None:
        """All that happens, until every business system has been told what became of what it sent."""
        rng = self._rng
        codes = list(self._towns)
        some = max(1, len(codes) // 5)
        async with trio.open_nursery() as nursery:
            for times, what in (
                (2 * len(codes), self._order),
                (2 * some, self._hold),
                (2 * some, self._notice),
                (some, self._removal),
                (some, self._newcomer),
                (some, self._change_of_record),
                (rng.randint(2, 6), self._partition),
                (rng.randint(1, 3), partial(self._kill, [NETWORK_NAME])),
                (1, partial(self._kill, [REGISTRY_NAME])),
                (some, partial(self._kill, codes)),
            ):
                for _ in range(times):
                    nursery.start_soon(self._at, rng.uniform(0, self._seconds), what)
            await trio.sleep(self._seconds)
            self._clockwork.calm = True
            self._clockwork.note("calm")

    async def _at(self, moment: float, what: Callable[[], Awaitable[None]]) -> None:
        await trio.sleep_until(moment)
        await what()

    async def _while(self, seconds: float) -> None:
        """For so long on average, and at most until the end of the days."""
        end = min(trio.current_time() + self._rng.expovariate(1 / seconds), self._seconds)
        await trio.sleep_until(max(end, trio.current_time()))

    # -- faults -----------------------------------------------------------------------------------------

    async def _partition(self) -> None:
        rng = self._rng
        group = frozenset(name for name in self._world.parties if rng.random() < 0.3)
        self._clockwork.fault("partition", len(group))
        with self._world.wires.cut(group):
            await self._while(1800)

    async def _kill(self, names: Sequence[str]) -> None:
        name = self._rng.choice(names)
        self._clockwork.fault("killed in between", name)
        await self._world.parties[name].kill()

    # -- work -------------------------------------------------------------------------------------------

    def _town(self) -> Town:
        return self._towns[self._rng.choice(list(self._towns))]

    def _known(self, agency: str) -> tuple[int, ...]:
        return self._world.furniture.known[agency]

    async def _newcomer(self) -> None:
        town, person = self._town(), self._rng.randrange(len(self._world.furniture.people))
        await town.register([person])
        await town.replicate([person], YEARS[1], 2)

    async def _change_of_record(self) -> None:
        town = self._town()
        person = self._rng.choice(self._known(town.agency.code))
        await town.replicate([person], self._rng.choice(YEARS), 3)

    async def _removal(self) -> None:
        """Somebody moves away, and mostly comes back: the code is retired, and another one acquired."""
        town = self._town()
        person = self._rng.choice(self._known(town.agency.code))
        await town.leave(person)
        if self._rng.random() < 0.7:
            await self._while(20_000)
            await town.register([person])

    async def _notice(self) -> None:
        """One agency tells another about people of its own accord."""
        rng = self._rng
        sender, receiver = rng.sample(list(self._towns), 2)
        own, theirs = self._known(sender), self._known(receiver)
        people = [person for person in own if person in theirs] or list(own)
        self._counter += 1
        notice = NoticeOrder(
            notice_id=f"n-{self._counter}",
            staff_id=OFFICER,
            receiver=receiver,
            to_office=OFFICE,
            title="お知らせ",
            text="例示です。",
            row=rng.choice(ROWS),
            information=INFORMATION,
            layout=LAYOUT.key,
            fiscal_year=YEARS[1],
            subjects=tuple(self._towns[sender].number(p) for p in rng.sample(people, min(2, len(people)))),
        )
        await self._towns[sender].notify(notice)

    async def _hold(self) -> None:
        """Somebody is protected for some time."""
        rng, town = self._rng, self._town()
        person, reason = rng.choice(self._known(town.agency.code)), rng.choice(list(hold_reasons()))
        await town.hold(person, reason, wanted=True)
        await self._while(40_000)
        await town.hold(person, reason, wanted=False)

    async def _order(self) -> None:
        rng = self._rng
        agencies = self._world.furniture.agencies
        for _ in range(8):  # most orders are sensible ones
            inquirer, provider = rng.sample(list(self._towns), 2)
            own, theirs = self._known(inquirer), self._known(provider)
            both = [person for person in own if person in theirs]
            pair = agencies[inquirer], agencies[provider]
            lawful = [row for row in ROWS if permitted(*pair, row, INFORMATION)]
            if both and lawful:
                break
        kind = rng.choices(("single", "household", "several", "together", "any"), (10, 4, 2, 4, 4))[0]
        count = rng.randint(2, 12) if kind in ("several", "together") else 1
        row = rng.choice(lawful if lawful and rng.random() < 0.9 else ROWS)
        year = rng.choices(YEARS, (1, 8))[0]
        later = ""
        if rng.random() < 0.1:
            due = min(trio.current_time() + rng.expovariate(1 / 20_000), self._seconds)
            later = (START + timedelta(seconds=due)).isoformat()
        orders = []
        for _ in range(count):
            size = 3 if kind == "household" else rng.randint(1, 3) if kind in ("together", "any") else 1
            pool = both if both and kind != "any" else own
            people = tuple(rng.sample(pool, min(size, len(pool))))
            self._counter += 1
            record = InquiryRecord(
                f"q-{self._counter}",
                rng.choices((OFFICER, STRANGER), (40, 1))[0],
                provider,
                row,
                INFORMATION,
                LAYOUT.key,
                year,
                tuple(self._towns[inquirer].number(person) for person in people),
                not_before=later,
            )
            orders.append(Order(inquirer, kind, record, people))
        await self._towns[inquirer].order(orders, together=kind == "together")
        if rng.random() < 0.6:
            await trio.sleep(rng.expovariate(1 / 1800))
            await self._towns[provider].look_at_held()
        if rng.random() < 0.1:
            await trio.sleep(rng.expovariate(1 / 600))
            await self._towns[inquirer].withdraw([order.record.request_id for order in orders])


async def settle_in(world: World, truth: Truth) -> None:
    """What every world begins with: staff, residents and their records everywhere, and some holds."""
    async with trio.open_nursery() as nursery:
        for code, agency in world.furniture.agencies.items():
            nursery.start_soon(_settle_in, Town(world, truth, agency), world.furniture.known[code])


async def _settle_in(town: Town, known: Sequence[int]) -> None:
    await town.staff()
    await town.register(known)
    await town.replicate(known[:-1], YEARS[1], 1)  # of the last one there is no record
    await town.hold(known[0], "protected_person", wanted=True)
