"""The linkage log: each message with its checks and outcome, apart from the intermediate log, on nobody."""

import pytest

from broker.ledger.events import SEALED, Registry
from broker.linkage import incoming, outgoing
from broker.linkage.log import LinkageLog
from schemas.law import retention
from schemas.messages import AnswerControl, InquiryControl, decode
from tests.house import (
    ANSWERING,
    ASKING,
    PEOPLE,
    RESIDENTS,
    START,
    STORED,
    House,
    contents,
    files_with,
    income,
    order,
    resident,
)
from tests.linkage.forging import INQUIRY, flipped, scene_of, with_envelope

AT = START.isoformat(timespec="microseconds")


@pytest.mark.req("R-052", "R-053", "R-143", "R-144", "R-145")
async def test_both_sides_log_each_message_with_its_checks_in_their_order(house: House) -> None:
    assert await house.asking.platform.inquire(order("q-1", 0)) is None
    await house.post()
    columns = ("direction", "kind", "partner", "checks", "step", "code")
    sent, received = "partner role sign seal", "partner role open verify replay"
    asked, answered = await house.asking.log(), await house.answering.log()
    assert [tuple(entry[name] for name in columns) for entry in asked] == [
        ("out", "inquiry", "990027", sent, "", ""),
        ("out", "verdict", "network", "", "", ""),
        ("in", "answer", "990027", received, "", ""),
    ]
    assert [tuple(entry[name] for name in columns) for entry in answered] == [
        ("in", "inquiry", "990019", received, "", ""),
        ("out", "answer", "990019", sent, "", ""),
        ("out", "verdict", "network", "", "", ""),
    ]
    numbers = [entry["processing_number"] for entry in (*asked[1:], *answered)]
    assert len(set(numbers)) == 1, "one exchange on both sides"
    assert numbers[0]
    assert {entry["at"] for entry in (*asked, *answered)} == {AT}


@pytest.mark.req("R-143", "R-144")
async def test_every_refusal_stands_in_the_log_with_step_and_code(house: House) -> None:
    scene = await scene_of(house, INQUIRY, 0)
    for part, expected in (("sealed", ("open", "L-201")), ("signature", ("verify", "L-302"))):
        damaged = flipped(getattr(scene.genuine.envelope, part), 20, 0)
        await scene.receiver.platform.receive(with_envelope(scene.genuine, **{part: damaged}))
        entry = [e for e in await scene.receiver.log() if e["direction"] == "in"][-1]
        assert (entry["step"], entry["code"]) == expected
        assert entry["partner"] == ASKING.code
        assert entry["message_id"] == house.asking.platform.inquiry_id("q-1")


@pytest.mark.req("R-144")
async def test_the_bytes_that_came_and_went_are_kept_as_evidence(house: House) -> None:
    await house.answer(0)
    kinds = (incoming.MessageReceived, outgoing.MessageQueued)
    kept = {r.event.kind: r.event for r in await house.answering.events() if isinstance(r.event, kinds)}
    (asked,) = [r.event for r in await house.asking.events() if isinstance(r.event, outgoing.MessageQueued)]
    inquiry, answer = kept["inquiry"], kept["answer"]
    assert (inquiry.control, inquiry.sealed, inquiry.signature) == (
        asked.control,
        asked.sealed,
        asked.signature,
    )
    assert decode(InquiryControl, inquiry.control).office == "子育て支援課"
    assert decode(AnswerControl, answer.control).in_reply_to == inquiry.message_id


@pytest.mark.req("R-146")
async def test_the_linkage_log_knows_nothing_about_persons(house: House) -> None:
    """Neither the projection nor what stands in clear in an event of linkage; the codes in it are sealed."""
    assert await house.asking.platform.inquire(order("q-1", *STORED)) is None
    await house.post()
    codes = []
    for town in (house.asking, house.answering):
        ledger = town.platform.ledger
        codes += [r.event.link_code for r in await town.events() if r.event.wire.name == "link_code.acquired"]
        registry = Registry((*outgoing.EVENTS, *incoming.EVENTS))
        stored = [s for s in ledger.store.at(range(1, ledger.position + 1)) if s.topic.startswith("linkage.")]
        clear = [registry.decode(s, None) for s in stored]
        assert clear
        text = contents(clear) + repr(await town.log()).encode()
        for secret in personal(codes):
            assert secret.encode() not in text, town.agency.code
        queued = [r.event for r in clear if isinstance(r.event, outgoing.MessageQueued)]
        assert [event.link_codes for event in queued] == [SEALED]
    assert files_with(house.folder, *personal(codes)) == []


def personal(codes: list[str]) -> list[str]:
    """What belongs to the persons asked about: numbers, names, birth dates, codes and what was answered."""
    found = [*codes]
    for index in STORED:
        found += [resident(ASKING, index), resident(ANSWERING, index), income(index)["total_income"]]
        found += [PEOPLE[index].individual_number, PEOPLE[index].name, PEOPLE[index].birth_date]
        found += [RESIDENTS[ASKING.code][index].address]
    return found


@pytest.mark.req("R-146")
async def test_the_linkage_log_is_apart_from_the_intermediate_log(house: House) -> None:
    assert await house.asking.platform.inquire(order("q-1", 0)) is None
    await house.post()
    for town in (house.asking, house.answering):
        events = await town.events()
        logged = {entry["position"] for entry in await town.log()}
        linkage = {r.position for r in events if r.event.wire.name.startswith("linkage.message")}
        assert logged == linkage
        assert {r.event.wire.retention for r in events if r.position in linkage} == {"linkage_log"}
        assert all(
            r.stream.split("/")[0] in ("outgoing", "incoming") for r in events if r.position in linkage
        )
    assert retention("linkage_log").years >= 7
    assert not set(LinkageLog.tables) & {"provision_record", "processing_status"}
