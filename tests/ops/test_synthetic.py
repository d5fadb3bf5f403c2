"""The fictional population: repeatable, unique where it must be, and good enough for every reader."""

from collections import Counter
from pathlib import Path

import pytest

from adapters.business.files import read_residents
from adapters.business.income import LAYOUT, read_income
from adapters.business.text import encode
from ops.synthetic import (
    REGISTER_HEADER,
    income_of,
    make_people,
    residents_of,
    write_income,
    write_register,
    write_residents,
)
from schemas.codes import individual_number_valid, integrated_number_valid
from schemas.items import validate

PEOPLE = make_people(11, 2_000)
RENKEI = residents_of(PEOPLE, "990019", "連携市", 11)
MIHON = residents_of(PEOPLE, "990027", "見本市", 11)


def test_the_same_seed_gives_the_same_people_and_another_seed_others() -> None:
    assert make_people(11, 2_000) == PEOPLE
    assert residents_of(PEOPLE, "990019", "連携市", 11) == RENKEI
    assert income_of(RENKEI, "2025", 11) == income_of(RENKEI, "2025", 11)
    assert make_people(12, 2_000) != PEOPLE
    assert residents_of(PEOPLE, "990019", "連携市", 12) != RENKEI
    assert income_of(RENKEI, "2025", 12) != income_of(RENKEI, "2025", 11)


def test_no_two_people_share_a_number_or_a_code() -> None:
    assert len({person.individual_number for person in PEOPLE}) == len(PEOPLE)
    assert len({person.resident_record_code for person in PEOPLE}) == len(PEOPLE)
    assert all(individual_number_valid(person.individual_number) for person in PEOPLE)
    assert all(len(person.resident_record_code) == 11 for person in PEOPLE)


@pytest.mark.req("R-242")
def test_each_municipality_gives_numbers_of_its_own() -> None:
    for residents in (RENKEI, MIHON):
        assert len({resident.integrated_number for resident in residents}) == len(PEOPLE)
        assert all(integrated_number_valid(resident.integrated_number) for resident in residents)
    assert not {r.integrated_number for r in RENKEI} & {r.integrated_number for r in MIHON}


def test_a_person_is_the_same_person_in_both_municipalities() -> None:
    for person, here, there in zip(PEOPLE, RENKEI, MIHON, strict=True):
        for resident in (here, there):
            assert person.individual_number == resident.individual_number
            assert (person.name, person.kana) == (resident.name, resident.kana)
            assert (person.birth_date, person.sex) == (resident.birth_date, resident.sex)
        assert here.address.startswith("連携市")
        assert there.address.startswith("見本市")


def test_the_order_of_integrated_numbers_says_nothing_about_the_order_of_people() -> None:
    numbers = [resident.integrated_number for resident in RENKEI]
    assert numbers != sorted(numbers)


def test_some_residents_are_protected_and_most_are_not() -> None:
    protected = sum(resident.protected for resident in RENKEI)
    assert 0 < protected < len(RENKEI) // 20


def test_names_contain_the_characters_that_go_wrong_in_careless_cp932() -> None:
    text = "".join(person.name + person.kana for person in PEOPLE)
    assert 0x5C in {encode(character)[1] for character in text}
    assert {"髙", "﨑"} <= set(text)


def test_every_record_of_income_fits_its_layout_and_adds_up() -> None:
    for record in income_of(RENKEI, "2025", 11):
        assert validate(LAYOUT, record.payload) == []
        amount = {code: int(value) for code, value in record.payload.items()}
        assert amount["annual_tax"] == (
            amount["municipal_per_capita_levy"] + amount["municipal_income_levy"] + amount["prefectural_tax"]
        )
        assert amount["taxable_total_income"] >= 0


def test_incomes_are_of_every_kind() -> None:
    records = income_of(RENKEI, "2025", 11)
    totals = [int(record.payload["total_income"]) for record in records]
    assert min(totals) < 0 < max(totals) < 10**9
    assert Counter(totals)[0] > len(totals) // 10
    for item in LAYOUT.leaves:
        if item.code != "fiscal_year":
            assert len({record.payload[item.code] for record in records}) > 1, item.code


@pytest.mark.req("R-125", "R-173")
def test_the_files_of_a_municipality_are_read_without_a_fault(tmp_path: Path) -> None:
    income = income_of(RENKEI, "2025", 11)
    assert write_residents(tmp_path / "residents.csv", RENKEI) == []
    assert write_income(tmp_path / "income.txt", income) == []
    assert list(read_residents(tmp_path / "residents.csv")) == list(enumerate(RENKEI, start=2))
    assert list(read_income(tmp_path / "income.txt")) == list(enumerate(income, start=1))


def test_the_register_pairs_each_record_code_with_its_individual_number(tmp_path: Path) -> None:
    assert write_register(tmp_path / "register.csv", PEOPLE) == []
    header, *lines = (tmp_path / "register.csv").read_text(encoding="ascii").splitlines()
    assert header == ",".join(REGISTER_HEADER)
    assert lines == [f"{person.resident_record_code},{person.individual_number}" for person in PEOPLE]
