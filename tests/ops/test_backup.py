"""Export, import, backup and restore of an agency: all of it comes back, and nothing else.

As a process that is killed: `python -m tests.ops.test_backup FUNCTION COUNT ARGUMENT...` runs the command of
these arguments and dies when it calls that function of ops.backup for the COUNTth time.
"""

import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.intermediate.staff import AuthorityGranted
from broker.ledger.events import key_of
from broker.ledger.folder import EVENTS, VERIFIER_KEY, LedgerFolder
from broker.ledger.ledger import Change, Unit
from broker.ledger.notes import NoteSigner
from broker.ledger.postgres import PostgresDatabase
from broker.ledger.store import Head
from broker.ledger.vault import Erased, KeyDestroyed, Vault
from ops import backup
from ops.audit import Evidence
from ops.cli import main
from ops.daemons import ADDRESSING, addressing_folder, agency_folder
from tests import house as at_home
from tests.house import ASKING, House, Keys, contents, events_of, open_house, order, resident
from tests.ops.folders import READER, renkei
from tests.ops.test_records import asked_about
from tests.ops.town import ANSWERER, ASKER, Town
from tests.servers import running

keys, furnished = at_home.keys, at_home.furnished

RULE, DAY = "番号法施行令第30条", "2026-12-01T00:00:00+00:00"
GRANT = AuthorityGranted("s0002", "保険年金課", "affair_officer", ("81",), "2026-04-01", "2027-03-31")
Said = pytest.CaptureFixture[str]


@pytest.fixture
def data(furnished: Path, tmp_path: Path) -> Path:
    """The data folder of 連携市, at rest."""
    return Path(shutil.copytree(furnished, tmp_path / "house")) / ASKING.code


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "backup"


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def keks(data: Path) -> list[Path]:
    return [data / "vault" / "kek", data / ADDRESSING / "vault" / "kek"]


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def manifest(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / backup.MANIFEST).read_bytes())
    return read


def opened(data: Path, database: PostgresDatabase | None = None) -> tuple[LedgerFolder, LedgerFolder]:
    open_store = database.store if database else None
    return agency_folder(data, ASKING.code, open_store), addressing_folder(data, ASKING.code, open_store)


def everything(data: Path, database: PostgresDatabase | None = None) -> list[object]:
    """What the ledgers of an agency hold, with all that their keys open, and their projections."""
    found: list[object] = []
    for folder in opened(data, database):
        with closing(folder):
            store, registry = folder.ledger.store, folder.ledger.registry
            folder.tables.catch_up(store, registry)
            events = [registry.decode(stored, folder.vault) for stored in store.events(0, 10_000)]
            heads = store.checkpoints(0, 10_000)
            found += [events, heads, [store.cosignatures(head.size) for head in heads]]
            found += [folder.vault.states(), folder.vault.kek_id, folder.tables.digests()]
    return found


def append(data: Path, staff: str, database: PostgresDatabase | None = None) -> Head:
    """One more event in the ledger of linkage and intermediate interface."""

    async def work(folder: LedgerFolder) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(folder.ledger.run)
            await folder.ledger.append(Unit(f"grant/{staff}", (Change(f"staff/{staff}", 0, (GRANT,)),)))
            nursery.cancel_scope.cancel()

    with closing(opened(data, database)[0]) as folder:
        trio.run(work, folder)
        return folder.ledger.store.head()


# -- a backup and back --------------------------------------------------------------------------------------


def test_a_backup_holds_the_ledgers_and_no_key_that_opens_them(data: Path, into: Path, capsys: Said) -> None:
    before = everything(data)
    assert run("backup", data, "--into", into) == 0
    said = capsys.readouterr().out
    assert "鍵暗号化鍵は控えに入れていません" in said
    for kek in keks(data):
        assert str(kek) in said
        assert not any(kek.read_bytes() in content for content in files(into).values())
    found = manifest(into)
    assert [(ledger["folder"], ledger["origin"]) for ledger in found["ledgers"]] == [
        (".", "renkei/990019"),
        (ADDRESSING, "renkei/990019/addressing"),
    ]
    named = [
        ledger[file]["path"] for ledger in found["ledgers"] for file in ("export", "vault", "verifier_key")
    ]
    assert sorted([*named, "manifest.json"]) == sorted(files(into))
    assert all((into / name).stat().st_mode & 0o077 == 0 for name in named)
    restored = into.with_name("restored")
    assert run("restore", into, "--into", restored, "--kek", *keks(data)) == 0
    assert "復元し、検証しました" in (said := capsys.readouterr().out)
    assert said.count("を開封") == 2
    assert everything(restored) == before == everything(data)
    assert run("audit", "verify", restored) == 0
    # What is not restored is made anew, or forgotten on purpose.
    assert {"staging.sqlite"} == {f.name for f in data.rglob("*.sqlite")} - {
        f.name for f in restored.rglob("*.sqlite")
    }
    # And the ledger goes on with its own keys.
    assert append(restored, "s0002").size == append(data, "s0002").size
    assert run("audit", "verify", restored) == 0


