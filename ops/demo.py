"""The demo: two fictional cities, the network and the registry as real processes, and 200 inquiries."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from csv import DictReader
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import trio
from rich.table import Table

from adapters.business.files import write_inquiries, write_residents, write_staff
from adapters.business.income import write_income
from adapters.business.records import InquiryRecord, ResidentRecord, StaffRecord
from adapters.http import Unreachable
from broker.ledger.folder import VERIFIER_KEY
from ops.audit import verify
from ops.business import at_door, client
from ops.certificates import create_authority, issue
from ops.config import AgencyConfig, NetworkConfig, RegistryConfig, read, write
from ops.daemons import ADDRESSING
from ops.synthetic import assessments_of, income_of, make_people, residents_of, write_register
from ops.terminal import console, fail
from schemas.errors import entry
from schemas.law.lines import joined

SEED = 20261121
ASKING, ANSWERING, ABSENT = ("990019", "連携市"), ("990027", "見本市"), "990035"
RESIDENTS = 1_000
LAW_ROW, INFORMATION, LAYOUT = "81", "地方税関係情報", "income_tax_certificate/1"
OFFICER, OTHER_OFFICER = "s0001", "s0002"
ROLE = "renkei_daemon"
MARKER = ".renkei-demo"
Done = Callable[[dict[str, Any]], bool]


@dataclass(frozen=True)
class Kind:
    """One kind of line in the file of inquiries: what it is, and how many lines of it there are."""

    prefix: str
    title: str
    count: int


KINDS = (
    Kind("single", "一人の照会 (one person)", 156),
    Kind("household", "世帯3人の照会 (a household of three)", 12),
    Kind("outside", "法令の表の範囲外 (outside the law table)", 8),
    Kind("staff", "職員に権限がない (staff without authority)", 3),
    Kind("nocode", "照会側に符号がない (inquirer has no code)", 4),
    Kind("unknown", "提供側に符号がない (provider has no code)", 6),
    Kind("noyear", "該当年度の情報がない (nothing stored for the year)", 4),
    Kind("absent", "接続していない機関あて (partner not connected)", 3),
    Kind("protected", "支援措置の対象者 (protected person)", 1),
    Kind("wrong", "別人の疑い (wrong person)", 1),
    Kind("repeat", "同じ照会IDの再送 (repeated message)", 1),
    Kind("malformed", "書式の誤った行 (malformed line)", 1),
)


def demo(folder: Path, *, stay: bool, store: str) -> int:
    """Run the demo in a folder of its own, made anew, and with a PostgreSQL server of its own where asked."""
    if folder.exists():
        if not folder.is_dir() or (not (folder / MARKER).exists() and any(folder.iterdir())):
            return fail("S-104", f"{folder}: デモ以外のファイルがあります (not a demo folder)")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, mode=0o700)
    (folder / MARKER).touch()
    started = time.monotonic()
    with ExitStack() as stack:
        address = stack.enter_context(database()) if store == "postgresql" else None
        say("準備: 証明書・架空の住民・設定 (certificates, synthetic residents, configuration)")
        prepare(folder, address)
        return run(folder, address, started, stay=stay)


@contextmanager
def database() -> Iterator[tuple[str, str, str]]:
    """A server, with a role for the daemons; its address as the owner of tables and as that role.

    The owner's address is without the password, which comes third: a command line is no place for one.
    """
    from ops.postgresql import USER, Server, newest_programs

    say("準備: PostgreSQL (a server of its own)")
    with Server(newest_programs()) as server:
        password = secrets.token_urlsafe(16)
        with psycopg.connect(server.url) as connection:
            connection.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{password}'")
        yield server.url_as(USER, ""), server.url_as(ROLE, password), server.password


def run(folder: Path, address: tuple[str, str, str] | None, started: float, *, stay: bool) -> int:
    """The demo itself, once everything is prepared."""
    with processes(folder) as daemons:
        try:
            trio.run(wait_ready, folder)
            admit_logs(folder)
            load_files(folder)
            trio.run(wait_for_codes, folder)
            say("情報照会 200件 (200 inquiries)")
            output = folder / "output"
            command(
                "inquire", "--config", folder / f"{ASKING[0]}.toml", folder / "input" / "inquiries.csv",
                "--results", output / "results.csv", "--errors", output / "errors.csv", "--patience", "3",
            )  # fmt: skip
            held = held_codes(folder)
        except (Unreachable, trio.TooSlowError, subprocess.CalledProcessError) as error:
            return fail("S-106", f"{error} ({folder / 'log'})")
        total = show_outcomes(folder, held)
        say("\nある住民の情報提供等の記録 (the provision records of one resident)")
        command(
            "records", "--config", folder / f"{ASKING[0]}.toml", "--resident", show_resident(folder),
            "--by", OFFICER, "--purpose", "inspection",
        )  # fmt: skip
        say("\n台帳の検証 (verification of the ledgers)")
        status = verify(folder, address[1] if address else "sqlite")
        say(f"\n所要 {time.monotonic() - started:.1f} 秒 (seconds)   {folder}")
        if stay and not status:
            invite(folder)
            wait_for_interrupt(daemons)
    return status or (0 if total == sum(kind.count for kind in KINDS) else 1)


def say(text: str) -> None:
    console.print(text, markup=False)


# -- preparation --------------------------------------------------------------------------------------


def prepare(folder: Path, address: tuple[str, str, str] | None = None) -> None:
    """Certificates, input files and configurations of all four processes."""
    certificates = folder / "certificates"
    create_authority(certificates)
    for name, uri in (
        ("network", "urn:renkei:network"),
        *((code, f"urn:renkei:agency:{code}") for code, _ in (ASKING, ANSWERING)),
    ):
        issue(certificates, name, uri, purpose="tls")
        issue(certificates, name, uri, purpose="signing")
    issue(certificates, "registry", "urn:renkei:registry", purpose="tls")
    for code, _ in (ASKING, ANSWERING):
        issue(certificates, f"business-{code}", f"urn:renkei:business:{code}", purpose="tls")
    for name in ("input", "output", "log"):
        (folder / name).mkdir(mode=0o700)
    write_input(folder / "input")
    write_configurations(folder, address[1] if address else "sqlite")
    if address:
        for name in ("network", ASKING[0], ANSWERING[0]):
            command(
                "migrate", "--config", folder / f"{name}.toml", "--owner", address[0], password=address[2]
            )


def write_configurations(folder: Path, store: str) -> None:
    ports = iter(free_ports(8))
    network, registry = (f"127.0.0.1:{next(ports)}" for _ in range(2))
    authority = "certificates/ca.pem"
    write(
        NetworkConfig(
            data="network",
            authority=authority,
            tls_certificate="certificates/network-tls.pem",
            tls_key="certificates/network-tls.key",
            signing_certificate="certificates/network-signing.pem",
            signing_key="certificates/network-signing.key",
            crl="certificates/ca.crl",
            listen=network,
            assessments="input/assessments.tsv",
            store=store,
            agencies=tuple((code, name, "city") for code, name in (ASKING, ANSWERING)),
            log="log/network.log",
        ),
        folder / "network.toml",
    )
    write(
        RegistryConfig(
            register="input/register.csv",
            authority=authority,
            tls_certificate="certificates/registry-tls.pem",
            tls_key="certificates/registry-tls.key",
            network=network,
            listen=registry,
            log="log/registry.log",
        ),
        folder / "registry.toml",
    )
    doors = {code: f"127.0.0.1:{next(ports)}" for code, _ in (ASKING, ANSWERING)}
    for (code, name), (other, _) in ((ASKING, ANSWERING), (ANSWERING, ASKING)):
        write(
            AgencyConfig(
                code=code,
                name=name,
                kind="city",
                data=code,
                authority=authority,
                tls_certificate=f"certificates/{code}-tls.pem",
                tls_key=f"certificates/{code}-tls.key",
                signing_certificate=f"certificates/{code}-signing.pem",
                signing_key=f"certificates/{code}-signing.key",
                network=network,
                registry=registry,
                business=f"127.0.0.1:{next(ports)}",
                business_certificate=f"certificates/business-{code}-tls.pem",
                business_key=f"certificates/business-{code}-tls.key",
                portal=f"127.0.0.1:{next(ports)}",
                store=store,
                seal_seconds=3,
                witness=doors[code],
                witnesses=(
                    (network, "/witness", "network/witness.vkey"),
                    (doors[other], "/witness", f"{other}/witness.vkey"),
                ),
                log=f"log/{code}.log",
            ),
            folder / f"{code}.toml",
        )


def free_ports(count: int) -> list[int]:
    """Ports that are free now, below those that systems give to outgoing connections: so they stay free."""
    found: set[int] = set()
    while len(found) < count:
        port = 20_000 + secrets.randbelow(12_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.add(port)
    return [*found]


def write_input(folder: Path) -> None:
    """Who lives where: a thousand in 見本市, and in 連携市 those who moved there, with a few strangers."""
    people = make_people(SEED, RESIDENTS + 20)
    moved, known_here_only, unregistered = people[:300], people[1_000:1_010], people[1_010:]
    answering = [replace(r, protected=False) for r in residents_of(people[:RESIDENTS], *ANSWERING, SEED)]
    asking = [
        replace(r, protected=False)
        for r in residents_of([*moved, *known_here_only, *unregistered], *ASKING, SEED)
    ]
    # Person 298 is protected where the record lies; of person 299 the two cities know different birth dates.
    answering[298] = replace(answering[298], protected=True)
    asking[299] = replace(asking[299], birth_date="1970-01-01")
    write_register(folder / "register.csv", people[:1_010])
    assessments = joined(assessments_of((ASKING[0], ANSWERING[0])))
    (folder / "assessments.tsv").write_text(assessments, encoding="utf-8")
    write_residents(folder / f"residents-{ASKING[0]}.csv", asking)
    write_residents(folder / f"residents-{ANSWERING[0]}.csv", answering)
    write_income(folder / "income.txt", income_of(answering, "2026", SEED))
    write_staff(
        folder / "staff.csv",
        [
            StaffRecord(
                OFFICER, "こども家庭課", "affair_officer", (LAW_ROW, "2"), "2026-04-01", "2027-03-31"
            ),
            StaffRecord(OTHER_OFFICER, "市民課", "affair_officer", ("2",), "2026-04-01", "2027-03-31"),
        ],
    )
    write_inquiries(folder / "inquiries.csv", inquiries(asking))
    with (folder / "inquiries.csv").open("ab") as file:
        file.write("malformed-1,s0001,990027,81\r\n".encode("cp932"))


def inquiries(asking: Sequence[ResidentRecord]) -> list[InquiryRecord]:
    """The file of inquiries but for its malformed line."""
    numbers = [resident.integrated_number for resident in asking]
    singles, here_only, unregistered = iter(numbers[:298]), numbers[300:310], numbers[310:]
    orders: list[InquiryRecord] = []

    def ask(kind: str, *subjects: str, **changes: str) -> None:
        number = sum(order.request_id.startswith(f"{kind}-") for order in orders) + 1
        standard = InquiryRecord(
            f"{kind}-{number}", OFFICER, ANSWERING[0], LAW_ROW, INFORMATION, LAYOUT, "2026", subjects
        )
        orders.append(replace(standard, **changes))  # type: ignore[arg-type] # only text fields are changed

    counts = {kind.prefix: kind.count for kind in KINDS}
    for _ in range(counts["single"]):
        ask("single", next(singles))
    for _ in range(counts["household"]):
        ask("household", next(singles), next(singles), next(singles))
    for index in range(counts["outside"]):
        outside = (
            {"row": "2"}
            if index % 2
            else {"information": "年金給付関係情報", "layout": "pension_benefit/1", "fiscal_year": ""}
        )
        ask("outside", next(singles), **outside)
    for index in range(counts["staff"]):
        ask("staff", next(singles), staff_id=OTHER_OFFICER if index % 2 else "s9999")
    for index in range(counts["nocode"]):
        ask("nocode", unregistered[index])
    for index in range(counts["unknown"]):
        ask("unknown", here_only[index])
    for _ in range(counts["noyear"]):
        ask("noyear", next(singles), fiscal_year="2019")
    for _ in range(counts["absent"]):
        ask("absent", next(singles), provider=ABSENT)
    ask("protected", numbers[298])
    ask("wrong", numbers[299])
    orders.append(orders[0])
    return orders


# -- running ------------------------------------------------------------------------------------------


@contextmanager
def processes(folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The four daemons; stopped by SIGTERM at the end."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        for name, file in (
            ("network", "network"),
            ("registry", "registry"),
            ("serve", ASKING[0]),
            ("serve", ANSWERING[0]),
        ):
            started.append(start(name, folder / f"{file}.toml"))
        yield started
    finally:
        # The agencies first: the network then has no poll of theirs to wait for.
        for group in (started[2:], started[:2]):
            for process in group:
                process.send_signal(signal.SIGTERM)
            for process in group:
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                if process.returncode:
                    say(f"終了状態 {process.returncode}: {process.args!r}")


def start(name: str, config: Path) -> subprocess.Popen[bytes]:
    """A daemon as a process of its own; what it says before its log is open goes beside the log."""
    with (config.parent / "log" / f"{config.stem}.err").open("ab") as errors:
        return subprocess.Popen(  # noqa: S603 # our own command
            [sys.executable, "-m", "ops", name, "--config", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )


def command(*arguments: object, password: str = "") -> None:
    """Run a command of renkei as a user would; raises CalledProcessError."""
    words = [sys.executable, "-m", "ops", *map(str, arguments)]
    secret = {"PGPASSWORD": password} if password else {}
    subprocess.run(words, check=True, env=os.environ | secret)  # noqa: S603 # our own command


def load_files(folder: Path) -> None:
    say("一括登録 (bulk registration)")
    for code, kind, file in (
        (ASKING[0], "residents", f"residents-{ASKING[0]}.csv"),
        (ASKING[0], "staff", "staff.csv"),
        (ANSWERING[0], "residents", f"residents-{ANSWERING[0]}.csv"),
        (ANSWERING[0], "staff", "staff.csv"),
        (ANSWERING[0], "income", "income.txt"),
    ):
        command(
            "load", "--config", folder / f"{code}.toml", kind, folder / "input" / file,
            "--errors", folder / "output" / f"{file}.errors.csv",
        )  # fmt: skip


def admit_logs(folder: Path) -> None:
    """As the operators of witnesses do: theirs cosign the logs whose keys lie there."""
    for (code, _), (other, _) in ((ASKING, ANSWERING), (ANSWERING, ASKING)):
        for ledger in (folder / code, folder / code / ADDRESSING):
            name = ledger.relative_to(folder).as_posix().replace("/", "_")
            for witness in ("network", other):
                shutil.copy(ledger / VERIFIER_KEY, folder / witness / "logs" / f"renkei_{name}.vkey")


async def wait_ready(folder: Path) -> None:
    """Until both agencies are registered at the network."""
    await _until(folder, lambda status: status["agency"] in status["partners"], "registration")


async def wait_for_codes(folder: Path) -> None:
    """Until nobody waits for a link code any more."""
    say("符号の取得 (acquisition of link codes)")
    await _until(folder, lambda status: status["waiting_for_codes"] == 0, "link codes")


async def _until(folder: Path, done: Done, what: str) -> None:
    with trio.move_on_after(40) as patience:
        for code, _ in (ASKING, ANSWERING):
            async with client(read(AgencyConfig, folder / f"{code}.toml")) as door:
                while True:
                    try:
                        if done(await door.status()):
                            break
                    except Unreachable:
                        pass  # not listening yet; the patience above ends this
                    await trio.sleep(0.1)
    if patience.cancelled_caught:
        raise Unreachable(f"no {what} within 40 seconds")


def held_codes(folder: Path) -> int:
    """How many provisions wait for an officer at the answering city."""
    status = at_door(read(AgencyConfig, folder / f"{ANSWERING[0]}.toml"), lambda door: door.status())
    return sum(
        count for side, state, _, count in status["processing"] if (side, state) == ("provision", "held")
    )


# -- outcome ------------------------------------------------------------------------------------------


def show_outcomes(folder: Path, held: int) -> int:
    """What became of each kind of line and why; returns the sum of the counts."""
    outcomes: dict[str, Counter[tuple[str, str]]] = {kind.prefix: Counter() for kind in KINDS}
    seen: set[str] = set()
    for row in _rows(folder / "output" / "results.csv"):
        request = row["照会ID"]
        if request in seen:
            continue  # further persons of the same household
        seen.add(request)
        state, code = row["状態"], row["コード"]
        if state == "照会中" and held:
            state, code, held = "確認待ち", "I-203", held - 1
        outcomes[request.partition("-")[0]][state, code] += 1
    for row in _rows(folder / "output" / "errors.csv"):
        prefix = "repeat" if row["コード"] == "I-105" else "malformed"
        outcomes[prefix]["エラーリスト", row["コード"]] += 1
    table = Table(title="照会200件の結果 (what became of 200 inquiries)")
    for column in ("照会の種類", "件数", "結果", "コード", "理由"):
        table.add_column(column, overflow="fold")
    total = 0
    for kind in KINDS:
        for (state, code), count in sorted(outcomes[kind.prefix].items()):
            total += count
            reason = entry(code).cause_ja.partition("。")[0] if code else ""
            table.add_row(kind.title, str(count), state, code, reason)
    table.add_section()
    table.add_row("計 (total)", str(total))
    console.print(table)
    return total


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="cp932", newline="") as lines:
        return list(DictReader(lines))


def show_resident(folder: Path) -> str:
    """The first resident who was asked about."""
    return _rows(folder / "input" / "inquiries.csv")[0]["団体内統合宛名番号"]


def invite(folder: Path) -> None:
    config = read(AgencyConfig, folder / f"{ASKING[0]}.toml")
    link = at_door(config, lambda door: door.portal_link(show_resident(folder)))
    say(f"\n住民向けページ (the resident's page; the link works once): {link}")
    say("終了するには Ctrl-C (Ctrl-C ends the demo)")


def wait_for_interrupt(daemons: Sequence[subprocess.Popen[bytes]]) -> None:
    try:
        while all(daemon.poll() is None for daemon in daemons):
            time.sleep(0.5)
    except KeyboardInterrupt:
        say("")
