"""Signed notes with keys of three kinds: who signed, when, and what is no note at all."""

from base64 import b64encode
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.ledger.merkle import EMPTY_ROOT
from broker.ledger.notes import (
    MAX_SIGNATURES,
    Checkpoint,
    Kind,
    NoteInvalid,
    NoteSigner,
    NoteVerifier,
    Signed,
    decimal,
    decode,
    open_note,
    parts,
    signer_of,
    with_signatures,
)

LOG = NoteSigner("renkei/990019", bytes(range(32)))
LOG_PQ = NoteSigner("renkei/990019", bytes(range(1, 33)), Kind.ML_DSA_44)
WITNESS = NoteSigner("renkei/network", bytes(range(2, 34)), Kind.COSIGNATURE)
WITNESS_PQ = NoteSigner("renkei/network", bytes(range(3, 35)), Kind.ML_DSA_44)
SIGNERS = (LOG, LOG_PQ, WITNESS, WITNESS_PQ)
CHECKPOINT = Checkpoint("renkei/990019", 5, EMPTY_ROOT)
TEXT = CHECKPOINT.text()
TIME = 1_795_219_200
KINDS = pytest.mark.parametrize("signer", SIGNERS, ids=lambda signer: f"{signer.name}-{signer.kind.name}")


def verifiers(*signers: NoteSigner) -> list[NoteVerifier]:
    return [NoteVerifier(signer.verifier_key) for signer in signers]


def sealed() -> str:
    return with_signatures(LOG.sign(TEXT), [signer.line(TEXT, TIME) for signer in SIGNERS[1:]])


@KINDS
def test_what_a_key_signs_its_verifier_key_checks(signer: NoteSigner) -> None:
    stated = 0 if signer.kind is Kind.ED25519 else TIME
    note = signer.sign(TEXT, TIME)
    (verifier,) = verifiers(signer)
    assert open_note(note, [verifier]) == (TEXT, (Signed(signer.name, signer.kind, stated),))
    assert verifier.checkpoint(note) == CHECKPOINT
    assert (verifier.name, verifier.kind, verifier.key_id) == (signer.name, signer.kind, signer.key_id)


def test_all_who_signed_are_named_in_their_order() -> None:
    text, signed = open_note(sealed(), verifiers(*SIGNERS))
    assert text == TEXT
    assert [(each.name, each.kind, each.time) for each in signed] == [
        ("renkei/990019", Kind.ED25519, 0),
        ("renkei/990019", Kind.ML_DSA_44, TIME),
        ("renkei/network", Kind.COSIGNATURE, TIME),
        ("renkei/network", Kind.ML_DSA_44, TIME),
    ]


def test_who_is_not_known_is_passed_over() -> None:
    assert open_note(sealed(), verifiers(WITNESS))[1] == (Signed("renkei/network", Kind.COSIGNATURE, TIME),)
    with pytest.raises(NoteInvalid, match="no signature by renkei/network"):
        open_note(LOG.sign(TEXT), verifiers(WITNESS, WITNESS_PQ))


@KINDS
def test_a_false_signature_by_a_known_key_spoils_the_note(signer: NoteSigner) -> None:
    """Also beside valid ones: it would be a key that was stolen, or a line that was spoilt."""
    number = SIGNERS.index(signer)
    lines = [each.line(TEXT, TIME) for each in SIGNERS]
    lines[number] = signer.line(TEXT.replace("\n5\n", "\n6\n"), TIME)
    note = with_signatures(f"{TEXT}\n", lines)
    others = [each for each in SIGNERS if each is not signer]
    assert len(open_note(note, verifiers(*others))[1]) == 3
    with pytest.raises(NoteInvalid, match="does not fit"):
        open_note(note, verifiers(*SIGNERS))


@KINDS
def test_every_part_of_a_checkpoint_is_signed(signer: NoteSigner) -> None:
    _, line = signer.sign(TEXT, TIME).split("\n\n")
    other = Checkpoint("renkei/990019", 5, bytes(32)).text()
    for text in (TEXT.replace("990019", "990027"), TEXT.replace("\n5\n", "\n4\n"), other, TEXT + "more\n"):
        with pytest.raises(NoteInvalid):
            open_note(f"{text}\n\n{line}".replace("\n\n\n", "\n\n"), verifiers(signer))


