"""Requests by id and by case, and what inquiries wait for: a state is read without opening events (R-090)."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from broker.intermediate import inquiry
from broker.ledger.events import Recorded
from broker.ledger.ledger import utc
from broker.ledger.projections import Rows


class InquiryRequests:
    """One row for each request id: its inquiry, its unit there, and where that stands, with its code.

    `inquiry_pending` has the inquiries that something has to be done about at a time (`due`, UTC): to be
    sent, or to be ended when the permit has lapsed. `open` counts the persons of whom nothing was said yet.
    """

    name: ClassVar[str] = "inquiry_requests"
    tables: ClassVar[Mapping[str, str]] = {
        "inquiry_request": "request TEXT PRIMARY KEY, stream TEXT, first INTEGER, persons INTEGER, "
        "open INTEGER, state TEXT, code TEXT, case_number TEXT, changed_at TEXT, UNIQUE (stream, first)",
        "inquiry_case": "case_number TEXT, request TEXT, PRIMARY KEY (case_number, request)",
        "inquiry_pending": "stream TEXT PRIMARY KEY, due TEXT, open INTEGER",
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        stream, at = recorded.stream, recorded.at
        match recorded.event:
            case inquiry.InquiryRequested() as e:
                self._asked(rows, recorded, e)
            case inquiry.InquiryReleased():
                self._move(rows, stream, at, inquiry.ASKED, inquiry.DEFERRED)
                rows.execute("UPDATE inquiry_pending SET due = '' WHERE stream = ?", (stream,))
            case inquiry.InquiryPermitted() as e:
                self._move(rows, stream, at, inquiry.WAITING, inquiry.ASKED)
                lapsed = datetime.fromisoformat(e.valid_until) + inquiry.MARGIN
                rows.execute("UPDATE inquiry_pending SET due = ? WHERE stream = ?", (utc(lapsed), stream))
                self._refuse(rows, stream, at, e.codes)
            case inquiry.InquiryAnswered() as e:
                self._tell(rows, stream, at, e.persons, e.codes)
            case inquiry.InquiryWithdrawalRequested():
                for before in inquiry.OPEN:
                    self._move(rows, stream, at, inquiry.WITHDRAWING, before)
            case inquiry.InquiryNotWithdrawn():
                self._move(rows, stream, at, inquiry.WAITING, inquiry.WITHDRAWING)
            case inquiry.InquiryRefused(codes=codes) if codes:
                self._refuse(rows, stream, at, codes)
            case inquiry.InquiryRefused() as e:
                self._end(rows, stream, at, inquiry.REFUSED, e.code)
            case inquiry.InquiryWithdrawn() as e:
                self._end(rows, stream, at, inquiry.WITHDRAWN, e.code)
            case inquiry.InquiryExpired() as e:
                self._end(rows, stream, at, inquiry.EXPIRED, e.code)

    def _asked(self, rows: Rows, recorded: Recorded, e: inquiry.InquiryRequested) -> None:
        state = inquiry.DEFERRED if e.not_before else inquiry.ASKED
        deferred = utc(datetime.fromisoformat(e.not_before)) if e.not_before else ""
        places = list(inquiry.units(e.units))
        rows.executemany(
            "INSERT INTO inquiry_request VALUES (?, ?, ?, ?, ?, ?, '', ?, ?)",
            [
                (request, recorded.stream, unit.start, len(unit), len(unit), state, case, recorded.at)
                for request, unit, case in zip(e.request_ids, places, e.case_numbers, strict=True)
            ],
        )
        rows.executemany(
            "INSERT INTO inquiry_case VALUES (?, ?)",
            [(case, request) for case, request in zip(e.case_numbers, e.request_ids, strict=True) if case],
        )
        rows.execute(
            "INSERT INTO inquiry_pending VALUES (?, ?, ?)",
            (recorded.stream, deferred, len(e.persons)),
        )

    def _move(self, rows: Rows, stream: str, at: str, state: str, before: str) -> None:
        rows.execute(
            "UPDATE inquiry_request SET state = ?, changed_at = ? WHERE stream = ? AND state = ?",
            (state, at, stream, before),
        )

    def _end(self, rows: Rows, stream: str, at: str, state: str, code: str) -> None:
        """Whoever is open ends; an answer relayed before may still take the place of that."""
        rows.execute(
            "UPDATE inquiry_request SET state = ?, code = ?, open = 0, changed_at = ? "
            "WHERE stream = ? AND (open > 0 OR persons = 0)",
            (state, code, at, stream),
        )
        rows.execute("DELETE FROM inquiry_pending WHERE stream = ?", (stream,))

    def _refuse(self, rows: Rows, stream: str, at: str, codes: Sequence[str]) -> None:
        refused = [place for place, code in enumerate(codes) if code]
        self._tell(rows, stream, at, refused, [codes[place] for place in refused])

    def _tell(self, rows: Rows, stream: str, at: str, places: Sequence[int], codes: Sequence[str]) -> None:
        """Something was said of these persons: a unit is answered if anything was provided, else refused."""
        if not places:
            return
        units = rows.execute("SELECT first FROM inquiry_request WHERE stream = ? ORDER BY first", (stream,))
        firsts = [row[0] for row in units.fetchall()]
        told: dict[int, list[str]] = {}
        for place, code in zip(places, codes, strict=True):
            told.setdefault(firsts[bisect_right(firsts, place) - 1], []).append(code)
        rows.executemany(
            "UPDATE inquiry_request SET state = ?, code = ?, open = 0, changed_at = ? "
            "WHERE stream = ? AND first = ?",
            [
                (inquiry.REFUSED, said[0], at, stream, first)
                if all(said)
                else (inquiry.ANSWERED, next(filter(None, said), ""), at, stream, first)
                for first, said in told.items()
            ],
        )
        rows.execute("UPDATE inquiry_pending SET open = open - ? WHERE stream = ?", (len(places), stream))
        rows.execute("DELETE FROM inquiry_pending WHERE stream = ? AND open <= 0", (stream,))


PROJECTIONS: tuple[Any, ...] = (InquiryRequests(),)
