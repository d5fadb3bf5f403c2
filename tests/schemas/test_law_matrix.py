"""The whole law table, cell by cell: allowed exactly where the law says so, refused with a code elsewhere.

What is expected is worked out here from the words of the table alone: its lines are split again, and the
Japanese of each wording is taken apart into the bodies that it names. Nothing of schemas.law helps with that.
"""

import re
from collections.abc import Iterator
from datetime import date
from itertools import product
from pathlib import Path

import pytest

from schemas.errors import Refusal
from schemas.law import CAPACITIES, KINDS, Agency, LawRow, table_at, wordings
from schemas.law.judgement import STATUTORY, judge

DAY = date(2026, 7, 1)
LINES = [
    line.split("\t")
    for line in (Path(__file__).parents[2] / "schemas/law/provision-table.tsv")
    .read_text(encoding="utf-8")
    .splitlines()[1:]
]
ANYBODY = frozenset(KINDS)
Bodies = frozenset[tuple[str, str]]  # (kind, capacity that is asked for, or "")

# fmt: off
WITH_WELFARE_OFFICE = {
    "designated_city", "city_with_health_centre", "city", "special_ward", "town_with_welfare_office"
}
MAYORS = WITH_WELFARE_OFFICE | {"town"}
HEALTH_CENTRE = {"designated_city", "city_with_health_centre", "special_ward"}
MUTUAL_AID = {
    "private_school_mutual_aid_corporation", "national_public_service_mutual_aid_federation",
    "local_public_service_mutual_aid", "municipal_mutual_aid_federation",
}  # 共済組合等, row 1
INSURERS = {
    "japan_health_insurance_association", "health_insurance_society", "private_school_mutual_aid_corporation",
    "national_public_service_mutual_aid", "local_public_service_mutual_aid", *MAYORS,
    "national_health_insurance_society",
}  # 医療保険者, row 2
HEADS = {
    "prime_minister", "minister_of_internal_affairs", "minister_of_justice", "minister_of_education",
    "minister_of_health_labour_welfare", "minister_of_agriculture", "minister_of_economy", "minister_of_land",
    "minister_of_environment", "immigration_services_agency", "national_tax_agency",
    "nuclear_regulation_authority", "administrative_organ",
}  # 行政機関の長
LOCAL_ORGANS = {
    "prefecture", *MAYORS, "prefectural_board_of_education", "municipal_board_of_education",
    "local_government_organ",
}
CORPORATIONS = {
    "japan_pension_service", "private_school_mutual_aid_corporation", "farmers_pension_fund",
    "student_services_organization", "incorporated_administrative_agency",
    "local_incorporated_administrative_agency",
}  # 独立行政法人等、地方独立行政法人
BODIES = {
    "厚生労働大臣": {"minister_of_health_labour_welfare"}, "総務大臣": {"minister_of_internal_affairs"},
    "国土交通大臣": {"minister_of_land"}, "農林水産大臣": {"minister_of_agriculture"},
    "法務大臣": {"minister_of_justice"}, "文部科学大臣": {"minister_of_education"},
    "環境大臣": {"minister_of_environment"}, "経済産業大臣": {"minister_of_economy"},
    "内閣総理大臣": {"prime_minister"}, "国税庁長官": {"national_tax_agency"},
    "出入国在留管理庁長官": {"immigration_services_agency"}, "海難審判所長": {"marine_accident_tribunal"},
    "原子力規制委員会": {"nuclear_regulation_authority"}, "日本年金機構": {"japan_pension_service"},
    "全国健康保険協会": {"japan_health_insurance_association"}, "健康保険組合": {"health_insurance_society"},
    "国民健康保険組合": {"national_health_insurance_society"},
    "後期高齢者医療広域連合": {"late_elderly_medical_union"},
    "日本私立学校振興・共済事業団": {"private_school_mutual_aid_corporation"},
    "国家公務員共済組合": {"national_public_service_mutual_aid"},
    "国家公務員共済組合連合会": {"national_public_service_mutual_aid_federation"},
    "地方公務員共済組合": {"local_public_service_mutual_aid"},
    "全国市町村職員共済組合連合会": {"municipal_mutual_aid_federation"},
    "農林漁業団体職員共済組合": {"agriculture_forestry_fishery_mutual_aid"},
    "存続組合": {"surviving_mutual_aid_1996"}, "指定基金": {"designated_fund_1996"},
    "独立行政法人農業者年金基金": {"farmers_pension_fund"},
    "独立行政法人日本学生支援機構": {"student_services_organization"},
    "地方公務員災害補償基金": {"local_accident_compensation_fund"},
    "日本公認会計士協会": {"certified_public_accountants_institute"},
    "日本税理士会連合会": {"tax_accountants_federation"},
    "日本行政書士会連合会": {"administrative_scriveners_federation"},
    "全国社会保険労務士会連合会": {"social_insurance_attorneys_federation"},
    "都道府県知事": {"prefecture"}, "市町村長": MAYORS,
    "都道府県知事等": {"prefecture", *WITH_WELFARE_OFFICE},
    "保健所を設置する市（特別区を含む。）の長": HEALTH_CENTRE,
    "都道府県教育委員会": {"prefectural_board_of_education"},
    "市町村教育委員会": {"municipal_board_of_education"}, "共済組合等": MUTUAL_AID, "医療保険者": INSURERS,
}
GOVERNMENTS = {"prefecture", *MAYORS}
# A beginning of a wording that asks for a fact about the single agency, the fact, and of whom it may be one.
FACTS = {
    "児童福祉法第十八条の二十七第一項に規定する認定地方公共団体": ("certified_local_government", GOVERNMENTS),
    "通訳案内士法第五十四条第三項の同意を得た": ("guide_interpreter_consent", GOVERNMENTS),
    "公営住宅法第二条第十六号に規定する事業主体である": ("public_housing_operator", GOVERNMENTS),
    "住宅地区改良法第二条第二項に規定する施行者である": ("housing_improvement_executor", GOVERNMENTS),
    "特定優良賃貸住宅の供給の促進に関する法律第十八条": ("specified_rental_housing_manager", GOVERNMENTS),
    "地域優良賃貸住宅制度要綱": ("regional_rental_housing_supplier", GOVERNMENTS),
    "令和七年法律第二十九号附則第十四条に規定する特区": ("special_zone_local_government", GOVERNMENTS),
    "公的給付の支給等の迅速かつ確実な実施": (
        "designated_benefit_payer", HEADS | LOCAL_ORGANS | CORPORATIONS | {"late_elderly_medical_union"}
    ),
    "健康保険法第五十五条": ("payer_health_insurance_55", ANYBODY),
    "船員保険法第三十三条": ("payer_seafarers_insurance_33", ANYBODY),
    "国民年金法その他の法令による年金である": ("payer_statutory_pension", ANYBODY),
    "国民年金法その他の法令による給付": ("payer_statutory_benefit", ANYBODY),
    "児童福祉法第十九条の七": ("payer_child_welfare_19_7", ANYBODY),
    "児童福祉法第二十一条の五の三十一": ("payer_child_welfare_21_5_31", ANYBODY),
    "児童福祉法第二十四条の二十二": ("payer_child_welfare_24_22", ANYBODY),
    "特別児童扶養手当等の支給に関する法律その他の法令による給付": ("payer_special_child_allowance", ANYBODY),
    "特別児童扶養手当等の支給に関する法律その他の法令による障害": ("payer_disability_allowance", ANYBODY),
    "精神保健及び精神障害者福祉に関する法律": ("payer_mental_health_30_2", ANYBODY),
    "国民健康保険法第五十六条": ("payer_national_health_insurance_56", ANYBODY),
    "児童扶養手当法第三条第二項": ("payer_public_pension_3_2", ANYBODY),
    "雇用保険法第三十七条": ("payer_employment_insurance_37_8", ANYBODY),
    "高齢者の医療の確保に関する法律": ("payer_elderly_medical_care_57", ANYBODY),
    "昭和六十年法律第三十四号": ("payer_welfare_allowance_97", ANYBODY),
    "介護保険法第二十条": ("payer_care_insurance_20", ANYBODY),
    "感染症の予防及び感染症の患者に対する医療": ("payer_infectious_diseases_39", ANYBODY),
    "障害者の日常生活及び社会生活を総合的に支援する": ("payer_disability_support_7", ANYBODY),
    "難病の患者に対する医療等": ("payer_intractable_disease_12", ANYBODY),
}
# What stands beside other bodies in one wording.
BESIDE = {
    "広島市長若しくは長崎市長": ("hiroshima_or_nagasaki", {"designated_city", "city_with_health_centre"}),
    "（児童手当法第十七条第一項の表の下欄に掲げる者を含む。）": (
        "child_allowance_employer", HEADS | LOCAL_ORGANS
    ),
    "その他の法令による医療に関する給付の支給を行うこととされている者": (
        "payer_statutory_medical_benefit", ANYBODY
    ),
    "又は第百二十八条に規定する他の法令": ("payer_health_insurance_128", ANYBODY),
}
# fmt: on
# The one row for which the sources name who acts in the place of the governor (LEC, material 2).
IN_PLACE = {
    "11": frozenset({("designated_city", ""), ("city_with_health_centre", "child_guidance_centre_city")})
}


