"""The network's office for link codes: makes them, hands them out, translates them, retires them.

An acquisition number is in the staging file from the registry's request until the agency has its code, and
nowhere else (Act art. 21-2(3)). What the network has to know after a crash is in the ledger: that a code was
issued, and that the agency has taken it.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial, reduce
from typing import Any

import trio

from adapters.network.reference import codes
from broker.addressing.staging import Staging
from broker.ledger.ledger import Change, Ledger, StreamMoved, Unit
from broker.ledger.projections import Follower
from schemas.errors import Refusal

AT_ONCE = 500
WITHDRAWN = ""
"""In the place of an acquisition number: this code is retired (by the network, or for a new record code)."""


class CodeOffice:
    """`key` is the secret of all link codes, `admitted` holds the codes of the agencies that may have any.

    `poll` opens the scope of a long poll, which the network cancels when it stops.
    """

    def __init__(
        self,
        ledger: Ledger,
        follower: Follower,
        staging: Staging,
        key: bytes,
        admitted: Container[str],
        poll: Callable[[], AbstractContextManager[trio.CancelScope]],
    ) -> None:
        self._ledger = ledger
        self._follower = follower
        self._staging = staging
        self._key = key
        self._admitted = admitted
        self._poll = poll
        self._news: dict[str, trio.Event] = {}  # agency -> set once something new waits for it

    # -- issuing --------------------------------------------------------------------------------------

    async def issue(self, requests: Sequence[tuple[str, str, str]]) -> list[str]:
        """From the registry: (agency, acquisition number, resident record code); a verdict for each.

        "" where the code waits for the agency. N-101: no such agency; N-201: it has the code already
        (ordinance art. 44(2)); N-202: the number is in use for another person (ordinance art. 41-2).

        A crash between recording a code and staging its number loses neither: the registry had no verdict,
        asks again, and the code is the same.
        """
        verdicts = [""] * len(requests)
        staged: list[tuple[str, str, str]] = []

        async def one(place: int, agency: str, number: str, record_code: str) -> None:
            issued = await self._issue(agency, record_code)
            if isinstance(issued, Refusal):
                verdicts[place] = issued.code
            else:
                staged.append((number, agency, issued))

        async with trio.open_nursery() as nursery:
            for place, request in enumerate(requests):
                nursery.start_soon(one, place, *request)
        await trio.to_thread.run_sync(self._staging.put, staged)
        kept = await trio.to_thread.run_sync(self._staging.find, [number for number, _, _ in staged])
        taken_by_others = {number for number, *given in staged if kept[number] != tuple(given)}
        for place, (_, number, _) in enumerate(requests):
            if not verdicts[place] and number in taken_by_others:
                verdicts[place] = "N-202"
        self._tell(agency for agency, _, _ in requests)
        return verdicts

    async def _issue(self, agency: str, record_code: str) -> str | Refusal:
        """The code of a person for an agency that does not have it yet."""
        if agency not in self._admitted:
            return Refusal("N-101")
        person = codes.person_mark(self._key, record_code)

        def decide(state: codes.State) -> tuple[Any, ...] | Refusal:
            code = codes.link_code(self._key, agency, record_code, state.retired)
            index = self._ledger.vault.blind("link_code", code)
            return codes.decide_issue(state, codes.LinkCodeIssued(agency, person, index, code))

        state = await self._change(agency, person, decide)
        return state if isinstance(state, Refusal) else state.issued.link_code  # type: ignore[union-attr] # it was issued

    async def waiting(self, agency: str, wait: float) -> list[tuple[str, str]]:
        """(acquisition number, link code) that wait for an agency, and (WITHDRAWN, link code) of those it has
        to retire; `wait` seconds at most for the first."""
        found: list[tuple[str, str]] = []
        with self._poll() as poll:
            news = self._news.setdefault(agency, trio.Event())
            found = await self._waiting(agency)
            poll.deadline = trio.current_time() + wait
            while not found:
                await news.wait()
                news = self._news.setdefault(agency, trio.Event())
                found = await self._waiting(agency)
        return found

    async def _waiting(self, agency: str) -> list[tuple[str, str]]:
        staged = await trio.to_thread.run_sync(self._staging.of, agency)
        await self._follower.reach(self._ledger.position)
        rows = await self._follower.query(
            "SELECT position FROM issued_code WHERE agency = ? AND state = 'withdrawn' LIMIT ?",
            (agency, AT_ONCE),
        )
        withdrawn = await self._ledger.at([position for (position,) in rows])
        return staged + [(WITHDRAWN, r.event.link_code) for r in withdrawn if not r.erased]

    async def taken(self, agency: str, numbers: Sequence[str]) -> None:
        """The agency has recorded the codes that came with these acquisition numbers. They have served, and
        are not kept any longer (Act art. 21-2(3))."""
        staged = dict(await trio.to_thread.run_sync(self._staging.of, agency))
        own = [number for number in numbers if number in staged]
        persons = await self._persons(agency, [staged[number] for number in own])
        async with trio.open_nursery() as nursery:
            for index, person in persons.items():
                nursery.start_soon(self._change, agency, person, partial(codes.decide_take, code_index=index))
        await trio.to_thread.run_sync(self._staging.drop, own)

    # -- retirement -----------------------------------------------------------------------------------

    async def retire(self, agency: str, link_codes: Sequence[str], by: str = "agency") -> None:
        """Codes of an agency are valid no longer: it says so itself, or (`by` network) has to be told.

        It says so, too, of a code that it was told to retire, which ends the telling, and of one that it has
        no use for when it comes. What is none of its own changes nothing.
        """
        for index, person in (await self._persons(agency, link_codes)).items():
            await self._change(agency, person, partial(codes.decide_withdraw, code_index=index, by=by))
            if by == "agency":
                known = partial(codes.decide_known, agency=agency, person=person, code_index=index)
                await self._change(agency, person, known)
        await self._unstage(agency, frozenset(link_codes))
        self._tell((agency,))

    async def record_code_changed(self, changes: Sequence[tuple[str, str]]) -> None:
        """From the registry: (former, present) resident record codes of one person.

        Codes are made from the record code, so those of the former one are retired at every agency, and each
        gets one made from the present code when it asks. The same change again does nothing.
        """
        for former, present in changes:
            person = codes.person_mark(self._key, former)
            successor = codes.person_mark(self._key, present)
            await self._follower.reach(self._ledger.position)
            rows = await self._follower.query(
                "SELECT c.agency, c.code_index FROM issued_person p "
                "JOIN issued_code c ON c.position = p.position WHERE p.person = ?",
                (person,),
            )
            for agency, index in rows:
                decide = partial(
                    codes.decide_withdraw, code_index=index, by="record_code", successor=successor
                )
                await self._change(agency, person, decide)
                await self._unstage_index(agency, index)
            self._tell(agency for agency, _ in rows)

    async def _unstage(self, agency: str, link_codes: frozenset[str]) -> None:
        """A code that is retired before the agency took it is not handed out."""
        staged = await trio.to_thread.run_sync(self._staging.of, agency)
        gone = [number for number, code in staged if code in link_codes]
        await trio.to_thread.run_sync(self._staging.drop, gone)

    async def _unstage_index(self, agency: str, index: str) -> None:
        staged = await trio.to_thread.run_sync(self._staging.of, agency)
        blind = self._ledger.vault.blind
        await self._unstage(agency, frozenset(c for _, c in staged if blind("link_code", c) == index))

    # -- translation ----------------------------------------------------------------------------------

    async def translate(
        self, link_codes: Sequence[str], sender: str, receiver: str
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The persons behind the sender's codes, and the receiver's own codes for them, in their order.

        "" where the sender has no such valid code (N-105), and where the receiver has none (N-106).
        """
        await self._follower.reach(self._ledger.position)
        blind = self._ledger.vault.blind
        indexes = [blind("link_code", code) for code in link_codes]
        found: dict[str, tuple[str, int | None]] = {}
        for some in _some(indexes):
            rows = await self._follower.query(
                "SELECT i.code_index, i.person, p.position FROM issued_code i "  # noqa: S608 # marks only
                "LEFT JOIN issued_person p ON p.person = i.person AND p.agency = ? "
                f"WHERE i.agency = ? AND i.state = 'valid' AND i.code_index IN ({_marks(some)})",
                (receiver, sender, *some),
            )
            found |= {index: (person, position) for index, person, position in rows}
        places = [position for _, position in found.values() if position is not None]
        theirs = {r.position: r.event.link_code for r in await self._ledger.at(places) if not r.erased}
        hits = [found.get(index, ("", None)) for index in indexes]
        return (
            tuple(person for person, _ in hits),
            tuple(theirs.get(position, "") if position is not None else "" for _, position in hits),
        )

    # -- what all of them use -------------------------------------------------------------------------

    def _tell(self, agencies: Iterable[str]) -> None:
        """Wake those of these agencies that wait for codes."""
        for agency in agencies:
            if (news := self._news.pop(agency, None)) is not None:
                news.set()

    async def _persons(self, agency: str, link_codes: Sequence[str]) -> Mapping[str, str]:
        """Blind code -> person, of those that are (or were) the agency's own."""
        await self._follower.reach(self._ledger.position)
        found: dict[str, str] = {}
        for some in _some([self._ledger.vault.blind("link_code", code) for code in link_codes]):
            rows = await self._follower.query(
                "SELECT code_index, person FROM issued_code "  # noqa: S608 # marks only
                f"WHERE agency = ? AND code_index IN ({_marks(some)})",
                (agency, *some),
            )
            found |= dict(rows)
        return found

    async def _change(
        self, agency: str, person: str, decide: Callable[[codes.State], tuple[Any, ...] | Refusal]
    ) -> codes.State | Refusal:
        """Decide on the codes of one person and agency, and append: the state that follows."""
        key = codes.stream(agency, person)
        while True:
            recorded = await self._ledger.stream(key)
            state = reduce(codes.evolve, (happened.event for happened in recorded), codes.State())
            erased = {happened.event.code_index for happened in recorded if happened.erased}
            gone = codes.decide_lost(state, erased)
            state = reduce(codes.evolve, gone, state)
            decided = decide(state)
            if isinstance(decided, Refusal):
                return decided
            if not decided:
                return state
            events = (*gone, *decided)
            names = "+".join(happened.wire.name for happened in events)
            change = Change(key, len(recorded), events)
            try:
                await self._ledger.append(Unit(f"{key}/{len(recorded) + 1}/{names}", (change,)))
            except StreamMoved:
                continue
            return reduce(codes.evolve, decided, state)


def _some(indexes: Sequence[str]) -> list[Sequence[str]]:
    return [indexes[start : start + AT_ONCE] for start in range(0, len(indexes), AT_ONCE)]


def _marks(indexes: Sequence[str]) -> str:
    return ",".join("?" * len(indexes))
