"""What the ordinances of one local government permit: data per agency, each line with its days of validity.

Four provisions of the Act meet here (numbering of today; the Chiba paper and the texts of 2013 say 19(7) and
19(9), see articles.tsv):

- article 9(2), first: an organ uses individual numbers for a task of its own (独自利用事務, R-369, R-441);
- article 9(2), second: an organ uses, for one task, information that it holds for another: for the tasks of
  the law table (R-370) or for tasks of its own (R-371). It may not where the network serves that information
  (R-372);
- article 19(11): one organ of a municipality provides information to another (R-373). Handing information
  around inside the office rests on one of these lines too (移転, R-378);
- article 19(9): a task of its own asks over the network (R-376), in the frame of a row of the law table to
  which the task corresponds (準じて), and a provider may have limited its range beforehand (R-377).

What needs no individual number needs no ordinance (R-374).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TypeAlias, TypeVar

from schemas.errors import Refusal
from schemas.law import KINDS, Agency, LawTable
from schemas.law.information import information as known_information
from schemas.law.lines import LineFault, LineInvalid, joined, keep, read_lines, require_period

FIELDS = ("welfare", "health", "medical", "social_security", "local_tax", "disaster_prevention", "other")
"""What a task of an ordinance may be about: welfare, health, medical care, other social security, local tax,
disaster prevention, or another matter that the ordinance sets (Act art. 9(2), R-441)."""


@dataclass(frozen=True)
class IndependentUse:
    """The organ may use individual numbers to search and manage the files of this task (R-369).

    `task` is the agency's own identifier, `affair` the words of the ordinance, `field` one of FIELDS.
    """

    organ: str
    task: str
    field: str
    affair: str
    ordinance: str
    valid_from: date
    valid_until: date

    def __post_init__(self) -> None:
        require_period(self.valid_from, self.valid_until)
        if self.field not in FIELDS:
            raise LineInvalid("field", "B-005", "事務の分野が決められた値ではありません")


@dataclass(frozen=True)
class StatutoryUse:
    """The organ may use, for any row of the law table, what the row lists and itself holds (R-370)."""

    organ: str
    ordinance: str
    valid_from: date
    valid_until: date

    def __post_init__(self) -> None:
        require_period(self.valid_from, self.valid_until)


@dataclass(frozen=True)
class InternalUse:
    """The organ may use `information` that it holds for other tasks for this task of its own (R-371)."""

    organ: str
    task: str
    information: str
    ordinance: str
    valid_from: date
    valid_until: date

    def __post_init__(self) -> None:
        require_period(self.valid_from, self.valid_until)


@dataclass(frozen=True)
class Transfer:
    """Organ `holder` may provide `information` to `organ` for `task`, a task of its own or a row (R-373)."""

    organ: str
    task: str
    holder: str
    information: str
    ordinance: str
    valid_from: date
    valid_until: date

    def __post_init__(self) -> None:
        require_period(self.valid_from, self.valid_until)
        if self.organ == self.holder:
            raise LineInvalid("holder", "B-001", "同じ機関の中での利用は、提供ではなく利用の表に書きます")


@dataclass(frozen=True)
class OrdinanceInquiry:
    """The task may ask over the network for `information` within `row` of the law table (Act art. 19(9))."""

    organ: str
    task: str
    row: str
    information: str
    ordinance: str
    valid_from: date
    valid_until: date

    def __post_init__(self) -> None:
        require_period(self.valid_from, self.valid_until)
        _known(self.information)


@dataclass(frozen=True)
class Limit:
    """By its ordinance this agency gives ordinance tasks of others only what its lines of this table name. It
    told the commission so on `notified_on` (Act art. 26, R-377)."""

    information: str
    ordinance: str
    notified_on: date
    valid_from: date
    valid_until: date

    def __post_init__(self) -> None:
        require_period(self.valid_from, self.valid_until)
        _known(self.information)


@dataclass(frozen=True)
class Charge:
    """Which business and department (業務所管課) is in charge of a row or a task of its own (R-406)."""

    task: str
    business: str
    department: str
    valid_from: date
    valid_until: date

    def __post_init__(self) -> None:
        require_period(self.valid_from, self.valid_until)


OrdinanceLine: TypeAlias = (
    IndependentUse | StatutoryUse | InternalUse | Transfer | OrdinanceInquiry | Limit | Charge
)
L = TypeVar("L", bound=OrdinanceLine)

_LOCAL = ("prefecture", "municipality", "local")

_CLASSES: Mapping[str, type[OrdinanceLine]] = {
    "use": IndependentUse,
    "statutory": StatutoryUse,
    "internal": InternalUse,
    "transfer": Transfer,
    "inquiry": OrdinanceInquiry,
    "limit": Limit,
    "charge": Charge,
}


@dataclass(frozen=True)
class NotNeeded:
    """No ordinance is needed: internal linkage without individual numbers goes on as before (R-374)."""


@dataclass(frozen=True)
class Ordinances:
    """The ordinance tables of one agency."""

    agency: Agency
    lines: tuple[OrdinanceLine, ...] = ()

    def on(self, kind: type[L], day: date) -> Iterable[L]:
        """The lines of one table that are valid on this day (both ends included)."""
        return (
            line
            for line in self.lines
            if isinstance(line, kind) and line.valid_from <= day <= line.valid_until
        )


def read_ordinances(
    agency: Agency, text: str, law: Collection[LawTable]
) -> tuple[Ordinances, tuple[LineFault, ...]]:
    """Read the tables of an agency (R-375): the good lines, and every bad one with line, item and reason.

    A line begins with the name of its table: use, statutory, internal, transfer, inquiry, limit, charge.
    Tasks must be rows of one of the law tables or be defined by a line `use` of that organ; faults are those
    of `schemas.law.lines`, and I-213 for information that the law table does not name.
    """
    read = read_lines(text, _CLASSES, frozenset())
    rows = {row.row for table in law for row in table.rows}
    uses = [line for _, line in read.lines if isinstance(line, IndependentUse)]
    own = {(line.organ, line.task) for line in uses if line.task not in rows}

    def check(line: OrdinanceLine) -> None:
        match line:
            case IndependentUse() if line.task in rows:
                raise LineInvalid("task", "B-005", "法令の表の項と同じ番号は、独自の事務に使えません")
            case InternalUse() | OrdinanceInquiry() if (line.organ, line.task) not in own:
                raise LineInvalid("task", "B-005", "この機関の独自利用の表にない事務です")
            case OrdinanceInquiry() if line.row not in rows:
                raise LineInvalid("row", "B-005", "法令の表にない項です")
            case Transfer() if line.task not in rows and (line.organ, line.task) not in own:
                raise LineInvalid("task", "B-005", "法令の表の項でも、独自利用の表の事務でもありません")
            case Charge() if line.task not in rows | {task for _, task in own}:
                raise LineInvalid("task", "B-005", "法令の表の項でも、独自利用の表の事務でもありません")

    kept = keep(read, check)
    return Ordinances(agency, tuple(line for _, line in kept.lines)), kept.faults


def ordinances_of(
    rows: Iterable[Sequence[str]], agencies: Mapping[str, Agency], law: Collection[LawTable]
) -> Mapping[str, Ordinances]:
    """The ordinance tables of many agencies, by code: in each row the code stands before the cells of a line.

    A row that cannot be read, or is of an agency that is not known, permits nothing and is left out.
    """
    lines: dict[str, list[Sequence[str]]] = {}
    for row in rows:
        if row and row[0] in agencies:
            lines.setdefault(row[0], []).append(row[1:])
    return {code: read_ordinances(agencies[code], joined(own), law)[0] for code, own in lines.items()}


def permits_use(
    ordinances: Ordinances,
    organ: str,
    task: str,
    day: date,
    table: LawTable,
    information: str = "",
    others: Collection[Agency] = (),
    *,
    with_number: bool = True,
) -> IndependentUse | StatutoryUse | InternalUse | NotNeeded | Refusal:
    """May `organ` of this agency use numbers for `task`, or `information` that it holds for another task?

    Without `information`: searching and managing the files of the task itself; for a row of the law table no
    ordinance is needed. With it: `others` are the other agencies that hold the same information about the
    person; if the network serves it from one of them, it comes from there and internal use is barred (R-372).
    Refusals: L-111 no line, I-212 barred.
    """
    if not with_number:
        return NotNeeded()
    if information:
        line = _internal(ordinances, organ, task, day, table, information)
        served = any(_served(ordinances, organ, task, day, table, information, other) for other in others)
        return Refusal("I-212", "information") if served and not isinstance(line, Refusal) else line
    if any(table.asks(ordinances.agency, line) for line in table.lines(task)):
        return NotNeeded()
    for use in ordinances.on(IndependentUse, day):
        if (use.organ, use.task) == (organ, task):
            return use
    return Refusal("L-111", "use")


def permits_transfer(
    ordinances: Ordinances, organ: str, task: str, holder: str, information: str, day: date
) -> Transfer | Refusal:
    """May organ `holder` provide `information` to another `organ` of the municipality for `task` (R-373)?

    Refusal: L-112. Within one organ `permits_use` decides.
    """
    for line in ordinances.on(Transfer, day):
        if (line.organ, line.task, line.holder, line.information) == (organ, task, holder, information):
            return line
    return Refusal("L-112", "transfer")


def permits_ordinance_inquiry(
    ordinances: Ordinances,
    provider: Agency,
    task: str,
    information: str,
    day: date,
    table: LawTable,
) -> OrdinanceInquiry | Refusal:
    """May `task` of this agency ask a provider over the network (Act art. 19(9), R-376)?

    Only an organ of a local government has such tasks, only while the task is one of its ordinance, and only
    for what the corresponding row of the law table lets that provider give. Refusal: L-113, the item in its
    detail ("inquirer", "task", "information", or "provider").
    """
    if KINDS[ordinances.agency.kind].level not in _LOCAL:
        return Refusal("L-113", "inquirer")
    lines = [line for line in ordinances.on(OrdinanceInquiry, day) if line.task == task]
    own = {use.organ for use in ordinances.on(IndependentUse, day) if use.task == task}
    lines = [line for line in lines if line.organ in own]
    if not lines:
        return Refusal("L-113", "task")
    lines = [line for line in lines if line.information == information]
    if not lines:
        return Refusal("L-113", "information")
    for line in lines:
        if any(table.provided(provider, line.row, information)):
            return line
    return Refusal("L-113", "provider")


def may_decline(ordinances: Ordinances, information: str, day: date) -> Refusal | None:
    """May this provider decline an inquiry for an ordinance task (R-377)? I-214 if so, None if not.

    It may if its own ordinance limits what it gives, it had said so before that day, and this is not in it.
    The network passes such an inquiry on all the same: article 26 frees the provider, not the network.
    """
    lines = [line for line in ordinances.on(Limit, day) if line.notified_on < day]
    if not lines or information in {line.information for line in lines}:
        return None
    return Refusal("I-214", "information")


def charge_of(ordinances: Ordinances, task: str, day: date) -> Charge | None:
    """The business and department in charge of a task on a day (R-406)."""
    return next((line for line in ordinances.on(Charge, day) if line.task == task), None)


def _known(name: str) -> None:
    if name not in known_information():
        raise LineInvalid("information", "I-213", "法令の表にない情報の名前です")


def _internal(
    ordinances: Ordinances, organ: str, task: str, day: date, table: LawTable, information: str
) -> StatutoryUse | InternalUse | Refusal:
    own = {(use.organ, use.task) for use in ordinances.on(IndependentUse, day)}
    for internal in ordinances.on(InternalUse, day):
        found = (internal.organ, internal.task, internal.information) == (organ, task, information)
        if found and (organ, task) in own:
            return internal
    for line in table.lines(task):
        if information in line.information and table.asks(ordinances.agency, line):
            for statutory in ordinances.on(StatutoryUse, day):
                if statutory.organ == organ:
                    return statutory
    return Refusal("L-111", "information")


def _served(
    ordinances: Ordinances,
    organ: str,
    task: str,
    day: date,
    table: LawTable,
    information: str,
    other: Agency,
) -> bool:
    """Does the network give this information for the task from that other agency?"""
    if other.code == ordinances.agency.code:
        return False
    if table.permits(ordinances.agency, other, task, information) is not None:
        return True
    line = permits_ordinance_inquiry(ordinances, other, task, information, day, table)
    return isinstance(line, OrdinanceInquiry) and line.organ == organ
