"""Code lists and check digits, shown on published and computed examples."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codes import (
    code_list,
    code_lists,
    individual_number_valid,
    integrated_number,
    integrated_number_valid,
    local_government_code_valid,
)

SERIALS = st.integers(min_value=1, max_value=10**14 - 1)


def changed_digits(number: str) -> set[str]:
    """Every number that differs from `number` in exactly one digit."""
    return {
        number[:place] + digit + number[place + 1 :]
        for place in range(len(number))
        for digit in "0123456789"
        if digit != number[place]
    }


@pytest.mark.req("R-242")
def test_the_worked_example_of_the_integrated_number() -> None:
    """12345678: sum 138, remainder 6, check digit 5."""
    assert integrated_number(12345678) == "000000123456785"
    assert integrated_number_valid("000000123456785")


@pytest.mark.req("R-242")
def test_the_weights_start_again_at_the_seventh_digit() -> None:
    # 1*7 at the sixth digit, 1*2 at the seventh, 1*3 at the eighth
    assert integrated_number(100000) == "000000001000004"
    assert integrated_number(1000000) == "000000010000009"
    assert integrated_number(10000000) == "000000100000008"


@pytest.mark.req("R-242")
def test_remainder_zero_gives_check_digit_zero() -> None:
    # 31: 1*2 + 3*3 = 11
    assert integrated_number(31) == "000000000000310"


@pytest.mark.req("R-242")
def test_a_serial_with_remainder_one_is_never_issued_and_no_digit_makes_it_valid() -> None:
    # 6: 6*2 = 12, remainder 1
    assert integrated_number(6) is None
    assert not any(integrated_number_valid(f"00000000000006{check}") for check in range(10))


@pytest.mark.req("R-242")
@given(SERIALS)
def test_an_issued_number_is_valid_and_keeps_its_serial(serial: int) -> None:
    number = integrated_number(serial)
    if number is not None:
        assert re.fullmatch("[0-9]{15}", number)
        assert int(number[:14]) == serial
        assert integrated_number_valid(number)


@pytest.mark.req("R-242")
@given(SERIALS)
def test_one_wrong_digit_in_an_integrated_number_is_always_found(serial: int) -> None:
    number = integrated_number(serial)
    if number is not None:
        assert not any(map(integrated_number_valid, changed_digits(number)))


@pytest.mark.parametrize("serial", [0, -1, 10**14])
def test_a_serial_out_of_range_is_an_error(serial: int) -> None:
    with pytest.raises(ValueError, match="serial"):
        integrated_number(serial)


@pytest.mark.parametrize(
    "number", ["", "00000123456785", "0000000123456785", "000000000000000", "０００００0123456785"]
)
def test_other_lengths_other_digits_and_the_zero_serial_are_no_integrated_numbers(number: str) -> None:
    assert not integrated_number_valid(number)


@pytest.mark.parametrize("number", ["123456789018", "023456789013", "983205673214", "621498320257"])
def test_individual_numbers_with_a_right_check_digit(number: str) -> None:
    assert individual_number_valid(number)


@pytest.mark.parametrize(
    "number",
    [
        "345678901237",
        "12345678901",
        "1234567890180",
        "1234-5678-9018",
        " 123456789018",
        "123456789018\n",
        "１２３４５６７８９０１８",
    ],
)
def test_individual_numbers_are_taken_strictly(number: str) -> None:
    assert not individual_number_valid(number)


@pytest.mark.parametrize(
    "code",
    ["131016", "121002", "011002", "271004", "011011", "011070", "990019", "990027"],
)
def test_local_government_codes_with_a_right_check_digit(code: str) -> None:
    assert local_government_code_valid(code)
    others = {code[:5] + digit for digit in "0123456789"} - {code}
    assert not any(map(local_government_code_valid, others))


@pytest.mark.parametrize("code", ["", "13101", "1310160", "13101a", "１３１０１６"])
def test_local_government_codes_have_six_digits(code: str) -> None:
    assert not local_government_code_valid(code)


def test_values_of_a_code_list_are_distinct_and_named_in_both_languages() -> None:
    for found in code_lists():
        values = [code.value for code in found.codes]
        assert len(values) == len(set(values)), found.name
        assert all(code.name_ja and code.name_en for code in found.codes), found.name


def test_a_code_list_knows_its_values_and_no_others() -> None:
    disability = code_list("disability_category")
    assert "2" in disability
    assert disability.code("2").name_ja == "特別障害者"
    assert "3" not in disability
    assert 2 not in disability
    with pytest.raises(ValueError, match="disability_category"):
        disability.code("3")
    with pytest.raises(ValueError, match="no such code list"):
        code_list("no_such_list")
