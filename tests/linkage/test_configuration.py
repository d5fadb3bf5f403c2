"""The network's configuration: signed, numbered, expiring, and with what the authority has revoked."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from shutil import copytree

import msgpack
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from broker.linkage.crypto import (
    CLASSICAL,
    HYBRID,
    CertificateInvalid,
    CertificateRevoked,
    Signer,
    check_standing,
    read_revocations,
)
from broker.linkage.interface import Failed
from broker.linkage.partners import NETWORK, Directory, agency_uri, read_directory, sign_directory
from ops.certificates import crl, issue, revoke
from schemas.errors import Refusal, Refused
from schemas.law import CAPACITIES
from schemas.law.assessments import Assessment
from schemas.law.ordinances import may_decline
from schemas.messages import Malformed, pack
from tests.house import ASKING, START, House, Keys, order
from tests.linkage.configuring import END, GRACE, configuration, directory, entry, public, read, signed
from tests.linkage.forging import ANSWER, INQUIRY, outcome, scene_of

MOMENT = timedelta(microseconds=1)
DAY = timedelta(days=1)


class Authority:
    """The authority of the house's messages, as a copy that may revoke what it likes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def signer(self, stem: str) -> Signer:
        pem, key = ((self.folder / f"{stem}-signing").with_suffix(end) for end in (".pem", ".key"))
        return Signer(pem.read_bytes(), key.read_bytes())

    def issue(self, name: str, uri: str, at: datetime = START) -> Signer:
        issue(self.folder, name, uri, purpose="signing", clock=lambda: at)
        return self.signer(name)

    def revoked(self, *stems: str, at: datetime = START) -> bytes:
        """The list once these are revoked too, in DER."""
        for stem in stems:
            revoke(self.folder, self.folder / f"{stem}-signing.pem", clock=lambda: at)
        return self.list

    @property
    def list(self) -> bytes:
        pem = (self.folder / "ca.crl").read_bytes()
        return x509.load_pem_x509_crl(pem).public_bytes(Encoding.DER)


@pytest.fixture
def authority(keys: Keys, tmp_path: Path) -> Authority:
    copytree(keys.folder / "messages", tmp_path / "authority")
    return Authority(tmp_path / "authority")


def code_of(refused: pytest.ExceptionInfo[Refused]) -> str:
    return refused.value.refusal.code


def refusal_of(known: Directory, code: str, now: datetime = START) -> str:
    """Why a partner may not be dealt with now, or ""."""
    try:
        known.partner(code, now)
    except Refused as error:
        return error.refusal.code
    return ""


def refusal_by(known: Directory, signer: Signer, now: datetime = START, code: str = ASKING.code) -> str:
    """Why a message of this agency is not accepted that this signer signed, or ""."""
    try:
        assert known.sender(code, signer.identity.fingerprint, now).identities == (signer.identity,)
    except Refused as error:
        return error.refusal.code
    return ""


# What is in it


@pytest.mark.req("R-058", "R-075", "R-077")
def test_everything_that_the_network_publishes_arrives(keys: Keys, authority: Authority) -> None:
    made = configuration(keys, crl=authority.revoked("990035"), serial=7)
    known = read(keys, sign_directory(made, keys.signer("network")))
    assert (known.serial, known.valid_until, known.grace) == (7, END, GRACE)
    assert (known.law_versions, known.layouts) == (made.law_versions, made.layouts)
    day = START.date()
    assert isinstance(known.assessments.for_inquiry("990019", "81", day), Assessment)
    assert known.assessments.for_inquiry("990027", "81", day) == Refusal("L-114", "inquirer")
    limited = known.ordinances["990027"]
    assert may_decline(limited, "住民票関係情報", day) is None
    assert may_decline(limited, "地方税関係情報", day) == Refusal("I-214", "information")
    assert known.network == keys.signer("network").identity
    assert known.revocations == read_revocations(made.crl, keys.authority)
    assert known.revocations.number == 2
    assert sorted(known.partners) == ["990019", "990027", "990035"]
    assert known.partners["990019"].sealing_key == public()


@pytest.mark.req("R-058", "R-060")
def test_the_capacities_of_a_partner_arrive_and_an_unknown_one_makes_it_unknown(keys: Keys) -> None:
    capacity = next(iter(CAPACITIES))
    known = directory(keys, entry(keys, "990027", capacities=(capacity,)))
    assert known.partners["990027"].agency.capacities == {capacity}
    assert known.partners["990019"].agency.capacities == frozenset()
    assert sorted(directory(keys, entry(keys, "990027", capacities=("of tomorrow",))).partners) == [
        "990019",
        "990035",
    ]


