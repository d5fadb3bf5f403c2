"""The vault: who may read its key, the change of that key, and keys that are closed and destroyed."""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from broker.ledger import kek
from broker.ledger.kek import FileKeys
from broker.ledger.vault import (
    Erased,
    KeyDestroyed,
    KeyMissing,
    KeyState,
    Vault,
    VaultExposed,
    VaultLocked,
)
from tests.ledger.dying import died

RULE, AT = "施行令第30条", "2033-12-01T09:30:00.000000+09:00"
PLACE = b"place"


@pytest.fixture
def other(vault: Vault, tmp_path: Path) -> Iterator[Vault]:
    """The same vault, opened a second time as another process has it."""
    with closing(Vault(tmp_path / "vault")) as other:
        yield other


def sealed(vault: Vault, name: str, text: bytes) -> tuple[str, bytes]:
    """The id of the key and the box."""
    vault.ensure([name])
    key_id = vault.current(name)
    return key_id, vault.seal(key_id, text, PLACE)


def wrapped(folder: Path) -> dict[str, bytes]:
    with closing(sqlite3.connect(folder / "vault.sqlite")) as rows:
        return dict(rows.execute("SELECT id, wrapped FROM key").fetchall())


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# -- the key-encryption key ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o606, 0o610, 0o700 | 0o001])
def test_a_key_that_others_may_read_is_refused(vault: Vault, tmp_path: Path, mode: int) -> None:
    (tmp_path / "vault" / "kek").chmod(mode)
    with pytest.raises(VaultExposed, match=r"kek: chmod 600"):
        Vault(tmp_path / "vault")
    (tmp_path / "vault" / "kek").chmod(0o600)
    Vault(tmp_path / "vault").close()


@pytest.mark.parametrize("content", [None, b"", b"short", bytes(32), bytes(range(32))])
def test_without_its_own_key_the_vault_stays_shut_and_makes_no_other(
    vault: Vault, tmp_path: Path, content: bytes | None
) -> None:
    folder = tmp_path / "vault"
    key_id, box = sealed(vault, "a", b"text")
    kept = (folder / "kek").read_bytes()
    (folder / "kek").unlink()
    if content is not None:
        (folder / "kek").write_bytes(content)
        (folder / "kek").chmod(0o600)
    with pytest.raises(VaultLocked, match=vault.kek_id):
        Vault(folder)
    assert files(folder) == {"vault.sqlite"} | ({"kek"} if content is not None else set())
    (folder / "kek").write_bytes(kept)
    (folder / "kek").chmod(0o600)
    with closing(Vault(folder)) as again:
        assert again.open(key_id, box, PLACE) == b"text"


def test_a_vault_that_was_lost_does_not_take_its_key_along(vault: Vault, tmp_path: Path) -> None:
    """The file may yet come back from a backup, and then needs the key that was there."""
    folder = tmp_path / "vault"
    box = sealed(vault, "a", b"text")
    kept, key = (folder / "vault.sqlite").read_bytes(), (folder / "kek").read_bytes()
    (folder / "vault.sqlite").unlink()
    Vault(folder).close()
    assert (folder / "kek").read_bytes() == key
    (folder / "vault.sqlite").write_bytes(kept)
    with closing(Vault(folder)) as again:
        assert again.open(*box, PLACE) == b"text"


def test_what_an_operator_put_beside_the_key_stays(vault: Vault, tmp_path: Path) -> None:
    (tmp_path / "vault" / "kek.txt").write_text("where the copy is kept", encoding="utf-8")
    vault.rotate()
    assert files(tmp_path / "vault") == {"kek", "kek.txt", "vault.sqlite"}


def test_keys_that_say_not_what_wraps_them_are_not_wrapped_anew(vault: Vault, tmp_path: Path) -> None:
    vault._rows.execute("DELETE FROM kek")
    before = (tmp_path / "vault" / "kek").read_bytes()
    with pytest.raises(VaultLocked):
        Vault(tmp_path / "vault")
    assert (tmp_path / "vault" / "kek").read_bytes() == before