def bodies(wording: str) -> Bodies:
    """Whom a wording names, worked out from its Japanese."""
    if wording == "-":
        return frozenset()
    found: set[tuple[str, str]] = set()
    for phrase, (capacity, kinds) in BESIDE.items():
        if phrase in wording:
            found |= {(kind, capacity) for kind in kinds}
            wording = wording.replace("又は" + phrase, "").replace(phrase, "")
    for phrase, (capacity, kinds) in FACTS.items():
        if wording.startswith(phrase):
            return frozenset(found | {(kind, capacity) for kind in kinds})
    wording = re.sub("平成八年法律第八十二号附則第(三十二|四十八)条第[一二]項に規定する", "", wording)
    for name in re.split("若しくは|又は|、", wording):
        found |= {(kind, "") for kind in BODIES[name]}
    return frozenset(found)


def names(cell: str) -> list[str]:
    pieces = cell.split("、")
    return pieces if all(re.search("情報$", piece) for piece in pieces) else [cell]


def rows() -> Iterator[tuple[str, dict[str, list[tuple[Bodies, Bodies]]]]]:
    """By row: by name of information, who may ask whom."""
    by_row: dict[str, dict[str, list[tuple[Bodies, Bodies]]]] = {}
    for row, inquirer, _, provider, cell, _ in LINES:
        asking = bodies(inquirer) | (IN_PLACE.get(row, frozenset()))
        for name in names(cell) if row != "157" else ():
            by_row.setdefault(row, {}).setdefault(name, []).append((asking, bodies(provider)))
        by_row.setdefault(row, {})
    yield from by_row.items()