def test_a_restored_agency_goes_on_where_it_was(keys: Keys, data: Path, into: Path, tmp_path: Path) -> None:
    async def answered(house: House) -> None:
        for town in house.towns.values():
            await town.look_around()
        await house.answer(0)

    async def gone_on(house: House) -> None:
        for town in house.towns.values():
            await town.look_around()
        await house.post()
        assert (await house.asking.result("q-1")).state == "answered"
        assert await house.asking.platform.inquire(order("q-2", 1)) is None
        await house.post()
        assert (await house.asking.result("q-2")).state == "answered"
        assert resident(ASKING, 0).encode() in contents(await events_of(house.asking.people.ledger))

    async def at_home(opening: int, work: Callable[[House], Awaitable[None]]) -> None:
        async with open_house(data.parent, keys, opening=opening) as house:
            await work(house)

    trio.run(at_home, 2, answered)
    assert run("backup", data, "--into", into) == 0
    data.rename(tmp_path / "lost")
    assert run("restore", into, "--into", data, "--kek", *keks(tmp_path / "lost")) == 0
    trio.run(at_home, 3, gone_on)


def test_a_restored_agency_shows_the_same_records(demo_copy: Path, into: Path) -> None:
    """The backup is made while the daemon serves and its files are loaded."""
    town = Town(demo_copy)
    number = asked_about(town, "single-1")[ASKER]
    data, config = demo_copy / ASKER, demo_copy / f"{ASKER}.toml"

    def records() -> str:
        result = renkei("records", "--config", config, "--resident", number, *READER)
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout

    try:
        town.start(ASKER, ANSWERER)
        town.ready(ASKER, ANSWERER)
        before = records()
        assert before.startswith("情報提供等の記録 1 件")
        loading = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "ops",
                "load",
                "--config",
                config,
                "staff",
                demo_copy / "input" / "staff.csv",
            ],
            stdout=subprocess.DEVNULL,
        )
        result = renkei("backup", "--config", config, "--into", into)
        assert (result.returncode, result.stderr) == (0, "")
        assert loading.wait() == 0
        assert town.stop() == {ASKER: 0, ANSWERER: 0}
        data.rename(demo_copy / "lost")
        result = renkei("restore", into, "--into", data, "--kek", *keks(demo_copy / "lost"))
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.count("を開封") == 2
        town.start(ASKER, ANSWERER)
        town.ready(ASKER, ANSWERER)
        assert records() == before
        assert town.stop() == {ASKER: 0, ANSWERER: 0}
    finally:
        town.close()
    assert run("audit", "verify", demo_copy / ASKER) == 0


def test_a_backup_is_brought_up_to_date(data: Path, into: Path) -> None:
    assert run("backup", data, "--into", into) == 0
    first, before = files(into), manifest(into)
    assert run("backup", data, "--into", into) == 0
    assert files(into) | {"manifest.json": b""} == first | {"manifest.json": b""}
    append(data, "s0002")
    with closing(Vault(data / "vault")) as vault:
        vault.ensure(["inquiry/2027-01"])
    assert run("backup", data, "--into", into) == 0
    second, after = files(into), manifest(into)
    assert second["events.renkei"].startswith(first["events.renkei"])
    assert len(second["events.renkei"]) > len(first["events.renkei"])
    assert len(second) == len(first)
    old, new = (found["ledgers"][0]["vault"]["path"] for found in (before, after))
    assert old not in second
    assert second[new] != first[old]
    assert before["ledgers"][1] == after["ledgers"][1]
    assert run("restore", into, "--into", into.with_name("restored"), "--kek", *keks(data)) == 0
    assert everything(into.with_name("restored")) == everything(data)


