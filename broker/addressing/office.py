"""The addressing function at work: registering persons, guarding against the wrong one, acquiring codes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from hashlib import sha256
from typing import Any

import trio

from broker.addressing import person as persons
from broker.addressing.person import NumberClaimed, NumberReleased, PersonRegistered, State
from broker.addressing.staging import Staging
from broker.ledger.events import Recorded
from broker.ledger.ledger import Change, Ledger, StreamMoved, Unit
from broker.ledger.projections import Follower
from schemas.codes import individual_number_valid, integrated_number_valid
from schemas.errors import Refusal

AT_ONCE = 500
_ITEMS = ("integrated_number", "individual_number", "name", "kana", "birth_date", "sex", "address")
_BASIC = ("name", "birth_date", "sex", "address")
_PERSON = "person"


@dataclass(frozen=True)
class Progress:
    """How far the acquisition of link codes has come, in persons; `refused` by code of the catalogue."""

    waiting: int
    acquired: int
    refused: Mapping[str, int]


class Addressing:
    """The addressing function of one agency; `token` makes random texts (injected)."""

    def __init__(
        self, ledger: Ledger, follower: Follower, staging: Staging, token: Callable[[], str]
    ) -> None:
        self.ledger = ledger
        self.follower = follower
        self.staging = staging
        self._token = token
        self._numbering = trio.Lock()

    def _person(self, integrated_number: str) -> str:
        return self.ledger.vault.blind("person", integrated_number)

    # -- persons --------------------------------------------------------------------------------------

    async def register(self, items: Mapping[str, str]) -> Refusal | None:
        """Register or change one person (items as in the residents file). Refusals: A-101 to A-103."""
        integrated = items["integrated_number"]
        if not integrated_number_valid(integrated):
            return Refusal("A-102")
        if not individual_number_valid(items["individual_number"]):
            return Refusal("A-101")
        who = self._person(integrated)
        number_index = self.ledger.vault.blind("individual", items["individual_number"])
        items_index = self._items_index(items)
        wanted = PersonRegistered(
            who, number_index, **{item: items[item] for item in _ITEMS}, items_index=items_index
        )
        while True:
            seen, state = await self._state(who)
            claims, owner = await self._owner(number_index)
            decided = persons.decide_register(state, owner, wanted)
            if isinstance(decided, Refusal):
                return decided
            if not decided:
                return None
            changes = [
                Change(persons.stream(who), seen, decided),
                Change(persons.number_stream(number_index), claims, () if owner else (NumberClaimed(who),)),
            ]
            if state.registered is not None and state.registered.number_index != number_index:
                changes.append(await self._released(state.registered))
            content = self.ledger.vault.blind("registration", repr(sorted(items.items())))
            try:
                await self.ledger.append(Unit(f"register/{who}/{seen}/{content}", tuple(changes)))
            except StreamMoved:
                continue
            return None

    async def _owner(self, number_index: str) -> tuple[int, str]:
        recorded = await self.ledger.stream(persons.number_stream(number_index))
        return len(recorded), persons.owner(happened.event for happened in recorded)

    async def _released(self, registered: PersonRegistered) -> Change:
        """The number that a person had so far: free again, so that one who was shut out by a typing error
        can be registered with it."""
        claims, owner = await self._owner(registered.number_index)
        released = (NumberReleased(owner),) if owner == registered.person else ()
        return Change(persons.number_stream(registered.number_index), claims, released)

    async def former(self, individual_number: str) -> str:
        """The integrated address number that a person with this individual number has here, or "": who moves
        in again gets the one of before (R-421)."""
        _, owner = await self._owner(self.ledger.vault.blind("individual", individual_number))
        if not owner:
            return ""
        _, state = await self._state(owner)
        return state.registered.integrated_number if state.registered is not None else ""

    async def guard(self, integrated_number: str, salt: bytes) -> bytes | None:
        """The salted digest of the second attribute, date of birth (R-086); None for a person not here."""
        return (await self.guards([(integrated_number, salt)]))[0]

    async def guards(self, asked: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        """The same for many (integrated address number, salt), in their order."""
        states = await self._states([self._person(number) for number, _ in asked])
        return [
            sha256(salt + registered.birth_date.encode()).digest() if registered else None
            for (number, salt) in asked
            for registered in (states[self._person(number)].registered,)
        ]

    async def knows(self, integrated_number: str) -> bool:
        _, state = await self._state(self._person(integrated_number))
        return state.registered is not None

    async def items_for_request(self, integrated_number: str) -> Mapping[str, str] | None:
        """Name, kana, date of birth, sex and address of a person, to ask another agency to acquire a code
        (Order art. 26(3)) and for nothing else; None for a person not here."""
        _, state = await self._state(self._person(integrated_number))
        registered = state.registered
        if registered is None:
            return None
        return {item: getattr(registered, item) for item in ("name", "kana", *_BASIC[1:])}

    async def find(self, items: Mapping[str, str]) -> str | Refusal:
        """The integrated address number of the one person with these basic items; kana are not compared.

        Refusals: I-221 for nobody, I-222 for several persons.
        """
        await self.follower.reach(self.ledger.position)
        rows = await self.follower.query(
            "SELECT r.position FROM resident_items i JOIN resident r ON r.person = i.person "
            "WHERE i.items_index = ? LIMIT 2",
            (self._items_index(items),),
        )
        found = [r for r in await self.ledger.at([position for (position,) in rows]) if not r.erased]
        if len(found) != 1:
            return Refusal("I-222" if found else "I-221")
        number: str = found[0].event.integrated_number
        return number

    def _items_index(self, items: Mapping[str, str]) -> str:
        return self.ledger.vault.blind("items", persons.basic_items(*(items[item] for item in _BASIC)))

    async def leave(self, integrated_number: str, reason: str) -> None:
        """No code is acquired for the person any longer, until registered anew: died, moved or erased."""
        who = self._person(integrated_number)
        await self._change(who, lambda state: persons.decide_leave(state, who, reason))

    async def want(self, integrated_number: str) -> None:
        """A code is to be acquired for the person (again)."""
        await self._change(self._person(integrated_number), persons.decide_want)

    # -- acquisitions ---------------------------------------------------------------------------------

    async def acquisitions(self) -> list[tuple[str, str]]:
        """Up to 500 pairs (acquisition number, individual number) that the registry has to be asked for.

        The pairing is durable before it is returned, so an interrupted acquisition goes on with the same
        numbers.
        """
        return (await self.page(0))[0]

    async def page(self, after: int) -> tuple[list[tuple[str, str]], int]:
        """The same of those behind a place (0: all), and the place to go on from (0: that was the end)."""
        waiting = await self._waiting(after)
        if not after and len(waiting) < AT_ONCE:
            await self._sweep()
        staged = await self._numbered(waiting, after)
        pairs = []
        for recorded in await self.ledger.at([waiting[who] for who in staged]):
            e = recorded.event
            if recorded.erased:
                await self._change(e.person, partial(persons.decide_leave, person=e.person, reason="erased"))
            else:
                pairs.append((staged[_owner_of(e)], e.individual_number))
        return pairs, max(waiting.values()) if len(waiting) == AT_ONCE else 0

    async def _numbered(self, waiting: Mapping[str, int], after: int) -> dict[str, str]:
        """The acquisition number of everybody who waits, made where there is none: one for each."""
        async with self._numbering:
            staged = await trio.to_thread.run_sync(self.staging.numbers, _PERSON, list(waiting))
            if len(staged) < len(waiting):
                # Who has no number may have been settled in between: it was recorded before the number went.
                still = await self._waiting(after)
                new = [(self._token(), _PERSON, who) for who in waiting if who not in staged and who in still]
                await trio.to_thread.run_sync(self.staging.put, new)
                staged |= {who: number for number, _, who in new}
        return staged

    async def _waiting(self, after: int) -> dict[str, int]:
        """Who waits for a code, with which individual number (blind), and where that was registered."""
        await self.follower.reach(self.ledger.position)
        rows = await self.follower.query(
            "SELECT owner, position FROM acquisition_queue WHERE position > ? ORDER BY position LIMIT ?",
            (after, AT_ONCE),
        )
        return dict(rows)

    async def _sweep(self) -> None:
        """Drop the numbers of acquisitions that ended just before a crash, or were made with an individual
        number that has changed since (Act art. 21-2(3))."""
        staged = await trio.to_thread.run_sync(self.staging.of, _PERSON)
        for start in range(0, len(staged), AT_ONCE):
            part = {owner: number for number, owner in staged[start : start + AT_ONCE]}
            marks = ",".join("?" * len(part))
            rows = await self.follower.query(
                "SELECT person || '/' || number_index FROM acquisition "  # noqa: S608 # marks only
                f"WHERE settled = 0 AND person IN ({marks})",
                [owner.partition("/")[0] for owner in part],
            )
            for (owner,) in rows:
                part.pop(owner, None)
            await trio.to_thread.run_sync(self.staging.drop, list(part.values()))

    async def resolve(self, acquisition_numbers: Sequence[str]) -> dict[str, str]:
        """Integrated address numbers behind these acquisition numbers; unknown ones are left out, and those
        of persons who left, or have another individual number by now."""
        owners = await self._staged(acquisition_numbers)
        states = await self._states([owner.partition("/")[0] for owner in owners.values()])
        found: dict[str, str] = {}
        for number, owner in owners.items():
            state = states[owner.partition("/")[0]]
            if state.registered is not None and _owner_of(state.registered) == owner and not state.left:
                found[number] = state.registered.integrated_number
        return found

    async def settle(self, results: Mapping[str, str]) -> None:
        """End acquisitions: acquisition number -> catalogue code ("" for success), and forget the numbers."""
        async with trio.open_nursery() as nursery:
            for number, owner in (await self._staged(list(results))).items():
                nursery.start_soon(self._settle, owner, results[number])
        await trio.to_thread.run_sync(self.staging.drop, list(results))

    async def _settle(self, owner: str, code: str) -> None:
        who, _, number_index = owner.partition("/")
        await self._change(who, lambda state: persons.decide_settle(state, who, number_index, code))

    async def progress(self) -> Progress:
        """How many wait, have a code, or were refused one; who left is not counted."""
        await self.follower.reach(self.ledger.position)
        rows = await self.follower.query(
            "SELECT settled, code, COUNT(*) FROM acquisition WHERE gone = 0 OR settled = 0 GROUP BY 1, 2"
        )
        waiting = sum(number for settled, _, number in rows if not settled)
        acquired = sum(number for settled, code, number in rows if settled and code in persons.ACQUIRED)
        refused = {code: number for settled, code, number in rows if settled and code not in persons.ACQUIRED}
        return Progress(waiting, acquired, refused)

    async def refused(self, after: int) -> tuple[list[tuple[str, str]], int]:
        """Up to 500 pairs (integrated address number, why there is no code) behind a place (0: from the first
        on), and the place to go on from (0: that was the end)."""
        await self.follower.reach(self.ledger.position)
        rows = await self.follower.query(
            "SELECT position, code FROM acquisition WHERE settled = 1 AND gone = 0 AND position > ? "
            "AND code NOT IN (?, ?) ORDER BY position LIMIT ?",
            (after, *persons.ACQUIRED, AT_ONCE),
        )
        codes = dict(rows)
        opened = await self.ledger.at(list(codes))
        found = [(r.event.integrated_number, codes[r.position]) for r in opened if not r.erased]
        return found, rows[-1][0] if len(rows) == AT_ONCE else 0

    # -- what all of them use -------------------------------------------------------------------------

    async def _staged(self, numbers: Sequence[str]) -> dict[str, str]:
        """Acquisition number -> whose it is, of those that are in use."""
        found = await trio.to_thread.run_sync(self.staging.find, numbers)
        return {number: value for number, (owner, value) in found.items() if owner == _PERSON}

    async def _change(self, who: str, decide: Callable[[State], tuple[Any, ...]]) -> None:
        while True:
            seen, state = await self._state(who)
            decided = decide(state)
            if not decided:
                return
            names = "+".join(happened.wire.name for happened in decided)
            try:
                await self.ledger.append(
                    Unit(f"{names}/{who}/{seen}", (Change(persons.stream(who), seen, decided),))
                )
            except StreamMoved:
                continue
            return

    async def _state(self, who: str) -> tuple[int, State]:
        recorded = await self.ledger.stream(persons.stream(who))
        return len(recorded), _folded(recorded)

    async def _states(self, whos: Sequence[str]) -> dict[str, State]:
        """Several at one look."""
        found = await self.ledger.streams([persons.stream(who) for who in whos])
        return {who: _folded(found[persons.stream(who)]) for who in whos}


def _folded(recorded: Sequence[Recorded]) -> State:
    """Whoever was erased is not known here, until registered anew; how far the code has come stays."""
    state = reduce(persons.evolve, (happened.event for happened in recorded), State())
    erased = any(happened.erased and happened.event is state.registered for happened in recorded)
    return replace(state, registered=None) if erased else state


def _owner_of(registered: PersonRegistered) -> str:
    """Whom an acquisition number is for: a person with this individual number, both blind."""
    return f"{registered.person}/{registered.number_index}"
