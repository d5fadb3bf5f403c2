"""The law table: every line is read, every wording accounted for, and nothing outside it is permitted."""

from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.law import (
    CAPACITIES,
    KINDS,
    Agency,
    retention,
    retentions,
    split_information,
    table_at,
    tables,
    wordings,
)

FOLDER = Path(__file__).parents[2] / "schemas/law"
TABLE = table_at(date(2026, 7, 1))
CITY = Agency("990019", "連携市", "city")
OTHER_CITY = Agency("990027", "見本市", "city")
PREFECTURE = Agency("990001", "見本県", "prefecture")
MUNICIPALITIES = (
    "designated_city",
    "city_with_health_centre",
    "city",
    "special_ward",
    "town_with_welfare_office",
    "town",
)


def agency(kind: str) -> Agency:
    return Agency("000000", KINDS[kind].name_ja, kind)


def kinds_permitted(row: str, information: str, provider: Agency) -> set[str]:
    return {kind for kind in KINDS if TABLE.permits(agency(kind), provider, row, information)}


@pytest.mark.req("R-064")
def test_every_line_of_the_table_is_read_without_loss() -> None:
    lines = (FOLDER / "provision-table.tsv").read_text(encoding="utf-8").splitlines()[1:]
    assert len(lines) == 512
    written = [
        "\t".join(
            (row.row, row.inquirer, row.affair, row.provider, "、".join(row.information) or "-", row.article)
        )
        for row in TABLE.rows
    ]
    assert written == lines
    assert len({row.row for row in TABLE.rows}) == 197


def test_only_the_known_cells_stay_whole_although_they_hold_a_comma() -> None:
    whole = [row.row for row in TABLE.rows if any("、" in name for name in row.information)]
    assert whole == [
        "14",
        "18",
        "20",
        "37",
        "42",
        "42",
        "55-2",
        "58",
        "80",
        "81",
        "95",
        "125",
        "125",
        "161",
        "161",
    ]


def test_information_is_split_only_where_every_piece_is_a_name() -> None:
    assert split_information("地方税関係情報、住民票関係情報") == ("地方税関係情報", "住民票関係情報")
    assert split_information("手帳、医療に関する情報") == ("手帳、医療に関する情報",)


@pytest.mark.req("R-064")
def test_the_wordings_are_exactly_those_of_the_tables() -> None:
    used = {wording for table in tables() for row in table.rows for wording in (row.inquirer, row.provider)}
    assert wordings().keys() == used


@pytest.mark.req("R-064")
def test_every_wording_covers_somebody_and_says_where_it_asks_for_a_capacity() -> None:
    for wording in wordings().values():
        if wording.text == "-":
            assert not wording.kinds | wording.capable
            assert "削除" in wording.note
        elif wording.capable:
            start = "with the capacity: " if wording.kinds else "only with the capacity: "
            assert wording.note.startswith(start), wording.text
        else:
            assert wording.kinds, wording.text
            assert wording.note == "", wording.text


def test_every_kind_and_capacity_occurs_in_the_tables() -> None:
    entrusted = [wording for table in tables() for wording in table.entrusted.values()]
    everyone = [*wordings().values(), *entrusted]
    named = {kind for wording in everyone for kind in wording.kinds}
    able = {pair for wording in everyone for pair in wording.capable}
    assert named | {kind for kind, _ in able} == set(KINDS)
    assert {capacity for _, capacity in able} == set(CAPACITIES)


@pytest.mark.req("R-060", "R-064")
def test_a_capacity_lets_only_those_ask_of_whom_it_is_a_fact() -> None:
    """Row 128: governors ask, and of the mayors those of Hiroshima and Nagasaki, not each of a like city."""
    cities = ("designated_city", "city_with_health_centre")
    holding = [Agency("990019", "連携市", kind, frozenset({"hiroshima_or_nagasaki"})) for kind in cities]
    for asking in (PREFECTURE, *holding):
        assert TABLE.permits(asking, CITY, "128", "介護保険給付等関係情報") is not None
    town = Agency("990019", "連携町", "town", frozenset({"hiroshima_or_nagasaki"}))
    for asking in (town, *(agency(kind) for kind in (*cities, "city", "town"))):
        assert TABLE.permits(asking, CITY, "128", "介護保険給付等関係情報") is None


@pytest.mark.req("R-060")
def test_one_capacity_is_not_another() -> None:
    housing = Agency("990019", "連携市", "city", frozenset({"public_housing_operator"}))
    assert TABLE.permits(housing, OTHER_CITY, "53", "地方税関係情報") is not None
    assert TABLE.permits(housing, OTHER_CITY, "76", "地方税関係情報") is None
    assert TABLE.permits(CITY, OTHER_CITY, "53", "地方税関係情報") is None


def test_a_wording_that_names_a_kind_covers_it() -> None:
    """Where the Japanese name of a body stands alone in the table, it means that body and no other."""
    for kind in KINDS.values():
        if kind.name_ja in wordings():
            assert wordings()[kind.name_ja].kinds == {kind.kind}


@pytest.mark.req("R-060", "R-064")
def test_row_81_lets_a_city_ask_a_city_for_tax_information() -> None:
    line = TABLE.permits(CITY, OTHER_CITY, "81", "地方税関係情報")
    assert line is not None
    assert line.affair == "児童扶養手当法による児童扶養手当の支給に関する事務"
    assert (line.inquirer, line.provider, line.article) == ("都道府県知事等", "市町村長", "83")


