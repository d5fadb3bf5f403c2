"""What exchanges put on the access lines, against the formula of the study (domain/traffic.md)."""

from collections import Counter
from itertools import count

import pytest

from adapters.network.schedule import BULK
from tests.house import ANSWERING, ASKING, House, asked_of, order
from tests.house import STORED as KNOWN

SUBJECTS = {"固定資産情報": 6, "所得課税証明書情報": 3, "その他": 1}
"""情報の対象者数 (R-208): relatives are asked about, too."""
MUNICIPALITIES = 2
"""補正係数 (R-210): between municipalities one works as the sending and one as the receiving side."""


class Meter:
    """Carries inquiries through a house and counts the bytes of envelopes on the line of each agency."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._numbers = count(1)

    async def exchange(self, subjects: int, linkages: int) -> Counter[str]:
        """Bytes by agency, and under "network" what was relayed, of so many inquiries and their answers."""
        house, lines = self._house, Counter[str]()
        people = [KNOWN[place % len(KNOWN)] for place in range(subjects)]
        for _ in range(linkages):
            request = f"q-{next(self._numbers)}"
            assert await house.asking.platform.inquire(order(request, *people)) is None
            for sender, receiver in ((house.asking, house.answering), (house.answering, house.asking)):
                (message,) = await sender.outbox()
                sent = len(message.control) + len(message.sealed) + len(message.signature)
                await sender.send()
                envelope = (await receiver.mail())[-1].envelope
                received = len(envelope.control) + len(envelope.sealed) + len(envelope.signature)
                assert await receiver.take_in() == [None]
                lines += Counter({sender.agency.code: sent, "network": sent})
                lines += Counter({receiver.agency.code: received})
            result = await house.asking.result(request)
            assert result.payloads == tuple(asked_of(index) for index in people)
        return lines


@pytest.mark.req("R-207", "R-210")
async def test_traffic_is_size_times_subjects_times_linkages_times_two(house: House) -> None:
    """But for what a message has once, whomever it is about: what one case more weighs is always the same."""
    meter = Meter(house)
    lines = {subjects: await meter.exchange(subjects, 1) for subjects in (1, 2, 3, 6)}
    relayed = {subjects: each["network"] for subjects, each in lines.items()}
    size = relayed[2] - relayed[1]
    once = relayed[1] - size
    assert size > 500, "a case weighs more than its name"
    for subjects in (3, 6):
        assert relayed[subjects] == pytest.approx(once + size * subjects, rel=0.02)
    for each in lines.values():
        assert each[ASKING.code] + each[ANSWERING.code] == MUNICIPALITIES * each["network"]
    several = await meter.exchange(3, 4)
    assert several["network"] == pytest.approx(4 * relayed[3], rel=0.02)


@pytest.mark.req("R-208")
@pytest.mark.parametrize("subjects", SUBJECTS.values(), ids=SUBJECTS)
async def test_those_whom_one_inquiry_is_about_go_in_one_message_that_never_waits_for_bulk(
    house: House, subjects: int
) -> None:
    people = [KNOWN[place % len(KNOWN)] for place in range(subjects)]
    assert await house.asking.platform.inquire(order("q-1", *people)) is None
    assert await house.asking.rows("SELECT records FROM outbox") == [(subjects,)]
    assert subjects <= BULK
    await house.post()
    assert len((await house.asking.result("q-1")).payloads) == subjects
