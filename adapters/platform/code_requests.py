"""Asking a provider to acquire a link code, and being asked (Order art. 26(2), (3))."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from typing import Any, Protocol
from uuid import NAMESPACE_URL, uuid5

from adapters.platform.desk import Desk
from broker.intermediate import code_request, inquiry
from broker.intermediate.code_request import (
    NO_CODE,
    CodeRequestDecided,
    CodeRequestReceived,
    CodeRequestSent,
    CodeRequestSettled,
)
from broker.ledger.ledger import Change, StreamMoved, Unit
from broker.linkage import outgoing
from broker.linkage.interface import INWARD, Failed
from schemas.errors import Refusal
from schemas.messages import LetterBody, LetterRequest, NetworkVerdict, ReceivedLetter

LETTER = "acquisition_request"
ITEMS = ("name", "kana", "birth_date", "sex", "address")
_EMPTY: Mapping[str, str] = {}


class Residents(Protocol):
    """What addressing does for such requests, and for nothing else."""

    async def items_for_request(self, integrated_number: str) -> Mapping[str, str] | None: ...
    async def find(self, items: Mapping[str, str]) -> str | Refusal: ...
    async def knows(self, integrated_number: str) -> bool: ...
    async def want(self, integrated_number: str) -> None: ...


class Codes(Protocol):
    """Whether the agency has a link code for a person: the code, or ""."""

    async def valid(self, integrated_number: str) -> str: ...


@dataclass(frozen=True)
class OpenRequest:
    """A person whom the inquirer named and an officer has to find; `code` says why."""

    processing_number: str
    place: int
    inquirer: str
    received_at: str
    code: str
    items: Mapping[str, str] = field(repr=False)


class CodeRequests:
    """Takes the letters of its kind from the desk as soon as it is made."""

    def __init__(self, desk: Desk, residents: Residents, codes: Codes) -> None:
        self._desk = desk
        self._residents = residents
        self._codes = codes
        desk.letters[LETTER] = self._receive
        desk.verdicts[LETTER] = self._settle

    # -- the inquirer ---------------------------------------------------------------------------------

    async def ask(self, inquiry_id: str, staff_id: str) -> Refusal | None:
        """Ask the provider of an inquiry to acquire codes of those for whom it has none (N-106).

        Refusals: I-226, I-225, I-105; A codes and L codes where the letter cannot be made.
        """
        desk = self._desk
        asked = reduce(
            inquiry.evolve,
            (r.event for r in await desk.ledger.stream(inquiry.stream(inquiry_id))),
            inquiry.State(),
        )
        request = asked.request
        number = _processing_number(asked)
        if request is None or not number:
            return Refusal("I-226")
        places = [place for place, said in sorted(asked.said.items()) if said.code == NO_CODE]
        now = desk.clock()
        at = now.isoformat(timespec="microseconds")
        bodies = []
        for place in places:
            items = await self._residents.items_for_request(request.subjects[place])
            if items is None:
                return Refusal("I-104")
            bodies.append(LetterBody(items))
        while True:
            seen, state = await self._state(number)
            message_id = uuid5(NAMESPACE_URL, f"{LETTER}/{inquiry_id}/{state.letters}").hex
            persons = tuple(request.persons[place] for place in places)
            wanted = CodeRequestSent(number, message_id, request.provider, persons, at, staff_id)
            decided = code_request.decide_send(state, wanted, self._kind(request.provider))
            if isinstance(decided, Refusal):
                return decided
            letter = LetterRequest(
                message_id=message_id,
                kind=LETTER,
                office=request.office,
                official_role=request.official_role,
                receiver=request.provider,
                to_office="",
                processing_number=number,
                letter_to="",
                law_version="",
                law_row="",
                information="",
                sent_at=at,
                link_codes=(),
                bodies=tuple(bodies),
            )
            sent = await desk.letter(letter, now)
            if isinstance(sent, Failed):
                return sent.refusal
            changes = (
                Change(code_request.stream(number), seen, decided),
                Change(outgoing.stream(message_id), 0, (sent,)),
            )
            try:
                outcome = await desk.ledger.append(Unit(f"{LETTER}/{message_id}", changes))
            except StreamMoved:
                continue
            return Refusal("I-105") if outcome.repeated else None

    def _kind(self, provider: str) -> str:
        directory = self._desk.linkage.directory
        partner = directory.partners.get(provider) if directory is not None else None
        return partner.agency.kind if partner is not None else ""

    async def _settle(self, verdict: NetworkVerdict) -> list[Change]:
        """The network's word on our letter."""
        seen, state = await self._state(verdict.processing_number)
        settled = CodeRequestSettled(verdict.message_id, verdict.code, verdict.decided_at)
        decided = code_request.decide_settle(state, settled)
        return [Change(code_request.stream(verdict.processing_number), seen, decided)] if decided else []

    # -- the provider ---------------------------------------------------------------------------------

    async def _receive(self, opened: ReceivedLetter, now: datetime) -> list[Change] | Failed:
        """Find the persons and register the wish to acquire their codes.

        The wish is recorded in addressing before this side's events are: a crash in between repeats it, which
        changes nothing.
        """
        control = opened.control
        items = [body.content for body in opened.bodies]
        if not items or not all(_whole(content) for content in items):
            return Failed(INWARD, Refusal("L-305", "content"))
        found = [await self._residents.find(content) for content in items]
        for number in found:
            if isinstance(number, str) and not await self._codes.valid(number):
                await self._residents.want(number)
        received = CodeRequestReceived(
            control.processing_number,
            control.message_id,
            control.sender,
            now.isoformat(timespec="microseconds"),
            tuple(self._desk.person(who) if isinstance(who, str) else "" for who in found),
            tuple("" if isinstance(who, str) else who.code for who in found),
            # What is needed to find somebody is kept only of those who were not found.
            tuple(
                _EMPTY if isinstance(who, str) else content for who, content in zip(found, items, strict=True)
            ),
        )
        seen, state = await self._state(control.processing_number)
        decided = code_request.decide_receive(state, received)
        if isinstance(decided, Refusal):
            return Failed(INWARD, decided)
        return [Change(code_request.stream(control.processing_number), seen, decided)]

    async def open_requests(self) -> list[OpenRequest]:
        """The list for an officer, the oldest first."""
        ledger, follower = self._desk.ledger, self._desk.follower
        await follower.reach(ledger.position)
        rows = await follower.query(
            "SELECT place, inquirer, received_at, code, position FROM code_request ORDER BY position, place"
        )
        opened = {r.position: r for r in await ledger.at(sorted({row[-1] for row in rows}))}
        return [
            OpenRequest(
                opened[position].event.processing_number,
                place,
                inquirer,
                at,
                code,
                _EMPTY if opened[position].erased else opened[position].event.items[place],
            )
            for place, inquirer, at, code, position in rows
        ]

    async def decide(
        self, processing_number: str, place: int, integrated_number: str, staff_id: str
    ) -> Refusal | None:
        """An officer's word: who the person is; with "", that there is none here. Refusals: I-227, B-007."""
        desk = self._desk
        if integrated_number and not await self._residents.knows(integrated_number):
            return Refusal("B-007")
        at = desk.clock().isoformat(timespec="microseconds")
        person = desk.person(integrated_number) if integrated_number else ""
        decision = CodeRequestDecided(place, person, "" if person else "I-223", at, staff_id)
        while True:
            seen, state = await self._state(processing_number)
            decided = code_request.decide_person(state, decision)
            if isinstance(decided, Refusal):
                return decided
            if integrated_number and not await self._codes.valid(integrated_number):
                await self._residents.want(integrated_number)
            key = code_request.stream(processing_number)
            try:
                await desk.ledger.append(Unit(f"{key}/{seen + 1}/{place}", (Change(key, seen, decided),)))
            except StreamMoved:
                continue
            return None

    async def _state(self, processing_number: str) -> tuple[int, code_request.State]:
        recorded = await self._desk.ledger.stream(code_request.stream(processing_number))
        return len(recorded), reduce(
            code_request.evolve, (happened.event for happened in recorded), code_request.State()
        )


def _processing_number(asked: inquiry.State) -> str:
    """The exchange of an inquiry: as permitted (of some persons), or as refused by the network."""
    if asked.permit is not None:
        return asked.permit.processing_number
    return getattr(asked.closing, "processing_number", "")


def _whole(content: Mapping[str, Any]) -> bool:
    return all(isinstance(content.get(item), str) and content[item] for item in ITEMS)
