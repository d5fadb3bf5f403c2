"""Files that are private to their owner, written whole, and on the disk when a call returns."""

import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def create_private_file(path: Path, content: bytes) -> None:
    """Write a new file that only its owner may read, whole and durable when this returns.

    Raises FileExistsError rather than replace a file. A crash leaves at worst a temporary file beside it.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    finally:
        temporary.unlink()
    sync(path.parent)


def ensure_private_file(path: Path, content: bytes = b"") -> None:
    """Likewise, but a file that is there already stays as it is, also where another process was first."""
    if not path.exists():
        with suppress(FileExistsError):
            create_private_file(path, content)


def overwrite(path: Path) -> None:
    """Let no byte of a file's content stay in its place on the disk."""
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())


def write_whole(target: Path, content: bytes) -> None:
    """Write a file whole and durable, or not at all, in the place of what was there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)


@contextmanager
def immediate(rows: sqlite3.Connection) -> Iterator[None]:
    """One transaction in which nobody else writes to an SQLite file: all of it, or nothing."""
    rows.execute("BEGIN IMMEDIATE")
    try:
        yield
        rows.execute("COMMIT")
    except BaseException:
        rows.rollback()
        raise
