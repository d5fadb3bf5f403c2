"""What goes back to the offices: the results of inquiries (結果) and the error list (エラーリスト).

Both say in Japanese what happened and what to do next (from `schemas.errors`). Neither holds a name, an
address or an individual number; results hold what was answered, hence mode 0600 (R-168, R-176).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from adapters.business.output import NO_TARGET, write_csv
from adapters.business.records import ErrorLine, ResultRecord
from schemas import errors, items

RESULT_HEADER = ("照会ID", "団体内統合宛名番号", "状態", "コード", "理由", "次の手順")
ERROR_HEADER = ("行", "項目", "コード", "理由", "次の手順")


def write_results(path: Path, layouts: Sequence[str], results: Iterable[ResultRecord]) -> list[ErrorLine]:
    """Writes one line per result. `layouts` are keys of layouts; the items of each become columns.

    A result that cp932 cannot carry keeps its line, with B-009 and the names of the columns instead of what
    was answered, and is reported. Raises ValueError for an unknown layout or code and for an answer with an
    item that has no column.
    """
    columns = [(key, item) for key in layouts for item in items.layout(key).leaves]
    header = (*RESULT_HEADER, *(item.name_ja for _, item in columns))
    places = {(key, item.code): place for place, (key, item) in enumerate(columns)}

    def cells(result: ResultRecord) -> list[str]:
        answer = [""] * len(columns)
        for code, value in (result.payload or {}).items():
            if (result.layout, code) not in places:
                raise ValueError(f"no column for an item of {result.layout}")
            answer[places[result.layout, code]] = value if isinstance(value, str) else " ".join(value)
        cause, next_step = "", ""
        if result.code:
            entry = errors.entry(result.code)
            cause, next_step = entry.cause_ja, entry.next_ja
        elif result.omitted:
            names = (items.layout(result.layout).item(code).name_ja for code in result.omitted)
            cause = f"提供されていない項目: {'・'.join(names)}"
        return [
            result.request_id,
            result.integrated_number,
            result.state,
            result.code,
            cause,
            next_step,
            *answer,
        ]

    def withheld(written: Sequence[str], faults: Sequence[ErrorLine]) -> list[str]:
        names = [fault.item for fault in faults]
        kept = ["" if name in names else text for name, text in zip(header[:3], written[:3], strict=True)]
        reason = f"{'・'.join(names)}: {NO_TARGET}"
        return [*kept, "B-009", reason, errors.entry("B-009").next_ja, *[""] * len(columns)]

    return write_csv(path, header, map(cells, results), instead=withheld)


def write_errors(path: Path, faults: Iterable[ErrorLine]) -> list[ErrorLine]:
    """Writes one line per fault: what is wrong there, what that means and what to do next.

    Raises ValueError for a code that is not in the catalogue.
    """

    def cells(fault: ErrorLine) -> list[str]:
        entry = errors.entry(fault.code)
        return [
            str(fault.line),
            fault.item,
            fault.code,
            f"{fault.reason}。{entry.cause_ja}" if fault.reason else entry.cause_ja,
            entry.next_ja,
        ]

    return write_csv(path, ERROR_HEADER, map(cells, faults))
