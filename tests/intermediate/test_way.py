"""The way of one inquiry through the house, from the order to the result, and where it ends early."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import pytest

from broker.linkage.outgoing import MessageQueued
from schemas.messages import (
    AnswerControl,
    Envelope,
    InquiryControl,
    InquirySubject,
    Permit,
    decode,
)
from tests.house import (
    ANSWERING,
    ASKING,
    LAYOUT,
    NECESSARY,
    NO_CODE,
    NO_RECORD,
    OFFICE,
    OFFICER,
    RESIDENTS,
    ROW,
    House,
    asked_of,
    contents,
    files_with,
    income,
    order,
    resident,
)
from tests.linkage.forging import ANSWER, scene_of


@pytest.mark.req("R-061", "R-068", "R-069", "R-070", "R-071", "R-093", "R-094", "R-101", "R-122")
async def test_an_order_is_answered_from_the_reference_database_without_anybody_doing_anything(
    house: House,
) -> None:
    assert await house.asking.platform.inquire(order("q-1", 0)) is None
    assert (await house.asking.result("q-1")).state == "asked"
    await house.post()
    result = await house.asking.result("q-1")
    assert (result.state, result.code, result.codes) == ("answered", "", ("",))
    assert result.payloads == (asked_of(0),)
    (answer,) = await house.answering.of_kind(MessageQueued)
    assert decode(AnswerControl, answer.control).official_role == "automatic_response"


@pytest.mark.req("R-068", "R-070", "R-122")
async def test_three_persons_are_asked_about_in_one_message_and_answered_each_for_himself(
    house: House,
) -> None:
    assert await house.asking.platform.inquire(order("q-1", 2, 0, 1)) is None
    await house.post()
    result = await house.asking.result("q-1")
    assert result.payloads == (asked_of(2), asked_of(0), asked_of(1))
    assert len(await house.asking.of_kind(MessageQueued)) == 1
    assert len(await house.answering.of_kind(MessageQueued)) == 1


@pytest.mark.req("R-070")
async def test_one_without_a_record_does_not_keep_the_others_from_being_answered(house: House) -> None:
    assert await house.asking.platform.inquire(order("q-1", 0, NO_RECORD, 1)) is None
    await house.post()
    result = await house.asking.result("q-1")
    assert (result.state, result.codes) == ("answered", ("", "I-204", ""))
    assert result.payloads == (asked_of(0), {}, asked_of(1))


async def test_the_same_person_twice_in_one_inquiry_is_answered_twice(house: House) -> None:
    assert await house.asking.platform.inquire(order("q-1", 0, 0)) is None
    await house.post()
    assert (await house.asking.result("q-1")).payloads == (asked_of(0), asked_of(0))


@pytest.mark.parametrize(
    ("people", "changes", "code"),
    [
        ((0,), {"staff_id": "s0002"}, "I-101"),
        ((0,), {"row": "82"}, "I-102"),
        ((0,), {"subjects": ("999999999999999",)}, "I-104"),
        ((0,), {"layout": "income_tax_certificate/9"}, "I-206"),
        ((0,), {"layout": "resident_record/1"}, "I-206"),
        ((0,), {"provider": "990043"}, "L-101"),
        ((0,), {"row": "2"}, "L-104"),
        ((NO_CODE,), {}, "N-106"),
        ((0, NO_CODE), {}, "N-106"),
        ((), {}, "N-111"),
        ((NO_RECORD,), {}, "I-204"),
        ((0,), {"fiscal_year": "2020"}, "I-204"),
    ],
)
@pytest.mark.req("R-057", "R-081")
async def test_an_inquiry_that_gets_no_answer_says_why(
    house: House, people: Sequence[int], changes: dict[str, Any], code: str
) -> None:
    refusal = await house.asking.platform.inquire(order("q-1", *people, **changes))
    assert refusal is None or refusal.code == code
    await house.post()
    result = await house.asking.result("q-1")
    assert (result.state, result.code, result.payloads) == ("refused", code, ())


async def test_whoever_has_no_code_yet_cannot_be_asked_about(house: House) -> None:
    house.asking.linkage.directory = house.other.linkage.directory
    await house.other.register(1)
    await house.other.platform.grant(await granted(house))
    about = order("q-1", subjects=(RESIDENTS["990035"][1].integrated_number,))
    refusal = await house.other.platform.inquire(about)
    assert refusal is not None
    assert refusal.code == "I-103"
    assert await house.other.outbox() == []


async def granted(house: House) -> Any:
    return (await house.asking.platform.ledger.stream(f"staff/{OFFICER}"))[-1].event


@pytest.mark.req("R-044", "R-045", "R-056", "R-092")
async def test_a_message_has_a_control_part_in_clear_and_a_sealed_business_part(house: House) -> None:
    scene = await scene_of(house, ANSWER, 0)
    (asked,) = await house.asking.of_kind(MessageQueued)
    control = decode(InquiryControl, asked.control)
    assert (control.inquirer, control.provider, control.law_row) == (ASKING.code, ANSWERING.code, ROW)
    assert (control.office, control.official_role) == (OFFICE, "affair_officer")
    assert (control.layout, control.items, control.units) == (LAYOUT, NECESSARY, (1,))
    control_of_answer = decode(AnswerControl, scene.genuine.envelope.control)
    assert (control_of_answer.in_reply_to, control_of_answer.code) == (control.message_id, "")
    for number in (income(0)["total_income"], resident(ASKING, 0), resident(ANSWERING, 0)):
        assert number.encode() not in asked.control + asked.sealed + asked.signature
        envelope = scene.genuine.envelope
        assert number.encode() not in envelope.control + envelope.sealed + envelope.signature


@pytest.mark.req("R-047")
async def test_the_network_routes_and_authorises_and_records_by_the_control_part_alone(house: House) -> None:
    assert await house.asking.platform.inquire(order("q-1", 0)) is None
    (message,) = await house.asking.outbox()
    junk = replace(message, sealed=b"nobody can read this", signature=b"nor verify that")
    (verdict,) = await house.asking.client.submit([junk])
    assert verdict.code == ""
    (delivery,) = await house.answering.mail()
    assert delivery.envelope == Envelope(message.control, junk.sealed, junk.signature), "as it was sent"
    rows = await house.core.follower.query("SELECT inquirer, provider, law_row, information FROM exchange")
    assert rows == [(ASKING.code, ANSWERING.code, ROW, "地方税関係情報")]
    assert await house.asking.platform.inquire(order("q-2", 0)) is None
    message = (await house.asking.outbox())[-1]
    outside = replace(message, control=message.control.replace(b"\xa281", b"\xa282"))
    assert outside.control != message.control
    (verdict,) = await house.asking.client.submit([outside])
    assert verdict.code == "N-103", "the row in the control part decides"


@pytest.mark.req("R-048", "R-055")
async def test_the_network_holds_nothing_of_what_was_asked_and_answered(house: House) -> None:
    assert await house.asking.platform.inquire(order("q-1", 0, 1)) is None
    await house.post()
    secrets = [asked_of(index)["total_income"] for index in (0, 1)]
    assert (await house.asking.result("q-1")).payloads[0]["total_income"] == secrets[0]
    opened = contents(await house.core.ledger.at(range(1, house.core.ledger.position + 1)))
    for secret in (*secrets, *(resident(agency, 0) for agency in (ASKING, ANSWERING))):
        assert secret.encode() not in opened
    assert files_with(house.folder, *secrets) == [], "and nowhere else in clear"


@pytest.mark.req("R-065")
async def test_what_the_law_provides_for_needs_nothing_from_the_person_concerned(house: House) -> None:
    """Nothing in an order or a message speaks of consent, and none was given; the law table decides alone."""
    words = {f.name for kind in (InquiryControl, InquirySubject, Permit) for f in fields(kind)}
    assert not [word for word in words if "consent" in word or "agree" in word]
    assert not [field.name for field in fields(order("q-1")) if "consent" in field.name]
    assert await house.asking.platform.inquire(order("q-1", 0)) is None
    refused = await house.asking.platform.inquire(order("q-2", 0, row="2"))
    await house.post()
    assert (await house.asking.result("q-1")).state == "answered"
    assert refused is not None
    assert refused.code == "L-104"
