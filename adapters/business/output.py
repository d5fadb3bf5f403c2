"""Files for business systems: whole or not at all, for their owner only, in characters that cp932 has."""

import csv
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from adapters.business.records import ErrorLine
from adapters.business.text import encode, fits
from broker.ledger.files import sync

NO_TARGET = "cp932 にない文字が含まれています"


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream whose bytes become `path` when the block ends, and leave no trace when it raises.

    The file is written beside `path` with mode 0600 and moved over it once its bytes are on the disk. A crash
    leaves the old file or the new one, and perhaps a `.part` file that nothing reads.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync(path.parent)


def unfit(line: int, header: Sequence[str], cells: Sequence[str]) -> list[ErrorLine]:
    """B-009 for each column whose text cp932 cannot carry and give back unchanged (R-169)."""
    return [
        ErrorLine(line, column, "B-009", NO_TARGET)
        for column, text in zip(header, cells, strict=True)
        if not fits(text)
    ]


def write_csv(
    path: Path,
    header: Sequence[str],
    records: Iterable[Sequence[str]],
    instead: Callable[[Sequence[str], list[ErrorLine]], Sequence[str]] | None = None,
) -> list[ErrorLine]:
    """Writes a header and one CRLF line per record; the faults returned count records as lines after line 1.

    A record that cp932 cannot carry is left out, or replaced by what `instead` makes of it and of its faults.
    """
    faults: list[ErrorLine] = []
    with replacing(path) as stream:
        stream.write(_line(header))
        for line, cells in enumerate(records, start=2):
            found = unfit(line, header, cells)
            faults += found
            if not found:
                stream.write(_line(cells))
            elif instead is not None:
                stream.write(_line(instead(cells, found)))
    return faults


def _line(cells: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return encode(text.getvalue())
