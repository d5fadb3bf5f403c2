"""Which checks there are, in which order, by which data; the same on the way out and on the way in."""

from csv import DictReader
from dataclasses import replace
from hashlib import sha256
from importlib.resources import files
from typing import Any

import pytest

from broker.intermediate.provision import ProvisionRequested
from broker.linkage.interface import Failed
from broker.linkage.outgoing import MessageNotSent
from schemas.law import table_at
from schemas.messages import (
    AnswerControl,
    AnswerRequest,
    AnswerSubject,
    InquiryControl,
    InquiryRequest,
    InquirySubject,
    decode,
    decode_business,
)
from schemas.messages import signed_bytes as covered
from tests.house import ANSWERING, ASKING, INFORMATION, LAYOUT, OFFICE, ROW, START, House, order
from tests.linkage.forging import ANSWER, INQUIRY, Scene, flipped, outcome, scene_of, with_envelope

TABLE = table_at(START.date())
ROLES = {
    line["role"]: line
    for line in DictReader(
        files("schemas.law").joinpath("roles.tsv").read_text().splitlines(), delimiter="\t"
    )
}
REQUEST = InquiryRequest(
    message_id="m-1",
    office=OFFICE,
    official_role="affair_officer",
    provider=ANSWERING.code,
    basis="19-8",
    law_version=TABLE.version,
    law_row=ROW,
    information=INFORMATION,
    layout=LAYOUT,
    items=("total_income",),
    units=(1,),
    requested_at=START.isoformat(),
    non_disclosure=False,
    link_codes=("code",),
    subjects=(InquirySubject(bytes(16), bytes(32), "2026"),),
)
REPLY = AnswerRequest(
    message_id="a-1",
    in_reply_to="m-1",
    processing_number="x-1",
    inquirer=ASKING.code,
    office=OFFICE,
    official_role="automatic_response",
    basis="19-8",
    law_version=TABLE.version,
    law_row=ROW,
    information=INFORMATION,
    requested_at=START.isoformat(),
    code="",
    persons=(0,),
    answered_at=START.isoformat(),
    non_disclosure=False,
    link_codes=("code",),
    subjects=(AnswerSubject("", {"total_income": "1"}),),
)


def sent(house: House, kind: str, **changes: Any) -> tuple[str, str]:
    """Step and code where an inquiry of 連携市 or an answer of 見本市 fails on its way out."""
    now = house.clock()
    if kind == INQUIRY:
        made = house.asking.linkage.send_inquiry(replace(REQUEST, **changes), now, bytes)
    else:
        made = house.answering.linkage.send_answer(replace(REPLY, **changes), now, bytes)
    return (made.step, made.refusal.code) if isinstance(made, Failed) else ("", "")


# 受信: 相手・職責の確認, 復号, 署名検証, 中間IFへ


def unsigned_note(scene: Scene, **changes: Any) -> Any:
    return replace(scene.made(**changes), note_signature=b"")


def broken(scene: Scene, *parts: str, **changes: Any) -> Any:
    """A message of changed content, of which parts are then damaged."""
    made = scene.made(**changes)
    return with_envelope(made, **{p: flipped(getattr(made.envelope, p), 9, 0) for p in parts})


@pytest.mark.parametrize("kind", [INQUIRY, ANSWER])
@pytest.mark.req("R-052", "R-062")
async def test_on_receipt_an_earlier_check_always_speaks_first(house: House, kind: str) -> None:
    scene = await scene_of(house, kind, 0)
    doubly_wrong = {
        "partner": (unsigned_note(scene, official_role="reception"), "L-105"),
        "role": (broken(scene, "sealed", official_role="reception"), "L-103"),
        "open": (broken(scene, "sealed", "signature"), "L-201"),
        "verify": (broken(scene, "signature", content=[]), "L-302"),
    }
    for step, (delivery, code) in doubly_wrong.items():
        assert outcome(scene.check(delivery)) == (step, code)

    assert await scene.receiver.platform.receive(scene.genuine) is None
    inside = len(await scene.receiver.events())
    damaged = scene.noted(with_envelope(scene.genuine, signature=bytes(64)))
    refusal = await scene.receiver.platform.receive(damaged)
    assert refusal is not None
    assert refusal.code == "L-302", "a replay is looked for only among what was verified"
    passed_on = [r for r in (await scene.receiver.events())[inside:] if r.event.wire.name.startswith("prov")]
    assert passed_on == []


@pytest.mark.req("R-052")
async def test_what_fails_a_check_is_not_passed_inward(house: House) -> None:
    scene = await scene_of(house, INQUIRY, 0)
    for wrong in (unsigned_note(scene), broken(scene, "sealed"), broken(scene, "signature")):
        await scene.receiver.platform.receive(wrong)
    assert not [r for r in await scene.receiver.events() if isinstance(r.event, ProvisionRequested)]


