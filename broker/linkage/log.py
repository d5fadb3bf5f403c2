"""Projections of linkage: the linkage log (R-143 to R-146), the queue to send, the place in the mailbox."""

from collections.abc import Mapping
from typing import ClassVar

from broker.ledger.events import Recorded
from broker.ledger.projections import Rows
from broker.linkage.incoming import MailboxRead, MessageReceived, MessageRefused, MessageRepeated
from broker.linkage.outgoing import MessageNotSent, MessageQueued, MessageSettled


class LinkageLog:
    """Every message in or out with its checks and outcome; nothing personal (R-146)."""

    name: ClassVar[str] = "linkage_log"
    tables: ClassVar[Mapping[str, str]] = {
        "linkage_log": "position INTEGER PRIMARY KEY, at TEXT, direction TEXT, kind TEXT, message_id TEXT, "
        "partner TEXT, processing_number TEXT, checks TEXT, step TEXT, code TEXT"
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        entry: tuple[str, ...]
        match recorded.event:
            case MessageQueued() as e:
                entry = (
                    "out",
                    e.kind,
                    e.message_id,
                    e.partner,
                    e.processing_number,
                    " ".join(e.checks),
                    "",
                    "",
                )
            case MessageNotSent() as e:
                entry = ("out", e.kind, e.message_id, e.partner, "", "", e.step, e.code)
            case MessageSettled() as e:
                entry = ("out", "verdict", e.message_id, "network", e.processing_number, "", "", e.code)
            case MessageReceived() as e:
                entry = (
                    "in",
                    e.kind,
                    e.message_id,
                    e.partner,
                    e.processing_number,
                    " ".join(e.checks),
                    "",
                    "",
                )
            case MessageRefused() as e:
                entry = ("in", e.kind, e.message_id, e.partner, "", "", e.step, e.code)
            case MessageRepeated() as e:
                entry = ("in", "repeated", e.message_id, "", "", "", "", "")
            case _:
                return
        rows.execute(
            "INSERT INTO linkage_log VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (recorded.position, recorded.at, *entry),
        )


class Outbox:
    """Messages that the network has not yet given a verdict on, by the position of their bytes."""

    name: ClassVar[str] = "outbox"
    tables: ClassVar[Mapping[str, str]] = {
        "outbox": "message_id TEXT PRIMARY KEY, position INTEGER, records INTEGER"
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        match recorded.event:
            case MessageQueued() as e:
                rows.execute(
                    "INSERT INTO outbox VALUES (?, ?, ?)", (e.message_id, recorded.position, e.records)
                )
            case MessageSettled() as e:
                rows.execute("DELETE FROM outbox WHERE message_id = ?", (e.message_id,))


class MailboxPlace:
    """How far the mailbox at the network was read: where polling goes on after a restart."""

    name: ClassVar[str] = "mailbox_place"
    tables: ClassVar[Mapping[str, str]] = {"mailbox_place": "id INTEGER PRIMARY KEY, position INTEGER"}

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        if isinstance(recorded.event, MailboxRead):
            rows.execute(
                "INSERT INTO mailbox_place VALUES (1, ?) "
                "ON CONFLICT DO UPDATE SET position = MAX(position, excluded.position)",
                (recorded.event.position,),
            )


PROJECTIONS = (LinkageLog(), Outbox(), MailboxPlace())