def test_a_key_that_was_destroyed_is_not_in_a_backup_made_later(data: Path, into: Path) -> None:
    addressing = data / ADDRESSING
    with closing(opened(data)[1]) as people:
        sealed = [stored for stored in people.ledger.store.events(0, 100) if key_of(stored.state)]
    key = key_of(sealed[-1].state)
    assert key is not None
    with closing(sqlite3.connect(addressing / "vault" / "vault.sqlite")) as rows:
        wrapped: bytes = rows.execute("SELECT wrapped FROM key WHERE id = ?", (key,)).fetchone()[0]
    assert run("backup", data, "--into", into) == 0
    assert any(wrapped in content for content in files(into).values())
    with closing(Vault(addressing / "vault")) as vault:
        vault.retire(key, RULE)
        vault.destroy(key, DAY)
    assert run("backup", data, "--into", into) == 0
    assert not any(wrapped in content for content in files(into).values())
    restored = into.with_name("restored")
    assert run("restore", into, "--into", restored, "--kek", *keks(data)) == 0
    assert everything(restored) == everything(data)
    with closing(Vault(restored / ADDRESSING / "vault")) as vault:
        with pytest.raises(KeyDestroyed) as caught:
            vault.open(key, b"", b"")
        assert caught.value.erased == Erased(RULE, DAY)
        vault.ensure([key])
        assert vault.current(key) == f"{key}~2"


# -- on PostgreSQL ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresDatabase]:
    with running("postgresql18") as database:
        yield database


@pytest.fixture(scope="module")
def other_database() -> Iterator[PostgresDatabase]:
    with running("postgresql15") as database:
        yield database


def migrated(database: PostgresDatabase) -> PostgresDatabase:
    """With the tables of 連携市, empty."""
    for origin in ("renkei_990019", "renkei_990019_addressing"):
        with database.connection() as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {origin} CASCADE".encode())
    for origin in ("renkei/990019", "renkei/990019/addressing"):
        database.migrate(origin)
    return database


def test_an_agency_moves_from_store_to_store(
    data: Path, into: Path, database: PostgresDatabase, other_database: PostgresDatabase, tmp_path: Path
) -> None:
    one, other = migrated(database), migrated(other_database)
    own = keks(data)
    assert run("backup", data, "--into", into) == 0
    at_one = tmp_path / "one"
    assert run("restore", into, "--into", at_one, "--kek", *own, "--store", one.url) == 0
    assert not (at_one / EVENTS).exists()
    assert everything(at_one, one) == everything(data)
    assert append(at_one, "s0002", one).size > 0
    # The same backup goes on, now from the database, and from there to another one and back into files.
    assert run("backup", at_one, "--into", into, "--store", one.url) == 0
    at_other, home = tmp_path / "other", tmp_path / "home"
    assert run("restore", into, "--into", at_other, "--kek", *own, "--store", other.url) == 0
    assert run("restore", into, "--into", home, "--kek", *own) == 0
    assert everything(at_other, other) == everything(home) == everything(at_one, one) != everything(data)
    assert run("audit", "verify", home) == 0


def test_a_database_must_be_ready_and_empty(
    data: Path, into: Path, database: PostgresDatabase, tmp_path: Path, capsys: Said
) -> None:
    assert run("backup", data, "--into", into) == 0
    migrated(database)
    restore = ("restore", into, "--kek", *keks(data), "--store", database.url, "--into")
    assert run(*restore, tmp_path / "one") == 0
    capsys.readouterr()
    assert run(*restore, tmp_path / "two") == 1
    assert "S-145" in capsys.readouterr().err
    with database.connection() as connection:
        connection.execute("DROP SCHEMA renkei_990019 CASCADE")
    assert run(*restore, tmp_path / "three") == 1
    assert "S-108" in capsys.readouterr().err
    assert run("export", tmp_path / "one", "--into", tmp_path / "file", "--store", database.url) == 1
    assert "S-108" in capsys.readouterr().err
    migrated(database)
    assert run(*restore, tmp_path / "three") == 0
    unreachable = "postgresql://renkei@127.0.0.1:1/postgres"
    assert run("export", tmp_path / "one", "--into", tmp_path / "file", "--store", unreachable) == 1
    assert "S-107" in capsys.readouterr().err


# -- killed -------------------------------------------------------------------------------------------------


