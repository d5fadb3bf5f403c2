"""Disks that can be filled, and have room again."""

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ops.postgresql import Server


class SmallDisk:
    """A small file system of its own. What does not fit gets ENOSPC, as on any full disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, left: int = 0) -> None:
        """Leave this many bytes."""
        free = os.statvfs(self.path)
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail * free.f_frsize - left))

    def empty(self) -> None:
        self._ballast.unlink()


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Skips the test where one cannot be mounted."""
    path.mkdir()
    mount = ["/usr/bin/mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "tmpfs", str(path)]
    if not Path(mount[0]).exists() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["/usr/bin/umount", "--lazy", str(path)], check=True)


class Limit:
    """The same for all files of this process: none may grow beyond a size. What does not fit gets EFBIG."""

    def __init__(self, size: int) -> None:
        self._size = size

    def fill(self) -> None:
        self._set(self._size)

    def empty(self) -> None:
        self._set(resource.RLIM_INFINITY)

    def _set(self, size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


class ServerLimit(Limit):
    """For all files of a server's processes, and of those that they start."""

    def __init__(self, size: int, server: Server) -> None:
        super().__init__(size)
        self._server = server

    def _set(self, size: int) -> None:
        assert self._server._process is not None
        first = self._server._process.pid
        children = Path(f"/proc/{first}/task/{first}/children").read_text(encoding="ascii").split()
        limit = "unlimited" if size == resource.RLIM_INFINITY else str(size)
        for pid in (str(first), *children):
            # As the server's own user, whose processes these are. One that has ended by now needs no limit.
            subprocess.run(
                ["/usr/bin/prlimit", "--pid", pid, f"--fsize={limit}:"],
                capture_output=True, check=False, **self._server._user,  # type: ignore[call-overload] # user and group, or neither
            )  # fmt: skip
