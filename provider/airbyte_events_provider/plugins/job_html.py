"""The HTML of a job's page: no script, and every value escaped."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from html import escape

from airbyte_events._utils.times import duration
from airbyte_events.events import JobEvent, Origin
from airbyte_events_provider.plugins.job_view import JobView, TaskTimes

REFRESH_SECONDS = 10

STYLE = """\
:root { color-scheme: light dark; }
body { font: 14px/1.5 system-ui, sans-serif; margin: 1.5rem; max-width: 60rem; }
h1 { font-size: 1.25rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { margin: .5rem 0; overflow-wrap: anywhere; }
progress { width: 100%; height: 1rem; accent-color: #6c51fd; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: 600; width: 14rem; }
td.took { white-space: nowrap; width: 6rem; text-align: right; }
svg { display: block; height: 1.25rem; width: 100%; }
rect { fill: #6c51fd; }
.succeeded { color: light-dark(#12703c, #6fdc9c); }
.failed { color: light-dark(#b3261e, #ff9a8f); }
.cancelled { color: light-dark(#7a5400, #f0c14b); }
.aside { color: light-dark(#595f69, #a8b0bd); }
"""


def render(view: JobView | None, task: TaskTimes) -> str:
    """Return the page.

    :param view: the job; None if the task has recorded none.
    :param task: the task instance.
    """
    active = view is not None and (view.job is None or not view.job.terminal)
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Airbyte job</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">' if active else "",
            # Relative: Airflow may be served below a path.
            '<link rel="stylesheet" href="../../../../../../style.css"></head><body><main>',
            *(_none() if view is None else _job(view, task)),
            "</main></body></html>\n",
        ]
    )


def _none() -> Iterator[str]:
    yield "<h1>No Airbyte job</h1>"
    yield "<p>This task waits for no Airbyte job, or has not begun to. Only tasks of airbyte-events have one here.</p>"


def _job(view: JobView, task: TaskTimes) -> Iterator[str]:
    reference, job = view.reference, view.job
    name = reference.name or reference.connection_id or ""
    yield f"<h1>Airbyte job {reference.job_id}{' of ' if name else ''}{escape(name)}</h1>"
    if job is None:
        yield f'<p class="failed">The job can\'t be shown: {escape(view.fault or "unknown")}</p>'
        return
    kind = f"{job.job_type}, " if job.job_type else ""
    yield f'<p><strong class="{escape(job.status.value)}">{escape(kind + job.status.value)}</strong></p>'
    if job.error is not None:
        yield f'<p class="failed">{escape(str(job.error))}</p>'
    elapsed = _elapsed(job, view.read_at)
    if not job.terminal and elapsed is not None:
        yield from _progress(elapsed, reference.usual_seconds)
    yield "<table>"
    yield from _rows(
        ("Connection", job.connection_id),
        ("Started", _time(job.started_at)),
        ("Completed", _time(job.finished_at)),
        ("Duration" if job.terminal else "Duration so far", duration(elapsed)),
        ("Usually takes", duration(reference.usual_seconds)),
        ("Records" if job.terminal else "Records so far", None if job.records is None else f"{job.records:,}"),
        ("Bytes" if job.terminal else "Bytes so far", None if job.bytes is None else f"{job.bytes:,}"),
        ("Attempts", None if job.attempts is None else str(job.attempts)),
        ("Task", task.state),
    )
    yield "</table>"
    if steps := _steps(view, job, task):
        yield "<h2>From Airbyte's completion to the task's</h2>"
        yield from _waterfall(steps)
    yield f'<p class="aside">As of {_time(view.read_at)}, by {escape(view.source)}.</p>'


def _progress(elapsed: float, usual: float | None) -> Iterator[str]:
    if not usual:
        return
    text = f"{duration(elapsed)} of usually {duration(usual)}"
    yield f'<p><progress max="{usual:.0f}" value="{min(elapsed, usual):.0f}" aria-label="Time">{text}</progress></p>'
    yield f"<p>{text}</p>"


def _rows(*rows: tuple[str, str | None]) -> Iterator[str]:
    for name, value in rows:
        if value:
            yield f"<tr><th>{name}</th><td>{escape(value)}</td></tr>"


Step = tuple[str, datetime, datetime]


def _steps(view: JobView, job: JobEvent, task: TaskTimes) -> list[Step]:
    """Return what happened after the completion, each step with its beginning and end."""
    if job.finished_at is None:
        return []
    pushed = job.origin is Origin.WEBHOOK
    moments = [
        ("The webhook arrived", view.webhook_at if pushed else None),
        ("Airbyte's API confirmed it, and it was published" if pushed else "A poll detected it", view.observed_at),
        ("The trigger fired, and Airflow scheduled the task", task.fired_at),
        ("The task was queued for a worker", task.resumed_at),
        ("The task completed", task.ended_at),
    ]
    known = [(text, moment) for text, moment in moments if moment is not None]
    steps: list[Step] = []
    before = job.finished_at
    # A task that polls itself may be ahead of the listener.
    for text, moment in sorted(known, key=lambda each: each[1]):
        # Airbyte's times are whole seconds, and its clock is another one.
        steps.append((text, before, max(before, moment)))
        before = max(before, moment)
    return steps


def _waterfall(steps: list[Step]) -> Iterator[str]:
    first, last = steps[0][1], steps[-1][2]
    whole = (last - first).total_seconds() or 1.0
    yield "<table>"
    for text, begin, end in steps:
        took = (end - begin).total_seconds()
        start, width = 1000 * (begin - first).total_seconds() / whole, max(2.0, 1000 * took / whole)
        yield f'<tr><th>{escape(text)}</th><td class="took">{duration(took)}</td><td>'
        yield f'<svg viewBox="0 0 1000 20" preserveAspectRatio="none" role="img" aria-label="{duration(took)}">'
        yield f'<rect x="{min(start, 998.0):.1f}" y="3" width="{width:.1f}" height="14"/></svg></td></tr>'
    yield "</table>"


def _elapsed(job: JobEvent, now: datetime) -> float | None:
    if job.duration_seconds is not None or job.started_at is None:
        return job.duration_seconds
    return max(0.0, ((job.finished_at or now) - job.started_at).total_seconds())


def _time(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"
