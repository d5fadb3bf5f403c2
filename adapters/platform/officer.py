"""The officer's desk of a provider: what waits, what was asked, and what is decided about it.

R-093 to R-096, R-106, R-108. Everything that is shown or decided here is recorded with who, when and what
for; a decision in one unit with the answers that it lets go.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from datetime import datetime
from typing import Any

from adapters.platform.answering import message_ids, provision_state
from adapters.platform.holdings import HoldOrder
from adapters.platform.inprocess import Platform
from adapters.platform.staffing import Caller, Staffing
from broker.intermediate import approval, provision, second_person
from broker.intermediate.approval import Decision
from broker.intermediate.operation import Officer
from broker.intermediate.provision import ProvisionRequested
from broker.ledger.ledger import Change, StreamMoved, Unit
from broker.linkage.interface import Failed
from schemas.errors import Refusal

PROTECTED, RELEASE_HOLD = "protected_person", "release_hold"
_OPERATIONS = {
    approval.APPROVE: "approve_answer",
    approval.LIMIT: "limit_answer",
    approval.REFUSE: "refuse_answer",
    approval.RELEASE: "release_answer",
}


@dataclass(frozen=True)
class Waiting:
    """A provision that waits for an officer: `kind` is "held", or "afterwards" for one that went already.

    `proposed` tells that a second officer has to release it. Nothing here says about whom it is.
    """

    processing_number: str
    kind: str
    persons: int
    proposed: bool
    inquirer_name: str
    office: str
    law_row: str
    information: str
    requested_at: str
    valid_until: str
    mode: str


@dataclass(frozen=True)
class WaitingPerson:
    """One person of a held provision, and what would be sent about her, or its code."""

    integrated_number: str = field(repr=False)
    reasons: tuple[str, ...]
    fiscal_year: str
    code: str
    payload: Mapping[str, Any] = field(repr=False)
    omitted: tuple[str, ...]


@dataclass(frozen=True)
class InquiryContent:
    """The content of an inquiry as its provider sees it before answering by hand (R-108).

    `proposal` is what a first officer proposed: what is withheld, as integrated numbers and items.
    """

    waiting: Waiting
    inquirer: str
    official_role: str
    basis: str
    affair: str
    layout: str
    items: tuple[str, ...]
    units: tuple[int, ...]
    persons: tuple[WaitingPerson, ...]
    withheld_persons: tuple[str, ...] = field(repr=False)
    withheld_items: tuple[str, ...]


@dataclass(frozen=True)
class DecisionOrder:
    """What an officer orders. `verdict` is one of approval.VERDICTS, or for what went already "confirm" or
    "object". Persons are integrated numbers; no `persons` stands for all that are held.
    """

    processing_number: str
    verdict: str
    persons: tuple[str, ...] = field(repr=False)
    withheld_persons: tuple[str, ...] = field(repr=False)
    withheld_items: tuple[str, ...]


class OfficersDesk:
    """What officers of an agency do about what it provides."""

    def __init__(self, platform: Platform, staffing: Staffing) -> None:
        self._platform = platform
        self._staffing = staffing

    async def hold(self, caller: Caller, order: HoldOrder, act_id: str = "") -> Refusal | None:
        """Set or release a hold by hand; the hold on a protected person is released by two persons.

        The first one's release waits (I-129 with its id as detail), the second one's gives that id. Other
        refusals: those of a hold, and I-121 to I-124.
        """
        while True:
            change = await self._platform.hold_change(order)
            if isinstance(change, Refusal):
                return change
            if not change.events:
                return None
            beside = await self._by_whom(caller, order, act_id)
            if isinstance(beside, Refusal):
                return beside
            try:
                await self._platform.ledger.append(
                    Unit(f"{change.stream}#{change.seen + 1}/{beside[-1].stream}", (change, *beside))
                )
            except StreamMoved:
                continue
            return None

    async def _by_whom(self, caller: Caller, order: HoldOrder, act_id: str) -> list[Change] | Refusal:
        """The record of who sets or releases a hold, and the confirmation where that takes two."""
        if not order.wanted and order.reason == PROTECTED and second_person.needed(RELEASE_HOLD):
            content = repr(astuple(order))
            if act_id:
                return await self._staffing.confirmation(caller, act_id, RELEASE_HOLD, content)
            proposed = await self._staffing.propose(caller, RELEASE_HOLD, content)
            return proposed if isinstance(proposed, Refusal) else Refusal("I-129", proposed)
        officer = await self._staffing.officer(caller, "answer")
        if isinstance(officer, Refusal):
            return officer
        word = "set_hold" if order.wanted else "release_hold"
        numbers = (order.integrated_number,) if order.integrated_number else ()
        return [self._staffing.operation(word, officer, numbers)]

    async def waiting(self, caller: Caller) -> list[Waiting]:
        """What waits for this officer, the oldest first; nothing that others are in charge of."""
        await self._platform.follower.reach(self._platform.ledger.position)
        rows = await self._platform.follower.query(
            "SELECT stream, kind, persons, proposed FROM awaiting_approval ORDER BY position"
        )
        streams = await self._platform.ledger.streams([key for key, *_ in rows])
        charge: dict[tuple[str, ...], bool] = {}
        found = []
        for key, kind, persons, proposed in rows:
            state = provision_state(streams[key])
            if state.request is None:
                continue
            asked = state.request
            work = (asked.basis, asked.inquirer, asked.law_row, asked.information, asked.requested_at[:10])
            if work not in charge:
                charge[work] = await self._authority(caller, state.request) is not None
            if charge[work]:
                found.append(self._waiting(state, state.request, kind, persons, bool(proposed)))
        return found

    def _waiting(
        self, state: provision.State, request: ProvisionRequested, kind: str, persons: int, proposed: bool
    ) -> Waiting:
        reasons = {why for place in state.places(provision.HELD) for why in state.held[place][0]}
        return Waiting(
            processing_number=request.processing_number,
            kind=kind,
            persons=persons,
            proposed=proposed,
            inquirer_name=request.inquirer_name,
            office=request.office,
            law_row=request.law_row,
            information=request.information,
            requested_at=request.requested_at,
            valid_until=request.valid_until,
            mode=self._platform.policy.mode(
                request.law_row, request.information, sorted(reasons - {provision.APPROVAL})
            ),
        )

    async def show(self, caller: Caller, processing_number: str) -> InquiryContent | Refusal:
        """What was asked and what would be sent; that it was looked at is recorded before. I-232, I-236."""
        state, _ = await self._platform.provision(processing_number)
        request = state.request
        places = state.places(provision.HELD)
        if request is None or not places:
            return Refusal("I-232")
        officer = await self._authority(caller, request)
        if officer is None:
            return Refusal("I-236")
        numbers = _numbers(request, places)
        noted = self._staffing.operation(
            "read_inquiry", officer, numbers, provision.stream(processing_number)
        )
        await self._platform.ledger.append(Unit(noted.stream, (noted,)))
        facts = await self._facts(state, request)
        proposal = state.proposal
        return InquiryContent(
            waiting=self._waiting(state, request, approval.HELD, len(places), proposal is not None),
            inquirer=request.inquirer,
            official_role=request.official_role,
            basis=request.basis,
            affair=request.affair,
            layout=request.layout,
            items=request.items,
            units=request.units,
            persons=tuple(
                WaitingPerson(
                    request.subjects[place],
                    state.held[place][0],
                    request.fiscal_years[place],
                    said.code,
                    said.payload,
                    said.omitted,
                )
                for place in places
                for said in (approval.limited(facts[place], state.held[place][1], ()),)
            ),
            withheld_persons=_numbers(request, proposal.withheld_persons if proposal is not None else ()),
            withheld_items=proposal.withheld_items if proposal is not None else (),
        )

    async def decide(self, caller: Caller, orders: Sequence[DecisionOrder]) -> list[Refusal | None]:
        """Carry out decisions, each by itself; what became of each.

        I-237 says that a second officer has to release it; all others say why nothing was done.
        """
        return [await self._decide(caller, order, len(orders) > 1) for order in orders]

    async def _decide(self, caller: Caller, order: DecisionOrder, together: bool) -> Refusal | None:
        while True:
            outcome = await self._decided(caller, order, together)
            if isinstance(outcome, Refusal):
                return outcome
            key = outcome[0].stream
            unit = Unit(f"decided/{key}#{outcome[0].seen + 1}/{outcome[-1].stream}", tuple(outcome))
            try:
                await self._platform.ledger.append(unit)
            except StreamMoved:
                continue
            proposed = isinstance(outcome[0].events[0], provision.DecisionProposed)
            return Refusal("I-237") if proposed else None

    async def _decided(self, caller: Caller, order: DecisionOrder, together: bool) -> list[Change] | Refusal:
        """The changes of one unit: first the decision, last the record of who decided."""
        now = self._platform.clock()
        at = now.isoformat(timespec="microseconds")
        state, seen = await self._platform.provision(order.processing_number)
        request = state.request
        if request is None:
            return Refusal("I-232")
        key = provision.stream(order.processing_number)
        if order.verdict in ("confirm", "object"):
            officer = await self._authority(caller, request)
            if officer is None:
                return Refusal("I-236")
            reviewed = approval.decide_review(
                state, order.verdict == "confirm", caller.staff_id, caller.purpose, at
            )
            if isinstance(reviewed, Refusal):
                return reviewed
            noted = self._staffing.operation("approve_answer", officer, target=key)
            return [Change(key, seen, reviewed), noted]
        if order.verdict not in approval.VERDICTS:
            return Refusal("I-238")
        decision = _decision(request, order, caller)
        if isinstance(decision, Refusal):
            return decision
        places = approval.concerned(state, decision)
        if isinstance(places, Refusal):
            return places
        acting = await self._acting(caller, decision, state, request)
        if isinstance(acting, Refusal):
            return acting
        if now > datetime.fromisoformat(request.valid_until):
            return Refusal("I-235")
        facts, holds = await self._facts_and_holds(state, request)
        decided = approval.decide(
            state,
            decision,
            places,
            dict(enumerate(facts)),
            self._platform.policy,
            together,
            at,
            message_ids(request),
        )
        if isinstance(decided, Refusal):
            return decided
        officer, role = acting
        queued = self._platform.queued(request, decided.answers, (role.office, role.official_role), now)
        if isinstance(queued, Failed):
            return queued.refusal
        noted = self._staffing.operation(_OPERATIONS[order.verdict], officer, _numbers(request, places), key)
        return [Change(key, seen, decided.events), *holds, *queued, noted]

    async def _acting(
        self, caller: Caller, decision: Decision, state: provision.State, request: ProvisionRequested
    ) -> tuple[Officer, Officer] | Refusal:
        """Who decides, and in whose office and role the answer is made.

        A second person has to be in charge of the work too, or one who approves; the answer then is the first
        one's.
        """
        officer = await self._authority(caller, request)
        if decision.verdict != approval.RELEASE or state.proposal is None:
            return (officer, officer) if officer is not None else Refusal("I-236")
        first = await self._authority(
            Caller(state.proposal.staff_id, caller.terminal, caller.purpose), request
        )
        if officer is None:
            approver = await self._staffing.officer(caller, "approve")
            officer = approver if isinstance(approver, Officer) else None
        return (officer, first) if officer is not None and first is not None else Refusal("I-236")

    async def _authority(self, caller: Caller, request: ProvisionRequested) -> Officer | None:
        """Who orders, if in charge of answering under this row today: a task of the inquirer's ordinance is
        answered by whoever answers under the row to which it corresponds."""
        day = self._platform.clock().isoformat()[:10]
        row = self._platform.linkage.row_of(
            request.basis,
            request.inquirer,
            request.provider,
            request.law_row,
            request.information,
            request.requested_at,
        )
        granted, refusal = await self._staffing.authority(caller.staff_id, row, day, "answer", request.basis)
        if granted is None or refusal is not None:
            return None
        return Officer(
            caller.staff_id, granted.office, granted.official_role, caller.terminal, caller.purpose
        )

    async def _facts(
        self, state: provision.State, request: ProvisionRequested
    ) -> list[provision.SubjectFacts]:
        return (await self._facts_and_holds(state, request))[0]

    async def _facts_and_holds(
        self, state: provision.State, request: ProvisionRequested
    ) -> tuple[list[provision.SubjectFacts], list[Change]]:
        """As of now. Whether each was the right person was found out when the inquiry came."""
        right = [not state.held.get(place, ((), ""))[1] for place in range(len(request.persons))]
        day = self._platform.clock().isoformat()[:10]
        return await self._platform.facts(request, right, day)


def _numbers(request: ProvisionRequested, places: Sequence[int]) -> tuple[str, ...]:
    return tuple(number for place in places if (number := request.subjects[place]))


def _decision(request: ProvisionRequested, order: DecisionOrder, caller: Caller) -> Decision | Refusal:
    """An order with places in place of numbers. I-238 for somebody whom the inquiry is not about."""
    place_of = {number: place for place, number in enumerate(request.subjects) if number}
    if not {*order.persons, *order.withheld_persons} <= place_of.keys():
        return Refusal("I-238")
    return Decision(
        order.verdict,
        tuple(place_of[number] for number in order.persons),
        tuple(place_of[number] for number in order.withheld_persons),
        order.withheld_items,
        caller.staff_id,
        caller.purpose,
    )
