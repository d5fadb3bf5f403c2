"""The addressing function at work: registering persons, guarding against the wrong one, acquiring codes."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

import trio

from broker.addressing import person as persons
from broker.addressing.person import NumberClaimed, PersonRegistered, State
from broker.addressing.staging import Staging
from broker.ledger.ledger import Change, Ledger, StreamMoved, Unit
from broker.ledger.projections import Follower
from schemas.codes import integrated_number_valid
from schemas.errors import Refusal

AT_ONCE = 500
_ITEMS = ("integrated_number", "individual_number", "name", "kana", "birth_date", "sex", "address")


class Addressing:
    """The addressing function of one agency; `token` makes random texts (injected)."""

    def __init__(
        self, ledger: Ledger, follower: Follower, staging: Staging, token: Callable[[], str]
    ) -> None:
        self.ledger = ledger
        self.follower = follower
        self.staging = staging
        self._token = token

    def _person(self, integrated_number: str) -> str:
        return self.ledger.vault.blind("person", integrated_number)

    async def register(self, items: Mapping[str, str]) -> Refusal | None:
        """Register or change one person (items as in the residents file). Refusals: A-102, A-103."""
        integrated = items["integrated_number"]
        if not integrated_number_valid(integrated):
            return Refusal("A-102")
        who = self._person(integrated)
        number_index = self.ledger.vault.blind("individual", items["individual_number"])
        wanted = PersonRegistered(who, number_index, **{item: items[item] for item in _ITEMS})
        while True:
            seen, state = await self._state(who)
            claims = await self.ledger.stream(persons.number_stream(number_index))
            owner = claims[-1].event.person if claims else ""
            decided = persons.decide_register(state, owner, wanted)
            if isinstance(decided, Refusal):
                return decided
            if not decided:
                return None
            claim = () if owner else (NumberClaimed(who),)
            changes = (
                Change(persons.stream(who), seen, decided),
                Change(persons.number_stream(number_index), len(claims), claim),
            )
            content = self.ledger.vault.blind("registration", repr(sorted(items.items())))
            try:
                await self.ledger.append(Unit(f"register/{who}/{seen}/{content}", changes))
            except StreamMoved:
                continue
            return None

    async def guard(self, integrated_number: str, salt: bytes) -> bytes | None:
        """The salted digest of the second attribute, date of birth (R-086); None for a person not here."""
        _, state = await self._state(self._person(integrated_number))
        if state.registered is None:
            return None
        return sha256(salt + state.registered.birth_date.encode()).digest()

    async def knows(self, integrated_number: str) -> bool:
        _, state = await self._state(self._person(integrated_number))
        return state.registered is not None

    async def acquisitions(self) -> list[tuple[str, str]]:
        """Up to 500 pairs (acquisition number, individual number) that the registry has to be asked for.

        The pairing is durable before it is returned, so an interrupted acquisition goes on with the same
        numbers.
        """
        # First the numbers, then who waits: whose number is gone by now is settled, and waits no more.
        staged = {who: number for number, who in await self._staged()}
        await self.follower.reach(self.ledger.position)
        await self._forget_settled(staged)
        rows = await self.follower.query(
            "SELECT person, position FROM acquisition WHERE settled = 0 ORDER BY position LIMIT ?", (AT_ONCE,)
        )
        waiting: dict[str, int] = dict(rows)
        new = [(self._token(), "person", who) for who in waiting if who not in staged]
        if new:
            await trio.to_thread.run_sync(self.staging.put, new)
            staged |= {who: number for number, _, who in new}
        opened = await self.ledger.at(list(waiting.values()))
        return [(staged[r.event.person], r.event.individual_number) for r in opened if not r.erased]

    async def _forget_settled(self, staged: Mapping[str, str]) -> None:
        """Drop the numbers of acquisitions that ended just before a crash (Act art. 21-2(3))."""
        owners = list(staged)
        for start in range(0, len(owners), AT_ONCE):
            part = owners[start : start + AT_ONCE]
            marks = ",".join("?" * len(part))
            settled = await self.follower.query(
                f"SELECT person FROM acquisition WHERE settled = 1 AND person IN ({marks})",  # noqa: S608 # marks only
                part,
            )
            if settled:
                numbers = [staged[who] for (who,) in settled]
                await trio.to_thread.run_sync(self.staging.drop, numbers)

    async def resolve(self, acquisition_numbers: Sequence[str]) -> dict[str, str]:
        """Integrated address numbers behind these acquisition numbers; unknown ones are left out."""
        owners = dict(await self._staged())
        found: dict[str, str] = {}
        for number in acquisition_numbers:
            if number in owners:
                _, state = await self._state(owners[number])
                if state.registered is not None:
                    found[number] = state.registered.integrated_number
        return found

    async def settle(self, results: Mapping[str, str]) -> None:
        """End acquisitions: acquisition number -> catalogue code ("" for success), and forget the numbers."""
        owners = dict(await self._staged())
        async with trio.open_nursery() as nursery:
            for number, code in results.items():
                if number in owners:
                    nursery.start_soon(self._settle, owners[number], code)
        await trio.to_thread.run_sync(self.staging.drop, list(results))

    async def _settle(self, who: str, code: str) -> None:
        while True:
            seen, state = await self._state(who)
            decided = persons.decide_settle(state, who, code)
            if not decided:
                return
            try:
                await self.ledger.append(
                    Unit(f"settle/{who}/{seen}", (Change(persons.stream(who), seen, decided),))
                )
            except StreamMoved:
                continue
            return

    async def _staged(self) -> list[tuple[str, str]]:
        return await trio.to_thread.run_sync(self.staging.of, "person")

    async def _state(self, who: str) -> tuple[int, State]:
        recorded = await self.ledger.stream(persons.stream(who))
        state = State()
        for happened in recorded:
            # Whoever was erased is not known here, until registered anew.
            state = State() if happened.erased else persons.evolve(state, happened.event)
        return len(recorded), state
