"""What happened between a job's completion and its task's, in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

STAGES = ("webhook received", "confirmed", "published", "trigger fired", "task completed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """:param state: the task's, as Airflow has it.
    :param milliseconds: from the job's completion to each of :data:`STAGES`; None for what did not happen, or was not
        seen.
    :param requests: to Airbyte's API while the task waited: those about its job alone, and those about all jobs; None
        if they were not counted.
    """

    task_id: str
    state: str | None
    milliseconds: Mapping[str, float | None]
    requests: tuple[int, int] | None


def timeline(
    task_id: str,
    *,
    state: str | None,
    ended: datetime | None,
    received: datetime | None,
    confirmed: datetime | None,
    published: datetime | None,
    fired: datetime | None,
    finished: datetime | None,
    requests: tuple[int, int] | None,
) -> Timeline:
    """The way of one task. Times are aware and of one machine's clock; None is unknown.

    :param ended: the job, as Airbyte reports it.
    :param received: the webhook, by the listener.
    :param confirmed: the job's state, by the API.
    :param published: the event, as a reader of the listener's feed in another process saw it.
    :param fired: the trigger; None for a task that waited in its worker.
    :param finished: the task.
    :param requests: to Airbyte's API: about this job alone, and about all jobs.
    """
    moments = dict(zip(STAGES, (received, confirmed, published, fired, finished), strict=True))
    return Timeline(
        task_id=task_id,
        state=state,
        milliseconds={
            stage: None if ended is None or moment is None else (moment - ended).total_seconds() * 1000
            for stage, moment in moments.items()
        },
        requests=requests,
    )


def table(timelines: Iterable[Timeline]) -> Table:
    """For a Rich console: a row for each task, a column for each stage."""
    drawn = Table(
        title="Milliseconds after the job's completion. Requests: for the job + for all jobs",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    drawn.add_column("task", no_wrap=True)
    drawn.add_column("state", no_wrap=True)
    for stage in STAGES:
        # As wide as its longest word: a heading is broken between its words only.
        drawn.add_column(stage, justify="right", min_width=max(map(len, stage.split())))
    drawn.add_column("requests", justify="right", no_wrap=True)
    for line in timelines:
        drawn.add_row(
            line.task_id,
            line.state or "none",
            *(_cell(line.milliseconds[stage]) for stage in STAGES),
            "-" if line.requests is None else "{} + {}".format(*line.requests),
            style=None if line.state == "success" else "red",
        )
    return drawn


def _cell(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds:.0f}"
