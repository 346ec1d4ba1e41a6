"""Render the log through structlog: lines for people, or JSON objects for log collectors.

Modules log with the standard library. The fields of a line are its ``extra`` and what
``structlog.contextvars.bound_contextvars`` binds around it, also for tasks that are started there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Literal

from structlog.contextvars import merge_contextvars
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import JSONRenderer, format_exc_info
from structlog.stdlib import ExtraAdder, ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

from airbyte_events._utils.printable import dumps, shown, shown_lines
from airbyte_events.events import JobEvent

logger = logging.getLogger(__name__)


def formatter(format: Literal["console", "json"], *, colors: bool = False) -> logging.Formatter:
    """Return the formatter of a log. It escapes control characters."""
    rendering: list[Processor] = [JSONRenderer(serializer=lambda fields, **_: dumps(fields))]
    if format == "console":
        console = ConsoleRenderer(
            colors=colors, pad_event_to=0, sort_keys=False, exception_formatter=plain_traceback, event_key="message"
        )
        rendering = [_printable, console]
    return ProcessorFormatter(
        foreign_pre_chain=[merge_contextvars, ExtraAdder(), format_exc_info],
        processors=[_fields_and_record, *rendering],
    )


def configure_logging(level: str, format: Literal["console", "json"]) -> None:
    """Write this process's log to standard error, in colour if that is a terminal and ``NO_COLOR`` is not set."""
    lines = logging.StreamHandler(sys.stderr)
    colors = sys.stderr.isatty() and sys.platform != "win32" and not os.environ.get("NO_COLOR")
    lines.setFormatter(formatter(format, colors=colors))
    logging.basicConfig(level=level.upper(), handlers=[lines], force=True)
    for library in ("httpx", "httpcore"):
        logging.getLogger(library).setLevel(logging.WARNING)
    # uvicorn warns twice of each of Airbyte's POSTs: that an upgrade is offered, and that it is not taken.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    logging.getLogger("uvicorn.error").addFilter(_not_cancelled)


def log_event(event: JobEvent, *, found_here: bool) -> None:
    """Log an event that was appended to the event log.

    :param found_here: whether this listener leads the instance: of several listeners one logs the event as ``info``.
    """
    logger.log(
        logging.INFO if found_here else logging.DEBUG,
        "job %s: job=%s origin=%s",
        *(event.status.value, event.ref, event.origin.value),
        extra={
            "instance": event.ref.instance,
            "job_id": event.ref.job_id,
            "connection_id": event.connection_id,
            "cursor": event.cursor,
        },
    )


def _fields_and_record(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Return the fields, then what every line has, which no field can replace."""
    record: logging.LogRecord = event.pop("_record")
    message, exception = event.pop("event"), event.pop("exception", None)
    time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    fields = {
        name: value if isinstance(value, int | str) else str(value)
        for name, value in event.items()
        # uvicorn gives a message with colours as well.
        if value is not None and name not in ("_from_structlog", "color_message")
    }
    fields |= {"time": time, "level": record.levelname.lower(), "logger": record.name, "message": message}
    return fields | ({"exception": exception} if exception else {})


def _printable(_: WrappedLogger, __: str, fields: EventDict) -> EventDict:
    """Make all fields printable, so that a line stays one line."""
    printable = {shown(name): shown(str(value)) for name, value in fields.items()}
    if "exception" in fields:
        printable["exception"] = shown_lines(str(fields["exception"]))
    return printable | {"timestamp": printable.pop("time")}


def _not_cancelled(record: logging.LogRecord) -> bool:
    """Drop the traceback of each request that a drain cancels: one line gives their number."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
