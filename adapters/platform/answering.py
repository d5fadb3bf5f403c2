"""The provider's side of an agency: look up, decide, and make the answers."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Protocol

from adapters.platform.desk import Desk, layouts_of
from broker.intermediate import disclosure, hold, provision
from broker.intermediate.provision import Answer, ProvisionRequested, SubjectFacts
from broker.ledger.events import Recorded
from broker.ledger.ledger import Change, Unit
from broker.linkage import outgoing
from broker.linkage.interface import (
    INWARD,
    REPLAY,
    Failed,
    answer_id,
)
from schemas.errors import Refusal
from schemas.items import layout
from schemas.law.approval import Policy, published
from schemas.law.judgement import ORDINANCE, affair_of
from schemas.law.ordinances import may_decline
from schemas.messages import AnswerRequest, NetworkVerdict, ReceivedInquiry, ReceivedLetter

AUTOMATIC = ("", "automatic_response")
"""Office and official role of an answer that nobody made by hand."""


class Wanted(Protocol):
    """What is wanted of everybody's records: by an inquiry, or by a notice of our own."""

    @property
    def persons(self) -> tuple[str, ...]: ...
    @property
    def fiscal_years(self) -> tuple[str, ...]: ...
    @property
    def law_row(self) -> str: ...
    @property
    def information(self) -> str: ...
    @property
    def layout(self) -> str: ...
    @property
    def items(self) -> tuple[str, ...]: ...


