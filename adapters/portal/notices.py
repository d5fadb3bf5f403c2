"""What the residents' page shows of each notice from the agency (お知らせ): one view, made of its state."""

from dataclasses import dataclass

from adapters.portal.article23 import japanese_time
from broker.intermediate.resident_notice import (
    CANCELLED,
    EXPIRED,
    OPENED,
    PUBLISHED,
    REPLIED,
    REPLY_CHARACTERS,
    State,
)


@dataclass(frozen=True)
class Words:
    """The same in Japanese and English."""

    ja: str
    en: str


@dataclass(frozen=True)
class Moment:
    """A time for people (JST with its offset) and, in ISO 8601, for machines."""

    text: str
    instant: str


@dataclass(frozen=True)
class NoticeView:
    """One notice as its person sees it. `state` is a step of the notice or "expired".

    A notice that was withdrawn shows that it was, when and why, and no longer its text.
    """

    notice: str
    state: str
    word: Words
    kind: Words
    status: Words | None
    title: str
    paragraphs: tuple[str, ...]
    office: str
    published: Moment
    last_day: str
    choices: tuple[str, ...]
    free_text: bool
    replied: Moment | None
    reply: tuple[str, ...]
    cancelled: Moment | None
    reason: str
    most: int = REPLY_CHARACTERS

    @property
    def asks(self) -> bool:
        """Whether it asked for a reply at all."""
        return bool(self.choices) or self.free_text


_STATES = {
    PUBLISHED: Words("未読", "Unread"),
    OPENED: Words("既読", "Read"),
    REPLIED: Words("返答済み", "Replied"),
    CANCELLED: Words("取り消し", "Withdrawn"),
    EXPIRED: Words("期間終了", "Expired"),
}
_KINDS = {
    "general": Words("お知らせ", "Notice"),
    "reminder": Words("ご確認のお願い", "Reminder"),
    "defect": Words("不備のお知らせ", "Something to correct"),
    "payment": Words("お支払いのお知らせ", "Payment"),
    "application": Words("申請の審査状況", "Status of your application"),
}
_STATUSES = {
    "not_reviewed": Words("受付済み（審査はこれからです）", "Received, not yet reviewed"),
    "under_review": Words("審査中", "Under review"),
    "reviewed": Words("審査が終わりました", "Reviewed"),
    "rejected": Words("申請は認められませんでした", "Rejected"),
}
UNFIT = Words(
    f"返答を受け付けられませんでした。選択肢から一つ選び、ひとことは{REPLY_CHARACTERS}文字までにしてください。",
    f"Your reply was not taken. Choose one of the choices; write at most {REPLY_CHARACTERS} characters.",
)


def view(state: State, day: str) -> NoticeView:
    """What is shown of a published notice on this day (YYYY-MM-DD)."""
    notice = state.published
    if notice is None:
        raise ValueError("no notice was published")
    standing = state.standing(day)
    withdrawn = standing == CANCELLED
    replied, cancelled = state.replied, state.cancelled
    year, month, last = notice.valid_until.split("-")
    return NoticeView(
        notice=notice.notice,
        state=standing,
        word=_STATES[standing],
        kind=_KINDS[notice.kind],
        status=_STATUSES[notice.status] if notice.status and not withdrawn else None,
        title=notice.title,
        paragraphs=() if withdrawn else tuple(notice.text.splitlines()),
        office=notice.office,
        published=_moment(notice.published_at),
        last_day=f"{year}年{month}月{last}日",
        choices=notice.choices,
        free_text=notice.free_text,
        replied=_moment(replied.replied_at) if replied is not None else None,
        reply=tuple(text for text in (replied.choice, replied.text) if text) if replied is not None else (),
        cancelled=_moment(cancelled.cancelled_at) if cancelled is not None else None,
        reason=cancelled.reason if cancelled is not None else "",
    )


def _moment(at: str) -> Moment:
    return Moment(japanese_time(at), at)