def test_the_id_and_the_repr_tell_nothing_of_the_key(tmp_path: Path) -> None:
    made = FileKeys(tmp_path).make()
    raw = (tmp_path / "kek.new").read_bytes()
    assert len(raw) == 32
    for text in (made.id, repr(made)):
        assert raw.hex()[:8] not in text


# -- rotation -----------------------------------------------------------------------------------------


def test_after_a_rotation_all_opens_and_nothing_is_wrapped_as_before(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.ledger.vault._REWRAPPED", 7)  # several parts
    folder = tmp_path / "vault"
    boxes = [sealed(vault, f"k{number}", b"%d" % number) for number in range(20)]
    secret, blind = vault.secret("log", lambda: bytes(32)), vault.blind("name", "value")
    before, old = wrapped(folder), (folder / "kek").read_bytes()
    first = vault.kek_id
    assert vault.rotate() == vault.kek_id != first
    after = wrapped(folder)
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())
    assert files(folder) == {"kek", "vault.sqlite"}
    assert (folder / "kek").read_bytes() != old
    assert stat.S_IMODE((folder / "kek").stat().st_mode) == 0o600
    for opened in (vault, Vault(folder)):
        with closing(opened):
            assert [opened.open(*box, PLACE) for box in boxes] == [b"%d" % number for number in range(20)]
            assert opened.secret("log", lambda: b"another".ljust(32)) == secret
            assert opened.blind("name", "value") == blind


def test_the_old_key_is_overwritten_where_it_lay(vault: Vault, tmp_path: Path) -> None:
    """Whoever still has the old file open reads zeros; removing a file leaves its bytes on the disk."""
    with (tmp_path / "vault" / "kek").open("rb") as old:
        vault.rotate()
        assert old.read() == bytes(32)


def test_others_go_on_through_rotations(vault: Vault, other: Vault, tmp_path: Path) -> None:
    known, unknown = sealed(vault, "known", b"1"), sealed(vault, "unknown", b"2")
    assert other.open(*known, PLACE) == b"1"
    for number in range(3):
        (vault, other)[number % 2].rotate()
        for each in (vault, other):
            assert each.open(*known, PLACE) == b"1"
            assert each.open(*unknown, PLACE) == b"2"
            made = sealed(each, f"made-{number}-{each is vault}", b"3")
            with closing(Vault(tmp_path / "vault")) as third:
                assert third.open(*made, PLACE) == b"3"
    vault.rotate()
    assert other.secret("late", lambda: bytes(16)) == bytes(16)
    assert vault.secret("late", lambda: b"another".ljust(16)) == bytes(16)


