"""The reference network over its line: whom it admits, what it lets pass, and what it says to the rest."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgpack
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from adapters.http import Client, Response, client_context
from adapters.network.client import NetworkClient
from adapters.network.reference.registration import AgencyRegistered
from broker.intermediate.link_code import LinkCodeAcquired
from broker.linkage.outgoing import MessageQueued
from broker.linkage.partners import agency_uri
from schemas.errors import Refused
from schemas.messages import VERSION, AnswerControl, InquiryControl, decode, encode, pack, unpack
from tests.house import AGENCIES, ANSWERING, NO_CODE, OTHER, PERMIT_LIFE, House, Keys, Town, events_of, order

NOBODY = "urn:renkei:agency:990043"


async def said_to(house: House, keys: Keys, name: str, method: str, path: str, body: bytes = b"") -> Response:
    """What the network says to whoever holds the certificate of this name."""
    line = Client("127.0.0.1", house.ports["network"], client_context(*keys.line_files(name)))
    try:
        return await line.request(method, path, body)
    finally:
        await line.aclose()


def client_of(house: House, name: str) -> NetworkClient:
    line = house.line(name, "network")
    return NetworkClient(line, line)


async def queued(town: Town, request_id: str = "q-1", *people: int, **changes: Any) -> MessageQueued:
    """An inquiry in the outbox of a town."""
    assert await town.platform.inquire(order(request_id, *(people or (0,)), **changes)) is None
    return (await town.outbox())[-1]


def with_control(message: MessageQueued, **changes: Any) -> MessageQueued:
    kind: Any = InquiryControl if message.kind == "inquiry" else AnswerControl
    return replace(message, control=encode(replace(decode(kind, message.control), **changes)))


async def code_of(client: NetworkClient, message: MessageQueued) -> str:
    (verdict,) = await client.submit([message])
    return verdict.code


# 登録


@pytest.mark.req("R-057", "R-058")
async def test_only_agencies_that_are_admitted_can_register(wired: House, keys: Keys) -> None:
    public = wired.asking.linkage.sealing_key.public
    stranger = client_of(wired, keys.new_line(NOBODY))
    with pytest.raises(Refused, match="N-101"):
        await stranger.register(keys.new_signer(NOBODY).certificate, public)
    for uri in ("urn:renkei:registry", "urn:renkei:business:990019", "urn:renkei:network"):
        with pytest.raises(Refused, match="N-101"):
            await client_of(wired, keys.new_line(uri)).directory()
    assert sorted(wired.asking.linkage.directory.partners) == [a.code for a in AGENCIES]  # type: ignore[union-attr] # read when opened


@pytest.mark.req("R-058")
async def test_an_agency_registers_readable_keys_in_its_own_name(wired: House, keys: Keys) -> None:
    before = wired.core.ledger.position
    own, public = wired.asking.linkage.signer.certificate, wired.asking.linkage.sealing_key.public
    nameless = keys.authority.public_bytes(Encoding.DER)
    for certificate, key, code in (
        (wired.other.linkage.signer.certificate, public, "N-102"),
        (b"no certificate", public, "N-111"),
        (nameless, public, "N-111"),
        (own, b"no key", "N-111"),
        (own, public[:-1], "N-111"),
    ):
        with pytest.raises(Refused, match=code):
            await wired.asking.client.register(certificate, key)
    line = await said_to(wired, keys, "990019", "POST", "/v1/registration", pack({"certificate": own}))
    assert line.status == 400
    assert wired.core.ledger.position == before
    await wired.other.look_around()
    assert await wired.asking.platform.inquire(order("q-1", 0)) is None, "everybody still reads the directory"


async def test_registering_again_changes_nothing_and_new_keys_replace_the_old(
    wired: House, keys: Keys
) -> None:
    before = wired.core.ledger.position
    await wired.asking.meet()
    assert wired.core.ledger.position == before
    renewed = keys.new_signer(agency_uri("990019"))
    wired.asking.linkage.signer = renewed
    await wired.asking.meet()
    await wired.answering.look_around()
    assert wired.answering.linkage.directory is not None
    partner = wired.answering.linkage.directory.partners["990019"]
    assert partner.identity.fingerprint == renewed.identity.fingerprint
    events = await events_of(wired.core.ledger)
    assert sum(isinstance(r.event, AgencyRegistered) for r in events) == len(AGENCIES) + 1


# 情報照会


@pytest.mark.req("R-058", "R-060", "R-064")
async def test_an_inquiry_passes_only_from_whom_it_says_to_whom_it_may_about_whom_is_known(
    wired: House, keys: Keys
) -> None:
    good = await queued(wired.asking)
    ours, theirs = wired.asking.client, wired.other.client
    stranger = client_of(wired, keys.new_line(NOBODY))
    cases = {
        "not registered": (stranger, with_control(good, message_id="1", inquirer="990043"), "N-101"),
        "in another's name": (theirs, with_control(good, message_id="2"), "N-102"),
        "outside the law": (ours, with_control(good, message_id="3", law_row="2"), "N-103"),
        "of another law": (ours, with_control(good, message_id="4", law_version="x"), "N-103"),
        "of a day without law": (
            ours,
            with_control(good, message_id="5", requested_at="2001-01-01"),
            "N-103",
        ),
        "of no day": (ours, with_control(good, message_id="6", requested_at="today"), "N-103"),
        "unknown provider": (ours, with_control(good, message_id="7", provider="990043"), "N-104"),
        "unknown code": (ours, replace(with_control(good, message_id="8"), link_codes=("x",)), "N-105"),
        "a code too few": (ours, with_control(good, message_id="9", units=(2,)), "N-105"),
        "no code at the provider": (ours, await queued(wired.asking, "q-2", NO_CODE), "N-106"),
        "about nobody": (
            ours,
            replace(with_control(good, message_id="10", units=()), link_codes=()),
            "N-111",
        ),
        "malformed": (ours, replace(good, control=b"\xc1"), "N-111"),
        "with another item": (ours, replace(good, control=good.control + b"x"), "N-111"),
        "of another kind": (ours, replace(good, kind="answer"), "N-111"),
    }
    found = {name: await code_of(client, message) for name, (client, message, _) in cases.items()}
    assert found == {name: code for name, (_, _, code) in cases.items()}
    assert await wired.answering.mail() == [], "nothing of this reached the provider"
    assert await code_of(ours, good) == ""
    assert len(await wired.answering.mail()) == 1


@pytest.mark.req("R-114")
async def test_a_code_of_another_agency_is_worth_nothing(wired: House) -> None:
    good = await queued(wired.asking)
    theirs = (await wired.answering.of_kind(LinkCodeAcquired))[0].link_code
    assert await code_of(wired.asking.client, replace(good, link_codes=(theirs,))) == "N-105"


@pytest.mark.req("R-046")
async def test_names_that_are_bytes_do_not_spoil_the_batch_they_are_in(wired: House) -> None:
    good = await queued(wired.asking)
    odd = {"message": "InquiryControl", "version": VERSION, b"office": 1}
    strange = replace(good, control=msgpack.packb(odd))
    verdicts = await wired.asking.client.submit([strange, good, strange])
    assert [verdict.code for verdict in verdicts] == ["N-111", "", "N-111"]


async def test_a_message_id_stands_for_one_content(wired: House) -> None:
    good = await queued(wired.asking)
    first = (await wired.asking.client.submit([good]))[0]
    assert first.code == ""
    for other in (
        replace(good, sealed=good.sealed + b"x"),
        replace(good, signature=bytes(64)),
        with_control(good, office="別の課"),
        replace(good, link_codes=(*good.link_codes, *good.link_codes)),
    ):
        assert await code_of(wired.asking.client, other) == "N-107"
    wired.clock.advance(timedelta(minutes=5))
    assert (await wired.asking.client.submit([good]))[0] == first, "and again gets the first verdict"
    assert len(await wired.answering.mail()) == 1


async def test_a_refused_message_again_gets_its_first_verdict(wired: House) -> None:
    message = await queued(wired.asking, "q-1", NO_CODE)
    first = (await wired.asking.client.submit([message]))[0]
    await wired.answering.register(NO_CODE)
    await wired.answering.acquire()
    assert (await wired.asking.client.submit([message]))[0] == first
    assert first.code == "N-106"
    anew = await queued(wired.asking, "q-2", NO_CODE)
    assert await code_of(wired.asking.client, anew) == "", "asked anew it passes"


@pytest.mark.req("R-147", "R-149", "R-154")
async def test_the_network_records_every_request_permitted_or_not(wired: House) -> None:
    for request_id, person in (("q-1", 0), ("q-2", NO_CODE)):
        await queued(wired.asking, request_id, person)
    await wired.post()
    columns = "inquirer, provider, law_row, information, code, answer_code, answered_at <> ''"
    rows = await wired.core.follower.query(f"SELECT {columns} FROM exchange ORDER BY code")  # noqa: S608
    parties = ("990019", "990027", "81", "地方税関係情報")
    assert rows == [(*parties, "", "", 1), (*parties, "N-106", "", 0)]


# 情報提供


async def answered(house: House, request_id: str = "q-1") -> MessageQueued:
    """An answer in the outbox of 見本市."""
    assert await house.answering.platform.receive(await house.ask(0, request_id=request_id)) is None
    return (await house.answering.outbox())[-1]


async def test_an_answer_passes_only_under_a_permit_for_whom_it_says_in_time_and_once(wired: House) -> None:
    good = await answered(wired)
    ours, theirs = wired.answering.client, wired.other.client
    cases = {
        "in another's name": (theirs, with_control(good, message_id="1"), "N-102"),
        "by whom was not asked": (theirs, with_control(good, message_id="2", provider=OTHER.code), "N-108"),
        "without permit": (ours, with_control(good, message_id="3", processing_number="x"), "N-108"),
        "to another inquiry": (ours, with_control(good, message_id="4", in_reply_to="x"), "N-108"),
        "to another inquirer": (ours, with_control(good, message_id="5", inquirer=OTHER.code), "N-108"),
        "malformed": (ours, replace(good, control=b""), "N-111"),
    }
    found = {name: await code_of(client, message) for name, (client, message, _) in cases.items()}
    assert found == {name: code for name, (_, _, code) in cases.items()}
    assert await wired.asking.mail() == []

    first = (await ours.submit([good]))[0]
    assert first.code == ""
    assert await code_of(ours, with_control(good, message_id="6")) == "N-110"
    assert await code_of(ours, with_control(good, code="I-205")) == "N-110"
    wired.clock.advance(2 * PERMIT_LIFE)
    assert (await ours.submit([good]))[0] == first, "the first one again is no second one, however late"
    assert len(await wired.asking.mail()) == 1


async def test_the_id_of_an_answer_stands_for_one_exchange(wired: House) -> None:
    first, second = await answered(wired), await answered(wired, "q-2")
    taken = decode(AnswerControl, first.control).message_id
    assert await code_of(wired.answering.client, first) == ""
    assert await code_of(wired.answering.client, with_control(second, message_id=taken)) == "N-107"
    assert await code_of(wired.answering.client, second) == "", "its permit is still good"
    assert len(await wired.asking.mail()) == 2


async def test_after_the_permit_has_lapsed_no_answer_passes(wired: House) -> None:
    good = await answered(wired)
    wired.clock.advance(PERMIT_LIFE + timedelta(microseconds=1))
    for _ in range(2):
        assert await code_of(wired.answering.client, good) == "N-109"
    assert await wired.asking.mail() == []


# 入口


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/other", b"", 404),
        ("DELETE", "/v1/directory", b"", 404),
        ("POST", "/v1/messages", b"\xc1", 400),
        ("POST", "/v1/messages", pack(7), 400),
        ("POST", "/v1/messages", pack([{"kind": "inquiry"}]), 400),
        ("POST", "/v1/messages", pack([{"kind": "inquiry", "envelope": {}, "link_codes": []}]), 400),
        ("POST", "/v1/registration", pack([1]), 400),
        ("GET", "/v1/mailbox", b"", 400),
        ("GET", "/v1/mailbox?after=x", b"", 400),
        ("GET", "/v1/mailbox?after=0&wait=nan", b"", 400),
        ("POST", "/v1/codes", pack([("990019", "n", "r")]), 403),
    ],
)
@pytest.mark.req("R-046")
async def test_what_is_no_request_is_refused_with_a_reason(
    wired: House, keys: Keys, method: str, path: str, body: bytes, status: int
) -> None:
    response = await said_to(wired, keys, ANSWERING.code, method, path, body)
    assert response.status == status
    if status != 404:
        assert unpack(response.body)["code"] == {400: "N-111", 403: "N-102"}[status]
