"""Staff: authorities, offices, second persons and exclusive editing, each as a script of events."""

from dataclasses import replace
from itertools import product

import pytest

from broker.intermediate import editing, office, second_person, staff
from broker.intermediate.second_person import ActConfirmed, ActDeclined, ActProposed
from schemas.errors import Refusal
from schemas.law.roles import operation_words, roles, second_person_acts
from tests.intermediate.samples import AT, LATER, UNTIL, after

DAY = "2026-11-21"
GRANT = staff.AuthorityGranted("s1", "福祉課", "affair_officer", ("81", "106"), "2026-04-01", "2027-03-31")
NEXT = replace(GRANT, office="税務課", rows=("2",), valid_from="2026-12-01")
OFFICE = office.OfficeOpened("990019", "福祉課", "福祉課", ("81",), "2026-04-01", "2027-03-31")
CLOSED = office.OfficeClosed("990019", "福祉課", "2026-11-30")
PROPOSED = ActProposed("a-1", "release_hold", "digest", "first", AT, UNTIL, "s1", "申出による")
CONFIRMED = ActConfirmed("second", LATER, "s2")
DECLINED = ActDeclined("second", LATER, "s2")


# 職員権限


@pytest.mark.req("R-076", "R-097")
@pytest.mark.parametrize(
    ("day", "rows"),
    [
        ("2026-03-31", None),
        ("2026-04-01", ("81", "106")),
        ("2026-11-30", ("81", "106")),
        ("2026-12-01", ("2",)),
        ("2027-03-31", ("2",)),
        ("2027-04-01", None),
    ],
)
def test_a_change_of_staff_is_registered_before_its_day(day: str, rows: tuple[str, ...] | None) -> None:
    granted = staff.authority(after(staff.NOBODY, staff.evolve, GRANT, NEXT), day)
    assert (granted.rows if granted is not None else None) == rows


def test_what_was_granted_before_does_not_come_back_when_a_later_grant_ends() -> None:
    short = replace(NEXT, valid_until="2026-12-31")
    state = after(staff.NOBODY, staff.evolve, GRANT, short)
    assert staff.authority(state, "2027-01-01") is None
    assert after(state, staff.evolve, GRANT) == (GRANT,), "granted again it takes the place of all"


@pytest.mark.req("R-076")
def test_grants_for_one_year_after_another_stand_in_whichever_order_they_come() -> None:
    following = replace(GRANT, rows=("2",), valid_from="2027-04-01", valid_until="2028-03-31")
    state: staff.State = (GRANT, following)
    assert after(staff.NOBODY, staff.evolve, GRANT, following) == state
    assert after(staff.NOBODY, staff.evolve, following, GRANT) == state
    for grant in state:
        assert staff.decide_grant(state, grant) == (), "and the same file again leaves no event"
    assert staff.authorise(state, "2", "2027-04-01") is None
    assert staff.decide_grant(state, NEXT) == (NEXT,)
    assert after(state, staff.evolve, NEXT) == (GRANT, NEXT, following)


@pytest.mark.req("R-076")
def test_a_revocation_ends_all_that_was_granted_also_for_later() -> None:
    state = after(staff.NOBODY, staff.evolve, GRANT, NEXT)
    (revoked,) = staff.decide_revoke(state, staff.AuthorityRevoked("s1", DAY))  # type: ignore[misc] # no refusal
    ended = staff.evolve(state, revoked)
    assert staff.authorise(ended, "81", DAY) is None
    assert staff.authorise(ended, "81", "2026-11-22") == Refusal("I-101")
    assert staff.authorise(ended, "2", "2026-12-01") == Refusal("I-101")
    assert staff.decide_revoke(ended, staff.AuthorityRevoked("s1", "2026-12-24")) == ()
    assert staff.decide_revoke(staff.NOBODY, revoked) == Refusal("I-127")
    assert staff.authorise(staff.evolve(ended, GRANT), "81", "2026-12-24") is None, "granted anew"


