"""Events and their seals: what is stored, what can be read again, and by whom."""

import gc
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
from eventsourcing.persistence import Notification, StoredEvent
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.ledger.events import SEALED, Recorded, Registry, UnreadableEvent, event, message_id_of, personal
from broker.ledger.files import create_private_file
from broker.ledger.folder import LedgerFolder
from broker.ledger.vault import KeyMissing, SealBroken, Vault, VaultLocked
from tests.ledger.samples import REGISTRY, Counted, Known, Noted, Totals, clock

AT = "2026-11-21T09:30:00.000000+09:00"
PERSON = "連携 太郎"


def place_at(stored: StoredEvent, position: int = 1) -> Notification:
    return Notification(**vars(stored), id=position)


def encode(
    vault: Vault,
    domain_event: Any,
    *,
    registry: Registry = REGISTRY,
    stream: str = "s",
    version: int = 1,
    at: str = AT,
) -> Notification:
    key_id = registry.key_id(domain_event, at)
    vault.ensure([key_id] if key_id else [])
    return place_at(registry.encode(stream, version, domain_event, "m1", at, vault))


def test_an_event_comes_back_as_it_was(vault: Vault) -> None:
    for topic, each in (
        ("sample.noted/1", Noted("x", PERSON)),
        ("sample.counted/1", Counted(-7)),
        ("sample.known/1", Known("P1", PERSON)),
    ):
        stored = encode(vault, each, version=3)
        assert stored.topic == topic
        assert REGISTRY.decode(stored, vault) == Recorded(1, "s", 3, "m1", AT, each)


@pytest.mark.parametrize(
    "topic", ["sample.unheard/1", "noted/1", "sample.noted/2", "sample.noted/0", "", "os/1"]
)
def test_the_registry_is_closed(vault: Vault, topic: str) -> None:
    stored = replace(encode(vault, Noted("x", PERSON)), topic=topic)
    for key in (vault, None):
        with pytest.raises((UnreadableEvent, SealBroken)):
            REGISTRY.decode(stored, key)
    with pytest.raises(UnreadableEvent):
        REGISTRY.decode(replace(encode(vault, Counted(1)), topic=topic), None)


def test_a_topic_never_names_code_to_import(vault: Vault) -> None:
    """A row of a database must not decide what is run (the stock library imports what a topic names)."""
    module = "antigravity"
    assert module not in sys.modules
    with pytest.raises(UnreadableEvent):
        REGISTRY.decode(replace(encode(vault, Counted(1)), topic=f"{module}:fly/1"), vault)
    assert module not in sys.modules


def test_an_event_type_outside_the_registry_is_not_written(vault: Vault) -> None:
    @dataclass(frozen=True)
    @event("sample.foreign", retention="sample")
    class Foreign:
        pass

    with pytest.raises(KeyError):
        REGISTRY.encode("s", 1, Foreign(), "m1", AT, vault)


def test_two_types_of_one_name_are_refused() -> None:
    @dataclass(frozen=True)
    @event("sample.counted", 2, retention="sample")
    class Another:
        pass

    with pytest.raises(ValueError, match=r"two event types are called sample\.counted"):
        Registry((Counted, Another))


def test_the_stored_name_has_nothing_of_the_module(vault: Vault) -> None:
    stored = encode(vault, Noted("x", PERSON))
    for name in (__name__, Noted.__module__, "Noted", "tests"):
        assert name not in stored.topic
        assert name.encode() not in stored.state

    @dataclass(frozen=True)
    @event("sample.noted", retention="sample")
    class Remark:
        """The same event after a renaming, in another module."""

        label: str
        secret: str = personal()

    assert Registry((Remark,)).decode(stored, vault).event == Remark("x", PERSON)


def _with_person(fields: dict[str, Any]) -> dict[str, Any]:
    return {"name": fields["label"], "secret": fields["secret"]}


def _with_count(fields: dict[str, Any]) -> dict[str, Any]:
    return fields | {"count": 1}


@dataclass(frozen=True)
@event("sample.noted", 3, retention="sample", upgrades={1: _with_person, 2: _with_count})
class NotedNow:
    name: str
    count: int
    secret: str = personal()


@dataclass(frozen=True)
@event("sample.noted", 2, retention="sample", upgrades={1: _with_person})
class NotedBefore:
    name: str
    secret: str = personal()


@pytest.mark.parametrize("old", [Noted("x", PERSON), NotedBefore("x", PERSON), NotedNow("x", 1, PERSON)])
def test_older_versions_are_upgraded_step_by_step(vault: Vault, old: Any) -> None:
    stored = encode(vault, old, registry=Registry((type(old),)))
    now = Registry((NotedNow,))
    assert now.decode(stored, vault).event == NotedNow("x", 1, PERSON)
    assert now.decode(stored, None).event == NotedNow("x", 1, SEALED)


