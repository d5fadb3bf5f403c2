"""Published assessments of files (特定個人情報保護評価): without one nothing flows.

Act art. 28(6), R-381, R-382.

An agency states for each file which affairs it serves (rows of the law table or tasks of its ordinance: what
is obtained for them will be recorded in the file) and which information it provides out of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from schemas.errors import Refusal
from schemas.law.information import information as known_information
from schemas.law.lines import LineFault, LineInvalid, keep, read_lines, require_period

EXEMPTIONS = ("personnel_only", "paper_only", "under_1000")
"""Files that need no assessment: on the agency's own staff alone, on paper alone, of fewer than 1,000 persons
(R-385). An agency states it about a file; it is not checked here."""


@dataclass(frozen=True)
class Assessment:
    """The assessment of one file of an agency.

    It is published from `published_on` to `withdrawn_on`, both included. `affairs` are the rows and tasks for
    which the file takes information in, `information` is what is provided out of it. `exempt` is one of
    EXEMPTIONS, or "" for a file that is assessed; for an exempt file the days are those for which the agency
    states so, and it needs no publication.
    """

    agency: str
    file_id: str
    name: str
    exempt: str
    affairs: tuple[str, ...]
    information: tuple[str, ...]
    published_on: date
    withdrawn_on: date

    def __post_init__(self) -> None:
        require_period(self.published_on, self.withdrawn_on, "withdrawn_on")
        if self.exempt and self.exempt not in EXEMPTIONS:
            raise LineInvalid("exempt", "B-005", "対象外の理由が決められた値ではありません")
        if any(name not in known_information() for name in self.information):
            raise LineInvalid("information", "I-213", "法令の表にない情報の名前です")
        if not self.affairs and not self.information:
            raise LineInvalid("affairs", "B-002", "事務も情報も書かれていません")

    def published(self, day: date) -> bool:
        return self.published_on <= day <= self.withdrawn_on


@dataclass(frozen=True)
class Assessments:
    """Assessments of many agencies. Agencies are named by code, `day` is the day of the inquiry in Japan."""

    known: tuple[Assessment, ...] = ()
    _by_agency: Mapping[str, list[Assessment]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found: dict[str, list[Assessment]] = {}
        for assessment in self.known:
            found.setdefault(assessment.agency, []).append(assessment)
        object.__setattr__(self, "_by_agency", found)

    def for_inquiry(self, inquirer: str, affair: str, day: date) -> Assessment | Refusal:
        """The assessment of a file of the inquirer in which what it asks for will be recorded, or L-114."""
        for found in self._by_agency.get(inquirer, ()):
            if affair in found.affairs and found.published(day):
                return found
        return Refusal("L-114", "inquirer")

    def for_provision(self, provider: str, information: str, day: date) -> Assessment | Refusal:
        """The assessment of a file of the provider that records this information, or L-115."""
        for found in self._by_agency.get(provider, ()):
            if information in found.information and found.published(day):
                return found
        return Refusal("L-115", "provider")

    def refuse(
        self, inquirer: str, provider: str, affair: str, information: str, day: date
    ) -> Refusal | None:
        """None where both sides rest on published assessments (Act art. 21(2), 28(6)), or L-114, L-115."""
        for found in (
            self.for_inquiry(inquirer, affair, day),
            self.for_provision(provider, information, day),
        ):
            if isinstance(found, Refusal):
                return found
        return None


def read_assessments(text: str) -> tuple[tuple[Assessment, ...], tuple[LineFault, ...]]:
    """Read a file of assessments: the good lines, and every bad one with line, item and reason.

    A line is the word `assessment` and the fields of Assessment, separated by a tab; several affairs or names
    are separated by `|`. Faults are those of `schemas.law.lines`.
    """
    read = read_lines(text, {"assessment": Assessment}, frozenset(("affairs", "information", "exempt")))
    seen: set[tuple[str, str, date]] = set()

    def check(line: Assessment) -> None:
        key = (line.agency, line.file_id, line.published_on)
        if key in seen:
            raise LineInvalid("file_id", "B-001", "同じファイルの同じ公表日が2回あります")
        seen.add(key)

    kept = keep(read, check)
    return tuple(line for _, line in kept.lines), kept.faults
