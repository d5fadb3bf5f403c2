"""A letter at the network: relayed to the other party, or refused. Its exchange learns of it, too."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from adapters.network.reference.exchange import (
    ExchangeAnswered,
    ExchangeCorrected,
    ExchangePermitted,
    ExchangeWithdrawn,
    State,
    decide_withdraw,
)
from broker.ledger.events import Recorded, event, personal
from broker.ledger.projections import Rows
from schemas.errors import Refusal
from schemas.law import Agency, LawTable
from schemas.messages import LetterControl


@dataclass(frozen=True)
class LetterFacts:
    """What was looked up about a letter: the two agencies (None: not registered), the law of its day, the
    network's marks of its persons ("" where the code is unknown), the receiver's codes for them ("" for
    none), its exchange, and the letter that a receipt replies to.
    """

    sender: Agency | None
    receiver: Agency | None
    table: LawTable | None
    persons: tuple[str, ...]
    receiver_codes: tuple[str, ...]
    exchange: State
    replied: "LetterRelayed | None"


@dataclass(frozen=True)
@event("letter.relayed", retention="provision_record")
class LetterRelayed:
    """On its way to the receiver's mailbox. `persons` are the network's own marks."""

    message_id: str
    kind: str
    sender: str
    receiver: str
    office: str
    processing_number: str
    law_version: str
    law_row: str
    information: str
    sent_at: str
    decided_at: str
    persons: tuple[str, ...]
    digest: str
    control: bytes
    signature: bytes
    sealed: bytes = personal()
    note: bytes = personal()
    note_signature: bytes = personal()


@dataclass(frozen=True)
@event("letter.refused", retention="linkage_log")
class LetterRefused:
    """The letter was not relayed."""

    message_id: str
    kind: str
    sender: str
    receiver: str
    processing_number: str
    decided_at: str
    code: str
    digest: str


EVENTS = (LetterRelayed, LetterRefused)


def stream(sender: str, message_id: str) -> str:
    return f"letter/{sender}/{message_id}"


def decide_relay(control: LetterControl, kind: str, caller: str, facts: LetterFacts) -> Refusal | None:
    """May this letter pass? Words about persons need a row of the law, with the receiver as inquirer."""
    if facts.sender is None:
        return Refusal("N-101")
    if control.sender != caller:
        return Refusal("N-102")
    if facts.receiver is None:
        return Refusal("N-116")
    if control.kind != kind or len(facts.persons) not in (0, control.subjects):
        return Refusal("N-111")
    if facts.persons and (
        facts.table is None
        or facts.table.version != control.law_version
        or facts.table.permits(facts.receiver, facts.sender, control.law_row, control.information) is None
    ):
        return Refusal("N-103")
    if not all(facts.persons):
        return Refusal("N-105")
    if not all(facts.receiver_codes):
        return Refusal("N-106")
    return _of_exchange(control, facts)


def _of_exchange(control: LetterControl, facts: LetterFacts) -> Refusal | None:
    """What goes with an exchange comes from a party of it, to the other one; a receipt, from the receiver."""
    asked = facts.exchange.permitted or facts.exchange.refused
    way = (control.sender, control.receiver)
    match control.kind:
        case "notice":
            return None
        case "receipt":
            replied = facts.replied
            fits = replied is not None and (replied.receiver, replied.sender) == way
            return None if fits else Refusal("N-117")
        case "correction":
            fits = asked is not None and way in (
                (asked.inquirer, asked.provider),
                (asked.provider, asked.inquirer),
            )
            return None if fits else Refusal("N-108")
        case "acquisition_request":
            fits = (
                asked is not None
                and way == (asked.inquirer, asked.provider)
                and "N-106" in _codes(facts.exchange)
            )
            return None if fits else Refusal("N-118")
        case "withdrawal":
            if asked is None or way != (asked.inquirer, asked.provider):
                return Refusal("N-108")
            decided = decide_withdraw(facts.exchange, control.message_id, control.sender, "")
            return decided if isinstance(decided, Refusal) else None
    return Refusal("N-111", "kind")


def _codes(exchange: State) -> tuple[str, ...]:
    asked = exchange.permitted or exchange.refused
    return () if asked is None else (*asked.codes, getattr(asked, "code", ""))


def in_exchange(control: LetterControl, exchange: State, now: str) -> tuple[Any, ...]:
    """What a letter that passes changes in its exchange."""
    if control.kind == "withdrawal":
        withdrawn = decide_withdraw(exchange, control.message_id, control.sender, now)
        return (withdrawn,) if isinstance(withdrawn, ExchangeWithdrawn) else ()
    if control.kind == "correction":
        number = control.processing_number
        return (ExchangeCorrected(number, control.message_id, control.sender, now),)
    return ()


def addressee(happened: Any) -> str:
    """In whose mailbox this event lies; "" for none."""
    match happened:
        case ExchangePermitted(provider=agency) | ExchangeAnswered(inquirer=agency):
            return str(agency)
        case LetterRelayed(receiver=agency):
            return str(agency)
    return ""


class Mailboxes:
    """What waits for whom, by position in the network's ledger: agencies resume where they stopped."""

    name: ClassVar[str] = "mailboxes"
    tables: ClassVar[Mapping[str, str]] = {
        "mailbox": "agency TEXT, position INTEGER, PRIMARY KEY (agency, position)"
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        if agency := addressee(recorded.event):
            rows.execute("INSERT INTO mailbox VALUES (?, ?)", (agency, recorded.position))