def test_what_no_upgrade_leads_to_is_unreadable(vault: Vault) -> None:
    @dataclass(frozen=True)
    @event("sample.noted", 3, retention="sample", upgrades={2: _with_count})
    class Gap:
        label: str
        count: int
        secret: str = personal()

    with pytest.raises(UnreadableEvent, match=r"position 1: sample\.noted/1 does not fit Gap"):
        Registry((Gap,)).decode(encode(vault, Noted("x", PERSON)), vault)
    newer = encode(vault, NotedNow("x", 1, PERSON), registry=Registry((NotedNow,)))
    with pytest.raises(UnreadableEvent, match=r"sample\.noted/3 does not fit Noted"):
        REGISTRY.decode(newer, vault)


def test_a_version_from_the_future_is_not_read_as_today_s(vault: Vault) -> None:
    """Also where its fields happen to fit: they may mean something else by then."""
    with pytest.raises(UnreadableEvent):
        REGISTRY.decode(replace(encode(vault, Counted(1)), topic="sample.counted/2"), vault)


@settings(max_examples=300)
@example(flips=[(488, 64)])
@given(flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=4))
def test_damaged_bytes_are_unreadable_and_nothing_worse(
    opened: tuple[Vault, list[Notification]], flips: list[tuple[int, int]]
) -> None:
    vault, events = opened
    for stored in events:
        state = bytearray(stored.state)
        for index, bits in flips:
            state[index % len(state)] ^= bits
        damaged = replace(stored, state=bytes(state))
        for key in (vault, None):
            try:
                recorded = REGISTRY.decode(damaged, key)
            except (UnreadableEvent, SealBroken, KeyMissing):
                continue
            assert isinstance(recorded.event, Noted | Counted)
        assert message_id_of(damaged.state) is None or isinstance(message_id_of(damaged.state), str)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Vault, list[Notification]]]:
    vault = Vault(tmp_path_factory.mktemp("opened"))
    yield vault, [encode(vault, Noted("x", PERSON)), encode(vault, Counted(7))]
    vault.close()


@pytest.mark.parametrize(
    "state", [b"", b"state", msgpack.packb([1, 2]), msgpack.packb(["m", AT, 5, None, None])]
)
def test_other_bytes_are_no_event(vault: Vault, state: bytes) -> None:
    with pytest.raises(UnreadableEvent, match="position 9"):
        REGISTRY.decode(Notification("s", 1, "sample.counted/1", state, id=9), vault)


def test_what_is_personal_is_never_in_the_stored_bytes(vault: Vault) -> None:
    secrets = {PERSON, "199001234567", "secret"}
    for secret in (PERSON, "199001234567"):
        stored = encode(vault, Noted("label", secret))
        assert b"label" in stored.state
        for encoding in ("utf-8", "cp932", "utf-16-le", "utf-16-be"):
            for text in secrets:
                assert text.encode(encoding) not in stored.state


def test_the_same_secret_is_sealed_differently_each_time(vault: Vault) -> None:
    assert encode(vault, Noted("x", PERSON)).state != encode(vault, Noted("x", PERSON)).state


def test_a_repr_hides_what_is_personal(vault: Vault) -> None:
    recorded = REGISTRY.decode(encode(vault, Noted("x", PERSON)), vault)
    assert recorded.event.secret == PERSON
    for text in (repr(recorded), str(recorded), f"{recorded.event}"):
        assert PERSON not in text
        assert "Noted(label='x')" in text


def test_without_a_vault_sealed_fields_stay_sealed(vault: Vault) -> None:
    recorded = REGISTRY.decode(encode(vault, Noted("x", PERSON)), None)
    assert recorded.event.label == "x"
    assert recorded.event.secret is SEALED
    assert str(SEALED) == "SEALED"


MOVES: dict[str, Callable[[Notification], Notification]] = {
    "stream": lambda stored: replace(stored, originator_id="t"),
    "version": lambda stored: replace(stored, originator_version=2),
    "topic": lambda stored: replace(stored, topic="sample.known/1"),
}


@pytest.mark.parametrize("move", MOVES)
def test_a_seal_that_was_moved_does_not_open(vault: Vault, move: str) -> None:
    stored = encode(vault, Noted("x", PERSON))
    with pytest.raises(SealBroken, match="sealed under sample/2026-11"):
        REGISTRY.decode(MOVES[move](stored), vault)


def test_a_seal_put_into_another_event_does_not_open(vault: Vault) -> None:
    first, second = encode(vault, Noted("x", PERSON)), encode(vault, Noted("y", "other"), version=2)
    mixed = msgpack.unpackb(first.state)
    mixed[4] = msgpack.unpackb(second.state)[4]
    with pytest.raises(SealBroken):
        REGISTRY.decode(replace(first, state=msgpack.packb(mixed)), vault)


@pytest.mark.parametrize("box", [b"", b"short", bytes(12), bytes(28)])
def test_a_box_that_is_no_box_does_not_open(vault: Vault, box: bytes) -> None:
    vault.ensure(["k"])
    with pytest.raises(SealBroken):
        vault.open("k", box, b"")


def test_a_missing_key_is_named(vault: Vault, tmp_path: Path) -> None:
    stored = encode(vault, Noted("x", PERSON))
    with closing(Vault(tmp_path / "another")) as another, pytest.raises(KeyMissing, match="sample/2026-11"):
        REGISTRY.decode(stored, another)
    with pytest.raises(KeyMissing, match="never made"):
        vault.seal("never made", b"", b"")


