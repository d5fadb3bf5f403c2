"""`renkei replay` and `renkei audit diff`: projections as they stood, and what changed between two moments.

They read events alone. A target keeps, in the transaction of its rows, how far it is and on which log: so an
interrupted replay goes on where it stopped, and one of another ledger is refused.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from broker.ledger.events import Recorded, Registry
from broker.ledger.folder import PROJECTIONS, VERIFIER_KEY
from broker.ledger.projections import Parked, Projection, ProjectionMismatch, ProjectionTables, Rows
from broker.ledger.store import Store
from ops.audit import Evidence, evidence, say
from ops.logs import JST
from ops.terminal import fail, progress_bar
from schemas.errors import Refusal, Refused

Show = Callable[[int], None]


@dataclass(frozen=True)
class Moment:
    """A point in the life of a ledger: after a position, or after the last commit made up to a time (UTC)."""

    position: int = 0
    time: str = ""

    def of(self, store: Store) -> int:
        """The position. Raises Refused for one beyond the end of the ledger."""
        if self.time:
            return store.position_at(self.time)
        if self.position > (size := store.head().size):
            raise Refused(Refusal("S-134", f"{self.position} > {size}"))
        return self.position


def moment(text: str) -> Moment:
    """A position in digits, or a time in ISO 8601 with its offset. Raises Refused."""
    if text.isascii() and text.isdecimal():
        return Moment(int(text))
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = datetime.min
    if time.tzinfo is None:
        raise Refused(Refusal("S-134", text))
    return Moment(time=time.astimezone(UTC).isoformat(timespec="microseconds"))


def chosen(found: Sequence[Evidence], moments: Iterable[Moment]) -> Sequence[Evidence]:
    """A position belongs to one ledger: that of the folder itself, or the only one. Raises Refused."""
    if len(found) == 1 or all(each.time for each in moments):
        return found
    if all(ledger.path.is_relative_to(found[0].path) for ledger in found):
        return found[:1]
    raise Refused(Refusal("S-135", f"{len(found)} ledgers"))


@contextmanager
def bar(title: str, done: int, total: int) -> Iterator[Show]:
    """A progress bar; gives what is told the position reached."""
    with progress_bar() as progress:
        task = progress.add_task(title, completed=done, total=total)
        yield lambda position: progress.update(task, completed=position)


def told(work: Callable[[], bool]) -> int:
    """The exit status of work that tells whether projections fit; its refusals in the catalogue's words."""
    try:
        return 0 if work() else fail("S-105")
    except Refused as refused:
        return fail(refused.refusal.code, refused.refusal.detail)
    except ProjectionMismatch as error:
        return fail("S-105", str(error))
    except sqlite3.OperationalError as error:
        return fail("S-139", str(error))


def replay(folder: Path, into: Path, to: str | None = None, store: str = "sqlite") -> int:
    """Rebuild every projection below a folder from events alone, as it stood then.

    Without a moment up to where the live one stands, and the two are compared: exit status 1 if they differ.
    """
    try:
        return told(lambda: _replay(folder, into, to, store))
    except KeyboardInterrupt:
        say("中断しました。同じ命令で続きから再開します (interrupted; the same command goes on from here)")
        return 130


def _replay(folder: Path, into: Path, to: str | None, store: str) -> bool:
    """Whether all that was compared is the same."""
    wanted, same = None if to is None else moment(to), True
    with evidence(folder, store) as found:
        for ledger in found if wanted is None else chosen(found, [wanted]):
            target = into / ledger.name / PROJECTIONS
            if (target.parent / VERIFIER_KEY).exists():
                raise Refused(Refusal("S-136", str(target.parent)))
            with ledger.store() as events:
                if wanted is None:
                    same = _compare(ledger, events, target) and same
                else:
                    _restore(ledger, events, target, wanted.of(events))
    return same


def _compare(ledger: Evidence, store: Store, target: Path) -> bool:
    """Whether the live projections of a ledger are what its events say."""
    live_file = ledger.path / PROJECTIONS
    if not live_file.exists():
        raise Refused(Refusal("S-104", f"{live_file}: ありません (not there; --to TIME|POSITION)"))
    _, projections = ledger.kind()
    with closing(ProjectionTables(live_file, projections)) as live:
        tracking, digests = live.state()
    upto = max(position for position, _ in tracking.values())
    rebuilt = _replayed(ledger, store, target, upto)
    for name, digest in rebuilt.items():
        mark = "OK     " if digests[name] == digest else "DIFFERS"
        say(f"{mark} {ledger.name} {name} @{upto} {digest}")
    return rebuilt == digests


