"""Requests for link codes on a medium (Order art. 27(2)(ii)): a file that goes to the registry and back.

The agency writes requests into it, the registry puts its verdicts in their place, and the agency takes them
and removes the file: an acquisition number is in it only as long as it serves (Act art. 21-2(3)). The file
is for its owner only. What carries it between the two houses is theirs to encrypt, and to wipe.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from adapters.business.output import write_csv
from adapters.business.text import rows
from schemas import errors
from schemas.errors import Refusal, Refused

REQUESTS = ("機関コード", "取得番号", "個人番号")
VERDICTS = ("機関コード", "取得番号", "コード", "理由", "次の手順")
AT_ONCE = 500


def write_requests(file: Path, agency: str, pairs: Iterable[tuple[str, str]]) -> None:
    """(acquisition number, individual number) of an agency, one in a line."""
    write_csv(file, REQUESTS, ((agency, *pair) for pair in pairs))


def read_requests(file: Path, agency: str) -> Iterator[list[tuple[str, str]]]:
    """The requests of an agency, up to 500 at once. Raises Refused: J-107, J-108."""
    for lines in _batches(file, REQUESTS, agency):
        yield [(number, individual) for _, number, individual in lines]


def write_verdicts(file: Path, agency: str, verdicts: Iterable[tuple[str, str]]) -> None:
    """(acquisition number, code of the catalogue or "") in the place of the requests, with what it means."""
    write_csv(file, VERDICTS, ((agency, number, code, *_meaning(code)) for number, code in verdicts))


def read_verdicts(file: Path, agency: str) -> Iterator[list[tuple[str, str]]]:
    """The registry's verdicts for an agency, up to 500 at once. Raises Refused: J-107, J-108."""
    for lines in _batches(file, VERDICTS, agency):
        yield [(number, code) for _, number, code, _, _ in lines]


def _meaning(code: str) -> tuple[str, str]:
    if not code:
        return "", ""
    entry = errors.entry(code)
    return entry.cause_ja, entry.next_ja


def _batches(file: Path, header: tuple[str, ...], agency: str) -> Iterator[list[tuple[str, ...]]]:
    """The lines behind a header, which belong to one agency. A file that is wrong anywhere is refused."""
    batch: list[tuple[str, ...]] = []
    with file.open("rb") as stream:
        lines = rows(stream)
        first = next(lines, None)
        if first is None or first.cells != header:
            raise Refused(Refusal("J-107", "1"))
        for row in lines:
            cells = row.cells or ()
            if row.lost or len(cells) != len(header):
                raise Refused(Refusal("J-107", f"{row.line}"))
            if cells[0] != agency:
                raise Refused(Refusal("J-108", f"{row.line}"))
            batch.append(cells)
            if len(batch) == AT_ONCE:
                yield batch
                batch = []
    if batch:
        yield batch


def flat(batches: Iterable[Sequence[tuple[str, str]]]) -> Iterator[tuple[str, str]]:
    """All lines, one after the other."""
    for batch in batches:
        yield from batch
