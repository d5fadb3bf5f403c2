"""Encryption and signature (暗号・署名機能): one function for all traffic (R-008, R-048 to R-056).

Sealing is HPKE (RFC 9180, base mode). Its suite is the hybrid of ML-KEM-768 and X25519; a party that cannot
do that announces the classical one, X25519 alone, with its key. Signatures are by the key of a certificate
that the network's authority issued: Ed25519, ECDSA over P-256, or ML-DSA-65 (FIPS 204). What the authority
revoked counts no longer from the day of its revocation on; what was signed before remains evidence.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import ClassVar, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

HYBRID: Final = "ML-KEM-768+X25519"
CLASSICAL: Final = "X25519"
DOCUMENT_SIGNING: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36")  # RFC 9336
# KEM, KDF and AEAD by their numbers (RFC 9180, 7; 0x647a: draft-ietf-hpke-pq).
_IDS: Final = MappingProxyType(
    {HYBRID: bytes.fromhex("647a00010002"), CLASSICAL: bytes.fromhex("002000010002")}
)
_NAMES: Final = MappingProxyType({number: name for name, number in _IDS.items()})
_SUITES: Final = MappingProxyType(
    {
        HYBRID: Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
        CLASSICAL: Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
    }
)
_KNOWN: Final = 1_024  # certificates and public keys whose reading is kept: more than any party has partners
_ID, _MLKEM_SEED, _MLKEM_PUBLIC, _X25519 = 6, 64, 1184, 32

_PublicKey = EllipticCurvePublicKey | Ed25519PublicKey | MLDSA65PublicKey
_PrivateKey = EllipticCurvePrivateKey | Ed25519PrivateKey | MLDSA65PrivateKey


class SealInvalid(Exception):
    """A sealed part does not open with this key for these two parties."""


class CertificateInvalid(Exception):
    """A certificate is not by the authority, not of that name, not for this use, or not valid then."""

    code: ClassVar[str] = "L-102"


class CertificateRevoked(CertificateInvalid):
    """A certificate was revoked by the authority, and not later than that time."""

    code: ClassVar[str] = "L-121"


def new_sealing_secret() -> bytes:
    """96 bytes: the seed of an ML-KEM-768 key and an X25519 private key."""
    return MLKEM768PrivateKey.generate().private_bytes_raw() + new_classical_secret()


def new_classical_secret() -> bytes:
    """32 bytes, an X25519 private key: for a party that has to announce the classical suite."""
    return X25519PrivateKey.generate().private_bytes_raw()


class SealingKey:
    """The key pair for which partners seal; the length of the secret tells its suite.

    `public` is what partners are told: the six octets of the suite (RFC 9180, 5.1), then the public key,
    for the hybrid suite 1,216 bytes (ML-KEM-768, then X25519), for the classical one 32.
    Raises ValueError for a secret that is neither.
    """

    def __init__(self, secret: bytes) -> None:
        x25519 = X25519PrivateKey.from_private_bytes(secret[-_X25519:])
        public = x25519.public_key().public_bytes_raw()
        self._key: X25519PrivateKey | MLKEM768X25519PrivateKey = x25519
        self.suite = CLASSICAL
        if len(secret) != _X25519:
            mlkem = MLKEM768PrivateKey.from_seed_bytes(secret[:-_X25519])
            public = mlkem.public_key().public_bytes_raw() + public
            self._key = MLKEM768X25519PrivateKey(mlkem, x25519)
            self.suite = HYBRID
        self.public = _IDS[self.suite] + public

    def open(self, box: bytes, info: bytes) -> bytes:
        """Raises SealInvalid."""
        try:
            return _SUITES[self.suite].decrypt(box, self._key, _bound(self.suite, info))
        except (InvalidTag, ValueError) as error:
            raise SealInvalid("the sealed part does not open") from error


def seal(plaintext: bytes, public: bytes, info: bytes) -> bytes:
    """Seal in the suite that a partner announced with its key; raises ValueError for a malformed key."""
    suite, key = _announced(public)
    return _SUITES[suite].encrypt(plaintext, key, _bound(suite, info))


def check_sealing_key(public: bytes) -> str:
    """The suite of a partner's key, HYBRID or CLASSICAL; ValueError or TypeError for what is no such key."""
    return _announced(public)[0]


@lru_cache(_KNOWN)
def _announced(public: bytes) -> tuple[str, X25519PublicKey | MLKEM768X25519PublicKey]:
    suite, raw = _NAMES.get(public[:_ID]), public[_ID:]
    if suite is None:
        raise ValueError("no suite known here")
    if suite == CLASSICAL:
        return suite, X25519PublicKey.from_public_bytes(raw)
    mlkem = MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_PUBLIC])
    return suite, MLKEM768X25519PublicKey(mlkem, X25519PublicKey.from_public_bytes(raw[_MLKEM_PUBLIC:]))


def _bound(suite: str, info: bytes) -> bytes:
    """A box for one suite opens in no other, even if one key were ever used for both."""
    return _IDS[suite] + info


def parties(kind: str, sender: str, receiver: str) -> bytes:
    """What a seal is bound to, so that a sealed part cannot be passed on under other names."""
    return f"renkei/seal/1/{kind}/{sender}/{receiver}".encode()