def _restore(ledger: Evidence, store: Store, target: Path, upto: int) -> None:
    """The projections as they stood at a position, in the target."""
    for name, digest in _replayed(ledger, store, target, upto).items():
        say(f"RESTORED {ledger.name} {name} @{upto} {digest}")
    if upto:
        recorded = store.checkpoints(upto - 1, 1)[0].at
        say(f"         {ledger.name} @{upto}: {local(recorded)} の記録まで (as recorded up to then)")


def _replayed(ledger: Evidence, store: Store, target: Path, upto: int) -> dict[str, str]:
    """The digests of a target once it stands at a position. Raises Refused where it is beyond it."""
    registry, projections = ledger.kind()
    with closing(ProjectionTables(target, projections)) as tables:
        places = [position for position, _ in tables.tracking().values()]
        if max(places) > upto:
            raise Refused(Refusal("S-136", f"{target} @{max(places)} > @{upto}"))
        if min(places):
            say(f"続き {ledger.name}: @{min(places)} から (going on from there)")
        with bar(f"再構築 {ledger.name}", min(places), upto) as show:
            tables.catch_up(store, registry, upto=upto, progress=show)
        tell_parked(ledger.name, tables.parked())
        return tables.digests()


def tell_parked(name: str, parked: Sequence[Parked]) -> None:
    """One line for each event that a projection went on without."""
    for each in parked:
        say(f"PARKED  {name} {each.projection} @{each.position} {each.reason}")


def local(at: str) -> str:
    """A time of the ledger as it is shown: JST with its offset."""
    return datetime.fromisoformat(at).astimezone(JST).isoformat()


# -- what changed between two moments -----------------------------------------------------------------

_CHANGES = (
    "CREATE TABLE moment (position INTEGER, event TEXT)",
    "INSERT INTO moment VALUES (0, '')",
    "CREATE TABLE change (id INTEGER PRIMARY KEY, at_table TEXT, row TEXT, old TEXT, new TEXT, "
    "position INTEGER, event TEXT)",
)


def _noted(projection: Projection) -> Projection:
    """The same projection; it says which event it is at, so that the triggers on its tables know."""

    class Noted:
        name: ClassVar[str] = projection.name
        tables: ClassVar[Mapping[str, str]] = projection.tables

        def apply(self, rows: Rows, recorded: Recorded) -> None:
            rows.execute("PRAGMA recursive_triggers = ON")  # a row that is replaced is a row removed, too
            event = recorded.event.wire.topic
            rows.execute("UPDATE moment SET position = ?, event = ?", (recorded.position, event))
            projection.apply(rows, recorded)

    return Noted()


@dataclass(frozen=True)
class Change:
    """What became of one row: its values before and after as SQL literals, and the events that did it.

    `old` is None for a row that was added, `new` for one that was removed.
    """

    table: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    old: tuple[str, ...] | None
    new: tuple[str, ...] | None
    events: tuple[tuple[int, str], ...]


def diff(folder: Path, since: str, until: str, projection: str | None = None, store: str = "sqlite") -> int:
    """Print what changed in projections between two moments, row by row, and by which events."""

    def work() -> bool:
        first, last = moment(since), moment(until)
        with evidence(folder, store) as found:
            ledgers = [ledger for ledger in chosen(found, (first, last)) if _projections(ledger, projection)]
            if not ledgers:
                raise Refused(Refusal("S-137", projection or ""))
            for ledger in ledgers:
                with ledger.store() as events:
                    _diff(ledger, events, first.of(events), last.of(events), projection)
        return True

    return told(work)


def _projections(ledger: Evidence, name: str | None) -> list[Projection]:
    return [each for each in ledger.kind()[1] if name in (None, each.name)]


