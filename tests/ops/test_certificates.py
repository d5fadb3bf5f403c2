"""The certificates of a linkage, as their readers find them."""

import ipaddress
import os
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.verification import PolicyBuilder, Store

from ops.certificates import AUTHORITY_LIFE, DOCUMENT_SIGNING, create_authority, issue

AGENCY = "urn:renkei:agency:990019"
NOON = datetime(2026, 11, 21, 3, tzinfo=UTC)


def noon() -> datetime:
    return NOON


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    create_authority(folder, clock=noon)
    return folder


@pytest.fixture
def generous_umask() -> Iterator[None]:
    """A process that leaves the rights of its files entirely to whoever creates them."""
    before = os.umask(0)
    yield
    os.umask(before)


def certificate(folder: Path, stem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / f"{stem}.pem").read_bytes())


def uris(leaf: x509.Certificate) -> list[str]:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


@pytest.mark.parametrize("purpose", ["tls", "signing"])
def test_a_certificate_is_the_authoritys_and_carries_the_partys_name(folder: Path, purpose: str) -> None:
    issue(folder, "agency", AGENCY, purpose=purpose, clock=noon)  # type: ignore[arg-type] # parametrized
    leaf = certificate(folder, f"agency-{purpose}")
    leaf.verify_directly_issued_by(certificate(folder, "ca"))
    assert uris(leaf) == [AGENCY]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_another_authoritys_certificate_is_told_apart(folder: Path, tmp_path: Path) -> None:
    create_authority(tmp_path / "other")
    issue(tmp_path / "other", "agency", AGENCY, purpose="tls")
    with pytest.raises(InvalidSignature):
        certificate(tmp_path / "other", "agency-tls").verify_directly_issued_by(certificate(folder, "ca"))


def test_a_tls_certificate_satisfies_an_independent_verifier_at_both_ends(folder: Path) -> None:
    issue(folder, "agency", AGENCY, purpose="tls", hosts=("192.0.2.7", "agency.example"), clock=noon)
    leaf = certificate(folder, "agency-tls")
    rules = PolicyBuilder().store(Store([certificate(folder, "ca")])).time(NOON)
    for host in (x509.IPAddress(ipaddress.ip_address("192.0.2.7")), x509.DNSName("agency.example")):
        assert rules.build_server_verifier(host).verify(leaf, [])[0] == leaf
    assert rules.build_client_verifier().verify(leaf, []).chain[0] == leaf
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert len(names) == 3


def test_a_signing_certificate_serves_only_to_sign(folder: Path) -> None:
    issue(folder, "agency", AGENCY, purpose="signing", clock=noon)
    leaf = certificate(folder, "agency-signing")
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert usage.content_commitment
    assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [DOCUMENT_SIGNING]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert len(names) == 1


def test_keys_are_of_the_agreed_kinds_and_fit_their_certificates(folder: Path) -> None:
    issue(folder, "agency", AGENCY, purpose="tls")
    issue(folder, "agency", AGENCY, purpose="signing")
    for stem, kind in (
        ("agency-tls", ec.EllipticCurvePrivateKey),
        ("agency-signing", ed25519.Ed25519PrivateKey),
        ("ca", ec.EllipticCurvePrivateKey),
    ):
        key = serialization.load_pem_private_key((folder / f"{stem}.key").read_bytes(), password=None)
        assert isinstance(key, kind)
        assert key.public_key() == certificate(folder, stem).public_key()
        if isinstance(key, ec.EllipticCurvePrivateKey):
            assert isinstance(key.curve, ec.SECP256R1)


def test_a_certificate_is_valid_for_a_year_and_from_a_little_before_now(folder: Path) -> None:
    issue(folder, "agency", AGENCY, purpose="tls", clock=noon)
    leaf = certificate(folder, "agency-tls")
    assert leaf.not_valid_before_utc == NOON - timedelta(minutes=5)
    assert leaf.not_valid_after_utc == NOON + timedelta(days=365)


def test_no_certificate_outlives_the_authority(folder: Path) -> None:
    end = certificate(folder, "ca").not_valid_after_utc
    issue(folder, "agency", AGENCY, purpose="tls", clock=lambda: NOON + AUTHORITY_LIFE - timedelta(days=1))
    assert certificate(folder, "agency-tls").not_valid_after_utc == end
    with pytest.raises(ValueError, match="expired"):
        issue(folder, "late", AGENCY, purpose="tls", clock=lambda: NOON + AUTHORITY_LIFE)


@pytest.mark.req("R-054")
@pytest.mark.usefixtures("generous_umask")
def test_keys_can_be_read_by_their_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir(0o777)
    (folder / ".ca.key.unfinished").touch(0o666)  # what a crash, or somebody else, may have left
    create_authority(folder)
    issue(folder, "agency", AGENCY, purpose="tls")
    assert folder.stat().st_mode & 0o777 == 0o700
    modes = {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}
    assert modes == dict.fromkeys(("ca.key", "ca.pem", "agency-tls.key", "agency-tls.pem"), 0o600)


@pytest.mark.req("R-054")
@pytest.mark.usefixtures("generous_umask")
def test_a_key_is_private_before_its_first_byte_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []

    def full(_: int) -> None:
        modes.extend(file.stat().st_mode & 0o777 for file in tmp_path.rglob("*ca*"))
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        create_authority(tmp_path / "keys")
    assert modes == [0o600]
    assert not (tmp_path / "keys" / "ca.key").exists()


def test_nothing_that_exists_is_overwritten(folder: Path) -> None:
    issue(folder, "agency", AGENCY, purpose="tls")
    before = {file: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(FileExistsError):
        create_authority(folder)
    with pytest.raises(FileExistsError):
        issue(folder, "agency", AGENCY, purpose="tls")
    assert {file: file.read_bytes() for file in folder.iterdir()} == before
    (folder / "ca.pem").unlink()
    with pytest.raises(FileExistsError):
        create_authority(folder)
    assert (folder / "ca.key").read_bytes() == before[folder / "ca.key"]


@pytest.mark.parametrize("name", ["", "../agency", "agency/1", "Agency", "連携市", "-x", "x" * 41])
def test_a_name_that_could_leave_the_folder_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no name for a certificate"):
        issue(folder, name, AGENCY, purpose="tls")


def test_without_an_authority_nothing_is_issued(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        issue(tmp_path, "agency", AGENCY, purpose="tls")


def test_openssl_loads_what_was_written(folder: Path) -> None:
    issue(folder, "agency", AGENCY, purpose="tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "agency-tls.pem", folder / "agency-tls.key")
    context.load_verify_locations(cafile=folder / "ca.pem")
    assert context.cert_store_stats()["x509_ca"] == 1
