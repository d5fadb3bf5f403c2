"""A provision record as article 23 of the My Number Act lists it: its items with their references of law.

The command line and the residents' page show the same lines, so that neither says more or less than the law.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

from broker.intermediate.correction import ITEMS, YES, Correction
from broker.intermediate.records import ProvisionRecord
from broker.ledger.vault import Erased
from schemas.errors import entry
from schemas.items import Layout, layout

JST = timezone(timedelta(hours=9), "JST")
NOTHING_RECORDED = "記録なし"
NOT_PROVIDED = "提供なし"
NOT_ASKED = "（求めによらない連絡）"


@dataclass(frozen=True)
class Line:
    """One matter that the law wants recorded, with the place of law that wants it.

    `value` is in Japanese. Where it is a list, `parts` are its entries; where it is a time, `instant` is the
    same time in ISO 8601.
    """

    reference_ja: str
    reference_en: str
    label_ja: str
    label_en: str
    value: str
    parts: tuple[str, ...] = ()
    instant: str = ""


_NAMES = ("法第23条第1項第1号", "Act art. 23(1)(i)")
_TIMES = ("法第23条第1項第2号", "Act art. 23(1)(ii)")
_ITEMS = ("法第23条第1項第3号", "Act art. 23(1)(iii)")
_OFFICE = (
    "法第23条第1項第4号・命令第47条第1項第1号（第40条第2項第2号）",
    "Act art. 23(1)(iv); ordinance art. 47(1)(i), 40(2)(ii)",
)
_AFFAIR = (
    "法第23条第1項第4号・命令第47条第1項第1号（第40条第2項第3号）",
    "Act art. 23(1)(iv); ordinance art. 47(1)(i), 40(2)(iii)",
)
_ASSESSMENT = (
    "法第23条第1項第4号・命令第47条第1項第2号",
    "Act art. 23(1)(iv); ordinance art. 47(1)(ii)",
)
_UNPUBLISHED = ("N-115", "L-114", "L-115")
_NON_DISCLOSURE = ("法第23条第2項", "Act art. 23(2)")
_CORRECTION = ("法第31条", "Act art. 31")


def lines(record: ProvisionRecord) -> list[Line]:
    """The matters of article 23(1), (2) and of ordinance article 47(1), in their order (R-147 to R-151).

    What was corrected follows (Act art. 31). Of a record that was erased there is one line only, which says
    by which rule and when.
    """
    if record.erased_at:
        return [_erased(record)]
    items = item_names(record)
    provided, instant = _provided(record)
    requested, requested_instant = _time(record.requested_at)
    if record.unasked:
        requested += NOT_ASKED
    return [
        Line(*_NAMES, "情報照会者", "Inquirer", record.inquirer_name or NOTHING_RECORDED),
        Line(*_NAMES, "情報提供者", "Provider", record.provider_name or NOTHING_RECORDED),
        Line(*_TIMES, "提供の求めの日時", "Time of the request", requested, instant=requested_instant),
        Line(*_TIMES, "提供の日時", "Time of provision", provided, instant=instant),
        Line(*_ITEMS, "情報の種類", "Kind of information", _kind(record)),
        Line(*_ITEMS, "情報の項目", "Items of information", "、".join(items) or NOTHING_RECORDED, items),
        Line(*_OFFICE, "事務をつかさどる組織", "Office in charge", record.office or NOTHING_RECORDED),
        Line(*_AFFAIR, "情報照会者の処理する事務", "Affair", record.affair or NOTHING_RECORDED),
        Line(
            *_ASSESSMENT,
            "法第21条第2項に掲げる場合（評価書の公表等の義務違反）",
            "Case of Act art. 21(2) (assessment not published)",
            "該当する" if record.refusal in _UNPUBLISHED else "該当する旨の記録なし",
        ),
        Line(
            *_NON_DISCLOSURE,
            "不開示情報",
            "Non-disclosure",
            "該当する" if record.non_disclosure else "該当しない",
        ),
        *(_correction(record, each) for each in record.corrections),
    ]


def _erased(record: ProvisionRecord) -> Line:
    erased = Erased(record.erased_rule, record.erased_at)
    return Line("記録の消去", "Erasure of the record", "消去", erased.en, erased.ja)


def _correction(record: ProvisionRecord, found: Correction) -> Line:
    """What was corrected later, beside what the record said at first (R-161)."""
    item_ja, item_en = ITEMS[found.item]
    by = "" if not found.by else record.provider_name if record.side == "inquirer" else record.inquirer_name
    at, instant = _time(found.corrected_at)
    old, new = (_corrected(record, found.item, value) for value in (found.old, found.new))
    who = f"{by}による訂正" if by else "この機関による訂正"
    return Line(
        *_CORRECTION,
        f"訂正（{item_ja}）",
        f"Correction ({item_en})",
        f"{new}（訂正前: {old}。{who}、{at}）",
        instant=instant,
    )


def _corrected(record: ProvisionRecord, item: str, value: str) -> str:
    """A value of a correction as it is read."""
    if item == "items":
        return "、".join(item_names(replace(record, items=tuple(value.split()))))
    if item == "non_disclosure":
        return "該当する" if value == YES else "該当しない"
    return _time(value)[0] if item.endswith("_at") else value


def item_names(record: ProvisionRecord) -> tuple[str, ...]:
    """The items asked for by their Japanese names; a code that no layout here knows stays a code."""
    known = _layout(record.layout)
    names = {item.code: item.name_ja for item in known.items} if known is not None else {}
    return tuple(names.get(code, code) for code in record.items)


def japanese_time(at: str) -> str:
    """An ISO 8601 time as it is read in Japan, to the minute; text that is no such time is left as it is."""
    return _time(at)[0]


def _time(at: str) -> tuple[str, str]:
    """For people and for machines ("" where the text is no time with an offset: partners write it, too)."""
    try:
        when = datetime.fromisoformat(at)
        local = when.astimezone(JST) if when.tzinfo is not None else None
    except (ValueError, OverflowError):
        local = None
    if local is None:
        return at or NOTHING_RECORDED, ""
    text = f"{local.year}年{local.month:02}月{local.day:02}日 {local.hour:02}時{local.minute:02}分"
    return f"{text} JST(+09:00)", at


def _provided(record: ProvisionRecord) -> tuple[str, str]:
    if record.refusal:
        return f"{NOT_PROVIDED}（{_reason(record.refusal)}）", ""
    if record.provided_at:
        return _time(record.provided_at)
    if record.unasked:
        return "未提供（送信中）", ""
    # The provider keeps an open request only for an officer to decide; the inquirer never learns of that.
    return f"未提供（{'確認中' if record.side == 'provider' else '回答待ち'}）", ""


def _reason(code: str) -> str:
    try:
        return f"{code} {entry(code).cause_ja}"
    except ValueError:  # of a partner with a newer catalogue
        return f"{code} この版の目録にない理由です。"


def _kind(record: ProvisionRecord) -> str:
    known = _layout(record.layout)
    name = known.name_ja if known is not None else record.layout
    information = record.information or NOTHING_RECORDED
    return information if name in ("", information) else f"{information}（{name}）"


def _layout(key: str) -> Layout | None:
    try:
        return layout(key)
    except ValueError:
        return None
