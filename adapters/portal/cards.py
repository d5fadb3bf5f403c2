"""What the residents' page shows of each exchange: one card, made of a provision record."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from adapters.platform.inprocess import Platform
from adapters.portal.article23 import JST, Line, lines
from broker.intermediate.records import ProvisionRecord
from schemas import read_table
from schemas.law import table_at

ANSWERED, REFUSED, CHECKING, WAITING = "answered", "refused", "checking", "waiting"
ERASED = "erased"


@dataclass(frozen=True)
class Reason:
    """Why nothing was provided, in the resident's words."""

    ja: str
    en: str


@dataclass(frozen=True)
class Basis:
    """The row of the law table that an inquiry named and, where the table has that row, its article."""

    row: str
    article: str


@dataclass(frozen=True)
class Proof:
    """A place in the ledger whose receipt the resident may take away.

    `of` is "request", "notice" or "outcome".
    """

    position: int
    of: str


@dataclass(frozen=True)
class Card:
    """One exchange: `lines` are the matters of article 23, all else explains them.

    `state` is "answered", "refused", "checking" (held here for an officer), "waiting" (asked by this agency
    and still open) or "erased": then the one line there is says so, and nothing else is to be shown.
    `shared` says that the same inquiry was about other persons too, `unasked` that it was a notice (連絡).
    """

    state: str
    reason: Reason | None
    lines: list[Line]
    basis: Basis
    proofs: tuple[Proof, ...]
    shared: bool
    unasked: bool = False

    @property
    def inquirer(self) -> str:
        return self.lines[0].value

    @property
    def provider(self) -> str:
        return self.lines[1].value

    @property
    def requested(self) -> Line:
        return self.lines[2]


async def cards(platform: Platform, integrated_number: str) -> list[Card]:
    """The cards of a person, the latest first; records marked for non-disclosure are left out (R-361)."""
    records = [r for r in await platform.records(integrated_number) if not r.non_disclosure]
    places = await _places(platform, integrated_number)
    return [_card(record, *places.get(record.position, (0, 1))) for record in records]


def reason(code: str) -> Reason:
    """The resident's words for a code of the error catalogue, or for one that it does not know."""
    known = _reasons()
    return known.get(code) or known["-"]


@cache
def _reasons() -> Mapping[str, Reason]:
    found: dict[str, Reason] = {}
    for row in read_table("adapters.portal", "reasons.tsv", ("codes", "ja", "en")):
        for code in row["codes"].split():
            if code in found:
                raise ValueError(f"reasons.tsv: {code} occurs twice")
            found[code] = Reason(row["ja"], row["en"])
    return found


async def _places(platform: Platform, integrated_number: str) -> dict[int, tuple[int, int]]:
    """For each request its outcome's position (0: none) and how many persons it was about."""
    rows = await platform.follower.query(
        "SELECT request, outcome, (SELECT COUNT(DISTINCT person) FROM provision_record AS other "
        "WHERE other.request = own.request) FROM provision_record AS own WHERE person = ?",
        (platform.person(integrated_number),),
    )
    return {request: (outcome, persons) for request, outcome, persons in rows}


def _card(record: ProvisionRecord, outcome: int, persons: int) -> Card:
    # A receipt shows the logged bytes, and those of an inquiry about several persons tell of the others:
    # their blind indexes and what became of each.
    if record.erased_at:
        return Card(ERASED, None, lines(record), Basis("", ""), (), False)
    shared = persons > 1
    proofs = [Proof(record.position, "notice" if record.unasked else "request")]
    if record.closed and outcome not in (0, record.position):
        proofs.append(Proof(outcome, "outcome"))
    return Card(
        state=_state(record),
        reason=reason(record.refusal) if record.refusal else None,
        lines=lines(record),
        basis=_basis(record),
        proofs=() if shared else tuple(proofs),
        shared=shared,
        unasked=record.unasked,
    )


def _state(record: ProvisionRecord) -> str:
    if record.closed:
        return REFUSED if record.refusal else ANSWERED
    return CHECKING if record.side == "provider" and not record.unasked else WAITING


def _basis(record: ProvisionRecord) -> Basis:
    try:
        day = datetime.fromisoformat(record.requested_at).astimezone(JST).date()
        rows = table_at(day).rows
    except (ValueError, OverflowError):  # a partner wrote the time; one odd record must not hide the others
        rows = ()
    article = next((line.article for line in rows if line.row == record.law_row), "")
    number, _, branch = article.partition("-")
    text = f"第{number}条" + (f"の{branch}" if branch else "")
    return Basis(record.law_row.replace("-", "の"), text if article else "")
