"""What a chat shows of completed jobs, without the notation of any chat."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from airbyte_events._utils.printable import shown
from airbyte_events._utils.times import duration
from airbyte_events.airbyte.url import connection_page, job_log_page, web_url
from airbyte_events.events import JobEvent
from airbyte_events.jobs import Connection

LONGEST_NAME = 150
LONGEST_REASON = 1_000

_VARIABLE = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|'[^']*'|\"[^\"]*\"|`[^`]*`|\b[0-9a-f]*\d[0-9a-f]*\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A job in a message: a text on one line, and a link."""

    text: str
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message: all its texts are on one line, and of limited length.

    :param more: the number of jobs that are not among ``jobs``.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    jobs: Sequence[Line]
    more: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A completed job with what is known of its connection."""

    event: JobEvent
    source: str
    connection: Connection = field(default_factory=Connection)

    @property
    def name(self) -> str:
        event = self.event
        return one_line(
            self.connection.name or event.names.get("connection") or event.connection_id or "unknown connection",
            LONGEST_NAME,
        )

    @property
    def kind(self) -> str:
        return one_line(self.event.job_type or "job", LONGEST_NAME)

    @property
    def url(self) -> str | None:
        """The job in Airbyte's web app. A webhook's URL is not confirmed, so it is not shown."""
        web, workspace_id, connection_id = web_url(self.source), self.connection.workspace_id, self.event.connection_id
        if web is None or workspace_id is None or connection_id is None:
            return None
        page, signal = connection_page(web, workspace_id, connection_id), self.event.signal
        if signal is None:
            return job_log_page(page, self.event.ref.job_id)
        return page if signal.job_id is None else job_log_page(page, signal.job_id)

    @property
    def line(self) -> str:
        """What a list of several shows of it."""
        if (signal := self.event.signal) is not None:
            return f"{self.name}: {one_line(signal.message, LONGEST_NAME)}"
        return f"{self.name}: {self.kind} {self.event.ref.job_id}"

    @property
    def what(self) -> str:
        """The status, or what a signal says."""
        if (signal := self.event.signal) is not None:
            return signal.kind.value if signal.raised else f"no longer {signal.kind.value}"
        return self.event.status.value


def cause_of(event: JobEvent) -> str:
    """Return what the jobs of one message have in common: the status, and why they failed.

    Numbers, ids and quoted names in a reason are ignored: forty connections to a database that is down are one cause.
    """
    error = event.error
    if event.signal is not None:
        return f"{event.signal.kind.value} {event.signal.raised}"
    if error is None:
        return event.status.value
    reason = _VARIABLE.sub("#", (error.message or "").strip().partition("\n")[0][:LONGEST_REASON])
    return "\n".join((event.status.value, error.type or "", error.origin or "", reason.casefold()))


def message_of(completions: Sequence[Completion], count: int, *, various: bool) -> Message:
    """Return the message of the first of ``count`` completions.

    :param various: whether their causes differ.
    """
    first, one = completions[0], count == 1
    event, signal = first.event, first.event.signal
    thing = "job" if signal is None or signal.kind.of_job else "connection"
    if one:
        title = f"{(first.kind if signal is None else thing).capitalize()} {first.what}: {first.name}"
    else:
        title = f"{count:,} jobs completed, with various results" if various else f"{count:,} {thing}s {first.what}"
    job_id = event.ref.job_id if signal is None else signal.job_id
    name = first.name if job_id is None else f"Job {job_id}"
    facts = {"Reason": None if event.error is None or (various and not one) else str(event.error)}
    if one and signal is None:
        facts["Duration"] = duration(event.duration_seconds)
        facts["Records"] = None if event.records is None else f"{event.records:,}"
    elif one and signal is not None:
        facts["Message"] = signal.message
    facts |= {"Workspace": first.connection.workspace if one else None, "Instance": event.ref.instance}
    return Message(
        title=title,
        facts=[(label, one_line(value, LONGEST_REASON)) for label, value in facts.items() if value],
        jobs=[
            Line(text=name if one else each.line + (f" {each.what}" if various else ""), url=each.url)
            for each in completions
        ],
        more=count - len(completions),
    )


def one_line(text: str, most: int) -> str:
    """Return a text on one line, without control characters, cut after ``most`` characters."""
    text = shown(" ".join(text.split()))
    return text if len(text) <= most else text[: most - 1] + "…"