@pytest.mark.req("R-048", "R-077")
def test_who_announces_the_classical_suite_can_be_seen(keys: Keys) -> None:
    known = directory(keys, entry(keys, "990027", sealing_key=public(classical=True)))
    assert known.partners["990019"].suite == HYBRID
    assert known.partners["990027"].suite == CLASSICAL
    assert known.classical == ("990027",)
    assert directory(keys).classical == ()


# Signature


@pytest.mark.req("R-058")
def test_no_byte_of_it_can_be_altered(keys: Keys) -> None:
    body, signature, certificate = msgpack.unpackb(signed(keys))
    faults = (CertificateInvalid, Malformed)
    for place in range(0, len(body), 7):
        altered = bytearray(body)
        altered[place] ^= 1
        with pytest.raises(faults):
            read(keys, pack([bytes(altered), signature, certificate]))
    for place in range(len(signature)):
        altered = bytearray(signature)
        altered[place] ^= 1
        with pytest.raises(faults):
            read(keys, pack([body, bytes(altered), certificate]))
    for cut in (body[:-1], body + b"\0"):
        with pytest.raises(faults):
            read(keys, pack([cut, signature, certificate]))


@pytest.mark.req("R-058")
def test_only_the_network_signs_it_and_only_under_a_certificate_that_counts(
    keys: Keys, authority: Authority
) -> None:
    network = keys.signer("network")
    for by in (keys.signer("990019"), authority.issue("late", NETWORK, START + DAY)):
        with pytest.raises(CertificateInvalid):
            read(keys, signed(keys, by=by))
    far = START + timedelta(days=366)
    with pytest.raises(CertificateInvalid, match="time"):
        read(keys, signed(keys, valid_until=(far + DAY).isoformat()), far)
    with pytest.raises(CertificateRevoked):
        read(keys, signed(keys, crl=authority.revoked("network")))
    body, signature, _ = msgpack.unpackb(signed(keys, by=keys.signer("990019")))
    with pytest.raises(CertificateInvalid, match="not signed"):
        read(keys, pack([body, signature, network.certificate]))


@pytest.mark.req("R-058")
def test_nothing_else_that_the_network_signs_passes_for_one(keys: Keys) -> None:
    """A note holds what parties have written; its signature is over the bare bytes of it."""
    network = keys.signer("network")
    body, _, certificate = msgpack.unpackb(signed(keys))
    with pytest.raises(CertificateInvalid, match="not signed"):
        read(keys, pack([body, network.sign(body), certificate]))


@pytest.mark.parametrize(
    "changes",
    [
        {"serial": "one"},
        {"valid_until": "tomorrow"},
        {"valid_until": "2026-11-22T09:30:00"},
        {"grace_seconds": "long"},
        {"grace_seconds": 10**15},
        {"agencies": 1},
        {"network": (b"none",)},
        {"crl": b"none"},
        {"crl": 1},
    ],
)
def test_one_that_cannot_be_read_is_malformed_whoever_signed_it(
    keys: Keys, changes: dict[str, object]
) -> None:
    with pytest.raises(Malformed):
        read(keys, signed(keys, **changes))  # type: ignore[arg-type] # wrong on purpose


# Serial, validity and grace


@pytest.mark.req("R-058", "R-075")
def test_a_configuration_never_gives_way_to_an_older_one(keys: Keys, authority: Authority) -> None:
    later = authority.revoked("990035")
    held = read(keys, signed(keys, serial=5, crl=later))
    assert read(keys, signed(keys, serial=5, crl=later), held=held) == held, "the same one again"
    assert read(keys, signed(keys, serial=6, crl=later), held=held).serial == 6
    crl(authority.folder, clock=lambda: START)
    assert read(keys, signed(keys, serial=6, crl=authority.list), held=held).revocations.number == 3
    for older in (
        signed(keys, serial=4, crl=later),
        signed(keys, serial=5, crl=later, layouts=()),
        signed(keys, serial=6, crl=Authority(keys.folder / "messages").list),
        signed(keys, serial=6, crl=b""),
    ):
        with pytest.raises(Refused) as refused:
            read(keys, older, held=held)
        assert code_of(refused) == "L-123"


