"""What officers decide about held provisions, and afterwards about automatic ones (R-093 to R-096, R-106).

How strictly depends on the work, the information and the reasons of the holds, as the agency's policy says
(`schemas.law.approval`). A refusal needs one officer only: nothing leaves by it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from broker.intermediate import provision
from broker.intermediate.provision import Decided, Said, State, SubjectFacts
from broker.ledger.events import Recorded
from broker.ledger.projections import Rows
from schemas.errors import Refusal
from schemas.law.approval import FOUR_EYES, ONE_BY_ONE, Policy

APPROVE, REFUSE, LIMIT, RELEASE = VERDICTS = ("approve", "refuse", "limit", "release")
WITHHELD = "I-231"
HELD, AFTERWARDS = "held", "afterwards"


@dataclass(frozen=True)
class Decision:
    """What an officer says about held persons (places; none stands for all that are held).

    "approve" lets everything go, "limit" all but the persons and items withheld, "refuse" nothing. Where the
    policy wants four eyes, these two are proposals, and "release" by somebody else carries one out.
    """

    verdict: str
    persons: tuple[int, ...]
    withheld_persons: tuple[int, ...]
    withheld_items: tuple[str, ...]
    staff_id: str
    purpose: str


def concerned(state: State, decision: Decision) -> tuple[int, ...] | Refusal:
    """The held persons that a decision is about: always whole units (I-232, I-238)."""
    if state.request is None:
        return Refusal("I-232")
    held = state.places(provision.HELD)
    if decision.verdict == RELEASE:
        return state.proposal.persons if state.proposal is not None else Refusal("I-232")
    named = frozenset(decision.persons or held)
    units = provision.units_of(state.request.units)
    places = tuple(place for unit in units if not named.isdisjoint(unit) for place in unit)
    if not places or not named <= set(held):
        return Refusal("I-232")
    limits = decision.withheld_persons or decision.withheld_items
    if (
        bool(limits) != (decision.verdict == LIMIT)
        or not set(decision.withheld_persons) <= set(places)
        or not set(decision.withheld_items) <= set(state.request.items)
    ):
        return Refusal("I-238")
    return places


def decide(
    state: State,
    decision: Decision,
    places: tuple[int, ...],
    facts: Mapping[int, SubjectFacts],
    policy: Policy,
    together: bool,
    now: str,
    message_id: provision.MessageId,
) -> Decided | Refusal:
    """Carry out, or put down as a proposal, what an officer says about the held persons `places`.

    `facts` are as of now; whether a link code was the right one was found out when the inquiry came.
    `together` tells that several decisions came at once (I-234). `now` is before the permit lapses.
    """
    request = state.request
    if request is None:
        return Refusal("I-232")
    if decision.verdict == REFUSE:
        units = _units(state, places)
        said = {place: Said("I-205") for place in places}
        denied = provision.ProvisionDenied(now, places, decision.staff_id, decision.purpose)
        sent = provision.answered(state, units, said, now, message_id)
        return Decided((denied, *sent.events), sent.answers)
    reasons = {why for place in places for why in (*state.held[place][0], *facts[place].reasons)}
    mode = policy.mode(request.law_row, request.information, sorted(reasons - {provision.APPROVAL}))
    if together and mode in (ONE_BY_ONE, FOUR_EYES):
        return Refusal("I-234")
    if decision.verdict != RELEASE:
        if mode == FOUR_EYES:
            return Decided((_proposed(decision, places, now),))
        return _released(state, _proposed(decision, places, now), decision, facts, now, message_id)
    proposal = state.proposal
    if proposal is None:
        return Refusal("I-232")
    if proposal.staff_id == decision.staff_id:
        return Refusal("I-233")
    return _released(state, proposal, decision, facts, now, message_id)


def _proposed(decision: Decision, places: tuple[int, ...], now: str) -> provision.DecisionProposed:
    return provision.DecisionProposed(
        now,
        places,
        decision.withheld_persons,
        decision.withheld_items,
        decision.staff_id,
        decision.purpose,
    )


def _released(
    state: State,
    content: provision.DecisionProposed,
    decision: Decision,
    facts: Mapping[int, SubjectFacts],
    now: str,
    message_id: provision.MessageId,
) -> Decided:
    released = provision.ProvisionReleased(
        now,
        content.persons,
        content.withheld_persons,
        content.withheld_items,
        decision.staff_id,
        decision.purpose,
    )
    said = {
        place: Said(WITHHELD)
        if place in content.withheld_persons
        else limited(facts[place], state.held[place][1], content.withheld_items)
        for place in content.persons
    }
    sent = provision.answered(state, _units(state, content.persons), said, now, message_id)
    return Decided((released, *sent.events), sent.answers)


def limited(facts: SubjectFacts, code: str, withheld: tuple[str, ...]) -> Said:
    """What goes of a person: `code` is how the look-up of the link code ended, `withheld` what is kept back.

    An item that is kept back is named among those omitted, as one that is missing is: the inquirer must not
    take it for nought, and learns no reason.
    """
    said = Said(code) if code else replace(facts, guard_fits=True).said()
    if said.code or not withheld:
        return said
    payload = {item: value for item, value in said.payload.items() if item not in withheld}
    if not payload:
        return Said(WITHHELD)
    return replace(said, payload=payload, omitted=tuple(dict.fromkeys((*said.omitted, *withheld))))


def _units(state: State, places: tuple[int, ...]) -> list[tuple[int, ...]]:
    units = provision.units_of(state.request.units if state.request is not None else ())
    named = frozenset(places)
    return [unit for unit in units if unit[0] in named]


def decide_review(
    state: State, approved: bool, staff_id: str, purpose: str, now: str
) -> tuple[provision.ProvisionReviewed, ...] | Refusal:
    """An officer looks afterwards at what was answered automatically. It cannot be fetched back."""
    if not state.review:
        return Refusal("I-232")
    return (provision.ProvisionReviewed(now, approved, staff_id, purpose),)


class AwaitingApproval:
    """What waits for an officer: held persons of a provision, or a look afterwards."""

    name: ClassVar[str] = "awaiting_approval"
    tables: ClassVar[Mapping[str, str]] = {
        "awaiting_approval": "stream TEXT, kind TEXT, persons INTEGER, proposed INTEGER, valid_until TEXT, "
        "position INTEGER, PRIMARY KEY (stream, kind)"
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        match recorded.event:
            case provision.ProvisionHeld() as e:
                self._put(rows, recorded, HELD, len(e.persons), e.valid_until)
            case provision.InformationProvided(review=True) as e:
                self._put(rows, recorded, AFTERWARDS, len(e.persons), "")
            case provision.DecisionProposed():
                self._mark(rows, recorded.stream, 1)
            case provision.ProvisionReleased() | provision.ProvisionDenied() as e:
                self._mark(rows, recorded.stream, 0)
                rows.execute(
                    "UPDATE awaiting_approval SET persons = persons - ? WHERE stream = ? AND kind = 'held'",
                    (len(e.persons), recorded.stream),
                )
                rows.execute(
                    "DELETE FROM awaiting_approval WHERE stream = ? AND kind = 'held' AND persons = 0",
                    (recorded.stream,),
                )
            case provision.ProvisionWithdrawn() | provision.ProvisionExpired():
                self._drop(rows, recorded.stream, HELD)
            case provision.ProvisionReviewed():
                self._drop(rows, recorded.stream, AFTERWARDS)

    def _put(self, rows: Rows, recorded: Recorded, kind: str, persons: int, until: str) -> None:
        rows.execute(
            "INSERT INTO awaiting_approval VALUES (?, ?, ?, 0, ?, ?) "
            "ON CONFLICT DO UPDATE SET persons = persons + excluded.persons",
            (recorded.stream, kind, persons, until, recorded.position),
        )

    def _mark(self, rows: Rows, stream: str, proposed: int) -> None:
        rows.execute(
            "UPDATE awaiting_approval SET proposed = ? WHERE stream = ? AND kind = 'held'", (proposed, stream)
        )

    def _drop(self, rows: Rows, stream: str, kind: str) -> None:
        rows.execute("DELETE FROM awaiting_approval WHERE stream = ? AND kind = ?", (stream, kind))


PROJECTIONS = (AwaitingApproval(),)
