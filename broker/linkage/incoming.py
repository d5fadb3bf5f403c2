"""A message that came in: received after every check, or refused at one of them.

Refusals stand in streams of their own (by the digest of what came), so that a forged copy never blocks the
genuine message of the same id.
"""

from dataclasses import dataclass
from typing import Any

from broker.ledger.events import event, personal
from schemas.errors import Refusal


@dataclass(frozen=True)
@event("linkage.message_received", retention="linkage_log")
class MessageReceived:
    """All checks passed, in this order (R-052). The envelope is kept as it came: it is the evidence."""

    message_id: str
    kind: str
    partner: str
    processing_number: str
    mailbox_position: int
    digest: str
    checks: tuple[str, ...]
    control: bytes
    signature: bytes
    sealed: bytes = personal()


@dataclass(frozen=True)
@event("linkage.message_refused", retention="linkage_log")
class MessageRefused:
    """A check failed: at which step, and with which code of the catalogue."""

    message_id: str
    kind: str
    partner: str
    mailbox_position: int
    digest: str
    step: str
    code: str


@dataclass(frozen=True)
@event("linkage.message_repeated", retention="linkage_log")
class MessageRepeated:
    """The network delivered the same item again; its first outcome stands."""

    message_id: str
    mailbox_position: int


@dataclass(frozen=True)
@event("linkage.mailbox_read", retention="linkage_log")
class MailboxRead:
    """Everything up to this position of the mailbox was taken in: polling resumes from here."""

    position: int


@dataclass(frozen=True)
@event("linkage.certificate_kept", retention="linkage_log")
class CertificateKept:
    """A certificate (DER) by which this agency or a partner signs messages, kept when it was first met.

    The network's configuration forgets it once it has expired; what was signed by it is evidence for longer.
    """

    holder: str
    fingerprint: str
    certificate: bytes


EVENTS = (MessageReceived, MessageRefused, MessageRepeated, MailboxRead, CertificateKept)


@dataclass(frozen=True)
class State:
    """What is known of a message id from this sender; an empty digest: nothing yet."""

    digest: str = ""


def stream(sender: str, message_id: str) -> str:
    return f"incoming/{sender}/{message_id}"


def mailbox_stream(position: int) -> str:
    return f"mailbox/{position}"


def certificate_stream(fingerprint: str) -> str:
    return f"certificate/{fingerprint}"


def refusal_stream(digest: str) -> str:
    return f"refused/{digest}"


def evolve(state: State, happened: Any) -> State:
    """Only MessageReceived opens the stream; repetitions follow it."""
    return State(happened.digest) if isinstance(happened, MessageReceived) else state


def decide_receive(
    state: State, received: MessageReceived
) -> tuple[MessageReceived | MessageRepeated, ...] | Refusal:
    """The first of its id is received; the same delivery again is repeated; anything else is a replay."""
    if not state.digest:
        return (received,)
    if state.digest == received.digest:
        return (MessageRepeated(received.message_id, received.mailbox_position),)
    return Refusal("L-304")
