"""Text as business systems keep it: cp932 lines in, cp932 files out, and no character changed on the way.

cp932 is one name for several tables (R-169), and Python's is not what Windows and the business systems write:

- it gives characters to single bytes that the set leaves unassigned (0x80, 0xA0, 0xFD to 0xFF);
- it writes six characters, the wave dash U+301C among them, as bytes that come back as others (U+FF5E);
- of two codes for a rare kanji such as 髙 it writes the one that NEC selected (0xEEE0), not IBM's (0xFBFC).

So here those bytes are no characters, those characters have no bytes, and IBM's codes are written.
"""

import csv
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

CHARSET = "cp932"
LOST = "\ufffd"
"""Stands in decoded text for bytes that are no character; cp932 itself has no such character."""

MAX_LINE_BYTES = 65_536
MAX_RECORD_LINES = 16
"""How far an opened quote may reach. Bounds the memory, and what one stray quote can take with it."""


def _ibm_codes() -> dict[str, bytes]:
    pairs = (bytes((lead, trail)) for lead in (0xFA, 0xFB, 0xFC) for trail in range(0x40, 0xFD))
    characters = {raw.decode(CHARSET, errors="ignore"): raw for raw in pairs}
    return {
        character: raw
        for character, raw in characters.items()
        if len(character) == 1 and character.encode(CHARSET)[0] in (0xED, 0xEE)
    }


_IBM_CODES = _ibm_codes()
_IBM_CHARACTERS = re.compile(f"([{''.join(_IBM_CODES)}])")
_UNASSIGNED = str.maketrans(dict.fromkeys("\x80\uf8f0\uf8f1\uf8f2\uf8f3", LOST))


def decode(raw: bytes) -> str:
    """The text of `raw`, with LOST for every byte that is not part of a character.

    A stray lead byte costs only itself: commas, quotes and line ends are never the second byte of a cp932
    character, so the structure of a damaged line stays readable.
    """
    return raw.decode(CHARSET, errors="replace").translate(_UNASSIGNED)


def encode(text: str) -> bytes:
    """The bytes of `text`. Raises UnicodeEncodeError; characters that do not fit are the caller's to find."""
    return b"".join(_IBM_CODES.get(part) or part.encode(CHARSET) for part in _IBM_CHARACTERS.split(text))


def fits(text: str) -> bool:
    """Whether cp932 carries `text` and gives the same characters back."""
    try:
        return decode(encode(text)) == text
    except UnicodeEncodeError:
        return False


def physical_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Each line of `stream` with its number from 1 and its line end; None for one over MAX_LINE_BYTES.

    Splits on LF only, the one byte that ends a line in every cp932 file and is never half of a character.
    """
    number = 0
    while raw := stream.readline(MAX_LINE_BYTES):
        number += 1
        whole = len(raw) < MAX_LINE_BYTES or raw.endswith(b"\n")
        yield number, raw if whole else None
        while not whole:
            rest = stream.readline(MAX_LINE_BYTES)
            whole = len(rest) < MAX_LINE_BYTES or rest.endswith(b"\n")


@dataclass(frozen=True)
class Row:
    """One CSV record: the line it starts on, its cells, and the lines among its own with bytes that are lost.

    `cells` is None where the record cannot be cut into cells at all.
    """

    line: int
    cells: tuple[str, ...] | None
    lost: tuple[int, ...] = ()


def rows(stream: BinaryIO) -> Iterator[Row]:
    """The CSV records of a cp932 stream; quoted cells may hold commas, quotes and line ends.

    Bytes that are no character become LOST in their cell and the rest of the record stays readable. A quote
    that is not closed within MAX_RECORD_LINES costs the line that opened it and no other.
    """
    return _Rows(stream).records()


class _Rows:
    def __init__(self, stream: BinaryIO) -> None:
        self._lines = physical_lines(stream)
        self._given_back: deque[tuple[int, str | None]] = deque()
        self._taken: list[tuple[int, str | None]] = []

    def records(self) -> Iterator[Row]:
        while True:
            self._taken = []
            try:
                cells = next(csv.reader(self._texts(), strict=True), None)
            except csv.Error:
                cells = None
            if not self._taken:
                return
            if cells is None:
                self._given_back.extendleft(reversed(self._taken[1:]))
                del self._taken[1:]
            lost = tuple(number for number, text in self._taken if text is not None and LOST in text)
            yield Row(self._taken[0][0], None if cells is None else tuple(cells), lost)

    def _texts(self) -> Iterator[str]:
        """The lines of one record, as far as the csv reader asks for them."""
        while len(self._taken) < MAX_RECORD_LINES and (line := self._next()) is not None:
            self._taken.append(line)
            if line[1] is None:
                return
            yield line[1]

    def _next(self) -> tuple[int, str | None] | None:
        if self._given_back:
            return self._given_back.popleft()
        line = next(self._lines, None)
        if line is None:
            return None
        number, raw = line
        return number, None if raw is None else decode(raw)
