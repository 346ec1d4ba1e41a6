"""A deferral takes a few seconds at least: Airflow fails tasks that are queued again sooner."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from airflow.triggers.base import TaskSuccessEvent

from airbyte_events._utils.times import format_time, utcnow
from airbyte_events_provider.triggers.airbyte import AirbyteConnectionSyncTrigger, AirbyteSyncTrigger
from airbyte_events_provider.waiting.deferral import shortest_deferral
from support.airflow_stage import AirflowStage
from support.listener import Running

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("task_states")]

LEAST = 1.0


@pytest.fixture(autouse=True)
def least(stage: AirflowStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__MIN_DEFERRAL", f"{LEAST}")


def waiting(trigger: Any) -> Any:
    """As the triggerer has it: with the task instance that waits."""
    ti = SimpleNamespace(task_id="sync", dag_id="orders", run_id="run", map_index=-1, task=None, try_number=1)
    trigger.task_instance = ti
    return trigger


async def seconds(trigger: Any) -> tuple[Any, float]:
    """Its event, and how long that took."""
    began = anyio.current_time()
    (event,) = [event async for event in trigger.run()]
    return event, anyio.current_time() - began


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
async def test_a_job_that_has_ended_already_resumes_its_task_after_the_shortest_deferral(
    stage: AirflowStage, status: str
) -> None:
    job = stage.end(stage.start(), status)
    event, took = await seconds(waiting(stage.trigger(job)))
    assert event.payload["job_id"] == job.id
    assert took >= LEAST


async def test_so_does_a_deadline(stage: AirflowStage) -> None:
    event, took = await seconds(waiting(stage.trigger(stage.start(), end_time=time.time())))
    assert event.payload["job"] is None
    assert took >= LEAST


async def test_so_does_the_sync_that_a_sensor_waits_for(stage: AirflowStage) -> None:
    stage.end(stage.start())
    trigger = AirbyteConnectionSyncTrigger(
        stage.connection_id, "airbyte_default", format_time(utcnow().replace(hour=0)) or "", time.time() + 30, 0.1
    )
    event, took = await seconds(waiting(trigger))
    assert event.payload["job_id"] == 1
    assert took >= LEAST


async def test_a_longer_job_is_not_held_up(stage: AirflowStage, listener: Running) -> None:
    job = stage.start()
    trigger: AirbyteSyncTrigger = waiting(stage.trigger(job))
    ended: list[float] = []

    async def end() -> None:
        await anyio.sleep(LEAST)
        stage.end(job)
        ended.append(anyio.current_time())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end)
        await seconds(trigger)
        assert anyio.current_time() - ended[0] < LEAST


@pytest.mark.needs_airflow(3, 3, "tasks that end in the triggerer")
async def test_a_task_that_ends_in_the_triggerer_is_not_held_up(
    stage: AirflowStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__MIN_DEFERRAL", "30")
    job = stage.end(stage.start())
    event, took = await seconds(waiting(stage.trigger(job, end_from_trigger=True)))
    assert isinstance(event, TaskSuccessEvent)
    assert took < 30


async def test_nor_is_one_that_no_scheduler_runs(stage: AirflowStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__MIN_DEFERRAL", "30")
    job = stage.end(stage.start())
    _, took = await seconds(stage.trigger(job))
    assert took < 30


def test_by_default_it_outlasts_the_pause_in_which_airflow_misses_the_end_of_a_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AIRFLOW__AIRBYTE_EVENTS__MIN_DEFERRAL")
    assert shortest_deferral() == 10
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "2")
    assert shortest_deferral() == 7


def test_where_workers_are_slow_it_takes_as_much_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW__AIRBYTE_EVENTS__MIN_DEFERRAL")
    assert shortest_deferral(time.time() - 7) == pytest.approx(17, abs=1)
    assert shortest_deferral(time.time() - 3600) == 30
    # The triggerer's clock is behind the worker's.
    assert shortest_deferral(time.time() + 3600) == 10
