"""The certificates of a linkage, as their readers find them."""

import ipaddress
import os
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.x509.verification import PolicyBuilder, Store

from broker.linkage.crypto import DOCUMENT_SIGNING, Signer
from ops.certificates import (
    ALGORITHMS,
    AUTHORITY_LIFE,
    CRL_LIFE,
    Algorithm,
    create_authority,
    crl,
    issue,
    renew,
    revoke,
)
from ops.cli import main

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
    files = ("ca.key", "ca.pem", "ca.crl", "agency-tls.key", "agency-tls.pem")
    assert modes == dict.fromkeys(files, 0o600)


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


# Algorithms, renewal, revocation


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.req("R-049", "R-051")
def test_a_signing_certificate_is_of_the_algorithm_asked_for(folder: Path, algorithm: Algorithm) -> None:
    issue(folder, "agency", AGENCY, purpose="signing", algorithm=algorithm, clock=noon)
    signer = signer_of(folder)
    kinds = {
        "ecdsa-p256": ec.EllipticCurvePublicKey,
        "ed25519": ed25519.Ed25519PublicKey,
        "ml-dsa-65": mldsa.MLDSA65PublicKey,
    }
    assert isinstance(signer.identity.key, kinds[algorithm])
    signer.identity.certificate.verify_directly_issued_by(certificate(folder, "ca"))
    assert signer.identity.verifies(signer.sign(b"text"), b"text")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_renewed_has_a_new_key_and_the_same_name_use_and_algorithm(
    folder: Path, algorithm: Algorithm
) -> None:
    issue(folder, "agency", AGENCY, purpose="signing", algorithm=algorithm, clock=noon)
    before = signer_of(folder).identity
    kept = renew(folder, "agency-signing", clock=lambda: NOON + timedelta(days=300))
    after = signer_of(folder).identity
    assert (after.uri, type(after.key)) == (before.uri, type(before.key))
    assert after.key != before.key
    assert after.certificate.not_valid_after_utc == NOON + timedelta(days=665)
    assert x509.load_pem_x509_certificate(kept.read_bytes()) == before.certificate
    assert kept.stat().st_mode & 0o777 == 0o600
    assert not list(folder.glob("*.unfinished"))


def test_a_renewed_line_serves_the_same_hosts(folder: Path) -> None:
    issue(folder, "agency", AGENCY, purpose="tls", hosts=("192.0.2.7", "agency.example"), clock=noon)
    before = certificate(folder, "agency-tls")
    renew(folder, "agency-tls", clock=noon)
    after = certificate(folder, "agency-tls")
    for kind in (x509.SubjectAlternativeName, x509.ExtendedKeyUsage, x509.KeyUsage, x509.BasicConstraints):
        found = after.extensions.get_extension_for_class(kind)
        assert found == before.extensions.get_extension_for_class(kind)
    assert after.serial_number != before.serial_number
    rules = PolicyBuilder().store(Store([certificate(folder, "ca")])).time(NOON)
    assert rules.build_server_verifier(x509.DNSName("agency.example")).verify(after, [])[0] == after


def test_a_renewal_that_a_crash_left_half_done_is_done_again(folder: Path) -> None:
    issue(folder, "agency", AGENCY, purpose="signing", clock=noon)
    issue(folder, "other", AGENCY, purpose="signing", clock=noon)
    (folder / "agency-signing.key").write_bytes((folder / "other-signing.key").read_bytes())
    renew(folder, "agency-signing", clock=noon)
    signer = signer_of(folder)
    assert signer.identity.verifies(signer.sign(b"text"), b"text")


def test_only_what_was_issued_here_can_be_renewed_or_revoked(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        renew(folder, "agency-tls")
    with pytest.raises(ValueError, match="issued here"):
        renew(folder, "ca")
    with pytest.raises(ValueError, match="itself"):
        revoke(folder, folder / "ca.pem")
    create_authority(tmp_path / "other")
    issue(tmp_path / "other", "agency", AGENCY, purpose="tls")
    with pytest.raises(ValueError, match="not of the authority"):
        revoke(folder, tmp_path / "other" / "agency-tls.pem")
    with pytest.raises(FileNotFoundError):
        crl(tmp_path)


def test_the_list_keeps_every_revocation_from_its_first_time_on_under_a_rising_number(folder: Path) -> None:
    authority = certificate(folder, "ca").public_key()
    assert isinstance(authority, ec.EllipticCurvePublicKey)
    for name in ("one", "two"):
        issue(folder, name, AGENCY, purpose="signing", clock=noon)
    steps: list[Callable[[], None]] = [
        lambda: None,
        lambda: revoke(folder, folder / "one-signing.pem", clock=noon),
        lambda: revoke(folder, folder / "two-signing.pem", clock=lambda: NOON + timedelta(days=1)),
        lambda: revoke(folder, folder / "one-signing.pem", clock=lambda: NOON + timedelta(days=2)),
        lambda: crl(folder, clock=lambda: NOON + timedelta(days=9)),
    ]
    for number, step in enumerate(steps, 1):
        step()
        found = x509.load_pem_x509_crl((folder / "ca.crl").read_bytes())
        assert found.is_signature_valid(authority)
        assert found.issuer == certificate(folder, "ca").subject
        assert found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == number
    assert found.next_update_utc == NOON + timedelta(days=9) + CRL_LIFE
    assert {entry.serial_number: entry.revocation_date_utc for entry in found} == {
        certificate(folder, "one-signing").serial_number: NOON,
        certificate(folder, "two-signing").serial_number: NOON + timedelta(days=1),
    }


def test_an_operator_makes_renews_and_revokes_certificates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "ca"
    for command in (
        ["authority", str(folder)],
        ["issue", str(folder), "agency", AGENCY, "--purpose", "tls", "--host", "agency.example"],
        ["issue", str(folder), "agency", AGENCY, "--purpose", "signing", "--algorithm", "ml-dsa-65"],
    ):
        assert main(["certificates", *command]) == 0
    before = signer_of(folder)
    names = certificate(folder, "agency-tls").extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["agency.example"]
    assert main(["certificates", "renew", str(folder), "agency-signing"]) == 0
    old = Path(capsys.readouterr().out.split()[-1])
    assert isinstance(signer_of(folder).identity.key, mldsa.MLDSA65PublicKey)
    assert main(["certificates", "revoke", str(folder), str(old), "--reason", "key_compromise"]) == 0
    assert main(["certificates", "crl", str(folder)]) == 0
    (entry,) = x509.load_pem_x509_crl((folder / "ca.crl").read_bytes())
    assert entry.serial_number == before.identity.certificate.serial_number
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is (
        x509.ReasonFlags.key_compromise
    )


@pytest.mark.parametrize(
    "command",
    [
        ["authority", "."],
        ["issue", ".", "Agency", AGENCY, "--purpose", "tls"],
        ["issue", "nowhere", "agency", AGENCY, "--purpose", "tls"],
        ["renew", ".", "agency-tls"],
        ["renew", ".", "ca"],
        ["revoke", ".", "ca.pem"],
        ["revoke", ".", "agency-tls.pem"],
        ["crl", "nowhere"],
    ],
)
def test_what_an_authority_refuses_is_told_without_a_traceback(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    monkeypatch.chdir(folder)
    assert main(["certificates", *command]) == 1
    assert "S-104" in capsys.readouterr().err


def signer_of(folder: Path) -> Signer:
    return Signer((folder / "agency-signing.pem").read_bytes(), (folder / "agency-signing.key").read_bytes())
