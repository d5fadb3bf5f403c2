"""連携市 and five cities that it asks, the network and the registry, as real processes on this machine.

A file of inquiries asks each of the five about the same residents. Of each kind of line it is known
beforehand what has to become of it. The people are invented.
"""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import trio

from adapters.business.files import write_inquiries
from adapters.business.records import InquiryRecord, ReplicaRecord, ResidentRecord, StaffRecord
from ops.certificates import create_authority, issue
from ops.config import AgencyConfig, NetworkConfig, RegistryConfig, write
from ops.demo import INFORMATION, LAW_ROW, LAYOUT, OFFICER, free_ports
from ops.synthetic import assessments_of, income_of, make_people, residents_of, write_register
from schemas.law.lines import joined
from tests.ops.town import NETWORK, REGISTRY, Town

ASKING = ("990019", "連携市")
PROVIDERS = (
    ("990027", "見本市"),
    ("990035", "例示市"),
    ("990043", "仮想市"),
    ("990051", "模擬市"),
    ("990060", "試作市"),
)
SEED, YEAR = 20261121, "2026"
SELDOM = 24 * 3600
HOUSEHOLD = 3
BATCH = 200
AUTHORITY = "certificates/ca.pem"


@dataclass(frozen=True)
class Kind:
    """One kind of line: `share` of the lines to one provider (at least `least`), and what becomes of it."""

    prefix: str
    title: str
    state: str
    code: str
    least: int
    share: float = 0.0


SINGLE = Kind("single", "一人の照会 (one person)", "回答済", "", 0)
KINDS = (
    Kind("household", "世帯3人の照会 (a household of three)", "回答済", "", 2, 0.01),
    Kind("nocode", "提供側に符号がない (provider has no code)", "提供不可", "N-106", 2, 0.005),
    Kind("nothing", "情報がない (nothing stored)", "提供不可", "I-204", 2, 0.005),
    Kind("held", "自動応答不可の対象者 (held person)", "照会中", "", 1, 0.001),
)
UNKNOWN = Kind("unknown", "自団体に登録がない人 (unknown person)", "提供不可", "I-104", 5)
STAFF = Kind("staff", "職員に権限がない (no authority)", "提供不可", "I-101", 3)
DUPLICATE = Kind("duplicate", "同じ照会IDの再送 (duplicate id)", "エラーリスト", "I-105", 2)
OTHER = Kind("other", "同じ照会IDの別の照会 (id used again)", "エラーリスト", "B-008", 1)
MALFORMED = Kind("malformed", "書式の誤った行 (malformed line)", "エラーリスト", "B-001", 2)
ALL = (SINGLE, *KINDS, UNKNOWN, STAFF, DUPLICATE, OTHER, MALFORMED)


@dataclass(frozen=True)
class Plan:
    """How many lines of each kind go to each of `providers`, and how many people that takes."""

    lines: int
    providers: tuple[tuple[str, str], ...] = PROVIDERS

    def each(self, kind: Kind) -> int:
        """Lines of a kind to one provider."""
        return max(kind.least, int(kind.share * self.lines / len(self.providers)))

    @property
    def singles(self) -> list[int]:
        """To each provider, so that all lines together are as many as wanted."""
        apart = sum(kind.least for kind in (UNKNOWN, STAFF, DUPLICATE, OTHER, MALFORMED))
        left = self.lines - apart - sum(map(self.each, KINDS)) * len(self.providers)
        share, more = divmod(left, len(self.providers))
        return [share + (number < more) for number in range(len(self.providers))]

    @property
    def people(self) -> int:
        persons = max(self.singles) + sum(map(self.each, KINDS))
        return persons + (HOUSEHOLD - 1) * self.each(KINDS[0])


