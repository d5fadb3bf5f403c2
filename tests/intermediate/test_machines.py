"""Inquiries and provisions under any order of commands: closed at most once, by legal steps alone."""

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker.intermediate import inquiry, provision
from broker.intermediate.inquiry import InquiryAnswered, InquiryRefused, InquiryRequested
from broker.intermediate.provision import AnswerNotRelayed, Decided, ProvisionHeld, SubjectFacts
from schemas.errors import Refusal
from schemas.messages import AnswerSubject
from tests.intermediate.samples import ASKED, AT, LATER, UNTIL, WANTED, after
from tests.intermediate.test_streams import received

CODES = st.sampled_from(["", "I-204", "N-106", "N-110"])
FACTS = st.builds(
    SubjectFacts,
    person=st.sampled_from(["", "p1"]),
    guard_fits=st.booleans(),
    held=st.booleans(),
    source=st.integers(0, 3),
    payload=st.just({"total_income": "1"}),
)


class InquiryMachine(RuleBasedStateMachine):
    """Requests, verdicts and answers come in any order and any number of times."""

    def __init__(self) -> None:
        super().__init__()
        self.happened: list[Any] = []
        self.state = inquiry.State()

    def take(self, decided: tuple[Any, ...] | Refusal) -> None:
        for event in () if isinstance(decided, Refusal) else decided:
            self.state = inquiry.evolve(self.state, event)
            self.happened.append(event)

    @rule(digest=st.sampled_from(["digest", "other"]), code=st.sampled_from(["", "L-104"]))
    def request(self, digest: str, code: str) -> None:
        refusal = Refusal(code) if code else None
        self.take(inquiry.decide_request(self.state, replace(ASKED, digest=digest), refusal))

    @rule(code=CODES)
    def verdict(self, code: str) -> None:
        self.take(inquiry.decide_verdict(self.state, "x-1", code, AT, UNTIL))

    @rule(code=CODES, codes=st.lists(CODES, max_size=3), fault=st.sampled_from(["", "I-301"]))
    def answer(self, code: str, codes: list[str], fault: str) -> None:
        answer = received(*(AnswerSubject(each, {}) for each in codes), code=code)
        self.take(inquiry.decide_answer(self.state, answer, (fault,) * len(codes)))

    @invariant()
    def it_is_asked_once_and_closed_once(self) -> None:
        closing = [e for e in self.happened if isinstance(e, InquiryAnswered | InquiryRefused)]
        assert sum(isinstance(e, InquiryRequested) for e in self.happened) <= 1
        assert len(closing) <= 1
        assert closing == self.happened[len(self.happened) - len(closing) :], "nothing follows the end"
        assert self.state.outcome == (closing[0] if closing else None)
        assert (self.state.step in (inquiry.ANSWERED, inquiry.REFUSED)) == bool(closing)

    @invariant()
    def the_events_alone_tell_the_state(self) -> None:
        assert after(inquiry.State(), inquiry.evolve, *self.happened) == self.state


class ProvisionMachine(RuleBasedStateMachine):
    """A provision is decided, and decided again, and the network refuses messages, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.happened: list[Any] = [WANTED]
        self.state = provision.evolve(provision.State(), WANTED)

    def take(self, events: tuple[Any, ...]) -> None:
        for event in events:
            self.state = provision.evolve(self.state, event)
            self.happened.append(event)

    @rule(facts=st.lists(FACTS, min_size=1, max_size=3), known=st.booleans(), message=st.sampled_from("ab"))
    def decide(self, facts: list[SubjectFacts], known: bool, message: str) -> None:
        decided = provision.decide_provide(self.state, message, tuple(facts), known, LATER)
        if isinstance(decided, Decided):
            assert len(decided.subjects) in (0, len(facts))
            assert all(not (subject.code and subject.payload) for subject in decided.subjects)
            self.take(decided.events)

    @rule(message=st.sampled_from("ab"), code=st.sampled_from(["N-109", "N-110"]))
    def the_network_refuses(self, message: str, code: str) -> None:
        self.take(provision.decide_not_relayed(self.state, message, code, LATER))

    @invariant()
    def it_is_decided_once(self) -> None:
        decisions = [e for e in self.happened[1:] if not isinstance(e, AnswerNotRelayed)]
        assert len(decisions) <= 1
        assert len(self.happened) <= 3
        if self.state.step == provision.HELD:
            assert isinstance(self.happened[-1], ProvisionHeld), "what is held stays held"

    @invariant()
    def the_events_alone_tell_the_state(self) -> None:
        assert after(provision.State(), provision.evolve, *self.happened) == self.state


InquiryMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=12, deadline=None)
ProvisionMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=8, deadline=None)
TestInquiry = InquiryMachine.TestCase
TestProvision = ProvisionMachine.TestCase
