"""A person in addressing as event scripts."""

from dataclasses import replace
from typing import Any

from broker.addressing import person
from broker.addressing.person import CodeSettled, NumberClaimed, PersonRegistered, State
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
SETTLED = CodeSettled("p1", "")


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
    assert person.decide_settle(after(HANAKO), "p1", "") == (SETTLED,)
    assert person.decide_settle(after(HANAKO), "p1", "J-101") == (CodeSettled("p1", "J-101"),)
    assert person.decide_settle(after(HANAKO, SETTLED), "p1", "") == ()
    assert person.decide_settle(after(HANAKO, SETTLED, MOVED), "p1", "") == ()


def test_another_individual_number_makes_a_new_acquisition_necessary() -> None:
    renumbered = after(HANAKO, SETTLED, RENUMBERED)
    assert renumbered == State(RENUMBERED, settled=False)
    assert person.decide_settle(renumbered, "p1", "") == (SETTLED,)


def test_a_claim_in_the_stream_of_a_number_says_nothing_about_a_person() -> None:
    assert after(HANAKO, NumberClaimed("p2")) == after(HANAKO)
