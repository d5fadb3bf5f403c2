"""An inquiry as an event script: units of a household or a file, several answers, withdrawal, expiry."""

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import product
from typing import Any

import pytest

from broker.intermediate import inquiry
from broker.intermediate.inquiry import (
    InquiryAnswered,
    InquiryExpired,
    InquiryNotWithdrawn,
    InquiryPermitted,
    InquiryRefused,
    InquiryReleased,
    InquiryRequested,
    InquiryWithdrawalRequested,
    InquiryWithdrawn,
    RequestJoined,
    UnitResult,
)
from schemas.errors import Refusal
from schemas.messages import AnswerControl, AnswerSubject, DeliveryNote, NetworkVerdict, ReceivedAnswer
from tests.intermediate.samples import ASKED, AT, LATER, UNTIL, after

PAYLOAD = {"fiscal_year": "2026", "total_income": "1"}
FILE = replace(
    ASKED,
    request_ids=("q-1", "q-2", "q-3"),
    case_numbers=("k-1", "", "k-1"),
    repeats=("", "", ""),
    units=(1, 2, 1),
    persons=("p1", "p2", "p3", "p4"),
    digests=("d1", "d2", "d3"),
    subjects=("n1", "n2", "n3", "n4"),
)
"""Three orders from a file in one inquiry: a person, a household of two, a person."""
ONE, HOUSEHOLD, LAST = tuple(inquiry.units(FILE.units))
PERMITTED = InquiryPermitted("x-1", AT, UNTIL, ("", ""))
FILE_PERMITTED = InquiryPermitted("x-1", AT, UNTIL, ("", "", "", "N-106"))
REFUSED = InquiryRefused("network", "N-106", "x-1", AT)
ANSWERED = InquiryAnswered("x-1", "a-1", LATER, False, (0, 1), ("", ""), ((), ()), (PAYLOAD, PAYLOAD))
FIRST = InquiryAnswered("x-1", "a-1", LATER, False, (0,), ("",), ((),), (PAYLOAD,))
SECOND = InquiryAnswered("x-1", "a-2", LATER, False, (1, 2), ("I-204", "I-204"), ((), ()), ({}, {}))
WANTED = InquiryWithdrawalRequested(LATER, "s0001", "申請の取下げ")
WITHDRAWN = InquiryWithdrawn("network", "I-111", LATER)
NOT_WITHDRAWN = InquiryNotWithdrawn("N-110", LATER)
EXPIRED = InquiryExpired("N-109", LATER)
DEFERRED = replace(ASKED, not_before=LATER)
RELEASED = InquiryReleased(LATER)
JOINED = RequestJoined("i-9", 1, "digest")


def asked(*happened: Any) -> inquiry.State:
    return after(inquiry.State(), inquiry.evolve, *happened)


def received(
    *subjects: AnswerSubject, persons: tuple[int, ...] = (), code: str = "", relayed: str = LATER
) -> ReceivedAnswer:
    """An answer as the linkage interface hands it on; about the first persons where none are named."""
    persons = persons or tuple(range(len(subjects)))
    control = AnswerControl(
        message_id="a-1",
        in_reply_to="i-1",
        processing_number="x-1",
        inquirer="990019",
        provider="990027",
        office="子育て支援課",
        official_role="automatic_response",
        code=code,
        persons=persons,
        subjects=len(subjects),
        root=b"",
        answered_at=LATER,
        non_disclosure=False,
        signer="s",
    )
    note = DeliveryNote("x-1", "a-1", "i-1", "990019", "990027", relayed, ("c",) * len(persons))
    return ReceivedAnswer(note, control, subjects)


def verdict(code: str, codes: tuple[str, ...] = ()) -> NetworkVerdict:
    return NetworkVerdict("i-1", "x-1", code, AT, "" if code else UNTIL, codes)


GOOD = AnswerSubject("", PAYLOAD)


