"""What the commands say on the terminal: progress, and errors in the words of the catalogue."""

import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from schemas.errors import entry

# Where nobody looks at a terminal (a file, a pipe) lines are wide enough for the tables.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)


def progress_bar() -> Progress:
    """A bar with counts and time, on standard error, silent where that is no terminal."""
    screen = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=screen,
        disable=not screen.is_terminal,
    )


def fail(code: str, detail: str = "") -> int:
    """Say on standard error what happened and what to do; returns the exit status."""
    known = entry(code)
    print(f"[{code}] {known.cause_ja} {detail}".rstrip(), file=sys.stderr)
    print(f"  次の手順: {known.next_ja}", file=sys.stderr)
    print(f"  {known.cause_en} {known.next_en}", file=sys.stderr)
    return 1
