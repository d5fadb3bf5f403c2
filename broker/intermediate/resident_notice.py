"""お知らせ (notice to a resident): published for a person, opened, replied to, withdrawn (R-355, R-360).

A notice is found by a keyed digest of the agency's own id for it: what stands in an address of the residents'
page can be neither guessed nor traced to a person. Only the person it is for ever opens it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, ClassVar

from broker.ledger.events import Recorded, event, personal
from broker.ledger.projections import Rows
from schemas.errors import Refusal

KINDS = ("general", "reminder", "defect", "payment", "application")
"""What a notice is: plain, a reminder (勧奨), a defect in what was handed in (不備), a payment (支払), or
where the review of an application stands (R-345, R-362)."""

APPLICATION = KINDS[-1]
STATUSES = ("not_reviewed", "under_review", "reviewed", "rejected")
"""Where the review of an application stands (procedure for online applications, TEJUN 5, step 6)."""

TITLE_CHARACTERS, TEXT_CHARACTERS, CHOICE_CHARACTERS = 100, 2000, 40
REPLY_CHARACTERS, REASON_CHARACTERS = 200, 200
CHOICES = 8


@dataclass(frozen=True)
@event("resident_notice.published", retention="notice")
class NoticePublished:
    """An agency has something to tell a person. `person` is blind, `valid_until` the last day (YYYY-MM-DD).

    `notice_id` is the agency's own id, `status` one of STATUSES for an application and else "". A reply picks
    one of `choices` (empty: none to pick from) and may add a short text where `free_text` allows it. `digest`
    tells a repeated notice from one that uses its id again for something else.
    """

    notice: str
    person: str
    office: str
    published_at: str
    valid_until: str
    digest: str
    notice_id: str = personal()
    staff_id: str = personal()
    integrated_number: str = personal()
    kind: str = personal()
    status: str = personal()
    title: str = personal()
    text: str = personal()
    choices: tuple[str, ...] = personal()
    free_text: bool = personal()


@dataclass(frozen=True)
@event("resident_notice.opened", retention="notice")
class NoticeOpened:
    """The person read it for the first time (R-363)."""

    opened_at: str


@dataclass(frozen=True)
@event("resident_notice.replied", retention="notice")
class NoticeReplied:
    """The person replied; there is one reply to a notice."""

    replied_at: str
    choice: str = personal()
    text: str = personal()


@dataclass(frozen=True)
@event("resident_notice.cancelled", retention="notice")
class NoticeCancelled:
    """The agency took the notice back (取消). What was opened and replied before stays on record."""

    office: str
    cancelled_at: str
    staff_id: str = personal()
    reason: str = personal()


EVENTS = (NoticePublished, NoticeOpened, NoticeReplied, NoticeCancelled)

NONE, PUBLISHED, OPENED, REPLIED, CANCELLED = "none", "published", "opened", "replied", "cancelled"
EXPIRED = "expired"

_STEPS = {
    (NONE, NoticePublished): PUBLISHED,
    (PUBLISHED, NoticeOpened): OPENED,
    (OPENED, NoticeReplied): REPLIED,
    (PUBLISHED, NoticeCancelled): CANCELLED,
    (OPENED, NoticeCancelled): CANCELLED,
    (REPLIED, NoticeCancelled): CANCELLED,
}


@dataclass(frozen=True)
class State:
    """Where a notice stands, with all that happened to it.

    Where `erased`, the sealed fields hold what tells of the erasure, and nothing of them is to be shown.
    """

    step: str = NONE
    published: NoticePublished | None = None
    opened: NoticeOpened | None = None
    replied: NoticeReplied | None = None
    cancelled: NoticeCancelled | None = None
    erased: bool = False

    def standing(self, day: str) -> str:
        """The step, or "expired" where nothing else ended it before its last day: time alone does that."""
        over = self.published is not None and self.published.valid_until < day
        return EXPIRED if over and self.step in (PUBLISHED, OPENED) else self.step


def stream(notice: str) -> str:
    return f"resident_notice/{notice}"


def evolve(state: State, happened: Any) -> State:
    """Raises KeyError for a step that cannot follow."""
    step = _STEPS[state.step, type(happened)]
    kept: dict[str, Any] = {step: happened}
    return replace(state, step=step, **kept)


def state_of(recorded: Sequence[Recorded]) -> State:
    """The state of a notice from its events."""
    state = State()
    for happened in recorded:
        state = evolve(state, happened.event)
    return replace(state, erased=any(happened.erased is not None for happened in recorded))


def decide_publish(state: State, notice: NoticePublished) -> tuple[NoticePublished, ...] | Refusal:
    """The same notice again changes nothing.

    Refusals: I-241 its id is taken, I-243 its last day is over; for its content B-002, B-004, B-005, B-011,
    B-012.
    """
    if state.published is not None:
        return () if state.published.digest == notice.digest else Refusal("I-241")
    fault = _fault(notice)
    if fault is None and notice.valid_until < notice.published_at[:10]:
        return Refusal("I-243")
    return fault or (notice,)


def _fault(notice: NoticePublished) -> Refusal | None:
    """What is wrong with a notice that did not come from a file, where the form has checked it."""
    if not (notice.notice_id and notice.title and notice.text):
        return Refusal("B-002")
    if len(notice.title) > TITLE_CHARACTERS or len(notice.text) > TEXT_CHARACTERS:
        return Refusal("B-004", "text")
    statuses = STATUSES if notice.kind == APPLICATION else ("",)
    if notice.kind not in KINDS or notice.status not in statuses:
        return Refusal("B-005", "kind")
    if not all(0 < len(choice) <= CHOICE_CHARACTERS for choice in notice.choices):
        return Refusal("B-004", "choices")
    if len(notice.choices) > CHOICES or len(set(notice.choices)) < len(notice.choices):
        return Refusal("B-011", "choices")
    return None if _is_day(notice.valid_until) else Refusal("B-012", "valid_until")


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def decide_open(state: State, at: str) -> tuple[NoticeOpened, ...]:
    """Only the first reading is recorded, and none of a notice that was withdrawn."""
    return (NoticeOpened(at),) if state.step == PUBLISHED else ()


def decide_reply(state: State, choice: str, text: str, at: str) -> tuple[Any, ...] | Refusal:
    """A reply while the notice is open; who replies has read it. The same reply again changes nothing.

    Refusals: I-242 no such notice, I-243 withdrawn or over, I-244 replied before, I-246 not one of the
    replies that were asked for.
    """
    if state.published is None or state.erased:
        return Refusal("I-242")
    if state.replied is not None and (state.replied.choice, state.replied.text) == (choice, text):
        return ()
    standing = state.standing(at[:10])
    if standing in _CLOSED:
        return Refusal(_CLOSED[standing])
    asked = state.published
    picked = choice in asked.choices if asked.choices else not choice
    written = len(text) <= REPLY_CHARACTERS and (asked.free_text or not text)
    if not (picked and written and (choice or text)):
        return Refusal("I-246")
    return (*decide_open(state, at), NoticeReplied(at, choice, text))


def decide_cancel(state: State, cancelled: NoticeCancelled) -> tuple[NoticeCancelled, ...] | Refusal:
    """Withdrawing again changes nothing; the first reason stands.

    Refusals: I-242 no such notice, B-002 no reason, B-004 too long a reason.
    """
    if state.published is None:
        return Refusal("I-242")
    if not 0 < len(cancelled.reason) <= REASON_CHARACTERS:
        return Refusal("B-004" if cancelled.reason else "B-002", "reason")
    return () if state.step == CANCELLED else (cancelled,)


_CLOSED = {CANCELLED: "I-243", REPLIED: "I-244", EXPIRED: "I-243"}


class ResidentNotices:
    """The notices of a person. Nothing about their content: the streams of the notices have that."""

    name: ClassVar[str] = "resident_notices"
    tables: ClassVar[Mapping[str, str]] = {
        "resident_notice": "person TEXT, published_at TEXT, notice TEXT, PRIMARY KEY (person, notice)"
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        if isinstance(recorded.event, NoticePublished):
            e = recorded.event
            rows.execute("INSERT INTO resident_notice VALUES (?, ?, ?)", (e.person, e.published_at, e.notice))


PROJECTIONS = (ResidentNotices(),)