@pytest.mark.req("R-154")
def test_a_request_is_recorded_also_where_a_check_of_this_house_refused_it() -> None:
    assert inquiry.decide_request(ASKED, None) == (ASKED,)
    refused = InquiryRefused("here", "L-104", "", AT)
    assert inquiry.decide_request(ASKED, Refusal("L-104")) == (ASKED, refused)
    assert inquiry.decide_request(DEFERRED, Refusal("L-104")) == (ASKED, refused), "and waits for no time"


@pytest.mark.parametrize(
    "happened", [(ASKED,), (ASKED, PERMITTED), (ASKED, REFUSED), (ASKED, ANSWERED), (JOINED,)]
)
def test_a_repeated_request_keeps_its_first_outcome(happened: tuple[Any, ...]) -> None:
    assert inquiry.repeated(asked(*happened), "digest") == Refusal("I-105")
    assert inquiry.repeated(asked(*happened), "other") == Refusal("B-008")
    assert inquiry.repeated(asked(), "digest") is None


def test_the_network_permits_or_refuses_an_inquiry_once() -> None:
    permitted = verdict("", ("", ""))
    assert inquiry.decide_verdict(asked(ASKED), permitted) == (PERMITTED,)
    assert inquiry.decide_verdict(asked(ASKED), verdict("N-106", ("N-106", "N-106"))) == (REFUSED,)
    assert inquiry.decide_verdict(asked(ASKED, WANTED), permitted) == (PERMITTED,)
    for happened in ((), (ASKED, PERMITTED), (ASKED, REFUSED), (ASKED, ANSWERED), (ASKED, PERMITTED, WANTED)):
        assert inquiry.decide_verdict(asked(*happened), permitted) == ()
        assert inquiry.decide_verdict(asked(*happened), verdict("N-106")) == ()


def test_whom_the_network_did_not_permit_is_done_with_and_the_others_wait() -> None:
    state = asked(FILE, FILE_PERMITTED)
    assert (state.step, state.open) == (inquiry.WAITING, (0, 1, 2))
    assert inquiry.unit_result(state, LAST) == UnitResult("refused", "N-106", ("N-106",), ())
    assert inquiry.unit_result(state, ONE) == UnitResult("waiting", "", (), ())


def test_where_the_network_permits_nobody_each_has_a_code() -> None:
    codes = ("N-105", "N-106", "N-106", "N-106")
    (refused,) = inquiry.decide_verdict(asked(FILE), verdict("N-105", codes))
    state = asked(FILE, refused)
    assert state.step == inquiry.REFUSED
    assert [inquiry.unit_result(state, unit).code for unit in (ONE, HOUSEHOLD, LAST)] == [
        "N-105",
        "N-106",
        "N-106",
    ]


def test_a_verdict_with_codes_for_others_than_were_asked_about_refuses_nobody_by_them() -> None:
    for codes in ((), ("N-106",), ("",) * 4 + ("N-106",)):
        (permitted,) = inquiry.decide_verdict(asked(FILE), verdict("", codes))
        assert asked(FILE, permitted).open == (0, 1, 2, 3)
        (refused,) = inquiry.decide_verdict(asked(FILE), verdict("N-103", codes))
        assert refused.codes == ()
    overtaken = inquiry.decide_verdict(asked(FILE, FIRST), verdict("", ("N-106", "", "", "")))
    assert overtaken == (replace(FILE_PERMITTED, codes=("", "", "", "")),), (
        "who was answered about is done with"
    )


@pytest.mark.parametrize("happened", [(ASKED,), (ASKED, PERMITTED), (ASKED, PERMITTED, WANTED)])
def test_an_answer_about_all_closes_an_inquiry_whatever_it_overtook(happened: tuple[Any, ...]) -> None:
    decided = inquiry.decide_answer(asked(*happened), received(GOOD, GOOD), ("", ""))
    assert decided == (ANSWERED,)
    assert asked(*happened, ANSWERED).step == inquiry.ANSWERED


