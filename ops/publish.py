"""What a ledger shows the world: its log as static files, and the time-stamps of its checkpoints."""

from pathlib import Path

from cryptography import x509
from rich.progress import TaskID

from broker.ledger.merkle import ProofInvalid
from broker.ledger.notes import NoteInvalid
from broker.ledger.tiles import OtherLog, export_tiles
from broker.ledger.timestamp import TimestampInvalid, checkpoint_text, keep_timestamp, timestamp_request
from ops.audit import evidence, say
from ops.logs import JST
from ops.terminal import fail, progress_bar


def tiles(folder: Path, into: Path, store: str) -> int:
    """Write the log of every ledger below a folder as static files (C2SP tlog-tiles), or go on with it."""
    with evidence(folder, store) as found, progress_bar() as progress:
        for ledger in found:
            task = progress.add_task(ledger.name, total=None)

            def show(done: int, total: int, task: TaskID = task) -> None:
                progress.update(task, completed=done, total=total)

            try:
                with ledger.store() as opened:
                    head = export_tiles(opened, into / ledger.name, show)
            except OtherLog as error:
                return fail("S-124", str(error))
            except (ProofInvalid, NoteInvalid) as error:
                return fail("S-101", f"{ledger.name}: {error}")
            say(f"OK {ledger.name}: {head.size} entries")
    return 0


def request_timestamp(folder: Path, request: Path) -> int:
    """Write the request (RFC 3161) for a time-stamp of an exported checkpoint, to be sent to an authority."""
    request.write_bytes(timestamp_request(checkpoint_text(folder)))
    say(f"OK {request}")
    return 0


def keep(folder: Path, response: Path, roots: Path) -> int:
    """Check the authority's answer and keep it beside the checkpoint."""
    try:
        at = keep_timestamp(
            folder, response.read_bytes(), x509.load_pem_x509_certificates(roots.read_bytes())
        )
    except (TimestampInvalid, NoteInvalid, ValueError) as error:
        return fail("S-123", str(error))
    say(f"OK {at.astimezone(JST).isoformat()}")
    return 0
