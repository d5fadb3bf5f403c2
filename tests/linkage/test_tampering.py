"""The security table: every way to tamper with an inquiry or an answer, and what becomes of it."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any

import msgpack
import pytest

from broker.intermediate.inquiry import InquiryAnswered
from broker.intermediate.provision import InformationProvided, ProvisionRequested
from broker.linkage.crypto import identity, parties
from broker.linkage.incoming import MessageRepeated
from broker.linkage.partners import Directory, agency_uri
from schemas.messages import AnswerControl, Delivery, Permit, decode, encode
from tests.house import ANSWERING, OTHER, PERMIT_LIFE, START, House, Town, order, resident
from tests.linkage.forging import ANSWER, INQUIRY, Scene, flipped, outcome, scene_of, with_envelope

BOTH = (INQUIRY, ANSWER)
Forge = Callable[[Scene], Delivery]


@dataclass(frozen=True)
class Case:
    """A forgery, the step at which it is found out, the code, and whether the inquirer hears of it."""

    name: str
    forge: Forge
    step: str
    code: str
    kinds: tuple[str, ...] = BOTH
    told: bool = False


def altered_control(scene: Scene) -> Delivery:
    """Another minute of the same hour."""
    at = START.isoformat(timespec="microseconds").encode()
    control = scene.genuine.envelope.control
    return with_envelope(scene.genuine, control=flipped(control, control.index(at) + 15, 0))


def altered(part: str) -> Forge:
    return lambda scene: with_envelope(
        scene.genuine, **{part: flipped(getattr(scene.genuine.envelope, part), 40, 3)}
    )


def made(**changes: Any) -> Forge:
    return lambda scene: scene.made(**changes)


def noted(**changes: Any) -> Forge:
    return lambda scene: scene.noted(scene.genuine, **changes)


def by_another(scene: Scene) -> Delivery:
    """例示市 signs, and says that it does."""
    signer = scene.house.other.linkage.signer
    return scene.made(key=signer, signer=signer.identity.fingerprint)


def by_another_in_silence(scene: Scene) -> Delivery:
    """例示市 signs, and the sender's certificate is named."""
    return scene.made(key=scene.house.other.linkage.signer)


def by_a_stranger(scene: Scene) -> Delivery:
    return scene.made(key=scene.house.keys.new_signer(agency_uri("990043")))


def without_partner(scene: Scene) -> Delivery:
    known = directory(scene.receiver)
    others = {code: p for code, p in known.partners.items() if code != scene.sender.agency.code}
    scene.receiver.linkage.directory = replace(known, partners=others)
    return scene.genuine


def partner_with(uri: str | None = None, days: int = 0) -> Forge:
    """The directory has another certificate for the sender: of this name, issued so many days ago."""

    def forge(scene: Scene) -> Delivery:
        code = scene.sender.agency.code
        signer = scene.house.keys.new_signer(uri or agency_uri(code), at=START - timedelta(days=days))
        known = directory(scene.receiver)
        partner = replace(known.partners[code], identities=(identity(signer.identity.certificate),))
        scene.receiver.linkage.directory = replace(known, partners={**known.partners, code: partner})
        return scene.made(key=signer, signer=signer.identity.fingerprint)

    return forge


def directory(town: Town) -> Directory:
    assert town.linkage.directory is not None
    return town.linkage.directory


def without_signature(scene: Scene) -> Delivery:
    return replace(scene.genuine, note_signature=b"")


def note_by_the_sender(scene: Scene) -> Delivery:
    return replace(scene.genuine, note_signature=scene.sender.linkage.signer.sign(scene.genuine.note))


def note_altered(scene: Scene) -> Delivery:
    return replace(scene.genuine, note=flipped(scene.genuine.note, len(scene.genuine.note) - 1, 0))


def note_is_something_else(scene: Scene) -> Delivery:
    return scene.signed_note(scene.genuine, scene.genuine.envelope.control)


def outside_the_law(scene: Scene) -> Delivery:
    """The network itself permits what the law does not: row 2 is not for cities to ask."""
    return scene.noted(scene.made(law_row="2"), law_row="2")


def more_than_needed(scene: Scene) -> Delivery:
    """Row 81 needs no annual tax (R-087), and the network lets it be asked for all the same."""
    items = ("annual_tax", "total_income")
    return scene.noted(scene.made(items=items), items=items)


def of_another_kind(scene: Scene) -> Delivery:
    """An answer dressed up as an inquiry."""
    texts: Any = {field.name: "x" for field in fields(AnswerControl)}
    others = {"subjects": 1, "persons": (0,), "root": bytes(32), "non_disclosure": False}
    answer = AnswerControl(**texts | others)
    return with_envelope(scene.genuine, control=encode(answer))


def sealed_under(sender: str, receiver: str) -> Forge:
    return lambda scene: scene.made(info=parties(scene.kind, sender, receiver))


