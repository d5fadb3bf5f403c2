"""What an agency holds ready: staff authority, holds, replica records, link codes."""

from typing import Any

from adapters.platform.desk import Desk
from broker.intermediate import hold, link_code, replica, staff
from schemas.errors import Refusal
from schemas.items import layout, validate


class Holdings(Desk):
    """Each call loads a stream, decides and appends; what changes nothing leaves no event."""

    async def grant(self, granted: staff.AuthorityGranted) -> None:
        await self._change(
            staff.stream(granted.staff_id),
            None,
            staff.evolve,
            lambda state: staff.decide_grant(state, granted),
        )

    async def set_hold(self, integrated_number: str, wanted: bool, reason: str) -> None:
        who = self.person(integrated_number)
        await self._change(
            hold.stream(who), False, hold.evolve, lambda held: hold.decide(held, wanted, who, reason)
        )

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

    async def acquire_code(self, integrated_number: str, code: str) -> None:
        who, index = self.person(integrated_number), self.ledger.vault.blind("link_code", code)
        acquired = link_code.LinkCodeAcquired(who, index, code, integrated_number)
        await self._change(
            link_code.stream(who),
            None,
            link_code.evolve,
            lambda state: link_code.decide_acquire(state, acquired),
        )
