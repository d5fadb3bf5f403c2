"""What may be said between agencies: law tables, items, code lists, messages and the error catalogue.

The rooms hold data first (TSV and TOML beside the code) and a thin reader. Nothing here opens a socket,
reads a clock or draws a random number.
"""

from importlib import resources


def read_table(package: str, name: str, header: tuple[str, ...]) -> list[dict[str, str]]:
    """Read the TSV file `name` of `package` as `parse_table` reads it. Raises ValueError as there."""
    text = resources.files(package).joinpath(name).read_text(encoding="utf-8")
    return parse_table(text, f"{package}/{name}", header)


def parse_table(text: str, place: str, header: tuple[str, ...]) -> list[dict[str, str]]:
    """One dictionary per line of a table, in file order; `place` is how an error names it.

    The file is UTF-8; cells are separated by a tab, never quoted, and kept exactly as written. Lines that
    start with `#` are remarks and empty lines are skipped. The first other line must equal `header`.
    Raises ValueError, naming file and line, when the header or a line does not fit: a table that ships with
    the program and cannot be read is a broken installation, not an input fault.
    """
    rows: list[dict[str, str]] = []
    seen_header = False
    for number, line in enumerate(text.split("\n"), start=1):
        if not line or line.startswith("#"):
            continue
        cells = tuple(line.split("\t"))
        if not seen_header:
            if cells != header:
                raise ValueError(f"{place}:{number}: header is not {header}")
            seen_header = True
            continue
        if len(cells) != len(header):
            raise ValueError(f"{place}:{number}: {len(cells)} cells, {len(header)} expected")
        rows.append(dict(zip(header, cells, strict=True)))
    if not seen_header:
        raise ValueError(f"{place}: no header")
    return rows
