"""The streams of the intermediate interface as event scripts, and the tables of their steps."""

from dataclasses import replace

import pytest

from broker.intermediate import link_code, replica, staff
from schemas.errors import Refusal
from tests.intermediate.samples import after

GRANT = staff.AuthorityGranted("s1", "福祉課", "affair_officer", ("81", "106"), "2026-04-01", "2027-03-31")
PAYLOAD = {"fiscal_year": "2026", "total_income": "1"}


# 職員権限


@pytest.mark.parametrize(
    ("row", "day", "refusal"),
    [
        ("81", "2026-04-01", None),
        ("106", "2027-03-31", None),
        ("81", "2026-03-31", Refusal("I-101")),
        ("81", "2027-04-01", Refusal("I-101")),
        ("82", "2026-11-21", Refusal("I-102", "82")),
    ],
)
@pytest.mark.req("R-057")
def test_staff_may_ask_under_their_rows_while_their_authority_lasts(
    row: str, day: str, refusal: Refusal | None
) -> None:
    assert staff.authorise(after((), staff.evolve, GRANT), row, day) == refusal


def test_who_was_never_granted_anything_may_ask_nothing() -> None:
    assert staff.authorise((), "81", "2026-11-21") == Refusal("I-101")


def test_the_last_grant_holds_and_the_same_one_leaves_no_event() -> None:
    narrowed = replace(GRANT, rows=("106",))
    assert staff.decide_grant((), GRANT) == (GRANT,)
    assert staff.decide_grant(after((), staff.evolve, GRANT), GRANT) == ()
    assert staff.decide_grant(after((), staff.evolve, GRANT), narrowed) == (narrowed,)
    assert staff.authorise(after((), staff.evolve, GRANT, narrowed), "81", "2026-11-21") is not None


# 符号, 副本


def test_a_new_code_takes_the_place_of_the_old_one_and_the_same_leaves_no_event() -> None:
    start = link_code.State()
    first = link_code.LinkCodeAcquired("p1", "index-1", "code-1", "n1")
    other = replace(first, code_index="index-2", link_code="code-2")
    retired = link_code.LinkCodeRetired("p1", "index-1", "replaced")
    assert link_code.decide_acquire(start, first) == (first,)
    known = after(start, link_code.evolve, first)
    assert link_code.decide_acquire(known, first) == ()
    assert link_code.decide_acquire(known, other) == (retired, other)
    assert after(start, link_code.evolve, first, retired, other) == link_code.State(other, ("index-1",))


def test_a_changed_record_is_registered_and_an_equal_one_leaves_no_event() -> None:
    record = replica.ReplicaRegistered("p1", "income_tax_certificate/1", "2026", "n1", PAYLOAD)
    changed = replace(record, payload={**PAYLOAD, "total_income": "2"})
    assert replica.decide_register(None, record) == (record,)
    held = after(None, replica.evolve, record)
    assert replica.decide_register(held, replace(record, payload=dict(PAYLOAD))) == ()
    assert replica.decide_register(held, changed) == (changed,)
    assert after(None, replica.evolve, record, changed) == changed
