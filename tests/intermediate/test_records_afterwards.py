"""What is done with provision records afterwards: read for a purpose, corrected, disclosed (Act art. 31)."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from adapters.network.reference.exchange import ExchangeCorrected
from adapters.platform.holdings import NonDisclosureOrder
from adapters.platform.provision_records import CorrectionOrder, ProvisionRecordsDesk, Request
from adapters.platform.staffing import Caller
from adapters.portal.article23 import lines
from broker.intermediate import correction
from broker.intermediate.correction import (
    IDENTITY,
    LEGAL_REPRESENTATIVE,
    NO,
    PERSON,
    PROXY,
    STOP_OF_USE,
    TRANSFER,
    YES,
    CorrectionReceived,
    CorrectionSettled,
    RecordCorrected,
    RecordRequestRefused,
    RecordsDisclosed,
)
from broker.intermediate.operation import OperationRecorded
from broker.intermediate.records import ProvisionRecord
from broker.intermediate.staff import AuthorityGranted
from schemas.errors import Refusal
from schemas.messages import LetterBody, LetterRequest
from tests.house import ANSWERING, ASKING, LAYOUT, OFFICE, ROW, House, Town, contents, order, resident

SPAN = ("2026-04-01", "2027-03-31")
FIRST, SECOND = "s0101", "s0102"
READER = Caller(FIRST, "t-1", "disclosure")
WHO = Caller(FIRST, "t-1", "記録の訂正")
CARD = "individual_number_card"
HER = 0


class Counter:
    """An agency's desk for provision records, with two members of staff."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.desk = ProvisionRecordsDesk(town.platform)
        self.number = resident(town.agency, HER)

    async def open(self) -> "Counter":
        for staff_id, role in ((FIRST, "affair_officer"), (SECOND, "approver")):
            await self.town.platform.grant(AuthorityGranted(staff_id, OFFICE, role, (ROW,), *SPAN))
        return self

    async def record(self, index: int = HER) -> ProvisionRecord:
        return (await self.town.platform.records(resident(self.town.agency, index)))[0]

    async def correct(self, **changes: Any) -> Refusal | None:
        """One proposes a correction, another confirms it."""
        record = await self.record()
        wanted = CorrectionOrder(self.number, record.number, "office", "こども未来課", "所属の誤り")
        wanted = replace(wanted, **changes)
        proposed = await self.desk.correct(WHO, wanted)
        if proposed is None or proposed.code != "I-129":
            return proposed
        return await self.desk.correct(replace(WHO, staff_id=SECOND), wanted, proposed.detail)

    async def noted(self, word: str) -> list[OperationRecorded]:
        return [e for e in await self.town.of_kind(OperationRecorded) if e.operation == word]


@pytest.fixture
async def counters(house: House) -> tuple[Counter, Counter]:
    """At 連携市 and at 見本市, after 見本市 answered about two people."""
    counters = await Counter(house.asking).open(), await Counter(house.answering).open()
    assert await house.asking.platform.inquire(order("q-1", HER, 1)) is None
    await house.post()
    return counters


# 閲覧


@pytest.mark.req("R-160", "R-155")
async def test_reading_records_is_itself_recorded_with_who_and_what_for(
    counters: tuple[Counter, Counter],
) -> None:
    for each in counters:
        found = await each.desk.read(READER, [each.number, resident(each.town.agency, 2)])
        assert not isinstance(found, Refusal)
        assert [len(records) for records in found] == [1, 0]
        (noted,) = await each.noted("read_records")
        assert (noted.staff_id, noted.terminal, noted.purpose) == (FIRST, "t-1", "開示請求への対応")
        assert noted.subjects == (each.number, resident(each.town.agency, 2))
        assert noted.log == "audit"


@pytest.mark.req("R-160")
async def test_records_are_read_for_no_other_purpose_and_by_nobody_without_authority(
    counters: tuple[Counter, Counter],
) -> None:
    asking, _ = counters
    for caller, code in (
        (replace(READER, purpose="滞納整理"), "I-259"),
        (replace(READER, staff_id="s9999"), "I-122"),
        (replace(READER, staff_id=SECOND), "I-122"),
    ):
        assert await asking.desk.read(caller, [asking.number]) == Refusal(code)
    assert await asking.noted("read_records") == []


@pytest.mark.req("R-155")
async def test_records_are_fetched_by_the_days_of_their_requests(
    house: House, counters: tuple[Counter, Counter]
) -> None:
    asking, _ = counters
    house.clock.advance(timedelta(hours=20))
    assert await house.asking.platform.inquire(order("q-2", HER)) is None
    for span, count in (
        (("", ""), 2),
        (("2026-11-22", ""), 1),
        (("", "2026-11-21"), 1),
        (("2026-11-23", ""), 0),
    ):
        found = await asking.desk.read(READER, [asking.number], *span)
        assert not isinstance(found, Refusal)
        assert [len(records) for records in found] == [count]