@pytest.mark.req("R-059", "R-063")
@pytest.mark.parametrize(
    ("role", "what", "basis"), [*product(roles(), ("inquire", "answer"), ("19-8", "19-9"))]
)
def test_a_role_links_information_only_under_its_legal_bases(role: str, what: str, basis: str) -> None:
    """The whole table, against what each role is for."""
    links = {
        "affair_officer": ("inquire", "answer"),
        "affair_manager": ("inquire", "answer"),
        "automatic_response": ("answer",),
        "ordinance_officer": ("inquire", "answer") if basis == "19-9" else (),
    }
    state = (replace(GRANT, official_role=role),)
    refusal = None if what in links.get(role, ()) else Refusal("I-102", "81")
    assert staff.authorise(state, "81", DAY, what, basis) == refusal


@pytest.mark.req("R-059", "R-076")
def test_a_role_approves_administers_or_audits_while_the_authority_lasts() -> None:
    able = {"affair_manager": "approve", "approver": "approve", "system_administrator": "administer"}
    able["auditor"] = "audit"
    for role, what in product((*roles(), "made up"), ("approve", "administer", "audit")):
        state = (replace(GRANT, official_role=role),)
        assert staff.entitled(state, what, DAY) == (None if able.get(role) == what else Refusal("I-122"))
        assert staff.entitled(state, what, "2027-04-01") == Refusal("I-122")


# 所属


@pytest.mark.req("R-066", "R-097")
@pytest.mark.parametrize(
    ("row", "day", "refusal"),
    [
        ("81", "2026-04-01", None),
        ("81", "2026-11-30", None),
        ("81", "2026-12-01", Refusal("I-126", "福祉課")),
        ("81", "2026-03-31", Refusal("I-126", "福祉課")),
        ("106", DAY, Refusal("I-126", "106")),
    ],
)
def test_an_office_is_in_charge_of_its_affairs_while_it_is_there(
    row: str, day: str, refusal: Refusal | None
) -> None:
    assert office.in_charge(after(None, office.evolve, OFFICE, CLOSED), row, day) == refusal
    assert office.in_charge(None, row, day) is None, "an agency that keeps no offices goes by authorities"


@pytest.mark.req("R-075", "R-088")
def test_only_an_office_that_is_known_and_open_is_a_destination() -> None:
    assert office.destination(None, DAY) == Refusal("I-126")
    assert office.destination(OFFICE, DAY) is None
    assert office.destination(OFFICE, "2027-04-01") == Refusal("I-126", "福祉課")


def test_an_office_registered_as_it_is_leaves_no_event() -> None:
    renamed = replace(OFFICE, name="福祉総務課")
    assert office.decide_open(None, OFFICE) == (OFFICE,)
    assert office.decide_open(OFFICE, OFFICE) == ()
    assert office.decide_open(OFFICE, renamed) == (renamed,)
    assert office.decide_close(None, CLOSED) == Refusal("I-126", "福祉課")
    assert office.decide_close(OFFICE, CLOSED) == (CLOSED,)
    assert office.decide_close(after(None, office.evolve, OFFICE, CLOSED), CLOSED) == ()
    with pytest.raises(ValueError, match="before it was opened"):
        office.evolve(None, CLOSED)
    assert office.covers(OFFICE, ("81",)) is None
    assert office.covers(OFFICE, ("81", "106", "2")) == Refusal("I-126", "106")
    assert office.covers(None, ("106",)) is None


# 第二の職員


def acted(*happened: object) -> second_person.State:
    return after(second_person.State(), second_person.evolve, *happened)


def confirm(state: second_person.State, **changes: object) -> object:
    given: dict[str, object] = {
        "act": "release_hold",
        "digest": "digest",
        "entitlements": (None, None),
        "confirmed": CONFIRMED,
    } | changes
    return second_person.decide_confirm(state, **given)  # type: ignore[arg-type] # as named above


def test_a_second_person_confirms_what_a_first_one_proposed() -> None:
    assert second_person.decide_propose(acted(), PROPOSED) == (PROPOSED,)
    assert second_person.decide_propose(acted(PROPOSED), PROPOSED) == ()
    other = replace(PROPOSED, digest="other")
    assert second_person.decide_propose(acted(PROPOSED), other) == Refusal("I-123")
    assert confirm(acted(PROPOSED)) == (CONFIRMED,)