@pytest.mark.req("R-058")
def test_an_expired_configuration_is_not_taken_although_one_that_is_held_has_its_grace(keys: Keys) -> None:
    assert read(keys, signed(keys), END).serial == 1
    with pytest.raises(Refused) as refused:
        read(keys, signed(keys), END + MOMENT)
    assert code_of(refused) == "L-124"


@pytest.mark.req("R-057", "R-058")
def test_what_is_held_counts_to_the_last_moment_of_its_grace_and_then_everything_is_refused(
    keys: Keys,
) -> None:
    known, network = directory(keys), keys.signer("network")
    signature = network.sign(b"note")
    for now in (START, END, END + MOMENT, END + GRACE):
        assert not known.lapsed(now)
        assert refusal_of(known, ASKING.code, now) == ""
        assert refusal_by(known, keys.signer(ASKING.code), now) == ""
        assert known.by_network(signature, b"note", now)
    late = END + GRACE + MOMENT
    assert known.lapsed(late)
    assert refusal_of(known, ASKING.code, late) == "L-122"
    assert refusal_of(known, "990043", late) == "L-122"
    assert refusal_by(known, keys.signer(ASKING.code), late) == "L-122"
    with pytest.raises(Refused) as refused:
        known.by_network(signature, b"note", late)
    assert code_of(refused) == "L-122"


@pytest.mark.parametrize("kind", [INQUIRY, ANSWER])
@pytest.mark.req("R-057", "R-058", "R-062")
async def test_an_agency_whose_configuration_has_lapsed_sends_nothing_and_takes_nothing_in(
    house: House, kind: str
) -> None:
    scene = await scene_of(house, kind, 0)
    held = house.asking.linkage.directory
    assert held is not None
    for valid_until, expected in (
        (house.clock() - GRACE, ("", "")),
        (house.clock() - GRACE - MOMENT, ("partner", "L-122")),
    ):
        for town in house.towns.values():
            town.linkage.directory = replace(held, valid_until=valid_until, grace=GRACE)
        assert outcome(scene.check(scene.genuine)) == expected
    refusal = await house.asking.platform.inquire(order("q-late", 0))
    assert refusal is not None
    assert refusal.code == "L-122"
    failed = scene.check(scene.genuine)
    assert isinstance(failed, Failed)
    answer = scene.receiver.linkage.refusing_answer(scene.genuine, failed, house.clock(), bytes)
    assert answer is None, "nobody is told: the message is still good"


# Revocation


@pytest.mark.req("R-058")
def test_a_revoked_certificate_counts_no_longer_from_its_revocation_on(
    keys: Keys, authority: Authority
) -> None:
    known = directory(keys, crl=authority.revoked(ASKING.code, at=START + DAY))
    signer = keys.signer(ASKING.code)
    assert refusal_of(known, ASKING.code, START + DAY - MOMENT) == ""
    assert refusal_by(known, signer, START + DAY - MOMENT) == ""
    for now in (START + DAY, START + 2 * DAY):
        assert refusal_of(known, ASKING.code, now) == "L-121"
        assert refusal_by(known, signer, now) == "L-121"
    assert refusal_of(known, "990027", START + 2 * DAY) == ""


@pytest.mark.req("R-051", "R-058")
def test_what_was_received_before_the_revocation_stays_evidence(keys: Keys, authority: Authority) -> None:
    known = directory(keys, crl=authority.revoked(ASKING.code, at=START + DAY))
    who, received = keys.signer(ASKING.code).identity, START + timedelta(hours=1)
    signature = keys.signer(ASKING.code).sign(b"control")
    check_standing(who, agency_uri(ASKING.code), received, known.revocations)
    assert who.verifies(signature, b"control")
    with pytest.raises(CertificateRevoked):
        check_standing(who, agency_uri(ASKING.code), START + DAY, known.revocations)


@pytest.mark.req("R-058")
def test_a_list_by_anybody_but_the_authority_is_refused(keys: Keys, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    genuine = load_pem_private_key((keys.folder / "messages" / "ca.key").read_bytes(), None)
    assert isinstance(genuine, ec.EllipticCurvePrivateKey)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(keys.authority.subject)
        .last_update(START)
        .next_update(END)
    )
    numbered = builder.add_extension(x509.CRLNumber(1), critical=False)
    forged = numbered.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    with pytest.raises(CertificateInvalid, match="authority"):
        read(keys, signed(keys, crl=forged))
    nameless = builder.sign(genuine, hashes.SHA256()).public_bytes(Encoding.DER)
    with pytest.raises(Malformed):
        read(keys, signed(keys, crl=nameless))
    assert read(keys, signed(keys, crl=numbered.sign(genuine, hashes.SHA256()).public_bytes(Encoding.DER)))