# 訂正


@pytest.mark.req("R-161")
@pytest.mark.parametrize("which", [0, 1])
async def test_a_correction_stands_beside_the_record_and_network_and_other_party_are_told(
    house: House, counters: tuple[Counter, Counter], which: int
) -> None:
    here, there = counters[which], counters[1 - which]
    before = await here.record()
    position = here.town.platform.ledger.position
    assert await here.correct() is None
    (corrected,) = (await here.record()).corrections
    assert (corrected.item, corrected.old, corrected.new) == ("office", OFFICE, "こども未来課")
    assert (corrected.by, corrected.told) == ("", "")
    await house.post()
    after = await here.record()
    assert after.corrections[0].told == "noted"
    assert replace(after, corrections=()) == before, "what was recorded at first never changes"
    earlier = [r for r in await here.town.events() if r.position <= position]
    assert await here.town.platform.ledger.at(range(1, position + 1)) == earlier
    (event,) = await here.town.of_kind(RecordCorrected)
    (told,) = [r.event for r in await house_events(house) if isinstance(r.event, ExchangeCorrected)]
    assert (told.message_id, told.sender) == (event.correction_id, here.town.agency.code)
    assert told.processing_number == event.processing_number
    (received,) = (await there.record()).corrections
    assert (received.by, received.old, received.new) == (here.town.agency.code, OFFICE, "こども未来課")
    (last, *_) = reversed(lines(await there.record()))
    assert here.town.agency.name in last.value
    assert OFFICE in last.value
    assert "こども未来課" in last.value
    assert (await there.record(1)).corrections == (), "nobody else's record says so"


async def house_events(house: House) -> list[Any]:
    return await house.network.ledger.at(range(1, house.network.ledger.position + 1))


@pytest.mark.req("R-161")
async def test_a_correction_needs_a_second_person_who_saw_the_same(
    counters: tuple[Counter, Counter],
) -> None:
    here, _ = counters
    record = await here.record()
    wanted = CorrectionOrder(here.number, record.number, "office", "こども未来課", "所属の誤り")
    proposed = await here.desk.correct(WHO, wanted)
    assert proposed is not None
    assert proposed.code == "I-129"
    second = replace(WHO, staff_id=SECOND)
    assert await here.desk.correct(WHO, wanted, proposed.detail) == Refusal("I-121")
    other = replace(wanted, new="別の課")
    assert await here.desk.correct(second, other, proposed.detail) == Refusal("I-123")
    assert await here.town.of_kind(RecordCorrected) == []
    assert await here.desk.correct(second, wanted, proposed.detail) is None
    again = await here.desk.correct(second, wanted, proposed.detail)
    assert again is not None
    assert again.code == "I-253"
    (event,) = await here.town.of_kind(RecordCorrected)
    assert (event.staff_id, event.act_id) == (SECOND, proposed.detail)
    (noted,) = await here.noted("correct_record")
    assert noted.subjects == (here.number,)


@pytest.mark.req("R-161")
async def test_a_correction_of_a_correction_starts_from_what_the_record_says_now(
    house: House, counters: tuple[Counter, Counter]
) -> None:
    here, _ = counters
    assert await here.correct() is None
    assert await here.correct(new="こども支援課") is None
    assert await here.correct(new="こども支援課") == Refusal("I-253")
    await house.post()
    assert [(c.old, c.new) for c in (await here.record()).corrections] == [
        (OFFICE, "こども未来課"),
        ("こども未来課", "こども支援課"),
    ]
    assert len(await here.town.of_kind(CorrectionSettled)) == 2


@pytest.mark.req("R-161")
async def test_nothing_is_corrected_that_does_not_fit(counters: tuple[Counter, Counter]) -> None:
    here, _ = counters
    cases: tuple[tuple[dict[str, str], str], ...] = (
        ({"record": "9999-0"}, "I-251"),
        ({"integrated_number": resident(ASKING, 2)}, "I-251"),
        ({"item": "refusal", "new": "x"}, "I-252"),
        ({"item": "provided_at", "new": "2026-11-21"}, "I-252"),
        ({"item": "items", "new": "total_income no_such_item"}, "I-252"),
        ({"item": "non_disclosure", "new": "maybe"}, "I-252"),
        ({"item": "office", "new": " "}, "I-252"),
        ({"item": "office", "new": "二行\n目"}, "I-252"),
        ({"item": "office", "new": OFFICE}, "I-253"),
        ({"item": "non_disclosure", "new": NO}, "I-253"),
    )
    for changes, code in cases:
        refusal = await here.correct(**changes)
        assert refusal is not None
        assert refusal.code == code
    assert (await here.record()).corrections == ()


