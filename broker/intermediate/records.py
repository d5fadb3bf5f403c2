"""Projections of the intermediate interface: provision records by person and processing status.

A provision record (情報提供等の記録, Act art. 23) is the request and its outcome, two events of one stream:
the projection finds them by person, the ledger opens them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from broker.intermediate import correction, inquiry, notice, provision, received_notice
from broker.intermediate.correction import Correction
from broker.intermediate.link_code import CodeConversionTable
from broker.intermediate.replica import ReferenceDatabase
from broker.ledger.events import Recorded
from broker.ledger.projections import Rows
from broker.ledger.vault import Erased

# What ends all that is still open in a stream, and the code where the event itself has none.
_ENDS: Mapping[type[Any], str] = {
    inquiry.InquiryRefused: "",
    inquiry.InquiryWithdrawn: "",
    inquiry.InquiryExpired: "",
    provision.ProvisionWithdrawn: "N-113",
    provision.ProvisionExpired: "N-109",
    notice.NoticeRefused: "",
    # The first that happens tells that the notice went out.
    notice.NoticePermitted: "",
    notice.NoticeDelivered: "",
    notice.NoticeAcknowledged: "",
}


class ProvisionRecords:
    """One row a person and exchange: positions of the request and of its outcome (0: none yet)."""

    name: ClassVar[str] = "provision_records"
    tables: ClassVar[Mapping[str, str]] = {
        "provision_record": "request INTEGER, subject INTEGER, person TEXT, stream TEXT, side TEXT, "
        "requested_at TEXT, outcome INTEGER, PRIMARY KEY (request, subject)",
        "provision_record_stream": "stream TEXT PRIMARY KEY, request INTEGER",
        "provision_record_answer": "answer_message TEXT PRIMARY KEY, position INTEGER",
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        match recorded.event:
            case inquiry.InquiryRequested() as e:
                self._begin(rows, recorded, "inquirer", e.persons, e.requested_at, ())
            case provision.ProvisionRequested() as e:
                self._begin(rows, recorded, "provider", e.persons, e.requested_at, e.codes)
            case notice.NoticeSent() as e:
                self._begin(rows, recorded, "provider", e.persons, e.requested_at, ())
            case received_notice.NoticeReceived() as e:  # nobody asked: it is the outcome, too
                self._begin(rows, recorded, "inquirer", e.persons, e.requested_at, ())
                self._end(rows, recorded, range(len(e.persons)))
            case inquiry.InquiryPermitted() as e:
                self._end(rows, recorded, [place for place, code in enumerate(e.codes) if code])
            case inquiry.InquiryAnswered() | provision.ProvisionRefused() as e:
                self._end(rows, recorded, e.persons)
            case provision.InformationProvided() as e:
                self._end(rows, recorded, e.persons)
                rows.execute(
                    "INSERT INTO provision_record_answer VALUES (?, ?)", (e.answer_message, recorded.position)
                )
            case provision.AnswerNotRelayed() as e:
                rows.execute(
                    "UPDATE provision_record SET outcome = ? WHERE outcome = "
                    "(SELECT position FROM provision_record_answer WHERE answer_message = ?) AND request = "
                    "(SELECT request FROM provision_record_stream WHERE stream = ?)",
                    (recorded.position, e.answer_message, recorded.stream),
                )
            case e if type(e) in _ENDS:
                rows.execute(
                    "UPDATE provision_record SET outcome = ? WHERE outcome = 0 AND request = "
                    "(SELECT request FROM provision_record_stream WHERE stream = ?)",
                    (recorded.position, recorded.stream),
                )

    def _begin(
        self,
        rows: Rows,
        recorded: Recorded,
        side: str,
        persons: Sequence[str],
        requested_at: str,
        codes: Sequence[str],
    ) -> None:
        # Whom the network did not permit, the provider was not asked about: the request is the outcome, too.
        closed = {place for place, code in enumerate(codes) if code}
        rows.executemany(
            "INSERT INTO provision_record VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    recorded.position,
                    place,
                    person,
                    recorded.stream,
                    side,
                    requested_at,
                    recorded.position if place in closed else 0,
                )
                for place, person in enumerate(persons)
            ],
        )
        rows.execute(
            "INSERT INTO provision_record_stream VALUES (?, ?)", (recorded.stream, recorded.position)
        )

    def _end(self, rows: Rows, recorded: Recorded, places: Sequence[int]) -> None:
        rows.executemany(
            "UPDATE provision_record SET outcome = ? WHERE request = "
            "(SELECT request FROM provision_record_stream WHERE stream = ?) AND subject = ?",
            [(recorded.position, recorded.stream, place) for place in places],
        )


class ProcessingStatus:
    """処理状況: the state of every inquiry and provision, with its code (R-073, R-078).

    `open` counts the persons of whom nothing was said yet.
    """

    name: ClassVar[str] = "processing_status"
    tables: ClassVar[Mapping[str, str]] = {
        "processing_status": "stream TEXT PRIMARY KEY, state TEXT, code TEXT, processing_number TEXT, "
        "partner TEXT, law_row TEXT, changed_at TEXT, position INTEGER, open INTEGER"
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        match recorded.event:
            case inquiry.InquiryRequested() as e:
                state = inquiry.DEFERRED if e.not_before else inquiry.ASKED
                self._begin(rows, recorded, state, "", e.provider, e.law_row, len(e.persons))
            case provision.ProvisionRequested() as e:
                count = e.codes.count("")
                self._begin(
                    rows, recorded, provision.ASKED, e.processing_number, e.inquirer, e.law_row, count
                )
            case inquiry.InquiryReleased():
                self._go_on(rows, recorded, inquiry.ASKED)
            case inquiry.InquiryPermitted() as e:
                refused = len(e.codes) - e.codes.count("")
                self._go_on(rows, recorded, inquiry.WAITING, number=e.processing_number, said=refused)
            case inquiry.InquiryAnswered() as e:
                self._said(rows, recorded, inquiry.ANSWERED, inquiry.REFUSED, e.codes)
            case inquiry.InquiryWithdrawalRequested():
                self._go_on(rows, recorded, inquiry.WITHDRAWING)
            case inquiry.InquiryNotWithdrawn():
                self._go_on(rows, recorded, inquiry.WAITING)
            case inquiry.InquiryRefused() as e:
                self._end(rows, recorded, inquiry.REFUSED, e.code, e.processing_number)
            case inquiry.InquiryWithdrawn() as e:
                self._end(rows, recorded, inquiry.WITHDRAWN, e.code)
            case inquiry.InquiryExpired() as e:
                self._end(rows, recorded, inquiry.EXPIRED, e.code)
            case provision.ProvisionHeld() as e:
                self._go_on(rows, recorded, provision.HELD, e.code)
            case provision.InformationProvided() as e:
                self._said(rows, recorded, provision.PROVIDED, provision.REFUSED, e.codes)
            case provision.ProvisionRefused() as e:
                codes = (e.code,) * len(e.persons)
                self._said(rows, recorded, provision.PROVIDED, provision.REFUSED, codes)
            case provision.AnswerNotRelayed() as e:
                self._go_on(rows, recorded, provision.REFUSED, e.code)
            case provision.ProvisionWithdrawn() as e:
                self._end(rows, recorded, provision.WITHDRAWN, _ENDS[type(e)])
            case provision.ProvisionExpired() as e:
                self._end(rows, recorded, provision.EXPIRED, _ENDS[type(e)])

    def _begin(
        self,
        rows: Rows,
        recorded: Recorded,
        state: str,
        number: str,
        partner: str,
        law_row: str,
        count: int,
    ) -> None:
        rows.execute(
            "INSERT INTO processing_status VALUES (?, ?, '', ?, ?, ?, ?, ?, ?)",
            (recorded.stream, state, number, partner, law_row, recorded.at, recorded.position, count),
        )

    def _go_on(
        self,
        rows: Rows,
        recorded: Recorded,
        state: str,
        code: str = "",
        number: str = "",
        said: int = 0,
    ) -> None:
        rows.execute(
            "UPDATE processing_status SET state = ?, code = ?, changed_at = ?, position = ?, "
            "open = open - ?, processing_number = CASE WHEN ? = '' THEN processing_number ELSE ? END "
            "WHERE stream = ?",
            (state, code, recorded.at, recorded.position, said, number, number, recorded.stream),
        )

    def _end(self, rows: Rows, recorded: Recorded, state: str, code: str, number: str = "") -> None:
        """Nothing is open any more; what was answered before stays so."""
        self._go_on(rows, recorded, state, code, number)
        rows.execute("UPDATE processing_status SET open = 0 WHERE stream = ?", (recorded.stream,))

    def _said(self, rows: Rows, recorded: Recorded, done: str, refused: str, codes: tuple[str, ...]) -> None:
        """Something was said of some persons: the end, where nobody is open any more."""
        rows.execute(
            "UPDATE processing_status SET open = open - ?, changed_at = ?, position = ?, "
            "code = CASE WHEN ? = '' THEN code ELSE ? END WHERE stream = ?",
            (len(codes), recorded.at, recorded.position, _first(codes), _first(codes), recorded.stream),
        )
        rows.execute(
            "UPDATE processing_status SET state = ? WHERE stream = ? AND open <= 0",
            (refused if all(codes) else done, recorded.stream),
        )


def _first(codes: tuple[str, ...]) -> str:
    return next((code for code in codes if code), "")


PROJECTIONS = (CodeConversionTable(), ReferenceDatabase(), ProvisionRecords(), ProcessingStatus())


@dataclass(frozen=True)
class ProvisionRecord:
    """What article 23 of the Act and article 47 of the ordinance want recorded, item by item.

    `provided_at` is "" and `refusal` a catalogue code where nothing was provided (R-154); `exchange` finds
    the record again, and `subject` is the place of the person in it. Item codes are of `layout`.
    `corrections` stand beside what the record said at first, which never changes. A record that was erased
    names the rule and the time, and nothing of it is to be shown any longer.
    """

    position: int
    exchange: str
    side: str
    inquirer_name: str
    provider_name: str
    requested_at: str
    provided_at: str
    information: str
    layout: str
    items: tuple[str, ...]
    office: str
    affair: str
    law_row: str
    non_disclosure: bool
    refusal: str
    closed: bool
    erased_rule: str = ""
    erased_at: str = ""
    subject: int = 0
    corrections: tuple[Correction, ...] = ()

    @property
    def number(self) -> str:
        """By what the record of this person is named here."""
        return f"{self.position}-{self.subject}"

    @property
    def unasked(self) -> bool:
        """Whether the provider told it in a notice (連絡), and nobody asked."""
        return self.exchange.startswith(("notice/", "received_notice/"))


def record(
    subject: int, side: str, request: Recorded, outcome: Any, erased: Erased | None = None
) -> ProvisionRecord:
    """Put a record together from the event of the request and the event of the outcome (None: still open).

    `erased` tells that the sealed part of either was erased.
    """
    e = request.event
    provided_at = refusal = ""
    non_disclosure = e.non_disclosure
    match outcome:
        case inquiry.InquiryAnswered() | provision.InformationProvided():
            refusal = outcome.codes[outcome.persons.index(subject)]
            provided_at = "" if refusal else outcome.provided_at
            non_disclosure = non_disclosure or outcome.non_disclosure
        case inquiry.InquiryPermitted() | provision.ProvisionRequested():
            refusal = outcome.codes[subject]
        case inquiry.InquiryRefused():
            refusal = outcome.codes[subject] if outcome.codes else outcome.code
        case notice.NoticePermitted() | notice.NoticeDelivered() | notice.NoticeAcknowledged():
            provided_at = e.sent_at
        case received_notice.NoticeReceived():
            refusal = outcome.codes[subject]
            provided_at = "" if refusal else outcome.received_at
        case None:
            pass
        case _:
            refusal = _ENDS.get(type(outcome)) or outcome.code
    return ProvisionRecord(
        position=request.position,
        exchange=request.stream,
        side=side,
        inquirer_name=e.inquirer_name,
        provider_name=e.provider_name,
        requested_at=e.requested_at,
        provided_at=provided_at,
        information=e.information,
        layout=e.layout,
        items=e.items,
        office=e.office,
        affair=e.affair,
        law_row=e.law_row,
        non_disclosure=non_disclosure,
        refusal=refusal,
        closed=outcome is not None,
        erased_rule=erased.rule if erased is not None else "",
        erased_at=erased.at if erased is not None else "",
        subject=subject,
    )


def with_corrections(found: ProvisionRecord, corrected: Sequence[Recorded]) -> ProvisionRecord:
    """The record with what was corrected later (Act art. 31); a corrected mark of non-disclosure counts."""
    shown = correction.state_of(corrected).shown(found.subject)
    marked = correction.now_said(found.non_disclosure, "non_disclosure", shown) == correction.YES
    return replace(found, corrections=shown, non_disclosure=marked)
