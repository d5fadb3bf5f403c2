"""The table by affair, by information and by kind of local government, and what the sources state of it."""

from collections import Counter
from datetime import date
from pathlib import Path

import pytest

from schemas.errors import Refusal
from schemas.items import layout, layouts
from schemas.law import KINDS, LawTable, load, table_at, tables, wordings
from schemas.law.information import former_names, information, layout_keys
from schemas.law.registry import (
    DESTINATIONS,
    Concern,
    Procedure,
    articles,
    businesses,
    by_affair,
    by_information,
    concern,
    figures,
    groups,
    inquirer_mark,
    local_governments,
    origin,
    procedures,
    provider_mark,
)

TABLE = table_at(date(2026, 7, 1))
CATEGORIES = ("prefecture", "designated_city", "core_city", "special_or_ordinary_city", "town_or_village")


# Kinds of information


@pytest.mark.req("R-399")
def test_every_name_of_the_tables_is_a_kind_of_information_with_the_number_that_the_sources_give() -> None:
    assert information().keys() == {
        name for table in tables() for row in table.rows for name in row.information
    }
    numbered = {known.number: name for name, known in information().items() if known.number}
    assert numbered == {
        "1": "住民票関係情報",
        "2": "地方税関係情報",
        "3": "児童手当関係情報",
        "4": "介護保険給付等関係情報",
        "31": "医療保険給付関係情報",
    }
    assert all(bool(known.number) == bool(known.source) for known in information().values())


@pytest.mark.req("R-413")
def test_the_former_name_of_information_is_kept() -> None:
    former = {
        known.name: [one.name for one in known.former if one.name != known.name]
        for known in information().values()
    }
    assert {name: names for name, names in former.items() if names} == {
        "児童手当関係情報": ["子どものための手当関係情報"],
        "介護保険給付等関係情報": ["介護保険給付関係情報"],
    }
    for one in former_names():
        if one.present:
            assert information()[one.present].number == one.number
        else:
            assert one.name not in information()


def test_information_is_tied_to_its_layouts_or_refused_with_a_code() -> None:
    assert layout_keys("地方税関係情報") == ("income_tax_certificate/1",)
    found = {name: layout_keys(name) for name in information()}
    tied = {key for keys in found.values() if not isinstance(keys, Refusal) for key in keys}
    assert tied == {one.key for one in layouts()}
    for name, keys in found.items():
        if isinstance(keys, Refusal):
            assert keys == Refusal("I-211", "information")
        else:
            assert {layout(key).information for key in keys} == {name}
    for unknown in ("", "地方税", "地方税関係情報、住民票関係情報", "介護保険給付関係情報"):
        assert layout_keys(unknown) == Refusal("I-213", "information")


# Views of the table


@pytest.mark.req("R-397")
def test_the_table_is_seen_by_affair_and_by_information_without_loss() -> None:
    affairs, names = by_affair(TABLE), by_information(TABLE)
    assert [line for lines in affairs.values() for line in lines] == list(TABLE.rows)
    assert list(affairs) == list(dict.fromkeys(line.row for line in TABLE.rows))
    pairs = Counter((name, line) for line in TABLE.rows for name in line.information)
    assert Counter((name, line) for name, lines in names.items() for line in lines) == pairs
    assert {line.affair for line in names["児童手当関係情報"]} >= {
        "公営住宅法による公営住宅の管理に関する事務"
    }


@pytest.mark.req("R-398")
@pytest.mark.parametrize(
    ("wording", "expected"),
    [  # the first four as EXP 6-2 shows them
        ("厚生労働大臣", ("×", "×")),
        ("全国健康保険協会", ("×", "×")),
        ("市町村長", ("×", "○")),
        ("都道府県知事等", ("○", "△")),
        ("都道府県知事", ("○", "×")),
        ("都道府県教育委員会又は市町村教育委員会", ("○", "○")),
        ("都道府県知事又は広島市長若しくは長崎市長", ("○", "△")),
        ("公営住宅法第二条第十六号に規定する事業主体である都道府県知事又は市町村長", ("△", "△")),
    ],
)
def test_each_line_says_whether_prefectures_or_municipalities_are_concerned(
    wording: str, expected: tuple[str, str]
) -> None:
    assert concern(wordings()[wording]) == Concern(*expected)