# 送信: 相手・職責の確認, 署名, 暗号, 送信


@pytest.mark.parametrize(
    ("kind", "changes", "failed"),
    [
        (INQUIRY, {"provider": "990043", "official_role": "reception"}, ("partner", "L-101")),
        (INQUIRY, {"official_role": "reception", "law_row": "2"}, ("role", "L-103")),
        (INQUIRY, {"law_row": "2"}, ("role", "L-104")),
        (INQUIRY, {"items": ("annual_tax",)}, ("role", "L-104")),
        (INQUIRY, {"requested_at": "2020-01-01T00:00:00+09:00"}, ("role", "L-104")),
        (INQUIRY, {"requested_at": "long ago"}, ("role", "L-104")),
        (ANSWER, {"inquirer": "990043", "official_role": "reception"}, ("partner", "L-101")),
        (ANSWER, {"official_role": "reception", "law_row": "2"}, ("role", "L-103")),
        (ANSWER, {"law_row": "2"}, ("role", "L-104")),
        (ANSWER, {"requested_at": "2020-01-01T00:00:00+09:00"}, ("role", "L-104")),
        (ANSWER, {"answered_at": "2040-01-01T00:00:00+09:00"}, ("", "")),
        (ANSWER, {"law_row": "2", "code": "L-104", "subjects": ()}, ("", "")),
    ],
)
@pytest.mark.req("R-053", "R-058", "R-059", "R-060", "R-062")
async def test_on_sending_partner_and_role_are_checked_before_anything_is_signed(
    house: House, kind: str, changes: dict[str, Any], failed: tuple[str, str]
) -> None:
    assert sent(house, kind) == ("", "")
    assert sent(house, kind, **changes) == failed


@pytest.mark.req("R-015", "R-053", "R-143")
async def test_a_message_that_fails_a_check_does_not_leave_and_is_logged(house: House) -> None:
    refusal = await house.asking.platform.inquire(order("q-1", 0, row="2"))
    assert refusal is not None
    assert refusal.code == "L-104"
    assert await house.asking.outbox() == []
    (entry,) = await house.asking.log()
    assert (entry["direction"], entry["step"], entry["code"]) == ("out", "role", "L-104")
    assert [r.event.code for r in await house.asking.events() if isinstance(r.event, MessageNotSent)]


@pytest.mark.parametrize("kind", [INQUIRY, ANSWER])
@pytest.mark.req("R-045", "R-053", "R-056")
async def test_what_is_signed_is_the_control_part_with_the_head_of_the_records(
    house: House, kind: str
) -> None:
    scene = await scene_of(house, kind, 0)
    envelope, business = scene.genuine.envelope, scene.opened()
    signer = scene.sender.linkage.signer.identity
    assert signer.verifies(envelope.signature, covered(envelope.control))
    assert not signer.verifies(envelope.signature, envelope.control)
    fields: Any = InquiryControl if kind == INQUIRY else AnswerControl
    (record,) = decode_business(business)
    assert decode(fields, envelope.control).root == sha256(b"\x00" + record).digest()


# チェックポリシ: data, the same for both sides and both ways


@pytest.mark.parametrize("kind", [INQUIRY, ANSWER])
@pytest.mark.parametrize("role", [*ROLES, "nobody"])
@pytest.mark.req("R-059", "R-062", "R-063")
async def test_a_role_may_do_what_the_policy_says(house: House, role: str, kind: str) -> None:
    column = "may_inquire" if kind == INQUIRY else "may_answer"
    able = role in ROLES and ROLES[role][column] == "yes"
    based = able and "19-8" in ROLES[role]["bases"].split()
    passes, fails = ("", ""), ("role", "L-103")
    assert sent(house, kind, official_role=role) == (passes if based else fails)
    scene = await scene_of(house, kind, 0)
    # An answer does not name the article: the inquirer has it in its own inquiry.
    known = based if kind == INQUIRY else able
    assert outcome(scene.check(scene.made(official_role=role))) == (passes if known else fails)


@pytest.mark.req("R-060", "R-062", "R-063", "R-064")
async def test_the_law_table_decides_on_both_sides(house: House) -> None:
    scene = await scene_of(house, INQUIRY, 0)
    permitted = 0
    for row in dict.fromkeys(line.row for line in TABLE.rows):
        for information in (INFORMATION, "住民票関係情報", "戸籍関係情報"):
            allowed = TABLE.permits(ASKING, ANSWERING, row, information) is not None
            expected = ("", "") if allowed else ("role", "L-104")
            changes: dict[str, Any] = {"law_row": row, "information": information}
            assert sent(house, INQUIRY, layout="other", **changes) == expected
            forged = scene.noted(scene.made(layout="other", **changes), **changes)
            assert outcome(scene.check(forged)) == expected
            permitted += allowed
    assert 0 < permitted < len(TABLE.rows)
