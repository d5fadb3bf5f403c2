"""A daemon under measurement: `python -m ops.bench.process COMMAND CONFIG LAYOUTS`.

It is the daemon of `renkei COMMAND --config CONFIG` with the layouts of a folder beside those of the law, and
does what the bench tells it on standard input: `count` or `sample` begins, `end` writes what was found to
standard output as one line of JSON. When the bench is gone, it stops.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ops.bench.meter import Counting, Sampling
from ops.cli import main
from schemas.items import add_layouts

_METERS: dict[str, Callable[[], Counting | Sampling]] = {"count": Counting, "sample": Sampling}


def _obey() -> None:
    meter: Counting | Sampling | None = None
    # Not by sys.stdin: a thread that waits in there holds a lock that the end of the process wants.
    while word := os.read(0, 64).decode().strip():
        told: Any = None
        if word in _METERS:
            meter = _METERS[word]()
            meter.begin()
        elif meter is not None:
            told, meter = meter.end(), None
        print(json.dumps(told), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    _, command, config, folder = sys.argv
    add_layouts(Path(folder))
    Sampling.prepare()
    threading.Thread(target=_obey, name="obey", daemon=True).start()
    sys.exit(main([command, "--config", config]))
