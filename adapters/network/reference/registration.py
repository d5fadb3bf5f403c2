"""Agencies at the network: who they are, the certificate they sign by, the key for which others seal."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from broker.ledger.events import Recorded, event
from broker.ledger.projections import Rows


@dataclass(frozen=True)
@event("agency.registered", retention="linkage_log")
class AgencyRegistered:
    """An agency joined, or changed its keys. The certificate is DER."""

    code: str
    name: str
    kind: str
    certificate: bytes
    sealing_key: bytes


State = AgencyRegistered | None


def stream(code: str) -> str:
    return f"agency/{code}"


def evolve(state: State, happened: Any) -> State:
    return happened if isinstance(happened, AgencyRegistered) else state


def decide_register(state: State, wanted: AgencyRegistered) -> tuple[AgencyRegistered, ...]:
    """The same registration again changes nothing."""
    return () if state == wanted else (wanted,)


class Agencies:
    """Registered agencies by the position of their last registration."""

    name: ClassVar[str] = "agencies"
    tables: ClassVar[Mapping[str, str]] = {"agency": "code TEXT PRIMARY KEY, position INTEGER"}

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        if isinstance(recorded.event, AgencyRegistered):
            rows.execute(
                "INSERT INTO agency VALUES (?, ?) ON CONFLICT DO UPDATE SET position = excluded.position",
                (recorded.event.code, recorded.position),
            )