@pytest.mark.req("R-404")
def test_every_prefecture_and_municipality_is_of_one_kind_of_local_government() -> None:
    assert tuple(local_governments()) == CATEGORIES
    kinds = [kind for category in local_governments().values() for kind in category.kinds]
    heads = {
        name
        for name, kind in KINDS.items()
        if kind.level in ("prefecture", "municipality") and "board" not in name
    }
    assert sorted(kinds) == sorted(heads)


@pytest.mark.req("R-405")
@pytest.mark.parametrize(
    ("row", "marks"),
    [
        ("11", "◎○△××"),  # 里親: as LEC, material 2 marks it
        ("81", "◎◎◎◎△"),  # 都道府県知事等: of towns, those with a welfare office
        ("107", "×◎◎◎◎"),
        ("106", "△◎◎◎◎"),  # governors, as employers
        ("53", "△△△△△"),
        ("1", "×××××"),
        ("157", "×××××"),
    ],
)
def test_marks_say_by_which_law_a_kind_of_local_government_is_the_inquirer(row: str, marks: str) -> None:
    assert "".join(inquirer_mark(TABLE, row, category) or "×" for category in CATEGORIES) == marks


@pytest.mark.req("R-405")
@pytest.mark.parametrize(
    ("name", "marks"),
    [  # the first three as LEC, material 3 marks them
        ("住民票関係情報", "×◎◎◎◎"),
        ("地方税関係情報", "×◎◎◎◎"),
        ("医療保険給付関係情報", "×◎◎◎◎"),
        ("生活保護関係情報", "◎◎◎◎△"),
        ("戸籍関係情報", "×××××"),
    ],
)
def test_marks_say_which_kind_of_local_government_is_the_provider(name: str, marks: str) -> None:
    assert "".join(provider_mark(TABLE, name, category) or "×" for category in CATEGORIES) == marks


# What the sources state


@pytest.mark.req("R-400", "R-401", "R-402", "R-403")
def test_the_figures_of_the_sources_are_held_with_their_source_and_agree_with_each_other() -> None:
    value = {name: figure.value for name, figure in figures().items()}
    assert all(figure.source.startswith(("EXP", "LEC")) for figure in figures().values())
    assert [value[f"bill_cases_{name}"] for name in ("resident_record", "local_tax")] == [52, 53]
    assert [value[f"bill_cases_{name}"] for name in ("child_allowance", "care_insurance")] == [3, 17]
    assert (value["bill_last_row_by_affair"], value["bill_last_row_by_information"]) == (243, 355)
    # A row by information stands for one name, a row by affair for one or more.
    assert value["bill_last_row_by_affair"] < value["bill_last_row_by_information"]
    assert (value["table_1_affairs"], value["table_1_local"]) == (97, 43)
    group_a, group_b = value["table_2_group_a"], value["table_2_group_b"]
    assert (group_a, group_b, value["table_2_unrelated"]) == (52, 41, 26)
    assert group_a + group_b == value["table_2_local"] == 93
    assert value["table_2_local"] + value["table_2_unrelated"] == value["table_2_affairs"] == 119


@pytest.mark.req("R-403")
def test_the_table_of_today_is_counted_and_sorted_in_the_same_groups() -> None:
    sorted_rows = groups(TABLE)
    rows = [row for group in sorted_rows.values() for row in group]
    assert sorted(rows) == sorted({line.row for line in TABLE.rows} - {"157"})
    assert {"81", "106", "53", "13"} <= set(sorted_rows["A"])
    assert {"1", "2", "6"} <= set(sorted_rows["B"])  # group B in the source too
    assert {"10", "29-2"} <= set(sorted_rows["unrelated"])


@pytest.mark.req("R-434", "R-435", "R-436", "R-437")
def test_moved_rules_are_found_under_their_number_of_today() -> None:
    moved = {matter: (article.former, article.present) for matter, article in articles().items()}
    assert moved["network_provision"] == ("第19条第7号", "第19条第8号")
    assert moved["same_municipality_provision"] == ("第19条第9号", "第19条第11号")
    assert moved["assessment"] == ("第27条", "第28条")
    assert moved["provision_record_rules"] == ("第30条", "第31条")
    assert moved["network_administrator"][1].endswith("内閣総理大臣")
    assert moved["ordinance_task_provision"][1] == "第19条第9号"
    assert "令和六年デジタル庁・総務省令第九号" in moved["usable_information"][1]


