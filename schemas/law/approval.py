"""Internal approval of answers (決裁) as data: which answers leave by themselves and which wait for whom.

R-093 to R-096 leave it to the agency: the table `approval.tsv` says it for rows of the law, kinds of
information and reasons of holds. The words for reasons stand in `hold_reasons.tsv`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from schemas import read_table

AUTOMATIC, AFTERWARDS, TOGETHER, ONE_BY_ONE, FOUR_EYES = MODES = (
    "automatic",
    "afterwards",
    "together",
    "one_by_one",
    "four_eyes",
)
"""From the most liberal to the strictest: without anybody, looked at afterwards, several at once, each by
itself, each by two persons."""

_BY_ITSELF = (AUTOMATIC, AFTERWARDS)
_HEADER = ("law_row", "information", "reason", "mode")
ANY = "*"


@dataclass(frozen=True)
class Line:
    """One line of the policy; "*" fits anything, a reason of "" answers that nothing bars."""

    law_row: str
    information: str
    reason: str
    mode: str

    def fits(self, law_row: str, information: str, reason: str) -> bool:
        return (
            self.law_row in (ANY, law_row)
            and self.information in (ANY, information)
            and (self.reason == reason or (self.reason == ANY and reason != ""))
        )


@dataclass(frozen=True)
class Policy:
    """The lines in their order. Raises ValueError for one that would let what is held leave by itself."""

    lines: tuple[Line, ...]

    def __post_init__(self) -> None:
        for line in self.lines:
            if line.mode not in MODES or (line.reason and line.mode in _BY_ITSELF):
                raise ValueError(f"approval: {line.mode!r} for reason {line.reason!r}")

    def mode(self, law_row: str, information: str, reasons: Sequence[str]) -> str:
        """How an answer is approved: the strictest mode of the work itself and of each reason that bars it.

        What no line is about is decided one by one; without a reason and a line it is automatic.
        """
        found = [self._of(law_row, information, reason) for reason in ("", *reasons)]
        return max(found, key=MODES.index)

    def _of(self, law_row: str, information: str, reason: str) -> str:
        fitting = (line.mode for line in self.lines if line.fits(law_row, information, reason))
        return next(fitting, ONE_BY_ONE if reason else AUTOMATIC)


def leaves_by_itself(mode: str) -> bool:
    """Whether an answer of this mode goes without an officer."""
    return mode in _BY_ITSELF


@cache
def published() -> Policy:
    """The policy of `approval.tsv`."""
    return Policy(tuple(Line(**row) for row in read_table("schemas.law", "approval.tsv", _HEADER)))


def hold_reasons() -> dict[str, str]:
    """The reasons for which a hold may be set, with their Japanese names."""
    return _reasons("hold")


def non_disclosure_reasons() -> dict[str, str]:
    """The reasons for which the flag of R-107 may be set, likewise."""
    return _reasons("non_disclosure")


@cache
def _reasons(use: str) -> dict[str, str]:
    rows = read_table("schemas.law", "hold_reasons.tsv", ("reason", "name_ja", "hold", "non_disclosure"))
    return {row["reason"]: row["name_ja"] for row in rows if row[use] == "yes"}
