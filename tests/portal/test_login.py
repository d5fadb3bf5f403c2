"""One-time links and the sessions they open."""

from itertools import count

import pytest

from adapters.portal.login import Links
from tests.portal.town import Clock, later

RESIDENT, OTHER = "000000000000019", "000000000000027"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def links(clock: Clock) -> Links:
    numbers = count()
    return Links(clock, lambda: f"secret-{next(numbers)}", at_most=3)


def opened(links: Links, resident: str = RESIDENT) -> str:
    session = links.redeem(links.issue(resident))
    assert session is not None
    return session


def test_a_link_opens_a_session_of_its_resident(links: Links) -> None:
    mine, theirs = links.issue(RESIDENT), links.issue(OTHER)
    session, other = links.redeem(mine), links.redeem(theirs)
    assert session is not None
    assert other is not None
    assert (links.resident(session), links.resident(other)) == (RESIDENT, OTHER)


def test_a_link_works_once(links: Links) -> None:
    token = links.issue(RESIDENT)
    assert links.redeem(token) is not None
    assert links.redeem(token) is None


def test_a_link_lives_fifteen_minutes(links: Links, clock: Clock) -> None:
    early, late = links.issue(RESIDENT), links.issue(RESIDENT)
    later(clock, 14.99)
    assert links.redeem(early) is not None
    later(clock, 0.01)
    assert links.redeem(late) is None


def test_a_session_ends_after_fifteen_minutes_without_use(links: Links, clock: Clock) -> None:
    session = opened(links)
    for _ in range(4):
        later(clock, 14)
        assert links.resident(session) == RESIDENT
    later(clock, 15)
    assert links.resident(session) is None


def test_logging_out_ends_one_session(links: Links) -> None:
    mine, other = opened(links), opened(links, OTHER)
    links.logout(mine)
    links.logout("never-issued")
    assert links.resident(mine) is None
    assert links.resident(other) == OTHER


@pytest.mark.parametrize("text", ["", "guess", "\ud800", "秘密"])
def test_a_guess_opens_nothing(links: Links, text: str) -> None:
    links.issue(RESIDENT)
    assert links.redeem(text) is None
    assert links.resident(text) is None


def test_a_token_is_no_session_and_a_session_no_token(links: Links) -> None:
    token = links.issue(RESIDENT)
    assert links.resident(token) is None
    session = links.redeem(token)
    assert session is not None
    assert links.redeem(session) is None
    assert links.resident(session) == RESIDENT


def test_tokens_and_sessions_are_not_kept(links: Links) -> None:
    token, session = links.issue(OTHER), opened(links)
    kept = repr(vars(links))
    assert OTHER in kept
    assert token not in kept
    assert session not in kept


def test_beyond_the_bound_the_oldest_goes(links: Links) -> None:
    tokens = [links.issue(RESIDENT) for _ in range(4)]
    assert [links.redeem(token) is not None for token in tokens] == [False, True, True, True]


def test_beyond_the_bound_the_session_longest_unused_goes(links: Links) -> None:
    sessions = [opened(links) for _ in range(3)]
    assert links.resident(sessions[0]) == RESIDENT
    opened(links)
    assert [links.resident(session) is not None for session in sessions] == [True, False, True]


def test_old_links_do_not_push_out_new_ones(links: Links, clock: Clock) -> None:
    for _ in range(3):
        links.issue(OTHER)
    later(clock, 15)
    tokens = [links.issue(RESIDENT) for _ in range(3)]
    assert all(links.redeem(token) for token in tokens)