def _diff(ledger: Evidence, store: Store, first: int, last: int, name: str | None) -> None:
    if first > last:
        raise Refused(Refusal("S-134", f"{first} > {last}"))
    registry, _ = ledger.kind()
    say(f"{ledger.name} @{first} → @{last}")
    counts: Counter[str] = Counter()
    with TemporaryDirectory() as work, bar(f"再構築 {ledger.name}", 0, last) as show:
        for change in changes(Path(work), store, registry, _projections(ledger, name), first, last, show):
            counts["+" if change.old is None else "-" if change.new is None else "~"] += 1
            say(_line(change))
    say(f"  追加 {counts['+']} 変更 {counts['~']} 削除 {counts['-']} (added, changed, removed)")


def changes(
    work: Path,
    store: Store,
    registry: Registry,
    projections: Sequence[Projection],
    first: int,
    last: int,
    show: Show = lambda position: None,
) -> Iterator[Change]:
    """The rows that the events first + 1 to last left other than they were, by table and key."""
    path = work / PROJECTIONS
    with closing(ProjectionTables(path, projections)) as tables:
        tables.catch_up(store, registry, upto=first, progress=show)
    with closing(sqlite3.connect(path)) as rows:
        columns = _watch(rows, projections)
    with closing(ProjectionTables(path, [_noted(p) for p in projections])) as tables:
        tables.catch_up(store, registry, upto=last, progress=show)
    query = "SELECT at_table, row, old, new, position, event FROM change ORDER BY at_table, row, id"
    with closing(sqlite3.connect(path)) as rows:
        for (table, key), group in groupby(rows.execute(query), lambda step: step[:2]):
            steps = list(group)
            old, new = _values(steps[0][2]), _values(steps[-1][3])
            if old != new:
                events = tuple(dict.fromkeys((position, event) for *_, position, event in steps))
                yield Change(table, columns[table], _values(key) or (), old, new, events)


def _values(packed: str | None) -> tuple[str, ...] | None:
    return None if packed is None else tuple(json.loads(packed))


def _watch(rows: sqlite3.Connection, projections: Sequence[Projection]) -> dict[str, tuple[str, ...]]:
    """Let every change of a row be noted with its position; returns the columns of the tables."""
    for statement in _CHANGES:
        rows.execute(statement)
    columns: dict[str, tuple[str, ...]] = {}
    for table in (table for projection in projections for table in projection.tables):
        found = rows.execute(f"PRAGMA table_info({table})").fetchall()
        columns[table] = tuple(row[1] for row in found)
        key = [row[1] for row in sorted(found, key=lambda row: row[5]) if row[5]] or ["rowid"]
        old, new = (_packed(version, columns[table]) for version in ("old", "new"))
        old_key, new_key = (_packed(version, key) for version in ("old", "new"))
        for on, where, noted in (
            ("INSERT", "1", [(new_key, "NULL", new)]),
            ("DELETE", "1", [(old_key, old, "NULL")]),
            ("UPDATE", f"{old_key} = {new_key}", [(old_key, old, new)]),
            ("UPDATE", f"{old_key} <> {new_key}", [(old_key, old, "NULL"), (new_key, "NULL", new)]),
        ):
            rows.execute(
                f"CREATE TRIGGER noted_{table}_{on}_{len(noted)} AFTER {on} ON {table} WHEN {where} BEGIN "
                + " ".join(
                    f"INSERT INTO change SELECT NULL, '{table}', {row}, {before}, {after}, position, event "  # noqa: S608 # own names
                    "FROM moment;"
                    for row, before, after in noted
                )
                + " END"
            )
    rows.commit()
    return columns


def _packed(version: str, columns: Sequence[str]) -> str:
    """A row as an array of SQL literals, which keep bytes and text and numbers apart."""
    return f"json_array({', '.join(f'quote({version}.{column})' for column in columns)})"


def _line(change: Change) -> str:
    """+ added, - removed, ~ changed; the columns, and the events behind them."""
    key = ", ".join(change.key)
    if change.old is None or change.new is None:
        values: Any = change.new or change.old or ()
        mark = "+" if change.old is None else "-"
        said = ", ".join(f"{column}: {value}" for column, value in zip(change.columns, values, strict=True))
    else:
        mark = "~"
        rows = zip(change.columns, change.old, change.new, strict=True)
        said = ", ".join(f"{column}: {old} → {new}" for column, old, new in rows if old != new)
    events = ", ".join(f"@{position} {event}" for position, event in change.events)
    return f"  {mark} {change.table} [{key}] {said}  ({events})"
