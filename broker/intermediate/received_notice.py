"""連絡 (notice to an authority) as its receiver lives it: received in an office's inbox, acknowledged."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from broker.intermediate.notice import Disclosure
from broker.ledger.events import Recorded, event, personal
from broker.ledger.projections import Rows

COMMON = ""
"""The inbox of what no office of ours is named for."""


@dataclass(frozen=True)
@event("received_notice.received", retention="provision_record")
class NoticeReceived(Disclosure):
    """A notice came in: where it says something about persons, it is our record of that (Act art. 23).

    `inbox` is the office where it lies, COMMON with `code` I-247 where it names no office of ours. `codes`
    tells of each person what is wrong ("" where the payload was taken in).
    """

    inbox: str
    code: str
    codes: tuple[str, ...]
    received_at: str
    title: str = personal()
    text: str = personal()
    subjects: tuple[str, ...] = personal()
    payloads: tuple[Mapping[str, Any], ...] = personal()


@dataclass(frozen=True)
@event("received_notice.acknowledged", retention="provision_record")
class ReceivedNoticeAcknowledged:
    """An officer of this office has read it."""

    office: str
    acknowledged_at: str
    staff_id: str = personal()


EVENTS = (NoticeReceived, ReceivedNoticeAcknowledged)

NONE, RECEIVED, ACKNOWLEDGED = "none", "received", "acknowledged"

_STEPS = {
    (NONE, NoticeReceived): RECEIVED,
    (RECEIVED, ReceivedNoticeAcknowledged): ACKNOWLEDGED,
}


@dataclass(frozen=True)
class State:
    """Where it stands, with what came in and who read it."""

    step: str = NONE
    received: NoticeReceived | None = None
    acknowledged: ReceivedNoticeAcknowledged | None = None


def stream(sender: str, notice: str) -> str:
    """Message ids are the senders' own: two of them may have chosen the same one."""
    return f"received_notice/{sender}/{notice}"


def evolve(state: State, happened: Any) -> State:
    """Raises KeyError for a step that cannot follow."""
    step = _STEPS[state.step, type(happened)]
    if isinstance(happened, NoticeReceived):
        return State(step, happened)
    return State(step, state.received, happened)


def state_of(events: Iterable[Any]) -> State:
    """The state of a received notice from its events."""
    state = State()
    for happened in events:
        state = evolve(state, happened)
    return state


def decide_acknowledge(
    state: State, acknowledged: ReceivedNoticeAcknowledged
) -> tuple[ReceivedNoticeAcknowledged, ...]:
    """The first officer who reads it acknowledges it."""
    return (acknowledged,) if state.step == RECEIVED else ()


class Inbox:
    """受信箱: which notices lie in the inbox of which office, and which of them were acknowledged."""

    name: ClassVar[str] = "inbox"
    tables: ClassVar[Mapping[str, str]] = {
        "inbox": "office TEXT, received_at TEXT, stream TEXT PRIMARY KEY, state TEXT"
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        match recorded.event:
            case NoticeReceived() as e:
                rows.execute(
                    "INSERT INTO inbox VALUES (?, ?, ?, ?)",
                    (e.inbox, e.received_at, recorded.stream, RECEIVED),
                )
            case ReceivedNoticeAcknowledged():
                rows.execute("UPDATE inbox SET state = ? WHERE stream = ?", (ACKNOWLEDGED, recorded.stream))


PROJECTIONS = (Inbox(),)