def test_one_key_for_each_month_and_for_each_person(vault: Vault) -> None:
    assert REGISTRY.key_id(Noted("x", PERSON), AT) == "sample/2026-11"
    assert REGISTRY.key_id(Noted("x", PERSON), "2026-12-01T00:00:00.000000+09:00") == "sample/2026-12"
    assert REGISTRY.key_id(Known("P1", PERSON), AT) == "person/P1"
    assert REGISTRY.key_id(Counted(1), AT) is None


def test_without_a_person_s_key_only_that_person_is_unreadable(vault: Vault, tmp_path: Path) -> None:
    first, second = encode(vault, Known("P1", PERSON)), encode(vault, Known("P2", PERSON))
    vault._rows.execute("DELETE FROM key WHERE id = 'person/P1'")
    with closing(Vault(tmp_path / "vault")) as opened_again:
        with pytest.raises(KeyMissing, match="person/P1"):
            REGISTRY.decode(first, opened_again)
        assert REGISTRY.decode(first, None).event == Known("P1", SEALED)
        assert REGISTRY.decode(second, opened_again).event == Known("P2", PERSON)


def test_keys_outlive_the_vault_s_closing(vault: Vault, tmp_path: Path) -> None:
    stored = encode(vault, Noted("x", PERSON))
    blind, secret = vault.blind("name", PERSON), vault.secret("log", lambda: bytes(32))
    with closing(Vault(tmp_path / "vault")) as again:
        assert REGISTRY.decode(stored, again).event == Noted("x", PERSON)
        assert again.blind("name", PERSON) == blind
        assert again.secret("log", lambda: b"another".ljust(32)) == secret


def test_a_key_that_another_process_makes_at_the_same_moment(vault: Vault, tmp_path: Path) -> None:
    """Both have seen that it is missing; the first one stays, and both use it."""
    with closing(Vault(tmp_path / "vault")) as other:
        sealed: list[bytes] = []

        def meanwhile(statement: str) -> None:
            if statement == "BEGIN IMMEDIATE" and not sealed:
                other.ensure(["k"])
                sealed.append(other.seal("k", b"x", b"p"))

        vault._rows.set_trace_callback(meanwhile)
        vault.ensure(["k"])
        assert vault.open("k", sealed[0], b"p") == b"x"
    with closing(Vault(tmp_path / "vault")) as again:
        assert again.open("k", sealed[0], b"p") == b"x"
        assert again.open("k", vault.seal("k", b"y", b"p"), b"p") == b"y"


def test_two_vaults_made_at_once_are_one(tmp_path: Path) -> None:
    """Whoever loses the race for the key-encryption key must take the winner's."""
    code = (
        "import sys; from pathlib import Path; from broker.ledger.vault import Vault\n"
        "print('ready', flush=True); sys.stdin.readline(); vault = Vault(Path(sys.argv[1]))\n"
        "print(vault.blind('a', 'b')); vault.close()"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "vault")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for _ in range(3)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert len({process.communicate()[0] for process in running}) == 1
    assert [process.returncode for process in running] == [0, 0, 0]


def test_the_key_encryption_key_of_another_vault(vault: Vault, tmp_path: Path) -> None:
    vault.ensure(["k"])
    with closing(Vault(tmp_path / "another")):
        os.replace(tmp_path / "another" / "kek", tmp_path / "vault" / "kek")
    with pytest.raises(VaultLocked):
        Vault(tmp_path / "vault")
    gc.collect()  # a connection that the failed opening left behind would warn here


def test_keys_are_wrapped_where_they_lie(vault: Vault, tmp_path: Path) -> None:
    known = bytes(range(32))
    vault.secret("log", lambda: known)
    kek = (tmp_path / "vault" / "kek").read_bytes()
    stored = (tmp_path / "vault" / "vault.sqlite").read_bytes()
    assert known not in stored
    assert kek not in stored


def test_only_the_owner_may_read_a_ledger_s_files(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = tmp_path / "ledger"
        opened = LedgerFolder(folder, "test/folder", (Noted, Counted, Known), [Totals()], clock)
        opened.vault.ensure(["k"])
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}
        opened.close()
    finally:
        os.umask(before)
    assert {"kek", "vault.sqlite", "events.sqlite", "projections.sqlite", "ledger.vkey"} <= modes.keys()
    assert set(modes.values()) == {0o600}, modes
    assert stat.S_IMODE((folder / "vault").stat().st_mode) == 0o700


def test_a_private_file_never_replaces_another(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    create_private_file(path, b"first")
    with pytest.raises(FileExistsError):
        create_private_file(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_blind_index_finds_again_and_tells_nothing(vault: Vault, tmp_path: Path) -> None:
    blind = vault.blind("name", PERSON)
    assert blind == vault.blind("name", PERSON)
    assert len(blind) == 32
    int(blind, 16)
    with closing(Vault(tmp_path / "another")) as another:
        others = [vault.blind("name", "another"), vault.blind("kana", PERSON), another.blind("name", PERSON)]
    assert len({blind, *others}) == 4