# Renewal


@pytest.mark.req("R-058")
def test_a_partner_signs_by_its_new_certificate_and_what_the_old_one_signed_is_accepted_until_it_expires(
    keys: Keys, authority: Authority
) -> None:
    old, new = keys.signer(ASKING.code), authority.issue("new", agency_uri(ASKING.code), START + 300 * DAY)
    both = entry(keys, ASKING.code, certificates=(new.certificate, old.certificate))
    valid_until = (START + 400 * DAY).isoformat()
    known = directory(keys, both, valid_until=valid_until)
    overlap = START + 300 * DAY
    assert (refusal_by(known, old, overlap), refusal_by(known, new, overlap)) == ("", "")
    assert refusal_by(known, new, START) == "L-102", "not valid yet"
    assert refusal_by(known, old, START) == ""
    assert refusal_by(known, old, START + 366 * DAY) == "L-102"
    assert refusal_by(known, new, START + 366 * DAY) == ""
    assert known.partners[ASKING.code].identity == new.identity
    alone = directory(keys, entry(keys, ASKING.code, certificates=(new.certificate,)))
    assert refusal_by(alone, old, overlap) in ("L-303", "L-122")


@pytest.mark.req("R-058")
def test_after_a_leak_the_old_certificate_is_revoked_and_the_new_one_goes_on(
    keys: Keys, authority: Authority
) -> None:
    new = authority.issue("new", agency_uri(ASKING.code))
    old = keys.signer(ASKING.code)
    both = entry(keys, ASKING.code, certificates=(new.certificate, old.certificate))
    known = directory(keys, both, crl=authority.revoked(ASKING.code))
    assert refusal_of(known, ASKING.code) == ""
    assert refusal_by(known, new) == ""
    assert refusal_by(known, old) == "L-121"
    neither = directory(keys, both, crl=authority.revoked("new"))
    assert refusal_of(neither, ASKING.code) == "L-121"


@pytest.mark.req("R-058")
def test_certificates_of_another_agency_or_authority_make_nobody_a_partner(
    keys: Keys, authority: Authority, tmp_path: Path
) -> None:
    foreign = Authority(tmp_path / "foreign")
    copytree(keys.folder / "messages", foreign.folder)
    for file in ("ca.pem", "ca.key"):
        (foreign.folder / file).write_bytes((keys.folder / "lines" / file).read_bytes())
    stranger = foreign.issue("stranger", agency_uri(ASKING.code), datetime.now(START.tzinfo))
    for signer, own in ((keys.signer("990035"), "L-102"), (stranger, "L-303")):
        given = (signer.certificate, keys.signer(ASKING.code).certificate)
        known = directory(keys, entry(keys, ASKING.code, certificates=given))
        assert refusal_by(known, signer) == own
        assert refusal_by(known, keys.signer(ASKING.code)) == "", "its own is no worse for that"
        alone = directory(keys, entry(keys, ASKING.code, certificates=(signer.certificate,)))
        assert refusal_of(alone, ASKING.code) == "L-102"
    assert refusal_by(directory(keys), keys.signer("990035")) == "L-303"


@pytest.mark.req("R-058")
def test_the_network_renews_its_certificate_and_its_earlier_notes_still_count(
    keys: Keys, authority: Authority
) -> None:
    old, new = keys.signer("network"), authority.issue("network-2", NETWORK)
    note = old.sign(b"note")
    made = configuration(keys, network=(new.certificate, old.certificate))
    known = read_directory(sign_directory(made, new), keys.authority, START)
    assert known.network == new.identity
    assert known.by_network(note, b"note", START)
    assert known.by_network(new.sign(b"note"), b"note", START)
    assert not known.by_network(note, b"another note", START)
    assert not known.by_network(keys.signer(ASKING.code).sign(b"note"), b"note", START)
    leaked = replace(made, serial=2, crl=authority.revoked("network"))
    known = read_directory(sign_directory(leaked, new), keys.authority, START, known)
    assert not known.by_network(note, b"note", START)
    assert known.by_network(new.sign(b"note"), b"note", START)
