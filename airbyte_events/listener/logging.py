"""How log lines are written: for people, or as JSON objects for what collects them.

What a line is about comes as fields: ``logger.info("…", extra={"instance": …, "job_id": …, "cursor": …})``, or for all
that is logged meanwhile: ``with about(instance=…):``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from airbyte_events._utils.printable import dumps, shown, shown_lines
from airbyte_events.events import JobEvent

logger = logging.getLogger(__name__)

# What every record has, and what libraries put there for formatters of their own.
_NO_FIELDS = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"}

_about: ContextVar[dict[str, str] | None] = ContextVar("about", default=None)


@contextlib.contextmanager
def about(**fields: str) -> Iterator[None]:
    """What is logged meanwhile has these fields, in tasks that are begun meanwhile, too."""
    token = _about.set((_about.get() or {}) | fields)
    try:
        yield
    finally:
        _about.reset(token)


def _fields(record: logging.LogRecord) -> dict[str, int | str]:
    given = {name: value for name, value in vars(record).items() if name not in _NO_FIELDS and value is not None}
    return (_about.get() or {}) | {
        name: value if isinstance(value, (int, str)) else str(value) for name, value in given.items()
    }


class ConsoleLines(logging.Formatter):
    """A line for people; its fields come last, as ``name=value``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line, without what was raised."""
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        # Some of it was written by others: a line stays one, and a terminal has nothing to obey.
        return shown(super().formatMessage(record).rstrip() + fields)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """What was raised, on lines of its own."""
        return shown_lines(super().formatException(ei))


class JSONLines(logging.Formatter):
    """An object a line: ``time`` (RFC 3339, UTC), ``level``, ``logger``, ``message``, the fields, and ``exception``
    where something was raised."""

    def format(self, record: logging.LogRecord) -> str:
        """The object."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return dumps(_fields(record) | line)


FORMATS: dict[str, Callable[[], logging.Formatter]] = {"console": ConsoleLines, "json": JSONLines}


def configure_logging(level: str, format: str) -> None:
    """Write this process's log to standard error.

    :param format: one of :data:`FORMATS`.
    """
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(FORMATS[format]())
    logging.basicConfig(level=level.upper(), handlers=[lines], force=True)
    for library in ("httpx", "httpcore"):
        logging.getLogger(library).setLevel(logging.WARNING)
    # It warns twice of every POST of Airbyte's: that an upgrade is offered, and that it is not taken.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    logging.getLogger("uvicorn.error").addFilter(_not_cut_off)


def _not_cut_off(record: logging.LogRecord) -> bool:
    """No traceback for each request that a drain cuts off: one line says how many there were."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def log_event(event: JobEvent, *, found_here: bool) -> None:
    """Log what has entered the event log.

    :param found_here: whether this process looks after the instance: of several listeners one speaks up.
    """
    logger.log(
        logging.INFO if found_here else logging.DEBUG,
        "job %s is %s (%s)",
        event.ref,
        event.status.value,
        event.origin.value,
        extra={
            "instance": event.ref.instance,
            "job_id": event.ref.job_id,
            "connection_id": event.connection_id,
            "cursor": event.cursor,
        },
    )
