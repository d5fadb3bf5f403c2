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
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from schemas import codes, parse_table

OPEN_BEGINNING = "0000-01-01"
OPEN_END = "9999-12-31"

_LAYOUT_HEADER = ("id", "version", "name_ja", "information", "updated")
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
_PATTERNS = {
    "X": re.compile("[\x20-\x7e\uff61-\uff9f]+"),
    "9": re.compile("[0-9]+"),
    "S9": re.compile("-?[0-9]+"),
    "DATE": re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}"),
}
# Full-width by a look: what nearly every text is made of. Others are looked at letter by letter.
_COMMON = re.compile("[\u3000-\u303e\u3041-\u3096\u30a1-\u30fe\u4e00-\u9fff\uff01-\uff60]+")
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
    """One version of a layout. `information` is the law's name for what it carries (schemas.law).

    `updated` says in Japanese when the stored copies are renewed (更新頻度, R-134), "" for no stored ones.
    """

    id: str
    version: int
    name_ja: str
    information: str
    items: tuple[Item, ...]
    updated: str = ""
    by_code: Mapping[str, Item] = field(init=False, repr=False, compare=False)
    """The items that carry values, in layout order."""

    def __post_init__(self) -> None:
        leaves = {item.code: item for item in self.items if item.type != "GROUP"}
        object.__setattr__(self, "by_code", leaves)

    @property
    def key(self) -> str:
        """The name on the wire, such as `income_tax_certificate/1`."""
        return f"{self.id}/{self.version}"

    @property
    def leaves(self) -> tuple[Item, ...]:
        """The items that carry values, in layout order."""
        return tuple(self.by_code.values())

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


def _read_items(folder: Traversable, name: str) -> tuple[Item, ...]:
    items: dict[str, Item] = {}
    for row in _rows(folder, name, _ITEM_HEADER):
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


def _rows(folder: Traversable, name: str, header: tuple[str, ...]) -> list[dict[str, str]]:
    return parse_table(folder.joinpath(name).read_text(encoding="utf-8"), f"{folder}/{name}", header)


_folders: list[Traversable] = [resources.files(__name__)]


def add_layouts(folder: Traversable) -> None:
    """From here on the layouts of this folder are known in this process, too: for trials and measurements,
    whose parties all do so at their start. Raises ValueError for a table that does not fit."""
    _folders.append(folder)
    layouts.cache_clear()
    layouts()


@cache
def layouts() -> tuple[Layout, ...]:
    """Every layout in every version."""
    return tuple(
        Layout(
            id=row["id"],
            version=int(row["version"]),
            name_ja=row["name_ja"],
            information=row["information"],
            items=_read_items(folder, f"{row['id']}_{row['version']}.tsv"),
            updated=row["updated"],
        )
        for folder in _folders
        for row in _rows(folder, "layouts.tsv", _LAYOUT_HEADER)
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
    leaves = layout.by_code
    wanted = leaves.keys() if asked is None else leaves.keys() & set(asked)
    for code, item in leaves.items():
        if code in payload:
            if code not in wanted:
                faults.append(Fault(code, "B-010", f"{item.name_ja}: 照会していない項目です"))
            elif item.max_occurs != 1 or _wrong(item, payload[code]) is not None:
                faults.extend(_item_faults(item, payload[code]))
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
    values: Sequence[object] = (given,)
    if item.max_occurs != 1:
        if not isinstance(given, list | tuple):
            yield Fault(item.code, "B-003", f"{item.name_ja}: 繰り返し項目は値の並びで表します")
            return
        if not item.min_occurs <= len(given) <= item.max_occurs:
            yield Fault(
                item.code,
                "B-011",
                f"{item.name_ja}: 出現回数は{item.min_occurs}回から{item.max_occurs}回までです",
            )
        values = given[: item.max_occurs]
    for value in values:
        if (wrong := _wrong(item, value)) is not None:
            code, reason = wrong
            yield Fault(item.code, code, f"{item.name_ja}: {reason}")


def _wrong(item: Item, value: object) -> tuple[str, str] | None:
    """Code and reason, or None for a value that fits."""
    if not isinstance(value, str):
        several = isinstance(value, list | tuple)
        return ("B-011", "この項目は1回だけ現れます") if several else ("B-003", "値が文字列ではありません")
    if value == "":
        return "B-002", "値が空です"
    if not _fits_type(item.type, value):
        return "B-003", f"{_TYPES[item.type]}ではありません"
    if item.type == "DATE":
        return None if _real_day(value) else ("B-012", "実際にはない日付です")
    if item.digits is not None and _count(item.type, value) > item.digits:
        return "B-004", f"{item.digits}桁を超えています"
    if item.code_list is not None and value not in codes.code_list(item.code_list):
        return "B-005", "コード表にない値です"
    return None


def _fits_type(kind: str, value: str) -> bool:
    if kind == "N":
        return _full_width(value)
    pattern = _PATTERNS.get(kind)
    if pattern is None:
        raise ValueError(f"items of type {kind} carry no value")
    return pattern.fullmatch(value) is not None


def _full_width(value: str) -> bool:
    """Full-width by Unicode's East Asian width; ambiguous ones (Greek, box drawing, private use) are too."""
    if _COMMON.fullmatch(value):
        return True
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
        case "N" if not _COMMON.fullmatch(value):
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
