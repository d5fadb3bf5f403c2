"""A process dies at each step of everything a ledger goes through, before and after the step is durable.

What must be true then, and again after the work was repeated: the ledger verifies; what was acknowledged is
there; the order is that of the commits; no follower skips; units are whole; to repeat changes nothing; and
the projections are those that a replay gives.
"""

import secrets
from contextlib import closing
from pathlib import Path

import pytest

from broker.ledger import portable
from broker.ledger.events import message_id_of
from broker.ledger.folder import VERIFIER_KEY
from broker.ledger.notes import signer_of
from broker.ledger.projections import ProjectionTables
from broker.ledger.store import Outcome, Store
from broker.ledger.tiles import export_tiles
from ops.audit import verify
from tests.failures import steps
from tests.failures.samples import EVENTS, SECRET
from tests.failures.steps import BULK, DATA, EXPORT, IMPORTED, RESTORED, TILES, WITNESS, WORK, house
from tests.ledger.dying import KEY
from tests.ledger.samples import Noted, Seen, Totals
from tests.servers import Databases

LITE, BIG = "sqlite", "postgresql18"
L, P, V = "broker.ledger", "broker.ledger.projections:ProjectionTables", "broker.ledger.vault:Vault"

# work, stores, the step at which its process dies, which time it is
TABLE = [
    ("append", (LITE, BIG), f"{V}.ensure", 1),
    ("append", (LITE, BIG), f"{L}.notes:NoteSigner.sign", 2),
    ("append", (LITE,), f"{L}.sqlite:_Rows.write", 2),
    ("append", (LITE,), "eventsourcing.sqlite:SQLiteTransaction.__exit__", 2),
    ("append", (BIG,), f"{L}.postgres:_Rows.write", 2),
    ("append", (BIG,), "psycopg:Transaction.__exit__", 2),
    ("append", (BIG,), "psycopg:Pipeline.__exit__", 3),
    ("append", (LITE, BIG), f"{L}.ledger:Ledger._store", 4),
    ("checkpoint", (LITE,), f"{L}.notes:NoteSigner.line", 1),
    ("checkpoint", (LITE,), f"{L}.witness:Witness._record", 1),
    ("checkpoint", (LITE,), f"{L}.witness:Witness.cosign", 1),
    ("checkpoint", (LITE,), f"{L}.sqlite:SQLiteStore.cosign", 1),
    ("checkpoint", (BIG,), f"{L}.postgres:PostgresStore.cosign", 1),
    ("project", (LITE, BIG), f"{P}._apply_all", 2),
    ("project", (LITE, BIG), f"{P}._step", 2),
    ("rebuild", (LITE,), f"{P}.copy_to", 1),
    ("rebuild", (LITE, BIG), f"{P}._step", 2),
    ("rebuild", (LITE,), f"{P}.close", 1),
    ("rebuild", (LITE, BIG), f"{L}.generations:Generations.switch", 1),
    ("rebuild", (LITE,), "pathlib:Path.symlink_to", 1),
    ("rebuild", (LITE,), "pathlib:Path.replace", 1),
    ("rebuild", (LITE,), f"{L}.generations:Generations.clean", 3),
    ("rotate", (LITE,), f"{L}.kek:FileKeys.make", 1),
    ("rotate", (LITE,), f"{L}.kek:FileKey.wrap", 2),
    ("rotate", (LITE,), f"{V}._settle", 2),
    ("rotate", (LITE,), f"{L}.files:overwrite", 1),
    ("rotate", (LITE,), f"{L}.kek:FileKeys.keep", 2),
    ("retain", (LITE, BIG), f"{L}.ledger:Ledger._store", 1),
    ("retain", (LITE,), f"{V}.retire", 1),
    ("destroy", (LITE, BIG), f"{L}.ledger:Ledger._store", 1),
    ("destroy", (LITE,), f"{V}.retire", 1),
    ("destroy", (LITE, BIG), f"{L}.ledger:Ledger._store", 2),
    ("destroy", (LITE,), f"{V}.destroy", 1),
    ("destroy", (LITE, BIG), f"{L}.ledger:Ledger._store", 3),
    ("export", (LITE, BIG), f"{L}.portable:_Writer.frame", 2),
    ("export", (LITE,), f"{L}.portable:_Writer.frame", 6),
    ("export", (LITE,), f"{L}.portable:_Writer.sync", 1),
    ("import", (LITE,), f"{L}.sqlite:SQLiteStore.put", 1),
    ("import", (LITE,), f"{L}.sqlite:SQLiteStore.put", 3),
    ("import", (BIG,), f"{L}.postgres:PostgresStore.put", 1),
    ("import", (BIG,), f"{L}.postgres:PostgresStore.put", 3),
    ("publish", (LITE,), f"{L}.files:write_whole", 1),
    ("publish", (LITE,), f"{L}.files:write_whole", 4),
    ("publish", (LITE,), "pathlib:Path.replace", 5),
    ("back_up", (LITE, BIG), f"{L}.portable:_Writer.sync", 1),
    ("back_up", (LITE,), "ops.backup:_copy_vault", 1),
    ("back_up", (LITE,), "ops.backup:write_whole", 1),
    ("back_up", (LITE,), "ops.backup:_remove_others", 1),
    ("restore", (LITE,), "ops.backup:_claim", 1),
    ("restore", (LITE,), "ops.backup:_place_keys", 1),
    ("restore", (LITE,), f"{L}.sqlite:SQLiteStore.put", 1),
    ("restore", (BIG,), f"{L}.postgres:PostgresStore.put", 1),
    ("restore", (LITE,), "ops.backup:_prove", 1),
]
ROWS = [
    pytest.param(work, kind, step, when, count, id=f"{work}-{kind}-{step.partition(':')[2]}-{count}-{when}")
    for work, kinds, step, count in TABLE
    for kind in kinds
    for when in ("before", "after")
]


