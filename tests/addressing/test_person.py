"""A person in addressing as event scripts."""

from dataclasses import replace
from typing import Any

import pytest

from broker.addressing import person
from broker.addressing.person import (
    CodeSettled,
    CodeWanted,
    NumberClaimed,
    NumberReleased,
    PersonLeft,
    PersonRegistered,
    State,
)
from schemas.errors import Refusal

HANAKO = PersonRegistered(
    person="p1",
    number_index="i1",
    integrated_number="n1",
    individual_number="123456789018",
    name="見本　花子",
    kana="ミホン　ハナコ",
    birth_date="1990-01-31",
    sex="2",
    address="見本市見本町１丁目１番１号",
)
MOVED = replace(HANAKO, address="見本市若草台２丁目２番２号")
RENUMBERED = replace(HANAKO, number_index="i2", individual_number="210987654321")
SETTLED, WANTED, LEFT = CodeSettled("p1", ""), CodeWanted("p1"), PersonLeft("p1", "moved")


def after(*happened: Any) -> State:
    state = State()
    for event in happened:
        state = person.evolve(state, event)
    return state


def test_a_person_is_registered_and_the_same_again_leaves_no_event() -> None:
    assert person.decide_register(after(), "", HANAKO) == (HANAKO,)
    assert person.decide_register(after(HANAKO), "p1", HANAKO) == ()
    assert person.decide_register(after(HANAKO), "p1", MOVED) == (MOVED,)
    assert person.decide_register(after(HANAKO, MOVED), "p1", HANAKO) == (HANAKO,)


def test_an_individual_number_belongs_to_one_person() -> None:
    assert person.decide_register(after(), "p2", HANAKO) == Refusal("A-103")
    assert person.decide_register(after(HANAKO), "p2", RENUMBERED) == Refusal("A-103")


def test_an_acquisition_ends_once_and_lasts_through_changes_of_other_items() -> None:
    assert person.decide_settle(after(HANAKO), "p1", "i1", "") == (SETTLED,)
    assert person.decide_settle(after(HANAKO), "p1", "i1", "J-101") == (CodeSettled("p1", "J-101"),)
    assert person.decide_settle(after(HANAKO, SETTLED), "p1", "i1", "") == ()
    assert person.decide_settle(after(HANAKO, SETTLED, MOVED), "p1", "i1", "") == ()
    assert person.decide_settle(after(), "p1", "i1", "") == (), "somebody who was erased meanwhile"


@pytest.mark.req("R-120")
def test_another_individual_number_makes_a_new_acquisition_necessary() -> None:
    renumbered = after(HANAKO, SETTLED, RENUMBERED)
    assert renumbered == State(RENUMBERED, settled=False)
    assert person.decide_settle(renumbered, "p1", "i2", "") == (SETTLED,)
    assert person.decide_settle(renumbered, "p1", "i1", "") == (), "asked for with the number of before"


def test_a_code_is_wanted_again_only_of_whom_nothing_is_awaited() -> None:
    assert person.decide_want(after(HANAKO, SETTLED)) == (WANTED,)
    assert person.decide_want(after(HANAKO)) == person.decide_want(after()) == ()
    assert after(HANAKO, SETTLED, WANTED) == after(HANAKO)


@pytest.mark.req("R-421")
def test_who_left_waits_for_nothing_until_registered_again() -> None:
    gone = after(HANAKO, LEFT)
    assert gone.settled
    assert person.decide_leave(gone, "p1", "moved") == ()
    assert person.decide_register(gone, "p1", HANAKO) == (HANAKO,), "back with the same items"
    assert after(HANAKO, SETTLED, LEFT, HANAKO) == State(HANAKO, settled=False)
    assert after(HANAKO, LEFT, WANTED) == State(HANAKO, settled=False, left=True), "asked for by others"


def test_a_number_is_whose_claimed_it_last_and_nobodys_when_released() -> None:
    assert person.owner([]) == ""
    assert person.owner([NumberClaimed("p1")]) == "p1"
    assert person.owner([NumberClaimed("p1"), NumberReleased("p1")]) == ""
    assert person.owner([NumberClaimed("p1"), NumberReleased("p1"), NumberClaimed("p2")]) == "p2"


def test_a_claim_in_the_stream_of_a_number_says_nothing_about_a_person() -> None:
    assert after(HANAKO, NumberClaimed("p2")) == after(HANAKO)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("見本　花子", "見本市見本町１丁目１番１号"),
        ("見本 花子", "見本市見本町1丁目1番1号"),
        ("見本花子", "見本市見本町1丁目1番1号 "),
    ],
)
def test_ways_of_writing_the_same_items_are_equal(name: str, address: str) -> None:
    written = person.basic_items(name, "1990-01-31", "2", address)
    assert written == person.basic_items("見本花子", "1990-01-31", "2", "見本市見本町1丁目1番1号")


@pytest.mark.parametrize("dash", "-‐‑–—―−－ｰー")
def test_dashes_of_addresses_are_equal(dash: str) -> None:
    one, other = (person.basic_items("見本花子", "1990-01-31", "2", f"見本町1{d}2") for d in ("-", dash))
    assert one == other


@pytest.mark.parametrize(
    "other",
    [
        ("見本太郎", "1990-01-31", "2", "見本町1-1"),
        ("見本花子", "1990-01-30", "2", "見本町1-1"),
        ("見本花子", "1990-01-31", "1", "見本町1-1"),
        ("見本花子", "1990-01-31", "2", "見本町1-2"),
        ("見本花子", "1990-01-31", "2", "見本町11"),
        ("髙見花子", "1990-01-31", "2", "見本町1-1"),
    ],
)
def test_other_items_are_other_items(other: tuple[str, str, str, str]) -> None:
    assert person.basic_items(*other) != person.basic_items("見本花子", "1990-01-31", "2", "見本町1-1")
    assert person.basic_items("髙見", "", "", "") != person.basic_items("高見", "", "", "")
