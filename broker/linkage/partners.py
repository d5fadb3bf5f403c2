"""The configuration of the linkage, as the network signs it (宛先管理; R-058, R-075).

The network hands every agency one signed, numbered and expiring configuration: who the partners are, with
their certificates and sealing keys, which certificates are revoked, which law is in force, which layouts are
spoken, whose assessments are published. An agency keeps it in memory while the network is away. It counts up
to the end of its validity and of the grace stated in it; after that nothing is sent or taken in (L-122).
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from cryptography import x509

from broker.linkage.crypto import (
    CLASSICAL,
    CertificateInvalid,
    Identity,
    Revocations,
    Signer,
    check_certificate,
    check_issued,
    check_sealing_key,
    check_standing,
    identity,
    read_revocations,
)
from schemas.errors import Refusal, Refused
from schemas.law import Agency, tables
from schemas.law.assessments import Assessments, read_assessments
from schemas.law.lines import joined
from schemas.law.ordinances import Ordinances, ordinances_of
from schemas.messages import Malformed, pack, unpack

NETWORK = "urn:renkei:network"
# No other thing that the network signs begins like this.
_SIGNED: Final = b"renkei/configuration/1\n"

Row = tuple[str, ...]


def agency_uri(code: str) -> str:
    return f"urn:renkei:agency:{code}"


@dataclass(frozen=True)
class DirectoryEntry:
    """One agency as it travels: its certificates in DER, the one registered last first."""

    code: str
    name: str
    kind: str
    capacities: tuple[str, ...]
    certificates: tuple[bytes, ...]
    sealing_key: bytes


@dataclass(frozen=True)
class Configuration:
    """The configuration as it travels.

    `serial` rises with every issue. `issued_at` and `valid_until` are times of ISO 8601 with their offset,
    `grace_seconds` says how long after `valid_until` it may be gone by while there is no newer one.
    `network` are the network's own certificates in DER, the present one first. `law_versions` and `layouts`
    are those in force, by identifier; `assessments` (R-382) and `ordinances` (Act art. 19(9)) are rows of
    their tables. `crl` is the authority's list of revoked certificates in DER, b"" while there is none.
    """

    serial: int
    issued_at: str
    valid_until: str
    grace_seconds: int
    network: tuple[bytes, ...]
    agencies: tuple[DirectoryEntry, ...]
    law_versions: tuple[str, ...]
    layouts: tuple[str, ...]
    assessments: tuple[Row, ...]
    ordinances: tuple[Row, ...]
    crl: bytes


@dataclass(frozen=True)
class Partner:
    """An agency with the certificates it signs by, the newest first, and the key for which to seal.

    Of its certificates only those by the network's authority are here. There are two while one is replaced,
    so that what was signed with the earlier one is still known when it arrives.
    """

    agency: Agency
    identities: tuple[Identity, ...]
    sealing_key: bytes

    @property
    def identity(self) -> Identity:
        """The newest of them. Raises IndexError where there is none."""
        return self.identities[0]

    @property
    def suite(self) -> str:
        """The suite in which this partner wants to be sealed for (HYBRID or CLASSICAL)."""
        return check_sealing_key(self.sealing_key)


@dataclass(frozen=True)
class Directory:
    """A configuration as it was read and checked, with all partners by code."""

    serial: int
    digest: bytes
    valid_until: datetime
    grace: timedelta
    networks: tuple[Identity, ...]
    partners: Mapping[str, Partner]
    revocations: Revocations
    law_versions: tuple[str, ...]
    layouts: tuple[str, ...]
    assessments: Assessments
    ordinances: Mapping[str, Ordinances]

    @property
    def network(self) -> Identity:
        """The certificate by which the network signs at present."""
        return self.networks[0]

    @property
    def classical(self) -> tuple[str, ...]:
        """Codes of the partners that announced the classical suite, which a quantum computer could open."""
        return tuple(sorted(code for code, partner in self.partners.items() if partner.suite == CLASSICAL))

    @property
    def counts_until(self) -> datetime:
        """The end of validity and grace."""
        return self.valid_until + self.grace

    def lapsed(self, now: datetime) -> bool:
        """Whether validity and grace are over."""
        return now > self.counts_until

    def check(self, now: datetime) -> None:
        """Raises Refused: L-122 once the configuration has lapsed."""
        if self.lapsed(now):
            raise Refused(Refusal("L-122", f"serial {self.serial}"))

    def partner(self, code: str, now: datetime) -> Partner:
        """The partner, who has a certificate that counts now. Raises Refused: L-101, L-102, L-121, L-122."""
        self.check(now)
        partner = self.partners.get(code)
        if partner is None:
            raise Refused(Refusal("L-101"))
        refusal = Refusal("L-102", "no certificate by the authority of the network")
        for who in reversed(partner.identities):
            fault = self._fault(who, agency_uri(code), now)
            if fault is None:
                return partner
            refusal = fault
        raise Refused(refusal)

    def sender(self, code: str, fingerprint: str, now: datetime) -> Partner:
        """The partner, with that certificate alone by which it says it signed.

        Raises Refused: as `partner`, and L-303 where it is none of the partner's.

        That certificate must itself count now: one that was renewed does until it expires, one that was
        revoked does not, whatever the partner's other certificate is worth.
        """
        partner = self.partner(code, now)
        for who in partner.identities:
            if who.fingerprint == fingerprint:
                fault = self._fault(who, agency_uri(code), now)
                if fault is not None:
                    raise Refused(fault)
                return replace(partner, identities=(who,))
        raise Refused(Refusal("L-303"))

    def by_network(self, signature: bytes, data: bytes, now: datetime) -> bool:
        """Whether the network signed this, by a certificate that counts now. Raises Refused: L-122."""
        self.check(now)
        return any(
            who.verifies(signature, data) and self._fault(who, NETWORK, now) is None for who in self.networks
        )

    def _fault(self, who: Identity, uri: str, now: datetime) -> Refusal | None:
        try:
            check_standing(who, uri, now, self.revocations)
        except CertificateInvalid as error:
            return Refusal(error.code, str(error))
        return None


def sign_directory(configuration: Configuration, signer: Signer) -> bytes:
    body = pack(configuration)
    return pack([body, signer.sign(_SIGNED + body), signer.certificate])


def read_directory(
    data: bytes, authority: x509.Certificate, now: datetime, held: Directory | None = None
) -> Directory:
    """Check a configuration and make it ready for use in the place of the one that is `held`.

    Raises Malformed; CertificateInvalid where it is not signed by the network; Refused with L-123 where it is
    older than the one held, or another one under the same serial, or brings an older list of revoked
    certificates, and with L-124 where it has expired already: the grace is for what is held alone.

    A partner whose certificates fail is in it all the same, and is refused when it is dealt with. One whose
    keys cannot be read is left out.
    """
    try:
        body, signature, certificate = unpack(data)
        directory = _directory(body, signature, certificate, authority, now)
        expired = now > directory.valid_until
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise Malformed("not a configuration") from error
    if expired:
        raise Refused(Refusal("L-124", f"serial {directory.serial}"))
    if held is not None and (
        directory.serial < held.serial
        or (directory.serial == held.serial and directory.digest != held.digest)
        or directory.revocations.number < held.revocations.number
    ):
        raise Refused(Refusal("L-123", f"serial {directory.serial}, held {held.serial}"))
    return directory


def _directory(
    body: bytes, signature: bytes, certificate: bytes, authority: x509.Certificate, now: datetime
) -> Directory:
    values = unpack(body)
    entries = [DirectoryEntry(**entry) for entry in values["agencies"]]
    configuration = Configuration(**{**values, "agencies": tuple(entries)})
    revocations = read_revocations(configuration.crl, authority)
    network = identity(x509.load_der_x509_certificate(certificate))
    check_certificate(network, authority, NETWORK, now, revocations)
    if not network.verifies(signature, _SIGNED + body):
        raise CertificateInvalid("the configuration is not signed by the network")
    earlier = [der for der in configuration.network if der != certificate]
    read = [_partner(entry, authority) for entry in configuration.agencies]
    partners = {partner.agency.code: partner for partner in read if partner is not None}
    agencies = {code: partner.agency for code, partner in partners.items()}
    return Directory(
        serial=int(configuration.serial),
        digest=sha256(body).digest(),
        valid_until=datetime.fromisoformat(configuration.valid_until),
        grace=timedelta(seconds=configuration.grace_seconds),
        networks=(network, *_issued(earlier, authority)),
        partners=partners,
        revocations=revocations,
        law_versions=configuration.law_versions,
        layouts=configuration.layouts,
        assessments=Assessments(read_assessments(joined(configuration.assessments))[0]),
        ordinances=ordinances_of(configuration.ordinances, agencies, tables()),
    )


def _partner(entry: DirectoryEntry, authority: x509.Certificate) -> Partner | None:
    """None where the entry cannot be read: that agency is unknown here, and the others are not."""
    try:
        check_sealing_key(entry.sealing_key)
        agency = Agency(entry.code, entry.name, entry.kind, frozenset(entry.capacities))
        return Partner(agency, _issued(entry.certificates, authority), entry.sealing_key)
    except (CertificateInvalid, ValueError, TypeError):
        return None


def _issued(certificates: Sequence[bytes], authority: x509.Certificate) -> tuple[Identity, ...]:
    """Those by the authority. Raises CertificateInvalid, ValueError or TypeError for unreadable ones."""
    found = []
    for der in certificates:
        who = identity(x509.load_der_x509_certificate(der))
        with suppress(CertificateInvalid):
            check_issued(who, authority)
            found.append(who)
    return tuple(found)
