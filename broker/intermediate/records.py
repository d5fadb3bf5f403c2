"""Projections of the intermediate interface: provision records by person and processing status.

A provision record (情報提供等の記録, Act art. 23) is the request and its outcome, two events of one stream:
the projection finds them by person, the ledger opens them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from broker.intermediate import inquiry, provision
from broker.intermediate.link_code import CodeConversionTable
from broker.intermediate.replica import ReferenceDatabase
from broker.ledger.events import Recorded
from broker.ledger.projections import Rows
from broker.ledger.vault import Erased

_OUTCOMES = (
    inquiry.InquiryRefused,
    inquiry.InquiryAnswered,
    provision.InformationProvided,
    provision.ProvisionRefused,
    provision.AnswerNotRelayed,
)


class ProvisionRecords:
    """One row a person and exchange: positions of the request and of its outcome (0: none yet)."""

    name: ClassVar[str] = "provision_records"
    tables: ClassVar[Mapping[str, str]] = {
        "provision_record": "request INTEGER, subject INTEGER, person TEXT, stream TEXT, side TEXT, "
        "requested_at TEXT, outcome INTEGER, PRIMARY KEY (request, subject)",
        "provision_record_stream": "stream TEXT PRIMARY KEY, request INTEGER",
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        e = recorded.event
        if isinstance(e, (inquiry.InquiryRequested, provision.ProvisionRequested)):
            side = "inquirer" if isinstance(e, inquiry.InquiryRequested) else "provider"
            rows.executemany(
                "INSERT INTO provision_record VALUES (?, ?, ?, ?, ?, ?, 0)",
                [
                    (recorded.position, subject, person, recorded.stream, side, e.requested_at)
                    for subject, person in enumerate(e.persons)
                ],
            )
            rows.execute(
                "INSERT INTO provision_record_stream VALUES (?, ?)", (recorded.stream, recorded.position)
            )
        elif isinstance(e, _OUTCOMES):
            rows.execute(
                "UPDATE provision_record SET outcome = ? WHERE request = "
                "(SELECT request FROM provision_record_stream WHERE stream = ?)",
                (recorded.position, recorded.stream),
            )


class ProcessingStatus:
    """処理状況: the state of every inquiry and provision, with its code (R-073, R-078)."""

    name: ClassVar[str] = "processing_status"
    tables: ClassVar[Mapping[str, str]] = {
        "processing_status": "stream TEXT PRIMARY KEY, state TEXT, code TEXT, processing_number TEXT, "
        "partner TEXT, law_row TEXT, changed_at TEXT, position INTEGER"
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        match recorded.event:
            case inquiry.InquiryRequested() as e:
                self._begin(rows, recorded, "", e.provider, e.law_row)
            case provision.ProvisionRequested() as e:
                self._begin(rows, recorded, e.processing_number, e.inquirer, e.law_row)
            case inquiry.InquiryPermitted() as e:
                self._go_on(rows, recorded, inquiry.WAITING, "", e.processing_number)
            case inquiry.InquiryRefused() as e:
                self._go_on(rows, recorded, inquiry.REFUSED, e.code, e.processing_number)
            case inquiry.InquiryAnswered() as e:
                self._go_on(rows, recorded, inquiry.ANSWERED, _first(e.codes), e.processing_number)
            case provision.ProvisionHeld() as e:
                self._go_on(rows, recorded, provision.HELD, e.code)
            case provision.InformationProvided() as e:
                self._go_on(rows, recorded, provision.PROVIDED, _first(e.codes))
            case provision.ProvisionRefused() | provision.AnswerNotRelayed() as e:
                self._go_on(rows, recorded, provision.REFUSED, e.code)

    def _begin(self, rows: Rows, recorded: Recorded, number: str, partner: str, law_row: str) -> None:
        rows.execute(
            "INSERT INTO processing_status VALUES (?, 'asked', '', ?, ?, ?, ?, ?)",
            (recorded.stream, number, partner, law_row, recorded.at, recorded.position),
        )

    def _go_on(self, rows: Rows, recorded: Recorded, state: str, code: str, number: str = "") -> None:
        rows.execute(
            "UPDATE processing_status SET state = ?, code = ?, changed_at = ?, position = ?, "
            "processing_number = CASE WHEN ? = '' THEN processing_number ELSE ? END WHERE stream = ?",
            (state, code, recorded.at, recorded.position, number, number, recorded.stream),
        )


def _first(codes: tuple[str, ...]) -> str:
    return next((code for code in codes if code), "")


PROJECTIONS = (CodeConversionTable(), ReferenceDatabase(), ProvisionRecords(), ProcessingStatus())


@dataclass(frozen=True)
class ProvisionRecord:
    """What article 23 of the Act and article 47 of the ordinance want recorded, item by item.

    `provided_at` is "" and `refusal` a catalogue code where nothing was provided (R-154); `exchange` finds
    the record again. Item codes are of `layout`. A record that was erased names the rule and the time, and
    nothing of it is to be shown any longer.
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


def record(
    subject: int, side: str, request: Recorded, outcome: Any, erased: Erased | None = None
) -> ProvisionRecord:
    """Put a record together from the event of the request and the event of the outcome (None: still open).

    `erased` tells that the sealed part of either was erased.
    """
    e = request.event
    provided_at = refusal = ""
    non_disclosure = e.non_disclosure
    if isinstance(outcome, (inquiry.InquiryAnswered, provision.InformationProvided)):
        refusal = outcome.codes[subject]
        provided_at = "" if refusal else outcome.provided_at
        non_disclosure = non_disclosure or outcome.non_disclosure
    elif outcome is not None:
        refusal = outcome.code
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
    )
