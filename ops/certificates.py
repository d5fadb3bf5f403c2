"""A small certificate authority for one linkage: network, registry, agencies and business systems.

Names stand as URIs in the subject alternative name: `urn:renkei:agency:990019`, `urn:renkei:network`,
`urn:renkei:registry`, `urn:renkei:business:990019`. The subject's common name is for people only.

A certificate serves the line or the message, never both: its extended key usage is either TLS (client
and server) or document signing (RFC 9336), so that a signing key cannot open a connection. Keys lie
unencrypted in files that only their owner can read (R-054); `ca.key` belongs on another machine than the
agencies' own keys.

`ca.crl` is the list of what the authority has revoked (RFC 5280). The network carries it to everybody in its
signed configuration.
"""

import ipaddress
import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.ledger.files import sync
from broker.linkage.crypto import DOCUMENT_SIGNING

AUTHORITY_LIFE: Final = timedelta(days=3653)
LEAF_LIFE: Final = timedelta(days=365)
CRL_LIFE: Final = timedelta(days=31)  # after which other readers of the list expect the next one
SKEW: Final = timedelta(minutes=5)  # clocks of other offices may be this far behind ours
Algorithm = Literal["ecdsa-p256", "ed25519", "ml-dsa-65"]
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")

_Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | mldsa.MLDSA65PrivateKey
_PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | mldsa.MLDSA65PublicKey
_MAKE: Final[Mapping[Algorithm, Callable[[], _Key]]] = {
    "ecdsa-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ml-dsa-65": mldsa.MLDSA65PrivateKey.generate,
}
ALGORITHMS: Final[tuple[Algorithm, ...]] = tuple(_MAKE)
"""By which messages may be signed."""


def _now() -> datetime:
    return datetime.now(UTC)


def create_authority(folder: Path, *, clock: Callable[[], datetime] = _now) -> None:
    """Write a new authority, `ca.pem`, `ca.key` and an empty `ca.crl`, into `folder`, then its owner's alone.

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
    crl(folder, clock=clock)


def issue(
    folder: Path,
    name: str,
    uri: str,
    *,
    purpose: Literal["tls", "signing"],
    hosts: Sequence[str] = ("127.0.0.1", "localhost"),
    algorithm: Algorithm = "ed25519",
    clock: Callable[[], datetime] = _now,
) -> None:
    """Write `{name}-{purpose}.pem` and `.key`, signed by the authority in `folder`.

    `uri` is the party's name on the line; `hosts` are the names and addresses under which it serves (TLS
    only). `algorithm` is that of a signing key; TLS keys are ECDSA P-256. Valid for one year, at most as long
    as the authority.

    Raises FileNotFoundError without an authority, FileExistsError when certificate or key are there
    already (`renew` replaces them), ValueError for a name that is not lower case letters, digits and
    hyphens, for a URI that is not ASCII, or once the authority has expired.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for a certificate: lower case letters, digits and hyphens only"
        )
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)]
    if purpose == "tls":
        algorithm = "ecdsa-p256"
        names += [_host(host) for host in hosts]
        usage = _key_usage(digital_signature=True)
        extended = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    else:
        usage = _key_usage(digital_signature=True, content_commitment=True)
        extended = [DOCUMENT_SIGNING]
    extensions = (usage, x509.ExtendedKeyUsage(extended), x509.SubjectAlternativeName(names))
    _store(folder, f"{name}-{purpose}", *_leaf(folder, _name(name), extensions, algorithm, clock()))


def renew(folder: Path, stem: str, *, clock: Callable[[], datetime] = _now) -> Path:
    """Put a new pair of the same name, use and algorithm in the place of `{stem}.key` and `{stem}.pem`.

    `stem` is such as `agency-tls`. Processes that use the files go over to the new ones by themselves. The
    earlier certificate stays valid and stays here, as the file whose path is returned, so that it can still
    be revoked; its key is gone. What a crash left half renewed is renewed by another call. Raises
    FileNotFoundError where there is nothing to be renewed, otherwise as `issue`.
    """
    earlier = x509.load_pem_x509_certificate((folder / f"{stem}.pem").read_bytes())
    kept = folder / f"{stem}.{earlier.serial_number:x}.pem"
    try:
        extensions = tuple(
            earlier.extensions.get_extension_for_class(kind).value
            for kind in (x509.KeyUsage, x509.ExtendedKeyUsage, x509.SubjectAlternativeName)
        )
    except x509.ExtensionNotFound as error:
        raise ValueError(f"{stem}.pem is no certificate that was issued here") from error
    key, certificate = _leaf(folder, earlier.subject, extensions, _algorithm(earlier), clock())
    _write(kept, earlier.public_bytes(serialization.Encoding.PEM))
    _write_pair(folder, stem, key, certificate)
    return kept


