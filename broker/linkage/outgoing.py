"""A message on its way out: queued in exactly these bytes, and settled by what the network said.

The queue is the stream itself: a crash loses nothing, and a resend is the same bytes.
"""

from dataclasses import dataclass
from typing import Any

from broker.ledger.events import event, personal
from schemas.errors import Refusal
from schemas.messages import NetworkVerdict


@dataclass(frozen=True)
@event("linkage.message_queued", retention="linkage_log")
class MessageQueued:
    """Checked, signed and sealed. `checks` are the steps in the order in which they were passed (R-053).

    `records` is the number of records in the sealed part.
    """

    message_id: str
    kind: str
    partner: str
    processing_number: str
    records: int
    checks: tuple[str, ...]
    control: bytes
    signature: bytes
    sealed: bytes = personal()
    link_codes: tuple[str, ...] = personal()


@dataclass(frozen=True)
@event("linkage.message_not_sent", retention="linkage_log")
class MessageNotSent:
    """A check failed, so nothing left the house: the code, and the step that failed."""

    message_id: str
    kind: str
    partner: str
    code: str
    step: str


@dataclass(frozen=True)
@event("linkage.message_settled", retention="linkage_log")
class MessageSettled:
    """The network accepted the message (code "") or refused it."""

    message_id: str
    processing_number: str
    code: str
    decided_at: str
    valid_until: str


EVENTS = (MessageQueued, MessageNotSent, MessageSettled)

_STEPS = {
    ("none", MessageQueued): "queued",
    ("none", MessageNotSent): "not sent",
    ("queued", MessageSettled): "settled",
}


def stream(message_id: str) -> str:
    return f"outgoing/{message_id}"


def evolve(state: str, happened: Any) -> str:
    """States: none, queued, not sent, settled. Raises KeyError for a step that cannot follow."""
    return _STEPS[state, type(happened)]


def decide_settle(state: str, verdict: NetworkVerdict) -> tuple[MessageSettled, ...] | Refusal:
    """The network's verdict ends the sending; a second verdict for the same message changes nothing."""
    if state == "settled":
        return ()
    if state != "queued":
        return Refusal("L-107", f"outgoing message is {state}")
    return (
        MessageSettled(
            verdict.message_id,
            verdict.processing_number,
            verdict.code,
            verdict.decided_at,
            verdict.valid_until,
        ),
    )
