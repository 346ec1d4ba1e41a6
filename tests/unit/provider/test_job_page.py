"""The page of a task's job: its HTML, and the reference by which it finds the job."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airbyte_events.events import JobError, JobEvent, JobRef, JobStatus, Origin
from airbyte_events_provider.plugins.job_html import render
from airbyte_events_provider.plugins.job_view import JobView, TaskTimes
from airbyte_events_provider.waiting.wait_start import JobReference

NOON = datetime(2026, 5, 17, 12, tzinfo=UTC)
HOSTILE = "\"><script>alert('&')</script>"
REFERENCE = JobReference(
    job_id=17,
    airbyte_conn_id="airbyte_default",
    connection_id="co",
    started_at=NOON,
    usual_seconds=240.0,
    name="Orders",
)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def viewed(**values: Any) -> JobView:
    job = JobEvent(
        ref=JobRef("default", 17),
        status=JobStatus.RUNNING,
        observed_at=NOON,
        origin=Origin.POLL,
        connection_id="co",
        job_type="sync",
        started_at=NOON,
    )
    of_view = {name: values.pop(name) for name in ("webhook_at", "observed_at") if name in values}
    return JobView(
        reference=REFERENCE, read_at=at(60), source="the listener http://l", job=replace(job, **values), **of_view
    )


def test_a_running_job_has_a_bar_against_the_usual_duration() -> None:
    page = render(viewed(records=12345), TaskTimes(state="deferred"))
    assert '<progress max="240" value="60" aria-label="Time">1 min of usually 4 min</progress>' in page
    assert "<tr><th>Records so far</th><td>12,345</td></tr>" in page
    assert '<meta http-equiv="refresh" content="10">' in page
    assert "As of 2026-05-17 12:01:00 UTC, by the listener http://l." in page
    assert "<svg" not in page


def test_what_is_not_known_is_left_out() -> None:
    view = replace(viewed(started_at=None), reference=JobReference(job_id=17, airbyte_conn_id="a"))
    page = render(view, TaskTimes())
    assert "<h1>Airbyte job 17</h1>" in page
    assert "None" not in page
    assert "<progress" not in page


@pytest.mark.parametrize(
    ("origin", "webhook_at", "steps"),
    [
        (Origin.WEBHOOK, 301, [("The webhook arrived", "1.0 s"), ("API confirmed it, and it was published", "250 ms")]),
        (Origin.WEBHOOK, None, [("API confirmed it, and it was published", "1.2 s")]),
        (Origin.POLL, None, [("A poll detected it", "1.2 s")]),
    ],
)
def test_a_completed_job_has_a_waterfall(
    origin: Origin, webhook_at: float | None, steps: list[tuple[str, str]]
) -> None:
    view = viewed(
        status=JobStatus.SUCCEEDED,
        finished_at=at(300),
        origin=origin,
        webhook_at=None if webhook_at is None else at(webhook_at),
        observed_at=at(301.25),
    )
    page = render(view, TaskTimes(state="success", ended_at=at(303.25)))
    found = re.findall(r'<tr><th>([^<]*)</th><td class="took">([^<]*)</td>', page)
    assert [(text.removeprefix("Airbyte&#x27;s "), took) for text, took in found] == [
        *steps,
        ("The task completed", "2.0 s"),
    ]
    bars = [(float(x), float(width)) for x, width in re.findall(r'<rect x="([0-9.]+)" y="3" width="([0-9.]+)"', page)]
    assert all(x >= 0 and x + width <= 1000.2 for x, width in bars)
    assert bars == sorted(bars)
    assert "refresh" not in page


@pytest.mark.parametrize(
    ("times", "steps"),
    [
        # Deferred, and resumed in a worker.
        (
            TaskTimes(started_at=at(1), scheduled_at=at(302), queued_at=at(302.5), ended_at=at(304.5)),
            [
                ("A poll detected it", "1.2 s"),
                ("The trigger fired, and Airflow scheduled the task", "750 ms"),
                ("The task was queued for a worker", "500 ms"),
                ("The task completed", "2.0 s"),
            ],
        ),
        # Its trigger polled Airbyte before the listener did.
        (
            TaskTimes(started_at=at(1), scheduled_at=at(301), queued_at=at(0)),
            [("The trigger fired, and Airflow scheduled the task", "1.0 s"), ("A poll detected it", "250 ms")],
        ),
        # In a worker: it was scheduled before it started.
        (
            TaskTimes(started_at=at(1), scheduled_at=at(0), queued_at=at(0.5), ended_at=at(302)),
            [("A poll detected it", "1.2 s"), ("The task completed", "750 ms")],
        ),
    ],
)
def test_airflow_s_steps_are_those_that_it_recorded(times: TaskTimes, steps: list[tuple[str, str]]) -> None:
    view = viewed(status=JobStatus.SUCCEEDED, finished_at=at(300), origin=Origin.POLL, observed_at=at(301.25))
    page = render(view, times)
    assert re.findall(r'<tr><th>([^<]*)</th><td class="took">([^<]*)</td>', page) == steps


def test_times_of_several_clocks_make_no_negative_steps() -> None:
    """Airbyte's are whole seconds, and may be ahead of the listener's."""
    view = viewed(
        status=JobStatus.SUCCEEDED,
        finished_at=at(300),
        origin=Origin.WEBHOOK,
        webhook_at=at(299),
        observed_at=at(299.5),
    )
    page = render(view, TaskTimes(ended_at=at(299.6)))
    assert re.findall(r'class="took">([^<]*)<', page) == ["0 ms"] * 3


@pytest.mark.parametrize("fault", [None, HOSTILE])
def test_every_value_is_escaped(fault: str | None) -> None:
    view = replace(
        viewed(
            status=JobStatus.FAILED,
            job_type=HOSTILE,
            connection_id=HOSTILE,
            finished_at=at(1),
            error=JobError(message=HOSTILE, type=HOSTILE, origin=HOSTILE),
        ),
        reference=replace(REFERENCE, name=HOSTILE),
        source=HOSTILE,
        fault=fault,
    )
    page = render(view if fault is None else replace(view, job=None), TaskTimes(state=HOSTILE))
    assert "script>" not in page.replace("&lt;script&gt;", "").replace("&lt;/script&gt;", "")
    assert page.count("&lt;script&gt;") >= (6 if fault is None else 2)


def test_a_reference_is_read_as_it_was_written() -> None:
    assert JobReference.parse(REFERENCE.values()) == REFERENCE


@pytest.mark.parametrize(
    "values",
    [
        None,
        "text",
        [1],
        {},
        {"job_id": 17},
        {"job_id": "x", "airbyte_conn_id": "a"},
        {"job_id": 17, "airbyte_conn_id": 4},
        {"job_id": 17, "airbyte_conn_id": "a", "listener_conn_id": {}},
    ],
)
def test_another_value_is_no_reference(values: object) -> None:
    assert JobReference.parse(values) is None


def test_wrong_values_that_are_not_needed_are_unknown() -> None:
    wrong = {"connection_id": 1, "name": [], "started_at": "soon", "usual_seconds": -1, "more": True}
    assert JobReference.parse({"job_id": 17, "airbyte_conn_id": "a", **wrong}) == JobReference(
        job_id=17, airbyte_conn_id="a"
    )
