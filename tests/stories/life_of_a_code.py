"""The life of a link code, told by the product itself: `python -m tests.stories.life_of_a_code`.

Initial bulk acquisition over the line and on a medium, a change of individual number, a provider without a
code, retirement; then the code table is rebuilt from events, and acquisition numbers are looked for in every
file.
"""

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from adapters.platform.code_requests import CodeRequests
from adapters.registry.medium import flat, read_requests, read_verdicts, write_requests, write_verdicts
from adapters.registry.reference import RegistryServer
from broker.intermediate.link_code import LinkCodeAcquired, LinkCodeRetired
from broker.intermediate.staff import AuthorityGranted
from ops.replay import replay
from tests.house import (
    ANSWERING,
    ASKING,
    INFORMATION,
    LAYOUT,
    OFFICE,
    OFFICER,
    PEOPLE,
    RESIDENTS,
    ROW,
    YEAR,
    House,
    Keys,
    contents,
    events_of,
    files_with,
    income,
    open_house,
    order,
    resident,
)
from tests.registry.settling import codes_of, desk_of, registry_of, until_settled

RENUMBERED = "123456789018"
MOVER = 4


async def by_medium(house: House, medium: Path) -> None:
    """見本市 writes its requests into a file, the registry answers in it, and 見本市 takes that in."""
    town, agency = house.answering, ANSWERING.code
    pairs, _ = await town.addressing.page(0)
    write_requests(medium, agency, pairs)
    registry = RegistryServer(house.register, house.registry_line)
    verdicts = []
    for batch in read_requests(medium, agency):
        given = await registry.acquire(agency, batch)
        verdicts += [(number, code) for (number, _), code in zip(batch, given, strict=True)]
    write_verdicts(medium, agency, verdicts)
    assert files_with(medium.parent, *(p.individual_number for p in PEOPLE)) == []
    await desk_of(town).settle(list(flat(read_verdicts(medium, agency))))
    medium.unlink()  # noqa: ASYNC240 # as the command does it
    await until_settled(house, town)


async def told(house: House, medium: Path) -> list[str]:
    """The story, in the lines that an operator would read."""
    lines: list[str] = []
    asking, answering = house.asking, house.answering
    ours, theirs = codes_of(asking), codes_of(answering)
    requests = CodeRequests(asking.platform, asking.addressing, ours)
    CodeRequests(answering.platform, answering.addressing, theirs)

    # 1. Initial bulk acquisition: 連携市 by transmission, 見本市 by medium.
    await house.introduce()
    for town, known in ((asking, 5), (answering, 4)):
        for index in range(known):
            await town.register(index)
    waiting = (await asking.addressing.progress()).waiting
    await until_settled(house, asking)
    await by_medium(house, medium)
    for name, town in (("連携市", asking), ("見本市", answering)):
        progress = await town.addressing.progress()
        lines.append(f"一斉取得 {name}: 取得 {progress.acquired} 件、待ち {progress.waiting} 件")
    assert waiting == 5
    both = [
        await codes.valid(resident(town.agency, 0)) for codes, town in ((ours, asking), (theirs, answering))
    ]
    assert len({*both, ""}) == 3, "two agencies, two codes for one person"

    # 2. Change of individual number: the network says that the code is there already, and it stays.
    house.register[RENUMBERED] = PEOPLE[0].resident_record_code
    changed = {**asdict(RESIDENTS[ASKING.code][0]), "individual_number": RENUMBERED}
    assert await asking.addressing.register(changed) is None
    await until_settled(house, asking, registry_of(house, asking, [PEOPLE[0].individual_number]))
    kept = await ours.valid(resident(ASKING, 0)) == both[0]
    lines.append(f"個人番号の変更: N-201、符号は{'そのまま' if kept else '変わりました'}")

    # 3. A provider without a code: N-106, the request to acquire, and the inquiry again.
    granted = AuthorityGranted(OFFICER, OFFICE, "affair_officer", (ROW,), "2026-04-01", "2027-03-31")
    assert await asking.platform.grant(granted) is None
    assert await asking.platform.inquire(order("q-1", MOVER)) is None
    await house.post()
    lines.append(f"情報照会 q-1: {(await asking.result('q-1')).code}")
    # The person moves in: addressing knows the four basic items, and a first acquisition had failed.
    items = {**asdict(RESIDENTS[ANSWERING.code][MOVER]), "address": RESIDENTS[ASKING.code][MOVER].address}
    assert await answering.addressing.register(items) is None
    ((number, _),) = await answering.addressing.acquisitions()
    await answering.addressing.settle({number: "J-101"})
    assert await requests.ask(asking.platform.inquiry_id("q-1"), OFFICER) is None
    await house.post()
    await until_settled(house, answering)
    mover = resident(ANSWERING, MOVER)
    assert await answering.platform.register_replica(mover, LAYOUT, YEAR, income(0)) is None
    lines.append(f"符号取得の求め: 見本市が取得 {'済' if await theirs.valid(mover) else '未了'}")
    assert await asking.platform.inquire(order("q-2", MOVER)) is None
    await house.post()
    again = await asking.result("q-2")
    lines.append(f"情報照会 q-2: {again.state} {again.code or INFORMATION}")

    # 4. Retirement: the person died; conversions fail on either side from then on.
    retired = await ours.valid(resident(ASKING, MOVER))
    await desk_of(asking).retire(resident(ASKING, MOVER), "died")
    await until_settled(house, asking)
    assert await asking.platform.inquire(order("q-3", MOVER)) is not None
    lines.append(f"失効後の情報照会 q-3: {(await asking.result('q-3')).code}")
    translated = await house.core.codes.translate([retired], ASKING.code, ANSWERING.code)
    lines.append(f"失効後のネットワークでの変換: {'なし' if translated == (('',), ('',)) else 'あり'}")
    return lines


async def lines() -> list[str]:
    """The story from its beginning to its end, in a house of its own."""
    with TemporaryDirectory() as name:
        folder, media = Path(name), Path(name) / "media"
        media.mkdir()
        async with open_house(folder / "house", Keys(folder / "keys")) as house:
            story = await told(house, media / "codes.csv")
            acquired = len(await house.asking.of_kind(LinkCodeAcquired))
            retired = len(await house.asking.of_kind(LinkCodeRetired))
            story.append(f"連携市の事象: 取得 {acquired} 件、失効 {retired} 件")
            tokens = house.asking.tokens + house.answering.tokens
            kept = files_with(folder, *tokens)  # journals too, while all of them run
            for town in (house.asking, house.answering):
                for ledger in (town.platform.ledger, town.people.ledger, house.core.ledger):
                    opened = contents(await events_of(ledger))
                    kept += [number for number in tokens if number.encode() in opened]
        kept += files_with(folder, *tokens)
        story.append(f"取得番号 {len(tokens)} 個のうち、どこかに残ったもの: {len(kept)} 個")
        same = replay(folder / "house", folder / "again") == 0
        story.append(f"renkei replay による符号の対応表の作り直し: {'一致' if same else '相違'}")
        return story


if __name__ == "__main__":
    print("\n".join(trio.run(lines)))  # what this is for
