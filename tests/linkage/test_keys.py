"""Seals, signatures, certificates, and where the keys lie."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA87PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker.linkage.crypto import (
    CLASSICAL,
    DOCUMENT_SIGNING,
    HYBRID,
    CertificateInvalid,
    SealingKey,
    SealInvalid,
    Signer,
    check_certificate,
    check_sealing_key,
    identity,
    new_classical_secret,
    new_sealing_secret,
    parties,
    seal,
)
from broker.linkage.partners import agency_uri
from ops.certificates import ALGORITHMS, Algorithm, create_authority, issue
from tests.house import ASKING, START, House, Keys, income
from tests.linkage.forging import ANSWER, INQUIRY, scene_of

INFO = parties("inquiry", "990019", "990027")


@pytest.fixture(scope="module", params=[HYBRID, CLASSICAL])
def secret(request: pytest.FixtureRequest) -> bytes:
    return new_sealing_secret() if request.param == HYBRID else new_classical_secret()


@pytest.mark.req("R-048", "R-055")
def test_what_is_sealed_opens_with_the_key_it_was_sealed_for(secret: bytes) -> None:
    key = SealingKey(secret)
    box = seal("所得".encode(), key.public, INFO)
    assert key.open(box, INFO).decode() == "所得"
    assert SealingKey(secret).public == key.public, "the pair is the same after a restart"
    assert "所得".encode() not in box
    assert seal("所得".encode(), key.public, INFO) != box, "nobody can compare two boxes"


@pytest.mark.req("R-055")
def test_a_box_opens_for_nobody_else_and_under_no_other_names(secret: bytes) -> None:
    key = SealingKey(secret)
    box = seal(b"x", key.public, INFO)
    with pytest.raises(SealInvalid):
        SealingKey(new_sealing_secret()).open(box, INFO)
    for other in (
        parties("answer", "990019", "990027"),
        parties("inquiry", "990035", "990027"),
        parties("inquiry", "990019", "990035"),
        parties("inquiry", "990027", "990019"),
    ):
        with pytest.raises(SealInvalid):
            key.open(box, other)
    for cut in (b"", box[:40], box[:-1], box + b"\0"):
        with pytest.raises(SealInvalid):
            key.open(cut, INFO)


def test_a_sealing_key_that_is_none_is_told(secret: bytes) -> None:
    public = SealingKey(secret).public
    assert check_sealing_key(public) in (HYBRID, CLASSICAL)
    for wrong in (b"", public[:6], public[:-1], public + b"\0", b"\xff" * len(public), public[6:]):
        with pytest.raises(ValueError, match=r"."):
            check_sealing_key(wrong)
    for size in (0, 31, 33, 95, 97):
        with pytest.raises(ValueError, match=r"."):
            SealingKey(bytes(size))


@pytest.mark.req("R-048", "R-055")
def test_the_hybrid_suite_is_the_default_and_the_classical_one_is_announced() -> None:
    hybrid, classical = SealingKey(new_sealing_secret()), SealingKey(new_classical_secret())
    assert (hybrid.suite, check_sealing_key(hybrid.public)) == (HYBRID, HYBRID)
    assert (classical.suite, check_sealing_key(classical.public)) == (CLASSICAL, CLASSICAL)
    assert (len(hybrid.public), len(classical.public)) == (6 + 1184 + 32, 6 + 32)
    smallest = len(seal(b"", classical.public, INFO))
    assert len(seal(b"", hybrid.public, INFO)) == smallest + 1088, "the ciphertext of ML-KEM-768 goes with it"


@pytest.mark.req("R-055")
def test_nobody_can_lead_a_sender_from_the_hybrid_suite_to_the_classical_one() -> None:
    """The X25519 half of a hybrid key, passed off as a classical key: its owner does not open what comes."""
    secret = new_sealing_secret()
    hybrid, half = SealingKey(secret), SealingKey(secret[64:])
    assert hybrid.public.endswith(half.public[6:])
    box = seal(b"x", half.public, INFO)
    with pytest.raises(SealInvalid):
        hybrid.open(box, INFO)
    with pytest.raises(SealInvalid):
        half.open(seal(b"x", hybrid.public, INFO), INFO)
    relabelled = half.public[:6] + hybrid.public[6:], hybrid.public[:6] + half.public[6:]
    for public in relabelled:
        with pytest.raises(ValueError, match=r"."):
            seal(b"x", public, INFO)


@pytest.mark.req("R-055")
def test_the_suite_is_bound_into_what_is_sealed() -> None:
    """Standard HPKE, with the numbers of the suite before the parties: no box is one of another suite."""
    raw = new_classical_secret()
    box = seal(b"x", SealingKey(raw).public, INFO)
    key = X25519PrivateKey.from_private_bytes(raw)
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    assert suite.decrypt(box, key, bytes.fromhex("002000010002") + INFO) == b"x"
    for info in (INFO, bytes.fromhex("647a00010002") + INFO):
        with pytest.raises(InvalidTag):
            suite.decrypt(box, key, info)


@pytest.mark.req("R-049", "R-051")
def test_a_signature_is_by_one_key_over_these_bytes(keys: Keys) -> None:
    signer, other = keys.signer("990019"), keys.signer("990027")
    signature = signer.sign(b"text")
    assert signer.identity.verifies(signature, b"text")
    assert not signer.identity.verifies(signature, b"tex")
    assert not signer.identity.verifies(signature[:-1], b"text")
    assert not other.identity.verifies(signature, b"text")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.req("R-049", "R-051")
def test_the_key_of_the_certificate_says_how_it_is_signed(
    tmp_path: Path, keys: Keys, algorithm: Algorithm
) -> None:
    create_authority(tmp_path)
    for name in ("one", "two"):
        issue(tmp_path, name, agency_uri(ASKING.code), purpose="signing", algorithm=algorithm)
    one, two = (pair(tmp_path, f"{name}-signing") for name in ("one", "two"))
    signature = one.sign(b"text")
    assert one.identity.verifies(signature, b"text")
    for who, sign, text in (
        (one, signature, b"tex"),
        (one, signature[:-1], b"text"),
        (one, signature + b"\0", b"text"),
        (one, b"", b"text"),
        (two, signature, b"text"),
        (keys.signer(ASKING.code), signature, b"text"),
    ):
        assert not who.identity.verifies(sign, text)
    with pytest.raises(CertificateInvalid, match="own key"):
        Signer((tmp_path / "one-signing.pem").read_bytes(), (tmp_path / "two-signing.key").read_bytes())


ELSE = {
    "ECDSA P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ECDSA secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "Ed448": Ed448PrivateKey.generate,
    "ML-DSA-44": MLDSA44PrivateKey.generate,
    "ML-DSA-87": MLDSA87PrivateKey.generate,
}


@pytest.mark.parametrize("name", ELSE)
@pytest.mark.req("R-051")
def test_no_other_algorithm_is_accepted(name: str) -> None:
    key: Any = ELSE[name]()
    uri = agency_uri(ASKING.code)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "agency")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(START)
        .not_valid_after(START + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([DOCUMENT_SIGNING]), critical=False)
        .sign(key, None if name[0] == "M" or name == "Ed448" else SHA256())
    )
    who = identity(certificate)
    assert who.key is None
    with pytest.raises(CertificateInvalid, match="accepted"):
        check_certificate(who, certificate, uri, START)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(CertificateInvalid, match="own key"):
        Signer(certificate.public_bytes(Encoding.PEM), private)
    signature = {
        "ECDSA P-384": lambda: key.sign(b"text", ec.ECDSA(SHA256())),
        "ECDSA secp256k1": lambda: key.sign(b"text", ec.ECDSA(SHA256())),
        "RSA": lambda: key.sign(b"text", padding.PKCS1v15(), SHA256()),
    }.get(name, lambda: key.sign(b"text"))()
    assert not who.verifies(signature, b"text")


def pair(folder: Path, stem: str) -> Signer:
    return Signer((folder / f"{stem}.pem").read_bytes(), (folder / f"{stem}.key").read_bytes())


@pytest.mark.req("R-058")
def test_a_certificate_counts_for_its_name_in_its_time_under_its_authority(
    keys: Keys, tmp_path: Path
) -> None:
    uri, authority = agency_uri(ASKING.code), keys.authority
    who = keys.signer(ASKING.code).identity
    check_certificate(who, authority, uri, START)
    for name, now in (
        (agency_uri("990027"), START),
        (uri + "0", START),
        (uri, START - timedelta(days=1)),
        (uri, START + timedelta(days=366)),
    ):
        with pytest.raises(CertificateInvalid):
            check_certificate(who, authority, name, now)
    create_authority(tmp_path, clock=lambda: START)
    issue(tmp_path, "fake", uri, purpose="signing", clock=lambda: START)
    fake = pair(tmp_path, "fake-signing")
    with pytest.raises(CertificateInvalid, match="authority"):
        check_certificate(fake.identity, authority, uri, START)


def test_a_certificate_of_a_line_neither_signs_nor_verifies(keys: Keys) -> None:
    certificate, key, _ = keys.line_files(ASKING.code)
    with pytest.raises(CertificateInvalid):
        Signer(certificate.read_bytes(), key.read_bytes())
    assert not identity(keys.on_the_line(ASKING.code)).verifies(b"signature", b"text")
    with pytest.raises(CertificateInvalid, match="alternative name"):
        identity(keys.authority)


@pytest.mark.parametrize("kind", [INQUIRY, ANSWER])
@pytest.mark.req("R-048", "R-050", "R-055")
async def test_a_message_is_signed_and_sealed_by_itself_and_only_its_receiver_opens_it(
    house: House, kind: str
) -> None:
    scene = await scene_of(house, kind, 0)
    envelope = scene.genuine.envelope
    assert (income(0)["total_income"].encode() in scene.opened()) == (kind == ANSWER)
    for text in (income(0)["total_income"], "guard"):
        assert text.encode() not in envelope.sealed + envelope.control + envelope.signature
    info = parties(kind, scene.sender.agency.code, scene.receiver.agency.code)
    for town in (scene.sender, house.other):
        with pytest.raises(SealInvalid):
            town.linkage.sealing_key.open(envelope.sealed, info)


@pytest.mark.req("R-054")
async def test_keys_lie_where_only_their_owner_reads_them_and_the_vault_is_sealed(
    house: House, keys: Keys
) -> None:
    for file in house.folder.rglob("*"):
        if not file.is_dir() and file.name != "ledger.vkey" and not file.name.endswith(("-wal", "-shm")):
            assert file.stat().st_mode & 0o077 == 0, file
    private = list(keys.folder.rglob("*.key"))
    assert private
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in private)
    assert os.stat(house.asking.data / "vault").st_mode & 0o077 == 0

    secret = house.asking.folder.vault.secret("sealing", lambda: pytest.fail("made a second time"))
    assert SealingKey(secret).public == house.asking.linkage.sealing_key.public
    holding = [
        file.name
        for file in house.folder.rglob("*")
        if file.is_file() and any(part in file.read_bytes() for part in (secret[:32], secret[64:]))
    ]
    assert holding == [], "secrets are wrapped wherever they lie"
    public = house.asking.linkage.signer.identity.certificate.public_bytes(Encoding.DER)
    assert house.asking.linkage.signer.certificate == public