PLAIN = {kind: Agency(f"plain:{kind}", kind, kind) for kind in KINDS}
ABLE = {
    (kind, capacity): Agency(f"{capacity}:{kind}", kind, kind, frozenset({capacity}))
    for kind, capacity in product(KINDS, CAPACITIES)
}
EVERY_NAME = sorted({name for line in LINES if line[0] != "157" for name in names(line[4])})


def allowed(inquirer: Agency, provider: Agency, row: str, name: str) -> bool:
    found = judge(STATUTORY, inquirer, provider, row, name, DAY)
    if isinstance(found, LawRow):
        assert found.row == row
        assert name in found.information
        return True
    assert found == Refusal("L-104")
    return False


def covers(named: Bodies, agency: Agency) -> bool:
    return (agency.kind, "") in named or any((agency.kind, c) in named for c in agency.capacities)


@pytest.mark.req("R-060", "R-064")
def test_every_wording_means_what_its_words_say() -> None:
    texts = {text for line in LINES for text in (line[1], line[3]) if line[0] != "157"}
    for text in texts:
        named = bodies(text)
        alone = {kind for kind, capacity in named if not capacity}
        assert wordings()[text].kinds == alone, text
        # Whoever is named without more needs no capacity.
        assert wordings()[text].capable == {(k, c) for k, c in named if c and k not in alone}, text


@pytest.mark.req("R-060", "R-064")
def test_every_kind_asks_every_kind_under_every_row() -> None:
    """197 rows; all kinds ask all kinds, for all information of the row and some that is not in it."""
    permitted = refused = 0
    for number, (row, by_name) in enumerate(rows()):
        strange = [name for name in EVERY_NAME if name not in by_name]
        for name in (*by_name, strange[number % len(strange)], "-"):
            expected = {
                (inquirer.kind, provider.kind)
                for asking, providing in by_name.get(name, ())
                for inquirer in PLAIN.values()
                for provider in PLAIN.values()
                if covers(asking, inquirer) and covers(providing, provider)
            }
            found = {
                (inquirer.kind, provider.kind)
                for inquirer in PLAIN.values()
                for provider in PLAIN.values()
                if allowed(inquirer, provider, row, name)
            }
            assert found == expected, (row, name)
            permitted += len(found)
            refused += len(PLAIN) ** 2 - len(found)
    assert permitted > 5_000
    assert refused > 1_000_000


def somebody(named: Bodies) -> Agency:
    kind, capacity = min(named)
    return ABLE[kind, capacity] if capacity else PLAIN[kind]


@pytest.mark.req("R-060", "R-064")
def test_every_capacity_opens_exactly_the_lines_that_ask_for_it() -> None:
    """Every kind with every single capacity, once as inquirer and once as provider of every line."""
    opened: set[str] = set()
    for row, by_name in rows():
        # Names with the same parties stand in one cell; one of them is enough here.
        for pairs, name in {tuple(pairs): name for name, pairs in by_name.items()}.items():
            asking, providing = pairs[0]
            inquirer, provider = somebody(asking), somebody(providing)
            for agency in ABLE.values():
                may_ask = any(covers(a, agency) and covers(p, provider) for a, p in pairs)
                assert allowed(agency, provider, row, name) == may_ask, (row, name, agency)
                may_give = any(covers(a, inquirer) and covers(p, agency) for a, p in pairs)
                assert allowed(inquirer, agency, row, name) == may_give, (row, name, agency)
                plain = PLAIN[agency.kind]
                if (may_ask or may_give) and not any(covers(a | p, plain) for a, p in pairs):
                    opened |= agency.capacities
    assert opened == set(CAPACITIES)


@pytest.mark.req("R-064")
def test_every_row_but_the_deleted_one_lets_somebody_ask() -> None:
    usable = [
        row
        for row, by_name in rows()
        if all(a and p for pairs in by_name.values() for a, p in pairs) and by_name
    ]
    assert len(usable) == 196
    assert [row for row, by_name in rows() if not by_name] == ["157"]
    assert {line.row for line in table_at(DAY).rows} == {row for row, _ in rows()}
    for row in ("157", "174", "0", "", "１"):
        for inquirer, provider in product(PLAIN.values(), repeat=2):
            assert judge(STATUTORY, inquirer, provider, row, "-", DAY) == Refusal("L-104")
