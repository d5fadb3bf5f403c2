"""Layouts of information items by version, and the check of a payload against them.

A layout is data: one line in `layouts.tsv` and one file `<id>_<version>.tsv` with the columns code, name_ja,
parent, level, type, digits, min_occurs, max_occurs, code_list. Types are those of the platform standard:

- X: half-width, printable ASCII and half-width katakana; N: full-width characters
- 9: digits; S9: digits with an optional minus in front; `digits` does not count the sign
- DATE: YYYY-MM-DD, a real day, or 0000-01-01 / 9999-12-31 for an open beginning / end
- GROUP: holds other items and carries no value

Digits count characters, neither bytes nor UTF-16 units; a variation selector belongs to its character.
A payload is a flat mapping of item code to text; an item that may occur more than once carries a list of
text. Items under a repeating group belong together by position and therefore occur equally often.
"""

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache

from schemas import codes, read_table

OPEN_BEGINNING = "0000-01-01"
OPEN_END = "9999-12-31"

_LAYOUT_HEADER = ("id", "version", "name_ja", "information")
_ITEM_HEADER = (
    "code",
    "name_ja",
    "parent",
    "level",
    "type",
    "digits",
    "min_occurs",
    "max_occurs",
    "code_list",
)
_TYPES = {
    "X": "半角文字",
    "N": "全角文字",
    "9": "数字",
    "S9": "符号付き数字",
    "DATE": "日付（YYYY-MM-DD）",
    "GROUP": "集団項目",
}
_HALF_WIDTH = re.compile("[\x20-\x7e\uff61-\uff9f]+")
_VARIATION_SELECTOR = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_CODE = re.compile("[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True)
class Item:
    """One item of a layout. `parent` is the code of its group; `digits` is None for DATE and GROUP."""

    code: str
    name_ja: str
    parent: str | None
    level: int
    type: str
    digits: int | None
    min_occurs: int
    max_occurs: int
    code_list: str | None


@dataclass(frozen=True)
class Layout:
    """One version of a layout. `information` is the law's name for what it carries (schemas.law)."""

    id: str
    version: int
    name_ja: str
    information: str
    items: tuple[Item, ...]

    @property
    def key(self) -> str:
        """The name on the wire, such as `income_tax_certificate/1`."""
        return f"{self.id}/{self.version}"

    @property
    def leaves(self) -> tuple[Item, ...]:
        """The items that carry values, in layout order."""
        return tuple(item for item in self.items if item.type != "GROUP")

    def item(self, code: str) -> Item:
        """The item or group with this code. Raises ValueError if there is none."""
        for item in self.items:
            if item.code == code:
                return item
        raise ValueError(f"layout {self.key} has no such item")


@dataclass(frozen=True)
class Fault:
    """One fault of a payload: item code, catalogue code and a reason in Japanese that repeats no value."""

    item: str
    code: str
    reason: str


def _read_items(name: str) -> tuple[Item, ...]:
    items: dict[str, Item] = {}
    for row in read_table(__name__, name, _ITEM_HEADER):
        item = Item(
            code=row["code"],
            name_ja=row["name_ja"],
            parent=row["parent"] or None,
            level=int(row["level"]),
            type=row["type"],
            digits=int(row["digits"]) if row["digits"] else None,
            min_occurs=int(row["min_occurs"]),
            max_occurs=int(row["max_occurs"]),
            code_list=row["code_list"] or None,
        )
        if not _CODE.fullmatch(item.code) or item.code in items or item.type not in _TYPES:
            raise ValueError(f"{name}: item {item.code} is malformed or occurs twice")
        if item.parent is not None and items[item.parent].type != "GROUP":
            raise ValueError(f"{name}: {item.code} stands under {item.parent}, which is not a group")
        if item.code_list is not None:
            codes.code_list(item.code_list)
        items[item.code] = item
    return tuple(items.values())


@cache
def layouts() -> tuple[Layout, ...]:
    """Every layout in every version."""
    return tuple(
        Layout(
            id=row["id"],
            version=int(row["version"]),
            name_ja=row["name_ja"],
            information=row["information"],
            items=_read_items(f"{row['id']}_{row['version']}.tsv"),
        )
        for row in read_table(__name__, "layouts.tsv", _LAYOUT_HEADER)
    )


def layout(key: str) -> Layout:
    """The layout `<id>/<version>`. Raises ValueError if there is none."""
    for found in layouts():
        if found.key == key:
            return found
    raise ValueError("no such layout")


def validate(
    layout: Layout, payload: Mapping[str, object], asked: Collection[str] | None = None
) -> list[Fault]:
    """Every fault of `payload`, in layout order, unknown items last; an empty list means that it fits.

    With `asked` (item codes), only asked items may appear, and only asked items that are required must.
    Codes: B-002 missing or empty, B-003 wrong type, B-004 too many digits, B-005 not in the code list, B-010
    unknown or not asked for, B-011 wrong number of occurrences, B-012 no such day.
    """
    faults: list[Fault] = []
    leaves = {item.code: item for item in layout.leaves}
    wanted = leaves.keys() if asked is None else leaves.keys() & set(asked)
    for code, item in leaves.items():
        if code in payload:
            if code in wanted:
                faults.extend(_item_faults(item, payload[code]))
            else:
                faults.append(Fault(code, "B-010", f"{item.name_ja}: 照会していない項目です"))
        elif code in wanted and item.min_occurs > 0:
            faults.append(Fault(code, "B-002", f"{item.name_ja}: 必須の項目がありません"))
    faults.extend(_group_faults(layout, payload))
    for name in dict.fromkeys((*payload, *(asked or ()))):
        if name not in leaves:
            # A foreign name could itself be personal data, so only the shape of an item code is repeated.
            shown = name if isinstance(name, str) and _CODE.fullmatch(name) else "-"
            faults.append(Fault(shown, "B-010", f"様式 {layout.key} にない項目です"))
    return faults


def _group_faults(layout: Layout, payload: Mapping[str, object]) -> Iterator[Fault]:
    for group in layout.items:
        if group.type != "GROUP" or group.max_occurs == 1:
            continue
        counts = {
            len(value)
            for item in layout.leaves
            if item.parent == group.code and isinstance(value := payload.get(item.code), list | tuple)
        }
        if len(counts) > 1:
            yield Fault(group.code, "B-011", f"{group.name_ja}: 項目ごとの出現回数がそろっていません")


def _item_faults(item: Item, given: object) -> Iterator[Fault]:
    if item.max_occurs == 1:
        yield from _value_faults(item, given)
    elif not isinstance(given, list | tuple):
        yield Fault(item.code, "B-003", f"{item.name_ja}: 繰り返し項目は値の並びで表します")
    else:
        if not item.min_occurs <= len(given) <= item.max_occurs:
            yield Fault(
                item.code,
                "B-011",
                f"{item.name_ja}: 出現回数は{item.min_occurs}回から{item.max_occurs}回までです",
            )
        for value in given[: item.max_occurs]:
            yield from _value_faults(item, value)


def _value_faults(item: Item, value: object) -> Iterator[Fault]:
    def fault(code: str, reason: str) -> Fault:
        return Fault(item.code, code, f"{item.name_ja}: {reason}")

    if isinstance(value, list | tuple):
        yield fault("B-011", "この項目は1回だけ現れます")
    elif not isinstance(value, str):
        yield fault("B-003", "値が文字列ではありません")
    elif value == "":
        yield fault("B-002", "値が空です")
    elif not _fits_type(item.type, value):
        yield fault("B-003", f"{_TYPES[item.type]}ではありません")
    elif item.type == "DATE":
        if not _real_day(value):
            yield fault("B-012", "実際にはない日付です")
    elif item.digits is not None and _count(item.type, value) > item.digits:
        yield fault("B-004", f"{item.digits}桁を超えています")
    elif item.code_list is not None and value not in codes.code_list(item.code_list):
        yield fault("B-005", "コード表にない値です")


def _fits_type(kind: str, value: str) -> bool:
    match kind:
        case "X":
            return _HALF_WIDTH.fullmatch(value) is not None
        case "N":
            return _full_width(value)
        case "9":
            return re.fullmatch("[0-9]+", value) is not None
        case "S9":
            return re.fullmatch("-?[0-9]+", value) is not None
        case "DATE":
            return re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", value) is not None
        case _:
            raise ValueError(f"items of type {kind} carry no value")


def _full_width(value: str) -> bool:
    """Full-width by Unicode's East Asian width; ambiguous ones (Greek, box drawing, private use) are too."""
    previous_is_character = False
    for character in value:
        if _VARIATION_SELECTOR.fullmatch(character):
            if not previous_is_character:
                return False
            previous_is_character = False
        elif unicodedata.east_asian_width(character) in ("W", "F", "A") and (
            # Controls, invisible format characters and lone surrogates are no characters that anybody sees.
            unicodedata.category(character) not in ("Cc", "Cf", "Cs")
        ):
            previous_is_character = True
        else:
            return False
    return True


def _count(kind: str, value: str) -> int:
    match kind:
        case "S9":
            return len(value.removeprefix("-"))
        case "N":
            return len(_VARIATION_SELECTOR.sub("", value))
        case _:
            return len(value)


def _real_day(value: str) -> bool:
    if value == OPEN_BEGINNING:
        return True
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True
