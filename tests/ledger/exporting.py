"""An export that dies at one of its files: `python -m tests.ledger.exporting EVENTS FOLDER NUMBER WHEN`."""

import os
import signal
import sys
from pathlib import Path

from broker.ledger import files, tiles
from tests.ledger.places import open_sqlite


def main(events: Path, folder: Path, number: int, when: str) -> None:
    """Die before the file of this number is written, in the middle of it, or right after it is there."""
    write, left = files.write_whole, number

    def dying(target: Path, content: bytes) -> None:
        nonlocal left
        left -= 1
        if left == 0 and when == "half":
            target.parent.mkdir(parents=True, exist_ok=True)
            target.with_name(f"{target.name}.new").write_bytes(content[: len(content) // 2])
        elif left or when == "after":
            write(target, content)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    files.write_whole = dying
    tiles.export_tiles(open_sqlite(events), folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
