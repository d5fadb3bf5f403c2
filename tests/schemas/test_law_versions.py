"""An inquiry is judged by the law of its day, whenever the question is asked."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from schemas.errors import Refusal
from schemas.law import Agency, LawRow, LawTable, load, table_at, tables
from schemas.law.judgement import ORDINANCE, STATUTORY, judge
from schemas.law.ordinances import OrdinanceInquiry, Ordinances, read_ordinances

CITY = Agency("990019", "連携市", "city")
OTHER = Agency("990027", "見本市", "city")
PREFECTURE = Agency("990001", "見本県", "prefecture")
WORDINGS = """wording\tkinds\tcapacities\tcapable_kinds\tnote
市町村長\tcity town\t\t\t
都道府県知事\tprefecture\t\t\t
"""
HEADER = "row\tinquirer\taffair\tprovider\tinformation\tarticle\n"
VERSIONS = """[[version]]
id = "new"
in_force_from = 2026-10-01
file = "new.tsv"
entrusted = "entrusted.tsv"

[[version]]
id = "old"
in_force_from = 2026-04-01
file = "old.tsv"
"""
FILES = {
    "versions.toml": VERSIONS,
    "wordings.tsv": WORDINGS,
    "old.tsv": HEADER + "1\t市町村長\t手当の事務\t市町村長\t地方税関係情報、住民票関係情報\t3\n",
    "new.tsv": HEADER
    + "1\t市町村長\t手当の事務\t市町村長\t住民票関係情報\t3\n"
    + "2\t都道府県知事\t里親の事務\t市町村長\t地方税関係情報\t4\n",
    "entrusted.tsv": "row\tkind\tcapacity\tbasis\n2\tcity\tchild_guidance_centre_city\tある政令\n",
}
BEFORE, LAST_OF_OLD, FIRST_OF_NEW = date(2026, 3, 31), date(2026, 9, 30), date(2026, 10, 1)


def folder(place: Path, **changed: str) -> Path:
    for name, text in {**FILES, **changed}.items():
        (place / name).write_text(text, encoding="utf-8")
    return place


@pytest.fixture
def law(tmp_path: Path) -> tuple[LawTable, ...]:
    return load(folder(tmp_path))


@pytest.mark.req("R-411", "R-060")
def test_the_law_of_the_day_decides(law: tuple[LawTable, ...]) -> None:
    def outcome(day: date, information: str) -> str:
        found = judge(STATUTORY, CITY, OTHER, "1", information, day, law=law)
        return found.code if isinstance(found, Refusal) else found.row

    assert [table.version for table in law] == ["old", "new"]
    assert outcome(BEFORE, "地方税関係情報") == "L-104"
    assert outcome(LAST_OF_OLD, "地方税関係情報") == "1"
    assert outcome(FIRST_OF_NEW, "地方税関係情報") == "L-104"
    assert outcome(FIRST_OF_NEW, "住民票関係情報") == "1"


@pytest.mark.req("R-411")
def test_an_old_inquiry_comes_out_the_same_after_the_law_has_changed(tmp_path: Path) -> None:
    only_old = VERSIONS[VERSIONS.index('[[version]]\nid = "old"') :]
    then = load(folder(tmp_path, **{"versions.toml": only_old}))
    now = load(folder(tmp_path))
    questions = [
        (asking, asked, row, information, LAST_OF_OLD - timedelta(days=ago))
        for asking in (CITY, PREFECTURE)
        for asked in (OTHER, PREFECTURE)
        for row in ("1", "2")
        for information in ("地方税関係情報", "住民票関係情報")
        for ago in (0, 100, 400)
    ]

    def outcomes(law: tuple[LawTable, ...]) -> list[object]:
        return [judge(STATUTORY, *question, version="old", law=law) for question in questions]

    assert outcomes(then) == outcomes(now)
    assert any(isinstance(found, LawRow) for found in outcomes(now))


@pytest.mark.req("R-411")
def test_the_version_that_a_message_names_must_be_that_of_its_day(law: tuple[LawTable, ...]) -> None:
    for day, version in ((LAST_OF_OLD, "old"), (FIRST_OF_NEW, "new")):
        for named in ("old", "new", ""):
            found = judge(STATUTORY, CITY, OTHER, "1", "住民票関係情報", day, version=named, law=law)
            if named == version:
                assert isinstance(found, LawRow)
            else:
                assert found == Refusal("L-104", "law_version")


@pytest.mark.req("R-376", "R-411")
def test_an_ordinance_task_too_is_judged_by_the_law_of_its_day(law: tuple[LawTable, ...]) -> None:
    lines = "\n".join(
        (
            "use\t市長\tchild_medical\tmedical\t子ども医療費助成の事務\t条例第1号\t2026-04-01\t9999-12-31",
            "inquiry\t市長\tchild_medical\t1\t地方税関係情報\t規則第5号\t2026-04-01\t9999-12-31",
        )
    )
    own, faults = read_ordinances(CITY, lines, law)
    assert faults == ()

    def asked(day: date) -> LawRow | OrdinanceInquiry | Refusal:
        ordinances: dict[str, Ordinances] = {CITY.code: own}
        return judge(
            ORDINANCE, CITY, OTHER, "child_medical", "地方税関係情報", day, ordinances=ordinances, law=law
        )

    assert isinstance(asked(LAST_OF_OLD), OrdinanceInquiry)
    assert asked(FIRST_OF_NEW) == Refusal("L-113", "provider")


@pytest.mark.req("R-434")
def test_only_the_two_items_of_article_19_are_a_basis(law: tuple[LawTable, ...]) -> None:
    assert (STATUTORY, ORDINANCE) == ("19-8", "19-9")
    for basis in ("19-7", "19-11", "", "19-8 "):
        found = judge(basis, CITY, OTHER, "1", "住民票関係情報", LAST_OF_OLD, law=law)
        assert found == Refusal("L-104", "basis")


@pytest.mark.req("R-405")
def test_who_acts_in_the_place_of_the_inquirer_asks_from_the_version_that_knows_of_it(
    law: tuple[LawTable, ...],
) -> None:
    able = Agency("990019", "連携市", "city", frozenset({"child_guidance_centre_city"}))
    for asking, allowed in ((PREFECTURE, True), (able, True), (CITY, False)):
        found = judge(STATUTORY, asking, OTHER, "2", "地方税関係情報", FIRST_OF_NEW, law=law)
        assert isinstance(found, LawRow) == allowed


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("new.tsv", HEADER + "1\t村の長\tx\t市町村長\t住民票関係情報\t3\n", "村の長"),
        ("new.tsv", "row\tx\n", r"new\.tsv:1"),
        ("wordings.tsv", WORDINGS + "市町村長\tcity\t\t\t\n", "twice"),
        ("wordings.tsv", WORDINGS + "村長\tvillage\t\t\t\n", "unknown kind"),
        ("wordings.tsv", WORDINGS + "村長\t\tflying\ttown\t\n", "unknown kind or capacity"),
        ("entrusted.tsv", "row\tkind\tcapacity\tbasis\n2\tvillage\t\tx\n", "unknown kind"),
        ("versions.toml", VERSIONS.replace("2026-10-01", "2026-04-01"), "two of one id or day"),
        ("versions.toml", VERSIONS.replace('"new"', '"old"'), "two of one id or day"),
        ("versions.toml", "version = []\n", "no version"),
    ],
)
def test_a_folder_that_does_not_fit_is_not_loaded(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(folder(tmp_path, **{name: text}))


@pytest.mark.req("R-435")
def test_the_table_that_ships_is_the_ordinance_and_not_table_2_of_the_act() -> None:
    assert {table.version.split("_")[0] for table in tables()} == {"506M60004008009"}
    assert table_at(date(2026, 7, 1), tables()) is table_at(date(2026, 7, 1))
