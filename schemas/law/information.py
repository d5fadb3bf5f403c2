"""The kinds of information that the law table names, their numbers, former names and item layouts.

`information.tsv` lists every name of the tables with the number that the sources give it (R-399); most have
none there. `former_information.tsv` holds the names of the older sources with their numbers, and the name of
today where there is one (R-413). A layout is tied to a name by `Layout.information`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from schemas import read_table
from schemas.errors import Refusal
from schemas.items import layouts


@dataclass(frozen=True)
class FormerName:
    """A name of information in an older source: its number there, and the name of today ("" for none)."""

    name: str
    number: str
    present: str
    source: str


@dataclass(frozen=True)
class Information:
    """A kind of information of the law table. `number` is "" where the sources give none."""

    name: str
    number: str
    source: str
    former: tuple[FormerName, ...]
    layouts: tuple[str, ...]


@cache
def former_names() -> tuple[FormerName, ...]:
    """Every name of information of the older sources, in the order of their numbers."""
    header = ("name", "number", "present", "source")
    return tuple(FormerName(**row) for row in read_table("schemas.law", "former_information.tsv", header))


@cache
def information() -> Mapping[str, Information]:
    """Every kind of information by its name as it stands in the table."""
    found = {}
    for row in read_table("schemas.law", "information.tsv", ("name", "number", "source")):
        name = row["name"]
        if name in found:
            raise ValueError(f"information.tsv: {name} occurs twice")
        former = tuple(one for one in former_names() if one.present == name)
        keys = tuple(layout.key for layout in layouts() if layout.information == name)
        found[name] = Information(name, row["number"], row["source"], former, keys)
    return MappingProxyType(found)


def layout_keys(name: str) -> tuple[str, ...] | Refusal:
    """The item layouts of an information name, every version. I-213 for a name that no table has, I-211 for
    one that has no layout here yet: without a layout nothing can be asked for or answered item by item."""
    known = information().get(name)
    if known is None:
        return Refusal("I-213", "information")
    return known.layouts or Refusal("I-211", "information")
