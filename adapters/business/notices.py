"""CSV files about notices: お知らせ to residents, their withdrawal, and 連絡 to offices of other agencies.

As in `files`: cp932, CRLF, a header line, and every fault of a record in the error list. The choices of a
reply stand in one column, with a full-width ／ between them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from adapters.business import checks
from adapters.business.form import TEXT, Column, Finding, Form
from adapters.business.output import NO_TARGET, write_csv
from adapters.business.records import ErrorLine, Line
from adapters.platform.notices import InboxNotice, NoticeOrder, NoticeResult
from adapters.platform.resident_notices import Cancellation, ResidentNoticeOrder, ResidentNoticeResult
from broker.intermediate import notice, resident_notice
from schemas import errors, items

BETWEEN = "／"
KINDS = dict(zip(("お知らせ", "勧奨", "不備", "支払", "審査状況"), resident_notice.KINDS, strict=True))
STATUSES = dict(zip(("未審査", "審査中", "審査済", "却下"), resident_notice.STATUSES, strict=True))
STATES = {
    "none": "未登録",
    "published": "未読",
    "opened": "開封済",
    "replied": "返答済",
    "cancelled": "取消済",
    "expired": "期間終了",
    "erased": "消去済",
    "sent": "送信待ち",
    "permitted": "送信済",
    "refused": "送信不可",
    "delivered": "到達",
    "received": "受信",
    "acknowledged": "受付済",
}
RESIDENT_RESULT_HEADER = (
    "お知らせID",
    "状態",
    "登録日時",
    "有効終了日",
    "開封日時",
    "返答日時",
    "返答",
    "ひとこと",
    "取消日時",
)
RESULT_HEADER = (
    "連絡ID",
    "状態",
    "コード",
    "理由",
    "次の手順",
    "送信日時",
    "到達日時",
    "受付日時",
    "受付した所属",
)
INBOX_HEADER = (
    "連絡番号",
    "状態",
    "送信機関",
    "送信した所属",
    "宛先の所属",
    "コード",
    "送信日時",
    "受信日時",
    "件名",
    "本文",
)
_LAYOUTS = tuple(layout.key for layout in items.layouts())
_STAFF = Column("staff_id", "職員ID", "X")
_ID = Column("notice_id", "お知らせID", "X")


def _at_most(characters: int) -> Callable[[str], Iterator[Finding]]:
    """A check that a text is not longer than that."""

    def check(value: str) -> Iterator[Finding]:
        if len(value) > characters:
            yield "B-004", f"{characters}文字を超えています"

    return check


def _choices(value: str) -> Iterator[Finding]:
    choices = value.split(BETWEEN)
    if len(choices) > resident_notice.CHOICES or len(set(choices)) < len(choices):
        yield "B-011", f"選択肢は{resident_notice.CHOICES}個までで、それぞれ1回だけです"
    if not all(0 < len(choice) <= resident_notice.CHOICE_CHARACTERS for choice in choices):
        yield "B-004", f"選択肢は1文字から{resident_notice.CHOICE_CHARACTERS}文字までです"


def _status_of_an_application(values: Mapping[str, str]) -> Iterator[tuple[str, Finding]]:
    if "kind" in values and "status" in values:
        application = KINDS[values["kind"]] == resident_notice.APPLICATION
        if application and not values["status"]:
            yield "status", ("B-002", "審査状況のお知らせには、審査状況が必要です")
        if values["status"] and not application:
            yield "status", ("B-010", "審査状況のお知らせではないため、書けません")


def _about_persons(values: Mapping[str, str]) -> Iterator[tuple[str, Finding]]:
    """A notice is about nobody, or has all that tells what it says about whom."""
    about = ("row", "information", "layout", "subjects")
    given = [code for code in about if values.get(code)]
    for code in about:
        if given and code in values and not values[code]:
            yield code, ("B-002", "人についての連絡には、表の項、情報、レイアウト、宛名番号が必要です")


RESIDENT_NOTICES = Form(
    _ID,
    _STAFF,
    Column(
        "integrated_number",
        "団体内統合宛名番号",
        "9",
        checks.INTEGRATED_NUMBER_DIGITS,
        check=checks.integrated_number,
    ),
    Column("kind", "種類", "N", check=checks.one_of(*KINDS)),
    Column("status", "審査状況", "N", required=False, check=checks.one_of(*STATUSES)),
    Column("title", "件名", TEXT, check=_at_most(resident_notice.TITLE_CHARACTERS)),
    Column("text", "本文", TEXT, check=_at_most(resident_notice.TEXT_CHARACTERS)),
    Column("choices", "返答の選択肢", TEXT, required=False, check=_choices),
    Column("free_text", "ひとこと欄", "X", 1, check=checks.one_of("0", "1")),
    Column("valid_until", "有効終了日", "DATE"),
    across=_status_of_an_application,
)

CANCELLATIONS = Form(
    _ID, _STAFF, Column("reason", "取消の理由", TEXT, check=_at_most(resident_notice.REASON_CHARACTERS))
)

NOTICES = Form(
    Column("notice_id", "連絡ID", "X"),
    _STAFF,
    Column("receiver", "宛先機関コード", "X", check=checks.agency),
    Column("to_office", "宛先の所属", TEXT),
    Column("title", "件名", TEXT, check=_at_most(notice.TITLE_CHARACTERS)),
    Column("text", "本文", TEXT, check=_at_most(notice.TEXT_CHARACTERS)),
    Column("row", "表の項", "X", required=False, check=checks.law_row),
    Column("information", "特定個人情報", "N", required=False),
    Column("layout", "レイアウト", "X", required=False, check=checks.one_of(*_LAYOUTS)),
    Column(
        "fiscal_year", "相当年度", "9", checks.FISCAL_YEAR_DIGITS, required=False, check=checks.fiscal_year
    ),
    Column("subjects", "団体内統合宛名番号", "X", required=False, check=checks.subjects),
    across=_about_persons,
)


def _resident_notice(v: Mapping[str, str]) -> ResidentNoticeOrder:
    return ResidentNoticeOrder(
        notice_id=v["notice_id"],
        staff_id=v["staff_id"],
        integrated_number=v["integrated_number"],
        kind=KINDS[v["kind"]],
        status=STATUSES[v["status"]] if v["status"] else "",
        title=v["title"],
        text=v["text"],
        choices=tuple(v["choices"].split(BETWEEN)) if v["choices"] else (),
        free_text=v["free_text"] == "1",
        valid_until=v["valid_until"],
    )


def _notice(v: Mapping[str, str]) -> NoticeOrder:
    subjects = tuple(v["subjects"].split(" ")) if v["subjects"] else ()
    return NoticeOrder(**{**v, "subjects": subjects})  # type: ignore[arg-type] # the others are texts


def read_resident_notices(path: Path) -> Iterator[Line[ResidentNoticeOrder]]:
    """The notices to residents of a file (R-360). Raises OSError when it cannot be read."""
    return RESIDENT_NOTICES.read(path, _resident_notice)


def read_cancellations(path: Path) -> Iterator[Line[Cancellation]]:
    """The notices to residents that are withdrawn. Raises OSError."""
    return CANCELLATIONS.read(path, lambda v: Cancellation(**v))


def read_notices(path: Path) -> Iterator[Line[NoticeOrder]]:
    """The notices of a file to offices of other agencies. Raises OSError."""
    return NOTICES.read(path, _notice)


def read_ids(path: Path, column: str) -> Iterator[Line[str]]:
    """The ids of notices to look after: a file with the one column お知らせID or 連絡ID. Raises OSError."""
    return Form(Column("notice_id", column, "X")).read(path, lambda v: v["notice_id"])


def write_resident_results(path: Path, results: Iterable[ResidentNoticeResult]) -> list[ErrorLine]:
    """What became of notices to residents, a line each.

    A reply that cp932 cannot carry is left out of its line and reported.
    """
    cells = (
        [
            r.notice_id,
            STATES[r.state],
            r.published_at,
            r.valid_until,
            r.opened_at,
            r.replied_at,
            r.choice,
            r.text,
            r.cancelled_at,
        ]
        for r in results
    )
    return _write(path, RESIDENT_RESULT_HEADER, cells)


def write_results(path: Path, results: Iterable[NoticeResult]) -> list[ErrorLine]:
    """What became of notices to other agencies, a line each, with the codes of notice and persons."""

    def cells(r: NoticeResult) -> list[str]:
        codes = list(dict.fromkeys(code for code in (r.code, *r.codes) if code))
        # A partner with a newer catalogue may know others.
        known = [errors.entry(code) for code in codes if code in errors.codes()]
        return [
            r.notice_id,
            STATES[r.state],
            " ".join(codes),
            "".join(entry.cause_ja for entry in known),
            "".join(entry.next_ja for entry in known),
            r.sent_at,
            r.delivered_at,
            r.acknowledged_at,
            r.office,
        ]

    return _write(path, RESULT_HEADER, map(cells, results))


def write_inbox(path: Path, found: Iterable[InboxNotice]) -> list[ErrorLine]:
    """The notices in an inbox, a line each; what they say about persons is a file of its own."""
    cells = (
        [
            f"{n.sender}/{n.notice}",
            STATES[n.state],
            n.sender_name,
            n.sender_office,
            n.to_office,
            n.code,
            n.sent_at,
            n.received_at,
            n.title,
            n.text,
        ]
        for n in found
    )
    return _write(path, INBOX_HEADER, cells)


def _write(path: Path, header: Sequence[str], cells: Iterable[Sequence[str]]) -> list[ErrorLine]:
    """Lines of which only what cp932 cannot carry is replaced by a remark."""

    def instead(written: Sequence[str], faults: Sequence[ErrorLine]) -> list[str]:
        unfit = {fault.item for fault in faults}
        return [
            f"（{NO_TARGET}）" if name in unfit else text for name, text in zip(header, written, strict=True)
        ]

    return write_csv(path, header, cells, instead=instead)