@pytest.mark.req("R-406")
def test_affairs_and_information_are_tied_to_their_business() -> None:
    assert businesses()["information", "地方税関係情報"] == "個人住民税"
    assert businesses()["affair", "11"] == "養育里親名簿管理"
    for side, of in businesses():
        assert of in (by_affair(TABLE) if side == "affair" else information())


# Procedures


def folded(procedure: Procedure, table: LawTable) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in procedure.items:
        found.setdefault(origin(item, procedure, table), []).append(item.name_ja)
    return found


@pytest.mark.req("R-407")
def test_the_representative_procedures_are_tied_to_the_former_tables_and_to_the_rows_of_today() -> None:
    claim = procedures()["child_allowance_claim"]
    assert (claim.former_table_1, claim.former_table_2) == ("56", ("74", "75"))
    rearing = procedures()["child_rearing_allowance_claim"]
    assert (rearing.former_table_1, rearing.former_table_2) == ("37", ("57",))
    for procedure, law in ((claim, "児童手当法"), (rearing, "児童扶養手当法")):
        for row in procedure.rows:
            assert all(line.affair.startswith(law) for line in by_affair(TABLE)[row])
        assert len(procedure.steps) == len(set(procedure.steps)) > 1


@pytest.mark.req("R-411")
def test_a_procedure_is_valid_while_its_rows_are() -> None:
    for procedure in procedures().values():
        table = table_at(procedure.valid_from)
        assert table.in_force_from == procedure.valid_from <= procedure.valid_until
        assert all(table.lines(row) for row in procedure.rows)


@pytest.mark.req("R-408", "R-409", "R-410")
def test_the_sheet_of_a_procedure_says_where_each_thing_comes_from_and_its_numbers() -> None:
    claim = procedures()["child_allowance_claim"]
    assert [item.number for item in claim.items] == [str(number) for number in range(1, 14)]
    by_origin = {item.origin for item in claim.items}
    assert by_origin == {"registry_network", "national_network", "applicant", "issued"}
    assert by_origin - {"applicant", "issued"} <= set(DESTINATIONS)
    assert DESTINATIONS == ("inside", "registry_network", "national_network", "letter")
    numbered = {item.name_ja: item.serials.split()[0] for item in claim.items if item.serials}
    assert numbered == {"本人確認情報": "4500", "地方税関係情報": "4501", "年金給付関係情報": "4502"}
    for item in claim.items:
        assert bool(item.serials) == bool(item.controls)
        assert bool(item.serials) == (item.origin in DESTINATIONS)


@pytest.mark.req("R-438", "R-439")
def test_the_family_register_comes_over_the_network_and_its_certificate_is_deemed_handed_in() -> None:
    claim = procedures()["child_allowance_claim"]
    (certificate,) = (item for item in claim.items if item.name_ja == "戸籍謄本")
    assert certificate.origin == "applicant"
    assert origin(certificate, claim, TABLE) == "national_network"
    assert {line.provider for line in by_information(TABLE)["戸籍関係情報"]} == {"法務大臣"}
    assert wordings()["法務大臣"].kinds == {"minister_of_justice"}


@pytest.mark.req("R-412")
def test_what_the_law_does_not_name_falls_back_to_papers_from_the_resident(tmp_path: Path) -> None:
    """Under a law whose row 106 gives no tax information, the tax certificate is handed in on paper again."""
    files = {
        "versions.toml": '[[version]]\nid = "x"\nin_force_from = 2026-06-26\nfile = "t.tsv"\n',
        "wordings.tsv": "wording\tkinds\tcapacities\tcapable_kinds\tnote\n市町村長\tcity\t\t\t\n",
        "t.tsv": "row\tinquirer\taffair\tprovider\tinformation\tarticle\n"
        "106\t市町村長\t手当\t市町村長\t住民票関係情報\t108\n107\t市町村長\t手当\t市町村長\t年金給付関係情報\t109\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (narrow,) = load(tmp_path)
    claim = procedures()["child_allowance_claim"]
    before, after = folded(claim, TABLE), folded(claim, narrow)
    assert before["national_network"] == ["地方税関係情報", "年金給付関係情報", "戸籍謄本"]
    assert after["national_network"] == ["年金給付関係情報"]
    assert set(after["applicant"]) - set(before["applicant"]) == {"地方税関係情報", "戸籍謄本"}
    assert after["registry_network"] == before["registry_network"] == ["本人確認情報"]
