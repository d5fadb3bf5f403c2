"""Inquiries under any order of commands: closed at most once, by legal steps alone."""

import sqlite3
from datetime import datetime
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker.intermediate import inquiry
from broker.intermediate.inquiry import InquiryAnswered
from broker.intermediate.requests import InquiryRequests
from broker.ledger.events import Recorded
from schemas.errors import Refusal
from schemas.messages import AnswerSubject
from tests.intermediate.samples import AT, LATER, UNTIL, after
from tests.intermediate.test_inquiry import FILE, received, verdict
from tests.intermediate.test_inquiry import WANTED as WITHDRAWAL

AFTER = "2026-11-21T11:00:00.000000+09:00"
CODES = st.sampled_from(["", "I-204", "N-106", "N-110"])


class InquiryMachine(RuleBasedStateMachine):
    """Verdicts, answers, withdrawals and the end of the permit come in any order and any number of times."""

    def __init__(self) -> None:
        super().__init__()
        self.happened: list[Any] = []
        self.state = inquiry.State()
        self.rows = sqlite3.connect(":memory:")
        for table, columns in InquiryRequests.tables.items():
            self.rows.execute(f"CREATE TABLE {table} ({columns})")
        self.take((FILE,))

    def teardown(self) -> None:
        self.rows.close()

    def take(self, decided: tuple[Any, ...] | Refusal) -> None:
        for event in () if isinstance(decided, Refusal) else decided:
            self.state = inquiry.evolve(self.state, event)
            self.happened.append(event)
            place = len(self.happened)
            InquiryRequests().apply(self.rows, Recorded(place, "inquiry/i-1", place, "m", AT, event))

    @rule(code=CODES, units=st.tuples(CODES, CODES, CODES))
    def verdict(self, code: str, units: tuple[str, str, str]) -> None:
        codes = (units[0], units[1], units[1], units[2])
        self.take(
            inquiry.decide_verdict(self.state, verdict(code or (units[0] if all(units) else ""), codes))
        )

    @rule(
        code=CODES,
        persons=st.lists(st.integers(0, 4), min_size=1, max_size=4, unique=True),
        said=CODES,
        fault=st.sampled_from(["", "I-301"]),
        relayed=st.sampled_from([AT, LATER, UNTIL, AFTER]),
    )
    def answer(self, code: str, persons: list[int], said: str, fault: str, relayed: str) -> None:
        subjects = () if code else (AnswerSubject(said, {}),) * len(persons)
        answer = received(*subjects, persons=tuple(persons), code=code, relayed=relayed)
        self.take(inquiry.decide_answer(self.state, answer, (fault,) * len(subjects)))

    @rule(sent=st.booleans())
    def withdraw(self, sent: bool) -> None:
        # The network has seen what it permitted.
        self.take(inquiry.decide_withdraw(self.state, WITHDRAWAL, sent=sent or self.state.permit is not None))

    @rule(code=CODES)
    def withdrawn(self, code: str) -> None:
        self.take(inquiry.decide_withdrawn(self.state, code, LATER))

    @rule()
    def expire(self) -> None:
        self.take(inquiry.decide_expire(self.state, datetime.fromisoformat(AFTER)))

    @invariant()
    def each_person_is_told_about_once_and_the_end_is_the_end(self) -> None:
        answered = [p for e in self.happened if isinstance(e, InquiryAnswered) for p in e.persons]
        assert len(answered) == len(set(answered))
        assert set(answered).isdisjoint(self.state.open)
        assert (self.state.step in (inquiry.ANSWERED, inquiry.REFUSED)) == (not self.state.open)
        for unit in inquiry.units(FILE.units):
            result = inquiry.unit_result(self.state, unit)
            assert (result.state in inquiry.OPEN) == (result.codes == ())
            assert len(result.payloads) == (len(unit) if result.state == inquiry.ANSWERED else 0)

    @invariant()
    def the_projection_says_the_same(self) -> None:
        found = self.rows.execute("SELECT state, code FROM inquiry_request ORDER BY first").fetchall()
        for (state, code), unit in zip(found, inquiry.units(FILE.units), strict=True):
            result = inquiry.unit_result(self.state, unit)
            assert state == result.state
            assert code == (result.code or next(filter(None, result.codes), ""))
        pending = self.rows.execute("SELECT open FROM inquiry_pending").fetchall()
        waits = self.state.step in inquiry.OPEN
        assert pending == ([(len(self.state.open),)] if waits else [])

    @invariant()
    def the_events_alone_tell_the_state(self) -> None:
        assert after(inquiry.State(), inquiry.evolve, *self.happened) == self.state


InquiryMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=12, deadline=None)
TestInquiry = InquiryMachine.TestCase
