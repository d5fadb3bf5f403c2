"""What an agency holds ready: staff authority, holds, flags, replica records, link codes."""

from dataclasses import dataclass, field
from datetime import date
from typing import Any

from adapters.platform.desk import Desk
from adapters.platform.link_codes import LinkCodes
from adapters.platform.staffing import Staffing
from broker.intermediate import disclosure, hold, provision, replica, staff
from broker.ledger.ledger import Change, Unit
from schemas.errors import Refusal
from schemas.items import layout, validate
from schemas.law.approval import hold_reasons, non_disclosure_reasons


@dataclass(frozen=True)
class HoldOrder:
    """A hold to be set, or released where not `wanted` (R-104, R-105). Empty items leave the pattern open.

    Days are ISO, both included, "" open.
    """

    wanted: bool
    integrated_number: str = field(repr=False)
    layout: str
    fiscal_year: str
    law_row: str
    item: str
    value: str = field(repr=False)
    reason: str
    starts: str
    ends: str

    def fault(self) -> Refusal | None:
        """Why this is no hold, or None: B-002, B-005, B-010, B-012."""
        if not (self.integrated_number or self.law_row or self.item):
            return Refusal("B-002", "integrated_number")
        if (self.value and not self.item) or (self.item and not self.layout):
            return Refusal("B-002", "item" if self.value and not self.item else "layout")
        if self.fiscal_year and not self.layout:
            return Refusal("B-002", "layout")
        if self.reason not in hold_reasons():
            return Refusal("B-005", "reason")
        try:
            known = layout(self.layout) if self.layout else None
        except ValueError:
            return Refusal("B-005", "layout")
        if known is not None and self.item and self.item not in {item.code for item in known.leaves}:
            return Refusal("B-010", "item")
        try:
            days = [date.fromisoformat(day) for day in (self.starts, self.ends) if day]
        except ValueError:
            return Refusal("B-012", "starts")
        return Refusal("B-012", "ends") if days != sorted(days) else None


@dataclass(frozen=True)
class NonDisclosureOrder:
    """A flag to be set, or released where not `wanted` (R-107), on a person or on one of her records."""

    wanted: bool
    integrated_number: str = field(repr=False)
    layout: str
    fiscal_year: str
    reason: str


@dataclass(frozen=True)
class PublicationOrder:
    """The last day on which a record is answered with; "" cancels it (R-139)."""

    integrated_number: str = field(repr=False)
    layout: str
    fiscal_year: str
    until: str


@dataclass(frozen=True)
class Recipient:
    """One provision of a record to another agency."""

    inquirer: str
    inquirer_name: str
    office: str
    law_row: str
    provided_at: str