def furnished(root: Path, work: str, kind: str, databases: Databases) -> None:
    """A house with a ledger in a store of this kind, or with one that is to be put into such a store."""
    origin, store = f"renkei/{secrets.token_hex(8)}", "sqlite"
    if kind != LITE:
        store = databases[kind].url
        databases[kind].migrate(origin)
    if work in ("import", "restore"):
        (root / "target").write_text(store, encoding="utf-8")
        store = "sqlite"
    (root / "address").write_text(f"{store} {origin}", encoding="utf-8")
    steps.furnish(root)
    if work in ("export", "import", "back_up", "restore"):
        steps.append(root)
    if work == "import":
        steps.export(root)
    if work == "restore":
        steps.back_up(root)


@pytest.mark.parametrize(("work", "kind", "step", "when", "count"), ROWS)
def test_a_death_at_this_step(
    work: str, kind: str, step: str, when: str, count: int, tmp_path: Path, databases: Databases
) -> None:
    furnished(tmp_path, work, kind, databases)
    assert steps.dies(work, tmp_path, step, when, count)
    check(tmp_path, work)
    WORK[work](tmp_path)
    check(tmp_path, work)
    PROOFS[work](tmp_path)


# -- what is true at any time -----------------------------------------------------------------------------


def check(root: Path, work: str) -> None:
    assert verify(root / DATA, steps.address(root)[0]) == 0
    with house(root) as folder:
        store = folder.ledger.store
        check_events(root, store)
        folder.tables.catch_up(store, folder.ledger.registry)
        size = store.head().size
        positions = folder.tables.query("SELECT position FROM seen ORDER BY position")
        assert positions == [(position,) for position in range(1, size + 1)]
        replayed = root / "replayed.sqlite"
        for file in root.glob("replayed*"):
            file.unlink()
        with closing(ProjectionTables(replayed, [Totals(), Seen()])) as tables:
            tables.catch_up(store, folder.ledger.registry)
            assert tables.state() == folder.tables.state()
        for stored in store.events(0, size):
            recorded = folder.ledger.registry.decode(stored, folder.vault)
            if isinstance(recorded.event, Noted) and recorded.erased is None:
                assert recorded.event == Noted(recorded.event.label, SECRET)
            assert recorded.erased is None or work == "destroy"


