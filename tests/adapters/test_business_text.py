"""Bytes of cp932 files become records, and damage stays where it is."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.business.text import (
    LOST,
    MAX_LINE_BYTES,
    MAX_RECORD_LINES,
    Row,
    decode,
    encode,
    fits,
    physical_lines,
    rows,
)


def read(raw: bytes) -> list[Row]:
    return list(rows(io.BytesIO(raw)))


CP932 = [character for code in range(0x20, 0x10000) if fits(character := chr(code))]
cp932_text = st.text(st.sampled_from(CP932))


@pytest.mark.req("R-169")
@given(cp932_text)
def test_text_that_fits_comes_back_unchanged(text: str) -> None:
    assert decode(encode(text)) == text
    assert encode(text).decode("cp932") == text


@pytest.mark.req("R-169")
def test_the_wave_dash_that_windows_writes_stays_a_full_width_tilde() -> None:
    assert decode(b"\x81\x60") == "\uff5e"
    assert fits("\uff5e")


@pytest.mark.req("R-169")
@pytest.mark.parametrize("character", ["\u301c", "\u2016", "\u2212", "\u00a2", "\u00a3", "\u00ac"])
def test_characters_that_would_come_back_as_others_do_not_fit(character: str) -> None:
    assert decode(character.encode("cp932")) != character
    assert not fits(character)


@pytest.mark.req("R-169")
@pytest.mark.parametrize("text", ["𠮷", "é", LOST, "\x80"])
def test_characters_without_bytes_do_not_fit(text: str) -> None:
    assert not fits(text)


@pytest.mark.req("R-169")
def test_rare_kanji_are_written_in_the_codes_that_windows_writes() -> None:
    assert "髙﨑".encode("cp932") == b"\xee\xe0\xed\x95"
    assert encode("髙﨑") == b"\xfb\xfc\xfa\xb1"
    assert decode(b"\xee\xe0\xed\x95") == decode(b"\xfb\xfc\xfa\xb1") == "髙﨑"


@pytest.mark.req("R-169")
def test_characters_with_several_codes_take_jis_then_nec_special_then_ibm() -> None:
    assert encode("∪∵￢Ⅰ㈱ⅰ") == b"\x81\xbe\x81\xe6\x81\xca\x87\x54\x87\x8a\xfa\x40"


@pytest.mark.parametrize("raw", [b"\x80", b"\xa0", b"\xfd", b"\xfe", b"\xff", b"\x81", b"\x85\x40"])
def test_bytes_that_cp932_leaves_unassigned_are_lost_and_not_guessed(raw: bytes) -> None:
    assert LOST in decode(raw)


def test_a_stray_lead_byte_does_not_swallow_the_comma_the_quote_or_the_line_end_after_it() -> None:
    for sign in (b",", b'"', b"\r", b"\n"):
        assert decode(b"\x81" + sign) == LOST + sign.decode()


def test_second_bytes_that_look_like_ascii_do_not_cut_a_cell() -> None:
    assert read("表十,能ポ\r\n".encode("cp932")) == [Row(1, ("表十", "能ポ"))]


def test_quoted_cells_hold_commas_quotes_and_line_ends_and_lines_keep_their_physical_number() -> None:
    raw = 'a,"連携市,\r\n""表""町"\r\nb,c\r\n'.encode("cp932")
    assert read(raw) == [Row(1, ("a", '連携市,\r\n"表"町')), Row(3, ("b", "c"))]


def test_bytes_lost_inside_a_quoted_cell_cost_that_record_only_and_their_line_is_named() -> None:
    raw = b'a,"x\r\ny\x81\r\nz"\r\nb,c\r\n'
    assert read(raw) == [Row(1, ("a", f"x\r\ny{LOST}\r\nz"), lost=(2,)), Row(4, ("b", "c"))]


def test_a_lost_byte_before_the_closing_quote_does_not_keep_the_cell_open() -> None:
    assert read(b'a,"x\x81"\r\nb,c\r\n') == [Row(1, ("a", "x" + LOST), lost=(1,)), Row(2, ("b", "c"))]


def test_a_quote_that_is_never_closed_costs_one_line() -> None:
    assert read(b'a,"b\r\nc,d\r\ne,f\r\n') == [Row(1, None), Row(2, ("c", "d")), Row(3, ("e", "f"))]


def test_a_stray_quote_does_not_pair_with_a_quote_of_a_later_record() -> None:
    assert read(b'a,"b\r\nc,d\r\ne,"f"\r\n') == [Row(1, None), Row(2, ("c", "d")), Row(3, ("e", "f"))]


def test_an_opened_quote_reaches_a_bounded_number_of_lines() -> None:
    longest = b'"a' + b"\r\n" * (MAX_RECORD_LINES - 1) + b'"\r\n'
    assert [row.line for row in read(longest + b"b,c\r\n")] == [1, MAX_RECORD_LINES + 1]
    too_long = b'"a' + b"\r\n" * MAX_RECORD_LINES + b'"\r\n'
    assert read(too_long)[:2] == [Row(1, None), Row(2, ())]


def test_every_line_with_a_stray_quote_is_given_up_alone() -> None:
    raw = b'"a\r\n' * (3 * MAX_RECORD_LINES) + b"b,c\r\n"
    found = read(raw)
    assert found[-1] == Row(3 * MAX_RECORD_LINES + 1, ("b", "c"))
    assert [row.line for row in found] == sorted({row.line for row in found})


def test_a_line_too_long_to_hold_is_given_up_and_the_next_one_is_read() -> None:
    for length in (MAX_LINE_BYTES, MAX_LINE_BYTES + 1, 2 * MAX_LINE_BYTES, 3 * MAX_LINE_BYTES + 7):
        assert read(b"a" * length + b"\r\nb,c\r\n") == [Row(1, None), Row(2, ("b", "c"))]
        assert read(b'"' + b"a" * length) == [Row(1, None)]


def test_a_line_too_long_inside_an_open_quote_is_its_own_loss() -> None:
    raw = b'x,"y\r\n' + b"a" * MAX_LINE_BYTES + b"\r\nb,c\r\n"
    assert read(raw) == [Row(1, None), Row(2, None), Row(3, ("b", "c"))]


def test_the_longest_line_still_fits() -> None:
    line = b"a" * (MAX_LINE_BYTES - 1) + b"\n"
    assert list(physical_lines(io.BytesIO(line + line))) == [(1, line), (2, line)]


@pytest.mark.parametrize("raw", [b"", b"a", b"a\r\n", b"a\n", b"\r\n", b"a\r\n\r\nb", b"\x1a"])
def test_no_line_is_lost_at_the_edges_of_a_file(raw: bytes) -> None:
    assert b"".join(line or b"" for _, line in physical_lines(io.BytesIO(raw))) == raw
    assert len(read(raw)) == len(raw.splitlines())


@given(st.binary(max_size=300))
def test_whatever_the_bytes_are_every_line_belongs_to_one_record(raw: bytes) -> None:
    starts = [row.line for row in read(raw)]
    assert starts == sorted(set(starts))
    assert not raw or starts[0] == 1


@given(
    st.lists(
        st.sampled_from([b"a,b\n", b'a,"b\n', b'"a,b"\n', b'c"\n', b"\x81,\x82\n", b'"\x81"\n', b'""\n'])
    ),
    st.integers(1, 2 * MAX_RECORD_LINES),
)
def test_every_good_line_after_any_damage_is_read(damage: list[bytes], count: int) -> None:
    good = [b"%d,good\n" % number for number in range(count)]
    found = [row.cells for row in read(b"".join(damage + good))]
    assert found[-count:] == [(str(number), "good") for number in range(count)]
