"""Two small cities, and 200 inquiries of which it is known beforehand what must become of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random

from adapters.business.files import write_residents, write_staff
from adapters.business.income import write_income
from adapters.business.records import InquiryRecord, ReplicaRecord, ResidentRecord, StaffRecord
from ops.demo import ABSENT, ANSWERING, ASKING, INFORMATION, LAW_ROW, LAYOUT, OFFICER, OTHER_OFFICER
from ops.synthetic import income_of, make_people, residents_of, write_register

SEED, YEAR = 20270401, "2026"
BOTH, ASKING_ONLY, UNREGISTERED, OTHER_BIRTHDAY = range(50), range(50, 54), range(54, 56), range(56, 60)
NEWCOMERS = range(60, 66)  # registered in both cities only while the processes die
EVERYBODY = range(66)
ANSWERED = ""


@dataclass(frozen=True)
class Expected:
    """What must become of an inquiry: a code for all of it, or else a code for each subject."""

    code: str
    subjects: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cities:
    """The residents of both, by their place in one list of people; incomes by number at the provider."""

    asking: Mapping[int, ResidentRecord]
    answering: Mapping[int, ResidentRecord]
    incomes: Mapping[str, ReplicaRecord]

    def data(self, integrated_number: str) -> Mapping[str, str]:
        """What the provider holds about the person whom the asking city knows by this number."""
        who = next(i for i, r in self.asking.items() if r.integrated_number == integrated_number)
        return self.incomes[self.answering[who].integrated_number].payload

    def newcomers(self) -> tuple[list[ResidentRecord], list[ResidentRecord], list[ReplicaRecord]]:
        """What the asking city registers of them, what the answering one does, and their incomes there."""
        asking, answering = ([city[who] for who in NEWCOMERS] for city in (self.asking, self.answering))
        return asking, answering, [self.incomes[r.integrated_number] for r in answering]


@cache
def cities() -> Cities:
    people = make_people(SEED, len(EVERYBODY))
    asking, answering = (
        {who: replace(r, protected=False) for who, r in enumerate(residents_of(people, *city, SEED))}
        for city in (ASKING, ANSWERING)
    )
    for who in (*ASKING_ONLY, *UNREGISTERED):
        del answering[who]
    for who in OTHER_BIRTHDAY:
        asking[who] = replace(asking[who], birth_date="1970-01-01")
    incomes = income_of(answering.values(), YEAR, SEED)
    return Cities(asking, answering, {record.integrated_number: record for record in incomes})


def write_input(folder: Path) -> None:
    """What the cities load beforehand, under the names that the demo gives to the files."""
    both, people = cities(), make_people(SEED, len(EVERYBODY))
    write_register(folder / "register.csv", [p for who, p in enumerate(people) if who not in UNREGISTERED])
    for code, city in ((ASKING[0], both.asking), (ANSWERING[0], both.answering)):
        settled = [resident for who, resident in city.items() if who not in NEWCOMERS]
        write_residents(folder / f"residents-{code}.csv", settled)
    write_income(folder / "income.txt", [both.incomes[resident.integrated_number] for resident in settled])
    officer = StaffRecord(
        OFFICER, "こども家庭課", "affair_officer", (LAW_ROW, "2"), "2020-04-01", "2099-03-31"
    )
    other = replace(officer, staff_id=OTHER_OFFICER, office="市民課", rows=("2",))
    write_staff(folder / "staff.csv", [officer, other])


def orders(rng: Random) -> list[tuple[InquiryRecord, Expected]]:
    """200 inquiries in random order about random persons; those about the newcomers come last."""
    made: list[tuple[InquiryRecord, Expected]] = []
    asking = cities().asking

    def ask(count: int, people: Sequence[int], expected: Expected, **changes: str) -> None:
        """`count` inquiries, each about as many of these people as subjects are expected (or one)."""
        for _ in range(count):
            chosen = rng.sample(people, max(1, len(expected.subjects)))
            subjects = tuple(asking[who].integrated_number for who in chosen)
            record = InquiryRecord(
                f"order-{len(made) + 1}", OFFICER, ANSWERING[0], LAW_ROW, INFORMATION, LAYOUT, YEAR, subjects
            )
            made.append((replace(record, **changes), expected))  # type: ignore[arg-type] # only text fields are changed

    ask(132, BOTH, Expected(ANSWERED, ("",)))
    for size in (2, 3, 4):
        ask(8, BOTH, Expected(ANSWERED, ("",) * size))
    ask(6, OTHER_BIRTHDAY, Expected("I-202"))
    ask(6, BOTH, Expected("I-204"), fiscal_year="2019")
    ask(6, ASKING_ONLY, Expected("N-106"))
    ask(4, UNREGISTERED, Expected("I-103"))
    ask(4, BOTH, Expected("L-104"), row="2")
    pension = {"information": "年金給付関係情報", "layout": "pension_benefit/1", "fiscal_year": ""}
    ask(2, BOTH, Expected("L-104"), **pension)
    ask(2, BOTH, Expected("L-101"), provider=ABSENT)
    ask(2, BOTH, Expected("I-101"), staff_id="s9999")
    ask(2, BOTH, Expected("I-102"), staff_id=OTHER_OFFICER)
    for _ in range(4):  # a household in which the provider takes one person for somebody else
        ask(1, BOTH, Expected(ANSWERED, ("", "I-202")))
        record, expected = made[-1]
        stranger = asking[rng.choice(OTHER_BIRTHDAY)].integrated_number
        made[-1] = (replace(record, subjects=(record.subjects[0], stranger)), expected)
    rng.shuffle(made)
    for who in NEWCOMERS:
        ask(1, [who], Expected(ANSWERED, ("",)))
    return made
