"""What the reference network decides, as scripts without a network."""

from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from adapters.network.reference import exchange, registration
from adapters.network.reference.exchange import (
    AnswerRefused,
    ExchangeAnswered,
    ExchangePermitted,
    ExchangeWithdrawn,
)
from adapters.network.reference.registration import AgencyRegistered
from ops.synthetic import assessments_of
from schemas.errors import Refusal
from schemas.law import table_at
from schemas.law.assessments import Assessments, read_assessments
from schemas.law.lines import joined
from schemas.messages import AnswerControl, InquiryControl, Permit, encode
from tests.house import ANSWERING, ASKING, OTHER, START

TABLE = table_at(date(2026, 11, 21))


def of_agencies(*codes: str) -> Assessments:
    """The published assessments of these agencies."""
    return Assessments(read_assessments(joined(assessments_of(codes)))[0])


ASSESSED = of_agencies("990019", "990027")
AT, UNTIL = START.isoformat(), (START + timedelta(hours=1)).isoformat()
INQUIRY = InquiryControl(
    message_id="m-1",
    inquirer="990019",
    office="子育て支援課",
    official_role="affair_officer",
    provider="990027",
    basis="19-8",
    law_version=TABLE.version,
    law_row="81",
    information="地方税関係情報",
    layout="income_tax_certificate/1",
    items=("total_income",),
    units=(1, 2),
    root=bytes(32),
    requested_at=AT,
    non_disclosure=False,
    signer="s",
)
ANSWER = AnswerControl(
    message_id="a-1",
    in_reply_to="m-1",
    processing_number="x-1",
    inquirer="990019",
    provider="990027",
    office="子育て支援課",
    official_role="automatic_response",
    code="",
    persons=(0, 1, 2),
    subjects=3,
    root=bytes(32),
    answered_at=AT,
    non_disclosure=False,
    signer="s",
)
NOTE = Permit(
    processing_number="x-1",
    message_id="m-1",
    inquirer="990019",
    provider="990027",
    basis="19-8",
    law_version=TABLE.version,
    law_row="81",
    information="地方税関係情報",
    items=("total_income",),
    issued_at=AT,
    valid_until=UNTIL,
    codes=("", "", ""),
    link_codes=("d1", "d2", "d3"),
)
PERMITTED = ExchangePermitted(
    processing_number="x-1",
    message_id="m-1",
    inquirer="990019",
    provider="990027",
    office="子育て支援課",
    basis="19-8",
    law_version=TABLE.version,
    law_row="81",
    affair="児童扶養手当の支給に関する事務",
    information="地方税関係情報",
    items=("total_income",),
    requested_at=AT,
    decided_at=AT,
    valid_until=UNTIL,
    persons=("p1", "p2", "p3"),
    units=(1, 2),
    codes=("", "", ""),
    digest="digest",
    control=b"c",
    sealed=b"s",
    signature=b"g",
    permit=encode(NOTE),
    permit_signature=b"ps",
    inquirer_codes=("c1", "c2", "c3"),
)
ANSWERED = ExchangeAnswered(
    processing_number="x-1",
    message_id="a-1",
    inquirer="990019",
    provider="990027",
    code="",
    persons=(0, 1, 2),
    answered_at=AT,
    decided_at=AT,
    digest="digest",
    control=b"c",
    sealed=b"s",
    signature=b"g",
    note=b"n",
    note_signature=b"ns",
)


def permit(**changes: Any) -> tuple[str, ...] | Refusal:
    """What the network says to INQUIRY where one thing is different."""
    given: dict[str, Any] = {
        "control": INQUIRY,
        "sender": "990019",
        "inquirer": ASKING,
        "provider": ANSWERING,
        "ordinances": {},
        "assessments": ASSESSED,
        "persons": ("p1", "p2", "p3"),
        "provider_codes": ("d1", "d2", "d3"),
    }
    return exchange.decide_permit(**given | changes)


def answer(*happened: Any, **changes: Any) -> Refusal | None:
    """What the network says to ANSWER after these events where one thing is different."""
    given: dict[str, Any] = {
        "control": ANSWER,
        "sender": "990027",
        "link_codes": ("d1", "d2", "d3"),
        "now": START,
    }
    return exchange.decide_answer(after(*happened), **given | changes)


def after(*happened: Any) -> exchange.State:
    state = exchange.State()
    for event in happened:
        state = exchange.evolve(state, event)
    return state


def test_an_inquiry_within_the_law_about_known_persons_is_permitted() -> None:
    assert permit() == ("", "", "")


