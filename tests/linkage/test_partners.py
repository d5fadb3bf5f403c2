"""The directory of partners: by the network's word, and proof against what one agency puts into it."""

from dataclasses import replace
from typing import Any

import msgpack
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from broker.linkage.crypto import Signer
from broker.linkage.partners import NETWORK, agency_uri
from schemas.messages import Malformed
from tests.house import AGENCIES, House, Keys, order
from tests.linkage.configuring import directory, entry, read


@pytest.mark.req("R-058", "R-075")
def test_a_signed_directory_names_every_partner(keys: Keys) -> None:
    known = directory(keys)
    assert [partner.agency for partner in known.partners.values()] == [*AGENCIES]
    assert known.partners["990027"].identity.uri == agency_uri("990027")
    assert known.network.uri == NETWORK


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", msgpack.packb([b"x"]), msgpack.packb([b"x", b"y", b"z"]), msgpack.packb([1, 2, 3])]
)
def test_what_is_no_directory_is_malformed(keys: Keys, data: bytes) -> None:
    with pytest.raises(Malformed):
        read(keys, data)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"certificates": (b"none",)},
        {"certificates": (b"",)},
        {"certificates": (1,)},
        {"sealing_key": b"short"},
        {"sealing_key": "text"},
        {"kind": "of tomorrow"},
    ],
)
def test_one_unreadable_entry_leaves_the_other_partners_known(keys: Keys, spoilt: dict[str, Any]) -> None:
    known = directory(keys, entry(keys, "990027", **spoilt))
    assert sorted(known.partners) == ["990019", "990035"]


def test_a_certificate_without_a_name_leaves_the_other_partners_known(keys: Keys) -> None:
    nameless = keys.authority.public_bytes(Encoding.DER)
    known = directory(keys, entry(keys, "990019", certificates=(nameless,)))
    assert sorted(known.partners) == ["990027", "990035"]


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
