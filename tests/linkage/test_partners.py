"""The directory of partners: by the network's word, and proof against what one agency puts into it."""

from dataclasses import replace
from datetime import timedelta

import msgpack
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from broker.linkage.crypto import CertificateInvalid, SealingKey, Signer, new_sealing_secret
from broker.linkage.partners import NETWORK, DirectoryEntry, agency_uri, read_directory, sign_directory
from schemas.messages import Malformed
from tests.house import AGENCIES, START, House, Keys, order


@pytest.fixture
def entries(keys: Keys) -> list[DirectoryEntry]:
    public = SealingKey(new_sealing_secret()).public
    return [DirectoryEntry(a.code, a.name, a.kind, keys.signer(a.code).certificate, public) for a in AGENCIES]


@pytest.mark.req("R-058")
def test_a_signed_directory_names_every_partner(keys: Keys, entries: list[DirectoryEntry]) -> None:
    signed = sign_directory(entries, keys.signer("network"))
    directory = read_directory(signed, keys.authority, START)
    assert [partner.agency for partner in directory.partners.values()] == [*AGENCIES]
    assert directory.partners["990027"].identity.uri == agency_uri("990027")
    assert directory.network.uri == NETWORK


@pytest.mark.req("R-058")
def test_a_directory_by_anybody_but_the_network_is_refused(keys: Keys, entries: list[DirectoryEntry]) -> None:
    for signer, days in ((keys.signer("990019"), 0), (keys.signer("network"), 366)):
        with pytest.raises(CertificateInvalid):
            read_directory(sign_directory(entries, signer), keys.authority, START + timedelta(days=days))
    body, signature, certificate = msgpack.unpackb(sign_directory(entries, keys.signer("network")))
    altered = body.replace("見本市".encode(), "手本市".encode())
    assert altered != body
    with pytest.raises(CertificateInvalid):
        read_directory(msgpack.packb([altered, signature, certificate]), keys.authority, START)


@pytest.mark.parametrize("data", [b"", b"\xc1", msgpack.packb([b"x"]), msgpack.packb([b"x", b"y", b"z"])])
def test_what_is_no_directory_is_malformed(keys: Keys, data: bytes) -> None:
    with pytest.raises(Malformed):
        read_directory(data, keys.authority, START)


@pytest.mark.parametrize(
    "spoilt",
    [{"certificate": b"none"}, {"certificate": b""}, {"sealing_key": b"short"}, {"kind": "of tomorrow"}],
)
def test_one_unreadable_entry_leaves_the_other_partners_known(
    keys: Keys, entries: list[DirectoryEntry], spoilt: dict[str, bytes]
) -> None:
    entries[1] = replace(entries[1], **spoilt)  # type: ignore[arg-type] # wrong on purpose
    directory = read_directory(sign_directory(entries, keys.signer("network")), keys.authority, START)
    assert sorted(directory.partners) == ["990019", "990035"]


def test_a_certificate_without_a_name_leaves_the_other_partners_known(
    keys: Keys, entries: list[DirectoryEntry]
) -> None:
    nameless = keys.authority.public_bytes(Encoding.DER)
    entries[0] = replace(entries[0], certificate=nameless)
    directory = read_directory(sign_directory(entries, keys.signer("network")), keys.authority, START)
    assert sorted(directory.partners) == ["990027", "990035"]


@pytest.mark.req("R-058")
async def test_a_partner_that_changed_its_signing_key_is_looked_up_anew(house: House, keys: Keys) -> None:
    house.answering.worker()
    renewed: Signer = keys.new_signer(agency_uri("990019"))
    house.asking.linkage.signer = renewed
    await house.asking.meet()
    genuine = await house.ask(0)
    assert await house.answering.platform.receive(genuine) is None
    assert house.answering.linkage.directory is not None
    known = house.answering.linkage.directory.partners["990019"]
    assert known.identity.fingerprint == renewed.identity.fingerprint


async def test_a_partner_that_joined_later_is_looked_up_when_it_is_asked(house: House) -> None:
    house.asking.worker()
    directory = house.asking.linkage.directory
    assert directory is not None
    house.asking.linkage.directory = replace(directory, partners={})
    assert await house.asking.platform.inquire(order("q-1", 0)) is None
