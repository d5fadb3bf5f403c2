"""Time-stamps by a real authority: the one of OpenSSL, with certificates made here."""

import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.ledger.store import MemoryStore
from broker.ledger.tiles import export_tiles
from broker.ledger.timestamp import (
    TimestampInvalid,
    check_timestamp,
    checkpoint_text,
    keep_timestamp,
    kept_timestamp,
    timestamp_request,
)
from tests.ledger.places import sign, stored, unit

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")

CONFIG = """
[ tsa ]
default_tsa = authority
[ authority ]
serial = serial
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
ess_cert_id_alg = sha256
"""
TEXT = "renkei/990019\n5\n" + "A" * 43 + "=\n"


class Authority:
    """A time-stamping authority: a root, and a certificate for stamping under it."""

    def __init__(
        self, folder: Path, usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.TIME_STAMPING
    ) -> None:
        folder.mkdir()
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        key = ec.generate_private_key(ec.SECP256R1())
        self.root = self._certificate("root", self._key, x509.BasicConstraints(True, 0), critical=True)
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
        signer = self._certificate("signer", key, usages, critical=True)
        form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / "signer.key").write_bytes(key.private_bytes(*form))
        (folder / "signer.pem").write_bytes(signer.public_bytes(Encoding.PEM))
        (folder / "config").write_text(CONFIG, encoding="ascii")
        (folder / "serial").write_text("01\n", encoding="ascii")

    def _certificate(
        self, name: str, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType, *, critical: bool
    ) -> x509.Certificate:
        begin = datetime.now(UTC) - timedelta(days=1)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + timedelta(days=30))
            .add_extension(extension, critical=critical)
            .sign(self._key, hashes.SHA256())
        )

    def answer(self, request: bytes) -> bytes:
        (self._folder / "request.tsq").write_bytes(request)
        command = [
            *("openssl", "ts", "-reply", "-config", "config", "-queryfile", "request.tsq"),
            *("-signer", "signer.pem", "-inkey", "signer.key", "-out", "answer.tsr"),
        ]
        subprocess.run(command, cwd=self._folder, check=True, capture_output=True)
        return (self._folder / "answer.tsr").read_bytes()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tsa") / "authority")


@pytest.fixture(scope="module")
def answer(authority: Authority) -> bytes:
    return authority.answer(timestamp_request(TEXT))


def test_the_authority_reads_the_request(tmp_path: Path) -> None:
    (tmp_path / "request.tsq").write_bytes(timestamp_request(TEXT))
    (tmp_path / "text").write_text(TEXT, encoding="utf-8")
    command = ["openssl", "ts", "-query", "-in", "request.tsq", "-text"]
    said = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert "Hash Algorithm: sha256" in said
    assert "Certificate required: yes" in said
    assert timestamp_request(TEXT) == timestamp_request(TEXT) != timestamp_request(TEXT + "\n")


def test_a_time_stamp_tells_when_the_text_was_there(authority: Authority, answer: bytes) -> None:
    stamped = check_timestamp(answer, TEXT, [authority.root])
    assert abs(stamped - datetime.now(UTC)) < timedelta(hours=1)


def test_it_is_for_one_text(authority: Authority, answer: bytes) -> None:
    for other in ("", TEXT.replace("\n5\n", "\n6\n"), TEXT + "\n"):
        with pytest.raises(TimestampInvalid):
            check_timestamp(answer, other, [authority.root])


def test_the_authority_must_be_trusted(answer: bytes, tmp_path: Path) -> None:
    with pytest.raises(TimestampInvalid):
        check_timestamp(answer, TEXT, [Authority(tmp_path / "other").root])
    with pytest.raises(TimestampInvalid):
        check_timestamp(answer, TEXT, [])


ALTERED: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda raw: b"",
    "cut": lambda raw: raw[:-1],
    "more": lambda raw: raw + b"\0",
    "half": lambda raw: raw[: len(raw) // 2],
    "signature": lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]),
    "no answer": lambda raw: b"something",
    "the request": lambda raw: timestamp_request(TEXT),
    "refused": lambda raw: bytes.fromhex("30053003020102"),
}


@pytest.mark.parametrize("altered", ALTERED)
def test_an_altered_answer(altered: str, authority: Authority, answer: bytes) -> None:
    with pytest.raises(TimestampInvalid):
        check_timestamp(ALTERED[altered](answer), TEXT, [authority.root])


def test_an_answer_with_the_digest_of_another_text(authority: Authority, answer: bytes) -> None:
    """The digest in the signed part is changed, so that it fits another text."""
    other = TEXT.replace("\n5\n", "\n6\n")
    forged = answer.replace(sha256(TEXT.encode()).digest(), sha256(other.encode()).digest())
    assert forged != answer
    with pytest.raises(TimestampInvalid):
        check_timestamp(forged, other, [authority.root])


def test_it_lies_beside_the_export(authority: Authority, tmp_path: Path) -> None:
    store = MemoryStore(sign)
    stored(store, unit("m1", ("a", 0, 10)))
    export_tiles(store, tmp_path)
    with pytest.raises(TimestampInvalid, match="no time-stamp"):
        kept_timestamp(tmp_path, [authority.root])
    response = authority.answer(timestamp_request(checkpoint_text(tmp_path)))
    stamped = keep_timestamp(tmp_path, response, [authority.root])
    assert kept_timestamp(tmp_path, [authority.root]) == stamped
    assert (tmp_path / "checkpoint.10.tsr").read_bytes() == response

    # The next export has another checkpoint, which is not the one that was stamped.
    stored(store, unit("m2", ("b", 0, 10)))
    export_tiles(store, tmp_path)
    with pytest.raises(TimestampInvalid, match="no time-stamp"):
        kept_timestamp(tmp_path, [authority.root])
    with pytest.raises(TimestampInvalid):
        keep_timestamp(tmp_path, response, [authority.root])
    assert sorted(path.name for path in tmp_path.glob("checkpoint*")) == ["checkpoint", "checkpoint.10.tsr"]
