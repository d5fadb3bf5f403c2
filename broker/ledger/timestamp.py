"""A time-stamp on a checkpoint by an authority outside (RFC 3161).

What is stamped is the SHA-256 of the checkpoint's text, without the signatures under it. Request and answer
are files, so that any way to the authority will do; the answer lies beside the exported tiles.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography.x509 import Certificate
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from broker.ledger.files import write_whole
from broker.ledger.notes import Checkpoint, parts
from broker.ledger.tiles import CHECKPOINT


class TimestampInvalid(Exception):
    """The answer of a time-stamping authority is no time-stamp of this text, or not by a trusted one."""


def timestamp_request(text: str) -> bytes:
    """The request (DER) for a time-stamp of a text.

    It has no nonce: that the answer fits is told by the digest, and an older one for the same text would be
    all the better evidence.
    """
    builder = TimestampRequestBuilder(data=text.encode(), hash_algorithm=HashAlgorithm.SHA256, nonce=False)
    return builder.build().as_bytes()


def check_timestamp(response: bytes, text: str, roots: Sequence[Certificate]) -> datetime:
    """When the authority saw the text. `roots` are the certificates trusted. Raises TimestampInvalid."""
    try:
        answer = decode_timestamp_response(response)
        VerifierBuilder(roots=list(roots)).build().verify_message(answer, text.encode())
        return answer.tst_info.gen_time
    except (VerificationError, ValueError) as error:
        raise TimestampInvalid(str(error)) from error


def keep_timestamp(folder: Path, response: bytes, roots: Sequence[Certificate]) -> datetime:
    """Check an answer against the exported checkpoint and put it beside. Raises TimestampInvalid.

    The file is named by the log's size: the next export leaves it, and it still fits that root.
    """
    text = checkpoint_text(folder)
    stamped = check_timestamp(response, text, roots)
    write_whole(_file(folder, text), response)
    return stamped


def kept_timestamp(folder: Path, roots: Sequence[Certificate]) -> datetime:
    """The time that is kept for the exported checkpoint. Raises TimestampInvalid, also where none is."""
    text = checkpoint_text(folder)
    try:
        return check_timestamp(_file(folder, text).read_bytes(), text, roots)
    except FileNotFoundError as error:
        raise TimestampInvalid("the checkpoint has no time-stamp") from error


def checkpoint_text(folder: Path) -> str:
    """The text of the exported checkpoint. Raises FileNotFoundError and NoteInvalid."""
    return parts((folder / CHECKPOINT).read_text(encoding="utf-8"))[0]


def _file(folder: Path, text: str) -> Path:
    return folder / f"{CHECKPOINT}.{Checkpoint.read(text).size}.tsr"