def sealed_for_another(scene: Scene) -> Delivery:
    return scene.made(public=scene.house.other.linkage.sealing_key.public)


def business_of_another_message(scene: Scene) -> Delivery:
    """Content that was signed and sealed for another control part of the same parties."""
    content = [{**said, "salt": b"0123456789abcdef"} for said in scene.subjects()]
    return with_envelope(scene.made(content=content), control=scene.genuine.envelope.control)


def strange_subject(scene: Scene) -> Delivery:
    """Names may be bytes in msgpack; these cannot be put in an order with the others."""
    return scene.made(content=[{b"guard": b"", "code": ""}])


def one_too_many(scene: Scene) -> Delivery:
    return scene.made(content=[*scene.subjects(), *scene.subjects()])


def about_nobody(scene: Scene) -> Delivery:
    return scene.noted(scene.made(content=[], units=()), link_codes=(), codes=())


OUTSIDERS = sealed_under(OTHER.code, ANSWERING.code)
CASES = (
    # Who it is from: partner
    Case("unknown partner", without_partner, "partner", "L-101"),
    Case("certificate expired", partner_with(days=400), "partner", "L-102"),
    Case("certificate of another name", partner_with(agency_uri(OTHER.code)), "partner", "L-102"),
    Case("certificate of the network", partner_with("urn:renkei:network"), "partner", "L-102"),
    Case("another's key, named as signer", by_another, "partner", "L-303", told=True),
    # Under which note of the network: partner
    Case("note without signature", without_signature, "partner", "L-105"),
    Case("note signed by the sender", note_by_the_sender, "partner", "L-105"),
    Case("note altered", note_altered, "partner", "L-105"),
    Case("note for another message", noted(message_id="another"), "partner", "L-107"),
    Case("note names another inquirer", noted(inquirer=OTHER.code), "partner", "L-107"),
    Case("note names another provider", noted(provider=OTHER.code), "partner", "L-107"),
    Case("permit for other items", noted(items=("total_income",)), "partner", "L-107", (INQUIRY,)),
    Case("permit under another row", noted(law_row="106"), "partner", "L-107", (INQUIRY,)),
    Case("permit of another law", noted(law_version="x"), "partner", "L-107", (INQUIRY,)),
    Case("permit for other information", noted(information="x"), "partner", "L-107", (INQUIRY,)),
    Case("permit for fewer persons", noted(link_codes=()), "partner", "L-107", (INQUIRY,)),
    Case("permit for more persons", noted(link_codes=("a", "b")), "partner", "L-107", (INQUIRY,)),
    Case("permit with more verdicts", noted(codes=("", "")), "partner", "L-107", (INQUIRY,)),
    Case("permit on another basis", noted(basis="19-9"), "partner", "L-107", (INQUIRY,)),
    Case("note for another exchange", noted(processing_number="x"), "partner", "L-107", (ANSWER,)),
    Case("note for another inquiry", noted(in_reply_to="x"), "partner", "L-107", (ANSWER,)),
    Case(
        "permit lapsed", noted(valid_until=(START - PERMIT_LIFE).isoformat()), "partner", "L-106", (INQUIRY,)
    ),
    Case("note is no note", note_is_something_else, "partner", "L-305"),
    Case("control part of another kind", of_another_kind, "partner", "L-305", (INQUIRY,)),
    # In which role, and within the law: role
    Case("a role that may not", made(official_role="reception"), "role", "L-103", told=True),
    Case("a role that nobody has", made(official_role="市長"), "role", "L-103", told=True),
    Case("outside the law", outside_the_law, "role", "L-104", (INQUIRY,), told=True),
    Case("more than the affair needs", more_than_needed, "role", "L-104", (INQUIRY,), told=True),
    # Whether it can be opened: open
    Case("sealed part altered", altered("sealed"), "open", "L-201", told=True),
    Case("sealed for another agency", sealed_for_another, "open", "L-201", told=True),
    Case("sealed under another name", OUTSIDERS, "open", "L-201", told=True),
    # Whether it is what was signed: verify
    Case("control part altered", altered_control, "verify", "L-302", told=True),
    Case("content of another message", business_of_another_message, "verify", "L-301", told=True),
    Case("signature altered", altered("signature"), "verify", "L-302", told=True),
    Case("another's key, sender named", by_another_in_silence, "verify", "L-303", told=True),
    Case("a stranger's key", by_a_stranger, "verify", "L-302", told=True),
    Case("content is not msgpack", made(business=b"\xc1"), "verify", "L-305", told=True),
    Case("content is no business part", made(business=msgpack.packb(7)), "verify", "L-305", told=True),
    Case("no content", made(business=msgpack.packb([])), "verify", "L-301", told=True),
    Case("a subject is no subject", strange_subject, "verify", "L-305", told=True),
    Case("a subject too many", one_too_many, "verify", "L-305", told=True),
    Case("no subject", about_nobody, "verify", "L-305", (INQUIRY,)),
)
EACH = [pytest.param(case, kind, id=f"{kind}: {case.name}") for case in CASES for kind in case.kinds]


