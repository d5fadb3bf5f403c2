"""The commands of an auditor: verify ledgers, rebuild projections, check a proof. They need no keys."""

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from adapters.network.reference.core import EVENTS as NETWORK_EVENTS
from adapters.network.reference.core import PROJECTIONS as NETWORK_PROJECTIONS
from broker.addressing import person
from broker.ledger.events import Registry
from broker.ledger.folder import EVENTS, PROJECTIONS, VERIFIER_KEY
from broker.ledger.merkle import ProofInvalid
from broker.ledger.notes import NoteInvalid, NoteVerifier
from broker.ledger.projections import Projection, ProjectionMismatch, ProjectionTables
from broker.ledger.receipt import check_receipt
from broker.ledger.sqlite import LedgerDatastore, SQLiteStore
from broker.ledger.verify import Verdict, verify_file
from ops.daemons import ADDRESSING, AGENCY_EVENTS, AGENCY_PROJECTIONS
from ops.terminal import console, fail, progress_bar


def ledgers(folder: Path) -> list[Path]:
    """The ledger folders at or below a folder."""
    return sorted(path.parent for path in folder.rglob(EVENTS))


def verify(folder: Path) -> int:
    """Check every ledger below a folder; exit status 1 if one is damaged or none is there."""
    found = ledgers(folder)
    if not found:
        return fail("S-104", f"{folder}: 台帳がありません (no ledger)")
    damaged = False
    for path in found:
        verdict = _verify(path)
        name = path.relative_to(folder).as_posix()
        if verdict.ok:
            say(f"OK      {name}: {verdict.events} events")
        else:
            damaged = True
            say(f"DAMAGED {name}: position {verdict.wrong_position}: {verdict.reason}")
    return fail("S-101") if damaged else 0


def _verify(path: Path) -> Verdict:
    try:
        key = (path / VERIFIER_KEY).read_text(encoding="utf-8")
        with progress_bar() as progress:
            task = progress.add_task(path.name, total=None)
            return verify_file(
                path / EVENTS,
                key,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
    except (OSError, NoteInvalid) as error:
        return Verdict(0, 1, f"the verifier key cannot be used: {error}")


def _kind(path: Path) -> tuple[Iterable[type], list[Projection]]:
    """What kind of ledger lies here: told by the origin in its verifier key."""
    origin = NoteVerifier((path / VERIFIER_KEY).read_text(encoding="utf-8")).name
    if origin == "renkei/network":
        return NETWORK_EVENTS, list(NETWORK_PROJECTIONS)
    if origin.endswith(f"/{ADDRESSING}"):
        return person.EVENTS, list(person.PROJECTIONS)
    return AGENCY_EVENTS, list(AGENCY_PROJECTIONS)


def replay(folder: Path, into: Path) -> int:
    """Rebuild every projection from events alone, up to where the live one stands, and compare digests."""
    found = ledgers(folder)
    if not found:
        return fail("S-104", f"{folder}: 台帳がありません (no ledger)")
    differs = False
    for path in found:
        name = path.relative_to(folder).as_posix()
        target = into / name / PROJECTIONS
        if target.exists():
            return fail("S-104", f"{target}: すでにあります (exists already)")
        try:
            position, live, rebuilt = _rebuild(path, target, name)
        except ProjectionMismatch as error:
            return fail("S-105", f"{name}: {error}")
        for projection, digest in rebuilt.items():
            same = live[projection] == digest
            differs = differs or not same
            mark = "OK     " if same else "DIFFERS"
            say(f"{mark} {name} {projection} @{position} {digest}")
    return fail("S-105") if differs else 0


def _rebuild(path: Path, target: Path, name: str) -> tuple[int, dict[str, str], dict[str, str]]:
    """The position, and the digests of the live projections and of those built anew."""
    types, projections = _kind(path)
    with (
        closing(SQLiteStore(LedgerDatastore(path / EVENTS), _no_signature)) as store,
        closing(ProjectionTables(path / PROJECTIONS, projections)) as live,
        closing(ProjectionTables(target, projections)) as rebuilt,
        progress_bar() as progress,
    ):
        upto = max(position for position, _ in live.tracking().values())
        task = progress.add_task(f"再構築 {name}", total=upto)
        rebuilt.catch_up(
            store, Registry(types), upto=upto, progress=lambda done: progress.update(task, completed=done)
        )
        return upto, live.digests(), rebuilt.digests()


def _no_signature(_size: int, _root: bytes) -> str:
    """An auditor has no signing key: nothing can be appended."""
    raise PermissionError("a ledger opened for audit takes no events")


def say(text: str) -> None:
    """A line without markup and without wrapping, so that it can be searched."""
    console.print(text, markup=False, soft_wrap=True)


def receipt(file: Path, key: Path) -> int:
    """Check a proof that a resident downloaded."""
    text, verifier_key = file.read_text(encoding="utf-8"), key.read_text(encoding="utf-8")
    try:
        position, data, checkpoint = check_receipt(text, verifier_key)
    except (ProofInvalid, NoteInvalid) as error:
        return fail("S-101", str(error))
    say(f"OK {checkpoint.origin} position {position} of {checkpoint.size}, {len(data)} bytes")
    return 0
