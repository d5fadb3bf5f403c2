"""A fictional population and the files that its municipalities' business systems would write.

Everything is drawn from `random.Random` with the given seed: the same arguments give the same people. All
names are invented by combining common kanji with their readings, and towns likewise; some characters are
there because they go wrong easily in cp932 (second byte 0x5C as in 十 and 能, IBM extensions as in 髙).
Numbers have right check digits, are drawn at random and mean nobody.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from random import Random

from stdnum.jp import in_

from adapters.business.files import write_inquiries, write_residents, write_staff
from adapters.business.income import LAYOUT, write_income
from adapters.business.output import write_csv
from adapters.business.records import ErrorLine, ReplicaRecord, ResidentRecord
from schemas import codes
from schemas.law import tables
from schemas.law.information import information

__all__ = [
    "REGISTER_HEADER",
    "Person",
    "assessments_of",
    "income_of",
    "make_people",
    "residents_of",
    "write_income",
    "write_inquiries",
    "write_register",
    "write_residents",
    "write_staff",
]

REGISTER_HEADER = ("resident_record_code", "individual_number")


def _pieces(text: str) -> tuple[tuple[str, str], ...]:
    """Pairs of one kanji and its reading."""
    return tuple((word[0], word[1:]) for word in text.split())


_SURNAME_STARTS = _pieces(
    "山ヤマ 石イシ 森モリ 松マツ 竹タケ 青アオ 白シラ 桜サクラ 大オオ 小コ 西ニシ 髙タカ 表オモテ"
)
_SURNAME_ENDS = _pieces("川カワ 村ムラ 原ハラ 野ノ 島シマ 沢サワ 崎サキ 﨑サキ 谷タニ 浦ウラ 宮ミヤ")
_GIVEN_STARTS = _pieces("和カズ 正マサ 明アキ 春ハル 夏ナツ 千チ 真マ 能ヨシ 十ト 美ミ 光ミツ 友トモ")
_GIVEN_ENDS = {
    "1": _pieces("男オ 彦ヒコ 也ヤ 人ト 太タ 樹キ"),
    "2": _pieces("子コ 美ミ 代ヨ 恵エ 奈ナ 穂ホ"),
}
_TOWN_STARTS = ("青葉", "若草", "十和", "緑野", "朝日", "能里", "表", "春日野")
_TOWN_ENDS = ("町", "台", "新田")
_FULL_WIDTH_DIGITS = str.maketrans("0123456789", "０１２３４５６７８９")

_FIRST_BIRTH, _LAST_BIRTH = date(1930, 1, 1).toordinal(), date(2025, 12, 31).toordinal()
_PROTECTED_SHARE = 0.005
_PER_CAPITA_LEVY = 3_000
_PREFECTURAL_PER_CAPITA_LEVY = 1_000
_BASIC_DEDUCTION = 430_000

# Share of people who have the item at all, and the range of it in yen. Incomes below zero are losses.
_RARE_AMOUNTS = {
    "exempt_beef_cattle_income": (0.005, 300_000, 4_000_000),
    "separate_short_term_land_income": (0.005, -3_000_000, 9_000_000),
    "separate_short_term_transfer_income": (0.01, -5_000_000, 20_000_000),
    "separate_long_term_transfer_income": (0.03, -5_000_000, 40_000_000),
    "forestry_income": (0.005, -500_000, 3_000_000),
    "separate_retirement_income": (0.02, 100_000, 15_000_000),
    "futures_income": (0.02, -4_000_000, 4_000_000),
    "treaty_interest_income": (0.005, 1_000, 500_000),
    "treaty_dividend_income": (0.005, 1_000, 500_000),
    "casualty_loss_deduction": (0.005, 50_000, 2_000_000),
    "medical_expense_deduction": (0.15, 1_000, 2_000_000),
    "small_enterprise_mutual_aid_deduction": (0.08, 60_000, 840_000),
    "life_insurance_deduction": (0.6, 1_000, 70_000),
    "special_spouse_deduction": (0.07, 10_000, 330_000),
}


@dataclass(frozen=True)
class Person:
    """What is true of a person in every municipality. `sex` is 1 (男) or 2 (女), `birth_date` YYYY-MM-DD."""

    individual_number: str
    resident_record_code: str
    name: str
    kana: str
    birth_date: str
    sex: str


def _random(*parts: object) -> Random:
    """A generator of its own for each purpose, so that drawing for one never shifts another."""
    return Random("/".join(map(str, parts)))  # noqa: S311 - test data has to be repeatable, not secret


def _individual_number(digits: int) -> str:
    text = f"{digits:011d}"
    return text + in_.calc_check_digit(text)


def make_people(seed: int, count: int) -> list[Person]:
    """`count` people with individual numbers and resident record codes that no two of them share.

    The formula of a resident record code's check digit is not public; its 11 digits are all random.
    """
    rng = _random("people", seed)
    numbers = rng.sample(range(10**11), count)
    record_codes = rng.sample(range(10**11), count)
    return [_person(rng, *pair) for pair in zip(numbers, record_codes, strict=True)]


def _person(rng: Random, number: int, record_code: int) -> Person:
    sex = rng.choice("12")
    pieces = (_SURNAME_STARTS, _SURNAME_ENDS, _GIVEN_STARTS, _GIVEN_ENDS[sex])
    kanji, kana = zip(*map(rng.choice, pieces), strict=True)
    return Person(
        _individual_number(number),
        f"{record_code:011d}",
        f"{kanji[0]}{kanji[1]}\u3000{kanji[2]}{kanji[3]}",
        f"{kana[0]}{kana[1]}\u3000{kana[2]}{kana[3]}",
        date.fromordinal(rng.randint(_FIRST_BIRTH, _LAST_BIRTH)).isoformat(),
        sex,
    )


def residents_of(
    people: Sequence[Person], municipality_code: str, city_name: str, seed: int
) -> list[ResidentRecord]:
    """`people` as residents of one municipality, in their order, under its own integrated numbers (R-242)."""
    rng = _random("residents", municipality_code, seed)
    integrated_numbers: list[str] = []
    serial = rng.randrange(1, 10**13)
    while len(integrated_numbers) < len(people):
        if (number := codes.integrated_number(serial)) is not None:
            integrated_numbers.append(number)
        serial += 1
    rng.shuffle(integrated_numbers)
    return [
        ResidentRecord(
            number,
            person.individual_number,
            person.name,
            person.kana,
            person.birth_date,
            person.sex,
            city_name + _street(rng),
            protected=rng.random() < _PROTECTED_SHARE,
        )
        for number, person in zip(integrated_numbers, people, strict=True)
    ]


def _street(rng: Random) -> str:
    town = rng.choice(_TOWN_STARTS) + rng.choice(_TOWN_ENDS)
    number = f"{rng.randint(1, 5)}丁目{rng.randint(1, 40)}番{rng.randint(1, 20)}号"
    return town + number.translate(_FULL_WIDTH_DIGITS)


def income_of(residents: Iterable[ResidentRecord], fiscal_year: str, seed: int) -> list[ReplicaRecord]:
    """One record of income and resident tax for each resident; some have no income and some a loss."""
    rng = _random("income", fiscal_year, seed)
    return [
        ReplicaRecord(
            resident.integrated_number, LAYOUT.key, fiscal_year, _income(rng, resident, fiscal_year)
        )
        for resident in residents
    ]


def _income(rng: Random, resident: ResidentRecord, fiscal_year: str) -> dict[str, str]:
    kind = rng.random()
    total = 0 if kind < 0.25 else int(rng.lognormvariate(14.9, 0.6)) // 1000 * 1000
    if kind > 0.98:
        total = -total // 4
    amounts = {
        code: rng.randint(low, high) if rng.random() < share else 0
        for code, (share, low, high) in _RARE_AMOUNTS.items()
    }
    deducted = sum(amount for code, amount in amounts.items() if code.endswith("_deduction"))
    separate = sum(amount for code, amount in amounts.items() if code.endswith("_income"))
    taxable = max(0, total + separate - deducted - _BASIC_DEDUCTION) // 1000 * 1000
    municipal = taxable * 6 // 10_000 * 100
    prefectural = taxable * 4 // 10_000 * 100 + (_PREFECTURAL_PER_CAPITA_LEVY if taxable else 0)
    per_capita = _PER_CAPITA_LEVY if taxable else 0
    amounts |= {
        "annual_tax": municipal + prefectural + per_capita,
        "municipal_per_capita_levy": per_capita,
        "municipal_income_levy": municipal,
        "prefectural_tax": prefectural,
        "taxable_total_income": taxable,
        "total_income": total,
    }
    texts = {code: str(amount) for code, amount in amounts.items()} | {"fiscal_year": fiscal_year}
    for item in LAYOUT.leaves:
        if item.code_list is not None:
            first, *others = (code.value for code in codes.code_list(item.code_list).codes)
            texts[item.code] = first if rng.random() < 0.85 else rng.choice(others)
    return {item.code: texts[item.code] for item in LAYOUT.leaves}


def write_register(path: Path, people: Iterable[Person]) -> list[ErrorLine]:
    """The resident registry's own list: which individual number was made from which resident record code."""
    return write_csv(path, REGISTER_HEADER, ([p.resident_record_code, p.individual_number] for p in people))


def assessments_of(agencies: Iterable[str], *tasks: str) -> tuple[tuple[str, ...], ...]:
    """Rows of the table of assessments: each agency (by code) has published one for a file of everything.

    `tasks` are those of its ordinances, beside all rows of the law table.
    """
    rows = dict.fromkeys(line.row for table in tables() for line in table.rows)
    affairs, names = "|".join((*rows, *tasks)), "|".join(information())
    return tuple(
        ("assessment", code, "everything", "架空の評価書", "", affairs, names, "2026-01-01", "9999-12-31")
        for code in agencies
    )
