"""The witness: what it signs, what it refuses and with which status, and that it never goes back."""

import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.ledger.merkle import EMPTY_ROOT, ProofInvalid, leaf_hash
from broker.ledger.notes import (
    Checkpoint,
    Kind,
    NoteInvalid,
    NoteSigner,
    NoteVerifier,
    Signed,
    open_note,
    with_signatures,
)
from broker.ledger.witness import (
    MAX_SUBMISSION,
    KnownLogs,
    NotCosigned,
    Submission,
    Witness,
    check_consistency,
    logs_in,
    submission,
)
from tests.ledger.places import plain_root, tiles_of

LOG = NoteSigner("renkei/990019", bytes(range(32)))
LOG_PQ = NoteSigner("renkei/990019", bytes(range(1, 33)), Kind.ML_DSA_44)
OTHER = NoteSigner("renkei/990027", bytes(range(2, 34)))
WITNESS = NoteSigner("renkei/network", bytes(range(3, 35)), Kind.COSIGNATURE)
WITNESS_PQ = NoteSigner("renkei/network", bytes(range(4, 36)), Kind.ML_DSA_44)
KEYS = [NoteVerifier(signer.verifier_key) for signer in (WITNESS, WITNESS_PQ)]
TIME = 1_795_219_200
LEAVES = [leaf_hash(b"%d" % n) for n in range(700)]
TILES = tiles_of(LEAVES)


def known(origin: str) -> list[NoteVerifier]:
    table = {"renkei/990019": (LOG, LOG_PQ), "renkei/990027": (OTHER,)}
    return [NoteVerifier(signer.verifier_key) for signer in table.get(origin, ())]


def read(level: int, index: int) -> bytes:
    return TILES[level, index]


def note(size: int, signer: NoteSigner = LOG) -> str:
    return signer.sign(Checkpoint(signer.name, size, plain_root(LEAVES[:size])).text())


def asked(old: int, size: int, signer: NoteSigner = LOG) -> bytes:
    return submission(read, old, note(size, signer)).text().encode()


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    with closing(Witness(tmp_path / "witness.sqlite", [WITNESS, WITNESS_PQ], known)) as witness:
        yield witness


def refused(witness: Witness, body: bytes) -> tuple[int, int]:
    with pytest.raises(NotCosigned) as refusal:
        witness.cosign(body, TIME)
    return refusal.value.status, refusal.value.size


# -- what it signs ------------------------------------------------------------------------------------


def test_a_log_that_goes_on_is_cosigned(witness: Witness) -> None:
    old = 0
    for size in (1, 2, 255, 256, 300, 512, 512, 700):
        lines = witness.cosign(asked(old, size), TIME + size)
        text, signed = open_note(with_signatures(note(size), lines), KEYS)
        assert Checkpoint.read(text) == Checkpoint("renkei/990019", size, plain_root(LEAVES[:size]))
        assert signed == (
            Signed("renkei/network", Kind.COSIGNATURE, TIME + size),
            Signed("renkei/network", Kind.ML_DSA_44, TIME + size),
        )
        old = size


def test_the_empty_log_is_cosigned(witness: Witness) -> None:
    assert witness.cosign(asked(0, 0), TIME)
    assert witness.cosign(asked(0, 0), TIME)
    assert witness.cosign(asked(0, 9), TIME)
    assert refused(witness, asked(0, 0)) == (409, 9)


def test_each_log_goes_its_own_way(witness: Witness) -> None:
    witness.cosign(asked(0, 300), TIME)
    witness.cosign(asked(0, 7, OTHER), TIME)
    assert refused(witness, asked(0, 300)) == (409, 300)
    assert refused(witness, asked(300, 400, OTHER)) == (409, 7)
    witness.cosign(asked(7, 400, OTHER), TIME)
    witness.cosign(asked(300, 400), TIME)


def test_what_it_signed_last_is_shown(witness: Witness) -> None:
    """With the signatures that it verified and its own, and no others."""
    name = sha256(b"renkei/990019").hexdigest()
    assert witness.latest(name) is None
    text = Checkpoint("renkei/990019", 300, plain_root(LEAVES[:300])).text()
    lines = [OTHER.line(text), LOG_PQ.line(text, TIME)]
    sent = Submission(0, (), with_signatures(LOG.sign(text), lines))
    own = witness.cosign(sent.text().encode(), TIME)
    assert witness.latest(name) == with_signatures(LOG.sign(text), [lines[1], *own])
    assert refused(witness, asked(0, 400)) == (409, 300)
    assert witness.latest(name) == with_signatures(LOG.sign(text), [lines[1], *own])
    assert witness.latest("0" * 64) is None