@pytest.mark.req("R-212")
def test_answers_come_unit_by_unit_until_nobody_is_open() -> None:
    first = asked(FILE, FILE_PERMITTED, FIRST)
    assert (first.step, first.open) == (inquiry.WAITING, (1, 2))
    assert inquiry.unit_result(first, ONE) == UnitResult("answered", "", ("",), (PAYLOAD,), ((),))
    assert inquiry.unit_result(first, HOUSEHOLD).state == "waiting"
    second = asked(FILE, FILE_PERMITTED, FIRST, SECOND)
    assert (second.step, second.open) == (inquiry.ANSWERED, ())
    assert inquiry.unit_result(second, HOUSEHOLD) == UnitResult("refused", "I-204", ("I-204", "I-204"), ())


def test_an_answer_says_which_items_it_leaves_out() -> None:
    part = AnswerSubject("", {"fiscal_year": "2026"}, ("total_income",))
    decided = inquiry.decide_answer(asked(ASKED, PERMITTED), received(part, GOOD), ("", ""))
    assert not isinstance(decided, Refusal)
    (answered,) = decided
    result = inquiry.unit_result(asked(ASKED, PERMITTED, answered), range(2))
    assert result.omitted == (("total_income",), ())
    assert result.payloads == ({"fiscal_year": "2026"}, PAYLOAD)


def test_a_household_is_answered_as_a_whole() -> None:
    half = received(GOOD, persons=(1,))
    assert inquiry.decide_answer(asked(FILE, FILE_PERMITTED), half, ("",)) == Refusal("L-107", "units")


def test_nobody_is_answered_about_twice_and_nobody_who_was_not_asked_about() -> None:
    state = asked(FILE, FILE_PERMITTED, FIRST)
    for persons in ((0,), (0, 1, 2), (3,), (4,)):
        answer = received(*[GOOD] * len(persons), persons=persons)
        assert inquiry.decide_answer(state, answer, ("",) * len(persons)) == Refusal("L-107", "persons")


def test_each_subject_has_its_own_outcome_and_nothing_is_taken_beside_a_refusal() -> None:
    answer = received(AnswerSubject("I-204", PAYLOAD), AnswerSubject("", {"foreign": "x"}))
    decided = inquiry.decide_answer(asked(ASKED, PERMITTED), answer, ("", "I-301"))
    assert decided == (replace(ANSWERED, codes=("I-204", "I-301"), payloads=({}, {})),)
    half = inquiry.decide_answer(
        asked(ASKED, PERMITTED), received(AnswerSubject("I-204", PAYLOAD), GOOD), ("", "")
    )
    assert half == (replace(ANSWERED, codes=("I-204", ""), payloads=({}, PAYLOAD)),)


def test_a_refusing_answer_refuses_those_whom_it_names() -> None:
    whole = inquiry.decide_answer(asked(ASKED, PERMITTED), received(persons=(0, 1), code="I-204"), ())
    assert whole == (InquiryRefused("provider", "I-204", "x-1", LATER),)
    part = inquiry.decide_answer(asked(FILE, FILE_PERMITTED), received(persons=(1, 2), code="I-205"), ())
    assert part == (replace(SECOND, answer_message="a-1", codes=("I-205", "I-205")),)
    assert asked(FILE, FILE_PERMITTED, *part).open == (0,)


@pytest.mark.parametrize(
    ("happened", "stands"),
    [((), "none"), ((ASKED, REFUSED), "refused"), ((ASKED, ANSWERED), "answered"), ((JOINED,), "joined")],
)
def test_an_inquiry_that_is_not_open_takes_no_answer(happened: tuple[Any, ...], stands: str) -> None:
    decided = inquiry.decide_answer(asked(*happened), received(GOOD, GOOD), ("", ""))
    assert decided == Refusal("L-107", f"inquiry is {stands}")


# 取りやめ


