"""Non-disclosure to the portal (不開示該当フラグ), per person and per record (R-107, Act art. 23(2)).

It is no hold: an answer leaves as ever, and its provision record says that it falls under non-disclosure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from broker.ledger.events import Recorded, event
from broker.ledger.projections import Rows


@dataclass(frozen=True)
@event("non_disclosure.set", retention="reference_data")
class NonDisclosureSet:
    """`person` is blind; `layout` and `fiscal_year` name one record, "" all of the person's.

    `reason` is a word of the policy, never free text.
    """

    person: str
    layout: str
    fiscal_year: str
    reason: str


@dataclass(frozen=True)
@event("non_disclosure.released", retention="reference_data")
class NonDisclosureReleased:
    """From here on the portal shows it again."""

    person: str
    layout: str
    fiscal_year: str


EVENTS = (NonDisclosureSet, NonDisclosureReleased)

Flag = tuple[str, str]
"""Layout and fiscal year of the record that a flag is on, or two times "" for the person."""
State = Mapping[Flag, str]


def stream(person: str) -> str:
    return f"non_disclosure/{person}"


def evolve(state: State, happened: Any) -> State:
    """Raises KeyError for the release of what is not set."""
    flag = (happened.layout, happened.fiscal_year)
    if isinstance(happened, NonDisclosureSet):
        return {**state, flag: happened.reason}
    state[flag]
    return {each: reason for each, reason in state.items() if each != flag}


def decide(
    state: State, wanted: bool, flagged: NonDisclosureSet
) -> tuple[NonDisclosureSet | NonDisclosureReleased, ...]:
    """Setting what is set, or releasing what is free, leaves no event."""
    flag = (flagged.layout, flagged.fiscal_year)
    if wanted:
        return () if state.get(flag) == flagged.reason else (flagged,)
    return (NonDisclosureReleased(flagged.person, *flag),) if flag in state else ()


def hides(flag: Flag, layout: str, fiscal_year: str) -> bool:
    """Whether a flag is on this record: it names it, or the whole person, or all years of the layout."""
    return flag[0] in ("", layout) and flag[1] in ("", fiscal_year)


def fiscal_year(request: Any, subject: int) -> str:
    """The fiscal year that a request of either side asked for about one of its persons, "" for none."""
    years = getattr(request, "fiscal_years", None)
    return str(years[subject] if isinstance(years, tuple) else getattr(request, "fiscal_year", ""))


class NonDisclosures:
    """Every flag that stands, by person."""

    name: ClassVar[str] = "non_disclosures"
    tables: ClassVar[Mapping[str, str]] = {
        "non_disclosure": "person TEXT, layout TEXT, fiscal_year TEXT, reason TEXT, position INTEGER, "
        "PRIMARY KEY (person, layout, fiscal_year)"
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        match recorded.event:
            case NonDisclosureSet() as e:
                rows.execute(
                    "INSERT INTO non_disclosure VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                    "reason = excluded.reason, position = excluded.position",
                    (e.person, e.layout, e.fiscal_year, e.reason, recorded.position),
                )
            case NonDisclosureReleased() as e:
                rows.execute(
                    "DELETE FROM non_disclosure WHERE person = ? AND layout = ? AND fiscal_year = ?",
                    (e.person, e.layout, e.fiscal_year),
                )


PROJECTIONS = (NonDisclosures(),)
