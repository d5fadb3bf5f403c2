"""What a thief finds who has every file but the vaults: nobody. And what nobody may find later: a number."""

import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from adapters.business.files import read_residents, write_residents
from adapters.business.records import ErrorLine, ResidentRecord
from ops import demo
from ops.synthetic import make_people, residents_of
from tests.ops.conftest import Finished
from tests.ops.folders import renkei
from tests.ops.town import ANSWERER, ASKER, EVERYBODY, NETWORK, Town

ENCODINGS = ("utf-8", "cp932", "utf-16-le", "utf-16-be")
HEAD = 8  # bytes: no number, name or street is shorter in any of these
STAGING = ("990019/addressing/staging.sqlite", "990027/addressing/staging.sqlite", "network/staging.sqlite")
SECRET_FOLDERS = {"input", "certificates", "vault"}
PUBLIC = re.compile(r".*\.vkey|.*\.crl|assessments\.tsv|\.renkei-demo|.*\.log|.*\.err")


class Search:
    """Finds texts in bytes, in every encoding, by their first bytes."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._by_head: dict[bytes, set[bytes]] = defaultdict(set)
        for text in texts:
            for encoding in ENCODINGS:
                data = text.encode(encoding)
                assert len(data) >= HEAD
                self._by_head[data[:HEAD]].add(data)

    def found(self, data: bytes) -> list[bytes]:
        heads = self._by_head.keys()
        there = {head for at in range(len(data) - HEAD + 1) if (head := data[at : at + HEAD]) in heads}
        return [text for head in there for text in self._by_head[head] if text in data]


def residents(folder: Path) -> list[ResidentRecord]:
    """Everybody in the files that the two cities loaded."""
    found = [
        line
        for code in (ASKER, ANSWERER)
        for line in read_residents(folder / "input" / f"residents-{code}.csv")
    ]
    assert not [line for line in found if isinstance(line, ErrorLine)]
    return [line[1] for line in found if not isinstance(line, ErrorLine)]


def particulars(people: Iterable[ResidentRecord]) -> Iterator[str]:
    """What tells who somebody is; of an address also the part behind the city's name."""
    for person in people:
        street = person.address.removeprefix("連携市").removeprefix("見本市")
        assert street != person.address
        yield from (person.individual_number, person.name, person.kana, person.address, street)


@cache
def search(folder: Path) -> Search:
    people = residents(folder)
    assert len(people) > 1_300
    record_codes = [person.resident_record_code for person in make_people(demo.SEED, demo.RESIDENTS)]
    return Search([*particulars(people), *record_codes])


def files(folder: Path, *but: str) -> list[Path]:
    """Every file of a demo folder outside the folders named so."""
    return [f for f in folder.rglob("*") if f.is_file() and not {*but} & {*f.relative_to(folder).parts}]


def leaks(folder: Path) -> dict[str, list[bytes]]:
    """Which particulars of residents stand in which file, outside the folders that keep secrets."""
    everybody = search(folder)
    found = {
        f.relative_to(folder).as_posix(): everybody.found(f.read_bytes())
        for f in files(folder, *SECRET_FOLDERS)
    }
    return {name: texts for name, texts in found.items() if texts}


@pytest.mark.req("R-113", "R-146")
def test_nobody_is_found_in_any_file_outside_input_and_vaults(finished: Finished) -> None:
    names = {f.relative_to(finished.folder).as_posix() for f in files(finished.folder, *SECRET_FOLDERS)}
    assert {f"{ledger}/events.sqlite" for ledger in ("990019", "990027/addressing", "network")} <= names
    assert {"log/990019.log", "log/network.err", "output/results.csv", "output/errors.csv"} <= names
    assert leaks(finished.folder) == {}


def test_nobody_is_found_in_the_vaults_either(finished: Finished) -> None:
    vaults = [f for f in finished.folder.rglob("vault/*") if f.is_file()]
    assert len(vaults) == 10
    assert not [f for f in vaults if search(finished.folder).found(f.read_bytes())]


