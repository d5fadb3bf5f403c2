"""A database file that is made anew beside itself and put in its place while others read and write it.

The name is the file itself, or a link to the generation in use: projections.sqlite -> projections.3.sqlite.
SQLite's own files (-wal, -shm) go by the name of the database, so no database is ever renamed: a new
generation keeps its name for life, and only the link changes. A crash leaves the old link or the new one,
both to a whole database, and perhaps files that nothing leads to; the next opening removes those.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.ledger.files import sync

_BESIDE = ("-wal", "-shm", "-journal")


class Generations:
    """The generations of the database at `path`. Its folder is made where there is none."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = path
        self._link = path.with_name(f"{path.name}.link")

    def live(self) -> Path:
        """The file in use. It is by this name that it must be opened."""
        try:
            return self.path.with_name(os.readlink(self.path))
        except OSError:  # no link: the file itself, or nothing yet
            return self.path

    def following(self) -> Path:
        """The name of the next generation."""
        number = self._number(self.live()) or 0
        return self.path.with_name(f"{self.path.stem}.{number + 1}{self.path.suffix}")

    def _number(self, path: Path) -> int | None:
        pattern = rf"{re.escape(self.path.stem)}\.(\d+){re.escape(self.path.suffix)}"
        found = re.fullmatch(pattern, path.name)
        return int(found[1]) if found else None

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether this is the only one, in any process, that makes or removes generations in the folder."""
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(folder)

    def switch(self, new: Path) -> None:
        """Make a whole and closed database the one in use, at once and durably."""
        sync(new)
        sync(new.parent)
        self._link.unlink(missing_ok=True)
        self._link.symlink_to(new.name)
        self._link.replace(self.path)
        sync(new.parent)

    def discard(self) -> None:
        """Give up a database in use that is damaged; what lies beside it goes first, as it belongs to it."""
        live = self.live()
        for end in (*_BESIDE, ""):
            live.with_name(live.name + end).unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove what is not in use. Who still has an old generation open, reads on in it."""
        live = self.live()
        keep = {self.path, live, *(live.with_name(live.name + end) for end in _BESIDE)}
        for path in self.path.parent.iterdir():
            owner = path
            for end in _BESIDE:
                owner = owner.with_name(owner.name.removesuffix(end))
            ours = owner in (self.path, self._link) or self._number(owner) is not None
            if ours and path not in keep:
                path.unlink(missing_ok=True)