# -- what it refuses ----------------------------------------------------------------------------------

BODIES = {
    "nothing": b"",
    "no UTF-8": b"\xff",
    "no old size": asked(0, 5)[6:],
    "old size with a zero": asked(0, 5).replace(b"old 0", b"old 00"),
    "old size below": asked(0, 5).replace(b"old 0", b"old -1"),
    "no base64": asked(1, 5).replace(b"old 1\n", b"old 1\n!\n"),
    "long proof": asked(1, 5).replace(b"old 1\n", b"old 1\n" + b"AAAA\n" * 64),
    "no checkpoint": b"old 0\n\n",
    "no blank line": asked(0, 5).replace(b"\n\n", b"\n"),
    "no signature": asked(0, 5).split(b"\n\n\xe2")[0] + b"\n",
    "no size": asked(0, 5).replace(b"\n5\n", b"\nfive\n"),
    "short root": asked(0, 5).replace(b64encode(plain_root(LEAVES[:5])), b"AAAA"),
    "old size above": asked(5, 5).replace(b"old 5", b"old 6"),
    "extension line": Submission(0, (), LOG.sign(f"renkei/990019\n0\n{b64encode(EMPTY_ROOT).decode()}\nx\n"))
    .text()
    .encode(),
    "long origin": Submission(0, (), note(5, NoteSigner("o" * 201, bytes(32)))).text().encode(),
    "long": asked(0, 5) + "— x AAAAAAA=\n".encode() * (MAX_SUBMISSION // 13),
}


@pytest.mark.parametrize("body", BODIES)
def test_a_body_that_is_no_submission(body: str, witness: Witness) -> None:
    assert refused(witness, BODIES[body]) == (400, 0)
    witness.cosign(asked(0, 5), TIME)


def test_a_log_that_is_not_known(witness: Witness) -> None:
    for name in ("renkei/990099", "renkei/990019/addressing", "../renkei/990019", ".."):
        assert refused(witness, asked(0, 5, NoteSigner(name, bytes(32)))) == (404, 0)


def test_a_checkpoint_that_the_log_did_not_sign(witness: Witness) -> None:
    text = Checkpoint("renkei/990019", 5, plain_root(LEAVES[:5])).text()
    stranger = NoteSigner("renkei/990019", bytes(32))
    for forged in (
        OTHER.sign(text),
        stranger.sign(text),
        WITNESS.sign(text, TIME),
        note(6).replace("\n6\n", "\n5\n"),
        # One valid signature of the log does not heal another that is false.
        with_signatures(LOG.sign(text), [LOG_PQ.line(text.replace("\n5\n", "\n6\n"), TIME)]),
    ):
        assert refused(witness, Submission(0, (), forged).text().encode()) == (403, 0)
    assert witness.cosign(Submission(0, (), LOG_PQ.sign(text, TIME)).text().encode(), TIME)


def test_another_old_size_is_told_the_size(witness: Witness) -> None:
    assert refused(witness, asked(5, 10)) == (409, 0)
    witness.cosign(asked(0, 300), TIME)
    for old, size in ((0, 400), (299, 400), (301, 400), (0, 200), (200, 200)):
        assert refused(witness, asked(old, size)) == (409, 300)
    witness.cosign(asked(300, 400), TIME)


def test_a_log_that_does_not_go_on(witness: Witness) -> None:
    witness.cosign(asked(0, 300), TIME)
    good = Submission.read(asked(300, 400).decode())
    rewritten = LOG.sign(Checkpoint("renkei/990019", 400, plain_root([*LEAVES[1:], LEAVES[0]][:400])).text())
    split = LOG.sign(Checkpoint("renkei/990019", 300, bytes(32)).text())
    for old, proof, sent in (
        (300, good.proof[1:], good.note),
        (300, good.proof[::-1], good.note),
        (300, (), good.note),
        (300, (*good.proof, bytes(32)), good.note),
        (300, (good.proof[0][:-1], *good.proof[1:]), good.note),
        (300, good.proof, rewritten),
        (300, (), split),
        (300, (bytes(32),), note(300)),
    ):
        assert refused(witness, Submission(old, proof, sent).text().encode()) == (422, 0)
    witness.cosign(asked(300, 400), TIME)


def test_nothing_is_proved_from_nothing(witness: Witness) -> None:
    assert refused(witness, Submission(0, (bytes(32),), note(5)).text().encode()) == (422, 0)
    wrong = LOG.sign(Checkpoint("renkei/990019", 0, bytes(32)).text())
    assert refused(witness, Submission(0, (), wrong).text().encode()) == (422, 0)
    assert witness.latest(sha256(b"renkei/990019").hexdigest()) is None


# -- what it keeps ------------------------------------------------------------------------------------


def test_what_it_signed_survives_the_process(tmp_path: Path) -> None:
    with closing(Witness(tmp_path / "witness.sqlite", [WITNESS], known)) as witness:
        witness.cosign(asked(0, 300), TIME)
    with closing(Witness(tmp_path / "witness.sqlite", [WITNESS], known)) as witness:
        assert refused(witness, asked(0, 200)) == (409, 300)
        witness.cosign(asked(300, 400), TIME)


def test_a_signature_that_cannot_be_recorded_does_not_leave(tmp_path: Path) -> None:
    with closing(Witness(tmp_path / "witness.sqlite", [WITNESS], known)) as witness:
        witness.cosign(asked(0, 300), TIME)
        witness._rows.execute("PRAGMA query_only=ON")  # as a full disk or a lost file would
        with pytest.raises(Exception, match="readonly"):
            witness.cosign(asked(300, 400), TIME)
        witness._rows.execute("PRAGMA query_only=OFF")
        assert refused(witness, asked(400, 500)) == (409, 300)
        witness.cosign(asked(300, 400), TIME)


@pytest.mark.parametrize("size", range(10, 100, 10))
def test_of_several_requests_at_once_one_is_signed(size: int, tmp_path: Path) -> None:
    """Two threads of each of two witnesses on one file, from the same old size to different sizes."""
    signed: list[int] = []
    refusals: list[tuple[int, int]] = []
    barrier = threading.Barrier(4)

    def ask(witness: Witness, number: int) -> None:
        body = asked(size, size + number)
        barrier.wait()
        try:
            witness.cosign(body, TIME)
            signed.append(size + number)
        except NotCosigned as refusal:
            refusals.append((refusal.status, refusal.size))

    with (
        closing(Witness(tmp_path / "witness.sqlite", [WITNESS], known)) as one,
        closing(Witness(tmp_path / "witness.sqlite", [WITNESS], known)) as two,
    ):
        one.cosign(asked(0, size), TIME)
        threads = [
            threading.Thread(target=ask, args=(witness, number))
            for number, witness in enumerate((one, two, one, two), 1)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(signed) == 1
    assert refusals == [(409, signed[0])] * 3


# -- whose logs it knows ------------------------------------------------------------------------------


def test_a_log_is_admitted_by_its_key_in_a_folder(tmp_path: Path) -> None:
    logs: KnownLogs = logs_in(tmp_path)
    assert logs("renkei/990019") == []
    keys = f"{LOG.verifier_key}\n{LOG_PQ.verifier_key}\n{OTHER.verifier_key}\n"
    (tmp_path / "renkei_990019.vkey").write_text(keys, encoding="utf-8")
    assert [key.kind for key in logs("renkei/990019")] == [Kind.ED25519, Kind.ML_DSA_44]
    # A name that leads to the same file gets none of its keys.
    assert logs("renkei_990019") == logs("renkei/990027") == logs("..") == []
    (tmp_path / "renkei_990019.vkey").write_text("no key\n", encoding="utf-8")
    with pytest.raises(NoteInvalid):
        logs("renkei/990019")


# -- the form of a proof of consistency ---------------------------------------------------------------


@given(
    st.integers(0, (1 << 63) - 1),
    st.lists(st.binary(min_size=32, max_size=32), max_size=63),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
def test_a_submission_is_read_as_it_was_written(old: int, proof: list[bytes], sent: str) -> None:
    made = Submission(old, tuple(proof), sent)
    assert Submission.read(made.text()) == made


def test_consistency_is_checked_with_the_log_s_key() -> None:
    older = Checkpoint("renkei/990019", 256, plain_root(LEAVES[:256]))
    text = submission(read, 256, note(700)).text()
    assert check_consistency(text, older, LOG.verifier_key).size == 700
    with pytest.raises(NoteInvalid):
        check_consistency(text, older, OTHER.verifier_key)
    for other in (
        Checkpoint("renkei/990027", 256, older.root),
        Checkpoint("renkei/990019", 255, older.root),
        Checkpoint("renkei/990019", 256, bytes(32)),
    ):
        with pytest.raises(ProofInvalid):
            check_consistency(text, other, LOG.verifier_key)
    with pytest.raises(ValueError, match="no consistency"):
        submission(read, 300, note(256))