def test_the_search_finds_what_is_planted_in_any_encoding(demo_copy: Path) -> None:
    planted = [text.encode(code) for text in particulars(residents(demo_copy)[777:778]) for code in ENCODINGS]
    with closing(sqlite3.connect(demo_copy / "network" / "projections.sqlite")) as rows, rows:
        for row, text in enumerate(planted, 1):
            rows.execute("INSERT INTO exchange (processing_number, law_row) VALUES (?, ?)", (row, text))
    with (demo_copy / "log" / "990027.log").open("ab") as log:
        log.writelines(b'{"event": "' + text + b'"}\n' for text in planted)
    found = leaks(demo_copy)
    assert found.keys() == {"network/projections.sqlite", "log/990027.log"}
    assert all(set(planted) <= set(texts) for texts in found.values())


def test_everybody_is_found_in_the_input(finished: Finished) -> None:
    people = residents(finished.folder)
    data = (finished.folder / "input" / "residents-990027.csv").read_bytes()
    found = set(search(finished.folder).found(data))
    assert all(person.individual_number.encode() in found for person in people[-1_000:])
    assert all(person.address.encode("cp932") in found for person in people[-1_000:])


# -- acquisition numbers ------------------------------------------------------------------------------

_NUMBER = re.compile(rb"[0-9a-f]{32}")


def numbers(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as rows:
        return [number for (number,) in rows.execute("SELECT number FROM staged")]


@pytest.mark.req("R-116")
@pytest.mark.parametrize("file", STAGING)
def test_no_acquisition_number_is_left_not_even_in_free_pages(file: str, finished: Finished) -> None:
    assert numbers(finished.folder / file) == []
    assert _NUMBER.search((finished.folder / file).read_bytes()) is None


@pytest.fixture
def newcomers(demo_copy: Path) -> list[ResidentRecord]:
    """Three people whom the registry knows and the asking city has not registered, and a file with them."""
    people = make_people(demo.SEED, demo.RESIDENTS + 20)[300:303]
    found = [replace(r, protected=False) for r in residents_of(people, *demo.ASKING, demo.SEED + 1)]
    assert write_residents(demo_copy / "input" / "newcomers.csv", found) == []
    return found


@pytest.mark.req("R-115", "R-116")
def test_acquisition_numbers_leave_no_trace_and_a_killed_process_none_of_a_person(
    demo_copy: Path, newcomers: list[ResidentRecord]
) -> None:
    """Also in the files that only a process at work, or a killed one, has beside its ledger."""
    town = Town(demo_copy)
    try:
        town.start(ASKER)
        town.ready(ASKER)
        file = demo_copy / "input" / "newcomers.csv"
        loaded = renkei("load", "--config", town.config(ASKER), "residents", file)
        assert loaded.returncode == 0, loaded.stderr
        town.until(ASKER, lambda status: status["waiting_for_codes"] == 3)
        # Nobody can be asked yet: three numbers wait.
        staging = demo_copy / STAGING[0]
        town.until(ASKER, lambda status: len(numbers(staging)) == 3)
        waiting = numbers(staging)
        assert _NUMBER.search(staging.read_bytes())
        town.start(*EVERYBODY[:2])
        town.until(ASKER, lambda status: status["waiting_for_codes"] == 0)
        town.until(ASKER, lambda status: not any(numbers(demo_copy / name) for name in STAGING))
        for name in (ASKER, NETWORK):
            town.kill(name)
    finally:
        town.close()
    assert {
        "990019/events.sqlite-wal",
        "990019/addressing/events.sqlite-wal",
        "network/events.sqlite-wal",
    } <= {f.relative_to(demo_copy).as_posix() for f in files(demo_copy)}
    trace = Search([*waiting, *particulars(newcomers)])
    found = [f for f in files(demo_copy, "input") if trace.found(f.read_bytes())]
    assert found == []


# -- modes --------------------------------------------------------------------------------------------


@pytest.mark.req("R-054")
def test_what_holds_keys_or_persons_is_for_its_owner_alone(finished: Finished) -> None:
    folders = [finished.folder, *(path for path in finished.folder.rglob("*") if path.is_dir())]
    assert {oct(path.stat().st_mode & 0o777) for path in folders} == {"0o700"}
    secret = [f for f in files(finished.folder) if not PUBLIC.fullmatch(f.name)]
    assert {f.suffix for f in secret} == {".sqlite", ".csv", ".txt", ".key", ".pem", ".toml", ""}
    assert {f.name for f in secret if not f.suffix} == {"kek"}
    assert {oct(f.stat().st_mode & 0o777) for f in secret} == {"0o600"}
