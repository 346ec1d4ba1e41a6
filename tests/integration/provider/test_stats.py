"""What the triggerer counts in Airflow's own metrics."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from airbyte_events_provider.stats import Stats
from support.airflow_stage import AirflowStage
from support.listener import Running

try:
    from airflow._shared.observability.metrics.base_stats_logger import NoStatsLogger
except ImportError:  # Airflow 3.0 and 3.1
    from airflow.metrics.base_stats_logger import NoStatsLogger  # type: ignore[import-not-found, no-redef]

pytestmark = pytest.mark.anyio


class Recorder(NoStatsLogger):
    """A backend of Airflow's metrics, such as the one for StatsD, that keeps what it is told."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.times: dict[str, timedelta] = {}
        self.threads: dict[str, threading.Thread] = {}

    def incr(  # type: ignore[override]
        self, stat: str, count: int = 1, rate: float = 1, *, tags: Any = None
    ) -> None:
        self.counts[stat] += count
        self.threads.setdefault(stat, threading.current_thread())

    def timing(  # type: ignore[override]
        self, stat: str, dt: Any, *, tags: Any = None
    ) -> None:
        self.times[stat] = dt


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    recorder = Recorder()
    if hasattr(Stats, "instance"):  # Airflow 3.0 and 3.1
        monkeypatch.setattr(Stats, "instance", recorder)
        yield recorder
        return
    from airflow.observability.stats import initialize

    initialize(factory=lambda: recorder, export_legacy_names=True)
    yield recorder
    initialize(factory=NoStatsLogger, export_legacy_names=True)


async def test_an_end_that_was_pushed(stage: AirflowStage, listener: Running, recorder: Recorder) -> None:
    job = stage.start()
    assert (await stage.completed(job))["job"]["origin"] == "webhook"
    assert recorder.counts["airbyte_events.ends.webhook"] == 1
    assert recorder.times.keys() == {"airbyte_events.ends.webhook.lag", "airbyte_events.ends.webhook.delivery"}
    assert all(timedelta(0) <= time < timedelta(minutes=1) for time in recorder.times.values())


async def test_an_end_that_was_found_and_what_was_asked_for_it(stage: AirflowStage, recorder: Recorder) -> None:
    job = stage.start()
    firing = stage.firing(stage.trigger(job))
    await stage.until(lambda: stage.requests("GET /jobs") > 2)
    stage.end(job)
    assert (await firing)["job"]["origin"] == "poll"
    assert recorder.counts["airbyte_events.ends.poll"] == 1
    assert recorder.counts["airbyte_events.requests"] > 3


async def test_the_first_metric_of_a_process_does_not_block_the_event_loop(
    stage: AirflowStage, recorder: Recorder
) -> None:
    job = stage.start()
    await stage.completed(job)
    assert recorder.counts["airbyte_events.hubs"] == 1
    assert next(iter(recorder.counts)) == "airbyte_events.hubs", "before the client's first response"
    assert recorder.threads["airbyte_events.hubs"] is not threading.current_thread()