@pytest.mark.req("R-089")
def test_what_was_sent_is_withdrawn_by_the_network_and_what_was_not_here() -> None:
    here = InquiryWithdrawn("here", "I-111", LATER)
    for happened in ((ASKED,), (ASKED, PERMITTED), (FILE, FILE_PERMITTED, FIRST)):
        assert inquiry.decide_withdraw(asked(*happened), WANTED, sent=True) == (WANTED,)
    for happened in ((ASKED,), (DEFERRED,)):
        assert inquiry.decide_withdraw(asked(*happened), WANTED, sent=False) == (WANTED, here)
        assert inquiry.unit_result(asked(*happened, WANTED, here), range(2)) == UnitResult(
            "withdrawn", "I-111", ("I-111", "I-111"), ()
        )
    assert inquiry.decide_withdraw(asked(ASKED, PERMITTED, WANTED), WANTED, sent=True) == (), "asked before"
    for ended in ((), (ASKED, REFUSED), (ASKED, ANSWERED), (ASKED, PERMITTED, EXPIRED)):
        assert inquiry.decide_withdraw(asked(*ended), WANTED, sent=True) == Refusal("I-113")


@pytest.mark.req("R-089")
def test_the_network_has_the_word_on_a_withdrawal() -> None:
    waiting = asked(ASKED, PERMITTED, WANTED)
    assert inquiry.decide_withdrawn(waiting, "", LATER) == (WITHDRAWN,)
    assert inquiry.decide_withdrawn(waiting, "N-110", LATER) == (NOT_WITHDRAWN,)
    assert asked(ASKED, PERMITTED, WANTED, NOT_WITHDRAWN).step == inquiry.WAITING
    answered = asked(ASKED, PERMITTED, WANTED, ANSWERED)
    assert inquiry.unit_result(answered, range(2)).state == "answered"
    assert inquiry.decide_withdrawn(answered, "N-110", LATER) == ()


@pytest.mark.req("R-089")
def test_an_answer_after_the_withdrawal_is_not_taken_and_one_relayed_before_it_is() -> None:
    withdrawn = asked(ASKED, PERMITTED, WANTED, WITHDRAWN)
    assert inquiry.decide_answer(withdrawn, received(GOOD, GOOD, relayed=UNTIL), ("", "")) == Refusal("I-114")
    assert inquiry.decide_answer(withdrawn, received(GOOD, GOOD, relayed=AT), ("", "")) == (ANSWERED,)
    here = asked(ASKED, WANTED, replace(WITHDRAWN, by="here"))
    assert inquiry.decide_answer(here, received(GOOD, GOOD, relayed=AT), ("", "")) == Refusal("I-114")


# 期限


def test_who_is_open_when_the_permit_has_lapsed_is_done_with() -> None:
    end = datetime.fromisoformat(UNTIL) + inquiry.MARGIN
    state = asked(FILE, FILE_PERMITTED, FIRST)
    assert inquiry.decide_expire(state, end) == ()
    (expired,) = inquiry.decide_expire(state, end + timedelta(seconds=1))
    ended = inquiry.evolve(state, expired)
    assert inquiry.unit_result(ended, ONE).state == "answered"
    assert inquiry.unit_result(ended, HOUSEHOLD) == UnitResult("expired", "N-109", ("N-109", "N-109"), ())
    assert inquiry.decide_expire(ended, end + timedelta(days=1)) == ()
    assert inquiry.decide_expire(asked(ASKED), end + timedelta(days=1)) == (), "the network has not spoken"


def test_an_answer_that_was_relayed_in_time_is_taken_whenever_it_comes() -> None:
    for happened in ((ASKED, PERMITTED), (ASKED, PERMITTED, EXPIRED)):
        assert inquiry.decide_answer(asked(*happened), received(GOOD, GOOD, relayed=UNTIL), ("", "")) == (
            ANSWERED,
        )
        late = received(GOOD, GOOD, relayed=UNTIL.replace("10:30", "10:31"))
        assert inquiry.decide_answer(asked(*happened), late, ("", "")) == Refusal("L-106")
    assert asked(ASKED, PERMITTED, EXPIRED, ANSWERED).step == inquiry.ANSWERED