def killed(function: str, count: int, *arguments: object) -> None:
    command = [sys.executable, "-m", "tests.ops.test_backup", function, str(count), *map(str, arguments)]
    assert subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("function", "count"),
    [("_copy_vault", 1), ("_read_back", 2), ("write_whole", 1), ("_remove_others", 1)],
)
def test_a_killed_backup_leaves_the_earlier_one(function: str, count: int, data: Path, into: Path) -> None:
    assert run("backup", data, "--into", into) == 0
    earlier = everything(data)
    append(data, "s0002")
    with closing(Vault(data / "vault")) as vault:
        vault.ensure(["inquiry/2027-01"])
    killed(function, count, "backup", data, "--into", into)
    restored = into.with_name("restored")
    assert run("restore", into, "--into", restored, "--kek", *keks(data)) == 0
    made = function == "_remove_others"  # the manifest is there by then
    assert everything(restored) == (everything(data) if made else earlier)
    assert run("backup", data, "--into", into) == 0
    assert len(files(into)) == 7
    shutil.rmtree(restored)
    assert run("restore", into, "--into", restored, "--kek", *keks(data)) == 0
    assert everything(restored) == everything(data)


@pytest.mark.parametrize(
    ("function", "count"), [("_place_keys", 2), ("_import", 1), ("_import", 2), ("_prove", 2)]
)
def test_a_killed_restore_goes_on(function: str, count: int, data: Path, into: Path, capsys: Said) -> None:
    assert run("backup", data, "--into", into) == 0
    restored = into.with_name("restored")
    killed(function, count, "restore", into, "--into", restored, "--kek", *keks(data))
    # Only with the same backup: another one is refused.
    other = into.with_name("other")
    assert run("backup", data, "--into", other) == 0
    assert run("restore", other, "--into", restored, "--kek", *keks(data)) == 1
    assert "S-145" in capsys.readouterr().err
    assert run("restore", into, "--into", restored, "--kek", *keks(data)) == 0
    assert everything(restored) == everything(data)
    assert run("restore", into, "--into", restored, "--kek", *keks(data)) == 1
    assert "S-145" in capsys.readouterr().err


# -- refused ------------------------------------------------------------------------------------------------


def test_the_keys_must_fit(data: Path, into: Path, capsys: Said, tmp_path: Path) -> None:
    assert run("backup", data, "--into", into) == 0
    restored, (own, of_people) = tmp_path / "restored", keks(data)
    assert run("restore", into, "--into", restored, "--kek", own) == 1
    said = capsys.readouterr().err
    assert "S-115" in said
    assert manifest(into)["ledgers"][1]["key_encryption_key"] in said
    assert not (restored / ADDRESSING / "vault" / "kek").exists()
    assert run("restore", into, "--into", restored, "--kek", of_people, own) == 0
    # A vault of another ledger whose key-encryption key is at hand is found out, too.
    found = manifest(into)
    found["ledgers"][0]["vault"] = found["ledgers"][1]["vault"]
    found["ledgers"][0]["key_encryption_key"] = found["ledgers"][1]["key_encryption_key"]
    (into / backup.MANIFEST).write_text(json.dumps(found))
    assert run("restore", into, "--into", tmp_path / "again", "--kek", of_people) == 1
    assert "S-115" in capsys.readouterr().err