async def provided(town: Town) -> list[Any]:
    """Everything in a ledger that says that information was asked for or passed on."""
    kinds = (ProvisionRequested, InformationProvided, InquiryAnswered)
    return [r.event for r in await town.events() if isinstance(r.event, kinds)]


async def refused_as(case: Case, scene: Scene) -> Delivery:
    """Deliver the forgery of a case: it is refused as it should be, in the linkage log, and that is all."""
    before = await provided(scene.receiver)
    known = directory(scene.receiver)
    forged = case.forge(scene)
    refusal = await scene.receiver.platform.receive(forged)
    scene.receiver.linkage.directory = known
    assert refusal is not None
    assert refusal.code == case.code
    entry = [entry for entry in await scene.receiver.log() if entry["direction"] == "in"][-1]
    assert (entry["kind"], entry["step"], entry["code"]) == (scene.kind, case.step, case.code)
    assert await provided(scene.receiver) == before, "nothing was provided or taken over"
    return forged


@pytest.mark.parametrize(("case", "kind"), EACH)
@pytest.mark.req("R-051", "R-057", "R-058", "R-059", "R-061", "R-143")
async def test_a_forgery_is_refused_and_the_genuine_message_gets_through(
    house: House, case: Case, kind: str
) -> None:
    scene = await scene_of(house, kind, 0)
    await refused_as(case, scene)
    told = case.told and kind == INQUIRY
    answers = [decode(AnswerControl, message.control).code for message in await scene.receiver.outbox()]
    assert answers == ([case.code] if told else [])
    await scene.receiver.send()

    assert await scene.receiver.platform.receive(scene.genuine) is None
    assert len(await provided(scene.receiver)) == (2 if kind == INQUIRY else 1)
    await house.post()
    result = await house.asking.result("q-1")
    # A permit is answered once: where the inquirer heard of the refusal, that was the answer.
    assert (result.state, result.code) == (("refused", case.code) if told else ("answered", ""))


@pytest.mark.req("R-148", "R-154")
async def test_what_comes_after_a_refusal_that_the_inquirer_heard_of_is_not_recorded_as_provided(
    house: House,
) -> None:
    scene = await scene_of(house, INQUIRY, 0)
    await scene.receiver.platform.receive(altered("sealed")(scene))
    await scene.receiver.send()
    await scene.receiver.platform.receive(scene.genuine)
    await house.post()
    (record,) = await house.answering.platform.records(resident(ANSWERING, 0))
    assert (record.provided_at, record.refusal) == ("", "N-110")
    assert await house.asking.platform.inquire(order("q-2", 0)) is None
    await house.post()
    assert (await house.asking.result("q-2")).state == "answered", "the same question, asked anew"


@pytest.mark.parametrize("kind", BOTH)
async def test_the_same_delivery_again_changes_nothing(house: House, kind: str) -> None:
    scene = await scene_of(house, kind, 0)
    assert await scene.receiver.platform.receive(scene.genuine) is None
    done = await provided(scene.receiver)
    again = replace(scene.genuine, position=scene.genuine.position + 5)
    for delivery in (scene.genuine, again, again):
        assert await scene.receiver.platform.receive(delivery) is None
    assert await provided(scene.receiver) == done
    assert len(await scene.receiver.outbox()) == (1 if kind == INQUIRY else 0), "there is no second answer"
    repeated = [r.event for r in await scene.receiver.events() if isinstance(r.event, MessageRepeated)]
    assert [event.mailbox_position for event in repeated] == [scene.genuine.position, again.position]


async def test_a_refused_delivery_again_is_refused_again_and_told_once(house: House) -> None:
    scene = await scene_of(house, INQUIRY, 0)
    forged = altered("sealed")(scene)
    for _ in range(2):
        refusal = await scene.receiver.platform.receive(forged)
        assert refusal is not None
        assert refusal.code == "L-201"
    assert len(await scene.receiver.outbox()) == 1
    assert [entry["code"] for entry in await scene.receiver.log()] == ["L-201", ""]


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.req("R-143")
async def test_a_message_under_another_note_is_a_replay(house: House, kind: str) -> None:
    scene = await scene_of(house, kind, 0)
    assert await scene.receiver.platform.receive(scene.genuine) is None
    changes = {"processing_number": "another"} if kind == INQUIRY else {"relayed_at": "another"}
    case = Case("replay", noted(**changes), "replay", "L-304")
    replayed = await refused_as(case, scene)
    outbox = [decode(AnswerControl, message.control) for message in await scene.receiver.outbox()]
    if kind == INQUIRY:  # under the new permit the inquirer is told, under the old one it was answered
        permit = decode(Permit, replayed.note)
        assert [(a.processing_number, a.code) for a in outbox][-1] == (permit.processing_number, "L-304")
    await house.post()
    assert (await house.asking.result("q-1")).state == "answered"


