"""The agency's own link codes: acquired, retired, and the network told of it."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

from broker.intermediate import link_code
from broker.ledger.ledger import Change, Ledger, StreamMoved, Unit
from broker.ledger.projections import Follower
from schemas.errors import Refusal

AT_ONCE = 500


class LinkCodes:
    """Over the ledger of the intermediate interface. Persons come as integrated address numbers."""

    def __init__(self, ledger: Ledger, follower: Follower) -> None:
        self._ledger = ledger
        self._follower = follower

    async def acquire(self, integrated_number: str, code: str) -> Refusal | None:
        """Record the code of a person; one that was valid before is retired. I-224: it is another's."""
        who = self._ledger.vault.blind("person", integrated_number)
        index = self._ledger.vault.blind("link_code", code)
        wanted = link_code.LinkCodeAcquired(who, index, code, integrated_number)
        return await self._change(who, lambda state: link_code.decide_acquire(state, wanted), ties=index)

    async def valid(self, integrated_number: str) -> str:
        """The valid code of a person, or ""."""
        who = self._ledger.vault.blind("person", integrated_number)
        acquired = link_code.valid(await self._ledger.stream(link_code.stream(who)))
        return acquired.link_code if acquired is not None else ""

    async def retire(self, integrated_number: str, reason: str) -> None:
        """Retire whatever code a person has; `reason` is one of link_code.REASONS."""
        who = self._ledger.vault.blind("person", integrated_number)

        def decide(state: link_code.State) -> tuple[Any, ...]:
            if state.acquired is None:
                return ()
            return link_code.decide_retire(state, state.acquired.code_index, reason)

        await self._change(who, decide)

    async def persons(self, codes: Sequence[str]) -> dict[str, str]:
        """Code -> integrated address number, of the codes that are valid here."""
        await self._follower.reach(self._ledger.position)
        found = {}
        for code in codes:
            rows = await self._follower.query(
                "SELECT position FROM code_conversion WHERE code_index = ?",
                (self._ledger.vault.blind("link_code", code),),
            )
            for recorded in await self._ledger.at([position for (position,) in rows]):
                if not recorded.erased:
                    found[code] = recorded.event.integrated_number
        return found

    async def untold(self) -> list[str]:
        """Retired codes that the network has still to be told of, up to 500.

        What was erased meanwhile cannot be named to the network any longer, and counts as told.
        """
        await self._follower.reach(self._ledger.position)
        rows = await self._follower.query(
            "SELECT position FROM retired_code ORDER BY position LIMIT ?", (AT_ONCE,)
        )
        retired = await self._ledger.at([position for (position,) in rows])
        for recorded in retired:
            if recorded.erased:
                await self._told(recorded.event.person, recorded.event.code_index)
        return [recorded.event.link_code for recorded in retired if not recorded.erased]

    async def told(self, codes: Sequence[str]) -> None:
        """The network knows that these are retired."""
        await self._follower.reach(self._ledger.position)
        for code in codes:
            index = self._ledger.vault.blind("link_code", code)
            rows = await self._follower.query(
                "SELECT person FROM retired_code WHERE code_index = ?", (index,)
            )
            for (who,) in rows:
                await self._told(who, index)

    async def _told(self, who: str, index: str) -> None:
        await self._change(who, lambda state: link_code.decide_told(state, who, index))

    async def _change(
        self, who: str, decide: Callable[[link_code.State], tuple[Any, ...]], *, ties: str = ""
    ) -> Refusal | None:
        """Decide on the codes of a person and append, together with the claim on a code that it `ties`."""
        key = link_code.stream(who)
        while True:
            recorded = await self._ledger.stream(key)
            state = reduce(link_code.evolve, (happened.event for happened in recorded), link_code.State())
            gone = link_code.decide_lost(state, link_code.valid(recorded) is not None)
            decided = (*gone, *decide(reduce(link_code.evolve, gone, state)))
            if decided == gone:
                return None
            changes = [Change(key, len(recorded), decided)]
            if ties:
                owners = await self._ledger.stream(link_code.code_stream(ties))
                tied = link_code.decide_tie(owners[0].event.person if owners else "", who)
                if isinstance(tied, Refusal):
                    return tied
                changes.append(Change(link_code.code_stream(ties), len(owners), tied))
            names = "+".join(happened.wire.name for happened in decided)
            try:
                await self._ledger.append(Unit(f"{key}/{len(recorded) + 1}/{names}/{ties}", tuple(changes)))
            except StreamMoved:
                continue
            return None
