"""The error catalogue speaks to officers, and the code knows no other codes."""

import re
from pathlib import Path

import pytest

from schemas.errors import ACTORS, CatalogueEntry, Refusal, Refused, codes, entry

ROOT = Path(__file__).parents[2]
CODE = re.compile(r"\b[BILNJAS]-[0-9]{3}\b")
JAPANESE = re.compile("[\u3041-\u309f]")


@pytest.mark.parametrize("code", codes())
def test_an_entry_says_what_why_who_and_what_next_in_both_languages(code: str) -> None:
    found = entry(code)
    assert CODE.fullmatch(found.code)
    assert found.actor in ACTORS
    for text in (found.cause_ja, found.next_ja):
        assert JAPANESE.search(text)
        assert text.endswith("。")
    for text in (found.cause_en, found.next_en):
        assert text.isascii()
        assert text.endswith(".")


def test_nobody_acts_exactly_where_the_next_step_says_so() -> None:
    for code in codes():
        says_nobody = entry(code).next_ja.startswith("対応は不要です。")
        assert says_nobody == (entry(code).actor == "nobody"), code


def test_codes_stand_in_the_catalogue_once() -> None:
    lines = (ROOT / "schemas/errors/catalogue.tsv").read_text(encoding="utf-8").splitlines()
    written = [line.split("\t")[0] for line in lines if CODE.match(line)]
    assert sorted(written) == sorted(set(written))
    assert tuple(written) == codes()


def test_every_code_mentioned_in_the_source_is_in_the_catalogue() -> None:
    mentioned = {
        (str(path.relative_to(ROOT)), code)
        for floor in ("schemas", "broker", "adapters", "ops")
        for path in (ROOT / floor).rglob("*")
        if path.suffix in (".py", ".html")
        for code in CODE.findall(path.read_text(encoding="utf-8"))
    }
    assert ("schemas/items/__init__.py", "B-012") in mentioned
    assert {(path, code) for path, code in mentioned if code not in codes()} == set()


def test_every_code_of_the_catalogue_is_given_by_the_product() -> None:
    """A code that nothing gives would be a promise to officers that nobody keeps."""
    given = {
        code
        for floor in ("schemas", "broker", "adapters", "ops")
        for path in (ROOT / floor).rglob("*.py")
        for code in CODE.findall(path.read_text(encoding="utf-8"))
    }
    assert sorted(set(codes()) - given) == []


def test_the_held_answer_does_not_tell_the_inquirer_why_it_is_held() -> None:
    """A protected person must not be recognisable from the fact that an answer waits or is refused."""
    for code in ("I-203", "I-205"):
        found = entry(code)
        text = found.cause_ja + found.next_ja + found.cause_en + found.next_en
        assert not re.search("DV|保護|暴力|避難|protect|violence", text)


def test_an_unknown_code_is_refused_everywhere() -> None:
    with pytest.raises(ValueError, match="X-999"):
        entry("X-999")
    with pytest.raises(ValueError, match="X-999"):
        Refusal("X-999")
    with pytest.raises(ValueError, match="somebody"):
        CatalogueEntry("B-001", "somebody", "", "", "", "")


def test_a_refusal_travels_as_a_value_or_as_an_exception() -> None:
    refusal = Refusal("B-004", "total_income")
    assert refusal == Refusal("B-004", "total_income")
    with pytest.raises(Refused, match=r"^B-004 total_income$") as caught:
        raise Refused(refusal)
    assert caught.value.refusal is refusal
