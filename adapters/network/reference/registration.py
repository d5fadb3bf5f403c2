"""Agencies at the network: who they are, the certificates they sign by, the key for which others seal.

All of it goes to every agency in the network's configuration, which is issued anew, under the next serial,
when something in it changes and when half of its validity is over.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, ClassVar

import trio
from cryptography import x509

from broker.ledger.events import Recorded, event
from broker.ledger.ledger import Change, Ledger, Unit
from broker.ledger.projections import Follower, Rows
from broker.linkage.crypto import Revocations, Signer
from broker.linkage.partners import Configuration, DirectoryEntry, Row, sign_directory
from schemas.items import layouts
from schemas.law import tables
from schemas.messages import pack

CERTIFICATES = 4  # of one party in a configuration: the present one, and earlier ones that have not expired
ISSUES = "configuration"  # the stream of what was issued


def _without_capacities(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "capacities": ()}


@dataclass(frozen=True)
@event("agency.registered", 2, retention="linkage_log", upgrades={1: _without_capacities})
class AgencyRegistered:
    """An agency joined, or changed its keys. The certificate is DER; `capacities` are as in schemas.law."""

    code: str
    name: str
    kind: str
    certificate: bytes
    sealing_key: bytes
    capacities: tuple[str, ...] = ()


@dataclass(frozen=True)
@event("network.certified", retention="linkage_log")
class NetworkCertified:
    """The network signs by this certificate (DER) from here on."""

    certificate: bytes


@dataclass(frozen=True)
@event("configuration.issued", retention="linkage_log")
class ConfigurationIssued:
    """What agencies go by from here on. `digest` is the SHA-256 of the content without serial and times."""

    serial: int
    digest: str
    issued_at: str
    valid_until: str


EVENTS = (AgencyRegistered, NetworkCertified, ConfigurationIssued)
State = AgencyRegistered | None


def stream(code: str) -> str:
    return f"agency/{code}"


def evolve(state: State, happened: Any) -> State:
    return happened if isinstance(happened, AgencyRegistered) else state


def decide_register(state: State, wanted: AgencyRegistered) -> tuple[AgencyRegistered, ...]:
    """The same registration again changes nothing."""
    return () if state == wanted else (wanted,)


@dataclass(frozen=True)
class Issued:
    """The network's own certificates, the present one first, and the last configuration that it issued."""

    certificates: tuple[bytes, ...] = ()
    last: ConfigurationIssued = ConfigurationIssued(0, "", "", "")


def evolve_issued(state: Issued, happened: Any) -> Issued:
    if isinstance(happened, NetworkCertified):
        return replace(state, certificates=newest((happened.certificate, *state.certificates)))
    return replace(state, last=happened)


def newest(certificates: Sequence[bytes]) -> tuple[bytes, ...]:
    """Each once, where it stands first, and not too many."""
    return tuple(dict.fromkeys(certificates))[:CERTIFICATES]


def decide_issue(
    state: Issued, certificate: bytes, digest: str, now: datetime, life: timedelta
) -> tuple[NetworkCertified | ConfigurationIssued, ...]:
    """Issue what has changed, or has lived half of its life.

    Serials are seconds since 1970 or, where there was one in this second, one more: they rise even where the
    network was restored from a backup that lacks the last ones.
    """
    happened: list[NetworkCertified | ConfigurationIssued] = []
    if state.certificates[:1] != (certificate,):
        happened.append(NetworkCertified(certificate))
    last = state.last
    if last.digest != digest or now >= datetime.fromisoformat(last.valid_until) - life / 2:
        serial = max(int(now.timestamp()), last.serial + 1)
        at, until = (time.isoformat(timespec="microseconds") for time in (now, now + life))
        happened.append(ConfigurationIssued(serial, digest, at, until))
    return tuple(happened)


@dataclass(frozen=True)
class Terms:
    """What the network publishes beside its agencies: rows of the tables of assessments and ordinances.

    `life` is how long a configuration is valid, `grace` how long an agency may go on after that without the
    network.
    """

    life: timedelta
    grace: timedelta
    assessments: tuple[Row, ...] = ()
    ordinances: tuple[Row, ...] = ()