def test_a_damaged_backup_is_not_restored(data: Path, into: Path, capsys: Said, tmp_path: Path) -> None:
    assert run("backup", data, "--into", into) == 0
    for name, content in files(into).items():
        if name != backup.MANIFEST:
            changed = bytearray(content)
            changed[len(changed) // 2] ^= 1
            for damaged in (bytes(changed), content[:-1], None):
                (into / name).unlink() if damaged is None else (into / name).write_bytes(damaged)
                assert run("restore", into, "--into", tmp_path / "restored", "--kek", *keks(data)) == 1
                said = capsys.readouterr().err
                assert "S-144" in said
                assert name in said
            (into / name).write_bytes(content)
    assert not (tmp_path / "restored").exists()
    good = manifest(into)
    outside = json.loads(json.dumps(good))
    outside["ledgers"][0]["folder"] = "../elsewhere"
    for bad in ("", "[]", "{}", json.dumps(good | {"format": "other"}), json.dumps(outside)):
        (into / backup.MANIFEST).write_text(bad)
        assert run("restore", into, "--into", tmp_path / "restored", "--kek", *keks(data)) == 1
        assert "S-144" in capsys.readouterr().err
    (into / backup.MANIFEST).unlink()
    assert run("restore", into, "--into", tmp_path / "restored", "--kek", *keks(data)) == 1
    assert "S-104" in capsys.readouterr().err


def test_a_backup_goes_where_it_belongs(data: Path, into: Path, capsys: Said, tmp_path: Path) -> None:
    def refused(code: str, *arguments: object) -> None:
        assert run(*arguments) == 1
        assert f"[{code}]" in capsys.readouterr().err

    refused("S-104", "backup", data, "--into", data / "backup")
    refused("S-104", "backup", tmp_path / "nothing", "--into", into)
    other = data.parent / "990027"
    assert run("backup", other, "--into", into) == 0
    refused("S-142", "backup", data, "--into", into)
    handle = os.open(into, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    refused("S-146", "backup", other, "--into", into)
    os.close(handle)
    export = into / backup.EXPORT
    content = export.read_bytes()
    export.write_bytes(content[:500] + b"?" + content[501:])
    refused("S-141", "backup", other, "--into", into)
    (data / "vault" / "vault.sqlite").unlink()
    refused("S-104", "backup", data, "--into", tmp_path / "again")


# -- export and import --------------------------------------------------------------------------------------


def test_a_ledger_is_exported_and_imported(data: Path, tmp_path: Path, capsys: Said) -> None:
    file, there = tmp_path / "ledger.renkei", tmp_path / "there"
    assert run("export", data, "--into", file) == 0
    assert "OK 書き出し完了" in capsys.readouterr().out
    assert file.stat().st_mode & 0o077 == 0
    content = file.read_bytes()
    # Half of it first: it is said that something is missing, and what is there is good.
    file.write_bytes(content[: len(content) // 2])
    assert run("import", file, "--into", there) == 1
    said = capsys.readouterr()
    assert "[S-143]" in said.err
    assert "だれが作ったものかは確かめられません" in said.out
    assert run("audit", "verify", there) == 0
    file.write_bytes(content)
    assert run("import", file, "--into", there, "--key", data / VERIFIER_KEY) == 0
    assert "だれが作ったものか" not in capsys.readouterr().out
    assert run("audit", "verify", there) == 0
    assert head_of(there) == head_of(data)
    assert {path.name for path in there.iterdir()} <= {EVENTS, VERIFIER_KEY, f"{EVENTS}-wal", f"{EVENTS}-shm"}


def head_of(folder: Path) -> Head:
    with Evidence(folder, "", None).store() as store:
        return store.head()


def test_an_import_says_what_is_wrong(data: Path, tmp_path: Path, capsys: Said) -> None:
    file, there, foreign = tmp_path / "ledger.renkei", tmp_path / "there", tmp_path / "foreign.vkey"
    assert run("export", data, "--into", file) == 0
    content = file.read_bytes()

    def refused(code: str, *arguments: object) -> None:
        assert run(*arguments) == 1
        assert f"[{code}]" in capsys.readouterr().err

    file.write_bytes(content[:-200] + b"?" + content[-199:])
    refused("S-141", "import", file, "--into", there)
    file.write_bytes(content)
    assert run("import", file, "--into", there) == 0
    foreign.write_text(NoteSigner("renkei/990019", bytes(32)).verifier_key)
    refused("S-142", "import", file, "--into", there, "--key", foreign)
    refused("S-141", "import", file, "--into", tmp_path / "new", "--key", foreign)
    assert not (tmp_path / "new" / VERIFIER_KEY).exists()
    assert run("import", file, "--into", tmp_path / "new", "--key", data / VERIFIER_KEY) == 0
    assert (tmp_path / "new" / VERIFIER_KEY).read_bytes() == (data / VERIFIER_KEY).read_bytes()
    capsys.readouterr()
    foreign.write_text("no key")
    refused("S-104", "import", file, "--into", tmp_path / "newer", "--key", foreign)
    refused("S-142", "import", file, "--into", data / ADDRESSING)
    refused("S-142", "export", data / ADDRESSING, "--into", file)
    refused("S-104", "export", tmp_path / "nothing", "--into", file)
    refused("S-104", "import", tmp_path / "nothing", "--into", there)
    assert file.read_bytes() == content


def test_a_damaged_ledger_is_not_taken_for_good(data: Path, tmp_path: Path, into: Path, capsys: Said) -> None:
    with closing(sqlite3.connect(data / EVENTS)) as rows, rows:
        rows.execute("UPDATE stored_events SET topic = 'other/1' WHERE rowid = 4")
    for command in (("export", data, "--into", tmp_path / "file"), ("backup", data, "--into", into)):
        assert run(*command) == 1
        assert "[S-101]" in capsys.readouterr().err
    assert not (into / backup.MANIFEST).exists()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    name, left = sys.argv[1], int(sys.argv[2])
    real = getattr(backup, name)

    def deadly(*arguments: Any) -> Any:
        global left
        left -= 1
        return real(*arguments) if left else _die()

    setattr(backup, name, deadly)
    sys.exit(main(sys.argv[3:]))
