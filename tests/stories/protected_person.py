"""The story of a protected person, told by the product itself: `python -m tests.stories.protected_person`.

連携市 asks 見本市 about two residents. One is protected (支援措置対象者): her answer waits for an officer, is
refused, asked for again and released by two officers. Each side's records are shown, what she sees of her own
at the portal, and what others do not see. Two cities, the network and the registry run in one process; the
people are invented and the clock is told.
"""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from adapters.platform.officer import DecisionOrder, InquiryContent, OfficersDesk
from adapters.platform.staffing import Caller, Staffing
from adapters.portal.cards import cards
from broker.intermediate.operation import OperationRecorded
from broker.intermediate.provision import ProvisionHeld
from broker.intermediate.records import ProvisionRecord
from broker.intermediate.staff import AuthorityGranted
from broker.ledger.ledger import Ledger
from schemas.errors import Refusal, entry
from schemas.items import layout
from schemas.law.approval import hold_reasons
from schemas.law.roles import operation_words
from tests.house import (
    ANSWERING,
    ASKING,
    LAYOUT,
    ROW,
    House,
    Keys,
    events_of,
    open_house,
    order,
    resident,
)

HER, HIM = 0, 1
CLERK = Caller("t0001", "窓口1", "照会内容の確認")
CHIEF = Caller("t0002", "窓口2", "決裁")
STRANGER = Caller("t0003", "窓口3", "担当外")
STATES = {"waiting": "照会中", "answered": "回答済", "refused": "提供不可"}


async def told(house: House) -> AsyncIterator[str]:
    """The lines of the story, as it happens."""
    provider = house.answering
    desk = OfficersDesk(provider.platform, Staffing(provider.platform))
    for caller, role, rows in (
        (CLERK, "affair_officer", (ROW,)),
        (CHIEF, "affair_manager", (ROW,)),
        (STRANGER, "affair_officer", ("2",)),
    ):
        granted = AuthorityGranted(caller.staff_id, "税務課", role, rows, "2026-04-01", "2027-03-31")
        assert await provider.platform.grant(granted) is None

    yield "1. 自動応答不可の設定 (a hold is set)"
    assert await provider.platform.set_hold(resident(ANSWERING, HER), True, "protected_person") is None
    for each in await provider.platform.holds():
        yield f"   見本市: {hold_reasons()[each.reason]} 1名"

    yield "2. 連携市からの照会 (連携市 asks about her and about another resident)"
    for request_id, who in (("q-her", HER), ("q-him", HIM)):
        assert await house.asking.platform.inquire(order(request_id, who)) is None
    await house.post()
    yield await _seen(house, "彼女", "q-her")
    yield await _seen(house, "もう一人", "q-him")

    yield "3. 提供側の職員に見えるもの (what the officer of 見本市 sees)"
    house.clock.advance(timedelta(minutes=10))
    (waiting,) = await desk.waiting(CLERK)
    yield f"   一覧: {waiting.inquirer_name} {waiting.office} 表の項{waiting.law_row} {waiting.persons}名"
    content = await desk.show(CLERK, waiting.processing_number)
    for line in _content(content):
        yield f"   {line}"
    yield f"   担当外の職員の一覧: {len(await desk.waiting(STRANGER))}件"
    refused = await desk.show(STRANGER, waiting.processing_number)
    yield f"   担当外の職員が開くと: {_code(refused)}"

    yield "4. 提供しない判断 (refused)"
    first = DecisionOrder(waiting.processing_number, "refuse", (), (), ())
    yield f"   判断: {_code((await desk.decide(CLERK, [first]))[0])}"
    await house.post()
    yield await _seen(house, "彼女", "q-her")

    yield "5. もう一度の照会と、二人による送出 (asked again, and released by two officers)"
    house.clock.advance(timedelta(minutes=10))
    assert await house.asking.platform.inquire(order("q-again", HER)) is None
    await house.post()
    (waiting,) = await desk.waiting(CLERK)
    for caller, verdict in ((CLERK, "approve"), (CLERK, "release"), (CHIEF, "release")):
        decision = DecisionOrder(waiting.processing_number, verdict, (), (), ())
        (outcome,) = await desk.decide(caller, [decision])
        await house.post()
        yield f"   {caller.staff_id} {verdict}: {_code(outcome)}"
        yield await _seen(house, "彼女", "q-again")

    yield "6. 三者の記録 (the records of the three sides)"
    for town, agency in ((house.asking, ASKING), (provider, ANSWERING)):
        for name, who in (("彼女", HER), ("もう一人", HIM)):
            for record in await town.platform.records(resident(agency, who)):
                yield f"   {agency.name} {name}: {_record(record)}"
    for kind, code in await _network(house):
        yield f"   ネットワーク: {kind} {code or '回答を中継'}"
    yield "   見本市の操作記録:"
    for done in await provider.of_kind(OperationRecorded):
        word = operation_words()[done.operation].name_ja
        yield f"     {done.at[11:16]} {done.staff_id} {word}（{done.purpose}）"

    yield "7. 本人に見えるもの、ほかの人に見えないもの (what she sees and others do not)"
    for card in await cards(provider.platform, resident(ANSWERING, HER)):
        shown = {line.label_ja: line.value for line in card.lines}
        asked, provided = shown["提供の求めの日時"], shown["提供の日時"]
        yield f"   彼女のポータル: {shown['情報照会者']} 求め {asked} 提供 {provided}"
    theirs = [r.exchange for r in await provider.platform.records(resident(ANSWERING, HIM))]
    hers = [r.exchange for r in await provider.platform.records(resident(ANSWERING, HER))]
    yield f"   もう一人のポータルに出る彼女の記録: {len(set(theirs) & set(hers))}件"
    for name, ledger in (
        ("連携市の台帳", house.asking.platform.ledger),
        ("ネットワークの台帳", house.network.ledger),
    ):
        yield f"   {name}に残る保留の理由: {await _traces(ledger)}件"


