"""Where the time of an append goes: `python -m ops.bench.profile STORE [WRITERS [SECONDS]]`.

The profiler makes every call dearer: the figures in its tables are for comparing one with another, and those
in the first line, taken without it, for everything else. It needs Python 3.11: later versions profile one
thread at a time.
"""

import pstats
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from cProfile import Profile
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import trio

from broker.ledger.events import Registry
from broker.ledger.folder import checkpoint_signer, note_signer
from broker.ledger.ledger import Ledger
from broker.ledger.vault import Vault
from ops.bench.load import Entry, Timed, busy
from ops.bench.places import Place, disk_folder, opened
from ops.terminal import console

_SHOWN = 30


@contextmanager
def profiled() -> Iterator[dict[str, list[Profile]]]:
    """Profiles of this thread and of those that are started meanwhile."""
    profiles: dict[str, list[Profile]] = {"event loop": [Profile()], "worker threads": []}

    def begin(*_: Any) -> None:
        profile = Profile()
        profiles["worker threads"].append(profile)
        profile.enable()  # in the place of this function

    threading.setprofile(begin)
    (own,) = profiles["event loop"]
    own.enable()
    try:
        yield profiles
    finally:
        own.disable()
        threading.setprofile(None)


def profile(store: str, writers: int, seconds: float) -> None:
    """Print wall and processor time for each event, and what each kind of thread spent its time in."""
    with disk_folder() as folder, opened(store, folder) as place:
        with profiled() as profiles:
            _run(place, folder, writers, seconds)
        # In a process of its own: threads that were profiled live on here and may be used again.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            rate, used = process.submit(_run, place, folder, writers, seconds).result()
    console.print(
        f"{store}, {writers} writers: {rate:,.0f} events/s; "
        f"µs for each event: {1e6 / rate:.1f}, of these on the processor: {used * 1e6:.1f}"
    )
    for threads, found in profiles.items():
        console.print(f"\n{threads}")
        pstats.Stats(*found, stream=sys.stdout).sort_stats("tottime").print_stats(_SHOWN)


def _run(place: Place, folder: Path, writers: int, seconds: float) -> tuple[float, float]:
    """Events a second, and seconds on the processor for each event."""
    with closing(Vault(folder / "vault")) as vault:
        sign = checkpoint_signer(note_signer(vault, "renkei/bench"))
        with place.store(f"profile{secrets.token_hex(4)}", sign) as store:

            async def run() -> Timed:
                ledger = Ledger("renkei/bench", store, Registry([Entry]), vault, partial(datetime.now, UTC))
                async with trio.open_nursery() as nursery:
                    await nursery.start(ledger.run)
                    timed = await busy(ledger, writers, 1, seconds)
                    nursery.cancel_scope.cancel()
                return timed

            used = time.process_time()
            timed = trio.run(run)
            return timed.rate, (time.process_time() - used) / timed.events


if __name__ == "__main__":
    _, chosen, *rest = sys.argv
    profile(chosen, int(rest[0]) if rest else 64, float(rest[1]) if len(rest) > 1 else 5.0)
