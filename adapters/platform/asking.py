"""The inquirer's side of an agency: orders in, messages queued, answers taken, results fetched."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from json import dumps
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from adapters.http import Unreachable
from adapters.platform.desk import Desk, layouts_of
from adapters.platform.staffing import Staffing
from broker.intermediate import inquiry, link_code, staff
from broker.intermediate.inquiry import (
    InquiryAnswered,
    InquiryNotWithdrawn,
    InquiryRequested,
    RequestJoined,
)
from broker.ledger.events import SEALED, Recorded
from broker.ledger.ledger import STORE_TROUBLE, Change, Unit, trouble_code
from broker.linkage import outgoing
from broker.linkage.interface import INWARD, Failed
from schemas.errors import Refusal, Refused
from schemas.items import layout, validate
from schemas.law import table_at
from schemas.law.judgement import affair_of
from schemas.law.necessity import necessary_items
from schemas.messages import (
    MAX_RECORDS,
    InquiryRequest,
    InquirySubject,
    LetterRequest,
    NetworkVerdict,
    ReceivedAnswer,
)

GUARD_SALT = 16
TROUBLE = (Unreachable, Refused, *STORE_TROUBLE)
"""What keeps an order from being recorded and has nothing to do with it."""


@dataclass(frozen=True)
class InquiryOrder:
    """What a business system orders: one question about one or several persons (integrated numbers).

    `case_number` (事案番号) is the office's own mark for what belongs together, and nothing personal. Before
    `not_before` (ISO 8601 with its offset, "" for at once) nothing is sent. `repeats` is the request id of an
    inquiry that ended without an answer and is asked again (R-201). `terminal` is where it was ordered
    (R-079). `basis` is as in InquiryControl; on 19-9 `row` is a task of an ordinance of our own (R-376).
    """

    request_id: str
    staff_id: str
    provider: str
    row: str
    information: str
    layout: str
    fiscal_year: str
    subjects: tuple[str, ...]
    case_number: str = ""
    not_before: str = ""
    repeats: str = ""
    terminal: str = ""
    basis: str = "19-8"

    def __post_init__(self) -> None:
        if self.not_before and datetime.fromisoformat(self.not_before).tzinfo is None:
            raise ValueError("not_before lacks its offset")


@dataclass(frozen=True)
class InquiryResult:
    """What became of an order: state, code of a refusal, and for an answer what is said of each subject.

    `omitted` are the items of each that were asked for and are not provided.
    """

    request_id: str
    state: str
    code: str
    codes: tuple[str, ...]
    payloads: tuple[Any, ...]
    case_number: str = ""
    processing_number: str = ""
    layout: str = ""
    subjects: tuple[str, ...] = ()
    omitted: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class InquiryStatus:
    """Where an order stands (R-090), without what was said of anybody."""

    request_id: str
    state: str
    code: str
    case_number: str
    changed_at: str


@dataclass(frozen=True)
class Whereabouts:
    """Where an order is: the inquiry, the unit of it, the places of its persons, and what became of it."""

    state: inquiry.State
    unit: int
    places: range
    result: inquiry.UnitResult


@dataclass(frozen=True)
class Asked:
    """What is needed to ask about one person; `guard` is None for somebody not known here."""

    salt: bytes
    guard: bytes | None
    code: str

    @property
    def refusal(self) -> Refusal | None:
        if self.guard is None:
            return Refusal("I-104")
        return None if self.code else Refusal("I-103")


@dataclass(frozen=True)
class _Ordered:
    """An order with its place in the submission and the digest of its content."""

    place: int
    order: InquiryOrder
    digest: str


Verdicts = dict[int, Refusal | None]


class Asking(Desk):
    """Orders with their queued message are one unit; what is looked up is looked up for all at once."""

    def inquiry_id(self, request_id: str) -> str:
        """The same request always is the same inquiry, in every process and at any time."""
        return self._id(request_id)

    def _id(self, name: str) -> str:
        return uuid5(NAMESPACE_URL, f"renkei/{self.linkage.agency.code}/{name}").hex

    async def inquire(self, order: InquiryOrder) -> Refusal | None:
        """Record an order and queue its message. A refusal is recorded too, save I-105, B-008 and B-011."""
        verdicts: Verdicts = {}
        await self._together([self._ordered(0, order)], verdicts)
        return verdicts[0]

    async def inquire_many(self, orders: Sequence[InquiryOrder]) -> list[Refusal | None]:
        """Orders of one submission (一括), with a verdict each; as `inquire`, but in few messages.

        What goes to one provider under the same staff, row, information, layout and year is one inquiry with
        a unit for each order, or a few more where it would be too large. An order with a fault of its own is
        refused alone. Trouble with store or network (S codes) is the verdict of those whom it concerned.
        """
        verdicts: Verdicts = {}
        ordered = [self._ordered(place, order) for place, order in enumerate(orders)]
        first: dict[str, str] = {}
        fresh = []
        for each in ordered:
            known = first.setdefault(each.order.request_id, each.digest)
            if known is each.digest:
                fresh.append(each)
            else:
                verdicts[each.place] = Refusal("I-105" if known == each.digest else "B-008")
        for group in _groups(fresh):
            try:
                await self._together(group, verdicts)
            except TROUBLE as error:
                verdicts |= dict.fromkeys((each.place for each in group), trouble(error))
        return [verdicts[place] for place in range(len(ordered))]

    def _ordered(self, place: int, order: InquiryOrder) -> _Ordered:
        content = repr(replace(order, terminal=""))  # sent again from another terminal, it is the same order
        return _Ordered(place, order, self.ledger.vault.blind("order", content))

    async def _together(self, group: Sequence[_Ordered], verdicts: Verdicts) -> None:
        """Orders that can be one inquiry: recorded each once, whoever else orders the same at this moment."""
        await self._know(group[0].order.provider)
        while group := await self._unrecorded(group, verdicts):
            now = self._clock()
            order = group[0].order
            authority, refusal = await self.authorised(order.staff_id, order.row, order.basis, now)
            if refusal is None and order.layout not in layouts_of(order.information):
                refusal = Refusal("I-206")
            persons = await self.persons([number for each in group for number in each.order.subjects])
            faults = dict[int, Refusal | None]() if refusal else await self._faults(group, persons)
            sound = [each for each in group if each.place not in faults]
            for each in group:
                if each.place in faults:
                    unit = self._recorded([each], [], now, authority, faults[each.place])[0]
                    if await self._took(unit):
                        verdicts[each.place] = faults[each.place]
            if sound:
                asked = [
                    person
                    for each, places in zip(group, inquiry.units(_sizes(group)), strict=True)
                    if each.place not in faults
                    for person in persons[places.start : places.stop]
                ]
                unit, refusal = self._recorded(sound, asked, now, authority, refusal)
                if await self._took(unit):
                    verdicts |= dict.fromkeys((each.place for each in sound), refusal)
            group = [each for each in group if each.place not in verdicts]

    async def _unrecorded(self, group: Sequence[_Ordered], verdicts: Verdicts) -> list[_Ordered]:
        """Those that are new; for the others the verdict is that they are not."""
        keys = {each.place: inquiry.stream(self.inquiry_id(each.order.request_id)) for each in group}
        found = await self.ledger.streams(list(keys.values()))
        new = []
        for each in group:
            earlier = inquiry.repeated(inquiry_state(found[keys[each.place]]), each.digest)
            if earlier is not None:
                verdicts[each.place] = earlier
            elif len(each.order.subjects) > MAX_RECORDS:
                verdicts[each.place] = Refusal("B-011")
            else:
                new.append(each)
        return new

    async def _took(self, unit: Unit) -> bool:
        """False if somebody was first with one of these request ids."""
        outcome = await self._try(unit)
        return outcome is not None and not outcome.repeated

    async def authorised(
        self, staff_id: str, row: str, basis: str, now: datetime
    ) -> tuple[staff.AuthorityGranted | None, Refusal | None]:
        """What this member of staff may do today, and why not this."""
        return await Staffing(self).authority(staff_id, row, now.isoformat()[:10], basis=basis)

    async def persons(self, subjects: Sequence[str]) -> list[Asked]:
        """What is needed to ask about each of these persons."""
        salts = self._random(GUARD_SALT * len(subjects))
        drawn = [salts[i * GUARD_SALT : (i + 1) * GUARD_SALT] for i in range(len(subjects))]
        guards = await self.addressing.guards(list(zip(subjects, drawn, strict=True)))
        keys = [link_code.stream(self.person(number)) for number in subjects]
        found = await self.ledger.streams(keys)
        return [
            Asked(salt, guard, acquired.link_code if (acquired := link_code.valid(found[key])) else "")
            for salt, guard, key in zip(drawn, guards, keys, strict=True)
        ]

    async def _faults(self, group: Sequence[_Ordered], persons: Sequence[Asked]) -> dict[int, Refusal | None]:
        """What is wrong with an order itself and with no other of the group."""
        again = [each.order.repeats for each in group if each.order.repeats]
        ended = dict(zip(again, await self.whereabouts(again), strict=True)) if again else {}
        faults: dict[int, Refusal | None] = {}
        for each, places in zip(group, inquiry.units(_sizes(group)), strict=True):
            found = [person.refusal for person in persons[places.start : places.stop]]
            if each.order.repeats:
                found.append(inquiry.decide_again(ended[each.order.repeats].result))
            wrong = next(filter(None, found), None)
            if wrong is not None:
                faults[each.place] = wrong
        return faults

    def _recorded(
        self,
        group: Sequence[_Ordered],
        persons: Sequence[Asked],
        now: datetime,
        authority: staff.AuthorityGranted | None,
        refusal: Refusal | None,
    ) -> tuple[Unit, Refusal | None]:
        """The unit that records these orders as one inquiry, with its message or why there is none."""
        ids = [each.order.request_id for each in group]
        inquiry_id = self.inquiry_id(ids[0]) if len(ids) == 1 else self._id("together/" + "\n".join(ids))
        request = self._request(group, inquiry_id, now, authority)
        changes = []
        if refusal is None:
            sent = self.message(request, persons, now)
            if isinstance(sent, Failed):
                refusal = sent.refusal
                not_sent = outgoing.MessageNotSent(
                    inquiry_id, "inquiry", request.provider, refusal.code, sent.step
                )
                changes.append(Change(outgoing.stream(inquiry_id), 0, (not_sent,)))
            elif not request.not_before:
                changes.append(Change(outgoing.stream(inquiry_id), 0, (sent,)))
        changes.append(Change(inquiry.stream(inquiry_id), 0, inquiry.decide_request(request, refusal)))
        if len(ids) > 1:
            for unit, each in enumerate(group):
                joined = RequestJoined(inquiry_id, unit, each.digest)
                changes.append(Change(inquiry.stream(self.inquiry_id(ids[unit])), 0, (joined,)))
        return Unit(f"inquiry/{inquiry_id}", tuple(changes)), refusal

    def _request(
        self,
        group: Sequence[_Ordered],
        inquiry_id: str,
        now: datetime,
        authority: staff.AuthorityGranted | None,
    ) -> InquiryRequested:
        own = self.linkage.agency
        order = group[0].order
        directory = self.linkage.directory
        partner = directory.partners.get(order.provider) if directory is not None else None
        at = now.isoformat(timespec="microseconds")
        day = date.fromisoformat(at[:10])
        row = self.linkage.row_of(order.basis, own.code, order.provider, order.row, order.information, at)
        known = order.layout in layouts_of(order.information)
        later = order.not_before and datetime.fromisoformat(order.not_before) > now
        subjects = tuple(number for each in group for number in each.order.subjects)
        return InquiryRequested(
            inquiry_id=inquiry_id,
            request_ids=tuple(each.order.request_id for each in group),
            case_numbers=tuple(each.order.case_number for each in group),
            repeats=tuple(each.order.repeats for each in group),
            units=_sizes(group),
            persons=tuple(self.person(number) for number in subjects),
            staff_id=order.staff_id,
            terminal=order.terminal,
            office=authority.office if authority is not None else "",
            official_role=authority.official_role if authority is not None else "",
            inquirer=own.code,
            inquirer_name=own.name,
            provider=order.provider,
            provider_name=partner.agency.name if partner is not None else order.provider,
            basis=order.basis,
            law_version=table_at(day).version,
            law_row=order.row,
            affair=affair_of(
                order.basis,
                own.code,
                order.row,
                day,
                ordinances=directory.ordinances if directory is not None else None,
            ),
            information=order.information,
            layout=order.layout,
            items=necessary_items(row, layout(order.layout)) if known else (),
            fiscal_year=order.fiscal_year,
            requested_at=at,
            not_before=order.not_before if later else "",
            non_disclosure=False,
            digests=tuple(each.digest for each in group),
            subjects=subjects,
        )

    def message(
        self, request: InquiryRequested, persons: Sequence[Asked], now: datetime
    ) -> outgoing.MessageQueued | Failed:
        """The inquiry as a message: checked, signed and sealed."""
        asked = InquiryRequest(
            message_id=request.inquiry_id,
            office=request.office,
            official_role=request.official_role,
            provider=request.provider,
            basis=request.basis,
            law_version=request.law_version,
            law_row=request.law_row,
            information=request.information,
            layout=request.layout,
            items=request.items,
            units=request.units,
            requested_at=request.requested_at,
            non_disclosure=request.non_disclosure,
            link_codes=tuple(person.code for person in persons),
            subjects=tuple(InquirySubject(p.salt, p.guard or b"", request.fiscal_year) for p in persons),
        )
        return self.linkage.send_inquiry(asked, now, self._random)

    async def _permitted(self, verdict: NetworkVerdict) -> list[Change]:
        """The network's verdict on an inquiry of ours."""
        key = inquiry.stream(verdict.message_id)
        recorded = await self.ledger.stream(key)
        state = inquiry_state(recorded)
        decided: tuple[Any, ...] = inquiry.decide_verdict(state, verdict)
        changes = []
        if state.step == inquiry.WITHDRAWING and state.request is not None and decided and not verdict.code:
            letter = await self.withdrawal(state.request, verdict.processing_number, self._clock())
            if isinstance(letter, Failed):
                decided = (*decided, InquiryNotWithdrawn(letter.refusal.code, verdict.decided_at))
            else:
                changes.append(Change(outgoing.stream(letter.message_id), 0, (letter,)))
        return [Change(key, len(recorded), decided), *changes]

    async def withdrawal(
        self, request: InquiryRequested, processing_number: str, now: datetime
    ) -> outgoing.MessageQueued | Failed:
        """The letter that withdraws an inquiry (R-089). It names the inquiry as what it is about."""
        letter = LetterRequest(
            message_id=self._random(16).hex(),
            kind="withdrawal",
            office=request.office,
            official_role=request.official_role,
            receiver=request.provider,
            to_office="",
            processing_number=processing_number,
            letter_to=request.inquiry_id,
            law_version=request.law_version,
            law_row="",
            information="",
            sent_at=now.isoformat(timespec="microseconds"),
            link_codes=(),
            bodies=(),
        )
        return await self.letter(letter, now)

    async def _take(self, opened: ReceivedAnswer) -> list[Change] | Failed:
        """An answer comes home: to the inquiry that it replies to, if its content fits the layout."""
        key = inquiry.stream(opened.control.in_reply_to)
        # What earlier answers said stays closed: a large inquiry has many, and each would open all before it.
        recorded = (await self.ledger.outlines([key]))[key]
        state = inquiry_state(recorded)
        if state.request is None or state.request.provider != opened.control.provider:
            return Failed(INWARD, Refusal("L-107", "in_reply_to"))
        fitting, asked = layout(state.request.layout), frozenset(state.request.items)
        faults = tuple(
            "I-301" if not s.code and validate(fitting, s.payload, asked.difference(s.omitted)) else ""
            for s in opened.subjects
        )
        decided = inquiry.decide_answer(state, opened, faults)
        if isinstance(decided, Refusal):
            return Failed(INWARD, decided)
        return [Change(key, len(recorded), decided)]

    async def whereabouts(self, request_ids: Sequence[str]) -> list[Whereabouts]:
        """For each request the inquiry in which it is asked, its unit there, and what became of it."""
        keys = [inquiry.stream(self.inquiry_id(request_id)) for request_id in request_ids]
        states = await self._states(keys)
        named: dict[str, set[int]] = {}
        for joins in (state.joined for state in states.values()):
            if joins is not None:
                named.setdefault(inquiry.stream(joins.inquiry_id), set()).add(joins.unit)
        for key, outline in (await self.ledger.outlines(sorted(named))).items():
            states[key] = await self._state_of(outline, named[key])
        units = {
            key: list(inquiry.units(state.request.units))
            for key, state in states.items()
            if state.request is not None
        }
        found = []
        for own in keys:
            joins = states[own].joined
            key, unit = (own, 0) if joins is None else (inquiry.stream(joins.inquiry_id), joins.unit)
            places = units[key][unit] if key in units else range(0)
            found.append(Whereabouts(states[key], unit, places, inquiry.unit_result(states[key], places)))
        return found

    async def _states(self, keys: Sequence[str]) -> dict[str, inquiry.State]:
        return {key: inquiry_state(recorded) for key, recorded in (await self.ledger.streams(keys)).items()}

    async def _state_of(self, outline: Sequence[Recorded], units: Collection[int]) -> inquiry.State:
        """The state of a large inquiry in which only the answers about these units are opened."""
        asked = outline[0].event
        sizes = list(inquiry.units(asked.units))
        named = {place for unit in units for place in sizes[unit]}
        wanted = [
            happened.position
            for happened in outline
            if not isinstance(happened.event, InquiryAnswered) or named.intersection(happened.event.persons)
        ]
        opened = {happened.position: happened for happened in await self.ledger.at(wanted)}
        return inquiry_state(opened.get(happened.position, happened) for happened in outline)

    async def results(self, request_ids: Sequence[str]) -> list[InquiryResult]:
        """What became of orders; the asking system fetches it when it wants to (R-085)."""
        found = []
        for request_id, at in zip(request_ids, await self.whereabouts(request_ids), strict=True):
            result, request, permit = at.result, at.state.request, at.state.permit
            told = InquiryResult(request_id, result.state, result.code, result.codes, result.payloads)
            if request is not None:
                told = replace(
                    told,
                    case_number=request.case_numbers[at.unit],
                    processing_number=permit.processing_number if permit is not None else "",
                    layout=request.layout,
                    subjects=request.subjects[at.places.start : at.places.stop],
                    omitted=result.omitted,
                )
            found.append(told)
        return found

    async def inquiry_status(self, request_ids: Sequence[str]) -> list[InquiryStatus]:
        """Where orders stand; those that were never recorded are left out (R-090)."""
        rows = await self._requests(
            "SELECT request, state, code, case_number, changed_at FROM inquiry_request "
            "WHERE request IN (SELECT value FROM json_each(?))",
            dumps(list(request_ids)),
        )
        found = {row[0]: InquiryStatus(*row) for row in rows}
        return [found[request_id] for request_id in request_ids if request_id in found]

    async def of_case(self, case_number: str) -> list[str]:
        """The request ids of a case, in their order."""
        rows = await self._requests(
            "SELECT request FROM inquiry_case WHERE case_number = ? ORDER BY request", case_number
        )
        return [row[0] for row in rows]

    async def open_inquiries(self, request_ids: Sequence[str]) -> int:
        """How many of these orders wait for their time, a verdict or an answer."""
        return len(await self.still_open(request_ids))

    async def still_open(self, request_ids: Iterable[str]) -> set[str]:
        """Those of these orders that wait for their time, a verdict or an answer."""
        rows = await self._requests(
            "SELECT request FROM inquiry_request WHERE open > 0 "
            "AND request IN (SELECT value FROM json_each(?))",
            dumps(list(request_ids)),
        )
        return {row[0] for row in rows}

    async def _requests(self, sql: str, parameter: str) -> list[tuple[Any, ...]]:
        await self.follower.reach(self.ledger.position)
        return await self.follower.query(sql, (parameter,))