@pytest.mark.parametrize("signer", SIGNERS[1:], ids=lambda signer: f"{signer.name}-{signer.kind.name}")
def test_the_time_of_a_cosignature_is_signed(signer: NoteSigner) -> None:
    _, key_id, signature = signer_of(signer.line(TEXT, TIME))
    for stated in (TIME + 1, 0, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
        raw = key_id + stated.to_bytes(8) + signature[8:]
        with pytest.raises(NoteInvalid):
            open_note(f"{TEXT}\n— {signer.name} {b64encode(raw).decode()}\n", verifiers(signer))


@KINDS
@pytest.mark.parametrize("length", [5, 12, 13, 40, 68, 72, 100])
def test_a_signature_of_another_length(signer: NoteSigner, length: int) -> None:
    _, key_id, signature = signer_of(signer.line(TEXT, TIME))
    raw = (key_id + signature)[:length]
    if len(raw) < len(key_id + signature):
        with pytest.raises(NoteInvalid):
            open_note(f"{TEXT}\n— {signer.name} {b64encode(raw).decode()}\n", verifiers(signer))


def test_one_key_in_two_kinds_is_two_keys() -> None:
    key = bytes(range(32))
    note, cosignature = NoteSigner("a", key), NoteSigner("a", key, Kind.COSIGNATURE)
    assert note.key_id != cosignature.key_id
    with pytest.raises(NoteInvalid, match="no signature"):
        open_note(note.sign(TEXT), verifiers(cosignature))


def test_ml_dsa_44_names_the_signer_in_what_it_signs() -> None:
    """So that one key may not pass for two cosigners, as it could with Ed25519."""
    key = bytes(range(32))
    one, other = NoteSigner("a", key, Kind.ML_DSA_44), NoteSigner("b", key, Kind.ML_DSA_44)
    _, _, signature = signer_of(one.line(TEXT, TIME))
    line = f"— b {b64encode(other.key_id + signature).decode()}"
    with pytest.raises(NoteInvalid, match="does not fit"):
        open_note(f"{TEXT}\n{line}\n", verifiers(other))


def test_ml_dsa_44_does_not_sign_what_it_would_not_cover() -> None:
    with pytest.raises(NoteInvalid, match="extension"):
        LOG_PQ.sign(TEXT + "more\n", TIME)
    with pytest.raises(NoteInvalid, match="too long"):
        LOG_PQ.sign(Checkpoint("o" * 256, 5, EMPTY_ROOT).text(), TIME)
    with pytest.raises(NoteInvalid):
        WITNESS.sign("no checkpoint\n", TIME)


# -- what is no note ----------------------------------------------------------------------------------

BROKEN: dict[str, Callable[[str], str]] = {
    "control character": lambda note: note.replace("990019\n5", "990019\x00\n5"),
    "tabulator": lambda note: note.replace("\n5\n", "\n5\t\n"),
    "carriage return": lambda note: note.replace("\n", "\r\n"),
    "no name": lambda note: note.replace("— renkei/990019 ", "—  "),
    "plus in a name": lambda note: note + f"— a+b {b64encode(bytes(68)).decode()}\n",
    "space in a name": lambda note: note + f"— a\u3000b {b64encode(bytes(68)).decode()}\n",
    "a line with nothing": lambda note: note + "\n",
    "a line of another kind": lambda note: note + "something\n",
    "key id alone": lambda note: note + "— someone AAAAAA==\n",
    "base64 in another form": lambda note: note + "— someone AAAAAAAAAB==\n",
    "too many": lambda note: with_signatures(note, [WITNESS.line(TEXT)] * MAX_SIGNATURES),
    "lone surrogate": lambda note: note.replace("990019\n5", "99001\udc80\n5"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_note(broken: str) -> None:
    with pytest.raises(NoteInvalid):
        NoteVerifier(LOG.verifier_key).open(BROKEN[broken](LOG.sign(TEXT)))


def test_many_signatures_are_read() -> None:
    note = with_signatures(LOG.sign(TEXT), [WITNESS_PQ.line(TEXT, TIME)] * (MAX_SIGNATURES - 1))
    assert len(open_note(note, verifiers(*SIGNERS))[1]) == MAX_SIGNATURES


@pytest.mark.parametrize(
    "key",
    [
        "",
        "name",
        "name+00000000",
        "name+00000000+AAAA",
        "name+00000000+",
        LOG.verifier_key[:-4],
        LOG.verifier_key.replace("990019", "990027"),
        LOG.verifier_key.replace("+A", "+B"),
        LOG_PQ.verifier_key[:-8],
        NoteSigner("a b", bytes(32)).verifier_key,
        NoteSigner("", bytes(32)).verifier_key,
    ],
)
def test_a_broken_verifier_key(key: str) -> None:
    with pytest.raises(NoteInvalid):
        NoteVerifier(key)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "renkei/990019\n5\n",
        "\n5\n" + "A" * 43 + "=\n",
        "renkei/990019\n5\n" + "A" * 43 + "=",
        "renkei/990019\n5\n" + "A" * 43 + "=\n\nmore\n",
        "renkei/990019\n05\n" + "A" * 43 + "=\n",
        "renkei/990019\n+5\n" + "A" * 43 + "=\n",
        "renkei/990019\n9223372036854775808\n" + "A" * 43 + "=\n",
        f"renkei/990019\n{'9' * 5_000}\n" + "A" * 43 + "=\n",
        "renkei/990019\n5\nAAAA\n",
        "renkei/990019\n5\n" + "A" * 42 + "B=\n",
    ],
)
def test_a_text_that_is_no_checkpoint(text: str) -> None:
    with pytest.raises(NoteInvalid):
        Checkpoint.read(text)


def test_extension_lines_are_passed_over() -> None:
    assert Checkpoint.read(TEXT + "more\nand more\n") == CHECKPOINT


@given(st.binary())
def test_base64_has_one_form(raw: bytes) -> None:
    encoded = b64encode(raw).decode()
    assert decode(encoded) == raw
    for other in (encoded + "=", encoded + "\n", " " + encoded, encoded.rstrip("=") + "A="):
        if other.rstrip("=") != encoded.rstrip("="):
            try:
                assert decode(other) != raw
            except ValueError:
                continue


@given(st.integers(0, (1 << 63) - 1))
def test_a_decimal_has_one_form(number: int) -> None:
    assert decimal(str(number)) == number
    for other in (f"0{number}", f"+{number}", f" {number}", f"{number}.", f"-{number}", f"{number}\n"):
        with pytest.raises(ValueError, match="decimal"):
            decimal(other)


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1), st.integers(0, (1 << 63) - 1))
def test_what_is_written_can_be_read(origin: str, size: int) -> None:
    checkpoint = Checkpoint(origin, size, EMPTY_ROOT)
    signer = NoteSigner("renkei/990019", bytes(32))
    note = signer.sign(checkpoint.text())
    assert NoteVerifier(signer.verifier_key).checkpoint(note) == checkpoint
    assert parts(note)[0] == checkpoint.text()
