"""Without published assessments of both sides' files nothing flows (Act art. 28(6)); all made up."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from shutil import copytree

import pytest

from broker.linkage.incoming import MessageRefused
from broker.linkage.outgoing import MessageNotSent
from ops.synthetic import assessments_of
from schemas.law import Agency
from schemas.law.assessments import Assessments, read_assessments
from schemas.law.lines import joined
from schemas.messages import LetterBody, LetterRequest
from tests.house import (
    AGENCIES,
    ANSWERING,
    ASKING,
    INFORMATION,
    OFFICE,
    OTHER,
    ROW,
    START,
    TERMS,
    House,
    Keys,
    Town,
    open_house,
    order,
    resident,
)
from tests.linkage.forging import ANSWER, INQUIRY, outcome, scene_of
from tests.linkage.test_checks import TABLE, sent

NOTICE = LetterRequest(
    message_id="n-1",
    kind="notice",
    office=OFFICE,
    official_role="affair_officer",
    receiver=ASKING.code,
    to_office="",
    processing_number="",
    letter_to="",
    law_version=TABLE.version,
    law_row=ROW,
    information=INFORMATION,
    sent_at=START.isoformat(),
    link_codes=("code",),
    bodies=(LetterBody({}),),
)
WORDS = replace(NOTICE, law_version="", law_row="", information="", link_codes=())
ALL = assessments_of(a.code for a in AGENCIES)


def without(code: str) -> Assessments:
    """Everybody's assessments but one agency's."""
    return Assessments(read_assessments(joined(row for row in ALL if row[1] != code))[0])


def published(first: str, last: str, code: str) -> Assessments:
    """Everybody's assessments, that of one agency published on these days alone."""
    rows = ((*row[:-2], first, last) if row[1] == code else row for row in ALL)
    return Assessments(read_assessments(joined(rows))[0])


def tell(town: Town, assessments: Assessments) -> None:
    """From here on this agency knows of these alone."""
    assert town.linkage.directory is not None
    town.linkage.directory = replace(town.linkage.directory, assessments=assessments)


@pytest.fixture
async def unassessed(tmp_path: Path, keys: Keys, furnished: Path) -> AsyncIterator[House]:
    """A house in which 見本市 has published nothing."""
    copytree(furnished, tmp_path / "house")
    terms = replace(TERMS, assessments=tuple(row for row in ALL if row[1] != ANSWERING.code))
    async with open_house(tmp_path / "house", keys, opening=2, terms=terms) as house:
        for town in house.towns.values():
            await town.look_around()
        yield house


@pytest.mark.parametrize(("lacking", "code"), [(ASKING, "L-114"), (ANSWERING, "L-115"), (OTHER, "")])
@pytest.mark.req("R-060", "R-062", "R-381", "R-382")
async def test_without_an_assessment_of_either_side_nothing_is_sent_or_taken_in(
    house: House, lacking: Agency, code: str
) -> None:
    expected = ("role", code) if code else ("", "")
    scene = await scene_of(house, INQUIRY, 0)
    for town in house.towns.values():
        tell(town, without(lacking.code))
    assert sent(house, INQUIRY) == sent(house, ANSWER) == expected
    assert outcome(scene.check(scene.genuine)) == expected
    notice = house.answering.linkage.send_letter(NOTICE, house.clock(), bytes)
    assert outcome(notice) == expected, "what is told unasked is provided, too"
    # What says nothing about anybody goes all the same.
    assert sent(house, ANSWER, code="L-115", subjects=()) == ("", "")
    assert outcome(house.answering.linkage.send_letter(WORDS, house.clock(), bytes)) == ("", "")


@pytest.mark.req("R-382")
async def test_an_inquirer_is_told_before_anything_leaves_and_it_is_recorded(house: House) -> None:
    tell(house.asking, without(ASKING.code))
    refusal = await house.asking.platform.inquire(order("q-1", 0))
    assert refusal is not None
    assert refusal.code == "L-114"
    assert await house.asking.outbox() == []
    (not_sent,) = await house.asking.of_kind(MessageNotSent)
    assert (not_sent.step, not_sent.code) == ("role", "L-114")
    (shown,) = await house.asking.platform.records(resident(ASKING, 0))
    assert (shown.refusal, shown.provided_at) == ("L-114", "")


@pytest.mark.req("R-062", "R-382")
async def test_a_provider_provides_nothing_and_the_inquirer_learns_why(house: House) -> None:
    assert await house.asking.platform.inquire(order("q-1", 0)) is None
    await house.asking.send()
    tell(house.answering, without(ANSWERING.code))
    await house.post()
    (refused,) = await house.answering.of_kind(MessageRefused)
    assert (refused.step, refused.code) == ("role", "L-115")
    result = await house.asking.result("q-1")
    assert (result.state, result.code, result.payloads) == ("refused", "L-115", ())


@pytest.mark.req("R-381", "R-382")
async def test_the_configuration_of_the_network_says_whose_assessments_are_published(
    unassessed: House,
) -> None:
    """見本市 may be asked for nothing; it may ask, and others go on."""
    platform = unassessed.asking.platform
    refusal = await platform.inquire(order("q-1", 0))
    assert refusal is not None
    assert refusal.code == "L-115"
    assert await platform.inquire(order("q-2", 0, provider=OTHER.code)) is None
    assert [verdict.code for verdict in await unassessed.asking.send()] == [""]


@pytest.mark.parametrize(
    ("first", "last", "code"),
    [
        ("2026-11-21", "2026-11-21", ""),
        ("2026-11-22", "9999-12-31", "L-115"),
        ("2026-01-01", "2026-11-20", "L-115"),
    ],
)
@pytest.mark.req("R-382")
async def test_the_day_of_the_request_decides_and_not_that_of_the_answer(
    house: House, first: str, last: str, code: str
) -> None:
    expected = ("role", code) if code else ("", "")
    tell(house.asking, published(first, last, ANSWERING.code))
    tell(house.answering, published(first, last, ANSWERING.code))
    assert sent(house, INQUIRY) == expected
    tomorrow = (START + timedelta(days=1)).isoformat()
    assert sent(house, ANSWER, answered_at=tomorrow) == expected
