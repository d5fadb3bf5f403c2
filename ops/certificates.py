"""A small certificate authority for one linkage: network, registry, agencies and business systems.

Names stand as URIs in the subject alternative name: `urn:renkei:agency:990019`, `urn:renkei:network`,
`urn:renkei:registry`, `urn:renkei:business:990019`. The subject's common name is for people only.

A certificate serves the line or the message, never both: its extended key usage is either TLS (client
and server) or document signing (RFC 9336), so that a signing key cannot open a connection. Keys lie
unencrypted in files that only their owner can read (R-054); `ca.key` belongs on another machine than the
agencies' own keys.
"""

import ipaddress
import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.ledger.files import sync

AUTHORITY_LIFE: Final = timedelta(days=3653)
LEAF_LIFE: Final = timedelta(days=365)
SKEW: Final = timedelta(minutes=5)  # clocks of other offices may be this far behind ours
DOCUMENT_SIGNING: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36")  # RFC 9336
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")

_Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def _now() -> datetime:
    return datetime.now(UTC)


def create_authority(folder: Path, *, clock: Callable[[], datetime] = _now) -> None:
    """Write a new authority, `ca.pem` and `ca.key`, into `folder`, which becomes private to its owner.

    Valid for ten years. Raises FileExistsError when the folder has one: replacing it would cut off
    everybody who holds a certificate of it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("renkei authority")
    start = clock()
    certificate = (
        _builder(name, name, key.public_key(), start - SKEW, start + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(_issuer_id(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _store(folder, "ca", key, certificate)


def issue(
    folder: Path,
    name: str,
    uri: str,
    *,
    purpose: Literal["tls", "signing"],
    hosts: Sequence[str] = ("127.0.0.1", "localhost"),
    clock: Callable[[], datetime] = _now,
) -> None:
    """Write `{name}-{purpose}.pem` and `.key`, signed by the authority in `folder`.

    `uri` is the party's name on the line; `hosts` are the names and addresses under which it serves (TLS
    only). TLS keys are ECDSA P-256, signing keys Ed25519. Valid for one year, at most as long as the
    authority.

    Raises FileNotFoundError without an authority, FileExistsError when certificate or key are there
    already (move both away to renew them), ValueError for a name that is not lower case letters, digits
    and hyphens, for a URI that is not ASCII, or once the authority has expired.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for a certificate: lower case letters, digits and hyphens only"
        )
    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    ca_key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{folder / 'ca.key'} is not the key of an authority made here")
    start = clock()
    if start >= authority.not_valid_after_utc:
        raise ValueError("the authority has expired")
    end = min(start + LEAF_LIFE, authority.not_valid_after_utc)

    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)]
    key: _Key
    if purpose == "tls":
        key = ec.generate_private_key(ec.SECP256R1())
        names += [_host(host) for host in hosts]
        usage = _key_usage(digital_signature=True)
        extended = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    else:
        key = ed25519.Ed25519PrivateKey.generate()
        usage = _key_usage(digital_signature=True, content_commitment=True)
        extended = [DOCUMENT_SIGNING]
    certificate = (
        _builder(_name(name), authority.subject, key.public_key(), start - SKEW, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(extended), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(_issuer_id(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    _store(folder, f"{name}-{purpose}", key, certificate)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey,
    start: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _issuer_id(public_key: ec.EllipticCurvePublicKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(
    *,
    digital_signature: bool = False,
    content_commitment: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=content_commitment,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _store(folder: Path, stem: str, key: _Key, certificate: x509.Certificate) -> None:
    for path in (folder / f"{stem}.key", folder / f"{stem}.pem"):
        if path.exists():  # a key alone may be left over from a crash, but may also be somebody's only one
            raise FileExistsError(f"{path} exists already; move it away first")
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _write(folder / f"{stem}.key", private)
    _write(folder / f"{stem}.pem", certificate.public_bytes(serialization.Encoding.PEM))


def _write(path: Path, data: bytes) -> None:
    """Put the file in place whole and durable, readable by its owner alone from its first moment."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)  # of a crash; its mode and owner are not to be trusted
    handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(handle)
    unfinished.replace(path)
    sync(path.parent)
