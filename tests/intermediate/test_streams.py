"""The streams of the intermediate interface as event scripts, and the tables of their steps."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from broker.intermediate import hold, inquiry, link_code, provision, replica, staff
from broker.intermediate.inquiry import InquiryAnswered, InquiryPermitted, InquiryRefused, InquiryRequested
from broker.intermediate.provision import (
    AnswerNotRelayed,
    InformationProvided,
    ProvisionHeld,
    ProvisionRefused,
    ProvisionRequested,
    SubjectFacts,
)
from schemas.errors import Refusal
from schemas.messages import AnswerControl, AnswerSubject, DeliveryNote, ReceivedAnswer
from tests.intermediate.samples import ASKED, AT, LATER, UNTIL, WANTED, after

GRANT = staff.AuthorityGranted("s1", "福祉課", "affair_officer", ("81", "106"), "2026-04-01", "2027-03-31")
PAYLOAD = {"fiscal_year": "2026", "total_income": "1"}
PERMITTED = InquiryPermitted("x-1", AT, UNTIL)
REFUSED = InquiryRefused("network", "N-106", "x-1", AT)
ANSWERED = InquiryAnswered("x-1", LATER, False, ("", ""), (PAYLOAD, PAYLOAD))
HELD = ProvisionHeld("I-203")
PROVIDED = InformationProvided("a-1", LATER, False, ("", ""), (5, 6))
DENIED = ProvisionRefused("a-1", LATER, "I-204")
NOT_RELAYED = AnswerNotRelayed("N-109", LATER)
GOOD = SubjectFacts("p1", guard_fits=True, held=False, source=5, payload=PAYLOAD)


# 職員権限


@pytest.mark.parametrize(
    ("row", "day", "refusal"),
    [
        ("81", "2026-04-01", None),
        ("106", "2027-03-31", None),
        ("81", "2026-03-31", Refusal("I-101")),
        ("81", "2027-04-01", Refusal("I-101")),
        ("82", "2026-11-21", Refusal("I-102", "82")),
    ],
)
@pytest.mark.req("R-057")
def test_staff_may_ask_under_their_rows_while_their_authority_lasts(
    row: str, day: str, refusal: Refusal | None
) -> None:
    assert staff.authorise(after(None, staff.evolve, GRANT), row, day) == refusal


def test_who_was_never_granted_anything_may_ask_nothing() -> None:
    assert staff.authorise(None, "81", "2026-11-21") == Refusal("I-101")


def test_the_last_grant_holds_and_the_same_one_leaves_no_event() -> None:
    narrowed = replace(GRANT, rows=("106",))
    assert staff.decide_grant(None, GRANT) == (GRANT,)
    assert staff.decide_grant(after(None, staff.evolve, GRANT), GRANT) == ()
    assert staff.decide_grant(after(None, staff.evolve, GRANT), narrowed) == (narrowed,)
    assert staff.authorise(after(None, staff.evolve, GRANT, narrowed), "81", "2026-11-21") is not None


# 符号, 副本


def test_a_new_code_takes_the_place_of_the_old_one_and_the_same_leaves_no_event() -> None:
    first = link_code.LinkCodeAcquired("p1", "index-1", "code-1", "n1")
    other = replace(first, code_index="index-2", link_code="code-2")
    assert link_code.decide_acquire(None, first) == (first,)
    known = after(None, link_code.evolve, first)
    assert link_code.decide_acquire(known, first) == ()
    assert link_code.decide_acquire(known, other) == (other,)
    assert after(None, link_code.evolve, first, other) == other


def test_a_changed_record_is_registered_and_an_equal_one_leaves_no_event() -> None:
    record = replica.ReplicaRegistered("p1", "income_tax_certificate/1", "2026", "n1", PAYLOAD)
    changed = replace(record, payload={**PAYLOAD, "total_income": "2"})
    assert replica.decide_register(None, record) == (record,)
    held = after(None, replica.evolve, record)
    assert replica.decide_register(held, replace(record, payload=dict(PAYLOAD))) == ()
    assert replica.decide_register(held, changed) == (changed,)
    assert after(None, replica.evolve, record, changed) == changed


# 自動応答不可フラグ


def test_a_hold_is_set_and_released_once() -> None:
    was_set, released = hold.HoldSet("p1", "protected_person"), hold.HoldReleased("p1")
    assert hold.decide(False, True, "p1", "protected_person") == (was_set,)
    assert hold.decide(True, True, "p1", "protected_person") == ()
    assert hold.decide(True, False, "p1", "") == (released,)
    assert hold.decide(False, False, "p1", "") == ()
    assert after(False, hold.evolve, was_set, released, was_set) is True
    for state, event in ((True, was_set), (False, released)):
        with pytest.raises(KeyError):
            hold.evolve(state, event)


# 情報照会


def asked(*happened: Any) -> inquiry.State:
    return after(inquiry.State(), inquiry.evolve, *happened)


def received(*subjects: AnswerSubject, code: str = "") -> ReceivedAnswer:
    """An answer as the linkage interface hands it on."""
    control = AnswerControl(
        message_id="a-1",
        in_reply_to="i-1",
        processing_number="x-1",
        inquirer="990019",
        provider="990027",
        office="子育て支援課",
        official_role="automatic_response",
        code=code,
        subjects=len(subjects),
        answered_at=LATER,
        non_disclosure=False,
        signer="s",
    )
    note = DeliveryNote("x-1", "a-1", "i-1", "990019", "990027", LATER, ("c1", "c2"))
    return ReceivedAnswer(note, control, subjects)


@pytest.mark.req("R-154")
def test_a_request_is_recorded_also_where_a_check_of_this_house_refused_it() -> None:
    assert inquiry.decide_request(asked(), ASKED, None) == (ASKED,)
    refused = InquiryRefused("here", "L-104", "", AT)
    assert inquiry.decide_request(asked(), ASKED, Refusal("L-104")) == (ASKED, refused)


@pytest.mark.parametrize("happened", [(ASKED,), (ASKED, PERMITTED), (ASKED, REFUSED), (ASKED, ANSWERED)])
def test_a_repeated_request_keeps_its_first_outcome(happened: tuple[Any, ...]) -> None:
    assert inquiry.decide_request(asked(*happened), ASKED, None) == Refusal("I-105")
    other = replace(ASKED, digest="other")
    assert inquiry.decide_request(asked(*happened), other, None) == Refusal("B-008")
    assert inquiry.repeated(asked(*happened), "other") == Refusal("B-008")


def test_the_network_permits_or_refuses_an_inquiry_once() -> None:
    assert inquiry.decide_verdict(asked(ASKED), "x-1", "", AT, UNTIL) == (PERMITTED,)
    assert inquiry.decide_verdict(asked(ASKED), "x-1", "N-106", AT, "") == (REFUSED,)
    for happened in ((), (ASKED, PERMITTED), (ASKED, REFUSED), (ASKED, ANSWERED)):
        assert inquiry.decide_verdict(asked(*happened), "x-1", "", AT, UNTIL) == ()
        assert inquiry.decide_verdict(asked(*happened), "x-1", "N-106", AT, "") == ()


@pytest.mark.parametrize("happened", [(ASKED,), (ASKED, PERMITTED)])
def test_an_answer_closes_an_inquiry_even_if_it_overtook_the_verdict(happened: tuple[Any, ...]) -> None:
    answer = received(AnswerSubject("", PAYLOAD), AnswerSubject("", PAYLOAD))
    assert inquiry.decide_answer(asked(*happened), answer, ("", "")) == (ANSWERED,)


def test_each_subject_has_its_own_outcome() -> None:
    answer = received(AnswerSubject("I-204", {}), AnswerSubject("", {"foreign": "x"}))
    decided = inquiry.decide_answer(asked(ASKED, PERMITTED), answer, ("", "I-301"))
    assert decided == (InquiryAnswered("x-1", LATER, False, ("I-204", "I-301"), ({}, {})),)


def test_nothing_is_taken_over_of_a_payload_beside_a_refusal() -> None:
    answer = received(AnswerSubject("I-204", PAYLOAD), AnswerSubject("", PAYLOAD))
    decided = inquiry.decide_answer(asked(ASKED, PERMITTED), answer, ("", ""))
    assert decided == (InquiryAnswered("x-1", LATER, False, ("I-204", ""), ({}, PAYLOAD)),)


def test_a_refusing_answer_refuses_the_inquiry() -> None:
    decided = inquiry.decide_answer(asked(ASKED, PERMITTED), received(code="I-204"), ())
    assert decided == (InquiryRefused("provider", "I-204", "x-1", LATER),)


def test_an_answer_about_another_number_of_persons_closes_the_inquiry_without_being_used() -> None:
    one = received(AnswerSubject("", PAYLOAD))
    decided = inquiry.decide_answer(asked(ASKED, PERMITTED), one, ("",))
    assert decided == (InquiryRefused("here", "I-301", "x-1", LATER),)


@pytest.mark.parametrize(
    ("happened", "stands"), [((), "none"), ((ASKED, REFUSED), "refused"), ((ASKED, ANSWERED), "answered")]
)
def test_an_inquiry_that_is_not_open_takes_no_answer(happened: tuple[Any, ...], stands: str) -> None:
    answer = received(AnswerSubject("", PAYLOAD), AnswerSubject("", PAYLOAD))
    assert inquiry.decide_answer(asked(*happened), answer, ("", "")) == Refusal(
        "L-107", f"inquiry is {stands}"
    )


def check_table(evolve: Any, states: Mapping[str, Any], events: Any, allowed: Mapping[Any, str]) -> None:
    """Every pair of state and event: the step that the table allows, or a miss."""
    for (name, state), event in product(states.items(), events):
        if (name, type(event)) in allowed:
            assert evolve(state, event).step == allowed[name, type(event)]
        else:
            with pytest.raises(KeyError):
                evolve(state, event)


def test_the_steps_of_an_inquiry_are_those_of_its_table() -> None:
    states = {
        "none": asked(),
        "asked": asked(ASKED),
        "waiting": asked(ASKED, PERMITTED),
        "answered": asked(ASKED, ANSWERED),
        "refused": asked(ASKED, REFUSED),
    }
    allowed = {
        ("none", InquiryRequested): "asked",
        ("asked", InquiryPermitted): "waiting",
        ("asked", InquiryRefused): "refused",
        ("asked", InquiryAnswered): "answered",
        ("waiting", InquiryRefused): "refused",
        ("waiting", InquiryAnswered): "answered",
    }
    check_table(inquiry.evolve, states, (ASKED, PERMITTED, REFUSED, ANSWERED), allowed)


# 情報提供


def wanted(*happened: Any) -> provision.State:
    return after(provision.State(), provision.evolve, *happened)


def provide(*facts: SubjectFacts, layout_known: bool = True) -> provision.Decided:
    decided = provision.decide_provide(wanted(WANTED), "a-1", facts, layout_known, LATER)
    assert isinstance(decided, provision.Decided)
    return decided


def test_what_is_stored_is_provided_and_the_record_names_its_source() -> None:
    decided = provide(GOOD, replace(GOOD, source=6))
    assert decided.events == (PROVIDED,)
    assert decided.subjects == (AnswerSubject("", PAYLOAD), AnswerSubject("", PAYLOAD))
    assert (decided.code, decided.held) == ("", False)


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (replace(GOOD, person="", guard_fits=False, source=0), "I-201"),
        (replace(GOOD, guard_fits=False), "I-202"),
        (replace(GOOD, source=0), "I-204"),
    ],
)
@pytest.mark.req("R-086")
def test_nothing_is_provided_about_a_subject_that_fails_a_look_up(facts: SubjectFacts, code: str) -> None:
    alone, beside = provide(facts, facts), provide(GOOD, facts)
    assert (alone.events, alone.code, alone.subjects) == ((ProvisionRefused("a-1", LATER, code),), code, ())
    assert beside.events == (InformationProvided("a-1", LATER, False, ("", code), (5, 0)),)
    assert beside.subjects == (AnswerSubject("", PAYLOAD), AnswerSubject(code, {}))


@pytest.mark.req("R-102")
def test_one_held_person_holds_the_whole_answer() -> None:
    decided = provide(GOOD, replace(GOOD, held=True))
    assert (decided.events, decided.subjects, decided.held) == ((HELD,), (), True)
    assert provide(replace(GOOD, held=True, source=0), GOOD).held, "also where nothing is stored"


@pytest.mark.req("R-086", "R-102")
def test_a_wrong_inquiry_does_not_learn_that_a_person_is_protected() -> None:
    decided = provide(replace(GOOD, held=True, guard_fits=False))
    assert (decided.code, decided.held) == ("I-202", False)


def test_a_layout_that_is_not_known_is_refused_before_anything_is_looked_at() -> None:
    assert provide(replace(GOOD, held=True), layout_known=False).code == "I-206"


@pytest.mark.parametrize(
    ("happened", "stands"),
    [
        ((), "none"),
        ((WANTED, HELD), "held"),
        ((WANTED, PROVIDED), "provided"),
        ((WANTED, DENIED), "refused"),
    ],
)
def test_a_provision_is_decided_once(happened: tuple[Any, ...], stands: str) -> None:
    decided = provision.decide_provide(wanted(*happened), "a-1", (GOOD,), True, LATER)
    assert decided == Refusal("L-107", f"provision is {stands}")


@pytest.mark.req("R-148")
def test_an_answer_that_the_network_refused_was_no_provision() -> None:
    state = wanted(WANTED, PROVIDED)
    assert provision.decide_not_relayed(state, "a-1", "N-109", LATER) == (NOT_RELAYED,)
    assert provision.decide_not_relayed(state, "another message", "N-110", LATER) == ()
    for happened in ((), (WANTED,), (WANTED, HELD), (WANTED, DENIED), (WANTED, PROVIDED, NOT_RELAYED)):
        assert provision.decide_not_relayed(wanted(*happened), "a-1", "N-109", LATER) == ()


def test_the_steps_of_a_provision_are_those_of_its_table() -> None:
    states = {
        "none": wanted(),
        "asked": wanted(WANTED),
        "held": wanted(WANTED, HELD),
        "provided": wanted(WANTED, PROVIDED),
        "refused": wanted(WANTED, DENIED),
    }
    allowed = {
        ("none", ProvisionRequested): "asked",
        ("asked", ProvisionHeld): "held",
        ("asked", InformationProvided): "provided",
        ("asked", ProvisionRefused): "refused",
        ("held", InformationProvided): "provided",
        ("held", ProvisionRefused): "refused",
        ("provided", AnswerNotRelayed): "refused",
    }
    check_table(provision.evolve, states, (WANTED, HELD, PROVIDED, DENIED, NOT_RELAYED), allowed)