class Cities:
    """Who lives where: everybody in 連携市, and everybody but `nocode` is known in the other cities."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.people = make_people(SEED, plan.people)
        self.roles: dict[str, range] = {}
        first = 0
        for kind in KINDS:
            count = plan.each(kind) * (HOUSEHOLD if kind.prefix == "household" else 1)
            self.roles[kind.prefix] = range(first, first + count)
            first += count
        self.roles[SINGLE.prefix] = range(first, plan.people)
        self.asking = [replace(r, protected=False) for r in residents_of(self.people, *ASKING, SEED)]

    def of(self, code: str, name: str) -> tuple[list[ResidentRecord], list[ReplicaRecord]]:
        """The residents of one provider and what it holds about them."""
        found = {
            place: replace(resident, protected=place in self.roles["held"])
            for place, resident in enumerate(residents_of(self.people, code, name, SEED))
            if place not in self.roles["nocode"]
        }
        stored = [resident for place, resident in found.items() if place not in self.roles["nothing"]]
        return list(found.values()), income_of(stored, YEAR, SEED)

    def orders(self) -> list[InquiryRecord]:
        """The good lines of the file, in turns to each provider."""
        each = [list(self._to(number)) for number in range(len(self.plan.providers))]
        longest = max(map(len, each))
        turns = [orders[n] for n in range(longest) for orders in each if n < len(orders)]
        first = turns[0]
        strangers = residents_of(make_people(SEED + 1, UNKNOWN.least), *ASKING, SEED + 1)
        known = {resident.integrated_number for resident in self.asking}
        apart = [
            replace(first, request_id=f"unknown-{n}", subjects=(stranger.integrated_number,))
            for n, stranger in enumerate(strangers)
            if stranger.integrated_number not in known
        ]
        apart += [replace(first, request_id=f"staff-{n}", staff_id="s9999") for n in range(STAFF.least)]
        again = [*turns[: DUPLICATE.least], replace(turns[0], fiscal_year="2019")]
        return [*turns, *apart, *again]

    def _to(self, provider: int) -> Iterator[InquiryRecord]:
        code = self.plan.providers[provider][0]
        for prefix, places in self.roles.items():
            size = HOUSEHOLD if prefix == "household" else 1
            numbers = iter([self.asking[place].integrated_number for place in places])
            count = self.plan.singles[provider] if prefix == SINGLE.prefix else len(places) // size
            for n in range(count):
                yield InquiryRecord(
                    f"{prefix}-{code}-{n}", OFFICER, code, LAW_ROW, INFORMATION, LAYOUT, YEAR,
                    tuple(islice(numbers, size)),
                )  # fmt: skip

    def write(self, folder: Path) -> Path:
        """The file of inquiries, with its malformed lines."""
        file = folder / "input" / "inquiries.csv"
        write_inquiries(file, self.orders())
        with file.open("ab") as stream:
            stream.writelines(f"malformed-{n},s0001\r\n".encode("cp932") for n in range(MALFORMED.least))
        return file


def prepare(folder: Path, plan: Plan, **network: Any) -> Cities:
    """Certificates, configurations and input; `network` are keys of its configuration."""
    cities = Cities(plan)
    agencies = (ASKING, *plan.providers)
    certificates = folder / "certificates"
    create_authority(certificates)
    for name, uri in (
        (NETWORK, "urn:renkei:network"),
        *((code, f"urn:renkei:agency:{code}") for code, _ in agencies),
    ):
        issue(certificates, name, uri, purpose="tls")
        issue(certificates, name, uri, purpose="signing")
    issue(certificates, REGISTRY, "urn:renkei:registry", purpose="tls")
    for code, _ in agencies:
        issue(certificates, f"business-{code}", f"urn:renkei:business:{code}", purpose="tls")
    for name in ("input", "output", "log"):
        (folder / name).mkdir(mode=0o700)
    write_register(folder / "input" / "register.csv", cities.people)
    published = joined(assessments_of(code for code, _ in agencies))
    (folder / "input" / "assessments.tsv").write_text(published, encoding="utf-8")
    cities.write(folder)
    _configure(folder, agencies, network)
    return cities


def _configure(folder: Path, agencies: Sequence[tuple[str, str]], network: dict[str, Any]) -> None:
    at = [f"127.0.0.1:{port}" for port in free_ports(2 + len(agencies))]
    write(
        NetworkConfig(
            data=NETWORK,
            authority=AUTHORITY,
            tls_certificate="certificates/network-tls.pem",
            tls_key="certificates/network-tls.key",
            signing_certificate="certificates/network-signing.pem",
            signing_key="certificates/network-signing.key",
            crl="certificates/ca.crl",
            listen=at[0],
            assessments="input/assessments.tsv",
            agencies=tuple((code, name, "city") for code, name in agencies),
            seal_seconds=SELDOM,
            log="log/network.log",
            **network,
        ),
        folder / f"{NETWORK}.toml",
    )
    write(
        RegistryConfig(
            register="input/register.csv",
            authority=AUTHORITY,
            tls_certificate="certificates/registry-tls.pem",
            tls_key="certificates/registry-tls.key",
            network=at[0],
            listen=at[1],
            log="log/registry.log",
        ),
        folder / f"{REGISTRY}.toml",
    )
    for (code, name), door in zip(agencies, at[2:], strict=True):
        config = AgencyConfig(
            code=code,
            name=name,
            kind="city",
            data=code,
            authority=AUTHORITY,
            tls_certificate=f"certificates/{code}-tls.pem",
            tls_key=f"certificates/{code}-tls.key",
            signing_certificate=f"certificates/{code}-signing.pem",
            signing_key=f"certificates/{code}-signing.key",
            network=at[0],
            registry=at[1],
            business=door,
            business_certificate=f"certificates/business-{code}-tls.pem",
            business_key=f"certificates/business-{code}-tls.key",
            seal_seconds=SELDOM,
            log=f"log/{code}.log",
        )
        write(config, folder / f"{code}.toml")


@contextmanager
def at_work(folder: Path, cities: Cities) -> Iterator[Town]:
    """Everybody started, registered, furnished with residents and codes; stopped in good order at the end."""
    town = Town(folder)
    codes = [code for code, _ in (ASKING, *cities.plan.providers)]
    try:
        town.start(NETWORK, REGISTRY, *codes)
        for code in codes:
            town.until(code, lambda status: status["agency"] in status["partners"])
        trio.run(_furnish, town, cities)
        for code in codes:
            town.until(code, lambda status: status["waiting_for_codes"] == 0)
        yield town
        assert set(town.stop().values()) == {0}, town.last_words()
    finally:
        town.close()


async def _furnish(town: Town, cities: Cities) -> None:
    officer = StaffRecord(OFFICER, "こども家庭課", "affair_officer", (LAW_ROW,), "2026-04-01", "2027-03-31")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_load, town, ASKING[0], [officer, *cities.asking])
        for code, name in cities.plan.providers:
            residents, incomes = cities.of(code, name)
            nursery.start_soon(_load, town, code, [*residents, *incomes])


async def _load(town: Town, code: str, records: Sequence[Any]) -> None:
    """As `renkei load` does: what is of one kind goes together."""
    async with town.door(code) as door:
        for kind in (StaffRecord, ResidentRecord, ReplicaRecord):
            alike = [record for record in records if isinstance(record, kind)]
            for start in range(0, len(alike), BATCH):
                verdicts = await door.send(alike[start : start + BATCH])
                assert not any(refused for refused, _ in verdicts), verdicts


def rows_of(file: Path) -> list[dict[str, str]]:
    """The lines of a file that went back to the office."""
    with file.open(encoding="cp932", newline="") as lines:
        return list(csv.DictReader(lines))
