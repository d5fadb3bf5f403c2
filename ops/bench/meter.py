"""What a daemon under measurement tells of itself: how often it does what costs, and where its time goes.

Nothing of it is at work while rates and latencies are taken. Counting wraps a few functions for as long as it
lasts; sampling looks now and then at what every thread is in and charges that with the processor time that it
used since the last look.
"""

import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from broker.ledger.notes import NoteSigner
from broker.ledger.postgres import PostgresStore
from broker.ledger.sqlite import SQLiteStore
from broker.ledger.vault import Opening, Vault
from broker.linkage import interface
from broker.linkage.crypto import Identity, SealingKey, Signer

SIGN, VERIFY, SEAL, OPEN = "sign a message or note", "verify a signature", "seal (HPKE)", "open (HPKE)"
VAULT_SEAL, VAULT_OPEN = "seal an event (AES-256-GCM)", "open an event (AES-256-GCM)"
CHECKPOINT, WRITE, HASH = "sign a checkpoint", "durable write", "SHA-256"
STEPS = (SIGN, VERIFY, SEAL, OPEN, VAULT_SEAL, VAULT_OPEN, CHECKPOINT, HASH, WRITE)

INTERVAL = 0.004  # seconds on the processor between two looks
_DEPTH = 80  # frames that are looked at from the inside outward
_ROOT = f"{Path(__file__).parents[2]}/"

_ROOMS = (
    ("broker/ledger/vault.py", "ledger: vault"),
    ("broker/ledger/events.py", "ledger: codec of events"),
    ("broker/ledger/sqlite.py", "ledger: store"),
    ("broker/ledger/postgres.py", "ledger: store"),
    ("broker/ledger/store.py", "ledger: store"),
    ("broker/ledger/merkle.py", "ledger: tree and signature"),
    ("broker/ledger/notes.py", "ledger: tree and signature"),
    ("broker/ledger/", "ledger: group commit, reading"),
    ("broker/linkage/crypto.py", "crypto: signatures and seals"),
    ("broker/linkage/", "linkage interface"),
    ("broker/addressing/", "addressing"),
    ("broker/intermediate/", "intermediate interface"),
    ("adapters/platform/", "intermediate interface"),
    ("adapters/http.py", "HTTP and TLS"),
    ("adapters/business/", "business door"),
    ("adapters/network/reference/", "network: decisions and mailboxes"),
    ("adapters/network/", "agency's loops to the network"),
    ("schemas/messages/", "codec of messages"),
    ("schemas/items/", "layouts of items"),
    ("schemas/law/", "law"),
)
_FOLLOWING = "ledger: projections, writing"
_ASKING = "ledger: projections, reading"
_LOOP = "event loop"


@dataclass
class _Count:
    """So many calls, over so many bytes."""

    calls: int = 0
    size: int = 0


