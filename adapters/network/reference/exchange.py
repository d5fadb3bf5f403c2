"""One exchange at the network: permitted or refused, then answered. These are its own records (Act 23(3))."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from broker.ledger.events import Recorded, event, personal
from broker.ledger.projections import Rows
from schemas.errors import Refusal
from schemas.law import Agency, LawTable
from schemas.messages import AnswerControl, InquiryControl


@dataclass(frozen=True)
@event("exchange.permitted", retention="provision_record")
class ExchangePermitted:
    """The provider is told that it was asked (Act art. 21(2)). `persons` are the network's own marks."""

    processing_number: str
    message_id: str
    inquirer: str
    provider: str
    office: str
    law_version: str
    law_row: str
    affair: str
    information: str
    items: tuple[str, ...]
    requested_at: str
    decided_at: str
    valid_until: str
    persons: tuple[str, ...]
    digest: str
    control: bytes
    signature: bytes
    sealed: bytes = personal()
    permit: bytes = personal()
    permit_signature: bytes = personal()
    inquirer_codes: tuple[str, ...] = personal()


@dataclass(frozen=True)
@event("exchange.refused", retention="provision_record")
class ExchangeRefused:
    """The inquiry was not permitted; it is recorded all the same (ordinance art. 47(1)2)."""

    processing_number: str
    message_id: str
    inquirer: str
    provider: str
    office: str
    law_version: str
    law_row: str
    information: str
    items: tuple[str, ...]
    requested_at: str
    decided_at: str
    code: str
    digest: str


@dataclass(frozen=True)
@event("exchange.answered", retention="provision_record")
class ExchangeAnswered:
    """The provider answered (code "") or refused with a code; the answer goes to the inquirer's mailbox."""

    processing_number: str
    message_id: str
    inquirer: str
    provider: str
    code: str
    answered_at: str
    decided_at: str
    digest: str
    control: bytes
    signature: bytes
    sealed: bytes = personal()
    note: bytes = personal()
    note_signature: bytes = personal()


@dataclass(frozen=True)
@event("exchange.answer_refused", retention="linkage_log")
class AnswerRefused:
    """A message that claimed to be an answer was not let pass."""

    processing_number: str
    message_id: str
    sender: str
    code: str
    decided_at: str
    digest: str


EVENTS = (ExchangePermitted, ExchangeRefused, ExchangeAnswered, AnswerRefused)


@dataclass(frozen=True)
class State:
    """What is known of a processing number."""

    permitted: ExchangePermitted | None = None
    answered: ExchangeAnswered | None = None


def stream(processing_number: str) -> str:
    return f"exchange/{processing_number}"


def evolve(state: State, happened: Any) -> State:
    if isinstance(happened, ExchangePermitted):
        return State(happened)
    return State(state.permitted, happened) if isinstance(happened, ExchangeAnswered) else state


def decide_permit(
    control: InquiryControl,
    sender: str,
    inquirer: Agency | None,
    provider: Agency | None,
    table: LawTable | None,
    persons: tuple[str, ...],
    provider_codes: tuple[str, ...],
) -> Refusal | None:
    """May this inquiry pass? Looked up before: the law of its day, the persons behind the inquirer's codes
    ("" for an unknown code) and the provider's codes for them ("" for none)."""
    if inquirer is None:
        return Refusal("N-101")
    if control.inquirer != sender:
        return Refusal("N-102")
    if provider is None:
        return Refusal("N-104")
    if (
        table is None
        or table.version != control.law_version
        or table.permits(inquirer, provider, control.law_row, control.information) is None
    ):
        return Refusal("N-103")
    if control.subjects < 1:
        return Refusal("N-111", "subjects")
    if len(persons) != control.subjects or not all(persons):
        return Refusal("N-105")
    return None if all(provider_codes) else Refusal("N-106")


def decide_answer(state: State, control: AnswerControl, sender: str, now: datetime) -> Refusal | None:
    """May this answer pass? Only under a permit of this provider, in time, and once."""
    permitted = state.permitted
    if control.provider != sender:
        return Refusal("N-102")
    if (
        permitted is None
        or permitted.provider != sender
        or (permitted.message_id, permitted.inquirer) != (control.in_reply_to, control.inquirer)
    ):
        return Refusal("N-108")
    if state.answered is not None:
        return Refusal("N-110")
    if now > datetime.fromisoformat(permitted.valid_until):
        return Refusal("N-109")
    return None


class Mailboxes:
    """What waits for whom, by position in the network's ledger: agencies resume where they stopped."""

    name: ClassVar[str] = "mailboxes"
    tables: ClassVar[Mapping[str, str]] = {
        "mailbox": "agency TEXT, position INTEGER, PRIMARY KEY (agency, position)"
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        match recorded.event:
            case ExchangePermitted() as e:
                rows.execute("INSERT INTO mailbox VALUES (?, ?)", (e.provider, recorded.position))
            case ExchangeAnswered() as e:
                rows.execute("INSERT INTO mailbox VALUES (?, ?)", (e.inquirer, recorded.position))


class Exchanges:
    """The network's record of each request, permitted or not, and its answer (Act art. 23(3))."""

    name: ClassVar[str] = "exchanges"
    tables: ClassVar[Mapping[str, str]] = {
        "exchange": "processing_number TEXT PRIMARY KEY, message_id TEXT, inquirer TEXT, provider TEXT, "
        "law_row TEXT, information TEXT, requested_at TEXT, code TEXT, answered_at TEXT, answer_code TEXT, "
        "position INTEGER"
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        match recorded.event:
            case ExchangePermitted() | ExchangeRefused() as e:
                rows.execute(
                    "INSERT INTO exchange VALUES (?, ?, ?, ?, ?, ?, ?, ?, '', '', ?)",
                    (
                        e.processing_number,
                        e.message_id,
                        e.inquirer,
                        e.provider,
                        e.law_row,
                        e.information,
                        e.requested_at,
                        e.code if isinstance(e, ExchangeRefused) else "",
                        recorded.position,
                    ),
                )
            case ExchangeAnswered() as e:
                rows.execute(
                    "UPDATE exchange SET answered_at = ?, answer_code = ? WHERE processing_number = ?",
                    (e.answered_at, e.code, e.processing_number),
                )