def revoke(
    folder: Path,
    certificate: Path,
    *,
    reason: x509.ReasonFlags = x509.ReasonFlags.unspecified,
    clock: Callable[[], datetime] = _now,
) -> None:
    """Let a certificate of this authority count no longer from now on, and write the list anew.

    What is revoked already stays so from its first time on. Raises FileNotFoundError without an authority or
    certificate, ValueError for a certificate of another authority.
    """
    leaf = x509.load_pem_x509_certificate(certificate.read_bytes())
    authority, _ = _authority(folder)
    try:
        leaf.verify_directly_issued_by(authority)
    except (InvalidSignature, TypeError, ValueError) as error:
        raise ValueError(f"{certificate} is not of the authority in {folder}") from error
    if leaf == authority:
        raise ValueError("an authority cannot revoke itself")
    entry = (
        x509.RevokedCertificateBuilder()
        .serial_number(leaf.serial_number)
        .revocation_date(clock())
        .add_extension(x509.CRLReason(reason), critical=False)
        .build()
    )
    _write_crl(folder, [entry], clock())


def crl(folder: Path, *, clock: Callable[[], datetime] = _now) -> None:
    """Write the list of revoked certificates (`ca.crl`, PEM) anew with today's date and the next number.

    Readers outside the linkage want one at least every month. Raises FileNotFoundError without an authority.
    """
    _write_crl(folder, [], clock())


def _write_crl(folder: Path, more: Sequence[x509.RevokedCertificate], now: datetime) -> None:
    authority, key = _authority(folder)
    path = folder / "ca.crl"
    number = 0
    revoked: dict[int, x509.RevokedCertificate] = {}
    if path.exists():
        earlier = x509.load_pem_x509_crl(path.read_bytes())
        number = earlier.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        revoked = {entry.serial_number: entry for entry in earlier}
    for entry in more:
        revoked.setdefault(entry.serial_number, entry)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(now)
        .next_update(now + CRL_LIFE)
        .add_extension(x509.CRLNumber(number + 1), critical=False)
        .add_extension(_issuer_id(key.public_key()), critical=False)
    )
    for entry in revoked.values():
        builder = builder.add_revoked_certificate(entry)
    _write(path, builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{folder / 'ca.key'} is not the key of an authority made here")
    return authority, key


def _leaf(
    folder: Path,
    subject: x509.Name,
    extensions: Sequence[x509.ExtensionType],
    algorithm: Algorithm,
    start: datetime,
) -> tuple[_Key, x509.Certificate]:
    authority, ca_key = _authority(folder)
    if start >= authority.not_valid_after_utc:
        raise ValueError("the authority has expired")
    end = min(start + LEAF_LIFE, authority.not_valid_after_utc)
    key = _MAKE[algorithm]()
    builder = _builder(subject, authority.subject, key.public_key(), start - SKEW, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.KeyUsage))
    builder = builder.add_extension(_issuer_id(ca_key.public_key()), critical=False)
    return key, builder.sign(ca_key, hashes.SHA256())


def _algorithm(certificate: x509.Certificate) -> Algorithm:
    match certificate.public_key():
        case ec.EllipticCurvePublicKey():
            return "ecdsa-p256"
        case ed25519.Ed25519PublicKey():
            return "ed25519"
        case mldsa.MLDSA65PublicKey():
            return "ml-dsa-65"
    raise ValueError("not a certificate made here")


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: _PublicKey,
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
    _write_pair(folder, stem, key, certificate)


def _write_pair(folder: Path, stem: str, key: _Key, certificate: x509.Certificate) -> None:
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