@dataclass(frozen=True)
class Identity:
    """A certificate and what is read from it once. `key` is None where it is not for signing messages."""

    certificate: x509.Certificate
    fingerprint: str
    uri: str
    key: _PublicKey | None = field(repr=False)

    def verifies(self, signature: bytes, data: bytes) -> bool:
        try:
            if isinstance(self.key, EllipticCurvePublicKey):
                self.key.verify(signature, data, ECDSA(SHA256()))
            elif self.key is not None:
                self.key.verify(signature, data)
        except (InvalidSignature, ValueError):
            return False
        return self.key is not None


@lru_cache(_KNOWN)
def identity(certificate: x509.Certificate) -> Identity:
    """Raises CertificateInvalid where the certificate names nobody."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise CertificateInvalid("no subject alternative name") from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise CertificateInvalid("not exactly one name of a party")
    fingerprint = sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
    return Identity(certificate, fingerprint, uris[0], _signing_key(certificate))


def _signing_key(certificate: x509.Certificate) -> _PublicKey | None:
    """The key by which messages may be signed: of an accepted algorithm, in a certificate for that use."""
    key = certificate.public_key()
    try:
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return None
    if DOCUMENT_SIGNING not in uses:
        return None
    if isinstance(key, EllipticCurvePublicKey):
        return key if isinstance(key.curve, SECP256R1) else None
    return key if isinstance(key, Ed25519PublicKey | MLDSA65PublicKey) else None


@dataclass(frozen=True)
class Revocations:
    """What the authority has revoked: serial numbers with the time from which each counts no longer.

    `number` rises with every list (RFC 5280, 5.2.3), `der` is the list itself; 0 and b"" while there is none.
    """

    number: int = 0
    since: Mapping[int, datetime] = field(default_factory=dict)
    der: bytes = b""

    def revoked(self, certificate: x509.Certificate, at: datetime) -> bool:
        if not self.since:
            return False
        since = self.since.get(certificate.serial_number)
        return since is not None and since <= at


NOTHING_REVOKED: Final = Revocations()


def read_revocations(data: bytes, authority: x509.Certificate) -> Revocations:
    """A CRL (RFC 5280) in DER or PEM; b"" while the authority has made none.

    Raises CertificateInvalid where it is not by the authority, ValueError where it is no CRL with a number.
    """
    if not data:
        return NOTHING_REVOKED
    crl = x509.load_pem_x509_crl(data) if data.startswith(b"-----") else x509.load_der_x509_crl(data)
    key = authority.public_key()
    if not isinstance(key, EllipticCurvePublicKey) or not crl.is_signature_valid(key):
        raise CertificateInvalid("the list of revoked certificates is not by the authority of the network")
    try:
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound as error:
        raise ValueError("a list without its number") from error
    since = {entry.serial_number: entry.revocation_date_utc for entry in crl}
    return Revocations(number, MappingProxyType(since), crl.public_bytes(Encoding.DER))


def check_issued(who: Identity, authority: x509.Certificate) -> None:
    """Issued by the authority. Raises CertificateInvalid."""
    try:
        who.certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise CertificateInvalid("not issued by the authority of the network") from error


def check_standing(who: Identity, uri: str, at: datetime, revocations: Revocations) -> None:
    """Of this name, for signing, valid and not revoked at that time. Raises CertificateInvalid.

    `at` is now for what comes in, and the time of its receipt for what is looked at later as evidence: a
    revocation does not reach back. What is signed by a revoked key and comes later is refused whatever time
    it gives, since whoever has the key writes any time they like.
    """
    if who.uri != uri:
        raise CertificateInvalid("issued to another party")
    if who.key is None:
        raise CertificateInvalid("not for signing messages, or of an algorithm that is not accepted")
    if not who.certificate.not_valid_before_utc <= at <= who.certificate.not_valid_after_utc:
        raise CertificateInvalid("not valid at this time")
    if revocations.revoked(who.certificate, at):
        raise CertificateRevoked("revoked")


def check_certificate(
    who: Identity,
    authority: x509.Certificate,
    uri: str,
    at: datetime,
    revocations: Revocations = NOTHING_REVOKED,
) -> None:
    """Issued by the authority, and everything of `check_standing`. Raises CertificateInvalid."""
    check_issued(who, authority)
    check_standing(who, uri, at, revocations)


class Signer:
    """A signing key with its certificate (PEM files).

    Raises CertificateInvalid where they are not one pair for signing messages by an accepted algorithm.
    """

    def __init__(self, certificate: bytes, key: bytes) -> None:
        self.identity = identity(x509.load_pem_x509_certificate(certificate))
        private = load_pem_private_key(key, None)
        if not isinstance(private, _PrivateKey) or private.public_key() != self.identity.key:
            raise CertificateInvalid("not a certificate for signing messages with its own key")
        self._key: _PrivateKey = private

    @property
    def certificate(self) -> bytes:
        return self.identity.certificate.public_bytes(Encoding.DER)

    def sign(self, data: bytes) -> bytes:
        if isinstance(self._key, EllipticCurvePrivateKey):
            return self._key.sign(data, ECDSA(SHA256(), deterministic_signing=True))  # RFC 6979
        return self._key.sign(data)
