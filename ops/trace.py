"""`renkei audit trace`: the life of a message, across streams and ledgers, from the clear parts of events."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eventsourcing.persistence import Notification
from rich.table import Table
from rich.text import Text

from broker.ledger.events import SEALED, Recorded, Registry, UnreadableEvent, message_id_of
from broker.ledger.store import Store
from broker.ledger.verify import DamagedRows
from ops.audit import Evidence, evidence
from ops.replay import bar, local
from ops.terminal import console, fail

SEALED_TEXT = "秘匿 (sealed)"
STEP = 5_000


@dataclass(frozen=True)
class Traced:
    """An event on the way: when its commit was made, where it lies, and its unit and fields by name.

    `named` tells that it is or contains the id itself, and does not only share a stream or a message id.
    """

    at: str
    ledger: str
    position: int
    stream: str
    topic: str
    fields: Mapping[str, str]
    named: bool


def trace(wanted: str, folders: Sequence[Path], store: str = "sqlite") -> int:
    """Print every event that names an id, and those that share a stream or a message id with one of them."""
    with ExitStack() as stack:
        found = [ledger for folder in folders for ledger in stack.enter_context(evidence(folder, store))]
        try:
            events = traced(wanted, found)
        except DamagedRows as error:
            return fail("S-101", str(error))
    if not events:
        return fail("S-138", wanted)
    table = Table(title=f"{wanted}: {len(events)} 件 (events)", show_lines=True)
    table.add_column("時刻 (time)", no_wrap=True)
    table.add_column("台帳と位置 (ledger, position)", no_wrap=True)
    table.add_column("ストリームとイベント (stream, event)", overflow="fold", ratio=2)
    table.add_column("内容 (clear fields)", overflow="fold", ratio=3)
    for event in events:
        place = f"{event.ledger} @{event.position}{' *' if event.named else ''}"
        fields = ", ".join(f"{name}: {value}" for name, value in event.fields.items())
        table.add_row(*map(Text, (local(event.at), place, f"{event.stream}\n{event.topic}", fields)))
    console.print(table)
    console.print("* この番号そのものを含むイベント (names the id itself)", markup=False)
    return 0


def traced(wanted: str, ledgers: Sequence[Evidence]) -> list[Traced]:
    """The events by the time of their commits. Raises DamagedRows, ConfigurationError."""
    named = {ledger.path: [*_naming(wanted, ledger)] for ledger in ledgers}
    streams = {str(stored.originator_id) for found in named.values() for stored in found}
    messages = {m for found in named.values() for stored in found if (m := message_id_of(stored.state))}
    events: list[Traced] = []
    for ledger in ledgers:
        positions = {stored.id for stored in named[ledger.path]}
        registry, _ = ledger.kind()
        with ledger.store() as store:
            for stored in store.at([*positions | _beside(store, streams, messages)]):
                at = store.checkpoints(stored.id - 1, 1)[0].at
                events.append(_told(stored, registry, at, ledger.origin(), stored.id in positions))
    return sorted(events, key=lambda event: (event.at, event.ledger, event.position))


def _naming(wanted: str, ledger: Evidence) -> Iterator[Notification]:
    """The events that name the id. Their bytes are searched as they lie there: few have to be read."""
    needle = wanted.encode()
    registry, _ = ledger.kind()
    with ledger.store() as store, ledger.rows() as rows, bar(ledger.name, 0, store.head().size) as show:
        for position, stream, version, topic, state, _ in rows.events():
            if needle in state or wanted in stream:
                stored = Notification(
                    id=position, originator_id=stream, originator_version=version, topic=topic, state=state
                )
                if _names(wanted, stored, registry):
                    yield stored
            if not position % STEP:
                show(position)


def _names(wanted: str, stored: Notification, registry: Registry) -> bool:
    """Whether it is in what can be read: chance may have put the same bytes into a sealed part."""
    try:
        recorded = registry.decode(stored, None)
    except UnreadableEvent:
        return True  # better one too many than one too few
    return any(map(_contains, (recorded.stream, recorded.message_id, vars(recorded.event)), [wanted] * 3))


def _contains(value: Any, wanted: str) -> bool:
    if isinstance(value, str):
        return wanted in value
    if isinstance(value, bytes):
        return wanted.encode() in value
    if isinstance(value, Mapping):
        return any(_contains(part, wanted) for item in value.items() for part in item)
    if isinstance(value, Sequence):
        return any(_contains(part, wanted) for part in value)
    return False


def _beside(store: Store, streams: set[str], messages: set[str]) -> set[int]:
    """The positions of all events in these streams, and in the units of these message ids."""
    found = {stored.id for stream in streams for stored in store.stream(stream)}
    for outcome in store.outcomes([*messages]).values():
        found.update(range(outcome.first, outcome.last + 1))
    return found


def _told(stored: Notification, registry: Registry, at: str, ledger: str, named: bool) -> Traced:
    try:
        fields = _fields(registry.decode(stored, None))
    except UnreadableEvent:
        fields = {"": "この版では読み取れません (not readable by this version)"}
    return Traced(at, ledger, stored.id, str(stored.originator_id), stored.topic, fields, named)


def _fields(recorded: Recorded) -> dict[str, str]:
    return {"unit": recorded.message_id} | {
        name: _shown(value) for name, value in vars(recorded.event).items()
    }


def _shown(value: Any) -> str:
    if value is SEALED:
        return SEALED_TEXT
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_shown, value))
    return str(value)