async def test_a_second_message_under_an_answered_permit_is_a_replay(house: House) -> None:
    scene = await scene_of(house, INQUIRY, 0)
    assert await scene.receiver.platform.receive(scene.genuine) is None
    another = scene.noted(scene.made(message_id="another"), message_id="another")
    await refused_as(Case("another", lambda _: another, "replay", "L-304"), scene)


async def test_a_permit_that_lapses_on_the_way_is_refused_for_ever(house: House) -> None:
    scene = await scene_of(house, INQUIRY, 0)
    house.clock.advance(PERMIT_LIFE)
    assert outcome(scene.check(scene.genuine)) == ("", ""), "to the last moment"
    house.clock.advance(timedelta(microseconds=1))
    await refused_as(Case("lapsed", lambda scene: scene.genuine, "partner", "L-106"), scene)
    assert await scene.receiver.outbox() == []


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.req("R-045", "R-049", "R-051")
async def test_every_byte_of_the_control_part_counts(house: House, kind: str) -> None:
    scene = await scene_of(house, kind, 0)
    control = scene.genuine.envelope.control
    possible = {
        *(("partner", code) for code in ("L-101", "L-107", "L-303", "L-305")),
        *(("role", code) for code in ("L-103", "L-104")),
        ("open", "L-201"),
        ("verify", "L-301"),
        ("verify", "L-302"),
    }
    for position in range(len(control)):
        for bit in (0, 1 + position % 7):
            forged = with_envelope(scene.genuine, control=flipped(control, position, bit))
            assert outcome(scene.check(forged)) in possible, (position, bit)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.req("R-045", "R-051")
async def test_what_no_other_check_reads_is_protected_by_the_signature_alone(house: House, kind: str) -> None:
    scene = await scene_of(house, kind, 0)
    control = scene.genuine.envelope.control
    at = START.isoformat(timespec="microseconds")
    for text, skipped in (("子育て支援課", 0), (at, len("2026-11-21T")))[kind == ANSWER :]:
        start = control.index(text.encode())
        for position in range(start + skipped, start + len(text.encode())):
            forged = with_envelope(scene.genuine, control=flipped(control, position, 0))
            assert outcome(scene.check(forged)) == ("verify", "L-302"), position


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.req("R-048", "R-051")
async def test_the_sealed_part_the_signature_and_the_note_count_to_the_byte(house: House, kind: str) -> None:
    scene = await scene_of(house, kind, 0)
    envelope = scene.genuine.envelope
    for position in range(0, len(envelope.sealed), 3):
        forged = with_envelope(scene.genuine, sealed=flipped(envelope.sealed, position, position % 8))
        assert outcome(scene.check(forged)) == ("open", "L-201"), position
    for position in range(len(envelope.signature)):
        forged = with_envelope(scene.genuine, signature=flipped(envelope.signature, position, position % 8))
        assert outcome(scene.check(forged)) == ("verify", "L-302"), position
    for position in range(len(scene.genuine.note)):
        forged = replace(scene.genuine, note=flipped(scene.genuine.note, position, position % 8))
        assert outcome(scene.check(forged)) == ("partner", "L-105"), position


@pytest.mark.parametrize("part", ["control", "sealed", "signature"])
async def test_a_part_that_is_cut_off_or_missing_is_refused(house: House, part: str) -> None:
    scene = await scene_of(house, INQUIRY, 0)
    whole = getattr(scene.genuine.envelope, part)
    for length in (0, 1, len(whole) - 1):
        forged = with_envelope(scene.genuine, **{part: whole[:length]})
        assert outcome(scene.check(forged)) != ("", ""), length
        assert await scene.receiver.platform.receive(forged) is not None
    assert await provided(scene.receiver) == []
    assert await scene.receiver.platform.receive(scene.genuine) is None


@pytest.mark.parametrize("kind", BOTH)
async def test_many_forgeries_of_one_message_neither_stop_nor_confuse_its_receiver(
    house: House, kind: str
) -> None:
    scene = await scene_of(house, kind, 0)
    control = scene.genuine.envelope.control
    forgeries = [
        with_envelope(scene.genuine, control=flipped(control, position, 0))
        for position in range(0, len(control), 29)
    ]
    for forged in forgeries:
        assert await scene.receiver.platform.receive(forged) is not None
    refused = [entry for entry in await scene.receiver.log() if entry["direction"] == "in" and entry["code"]]
    assert len(refused) == len(forgeries)
    assert await scene.receiver.platform.receive(scene.genuine) is None