def check_events(root: Path, store: Store) -> None:
    size = store.head().size
    events = store.events(0, size + 1)
    assert [event.id for event in events] == list(range(1, size + 1))
    units: dict[str, list[int]] = {}
    for event in events:
        units.setdefault(message_id_of(event.state) or "", []).append(event.id)
    for message_id, positions in units.items():
        wanted = 1 if message_id.startswith("key/") else 300 if message_id == BULK.message_id else EVENTS
        assert positions == list(range(positions[0], positions[0] + wanted))
    outcomes = {message_id: Outcome(p[0], p[-1]) for message_id, p in units.items()}
    assert store.outcomes(list(units)) == outcomes
    lines = [line.split() for line in (root / "acknowledged").read_text(encoding="utf-8").splitlines()]
    for message_id, first, last in lines:
        assert outcomes[message_id] == Outcome(int(first), int(last))
    followed = [outcomes[f"one-{number}"].first for number in range(3) if f"one-{number}" in outcomes]
    assert followed == sorted(followed)


# -- what is true at the end ------------------------------------------------------------------------------


def appended(root: Path) -> None:
    with house(root) as folder:
        assert folder.ledger.store.head().size == 7 * EVENTS + 300


def sealed(root: Path) -> None:
    with house(root) as folder:
        store = folder.ledger.store
        names = [signer_of(line)[0] for line in store.cosignatures(store.head().size)]
        assert sorted(names) == sorted((WITNESS.name, folder.sealing_signer.name))


def projected(root: Path) -> None:
    """One file of tables is left, and what SQLite has beside it."""
    with house(root) as folder:
        live = folder.tables.path.resolve()
        assert {file.resolve() for file in (root / DATA).glob("projections*.sqlite")} == {live}


def rotated(root: Path) -> None:
    assert [file.name for file in (root / DATA / "vault").glob("kek*")] == ["kek"]


def asked(root: Path) -> None:
    with house(root) as folder:
        assert [(key.id, bool(key.destroyed)) for key in folder.vault.states() if key.rule] == [(KEY, False)]
        assert len(folder.ledger.store.stream(f"key/{KEY}")) == 1


def destroyed(root: Path) -> None:
    with house(root) as folder:
        assert [key.id for key in folder.vault.states() if key.destroyed] == [KEY]
        noted = folder.ledger.registry.decode(folder.ledger.store.at([1])[0], folder.vault)
        assert noted.erased is not None
        assert len(folder.ledger.store.stream(f"key/{KEY}")) == 3


def exported(root: Path) -> None:
    with house(root) as folder, (root / EXPORT).open("rb") as file:
        extent = portable.check(file, (root / DATA / VERIFIER_KEY).read_text(encoding="utf-8"))
        assert (extent.head, extent.finished) == (folder.ledger.store.head(), True)


def imported(root: Path) -> None:
    assert verify(root / IMPORTED, steps.target(root)) == 0


def restored(root: Path) -> None:
    assert verify(root / RESTORED, steps.target(root)) == 0


def published(root: Path) -> None:
    with house(root) as folder:
        export_tiles(folder.ledger.store, root / "anew")
    files = [
        {
            file.relative_to(root / name): file.read_bytes()
            for file in (root / name).rglob("*")
            if file.is_file()
        }
        for name in (TILES, "anew")
    ]
    assert {path: content for path, content in files[0].items() if path.suffix != ".new"} == files[1]


def backed_up(root: Path) -> None:
    steps.restore(root)
    restored(root)


PROOFS = {
    "append": appended,
    "checkpoint": sealed,
    "project": projected,
    "rebuild": projected,
    "rotate": rotated,
    "retain": asked,
    "destroy": destroyed,
    "export": exported,
    "import": imported,
    "publish": published,
    "back_up": backed_up,
    "restore": restored,
}