class Answering(Desk):
    """The answers, their provision record and their queued messages are one unit.

    `policy` says which answers wait for an officer's approval.
    """

    def _begin(self) -> None:
        super()._begin()
        self.policy: Policy = published()
        self.letters["withdrawal"] = self._withdrawn

    async def _provide(self, opened: ReceivedInquiry, now: datetime) -> list[Change] | Failed:
        """Look up, decide, and make the answers: the changes of one unit."""
        at = now.isoformat(timespec="microseconds")
        key = provision.stream(opened.permit.processing_number)
        recorded = await self.ledger.stream(key)
        earlier = provision_state(recorded)
        if earlier.request is not None:
            return Failed(REPLAY, Refusal("L-304", "processing_number"))
        numbers = await self._numbers(opened.permit.link_codes)
        salts = [subject.guard_salt for subject in opened.subjects]
        guards = await self.addressing.guards(list(zip(numbers, salts, strict=True)))
        request = self._provision_request(opened, numbers)
        if earlier.withdrawn_at:  # the withdrawal was taken in before the inquiry: it is recorded, no more
            return [Change(key, len(recorded), (request, provision.ProvisionWithdrawn(earlier.withdrawn_at)))]
        fits = [digest == s.guard for digest, s in zip(guards, opened.subjects, strict=True)]
        facts, seen = await self.facts(request, fits, at[:10])
        decided = provision.decide_provide(
            provision.evolve(earlier, request),
            facts,
            lambda reasons: self.policy.mode(request.law_row, request.information, reasons),
            self._refused(request),
            at,
            message_ids(request),
        )
        if isinstance(decided, Refusal):
            return Failed(INWARD, decided)
        queued = self.queued(request, decided.answers, AUTOMATIC, now)
        if isinstance(queued, Failed):
            return queued
        return [Change(key, 0, (request, *decided.events)), *seen, *queued]

    def queued(
        self, request: ProvisionRequested, answers: Iterable[Answer], acting: tuple[str, str], now: datetime
    ) -> list[Change] | Failed:
        """The messages of these answers, checked, signed and sealed; `acting` is who: office and role."""
        office, official_role = acting
        changes = []
        for answer in answers:
            message = AnswerRequest(
                message_id=answer.message_id,
                in_reply_to=request.inquiry_message,
                processing_number=request.processing_number,
                inquirer=request.inquirer,
                office=office,
                official_role=official_role,
                basis=request.basis,
                law_version=request.law_version,
                law_row=request.law_row,
                information=request.information,
                requested_at=request.requested_at,
                code=answer.code,
                persons=answer.persons,
                answered_at=now.isoformat(timespec="microseconds"),
                non_disclosure=answer.non_disclosure,
                link_codes=tuple(request.link_codes[place] for place in answer.persons),
                subjects=answer.subjects,
            )
            sent = self.linkage.send_answer(message, now, self._random)
            if isinstance(sent, Failed):
                return sent
            changes.append(Change(outgoing.stream(answer.message_id), 0, (sent,)))
        return changes

    async def _numbers(self, codes: Sequence[str]) -> tuple[str, ...]:
        """The integrated number behind each link code, "" where there is none."""
        await self.follower.reach(self.ledger.position)
        indexes = [self.ledger.vault.blind("link_code", code) if code else "" for code in codes]
        rows = await self.follower.query(
            "SELECT code_index, position FROM code_conversion "
            "WHERE code_index IN (SELECT value FROM json_each(?))",
            (json.dumps(indexes),),
        )
        opened = await self._opened(position for _, position in rows)
        found = {i: opened[position].event.integrated_number for i, position in rows if position in opened}
        return tuple(found.get(index, "") for index in indexes)

    async def _opened(self, positions: Iterable[int]) -> dict[int, Recorded]:
        """The events at these positions that are not erased."""
        return {r.position: r for r in await self.ledger.at(list(positions)) if not r.erased}

    async def facts(
        self, request: Wanted, guards: Sequence[bool], day: str
    ) -> tuple[list[SubjectFacts], list[Change]]:
        """What is to be known about everybody of a request: holds, flags and the reference database.

        The changes require that the holds that were read have not moved when an answer becomes durable.
        """
        persons = sorted({person for person in request.persons if person})
        holds, seen = await self._holds(persons)
        flags: dict[str, list[disclosure.Flag]] = {}
        flagged = await self.follower.query(
            "SELECT person, layout, fiscal_year FROM non_disclosure "
            "WHERE person IN (SELECT value FROM json_each(?))",
            (json.dumps(persons),),
        )
        for person, key, year in flagged:
            flags.setdefault(person, []).append((key, year))
        places = await self._published(persons, request.layout, day)
        records = await self._opened(set(places.values()))
        known = self._layout_of(request)
        found = []
        for person, year, fits in zip(request.persons, request.fiscal_years, guards, strict=True):
            if not person:
                found.append(provision.NOBODY)
                continue
            kept = records.get(places.get((person, year), 0))
            record: Mapping[str, Any] = kept.event.payload if kept is not None else {}
            payload = {item: record[item] for item in request.items if item in record}
            found.append(
                SubjectFacts(
                    person=person,
                    guard_fits=fits,
                    reasons=hold.barring(
                        (*holds.get(person, ()), *holds.get("", ())),
                        self._asked(request, person, year, record, holds.get("", ())),
                        day,
                    ),
                    source=kept.position if kept is not None else 0,
                    payload=payload,
                    omitted=tuple(item for item in request.items if item in known and item not in record),
                    non_disclosure=any(
                        disclosure.hides(flag, request.layout, year) for flag in flags.get(person, ())
                    ),
                )
            )
        return found, seen

    async def _published(self, persons: Sequence[str], key: str, day: str) -> dict[tuple[str, str], int]:
        """Where the records of this layout stand that are published on this day, by person and year."""
        rows = await self.follower.query(
            "SELECT r.person, r.fiscal_year, r.position FROM reference_database r "
            "LEFT JOIN publication p USING (person, layout, fiscal_year) WHERE r.layout = ? "
            "AND r.person IN (SELECT value FROM json_each(?)) "
            "AND (COALESCE(p.until, '') = '' OR p.until >= ?)",
            (key, json.dumps(persons), day),
        )
        return {(who, year): position for who, year, position in rows}

    async def _holds(self, persons: Sequence[str]) -> tuple[dict[str, list[hold.HoldSet]], list[Change]]:
        """Holds by person ("" for those on everybody), and how far their streams have come.

        The streams first: a hold that is set between the two questions then moves a stream that was read.
        """
        await self.follower.reach(self.ledger.position)
        streams = [hold.EVERYBODY, *map(hold.stream, persons)]
        rows = await self.follower.query(
            "SELECT stream, version FROM hold_stream WHERE stream IN (SELECT value FROM json_each(?))",
            (json.dumps(streams),),
        )
        versions = dict(rows)
        seen = [Change(stream, versions.get(stream, 0)) for stream in streams]
        rows = await self.follower.query(
            "SELECT position FROM hold WHERE person = '' OR person IN (SELECT value FROM json_each(?))",
            (json.dumps(persons),),
        )
        found: dict[str, list[hold.HoldSet]] = {}
        for recorded in await self.ledger.at([position for (position,) in rows]):
            found.setdefault(recorded.event.person, []).append(recorded.event)
        return found, seen

    def _asked(
        self,
        request: Wanted,
        person: str,
        year: str,
        record: Mapping[str, Any],
        everybody: Iterable[hold.HoldSet],
    ) -> hold.Asked:
        watched = {each.item for each in everybody if each.value_index}
        values = frozenset(
            self.value_index(item, value)
            for item in watched & record.keys()
            for value in (record[item] if isinstance(record[item], list | tuple) else (record[item],))
        )
        return hold.Asked(person, request.layout, year, request.law_row, request.items, values)

    def _layout_of(self, request: Wanted) -> frozenset[str]:
        """The items that a record of this layout always has."""
        if request.layout not in layouts_of(request.information):
            return frozenset()
        return frozenset(item.code for item in layout(request.layout).leaves if item.min_occurs)

    def _provision_request(self, opened: ReceivedInquiry, numbers: tuple[str, ...]) -> ProvisionRequested:
        control, permit = opened.control, opened.permit
        directory = self.linkage.directory
        partner = directory.partners.get(control.inquirer) if directory is not None else None
        day = date.fromisoformat(control.requested_at[:10])
        return ProvisionRequested(
            processing_number=permit.processing_number,
            inquiry_message=control.message_id,
            persons=tuple(self.person(number) if number else "" for number in numbers),
            units=control.units,
            codes=permit.codes,
            office=control.office,
            official_role=control.official_role,
            inquirer=control.inquirer,
            inquirer_name=partner.agency.name if partner is not None else "",
            provider=self.linkage.agency.code,
            provider_name=self.linkage.agency.name,
            basis=control.basis,
            law_version=control.law_version,
            law_row=control.law_row,
            affair=affair_of(
                control.basis,
                control.inquirer,
                control.law_row,
                day,
                ordinances=directory.ordinances if directory is not None else None,
            ),
            information=control.information,
            layout=control.layout,
            items=control.items,
            requested_at=control.requested_at,
            valid_until=permit.valid_until,
            non_disclosure=control.non_disclosure,
            subjects=numbers,
            link_codes=permit.link_codes,
            fiscal_years=tuple(subject.fiscal_year for subject in opened.subjects),
        )

    def _refused(self, request: ProvisionRequested) -> str:
        """Why nothing is said about anybody, or "": no such layout, or our ordinance does not give it to
        ordinance tasks of others (I-214; Act art. 26, R-377)."""
        if request.layout not in layouts_of(request.information):
            return "I-206"
        directory = self.linkage.directory
        own = directory.ordinances.get(request.provider) if directory is not None else None
        if own is None or request.basis != ORDINANCE:
            return ""
        declined = may_decline(own, request.information, date.fromisoformat(request.requested_at[:10]))
        return declined.code if declined is not None else ""

    async def provision(self, processing_number: str) -> tuple[provision.State, int]:
        """How a provision stands, and at which version."""
        recorded = await self.ledger.stream(provision.stream(processing_number))
        return provision_state(recorded), len(recorded)

    async def _not_relayed(self, processing_number: str, verdict: NetworkVerdict) -> list[Change]:
        """An answer that the network refused was no provision: the record says so."""
        state, seen = await self.provision(processing_number)
        if state.request is None:
            return []
        decided = provision.decide_not_relayed(state, verdict.message_id, verdict.code, verdict.decided_at)
        return [Change(provision.stream(processing_number), seen, decided)]

    async def _withdrawn(self, letter: ReceivedLetter, now: datetime) -> list[Change] | Failed:
        """The inquirer's letter of withdrawal: from here on nothing leaves (取りやめ)."""
        number = letter.note.processing_number
        if not number:
            return Failed(INWARD, Refusal("L-107", "processing_number"))
        state, seen = await self.provision(number)
        if state.request is not None and state.request.inquirer != letter.note.sender:
            return Failed(INWARD, Refusal("L-107", "sender"))
        decided = provision.decide_withdraw(state, now.isoformat(timespec="microseconds"))
        return [Change(provision.stream(number), seen, decided)]

    async def expire(self, now: datetime) -> int:
        """End what is held under permits that have lapsed (ordinance art. 41(3)); how many provisions."""
        at = now.isoformat(timespec="microseconds")
        await self.follower.reach(self.ledger.position)
        rows = await self.follower.query(
            "SELECT stream, valid_until FROM awaiting_approval WHERE kind = 'held'"
        )
        ended = 0
        for key, valid_until in rows:
            if datetime.fromisoformat(valid_until) >= now:
                continue
            recorded = await self.ledger.stream(key)
            decided = provision.decide_expire(provision_state(recorded), at)
            if decided:  # whoever decided meanwhile moved the stream, and is looked at again next time
                change = Change(key, len(recorded), decided)
                ended += await self._try(Unit(f"expired/{key}", (change,))) is not None
        return ended


def provision_state(recorded: Iterable[Recorded]) -> provision.State:
    """The state of a provision from its events."""
    state = provision.State()
    for happened in recorded:
        state = provision.evolve(state, happened.event)
    return state


def message_ids(request: ProvisionRequested) -> Callable[[int], str]:
    """The ids of the answers under a permit, the same whoever computes them and how often."""
    return lambda part: answer_id(f"{request.processing_number}/{part}")