@pytest.mark.req("R-151", "R-161")
async def test_a_mark_of_non_disclosure_that_was_corrected_counts_from_then_on(
    counters: tuple[Counter, Counter],
) -> None:
    here, _ = counters
    assert await here.correct(item="non_disclosure", new=YES) is None
    assert (await here.record()).non_disclosure
    assert await here.correct(item="non_disclosure", new=NO) is None
    assert not (await here.record()).non_disclosure


async def test_a_request_that_never_left_is_corrected_without_telling_anybody(
    house: House, counters: tuple[Counter, Counter]
) -> None:
    here, _ = counters
    house.clock.advance(timedelta(minutes=1))
    await house.asking.platform.inquire(order("q-2", HER, staff_id="nobody"))
    assert await here.correct(new="窓口") is None
    (event,) = await here.town.of_kind(RecordCorrected)
    assert not event.notified
    assert await here.town.outbox() == []


async def test_a_correction_of_what_the_network_refused_reaches_the_network(
    house: House, counters: tuple[Counter, Counter]
) -> None:
    here, there = counters
    house.clock.advance(timedelta(minutes=1))
    await house.asking.platform.inquire(order("q-2", 4))
    await house.post()
    number = resident(ASKING, 4)
    record = await here.record(4)
    assert record.refusal == "N-106"
    assert await here.correct(integrated_number=number, record=record.number) is None
    await house.post()
    assert (await here.record(4)).corrections[0].told == "noted"
    (received,) = await there.town.of_kind(CorrectionReceived)
    assert received.item == "office"


async def test_a_notice_of_what_is_in_no_record_is_refused(
    house: House, counters: tuple[Counter, Counter]
) -> None:
    here, there = counters
    assert await here.correct() is None
    await house.post()
    (event,) = await here.town.of_kind(RecordCorrected)
    inquiry = event.exchange.removeprefix("inquiry/")
    for place, content in enumerate(
        (
            {"subject": 2, "item": "office", "old": "", "new": "x", "corrected_at": "t"},
            {"subject": 0, "item": "refusal", "old": "", "new": "x", "corrected_at": "t"},
            {"subject": 0, "item": "office"},
        )
    ):
        letter = await here.town.platform.letter(
            LetterRequest(
                f"forged-{place}",
                "correction",
                OFFICE,
                "affair_officer",
                ANSWERING.code,
                "",
                event.processing_number,
                inquiry,
                "",
                "",
                "",
                event.corrected_at,
                (),
                (LetterBody(content),),
            ),
            house.clock(),
        )
        (verdict,) = await here.town.client.submit([letter])  # type: ignore[list-item] # it was not refused
        assert verdict.code == ""
    outcomes = await there.town.take_in()
    assert [each.code if each else "" for each in outcomes] == ["L-107", "L-305", "L-305"]
    assert len((await there.record()).corrections) == 1


# 開示、利用停止、移送


@pytest.mark.req("R-163")
@pytest.mark.parametrize(
    ("quality", "entitlement", "name"),
    [
        (PERSON, "", ""),
        (LEGAL_REPRESENTATIVE, "family_register", "代理 花子"),
        (LEGAL_REPRESENTATIVE, "guardianship", "代理 花子"),
        (PROXY, "power_of_attorney", "代理 太郎"),
    ],
)
async def test_the_person_a_legal_representative_and_a_proxy_are_shown_the_records(
    house: House, counters: tuple[Counter, Counter], quality: str, entitlement: str, name: str
) -> None:
    here, _ = counters
    request = Request("disclosure", here.number, quality, CARD, entitlement, name)
    found = await here.desk.ask(WHO, request)
    assert found == [await here.record()]
    (event,) = await here.town.of_kind(RecordsDisclosed)
    assert (event.quality, event.identity, event.entitlement) == (quality, CARD, entitlement)
    assert (event.shown, event.withheld, event.representative) == (1, 0, name)
    assert (event.staff_id, event.disclosed_at) == (FIRST, house.clock().isoformat(timespec="microseconds"))
    (noted,) = await here.noted("read_records")
    assert noted.subjects == (here.number,)
    if name:
        bare = [r.event for r in await here.town.events() if not isinstance(r.event, RecordsDisclosed)]
        assert name not in repr(bare)
        assert not files_name(here.town, name), "a representative stands nowhere in clear"


def files_name(town: Town, name: str) -> list[str]:
    return [str(f) for f in town.data.rglob("*") if f.is_file() and name.encode() in f.read_bytes()]


