"""What is made of files, and made anew when these change: keys are renewed without a stop."""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from broker.linkage.crypto import CertificateInvalid

T = TypeVar("T")

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Renewed(Generic[T]):
    """Call it for what the files stand for now. `make` raises OSError, ValueError or CertificateInvalid.

    Where changed files cannot be used (one of a pair may not have been replaced yet) the caller gets what was
    made before, and every later call tries again.
    """

    def __init__(self, make: Callable[[], T], *files: Path) -> None:
        self._make = make
        self._files = files
        self._seen = self._told = self._look()
        self._made = make()

    def __call__(self) -> T:
        seen = self._look()
        if seen != self._seen:
            try:
                self._made = self._make()
                self._seen = seen
            except (OSError, ValueError, CertificateInvalid) as error:
                if seen != self._told:
                    names = [file.name for file in self._files]
                    _log.warning("files_not_usable", files=names, error=type(error).__name__)
                self._told = seen
        return self._made

    def _look(self) -> list[tuple[int, ...]]:
        return [self._stamp(file) for file in self._files]

    @staticmethod
    def _stamp(file: Path) -> tuple[int, ...]:
        try:
            found = file.stat()
        except OSError:
            return ()
        return found.st_ino, found.st_size, found.st_mtime_ns
