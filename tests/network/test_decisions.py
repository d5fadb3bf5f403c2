"""What the reference network decides, as scripts without a network."""

from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from adapters.network.reference import codes, exchange, registration
from adapters.network.reference.codes import LinkCodeIssued
from adapters.network.reference.exchange import AnswerRefused, ExchangeAnswered, ExchangePermitted
from adapters.network.reference.registration import AgencyRegistered
from schemas.errors import Refusal
from schemas.law import table_at
from schemas.messages import AnswerControl, InquiryControl
from tests.house import ANSWERING, ASKING, OTHER, START

TABLE = table_at(date(2026, 11, 21))
AT, UNTIL = START.isoformat(), (START + timedelta(hours=1)).isoformat()
INQUIRY = InquiryControl(
    message_id="m-1",
    inquirer="990019",
    office="子育て支援課",
    official_role="affair_officer",
    provider="990027",
    law_version=TABLE.version,
    law_row="81",
    information="地方税関係情報",
    layout="income_tax_certificate/1",
    items=("total_income",),
    subjects=2,
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
    subjects=2,
    answered_at=AT,
    non_disclosure=False,
    signer="s",
)
PERMITTED = ExchangePermitted(
    processing_number="x-1",
    message_id="m-1",
    inquirer="990019",
    provider="990027",
    office="子育て支援課",
    law_version=TABLE.version,
    law_row="81",
    affair="児童扶養手当の支給に関する事務",
    information="地方税関係情報",
    items=("total_income",),
    requested_at=AT,
    decided_at=AT,
    valid_until=UNTIL,
    persons=("p1", "p2"),
    digest="digest",
    control=b"c",
    sealed=b"s",
    signature=b"g",
    permit=b"p",
    permit_signature=b"ps",
    inquirer_codes=("c1", "c2"),
)
ANSWERED = ExchangeAnswered(
    processing_number="x-1",
    message_id="a-1",
    inquirer="990019",
    provider="990027",
    code="",
    answered_at=AT,
    decided_at=AT,
    digest="digest",
    control=b"c",
    sealed=b"s",
    signature=b"g",
    note=b"n",
    note_signature=b"ns",
)


def permit(**changes: Any) -> Refusal | None:
    """What the network says to INQUIRY where one thing is different."""
    given: dict[str, Any] = {
        "control": INQUIRY,
        "sender": "990019",
        "inquirer": ASKING,
        "provider": ANSWERING,
        "table": TABLE,
        "persons": ("p1", "p2"),
        "provider_codes": ("d1", "d2"),
    }
    return exchange.decide_permit(**given | changes)


def after(*happened: Any) -> exchange.State:
    state = exchange.State()
    for event in happened:
        state = exchange.evolve(state, event)
    return state


def test_an_inquiry_within_the_law_about_known_persons_is_permitted() -> None:
    assert permit() is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"inquirer": None}, "N-101"),
        ({"sender": "990035", "inquirer": OTHER}, "N-102"),
        ({"provider": None}, "N-104"),
        ({"table": None}, "N-103"),
        ({"control": replace(INQUIRY, law_version="of another day")}, "N-103"),
        ({"control": replace(INQUIRY, law_row="2")}, "N-103"),
        ({"control": replace(INQUIRY, information="戸籍関係情報")}, "N-103"),
        ({"provider": replace(ANSWERING, kind="prefecture")}, "N-103"),
        ({"persons": ("p1", "")}, "N-105"),
        ({"persons": ("p1",)}, "N-105"),
        ({"provider_codes": ("d1", "")}, "N-106"),
        ({"control": replace(INQUIRY, subjects=0), "persons": (), "provider_codes": ()}, "N-111"),
    ],
)
@pytest.mark.req("R-060")
def test_an_inquiry_is_refused(changes: dict[str, Any], code: str) -> None:
    refusal = permit(**changes)
    assert refusal is not None
    assert refusal.code == code


def test_an_answer_under_its_permit_passes_up_to_the_last_moment() -> None:
    assert exchange.decide_answer(after(PERMITTED), ANSWER, "990027", START) is None
    last = datetime.fromisoformat(UNTIL)
    assert exchange.decide_answer(after(PERMITTED), ANSWER, "990027", last) is None
    late = last + timedelta(microseconds=1)
    assert exchange.decide_answer(after(PERMITTED), ANSWER, "990027", late) == Refusal("N-109")


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
    assert exchange.decide_answer(after(*happened), control, sender, START) == Refusal(code)


def test_an_answer_that_was_refused_leaves_the_permit_as_it_was() -> None:
    refused = AnswerRefused("x-1", "a-2", "990035", "N-108", AT, "other")
    assert after(PERMITTED, refused) == after(PERMITTED)


def test_a_person_has_one_code_in_each_agency() -> None:
    issued = LinkCodeIssued("990019", "p1", "index", "code")
    assert codes.decide_issue(None, issued) == (issued,)
    assert codes.decide_issue(codes.evolve(None, issued), replace(issued, link_code="other")) == ()


def test_an_agency_registers_again_only_with_other_keys() -> None:
    registered = AgencyRegistered("990019", "連携市", "city", b"certificate", b"key")
    renewed = replace(registered, certificate=b"renewed")
    assert registration.decide_register(None, registered) == (registered,)
    known = registration.evolve(None, registered)
    assert registration.decide_register(known, registered) == ()
    assert registration.decide_register(known, renewed) == (renewed,)
    assert registration.evolve(known, renewed) == renewed