class Counting:
    """Counts the steps of STEPS while it stands."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = {step: _Count() for step in STEPS}
        self._undo: list[Callable[[], None]] = []

    def begin(self) -> None:
        """Raises AttributeError for a step that is no longer where it was."""
        self._wrap(Signer, "sign", SIGN, lambda signer, data: len(data))
        self._wrap(Identity, "verifies", VERIFY, lambda identity, signature, data: len(data))
        self._wrap(interface, "seal", SEAL, lambda data, public, info: len(data))
        self._wrap(SealingKey, "open", OPEN, lambda key, box, info: len(box))
        self._wrap(Vault, "seal", VAULT_SEAL, lambda vault, key, data, place: len(data))
        self._wrap(Opening, "open", VAULT_OPEN, lambda opening, key, box, place: len(box))
        self._wrap(NoteSigner, "sign", CHECKPOINT, lambda signer, text, *_: len(text))
        for store in (SQLiteStore, PostgresStore):
            self._wrap(store, "append", WRITE, lambda store, units, at: _stored(units))
        for module in [m for m in sys.modules.values() if _hashes(m)]:
            self._wrap(module, "sha256", HASH, lambda data=b"": len(data))

    def _wrap(self, owner: Any, name: str, step: str, size: Callable[..., int]) -> None:
        original = getattr(owner, name)
        count, lock = self._counts[step], self._lock

        def counted(*arguments: Any) -> Any:
            with lock:
                count.calls += 1
                count.size += size(*arguments)
            return original(*arguments)

        setattr(owner, name, counted)
        self._undo.append(lambda: setattr(owner, name, original))

    def end(self) -> dict[str, tuple[int, int]]:
        """Calls and bytes for each step."""
        for undo in self._undo:
            undo()
        return {step: (count.calls, count.size) for step, count in self._counts.items()}


def _stored(units: Any) -> int:
    return sum(len(event.state) for unit in units for event in unit.events)


def _hashes(module: Any) -> bool:
    """A module of ours that calls SHA-256 by its name."""
    file = getattr(module, "__file__", None) or ""
    return file.startswith(_ROOT) and hasattr(module, "sha256")


class Sampling:
    """Where the processor time of this process goes while it stands.

    Looking is the work of a signal, which comes after so much time on the processor: the main thread takes it
    in between any two of its steps. A thread of our own would be let in only when the others pause.
    """

    _standing: "Sampling | None" = None

    def __init__(self) -> None:
        self._seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._used: dict[int, float] = {}

    @classmethod
    def prepare(cls) -> None:
        """To be called once by the main thread."""

        def look(_number: int, frame: FrameType | None) -> None:
            if cls._standing is not None:
                cls._standing._look(frame)

        signal.signal(signal.SIGPROF, look)
        signal.siginterrupt(signal.SIGPROF, False)

    def begin(self) -> None:
        Sampling._standing = self
        signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)

    def end(self) -> dict[str, dict[str, float]]:
        """Seconds by room, and by function of ours."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        Sampling._standing = None
        rooms: defaultdict[str, float] = defaultdict(float)
        functions: defaultdict[str, float] = defaultdict(float)
        for (room, function), seconds in self._seconds.items():
            rooms[room] += seconds
            functions[function] += seconds
        return {"rooms": rooms, "functions": functions}

    def _look(self, main: FrameType | None) -> None:
        frames = sys._current_frames()
        # Not threading.enumerate: its lock may be held by what the signal has interrupted.
        for thread in threading._enumerate():  # type: ignore[attr-defined] # there in every CPython
            native = thread.native_id
            if thread.ident is None or native is None:
                continue
            frame = main if thread is threading.main_thread() else frames.get(thread.ident)
            now = _processor_seconds(native)
            if (spent := now - self._used.get(native, now)) > 0:
                self._seconds[_place(frame)] += spent
            self._used[native] = now


def _processor_seconds(native: int) -> float:
    """What a thread of this process has used; 0 for one that has just ended."""
    try:
        return int(Path(f"/proc/self/task/{native}/schedstat").read_bytes().split()[0]) / 1e9
    except (OSError, IndexError):
        return 0.0


def _place(frame: FrameType | None) -> tuple[str, str]:
    """The room and the function of ours that a thread is in, whatever libraries it has called from there."""
    found: tuple[str, str] | None = None
    for _ in range(_DEPTH):
        if frame is None:
            break
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        if file.startswith(_ROOT):
            path = file.removeprefix(_ROOT)
            if path == "broker/ledger/projections.py" and name in ("catch_up", "query"):
                return _FOLLOWING if name == "catch_up" else _ASKING, found[1] if found else f"{path} {name}"
            if found is None and (room := _room(path)):
                found = room, f"{path} {frame.f_code.co_qualname}"
        frame = frame.f_back
    return found or (_LOOP, _LOOP)


def _room(path: str) -> str:
    return next((room for start, room in _ROOMS if path.startswith(start)), "")
