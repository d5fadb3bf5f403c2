"""The directory of partners, as the network signs it (宛先管理; R-058, R-075)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509

from broker.linkage.crypto import (
    CertificateInvalid,
    Identity,
    Signer,
    check_certificate,
    check_sealing_key,
    identity,
)
from schemas.law import Agency
from schemas.messages import Malformed, pack, unpack

NETWORK = "urn:renkei:network"


def agency_uri(code: str) -> str:
    return f"urn:renkei:agency:{code}"


@dataclass(frozen=True)
class Partner:
    """An agency with the certificate it signs by and the key for which to seal."""

    agency: Agency
    identity: Identity
    sealing_key: bytes


@dataclass(frozen=True)
class Directory:
    """The network's certificate and all agencies by code."""

    network: Identity
    partners: Mapping[str, Partner]


@dataclass(frozen=True)
class DirectoryEntry:
    """One agency as it travels; the certificate is DER."""

    code: str
    name: str
    kind: str
    certificate: bytes
    sealing_key: bytes


def sign_directory(entries: list[DirectoryEntry], signer: Signer) -> bytes:
    body = pack(entries)
    return pack([body, signer.sign(body), signer.certificate])


def read_directory(data: bytes, authority: x509.Certificate, now: datetime) -> Directory:
    """Raises Malformed or CertificateInvalid; a partner whose certificate fails is in it all the same,
    and is refused when a message of its own is checked. One whose keys cannot be read is left out."""
    try:
        body, signature, certificate = unpack(data)
        network = identity(x509.load_der_x509_certificate(certificate))
        check_certificate(network, authority, NETWORK, now)
        if not network.verifies(signature, body):
            raise CertificateInvalid("the directory is not signed by the network")
        partners = {}
        for entry in unpack(body):
            partner = _partner(entry)
            if partner is not None:
                partners[partner.agency.code] = partner
    except (ValueError, TypeError, KeyError) as error:
        raise Malformed("not a directory") from error
    return Directory(network, partners)


def _partner(entry: Mapping[str, Any]) -> Partner | None:
    """None where the entry cannot be read: that agency is unknown here, and the others are not."""
    try:
        who = identity(x509.load_der_x509_certificate(entry["certificate"]))
        check_sealing_key(entry["sealing_key"])
        return Partner(Agency(entry["code"], entry["name"], entry["kind"]), who, entry["sealing_key"])
    except (CertificateInvalid, ValueError, TypeError, KeyError):
        return None