async def _seen(house: House, name: str, request_id: str) -> str:
    """What the inquirer sees of its inquiry."""
    result = await house.asking.result(request_id)
    codes = {code for code in (result.code, *result.codes) if code}
    why = "、".join(f"{code} {entry(code).cause_ja}" for code in sorted(codes))
    items = sum(len(payload) for payload in result.payloads)
    given = f" {items}項目" if items else ""
    return f"   連携市に見えるもの（{name}）: {STATES[result.state]}{given} {why}".rstrip()


def _content(content: InquiryContent | Refusal) -> list[str]:
    assert isinstance(content, InquiryContent)
    known = layout(LAYOUT)
    (person,) = content.persons
    return [
        f"事務: {content.affair}",
        f"対象者: 宛名番号のある1名、理由 {hold_reasons()[person.reasons[0]]}",
        f"送られるはずのもの: {'、'.join(known.item(item).name_ja for item in person.payload)}",
    ]


def _code(outcome: object) -> str:
    return f"{outcome.code} {entry(outcome.code).cause_ja}" if isinstance(outcome, Refusal) else "実施"


def _record(record: ProvisionRecord) -> str:
    outcome = f"提供 {record.provided_at[11:16]}" if record.provided_at else f"提供なし {record.refusal}"
    return f"求め {record.requested_at[11:16]} {outcome}"


async def _network(house: House) -> list[tuple[str, str]]:
    """The network's own record of what was answered, in order; it knows no names and no content."""
    return [
        ("応答", recorded.event.code)
        for recorded in await events_of(house.network.ledger)
        if type(recorded.event).__name__ == "ExchangeAnswered"
    ]


async def _traces(ledger: Ledger) -> int:
    """How many events there tell why something was held."""
    found = await events_of(ledger)
    return sum(isinstance(r.event, ProvisionHeld) or "protected_person" in repr(r.event) for r in found)


async def lines() -> list[str]:
    """The whole story in a house of its own."""
    with TemporaryDirectory() as folder:
        async with open_house(Path(folder) / "house", Keys(Path(folder) / "keys")) as house:
            await house.furnish()
            return [line async for line in told(house)]


if __name__ == "__main__":
    print("\n".join(trio.run(lines)))  # what this is for