@pytest.mark.req("R-082", "R-212")
def test_each_unit_is_permitted_as_a_whole_and_by_itself() -> None:
    assert permit(persons=("", "p2", "p3")) == ("N-105", "", "")
    assert permit(persons=("p1", "", "p3")) == ("", "N-105", "N-105")
    assert permit(provider_codes=("d1", "d2", "")) == ("", "N-106", "N-106")
    assert permit(persons=("", "p2", "p3"), provider_codes=("", "d2", "")) == Refusal("N-105")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"inquirer": None}, "N-101"),
        ({"sender": "990035", "inquirer": OTHER}, "N-102"),
        ({"provider": None}, "N-104"),
        ({"control": replace(INQUIRY, requested_at="2001-01-01")}, "N-103"),
        ({"control": replace(INQUIRY, requested_at="today")}, "N-103"),
        ({"control": replace(INQUIRY, basis="19-9")}, "N-103"),
        ({"assessments": Assessments()}, "N-115"),
        ({"assessments": of_agencies("990019")}, "N-115"),
        ({"assessments": of_agencies("990027")}, "N-115"),
        ({"control": replace(INQUIRY, law_version="of another day")}, "N-103"),
        ({"control": replace(INQUIRY, law_row="2")}, "N-103"),
        ({"control": replace(INQUIRY, information="戸籍関係情報")}, "N-103"),
        ({"provider": replace(ANSWERING, kind="prefecture")}, "N-103"),
        ({"persons": ("", "", "p3")}, "N-105"),
        ({"persons": ("p1", "p2")}, "N-105"),
        ({"provider_codes": ("", "d2", "")}, "N-106"),
        ({"control": replace(INQUIRY, units=()), "persons": (), "provider_codes": ()}, "N-111"),
        ({"control": replace(INQUIRY, units=(3, 0))}, "N-111"),
        ({"control": replace(INQUIRY, units=(4_000, 4_000))}, "N-111"),
    ],
)
@pytest.mark.req("R-060", "R-381", "R-382")
def test_an_inquiry_is_refused(changes: dict[str, Any], code: str) -> None:
    refusal = permit(**changes)
    assert isinstance(refusal, Refusal)
    assert refusal.code == code


def test_an_answer_under_its_permit_passes_up_to_the_last_moment() -> None:
    last = datetime.fromisoformat(UNTIL)
    assert answer(PERMITTED) is None
    assert answer(PERMITTED, now=last) is None
    assert answer(PERMITTED, now=last + timedelta(microseconds=1)) == Refusal("N-109")


@pytest.mark.req("R-082", "R-111")
def test_answers_come_in_parts_of_whole_units_each_with_the_codes_of_its_persons() -> None:
    first, second = replace(ANSWER, persons=(1, 2)), replace(ANSWER, message_id="a-2", persons=(0,))
    assert answer(PERMITTED, control=first, link_codes=("d2", "d3")) is None
    assert answer(PERMITTED, control=first, link_codes=("d3", "d2")) == Refusal("N-112")
    assert answer(PERMITTED, control=first, link_codes=()) == Refusal("N-112")
    for persons in ((), (1,), (0, 1), (0, 0), (3,), (-1,), (2, 1, 1)):
        wrong = answer(PERMITTED, control=replace(ANSWER, persons=persons), link_codes=("d1",))
        assert wrong is not None
        assert wrong.code == "N-111", persons
    half = replace(ANSWERED, persons=(1, 2))
    assert answer(PERMITTED, half, control=second, link_codes=("d1",)) is None
    assert answer(PERMITTED, half, control=first, link_codes=("d2", "d3")) == Refusal("N-110")


@pytest.mark.req("R-089")
def test_after_a_withdrawal_nothing_passes_about_those_who_were_open() -> None:
    half = replace(ANSWERED, persons=(0,))
    withdrawn = exchange.decide_withdraw(after(PERMITTED, half), "w-1", "990019", AT)
    assert withdrawn == ExchangeWithdrawn("x-1", "w-1", (1, 2), AT)
    late = replace(ANSWER, message_id="a-2", persons=(1, 2))
    assert answer(PERMITTED, half, withdrawn, control=late, link_codes=("d2", "d3")) == Refusal("N-113")
    assert exchange.decide_withdraw(after(PERMITTED, half, withdrawn), "w-2", "990019", AT) == Refusal(
        "N-110"
    )
    assert exchange.decide_withdraw(after(PERMITTED), "w-1", "990035", AT) == Refusal("N-108")
    assert exchange.decide_withdraw(after(), "w-1", "990019", AT) == Refusal("N-108")


@pytest.mark.parametrize(
    ("happened", "control", "sender", "code"),
    [
        ((PERMITTED,), ANSWER, "990035", "N-102"),
        ((), ANSWER, "990027", "N-108"),
        ((PERMITTED,), replace(ANSWER, provider="990035"), "990035", "N-108"),
        ((PERMITTED,), replace(ANSWER, in_reply_to="m-2"), "990027", "N-108"),
        ((PERMITTED,), replace(ANSWER, inquirer="990035"), "990027", "N-108"),
        ((PERMITTED, ANSWERED), ANSWER, "990027", "N-110"),
        ((PERMITTED, ANSWERED), replace(ANSWER, code="I-205"), "990027", "N-110"),
    ],
)
def test_an_answer_is_refused(
    happened: tuple[Any, ...], control: AnswerControl, sender: str, code: str
) -> None:
    assert answer(*happened, control=control, sender=sender) == Refusal(code)


def test_an_answer_that_was_refused_leaves_the_permit_as_it_was() -> None:
    refused = AnswerRefused("x-1", "a-2", "990035", "N-108", AT, "other")
    assert after(PERMITTED, refused) == after(PERMITTED)


def test_an_agency_registers_again_only_with_other_keys() -> None:
    registered = AgencyRegistered("990019", "連携市", "city", b"certificate", b"key")
    renewed = replace(registered, certificate=b"renewed")
    assert registration.decide_register(None, registered) == (registered,)
    known = registration.evolve(None, registered)
    assert registration.decide_register(known, registered) == ()
    assert registration.decide_register(known, renewed) == (renewed,)
    assert registration.evolve(known, renewed) == renewed
