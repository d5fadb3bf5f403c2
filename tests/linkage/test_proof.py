"""One record of a message is proved without the others, and without the house it came from."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.ledger.merkle import ProofInvalid
from broker.linkage.crypto import Signer
from broker.linkage.interface import tree_head
from broker.linkage.partners import agency_uri
from broker.linkage.proof import RecordProof, check_record, prove_record
from schemas.messages import AnswerControl, AnswerSubject, encode, encode_record, signed_bytes
from tests.house import ANSWERING, ASKING, OTHER, START, Keys
from tests.linkage.forging import flipped

CONTROL = AnswerControl(
    message_id="a-1",
    in_reply_to="m-1",
    processing_number="x-1",
    inquirer=ASKING.code,
    provider=ANSWERING.code,
    office="",
    official_role="automatic_response",
    code="",
    persons=(),
    subjects=0,
    root=b"",
    answered_at=START.isoformat(),
    non_disclosure=False,
    signer="",
)


def message(signer: Signer, count: int) -> tuple[bytes, bytes, list[bytes]]:
    """Control part, signature and records of an answer about so many persons."""
    records = [encode_record(bytes(16), AnswerSubject("", {"total_income": str(n)})) for n in range(count)]
    control = encode(
        replace(
            CONTROL,
            persons=tuple(range(count)),
            subjects=count,
            root=tree_head(records),
            signer=signer.identity.fingerprint,
        )
    )
    return control, signer.sign(signed_bytes(control)), records


def proof_of(signer: Signer, count: int, place: int) -> RecordProof:
    control, signature, records = message(signer, count)
    return prove_record(control, signature, signer.identity, records, place)


@pytest.mark.parametrize(("count", "places"), [(1, (0,)), (3, (0, 1, 2)), (700, (0, 255, 256, 699))])
def test_any_record_is_proved_alone(keys: Keys, count: int, places: tuple[int, ...]) -> None:
    signer = keys.signer(ANSWERING.code)
    for place in places:
        proof = proof_of(signer, count, place)
        shown = check_record(proof, keys.authority)
        assert shown.record == AnswerSubject("", {"total_income": str(place)})
        assert (shown.sender, shown.at) == (ANSWERING.code, START.isoformat())
        assert len(proof.path) <= 10


def test_a_proof_of_anything_else_is_none(keys: Keys) -> None:
    signer, other = keys.signer(ANSWERING.code), keys.signer(OTHER.code)
    genuine = proof_of(signer, 5, 2)
    stranger = keys.new_signer(agency_uri(ANSWERING.code), at=START - timedelta(days=1))
    wrong = {
        "another place": replace(genuine, place=3),
        "another number of records": replace(genuine, records=4),
        "another record": replace(genuine, record=flipped(genuine.record, len(genuine.record) - 1, 0)),
        "another control part": replace(
            genuine, control=flipped(genuine.control, len(genuine.control) - 9, 0)
        ),
        "another signature": replace(genuine, signature=flipped(genuine.signature, 0, 0)),
        "a path too short": replace(genuine, path=genuine.path[:-1]),
        "another's certificate": replace(genuine, certificate=other.certificate),
        "another certificate of the same": replace(genuine, certificate=stranger.certificate),
        "no certificate": replace(genuine, certificate=b"x"),
        "no control part": replace(genuine, control=b"x"),
    }
    for name, proof in wrong.items():
        with pytest.raises(ProofInvalid):
            pytest.fail(f"{name}: {check_record(proof, keys.authority)}")


def test_there_is_no_proof_of_a_place_that_is_not_there(keys: Keys) -> None:
    with pytest.raises(ValueError, match="no leaf 5"):
        proof_of(keys.signer(ANSWERING.code), 5, 5)
