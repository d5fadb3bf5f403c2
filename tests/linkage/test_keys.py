"""Seals, signatures, certificates, and where the keys lie."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from broker.linkage.crypto import (
    CertificateInvalid,
    SealingKey,
    SealInvalid,
    Signer,
    check_certificate,
    check_sealing_key,
    identity,
    new_sealing_secret,
    parties,
    seal,
)
from broker.linkage.partners import agency_uri
from ops.certificates import create_authority, issue
from tests.house import ASKING, START, House, Keys, income
from tests.linkage.forging import ANSWER, INQUIRY, scene_of

INFO = parties("inquiry", "990019", "990027")


@pytest.fixture(scope="module")
def secret() -> bytes:
    return new_sealing_secret()


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
    for cut in (b"", box[:100], box[:-1], box + b"\0"):
        with pytest.raises(SealInvalid):
            key.open(cut, INFO)


def test_a_sealing_key_that_is_none_is_told(secret: bytes) -> None:
    public = SealingKey(secret).public
    check_sealing_key(public)
    for wrong in (b"", public[:-1], public + b"\0", b"\xff" * len(public)):
        with pytest.raises(ValueError, match=r"."):
            check_sealing_key(wrong)


@pytest.mark.req("R-049", "R-051")
def test_a_signature_is_by_one_key_over_these_bytes(keys: Keys) -> None:
    signer, other = keys.signer("990019"), keys.signer("990027")
    signature = signer.sign(b"text")
    assert signer.identity.verifies(signature, b"text")
    assert not signer.identity.verifies(signature, b"tex")
    assert not signer.identity.verifies(signature[:-1], b"text")
    assert not other.identity.verifies(signature, b"text")


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
    fake = Signer((tmp_path / "fake-signing.pem").read_bytes(), (tmp_path / "fake-signing.key").read_bytes())
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