@pytest.mark.parametrize(
    ("happened", "changes", "code"),
    [
        ((), {}, "I-124"),
        ((PROPOSED, CONFIRMED), {}, "I-124"),
        ((PROPOSED, DECLINED), {}, "I-124"),
        ((PROPOSED,), {"confirmed": replace(CONFIRMED, confirmed_at=UNTIL + "1")}, "I-124"),
        ((PROPOSED,), {"confirmed": replace(CONFIRMED, staff="first")}, "I-121"),
        ((PROPOSED,), {"entitlements": (Refusal("I-122"), None)}, "I-122"),
        ((PROPOSED,), {"entitlements": (None, Refusal("I-122"))}, "I-122"),
        ((PROPOSED,), {"digest": "other"}, "I-123"),
        ((PROPOSED,), {"act": "correct_record"}, "I-123"),
    ],
)
def test_nothing_else_is_confirmed(
    happened: tuple[object, ...], changes: dict[str, object], code: str
) -> None:
    refusal = confirm(acted(*happened), **changes)
    assert isinstance(refusal, Refusal)
    assert refusal.code == code


def test_who_may_confirm_may_decline_and_who_proposed_may_take_it_back() -> None:
    own = replace(DECLINED, staff="first")
    lacking = Refusal("I-122")
    assert second_person.decide_decline(acted(PROPOSED), None, DECLINED) == (DECLINED,)
    assert second_person.decide_decline(acted(PROPOSED), lacking, DECLINED) == lacking
    assert second_person.decide_decline(acted(PROPOSED), lacking, own) == (own,)
    assert second_person.decide_decline(acted(PROPOSED, CONFIRMED), None, DECLINED) == Refusal("I-124")


def test_what_was_confirmed_is_for_the_one_who_proposed_it_and_for_nothing_else() -> None:
    def usable(state: second_person.State, **changes: str) -> Refusal | None:
        given = {"act": "release_hold", "digest": "digest", "staff": "first", "now": LATER} | changes
        return second_person.usable(state, **given)

    done = acted(PROPOSED, CONFIRMED)
    assert usable(done) is None
    assert usable(done, now=UNTIL) is None
    assert usable(done, now=UNTIL + "1") == Refusal("I-124")
    for state in (acted(), acted(PROPOSED), acted(PROPOSED, DECLINED)):
        assert usable(state) == Refusal("I-124")
    for change in ({"staff": "second"}, {"digest": "other"}, {"act": "correct_record"}):
        assert usable(done, **change) == Refusal("I-123")


def test_the_steps_of_an_act_are_those_of_its_table() -> None:
    states = {"none": acted(), "proposed": acted(PROPOSED), "confirmed": acted(PROPOSED, CONFIRMED)}
    states["declined"] = acted(PROPOSED, DECLINED)
    allowed = {("none", "ActProposed"), ("proposed", "ActConfirmed"), ("proposed", "ActDeclined")}
    for (name, state), event in product(states.items(), (PROPOSED, CONFIRMED, DECLINED)):
        if (name, type(event).__name__) not in allowed:
            with pytest.raises(KeyError):
                second_person.evolve(state, event)


@pytest.mark.req("R-063")
def test_the_policy_says_which_acts_need_a_second_person() -> None:
    assert second_person.needed("release_hold")
    assert not second_person.needed("inquire")
    abilities = {ability for role in roles().values() for ability in role.may}
    for act in second_person_acts().values():
        assert {act.proposer, act.confirmer} <= abilities
    assert {word.log for word in operation_words().values()} == {"business", "audit"}


# 排他制御


@pytest.mark.req("R-100")
def test_one_officer_edits_until_it_ends_or_the_time_is_up() -> None:
    begun, other = (
        editing.EditBegun("p1", "first", UNTIL, "s1"),
        editing.EditBegun("p1", "second", UNTIL, "s2"),
    )
    assert editing.decide_begin(None, begun, AT) == (begun,)
    state = after(None, editing.evolve, begun)
    assert editing.decide_begin(state, other, LATER) == Refusal("I-125")
    assert editing.barred(state, "second", LATER) == Refusal("I-125")
    assert editing.barred(state, "first", LATER) is None
    longer = replace(begun, until=UNTIL + "1")
    assert editing.decide_begin(state, longer, LATER) == (longer,), "the same one may go on"
    assert editing.decide_begin(state, other, UNTIL) == (other,), "forgotten, it ends by itself"
    assert editing.decide_end(state, "second") == ()
    (ended,) = editing.decide_end(state, "first")
    assert editing.barred(after(state, editing.evolve, ended), "second", LATER) is None
    assert editing.decide_end(None, "first") == ()
