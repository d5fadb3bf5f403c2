"""Two cities, the network and the registry as real processes of one machine, for `renkei bench linkage`.

They are the daemons of the demo, with the demo's certificates and configurations, and have layouts beside
those of the law, whose records are as large as the study of 2011 assumes them to be.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import msgpack
import psycopg
import trio
from psycopg.sql import SQL, Identifier
from rich.progress import Progress

from adapters.business.client import BusinessClient
from adapters.business.records import ReplicaRecord, StaffRecord
from adapters.http import Unreachable
from broker.ledger.postgres import PostgresDatabase
from ops import demo
from ops.bench.places import Place, PostgresPlace
from ops.business import client
from ops.config import AgencyConfig, NetworkConfig, read, write
from ops.daemons import ADDRESSING
from ops.synthetic import make_people, residents_of, write_register
from schemas.messages import MAX_RECORDS

ASKING, ANSWERING = demo.ASKING[0], demo.ANSWERING[0]
NETWORK, REGISTRY = "network", "registry"
PROCESSES = {NETWORK: NETWORK, REGISTRY: REGISTRY, ASKING: "serve", ANSWERING: "serve"}
YEAR = "2026"
SIZES = (2, 5, 10)  # KB (1,000 bytes) of an answer about one person
PATIENCE = 600.0  # seconds for everybody's link codes
_BATCH = 200  # records in one request
_DATABASE = "renkei_bench"
# One round of items, as they stand in the files of business systems: type, digits.
_ROUND = (("DATE", 0), ("S9", 10), ("X", 20), ("N", 20), ("N", 60))
_KANJI = "連携情報提供等記録開示請求特定個人番号利用事務実施者市町村民税課税標準額控除対象配偶者"

T = TypeVar("T")


class BenchFailed(Exception):
    """Something did not come out as it has to; the text says what, and nothing of it is personal."""


def layout_key(size: int) -> str:
    return f"bench_{size}kb/1"


def write_layouts(folder: Path) -> None:
    """A layout for each size, in the form of schemas/items."""
    folder.mkdir()
    header = ("code", "name_ja", "parent", "level", "type", "digits", "min_occurs", "max_occurs", "code_list")
    kinds = [("id", "version", "name_ja", "information", "updated")]
    for size in SIZES:
        kinds.append((f"bench_{size}kb", "1", f"測定用の情報{size}KB", demo.INFORMATION, "測定の前"))
        rows = [header, ("record", "測定用の記録", "", "0", "GROUP", "", "1", "1", "")]
        for number, (kind, digits) in enumerate(_items(size)):
            width = str(digits) if digits else ""
            rows.append((_code(number), f"項目{number}", "record", "1", kind, width, "1", "1", ""))
        _write_table(folder / f"bench_{size}kb_1.tsv", rows)
    _write_table(folder / "layouts.tsv", kinds)


def _write_table(file: Path, rows: Sequence[Sequence[str]]) -> None:
    file.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


@cache
def _items(size: int) -> tuple[tuple[str, int], ...]:
    """Types and digits, so many that a record has about `size` KB."""
    found: list[tuple[str, int]] = []
    left = size * 1000
    while left > 0:
        kind, digits = _ROUND[len(found) % len(_ROUND)]
        value = _value(Random(0), kind, digits)  # noqa: S311 # for its length alone
        left -= len(msgpack.packb({_code(len(found)): value})) - 1
        found.append((kind, digits))
    return tuple(found)


def _code(number: int) -> str:
    return f"item_{number:03d}"


def _value(random: Random, kind: str, digits: int) -> str:
    if kind == "DATE":
        return f"20{random.randrange(100):02d}-{random.randrange(1, 13):02d}-{random.randrange(1, 29):02d}"
    if kind == "N":
        return "".join(random.choices(_KANJI, k=digits))
    return "".join(random.choices("0123456789", k=digits))


def payload(random: Random, size: int) -> dict[str, str]:
    """What is stored about one person."""
    return {_code(n): _value(random, kind, digits) for n, (kind, digits) in enumerate(_items(size))}


@dataclass(frozen=True)
class Spent:
    """Seconds on the processor since its start, and resident memory at present in bytes."""

    processor: float
    memory: int


class Town:
    """The processes at work, and what they are asked about themselves."""

    def __init__(self, folder: Path, numbers: Sequence[str]) -> None:
        self.folder = folder
        self.numbers = numbers
        """The residents of the asking city (integrated address numbers) about whom the other one knows."""
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def door(self, code: str) -> BusinessClient:
        return client(read(AgencyConfig, self.folder / f"{code}.toml"))

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Everybody started; stopped at the end, the agencies first."""
        with ExitStack() as stack:
            for name in (NETWORK, REGISTRY, ASKING, ANSWERING):
                self._processes[name] = stack.enter_context(self._started(name))
            yield

    @contextmanager
    def _started(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        command = [PROCESSES[name], str(self.folder / f"{name}.toml"), str(self.folder / "layouts")]
        with (self.folder / "log" / f"{name}.err").open("ab") as errors:
            process = subprocess.Popen(  # noqa: S603 # our own command
                [sys.executable, "-m", "ops.bench.process", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        with process:
            try:
                yield process
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()

    def tell(self, word: str) -> dict[str, Any]:
        """To every daemon: begin to "count" or to "sample", or "end" and say what was found."""
        return {name: self._told(process, word) for name, process in self._processes.items()}

    def _told(self, process: subprocess.Popen[bytes], word: str) -> Any:
        if process.stdin is None or process.stdout is None:
            raise BenchFailed("a daemon without a line to it")
        try:
            process.stdin.write(f"{word}\n".encode())
            process.stdin.flush()
            return json.loads(process.stdout.readline())
        except (OSError, ValueError) as error:
            raise BenchFailed(f"a daemon has stopped: {self.last_words()}") from error

    def spent(self) -> dict[str, Spent]:
        """Of every daemon."""
        return {name: spent(process.pid) for name, process in self._processes.items()}

    def peaks(self) -> dict[str, float]:
        """The most memory that each daemon ever had, in MB."""
        return {name: _status(process.pid, "VmHWM:") / 1e6 for name, process in self._processes.items()}

    def last_words(self) -> str:
        lines = [
            line
            for file in sorted((self.folder / "log").iterdir())
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines()[-2:]
        ]
        return " / ".join(lines)


def spent(pid: int) -> Spent:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return Spent(ticks / os.sysconf("SC_CLK_TCK"), _status(pid, "VmRSS:"))


def _status(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


@contextmanager
def database(place: Place) -> Iterator[str]:
    """What the daemons have for `store`: on a server, a database of their own that is gone afterwards."""
    if not isinstance(place, PostgresPlace):
        yield "sqlite"
        return
    name = f"{_DATABASE}_{secrets.token_hex(4)}"
    with psycopg.connect(place.url, autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
    try:
        yield urlunsplit(urlsplit(place.url)._replace(path=f"/{name}"))
    finally:
        with psycopg.connect(place.url, autocommit=True) as connection:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


def prepared(folder: Path, store: str, people: int) -> Town:
    """Certificates, configurations and layouts of a town in which so many people will live."""
    demo.prepare(folder)
    write_layouts(folder / "layouts")
    write_register(folder / "input" / "register.csv", make_people(demo.SEED, people))
    seldom = 24 * 3600
    file = folder / f"{NETWORK}.toml"
    write(replace(read(NetworkConfig, file), store=store, seal_seconds=seldom), file)
    for code in (ASKING, ANSWERING):
        file = folder / f"{code}.toml"
        config = replace(read(AgencyConfig, file), store=store, seal_seconds=seldom)
        write(replace(config, portal="", witness="", witnesses=()), file)
    if store != "sqlite":
        _make_tables(store)
    asking = residents_of(make_people(demo.SEED, people), *demo.ASKING, demo.SEED)
    return Town(folder, [resident.integrated_number for resident in asking])


def _make_tables(store: str) -> None:
    tables = PostgresDatabase(store, size=1)
    try:
        for ledger in (NETWORK, ASKING, ANSWERING):
            tables.migrate(f"renkei/{ledger}")
        for ledger in (ASKING, ANSWERING):
            tables.migrate(f"renkei/{ledger}/{ADDRESSING}")
    finally:
        tables.close()


async def populate(town: Town, progress: Progress) -> None:
    """Residents of both cities, the staff who ask, the records that are asked for, and everybody's code."""
    people = make_people(demo.SEED, len(town.numbers))
    random = Random(demo.SEED)  # noqa: S311 # test data has to be repeatable, not secret
    async with town.door(ASKING) as asking, town.door(ANSWERING) as answering:
        for code, door in ((ASKING, asking), (ANSWERING, answering)):
            await _until(door, lambda status: status["agency"] in status["partners"], f"{code} registered")
        staff = StaffRecord(
            demo.OFFICER, "測定課", "affair_officer", (demo.LAW_ROW,), "2026-04-01", "2027-03-31"
        )
        await _load(progress, "staff", asking, [staff])
        for (code, name), door in ((demo.ASKING, asking), (demo.ANSWERING, answering)):
            residents = [replace(r, protected=False) for r in residents_of(people, code, name, demo.SEED)]
            await _load(progress, f"residents of {code}", door, residents)
        for size in SIZES:
            records = (
                ReplicaRecord(resident.integrated_number, layout_key(size), YEAR, payload(random, size))
                for resident in residents
            )
            await _load(progress, f"records of {size} KB", answering, records, len(residents))
        for code, door in ((ASKING, asking), (ANSWERING, answering)):
            await _until(door, lambda status: status["waiting_for_codes"] == 0, f"link codes of {code}")


async def _load(
    progress: Progress, what: str, door: BusinessClient, records: Any, total: int | None = None
) -> None:
    task = progress.add_task(what, total=total or len(records))
    batch: list[Any] = []
    for record in records:
        batch.append(record)
        if len(batch) == _BATCH:
            await _send(what, door, batch)
            progress.advance(task, len(batch))
            batch = []
    if batch:
        await _send(what, door, batch)
    progress.remove_task(task)


async def _send(what: str, door: BusinessClient, batch: Sequence[Any]) -> None:
    refused = {(code, detail) for code, detail in await door.send(batch) if code}
    if refused:
        raise BenchFailed(f"{what}: {sorted(refused)}")


async def _until(door: BusinessClient, done: Callable[[dict[str, Any]], bool], what: str) -> None:
    with trio.move_on_after(PATIENCE):
        while True:
            with suppress(Unreachable):  # not listening yet; the patience above ends this
                if done(await door.status()):
                    return
            await trio.sleep(0.2)
    raise BenchFailed(f"not in time: {what}")


def people_for(persons: int) -> int:
    """How many people a file about so many persons needs: within one inquiry each is another one."""
    return min(persons, MAX_RECORDS)
