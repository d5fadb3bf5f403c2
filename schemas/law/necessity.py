"""Which items of a layout an affair needs (R-087): the necessary minimum, as data."""

from functools import cache

from schemas import read_table
from schemas.items import Layout


@cache
def _table() -> dict[tuple[str, str], tuple[str, ...]]:
    rows = read_table("schemas.law", "necessary_items.tsv", ("row", "layout", "items"))
    return {(row["row"], row["layout"]): tuple(row["items"].split()) for row in rows}


def necessary_items(row: str, layout: Layout) -> tuple[str, ...]:
    """Item codes that may be asked for under a row of the law table; all of the layout if none is listed."""
    return _table().get((row, layout.key)) or tuple(item.code for item in layout.leaves)