def inquiry_state(recorded: Iterable[Recorded]) -> inquiry.State:
    """The state of an inquiry from its events. What was erased says so (I-207), what is closed nothing."""
    state = inquiry.State()
    for happened in recorded:
        told = happened.event
        if happened.erased and isinstance(told, InquiryAnswered):
            codes = tuple(code or "I-207" for code in told.codes)
            told = replace(told, codes=codes, omitted=((),) * len(codes), payloads=({},) * len(codes))
        elif isinstance(told, InquiryAnswered) and told.payloads is SEALED:
            told = replace(told, omitted=((),) * len(told.codes), payloads=({},) * len(told.codes))
        elif happened.erased and isinstance(told, InquiryRequested):
            told = replace(told, subjects=("",) * len(told.persons))
        state = inquiry.evolve(state, told)
    return state


def trouble(error: Exception) -> Refusal:
    """What to tell somebody whose order could not be looked at."""
    if isinstance(error, Refused):
        return error.refusal
    return Refusal("S-103" if isinstance(error, Unreachable) else trouble_code(error))


def _sizes(group: Sequence[_Ordered]) -> tuple[int, ...]:
    return tuple(len(each.order.subjects) for each in group)


def _groups(ordered: Sequence[_Ordered]) -> Iterator[list[_Ordered]]:
    """What can be one inquiry, as far as it is not too large. An order about nobody spoils no other."""
    alike: dict[Any, list[_Ordered]] = {}
    for each in ordered:
        o = each.order
        alone = o.request_id if not 0 < len(o.subjects) <= MAX_RECORDS else ""
        question = (o.provider, o.row, o.information, o.layout, o.fiscal_year, o.basis)
        alike.setdefault((*question, o.staff_id, o.terminal, o.not_before, alone), []).append(each)
    for group in alike.values():
        part: list[_Ordered] = []
        size = 0
        for each in group:
            if part and size + len(each.order.subjects) > MAX_RECORDS:
                yield part
                part, size = [], 0
            part.append(each)
            size += len(each.order.subjects)
        yield part