class Holdings(Desk):
    """Each call loads a stream, decides and appends; what changes nothing leaves no event."""

    async def grant(self, granted: staff.AuthorityGranted) -> Refusal | None:
        return await Staffing(self).grant(granted)

    async def set_hold(self, integrated_number: str, wanted: bool, reason: str) -> Refusal | None:
        """The hold on a person for a reason, such as that of the residents file (支援措置対象者)."""
        return await self.hold(HoldOrder(wanted, integrated_number, "", "", "", "", "", reason, "", ""))

    async def hold(self, order: HoldOrder) -> Refusal | None:
        """Set or release a hold. Refusals: B-002, B-005, B-007, B-010, B-012."""
        while True:
            change = await self.hold_change(order)
            if isinstance(change, Refusal):
                return change
            name = f"{change.stream}#{change.seen + 1}/{self._random(8).hex()}"
            if not change.events or await self._try(Unit(name, (change,))):
                return None

    async def hold_change(self, order: HoldOrder) -> Change | Refusal:
        """What setting or releasing a hold does to its stream, for one unit with what goes with it."""
        refusal = order.fault()
        if refusal is not None:
            return refusal
        number = order.integrated_number
        if number and not await self.addressing.knows(number):
            return Refusal("B-007")
        scope = hold.Scope(
            person=self.person(number) if number else "",
            layout=order.layout,
            fiscal_year=order.fiscal_year,
            law_row=order.law_row,
            item=order.item,
            value_index=self.value_index(order.item, order.value) if order.value else "",
            reason=order.reason,
        )
        wanted = hold.HoldSet(
            **vars(scope),
            starts=order.starts,
            ends=order.ends,
            integrated_number=number,
            value=order.value,
        )
        recorded = await self.ledger.stream(scope.stream)
        state: hold.State = {}
        for happened in recorded:
            state = hold.evolve(state, happened.event)
        decided: tuple[hold.HoldSet | hold.HoldReleased, ...]
        decided = hold.decide_set(state, wanted) if order.wanted else hold.decide_release(state, scope)
        return Change(scope.stream, len(recorded), decided)

    async def holds(self) -> list[HoldOrder]:
        """Every hold that stands, the oldest first (自動応答不可フラグ設定状況の確認, R-105)."""
        await self.follower.reach(self.ledger.position)
        rows = await self.follower.query("SELECT position FROM hold ORDER BY position")
        found = await self.ledger.at([position for (position,) in rows])
        return [
            HoldOrder(
                True,
                "" if recorded.erased else e.integrated_number,
                e.layout,
                e.fiscal_year,
                e.law_row,
                e.item,
                "" if recorded.erased else e.value,
                e.reason,
                e.starts,
                e.ends,
            )
            for recorded in found
            for e in (recorded.event,)
        ]

    async def set_non_disclosure(self, order: NonDisclosureOrder) -> Refusal | None:
        """Set or release the flag of R-107. Refusals: B-002, B-005, B-007."""
        if order.reason not in non_disclosure_reasons():
            return Refusal("B-005", "reason")
        if order.fiscal_year and not order.layout:
            return Refusal("B-002", "layout")
        try:
            if order.layout:
                layout(order.layout)
        except ValueError:
            return Refusal("B-005", "layout")
        if not await self.addressing.knows(order.integrated_number):
            return Refusal("B-007")
        who = self.person(order.integrated_number)
        flagged = disclosure.NonDisclosureSet(who, order.layout, order.fiscal_year, order.reason)
        nothing: disclosure.State = {}
        await self._change(
            disclosure.stream(who),
            nothing,
            disclosure.evolve,
            lambda state: disclosure.decide(state, order.wanted, flagged),
        )
        return None

    async def flags(self, integrated_number: str) -> list[disclosure.Flag]:
        """The flags of R-107 that stand on a person and her records."""
        await self.follower.reach(self.ledger.position)
        rows = await self.follower.query(
            "SELECT layout, fiscal_year FROM non_disclosure WHERE person = ?",
            (self.person(integrated_number),),
        )
        return [(key, year) for key, year in rows]

    async def register_replica(
        self, integrated_number: str, layout_key: str, fiscal_year: str, payload: dict[str, Any]
    ) -> Refusal | None:
        """Take a record into the reference database. Refusals: B-007, and B codes of the first fault."""
        try:
            faults = validate(layout(layout_key), payload)
        except ValueError:
            return Refusal("I-206")
        if faults:
            return Refusal(faults[0].code, faults[0].item)
        if not await self.addressing.knows(integrated_number):
            return Refusal("B-007")
        who = self.person(integrated_number)
        wanted = replica.ReplicaRegistered(who, layout_key, fiscal_year, integrated_number, payload)
        await self._change(
            replica.stream(who, layout_key, fiscal_year),
            None,
            replica.evolve,
            lambda state: replica.decide_register(state, wanted),
        )
        return None

    async def set_publication(self, order: PublicationOrder) -> Refusal | None:
        """Set or cancel the end of publication of a record. Refusals: B-005, B-007, B-012."""
        try:
            layout(order.layout)
        except ValueError:
            return Refusal("B-005", "layout")
        try:
            if order.until:
                date.fromisoformat(order.until)
        except ValueError:
            return Refusal("B-012", "until")
        if not await self.addressing.knows(order.integrated_number):
            return Refusal("B-007")
        who = self.person(order.integrated_number)
        wanted = replica.PublicationEnds(who, order.layout, order.fiscal_year, order.until)
        await self._change(
            replica.publication_stream(who, order.layout, order.fiscal_year),
            "",
            lambda _, happened: str(happened.until),
            lambda state: replica.decide_publication(state, wanted),
        )
        return None

    async def recipients(self, integrated_number: str, layout_key: str, year: str) -> list[Recipient]:
        """To whom a record of a person was provided, the latest first (提供先の取得, R-140)."""
        await self.follower.reach(self.ledger.position)
        rows = await self.follower.query(
            "SELECT request, subject, outcome FROM provision_record WHERE person = ? AND side = 'provider' "
            "AND outcome > 0 ORDER BY outcome DESC",
            (self.person(integrated_number),),
        )
        opened = {r.position: r.event for r in await self.ledger.at([p for row in rows for p in row[::2]])}
        found = []
        for request, subject, outcome in rows:
            answer, asked = opened[outcome], opened[request]
            if not isinstance(answer, provision.InformationProvided) or asked.layout != layout_key:
                continue
            source = dict(zip(answer.persons, answer.sources, strict=True))[subject]
            if source and (await self.ledger.at([source]))[0].event.fiscal_year == year:
                found.append(
                    Recipient(
                        asked.inquirer, asked.inquirer_name, asked.office, asked.law_row, answer.provided_at
                    )
                )
        return found

    async def acquire_code(self, integrated_number: str, code: str) -> Refusal | None:
        """Record a link code of the network. I-224: it is another person's."""
        return await LinkCodes(self.ledger, self.follower).acquire(integrated_number, code)