@pytest.mark.req("R-163")
async def test_nobody_else_is_and_nobody_who_was_not_checked(counters: tuple[Counter, Counter]) -> None:
    here, _ = counters
    cases = (
        ("neighbour", CARD, "", ""),
        (PERSON, "", "", ""),
        (PERSON, "by sight", "", ""),
        (PERSON, CARD, "power_of_attorney", ""),
        (PROXY, CARD, "", "代理 太郎"),
        (PROXY, CARD, "family_register", "代理 太郎"),
        (PROXY, CARD, "power_of_attorney", ""),
        (LEGAL_REPRESENTATIVE, CARD, "power_of_attorney", "代理 花子"),
    )
    for quality, identity, entitlement, name in cases:
        request = Request("disclosure", here.number, quality, identity, entitlement, name)
        assert await here.desk.ask(WHO, request) == Refusal("I-254")
        wanted = {"quality": quality, "identity": identity, "entitlement": entitlement}
        assert await here.correct(**wanted, representative=name) == Refusal("I-254")
    refused = await here.town.of_kind(RecordRequestRefused)
    assert [(e.kind, e.code) for e in refused] == [("disclosure", "I-254"), ("correction", "I-254")] * 8


@pytest.mark.req("R-163")
async def test_a_proxy_may_ask_for_a_correction(counters: tuple[Counter, Counter]) -> None:
    here, _ = counters
    asked = {"quality": PROXY, "identity": "photo_document", "entitlement": "power_of_attorney"}
    assert await here.correct(**asked, representative="代理 太郎") is None
    (event,) = await here.town.of_kind(RecordCorrected)
    assert (event.quality, event.entitlement, event.representative) == (
        PROXY,
        "power_of_attorney",
        "代理 太郎",
    )


@pytest.mark.req("R-162")
@pytest.mark.parametrize(("kind", "code"), [(STOP_OF_USE, "I-256"), (TRANSFER, "I-257")])
async def test_a_stop_of_use_and_a_transfer_are_refused_and_recorded_whoever_asks(
    counters: tuple[Counter, Counter], kind: str, code: str
) -> None:
    here, _ = counters
    before = await here.record()
    for quality, entitlement, name in ((PERSON, "", ""), (PROXY, "power_of_attorney", "代理 太郎")):
        request = Request(kind, here.number, quality, CARD, entitlement, name)
        assert await here.desk.ask(WHO, request) == Refusal(code)
    refused = await here.town.of_kind(RecordRequestRefused)
    assert [(e.kind, e.code, e.quality) for e in refused] == [(kind, code, PERSON), (kind, code, PROXY)]
    assert await here.record() == before


@pytest.mark.req("R-151", "R-163")
async def test_what_falls_under_non_disclosure_is_left_out_and_nothing_tells_so(
    house: House, counters: tuple[Counter, Counter]
) -> None:
    _, here = counters
    house.clock.advance(timedelta(minutes=1))
    flag = NonDisclosureOrder(True, here.number, LAYOUT, "2026", "protected_person")
    assert await here.town.platform.set_non_disclosure(flag) is None
    request = Request("disclosure", here.number, PERSON, CARD)
    assert await here.desk.ask(WHO, request) == []
    (event,) = await here.town.of_kind(RecordsDisclosed)
    assert (event.shown, event.withheld) == (0, 1)


@pytest.mark.req("R-163")
async def test_a_representative_learns_nothing_of_a_protected_person(
    counters: tuple[Counter, Counter],
) -> None:
    _, here = counters
    await here.town.platform.set_hold(here.number, True, "protected_person")
    asked = Request("disclosure", here.number, LEGAL_REPRESENTATIVE, CARD, "family_register", "代理 花子")
    assert await here.desk.ask(WHO, asked) == Refusal("I-255")
    found = await here.desk.ask(WHO, Request("disclosure", here.number, PERSON, CARD))
    assert not isinstance(found, Refusal)
    assert len(found) == 1, "she herself is shown her records"


async def test_what_is_asked_about_somebody_unknown_here_is_refused(
    counters: tuple[Counter, Counter],
) -> None:
    here, _ = counters
    asked = Request("disclosure", "999999999999999", PERSON, CARD)
    assert await here.desk.ask(WHO, asked) == Refusal("B-007")
    assert await here.desk.ask(replace(WHO, staff_id="s9999"), asked) == Refusal("I-122")


def test_the_ways_to_check_who_asks_are_words_and_no_numbers_of_documents() -> None:
    assert all(word.isascii() and not any(c.isdigit() for c in word) for word in IDENTITY)
    for item in correction.ITEMS:
        assert item in ProvisionRecord.__dataclass_fields__


async def test_nothing_of_a_correction_stands_in_clear(counters: tuple[Counter, Counter]) -> None:
    here, _ = counters
    assert await here.correct(new="秘密の所属", reason="秘密の理由") is None
    assert "秘密の所属".encode() in contents(await here.town.events())
    for secret in ("秘密の所属", "秘密の理由"):
        assert files_name(here.town, secret) == []