# 処理のタイミング, 再送


@pytest.mark.req("R-082")
def test_a_deferred_inquiry_goes_on_its_way_once_or_is_refused_then() -> None:
    assert asked(DEFERRED).step == inquiry.DEFERRED
    assert inquiry.decide_release(asked(DEFERRED), LATER, None) == (RELEASED,)
    assert inquiry.decide_release(asked(DEFERRED), LATER, Refusal("I-101")) == (
        InquiryRefused("here", "I-101", "", LATER),
    )
    for happened in ((ASKED,), (DEFERRED, RELEASED), (DEFERRED, WANTED)):
        assert inquiry.decide_release(asked(*happened), LATER, None) == ()


@pytest.mark.req("R-201")
@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("none", "I-115"),
        ("deferred", "I-116"),
        ("asked", "I-116"),
        ("waiting", "I-116"),
        ("withdrawing", "I-116"),
        ("answered", "I-116"),
        ("refused", ""),
        ("withdrawn", ""),
        ("expired", ""),
    ],
)
def test_only_what_ended_without_an_answer_is_asked_again(state: str, code: str) -> None:
    assert inquiry.decide_again(UnitResult(state, "", (), ())) == (Refusal(code) if code else None)


def test_the_steps_of_an_inquiry_are_those_of_its_table() -> None:
    states = {
        "none": (),
        "joined": (JOINED,),
        "deferred": (DEFERRED,),
        "asked": (FILE,),
        "waiting": (FILE, FILE_PERMITTED),
        "withdrawing": (FILE, FILE_PERMITTED, WANTED),
        "withdrawn": (FILE, FILE_PERMITTED, WANTED, WITHDRAWN),
        "expired": (FILE, FILE_PERMITTED, EXPIRED),
        "answered": (ASKED, ANSWERED),
        "refused": (ASKED, REFUSED),
    }
    allowed: dict[tuple[str, Any], str] = {
        ("none", InquiryRequested): "asked",
        ("none", RequestJoined): "joined",
        ("deferred", InquiryReleased): "asked",
        ("deferred", InquiryRefused): "refused",
        ("deferred", InquiryWithdrawalRequested): "withdrawing",
        ("asked", InquiryPermitted): "waiting",
        ("asked", InquiryRefused): "refused",
        ("asked", InquiryAnswered): "asked",
        ("asked", InquiryWithdrawalRequested): "withdrawing",
        ("waiting", InquiryRefused): "refused",
        ("waiting", InquiryAnswered): "waiting",
        ("waiting", InquiryWithdrawalRequested): "withdrawing",
        ("waiting", InquiryExpired): "expired",
        ("withdrawing", InquiryPermitted): "withdrawing",
        ("withdrawing", InquiryRefused): "refused",
        ("withdrawing", InquiryAnswered): "withdrawing",
        ("withdrawing", InquiryWithdrawn): "withdrawn",
        ("withdrawing", InquiryNotWithdrawn): "waiting",
        ("withdrawing", InquiryExpired): "expired",
        ("withdrawn", InquiryAnswered): "withdrawn",
        ("expired", InquiryAnswered): "expired",
    }
    events = (
        FILE,
        JOINED,
        RELEASED,
        FILE_PERMITTED,
        REFUSED,
        FIRST,
        WANTED,
        WITHDRAWN,
        NOT_WITHDRAWN,
        EXPIRED,
    )
    for (name, happened), event in product(states.items(), events):
        if (name, type(event)) in allowed:
            assert inquiry.evolve(asked(*happened), event).step == allowed[name, type(event)]
        else:
            with pytest.raises(KeyError):
                inquiry.evolve(asked(*happened), event)
