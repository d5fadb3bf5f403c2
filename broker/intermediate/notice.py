"""連絡 (notice to an authority) as its sender lives it: sent, let pass, delivered, acknowledged (R-083).

In the mode of a notice the holder sends information unasked. What it says about persons is a disclosure under
a row of the law table, with the receiver as inquirer and the sender as provider: the event of its sending is
the provision record of that (Act art. 23). The data itself is not copied: `sources` are the positions of the
replica events that were read.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from broker.ledger.events import event, personal
from schemas.errors import Refusal
from schemas.messages import NetworkVerdict

TITLE_CHARACTERS, TEXT_CHARACTERS = 100, 4000


@dataclass(frozen=True)
class Disclosure:
    """What a notice says about persons, at either side, with all that article 23 wants of a record.

    `persons` are blind, "" for one unknown here; where there are none, the fields from `law_version` to
    `items` are empty. `to_office` is the office that it is for (R-088).
    """

    notice: str
    persons: tuple[str, ...]
    sender: str
    sender_name: str
    receiver: str
    receiver_name: str
    sender_office: str
    official_role: str
    to_office: str
    law_version: str
    law_row: str
    affair: str
    information: str
    layout: str
    items: tuple[str, ...]
    sent_at: str
    non_disclosure: bool

    @property
    def inquirer_name(self) -> str:
        """Whose affair it is: the receiver's."""
        return self.receiver_name

    @property
    def provider_name(self) -> str:
        return self.sender_name

    @property
    def office(self) -> str:
        """The office in charge of the affair (ordinance art. 40(2)2): the one that is told."""
        return self.to_office

    @property
    def requested_at(self) -> str:
        """Nobody asked: the record counts from the sending."""
        return self.sent_at


@dataclass(frozen=True)
@event("notice.sent", retention="provision_record")
class NoticeSent(Disclosure):
    """Someone of this agency sent a notice. `notice_id` is the business system's own id.

    `sources` has the position of what was read for each person, `digest` tells a repeated notice from one
    that uses its id again for something else.
    """

    sources: tuple[int, ...]
    digest: str
    notice_id: str = personal()
    staff_id: str = personal()
    fiscal_year: str = personal()
    subjects: tuple[str, ...] = personal()
    title: str = personal()
    text: str = personal()

    @property
    def fiscal_years(self) -> tuple[str, ...]:
        """The record that is read for each person."""
        return (self.fiscal_year,) * len(self.persons)


@dataclass(frozen=True)
@event("notice.permitted", retention="provision_record")
class NoticePermitted:
    """The network let the notice pass."""

    decided_at: str


@dataclass(frozen=True)
@event("notice.refused", retention="provision_record")
class NoticeRefused:
    """Refused by this agency itself ("here") or by the network: nothing was disclosed."""

    by: str
    code: str
    decided_at: str


@dataclass(frozen=True)
@event("notice.delivered", retention="provision_record")
class NoticeDelivered:
    """The receiver has it. `code` is I-247 where it has no such office; `codes` tells of each person whether
    the information was taken in ("") or what is wrong with it (R-081)."""

    delivered_at: str
    code: str
    codes: tuple[str, ...]


@dataclass(frozen=True)
@event("notice.acknowledged", retention="provision_record")
class NoticeAcknowledged:
    """An officer of this office of the receiver has read it."""

    acknowledged_at: str
    office: str


EVENTS = (NoticeSent, NoticePermitted, NoticeRefused, NoticeDelivered, NoticeAcknowledged)

NONE, SENT, PERMITTED, REFUSED = "none", "sent", "permitted", "refused"
DELIVERED, ACKNOWLEDGED = "delivered", "acknowledged"

_STEPS = {
    (NONE, NoticeSent): SENT,
    (SENT, NoticePermitted): PERMITTED,
    (SENT, NoticeRefused): REFUSED,
    (PERMITTED, NoticeDelivered): DELIVERED,
    (PERMITTED, NoticeAcknowledged): ACKNOWLEDGED,
    (DELIVERED, NoticeAcknowledged): ACKNOWLEDGED,
    # A receipt may overtake the network's verdict when that was lost on its way, and one receipt the other.
    (SENT, NoticeDelivered): DELIVERED,
    (SENT, NoticeAcknowledged): ACKNOWLEDGED,
}


@dataclass(frozen=True)
class State:
    """Where a notice stands, with what was sent and what happened to it last and on the way."""

    step: str = NONE
    sent: NoticeSent | None = None
    refused: NoticeRefused | None = None
    delivered: NoticeDelivered | None = None
    acknowledged: NoticeAcknowledged | None = None


def stream(notice: str) -> str:
    return f"notice/{notice}"


def evolve(state: State, happened: Any) -> State:
    """Raises KeyError for a step that cannot follow."""
    step = _STEPS[state.step, type(happened)]
    if step == PERMITTED:
        return replace(state, step=step)
    kept: dict[str, Any] = {step: happened}
    return replace(state, step=step, **kept)


def state_of(events: Iterable[Any]) -> State:
    """The state of a notice from its events."""
    state = State()
    for happened in events:
        state = evolve(state, happened)
    return state


def repeated(state: State, digest: str) -> Refusal | None:
    """What a notice ends with that was ordered before: as the first time, or I-241 for another content."""
    if state.sent is not None and state.sent.digest != digest:
        return Refusal("I-241")
    here = state.refused is not None and state.refused.by == "here"
    return Refusal(state.refused.code) if here and state.refused is not None else None


def decide_send(notice: NoticeSent, refusal: Refusal | None) -> tuple[NoticeSent | NoticeRefused, ...]:
    """Record a notice, and with it the refusal if a check of this house failed."""
    if refusal is None:
        return (notice,)
    return (notice, NoticeRefused("here", refusal.code, notice.sent_at))


def decide_verdict(state: State, verdict: NetworkVerdict) -> tuple[NoticePermitted | NoticeRefused, ...]:
    """The network's word; one that comes late or twice changes nothing."""
    if state.step != SENT:
        return ()
    if verdict.code:
        return (NoticeRefused("network", verdict.code, verdict.decided_at),)
    return (NoticePermitted(verdict.decided_at),)


def decide_receipt(
    state: State, receipt: NoticeDelivered | NoticeAcknowledged, sender: str
) -> tuple[NoticeDelivered | NoticeAcknowledged, ...] | Refusal:
    """A receipt of the receiver; one that comes late or twice changes nothing. L-107: of somebody else."""
    if state.sent is None or state.sent.receiver != sender:
        return Refusal("L-107", "letter_to")
    return (receipt,) if (state.step, type(receipt)) in _STEPS else ()
