"""Logging: structlog, readable on a terminal, JSON lines elsewhere; times in JST with offset."""

import logging
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

JST = timezone(timedelta(hours=9), "JST")


def now() -> datetime:
    """The clock of every process."""
    return datetime.now(JST)


def _time(_logger: WrappedLogger, _name: str, values: EventDict) -> EventDict:
    values["at"] = now().isoformat(timespec="milliseconds")
    return values


def configure(process: str, file: str = "") -> None:
    """Send the log of this process to a file (appending) or to standard error."""
    target: TextIO = sys.stderr
    if file:
        # Open as long as the process lives.
        target = Path(file).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115
    renderer = (
        structlog.dev.ConsoleRenderer()
        if target.isatty()
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _time,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(target),
    )
    structlog.contextvars.bind_contextvars(process=process)
    # A pool that waits for its server says so again and again; what came of it is said by who asked.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
