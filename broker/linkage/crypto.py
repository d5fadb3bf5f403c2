"""Encryption and signature (暗号・署名機能): one function for all traffic (R-008, R-048 to R-056).

Sealing is HPKE (RFC 9180, base mode) with the hybrid of ML-KEM-768 and X25519; signatures are Ed25519 by the
key of a certificate that the network's authority issued.
"""

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_MLKEM_SEED, _MLKEM_PUBLIC, _X25519 = 64, 1184, 32


class SealInvalid(Exception):
    """A sealed part does not open with this key for these two parties."""


class CertificateInvalid(Exception):
    """A certificate is not by the authority, not of that name, or not valid at that time."""


def new_sealing_secret() -> bytes:
    """96 bytes: the seed of an ML-KEM-768 key and an X25519 private key."""
    mlkem, x25519 = MLKEM768PrivateKey.generate(), X25519PrivateKey.generate()
    return mlkem.private_bytes_raw() + x25519.private_bytes_raw()


class SealingKey:
    """The key pair for which partners seal. `public` is 1,216 bytes: ML-KEM-768, then X25519."""

    def __init__(self, secret: bytes) -> None:
        mlkem = MLKEM768PrivateKey.from_seed_bytes(secret[:_MLKEM_SEED])
        x25519 = X25519PrivateKey.from_private_bytes(secret[_MLKEM_SEED:])
        self._key = MLKEM768X25519PrivateKey(mlkem, x25519)
        self.public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()

    def open(self, box: bytes, info: bytes) -> bytes:
        """Raises SealInvalid."""
        try:
            return _SUITE.decrypt(box, self._key, info)
        except (InvalidTag, ValueError) as error:
            raise SealInvalid("the sealed part does not open") from error


def seal(plaintext: bytes, public: bytes, info: bytes) -> bytes:
    """Seal for a partner's public key; raises ValueError for a malformed key."""
    return _SUITE.encrypt(plaintext, _public_key(public), info)


def check_sealing_key(public: bytes) -> None:
    """Raises ValueError or TypeError for what is no partner's public key."""
    _public_key(public)


def _public_key(public: bytes) -> MLKEM768X25519PublicKey:
    return MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC]),
        X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC:]),
    )


def parties(kind: str, sender: str, receiver: str) -> bytes:
    """What a seal is bound to, so that a sealed part cannot be passed on under other names."""
    return f"renkei/seal/1/{kind}/{sender}/{receiver}".encode()


@dataclass(frozen=True)
class Identity:
    """A certificate and what is read from it once."""

    certificate: x509.Certificate
    fingerprint: str
    uri: str

    def verifies(self, signature: bytes, data: bytes) -> bool:
        key = self.certificate.public_key()
        if not isinstance(key, Ed25519PublicKey):
            return False
        try:
            key.verify(signature, data)
        except InvalidSignature:
            return False
        return True


def identity(certificate: x509.Certificate) -> Identity:
    """Raises CertificateInvalid where the certificate names nobody."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise CertificateInvalid("no subject alternative name") from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise CertificateInvalid("not exactly one name of a party")
    return Identity(certificate, sha256(certificate.public_bytes(Encoding.DER)).hexdigest(), uris[0])


def check_certificate(who: Identity, authority: x509.Certificate, uri: str, now: datetime) -> None:
    """Issued by the authority, of this name, valid now. Raises CertificateInvalid."""
    try:
        who.certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise CertificateInvalid("not issued by the authority of the network") from error
    if who.uri != uri:
        raise CertificateInvalid("issued to another party")
    if not who.certificate.not_valid_before_utc <= now <= who.certificate.not_valid_after_utc:
        raise CertificateInvalid("not valid at this time")


class Signer:
    """A signing key with its certificate (PEM files)."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        self.identity = identity(x509.load_pem_x509_certificate(certificate))
        private = load_pem_private_key(key, None)
        if not isinstance(private, Ed25519PrivateKey):
            raise CertificateInvalid("the signing key is not an Ed25519 key")
        self._key = private

    @property
    def certificate(self) -> bytes:
        return self.identity.certificate.public_bytes(Encoding.DER)

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)
