"""The error catalogue: every refusal has a code, a cause, somebody who acts and a next step.

The texts are written for the officer who reads them, Japanese first. They live in `catalogue.tsv` so that a
wording can be mended without touching code; the code itself never changes its meaning.
"""

from dataclasses import dataclass
from types import MappingProxyType

from schemas import read_table

ACTORS = MappingProxyType(
    {
        "inquiring_office": ("照会側の担当課", "the inquiring office"),
        "providing_office": ("提供側の担当課", "the providing office"),
        "system_operator": ("システム管理者", "the operator of this system"),
        "network_operator": ("ネットワーク運営者", "the operator of the network"),
        "business_vendor": ("業務システムの事業者", "the vendor of the business system"),
        "nobody": ("対応不要", "nobody"),
    }
)
"""Who can be asked to act: identifier to its name in (Japanese, English)."""

_HEADER = ("code", "actor", "cause_ja", "cause_en", "next_ja", "next_en")


@dataclass(frozen=True)
class CatalogueEntry:
    """One code: what happened and why (cause), who acts (a key of ACTORS) and what comes next."""

    code: str
    actor: str
    cause_ja: str
    cause_en: str
    next_ja: str
    next_en: str

    def __post_init__(self) -> None:
        if self.actor not in ACTORS:
            raise ValueError(f"{self.code}: unknown actor {self.actor}")


def _read() -> dict[str, CatalogueEntry]:
    entries: dict[str, CatalogueEntry] = {}
    for row in read_table(__name__, "catalogue.tsv", _HEADER):
        if row["code"] in entries:
            raise ValueError(f"catalogue.tsv: {row['code']} occurs twice")
        entries[row["code"]] = CatalogueEntry(**row)
    return entries


_CATALOGUE = _read()


def entry(code: str) -> CatalogueEntry:
    """The catalogue entry of `code`. Raises ValueError if there is none."""
    try:
        return _CATALOGUE[code]
    except KeyError:
        raise ValueError(f"no such code in the error catalogue: {code}") from None


def codes() -> tuple[str, ...]:
    """Every code of the catalogue, in the order of the file."""
    return tuple(_CATALOGUE)


@dataclass(frozen=True)
class Refusal:
    """A refusal as a value, returned by functions that decide.

    `detail` names items, row numbers or positions. It must never hold personal data: refusals travel to logs,
    lists and other agencies. Raises ValueError for a code that the catalogue does not know.
    """

    code: str
    detail: str = ""

    def __post_init__(self) -> None:
        entry(self.code)


class Refused(Exception):
    """Carries a refusal where a value cannot travel, such as out of a reader in the middle of a file."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.code} {refusal.detail}".rstrip())
        self.refusal = refusal