@pytest.mark.req("R-060")
@pytest.mark.parametrize(
    ("provider", "row", "information"),
    [
        (OTHER_CITY, "81", "医療保険給付関係情報"),
        (PREFECTURE, "81", "地方税関係情報"),
        (OTHER_CITY, "81", "地方税関係情報、住民票関係情報"),
        (OTHER_CITY, "81", ""),
        (OTHER_CITY, "81-2", "地方税関係情報"),
        (OTHER_CITY, "", "地方税関係情報"),
    ],
)
def test_what_the_table_does_not_say_is_refused(provider: Agency, row: str, information: str) -> None:
    assert TABLE.permits(CITY, provider, row, information) is None


@pytest.mark.req("R-060")
def test_governors_and_the_like_include_towns_only_with_a_welfare_office() -> None:
    assert kinds_permitted("81", "地方税関係情報", OTHER_CITY) == {
        "prefecture",
        *MUNICIPALITIES,
    } - {"town"}


@pytest.mark.req("R-060")
def test_every_municipality_can_be_asked_as_a_mayor() -> None:
    permitted = {kind for kind in KINDS if TABLE.permits(CITY, agency(kind), "81", "地方税関係情報")}
    assert permitted == set(MUNICIPALITIES)


def test_each_part_of_a_joint_wording_is_covered() -> None:
    pension = {
        kind
        for kind in KINDS
        if TABLE.permits(agency("japan_health_insurance_association"), agency(kind), "2", "年金給付関係情報")
    }
    assert pension == {
        "minister_of_health_labour_welfare",
        "japan_pension_service",
        "private_school_mutual_aid_corporation",
        "national_public_service_mutual_aid_federation",
        "local_public_service_mutual_aid",
        "municipal_mutual_aid_federation",
    }


def test_a_body_named_alone_and_jointly_in_one_row_is_found_under_either_line() -> None:
    inquirer, minister = (
        agency("japan_health_insurance_association"),
        agency("minister_of_health_labour_welfare"),
    )
    jointly = TABLE.permits(inquirer, minister, "2", "年金給付関係情報")
    alone = TABLE.permits(inquirer, minister, "2", "失業等給付関係情報")
    assert jointly is not None
    assert alone is not None
    assert (jointly.provider, alone.provider) == (
        "厚生労働大臣若しくは日本年金機構又は共済組合等",
        "厚生労働大臣",
    )


def test_a_deleted_row_never_permits() -> None:
    assert [row.row for row in TABLE.rows if not row.information] == ["157"]
    for kind in KINDS:
        assert TABLE.permits(agency(kind), agency(kind), "157", "-") is None


@pytest.mark.req("R-060", "R-064")
def test_every_line_permits_every_pair_of_agencies_that_its_wordings_cover() -> None:
    for row in TABLE.rows:
        for inquirer in wordings()[row.inquirer].kinds:
            for provider in wordings()[row.provider].kinds:
                for name in row.information:
                    line = TABLE.permits(agency(inquirer), agency(provider), row.row, name)
                    assert line is not None
                    assert (line.row, line.inquirer, line.affair) == (row.row, row.inquirer, row.affair)


@pytest.mark.req("R-060", "R-064")
@given(st.data())
def test_a_permit_always_rests_on_a_line_that_says_so(data: st.DataObject) -> None:
    drawn = data.draw(st.sampled_from(TABLE.rows))
    inquirer = data.draw(st.sampled_from(sorted(KINDS)))
    provider = data.draw(st.sampled_from(sorted(wordings()[drawn.provider].kinds) or sorted(KINDS)))
    name = data.draw(st.sampled_from(drawn.information or TABLE.rows[0].information))
    line = TABLE.permits(agency(inquirer), agency(provider), drawn.row, name)
    if line is not None:
        assert line in TABLE.rows
        assert line.row == drawn.row
        assert name in line.information
        assert TABLE.asks(agency(inquirer), line)
        assert provider in wordings()[line.provider].kinds


def test_the_table_in_force_follows_the_day() -> None:
    first = tables()[0]
    assert first.version == "506M60004008009_20260626_508M60004008019"
    assert table_at(date(2026, 6, 26)) is first
    assert table_at(date(2030, 1, 1)) is tables()[-1]
    with pytest.raises(ValueError, match="2026-06-25"):
        table_at(first.in_force_from - timedelta(days=1))


def test_an_agency_of_unknown_kind_or_capacity_is_an_error() -> None:
    with pytest.raises(ValueError, match="village_shop"):
        Agency("990019", "連携市", "village_shop")
    with pytest.raises(ValueError, match="flying"):
        Agency("990019", "連携市", "city", frozenset({"flying"}))


@pytest.mark.req("R-152")
def test_provision_records_are_kept_for_seven_years_by_law() -> None:
    assert retention("provision_record").years == 7
    assert "施行令第30条" in retention("provision_record").basis


def test_a_period_that_is_not_law_says_so() -> None:
    policy = {"linkage_log", "code_mapping", "reference_data", "addressing", "staff", "notice"}
    classes = {"provision_record", *policy}
    assert retentions().keys() == classes
    for name in policy:
        assert "policy, not law" in retention(name).basis
        assert retention(name).years > 0
    with pytest.raises(ValueError, match="no such retention class"):
        retention("diary")
