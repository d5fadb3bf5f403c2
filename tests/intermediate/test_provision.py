"""A provision as an event script: units, parts, holds, what officers decide, withdrawal and expiry."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker.intermediate import approval, provision
from broker.intermediate.approval import Decision
from broker.intermediate.provision import (
    PART,
    AnswerNotRelayed,
    Decided,
    DecisionProposed,
    InformationProvided,
    ProvisionDenied,
    ProvisionExpired,
    ProvisionHeld,
    ProvisionRefused,
    ProvisionReleased,
    ProvisionReviewed,
    ProvisionWithdrawn,
    SubjectFacts,
)
from schemas.errors import Refusal
from schemas.law.approval import AFTERWARDS, Line, Policy, published
from schemas.messages import AnswerSubject
from tests.intermediate.samples import LATER, UNTIL, WANTED, after

PAYLOAD = {"fiscal_year": "2026", "total_income": "1"}
POLICY = published()
GOOD = SubjectFacts("p1", guard_fits=True, reasons=(), source=5, payload=PAYLOAD)
PROTECTED = replace(GOOD, reasons=("protected_person",))
CORRECTED = replace(GOOD, reasons=("under_correction",))
NOBODY = provision.NOBODY
ROW, INFORMATION = WANTED.law_row, WANTED.information
REQUEST = replace(
    WANTED,
    units=(1, 2, 1),
    codes=("", "", "", "N-106"),
    persons=("p1", "p2", "p3", "p4"),
    subjects=("n1", "n2", "n3", "n4"),
    link_codes=("c1", "c2", "c3", ""),
    fiscal_years=("2026",) * 4,
)
"""A person, a household of two, and one whom the network did not permit."""


def name(part: int) -> str:
    return f"a-{part}"


def wanted(*happened: Any) -> provision.State:
    return after(provision.State(), provision.evolve, *happened)


def provide(
    facts: Sequence[SubjectFacts],
    request: Any = REQUEST,
    policy: Policy = POLICY,
    refused: str = "",
) -> Decided:
    decided = provision.decide_provide(
        wanted(request),
        facts,
        lambda reasons: policy.mode(ROW, INFORMATION, reasons),
        refused,
        LATER,
        name,
    )
    assert isinstance(decided, Decided)
    return decided


def decision(
    verdict: str,
    *persons: int,
    by: str = "s1",
    withheld: tuple[int, ...] = (),
    items: tuple[str, ...] = (),
) -> Decision:
    return Decision(verdict, persons, withheld, items, by, "確認済み")


def decide(
    state: provision.State,
    said: Decision,
    facts: Sequence[SubjectFacts],
    policy: Policy = POLICY,
    together: bool = False,
) -> Decided | Refusal:
    places = approval.concerned(state, said)
    if isinstance(places, Refusal):
        return places
    return approval.decide(state, said, places, dict(enumerate(facts)), policy, together, LATER, name)


def done(outcome: Decided | Refusal) -> Decided:
    assert isinstance(outcome, Decided)
    return outcome


def test_what_is_stored_is_provided_and_the_record_names_its_source() -> None:
    decided = provide((GOOD, replace(GOOD, source=6)), WANTED)
    assert decided.events == (
        InformationProvided("a-0", LATER, False, (0, 1), ("", ""), (5, 6), False, ((), ())),
    )
    (answer,) = decided.answers
    assert (answer.message_id, answer.code, answer.persons) == ("a-0", "", (0, 1))
    assert answer.subjects == (AnswerSubject("", PAYLOAD), AnswerSubject("", PAYLOAD))


def test_who_was_not_permitted_is_never_answered() -> None:
    (answer,) = provide((GOOD, GOOD, GOOD, GOOD)).answers
    assert answer.persons == (0, 1, 2)


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (NOBODY, "I-201"),
        (replace(GOOD, guard_fits=False), "I-202"),
        (replace(GOOD, source=0), "I-204"),
    ],
)
@pytest.mark.req("R-086")
def test_nothing_is_provided_about_a_subject_that_fails_a_look_up(facts: SubjectFacts, code: str) -> None:
    alone, beside = provide((facts, facts), WANTED), provide((GOOD, facts), WANTED)
    assert alone.events == (ProvisionRefused("a-0", LATER, (0, 1), code),)
    assert [(each.code, each.persons, each.subjects) for each in alone.answers] == [(code, (0, 1), ())]
    assert beside.events == (
        InformationProvided("a-0", LATER, False, (0, 1), ("", code), (5, 0), False, ((), ())),
    )
    assert beside.answers[0].subjects == (AnswerSubject("", PAYLOAD), AnswerSubject(code, {}))


@pytest.mark.req("R-102")
def test_one_held_person_holds_her_unit_and_no_other() -> None:
    decided = provide((GOOD, GOOD, PROTECTED, NOBODY))
    held, provided = decided.events
    assert held == ProvisionHeld((1, 2), ((), ("protected_person",)), ("", ""), UNTIL, "I-203")
    assert provided.persons == (0,)
    assert [each.persons for each in decided.answers] == [(0,)]
    missing = provide((replace(PROTECTED, source=0), GOOD, GOOD, NOBODY))
    assert missing.events[0].persons == (0,), "also where nothing is stored"


@pytest.mark.req("R-086", "R-102")
def test_a_wrong_inquiry_does_not_learn_that_a_person_is_protected() -> None:
    decided = provide((replace(PROTECTED, guard_fits=False), GOOD), replace(WANTED, units=(1, 1)))
    refused, provided = decided.events
    assert refused == ProvisionRefused("a-0", LATER, (0,), "I-202")
    assert provided.persons == (1,)


@pytest.mark.parametrize("code", ["I-206", "I-214"])
def test_what_is_refused_whomever_it_is_about_is_refused_before_anything_is_looked_at(code: str) -> None:
    decided = provide((PROTECTED, PROTECTED), WANTED, refused=code)
    assert decided.events == (ProvisionRefused("a-0", LATER, (0, 1), code),)


def test_answers_come_in_parts_of_whole_units() -> None:
    units = (1,) * (PART - 1) + (2,) * 3
    size = sum(units)
    request = replace(
        WANTED,
        units=units,
        codes=("",) * size,
        persons=("p1",) * size,
        subjects=("n1",) * size,
        link_codes=("c1",) * size,
        fiscal_years=("2026",) * size,
    )
    decided = provide((GOOD,) * size, request)
    assert [len(each.persons) for each in decided.answers] == [PART - 1, 6]
    assert [each.message_id for each in decided.answers] == ["a-0", "a-1"]
    assert sorted(place for each in decided.answers for place in each.persons) == list(range(size))


@pytest.mark.req("R-107", "R-151")
def test_what_falls_under_non_disclosure_says_so_and_stands_apart() -> None:
    decided = provide((GOOD, replace(GOOD, non_disclosure=True), GOOD, NOBODY))
    assert {(each.persons, each.non_disclosure) for each in decided.events} == {
        ((0,), False),
        ((1, 2), True),
    }
    assert {(each.persons, each.non_disclosure) for each in decided.answers} == {
        ((0,), False),
        ((1, 2), True),
    }


@pytest.mark.parametrize(
    "happened",
    [
        (),
        (REQUEST, ProvisionWithdrawn(LATER)),
        (WANTED, ProvisionRefused("a-0", LATER, (0, 1), "I-204")),
    ],
)
def test_a_provision_is_decided_once(happened: tuple[Any, ...]) -> None:
    decided = provision.decide_provide(wanted(*happened), (GOOD,) * 4, lambda _: "automatic", "", LATER, name)
    assert decided == Refusal("L-107", "provision is not open")


@pytest.mark.req("R-148")
def test_an_answer_that_the_network_refused_was_no_provision() -> None:
    decided = provide((GOOD, GOOD, GOOD, NOBODY))
    state = wanted(REQUEST, *decided.events)
    (not_relayed,) = provision.decide_not_relayed(state, "a-0", "N-109", LATER)
    assert not_relayed == AnswerNotRelayed("a-0", "N-109", LATER)
    assert provision.evolve(state, not_relayed).places(provision.REFUSED) == (0, 1, 2)
    assert provision.decide_not_relayed(state, "another message", "N-110", LATER) == ()
    assert provision.decide_not_relayed(provision.evolve(state, not_relayed), "a-0", "N-109", LATER) == ()


# 職員の判断


def held(facts: Sequence[SubjectFacts]) -> provision.State:
    return wanted(REQUEST, *provide(facts).events)


@pytest.mark.req("R-106", "R-095")
def test_what_is_held_leaves_by_the_release_of_an_officer() -> None:
    facts = (CORRECTED, GOOD, GOOD, NOBODY)
    decided = done(decide(held(facts), decision("approve"), facts))
    released, provided = decided.events
    assert isinstance(released, ProvisionReleased)
    assert (released.persons, released.staff_id, released.purpose) == ((0,), "s1", "確認済み")
    assert (provided.answer_message, provided.persons, provided.codes) == ("a-1", (0,), ("",))
    assert [each.subjects for each in decided.answers] == [(AnswerSubject("", PAYLOAD),)]


@pytest.mark.req("R-095")
def test_a_refusal_gives_no_reason_and_needs_one_officer() -> None:
    facts = (PROTECTED, GOOD, GOOD, NOBODY)
    decided = done(decide(held(facts), decision("refuse"), facts))
    assert isinstance(decided.events[0], ProvisionDenied)
    assert decided.events[1] == ProvisionRefused("a-1", LATER, (0,), "I-205")
    assert [(each.code, each.subjects) for each in decided.answers] == [("I-205", ())]


@pytest.mark.req("R-095")
def test_an_officer_limits_the_persons_and_the_items() -> None:
    facts = (GOOD, CORRECTED, GOOD, NOBODY)
    limit = decision("limit", withheld=(2,), items=("total_income",))
    decided = done(decide(held(facts), limit, facts))
    assert decided.events[1].codes == ("", "I-231")
    assert decided.events[1].omitted == (("total_income",), ())
    assert decided.answers[0].subjects == (
        AnswerSubject("", {"fiscal_year": "2026"}, ("total_income",)),
        AnswerSubject("I-231", {}),
    )
    everything = decision("limit", items=("total_income", "fiscal_year"))
    (answer,) = done(decide(held(facts), everything, facts)).answers
    assert (answer.code, answer.subjects) == ("I-231", ()), "what is wholly kept back is no answer"


def test_items_that_a_record_lacks_are_named() -> None:
    lacking = replace(GOOD, payload={"fiscal_year": "2026"}, omitted=("total_income",))
    (answer, *_) = provide((lacking, GOOD, GOOD, NOBODY)).answers
    assert answer.subjects[0] == AnswerSubject("", {"fiscal_year": "2026"}, ("total_income",))


@pytest.mark.req("R-095")
def test_where_the_policy_wants_four_eyes_a_second_officer_releases_what_the_first_proposed() -> None:
    facts = (GOOD, PROTECTED, GOOD, NOBODY)
    state = held(facts)
    proposed = done(decide(state, decision("limit", withheld=(2,)), facts))
    assert proposed.answers == ()
    assert [type(each) for each in proposed.events] == [DecisionProposed]
    assert decide(state, decision("release", by="s2"), facts) == Refusal("I-232"), "nothing is proposed yet"
    state = after(state, provision.evolve, *proposed.events)
    assert decide(state, decision("release"), facts) == Refusal("I-233")
    released = done(decide(state, decision("release", by="s2"), facts))
    assert (released.events[0].withheld_persons, released.events[0].staff_id) == ((2,), "s2")
    assert released.events[1].codes == ("", "I-231")
    refused = done(decide(state, decision("refuse", by="s2"), facts))
    assert after(state, provision.evolve, *refused.events).proposal is None


@pytest.mark.req("R-096")
def test_several_are_approved_together_only_where_the_policy_says_so() -> None:
    for facts, outcome in (
        ((CORRECTED, GOOD, GOOD, NOBODY), None),
        ((replace(GOOD, reasons=("office_decision",)), GOOD, GOOD, NOBODY), "I-234"),
        ((PROTECTED, GOOD, GOOD, NOBODY), "I-234"),
    ):
        found = decide(held(facts), decision("approve"), facts, together=True)
        assert (found.code if isinstance(found, Refusal) else None) == outcome


@pytest.mark.req("R-102")
def test_a_hold_that_came_later_counts_in_the_decision_too() -> None:
    state = held((CORRECTED, GOOD, GOOD, NOBODY))
    now = (replace(GOOD, reasons=("court_order", "under_correction")), GOOD, GOOD, NOBODY)
    assert isinstance(done(decide(state, decision("approve"), now)).events[0], DecisionProposed)


@pytest.mark.req("R-093", "R-094", "R-096", "R-101")
def test_an_answer_may_leave_by_itself_and_be_looked_at_afterwards() -> None:
    policy = Policy((Line("*", INFORMATION, "", AFTERWARDS),))
    decided = provide((GOOD, GOOD, PROTECTED, NOBODY), policy=policy)
    held, provided = decided.events
    assert (held.persons, provided.persons, provided.review) == ((1, 2), (0,), True)
    state = wanted(REQUEST, *decided.events)
    assert approval.decide_review(state, True, "s1", "定期確認", LATER) == (
        ProvisionReviewed(LATER, True, "s1", "定期確認"),
    )
    assert approval.decide_review(wanted(REQUEST), True, "s1", "定期確認", LATER) == Refusal("I-232")


@pytest.mark.req("R-102", "R-103")
def test_a_work_can_be_switched_to_manual_as_a_whole() -> None:
    policy = Policy((Line(ROW, "*", "", "one_by_one"),))
    facts = (GOOD, GOOD, replace(GOOD, guard_fits=False), NOBODY)
    decided = provide(facts, policy=policy)
    (held,) = decided.events
    assert (held.persons, held.codes) == ((0, 1, 2), ("", "", "I-202"))
    assert held.reasons == ((provision.APPROVAL,), (provision.APPROVAL,), ())
    state = wanted(REQUEST, *decided.events)
    released = done(decide(state, decision("approve", 1), facts, policy))
    assert released.events[0].persons == (1, 2), "always whole units"
    assert released.events[1].codes == ("", "I-202"), "the wrong person stays the wrong person"
    assert after(state, provision.evolve, *released.events).places(provision.HELD) == (0,)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (decision("approve", 1), "I-232"),
        (decision("approve", 3), "I-232"),
        (decision("limit"), "I-238"),
        (decision("approve", items=("total_income",)), "I-238"),
        (decision("limit", items=("annual_tax",)), "I-238"),
        (decision("limit", withheld=(1,)), "I-238"),
    ],
)
def test_a_decision_must_fit_what_is_held(said: Decision, code: str) -> None:
    facts = (CORRECTED, GOOD, GOOD, NOBODY)
    assert decide(held(facts), said, facts) == Refusal(code)


# 取りやめ, 失効


def test_after_withdrawal_or_expiry_nothing_is_held_any_more() -> None:
    facts = (CORRECTED, GOOD, GOOD, NOBODY)
    state = held(facts)
    for ended in (provision.decide_withdraw(state, LATER), provision.decide_expire(state, LATER)):
        then = after(state, provision.evolve, *ended)
        assert decide(then, decision("approve"), facts) == Refusal("I-232")
        assert provision.decide_expire(then, LATER) == ()
        assert then.places(provision.PROVIDED) == (1, 2), "what was answered stays so"
    assert provision.decide_withdraw(wanted(), LATER) == (ProvisionWithdrawn(LATER),)
    assert provision.decide_withdraw(wanted(ProvisionWithdrawn(LATER)), LATER) == ()


HOLD = ProvisionHeld((0,), (("court_order",),), ("",), UNTIL, "I-203")
PROVIDED = InformationProvided("a-9", LATER, False, (0,), ("",), (5,), False, ((),))


@pytest.mark.parametrize(
    ("happened", "then"),
    [
        ((), PROVIDED),
        ((), HOLD),
        ((REQUEST,), REQUEST),
        ((REQUEST, HOLD), PROVIDED),
        ((REQUEST, HOLD), ProvisionRefused("a-9", LATER, (0,), "I-205")),
        ((REQUEST, HOLD), HOLD),
        ((REQUEST, HOLD, ProvisionDenied(LATER, (0,), "s1", "x")), PROVIDED),
        ((REQUEST, HOLD, ProvisionReleased(LATER, (0,), (0,), (), "s1", "x")), PROVIDED),
        ((REQUEST, HOLD, ProvisionWithdrawn(LATER)), ProvisionReleased(LATER, (0,), (), (), "s1", "x")),
        ((REQUEST, HOLD, ProvisionExpired(LATER)), ProvisionReleased(LATER, (0,), (), (), "s1", "x")),
        ((REQUEST, PROVIDED), replace(PROVIDED, answer_message="a-10")),
        ((REQUEST, PROVIDED), replace(HOLD)),
        ((REQUEST,), ProvisionReleased(LATER, (0,), (), (), "s1", "x")),
        ((REQUEST,), replace(PROVIDED, persons=(3,))),
        ((REQUEST,), ProvisionReviewed(LATER, True, "s1", "x")),
        ((REQUEST,), AnswerNotRelayed("a-9", "N-109", LATER)),
    ],
)
@pytest.mark.req("R-106")
def test_steps_that_no_table_has_do_not_happen(happened: tuple[Any, ...], then: Any) -> None:
    with pytest.raises(KeyError):
        provision.evolve(wanted(*happened), then)


FACTS = st.builds(
    SubjectFacts,
    person=st.sampled_from(["", "p1"]),
    guard_fits=st.booleans(),
    reasons=st.sampled_from(
        [(), (), (), ("protected_person",), ("under_correction",), ("court_order", "office_decision")]
    ),
    source=st.integers(0, 3),
    payload=st.just(PAYLOAD),
    non_disclosure=st.booleans(),
)
POLICIES = (
    published(),
    Policy((Line("*", "*", "", AFTERWARDS),)),
    Policy((Line(ROW, "*", "", "four_eyes"),)),
)


class ProvisionMachine(RuleBasedStateMachine):
    """An inquiry comes, officers decide, it is withdrawn, lapses, and the network refuses, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.happened: list[Any] = []
        self.state = provision.State()
        self.sent: list[Any] = []
        self.held: dict[int, tuple[str, ...]] = {}

    def take(self, decided: Decided | Refusal | tuple[Any, ...]) -> None:
        if isinstance(decided, Refusal):
            return
        events = decided.events if isinstance(decided, Decided) else decided
        for event in events:
            self.state = provision.evolve(self.state, event)
            self.happened.append(event)
        if isinstance(decided, Decided):
            recorded = {
                e.answer_message: e for e in events if hasattr(e, "persons") and hasattr(e, "answer_message")
            }
            assert recorded.keys() == {answer.message_id for answer in decided.answers}
            for answer in decided.answers:
                record = recorded[answer.message_id]
                assert record.persons == answer.persons
                if answer.code:
                    assert (record.code, answer.subjects) == (answer.code, ())
                else:
                    assert record.codes == tuple(subject.code for subject in answer.subjects)
                    assert record.non_disclosure == answer.non_disclosure
                self.sent.append(answer)

    @rule(facts=st.lists(FACTS, min_size=4, max_size=4), policy=st.sampled_from(POLICIES))
    def come(self, facts: list[SubjectFacts], policy: Policy) -> None:
        if self.state.request is None:
            self.state = provision.evolve(self.state, REQUEST)
            self.happened.append(REQUEST)
        decided = provision.decide_provide(
            self.state, facts, lambda r: policy.mode(ROW, INFORMATION, r), "", LATER, name
        )
        if isinstance(decided, Decided):
            self.held = {p: f.reasons for p, f in enumerate(facts) if f.reasons and not f.wrong}
        self.take(decided)

    @rule(
        verdict=st.sampled_from(approval.VERDICTS),
        persons=st.sampled_from([(), (0,), (1,), (2,)]),
        withheld=st.sampled_from([(), (0,), (1,), (2,)]),
        items=st.sampled_from([(), ("total_income",)]),
        by=st.sampled_from(["s1", "s2"]),
        facts=st.lists(FACTS, min_size=4, max_size=4),
        policy=st.sampled_from(POLICIES),
        together=st.booleans(),
    )
    def officer(
        self,
        verdict: str,
        persons: tuple[int, ...],
        withheld: tuple[int, ...],
        items: tuple[str, ...],
        by: str,
        facts: list[SubjectFacts],
        policy: Policy,
        together: bool,
    ) -> None:
        said = decision(verdict, *persons, by=by, withheld=withheld, items=items)
        self.take(decide(self.state, said, facts, policy, together))

    @rule()
    def withdraw(self) -> None:
        self.take(provision.decide_withdraw(self.state, LATER))

    @rule()
    def lapse(self) -> None:
        self.take(provision.decide_expire(self.state, LATER))

    @rule(message=st.sampled_from(["a-0", "a-1", "a-2"]))
    def the_network_refuses(self, message: str) -> None:
        self.take(provision.decide_not_relayed(self.state, message, "N-109", LATER))

    @invariant()
    def each_person_is_answered_once_and_whole_units_are(self) -> None:
        answered = [place for answer in self.sent for place in answer.persons]
        assert len(answered) == len(set(answered))
        for answer in self.sent:
            assert {1, 2} <= set(answer.persons) or not {1, 2} & set(answer.persons)
            assert 3 not in answer.persons

    @invariant()
    def what_is_held_leaves_after_a_release_alone(self) -> None:
        released = {
            place
            for e in self.happened
            if isinstance(e, ProvisionReleased)
            for place in e.persons
            if place not in e.withheld_persons
        }
        for answer in self.sent:
            for place, subject in zip(answer.persons, answer.subjects, strict=False):
                if subject.payload and place in self.held:
                    assert place in released

    @invariant()
    def the_events_alone_tell_the_state(self) -> None:
        assert after(provision.State(), provision.evolve, *self.happened) == self.state


ProvisionMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=12, deadline=None)
TestProvision = pytest.mark.req("R-106", "R-147", "R-153")(ProvisionMachine.TestCase)