def test_a_rotation_that_fails_changes_nothing(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "vault"
    box = sealed(vault, "a", b"text")
    before, kek_before, first = wrapped(folder), (folder / "kek").read_bytes(), vault.kek_id

    def full(_self: object, _raw: bytes) -> bytes:
        raise OSError("no space")

    with monkeypatch.context() as broken:
        broken.setattr(kek.FileKey, "wrap", full)
        with pytest.raises(OSError, match="no space"):
            vault.rotate()
    assert (wrapped(folder), (folder / "kek").read_bytes(), vault.kek_id) == (before, kek_before, first)
    assert files(folder) == {"kek", "vault.sqlite"}
    assert vault.open(*box, PLACE) == b"text"


ROTATION = [
    ("BEGIN IMMEDIATE", 1),
    ("broker.ledger.kek:FileKeys.make", 1),
    ("broker.ledger.files:create_private_file", 1),
    ("broker.ledger.kek:FileKey.wrap", 1),
    ("UPDATE key", 2),
    ("UPDATE kek", 1),
    ("COMMIT", 1),
    ("BEGIN IMMEDIATE", 2),
    ("broker.ledger.kek:FileKeys.keep", 1),
    ("broker.ledger.files:overwrite", 1),
    ("broker.ledger.kek:Path.replace", 1),
    ("broker.ledger.files:sync", 2),
    ("COMMIT", 2),
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("step", "number"), ROTATION)
def test_a_rotation_that_is_killed_is_finished_or_undone(
    vault: Vault, tmp_path: Path, step: str, number: int, when: str
) -> None:
    folder = tmp_path / "vault"
    boxes = [sealed(vault, f"k{i}", b"%d" % i) for i in range(3)]
    blind, first = vault.blind("name", "value"), vault.kek_id
    assert died("rotate", folder, step, when, number)
    committed = (step, number, when) == ("COMMIT", 1, "after") or ROTATION.index((step, number)) > 6
    # Who had it open goes on, before anybody has opened it again and after.
    assert [vault.open(*box, PLACE) for box in boxes] == [b"0", b"1", b"2"]
    made = sealed(vault, "made", b"made")
    with closing(Vault(folder)) as again:
        assert (again.kek_id != first) == committed
        assert files(folder) == {"kek", "vault.sqlite"}
        assert [again.open(*box, PLACE) for box in [*boxes, made]] == [b"0", b"1", b"2", b"made"]
        assert again.blind("name", "value") == blind
        assert again.rotate() not in (first, vault.kek_id)
    assert [vault.open(*box, PLACE) for box in boxes] == [b"0", b"1", b"2"]


def test_a_leftover_of_writing_a_key_is_removed_and_the_key_stays(vault: Vault, tmp_path: Path) -> None:
    """A crash between giving a file its name and taking away its first one leaves the same file twice."""
    folder = tmp_path / "vault"
    box = sealed(vault, "a", b"text")
    os.link(folder / "kek", folder / "kek.new.0123456789abcdef.new")
    with closing(Vault(folder)) as again:
        assert files(folder) == {"kek", "vault.sqlite"}
        assert again.open(*box, PLACE) == b"text"


# -- closing and destroying ---------------------------------------------------------------------------


def test_a_closed_key_opens_and_seals_no_more(vault: Vault, other: Vault) -> None:
    first = sealed(vault, "a", b"1")
    assert sealed(other, "a", b"")[0] == first[0] == "a"
    vault.retire("a", RULE)
    for each in (other, vault):
        second = sealed(each, "a", b"2")
        assert second[0] == "a~2"
        assert each.open(*first, PLACE) == b"1"
        assert each.open(*second, PLACE) == b"2"
    vault.retire("a", "another rule")
    assert vault.states() == [KeyState("a", RULE, ""), KeyState("a~2", "", "")]
    assert {state.name for state in vault.states()} == {"a"}


def test_a_destroyed_key_opens_nothing_and_says_why(vault: Vault, other: Vault, tmp_path: Path) -> None:
    box = sealed(vault, "a", b"1")
    assert other.open(*box, PLACE) == b"1"  # from here on it is in the other one's memory
    vault.retire("a", RULE)
    assert vault.destroy("a", AT) == Erased(RULE, AT)
    with closing(Vault(tmp_path / "vault")) as third:
        for each in (vault, other, third):
            with pytest.raises(KeyDestroyed, match="a: ") as caught:
                each.open(*box, PLACE)
            assert caught.value.erased == Erased(RULE, AT)
            with pytest.raises(KeyDestroyed):
                each.seal("a", b"", PLACE)
    said = str(Erased(RULE, AT))
    assert said == "施行令第30条の規定により2033-12-01に消去済み (erased under 施行令第30条 on 2033-12-01)"
    assert not issubclass(KeyDestroyed, KeyMissing)


def test_destroying_again_changes_nothing(vault: Vault) -> None:
    sealed(vault, "a", b"1")
    vault.retire("a", RULE)
    for at in (AT, "2040-01-01T00:00:00.000000+09:00"):
        vault.retire("a", "another rule")
        assert vault.destroy("a", at) == Erased(RULE, AT)
    assert vault.states() == [KeyState("a", RULE, AT)]


@pytest.mark.parametrize("key_id", ["never", "secret/log", "secret/blind", "open"])
def test_what_was_not_closed_is_not_destroyed(vault: Vault, key_id: str) -> None:
    vault.secret("log", lambda: bytes(32))
    box = sealed(vault, "open", b"text")
    with pytest.raises(KeyMissing, match=key_id):
        vault.destroy(key_id, AT)
    if key_id != "open":
        with pytest.raises(KeyMissing, match=key_id):
            vault.retire(key_id, RULE)
    assert vault.secret("log", lambda: b"another".ljust(32)) == bytes(32)
    assert vault.open(*box, PLACE) == b"text"
    assert vault.states() == [KeyState("open", "", "")]


def test_a_name_never_gets_a_destroyed_key_again(vault: Vault, other: Vault) -> None:
    for number, opened in enumerate((vault, other, vault, other), 1):
        box = sealed(opened, "person/P1", b"%d" % number)
        assert box[0] == ("person/P1" if number == 1 else f"person/P1~{number}")
        assert (vault, other)[number % 2].open(*box, PLACE) == b"%d" % number
        (vault, other)[number % 2].retire(box[0], RULE)
        (vault, other)[number % 2].destroy(box[0], AT)


def test_a_key_that_is_closed_while_another_process_makes_it(vault: Vault, other: Vault) -> None:
    """It looked, found none, and has to look again before it makes one."""
    done: list[str] = []

    def meanwhile(statement: str) -> None:
        if statement == "BEGIN IMMEDIATE" and not done:
            done.append(sealed(other, "a", b"")[0])
            other.retire("a", RULE)
            other.destroy("a", AT)

    vault._rows.set_trace_callback(meanwhile)
    assert sealed(vault, "a", b"text")[0] == "a~2"
    assert done == ["a"]


@pytest.mark.parametrize("name", ["person/P1~2", "~"])
def test_a_name_that_looks_like_a_generation_is_refused(vault: Vault, name: str) -> None:
    with pytest.raises(ValueError, match="~"):
        vault.ensure([name])
    assert vault.states() == []


def test_no_file_holds_a_destroyed_key_in_any_form(vault: Vault, other: Vault, tmp_path: Path) -> None:
    """Many keys, so that pages split and merge: a deleted cell can survive in the free room of a page."""
    folder = tmp_path / "vault"
    names = [f"person/{number:032x}" for number in range(0, 4_000, 2)]
    vault.ensure(names)
    vault.ensure(f"person/{number:032x}" for number in range(1, 4_000, 2))
    assert len(wrapped(folder)) == 4_001
    gone = names[::100]
    kept = [wrapped(folder)[name] for name in gone]
    for name in gone:
        vault.retire(name, RULE)
        vault.destroy(name, AT)
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    assert files(folder) == {"kek", "vault.sqlite"}
    assert not [box for box in kept if box in content or box[8:24] in content]
    assert not [name for name in gone if name in wrapped(folder)]
    assert wrapped(folder)[names[1]] in content


def test_the_memory_of_a_vault_is_bounded(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.ledger.vault._CACHED_KEYS", 10)
    boxes = [sealed(vault, f"k{number}", b"%d" % number) for number in range(40)]
    vault.ensure(f"k{number}" for number in range(40))
    assert len(vault._keys) <= 10
    assert [vault.open(*box, PLACE) for box in boxes] == [b"%d" % number for number in range(40)]
    assert vault.current("k3") == "k3"
    assert len(vault._keys) <= 10


def test_sealing_by_a_ready_key_asks_the_file_nothing_but_whether_it_changed(vault: Vault) -> None:
    names = [f"k{number}" for number in range(50)]
    vault.ensure(names)
    vault.ensure(names)
    asked: list[str] = []
    vault._rows.set_trace_callback(asked.append)
    vault.ensure(names)
    for name in names:
        vault.seal(vault.current(name), b"text", PLACE)
    assert asked == ["PRAGMA data_version"]