@dataclass(frozen=True)
class Trust:
    """By what the network signs, and by what it knows the certificates of others.

    `signer` and `revocations` are asked every time: both may change while the network is at work.
    """

    authority: x509.Certificate
    signer: Callable[[], Signer]
    revocations: Callable[[], Revocations]


class Configurations:
    """The network's configuration as it stands, signed and ready to be handed out.

    `admitted` are the codes of the agencies that may take part.
    """

    def __init__(
        self,
        ledger: Ledger,
        follower: Follower,
        trust: Trust,
        terms: Terms,
        admitted: Collection[str],
        clock: Callable[[], datetime],
    ) -> None:
        self._ledger = ledger
        self._follower = follower
        self._trust = trust
        self._terms = terms
        self._admitted = admitted
        self._clock = clock
        self._turn = trio.Lock()
        self._made: tuple[Any, datetime, bytes] | None = None  # from what, good until when, signed

    async def current(self) -> bytes:
        """The signed configuration; issues the next one where it is time."""
        async with self._turn:
            signer, revocations, now = self._trust.signer(), self._trust.revocations(), self._clock()
            await self._follower.reach(self._ledger.position)
            rows = await self._follower.query("SELECT code, position FROM agency ORDER BY code")
            made_of = (rows, signer.certificate, revocations.der)
            if self._made is None or self._made[0] != made_of or now >= self._made[1]:
                codes = [code for code, _ in rows if code in self._admitted]
                self._made = (made_of, *await self._issue(codes, signer, revocations, now))
            return self._made[2]

    async def _issue(
        self, codes: Sequence[str], signer: Signer, revocations: Revocations, now: datetime
    ) -> tuple[datetime, bytes]:
        recorded = await self._ledger.stream(ISSUES)
        state = Issued()
        for earlier in recorded:
            state = evolve_issued(state, earlier.event)
        draft = Configuration(
            serial=0,
            issued_at="",
            valid_until="",
            grace_seconds=int(self._terms.grace.total_seconds()),
            network=_unexpired(newest((signer.certificate, *state.certificates)), now),
            agencies=await self._agencies(codes, now),
            law_versions=tuple(table.version for table in tables()),
            layouts=tuple(layout.key for layout in layouts()),
            assessments=self._terms.assessments,
            ordinances=self._terms.ordinances,
            crl=revocations.der,
        )
        digest = sha256(pack(draft)).hexdigest()
        decided = decide_issue(state, signer.certificate, digest, now, self._terms.life)
        if decided:
            seen = len(recorded)
            await self._ledger.append(Unit(f"{ISSUES}/{seen + 1}", (Change(ISSUES, seen, decided),)))
        for happened in decided:
            state = evolve_issued(state, happened)
        last = state.last
        configuration = replace(
            draft, serial=last.serial, issued_at=last.issued_at, valid_until=last.valid_until
        )
        until = datetime.fromisoformat(last.valid_until) - self._terms.life / 2
        return until, sign_directory(configuration, signer)

    async def _agencies(self, codes: Sequence[str], now: datetime) -> tuple[DirectoryEntry, ...]:
        registered = await self._ledger.streams([stream(code) for code in codes])
        return tuple(_entry([r.event for r in registered[stream(code)]], now) for code in codes)


def _entry(registered: Sequence[AgencyRegistered], now: datetime) -> DirectoryEntry:
    last = registered[-1]
    certificates = newest([each.certificate for each in reversed(registered)])
    return DirectoryEntry(
        last.code, last.name, last.kind, last.capacities, _unexpired(certificates, now), last.sealing_key
    )


def _unexpired(certificates: Sequence[bytes], now: datetime) -> tuple[bytes, ...]:
    """The present one, whatever it is worth, and earlier ones until they expire.

    Those that were revoked are among them, so that whoever still signs by one is told.
    """
    present, *earlier = certificates
    valid = [der for der in earlier if x509.load_der_x509_certificate(der).not_valid_after_utc >= now]
    return (present, *valid)


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
