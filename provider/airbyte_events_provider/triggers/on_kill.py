"""Airflow's ``on_kill``: whether a person ended the task, or another triggerer or worker continues it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from typing import Any, Protocol

import anyio
from asgiref.sync import sync_to_async

logger = logging.getLogger(__name__)

STATE_SECONDS = 8.0
"""How long to wait until a task is no longer deferred. Where tries begin in the triggerer, a cleared task can be
deferred again before the previous try's trigger has ended; such a try goes to a worker at once."""

_READ_SECONDS = 2.0
"""Airflow gives a task that a person has ended five seconds."""

_BY_A_PERSON = frozenset({"failed", "success", "skipped", "removed", "restarting", None})
"""The states of a task that a person has acted on; None: it was deleted."""

_running: set[asyncio.Task[None]] = set()


async def shielded(work: Coroutine[Any, Any, None]) -> None:
    """Complete the work of an ``on_kill``, although Airflow 3.3 cancels the trigger again every second."""
    task = asyncio.create_task(work)
    _running.add(task)
    task.add_done_callback(_running.discard)
    await asyncio.shield(task)


class _TaskInstance(Protocol):
    dag_id: str
    task_id: str
    run_id: str
    map_index: int | None


async def is_still_deferred(ti: _TaskInstance | None) -> bool:
    """Return whether the task still waits for the ending trigger, which another triggerer then runs.

    Airflow 3.3 also calls ``on_kill`` in a triggerer that was blocked for so long that another one took over its
    triggers, and in one of two that took the same trigger at the same moment.

    :param ti: the trigger's task instance; None without a triggerer.
    """
    if ti is None:
        return False
    until = anyio.current_time() + STATE_SECONDS
    try:
        while await sync_to_async(_read_state)(ti) == "deferred":
            if anyio.current_time() >= until:
                return True
            await anyio.sleep(0.5)
    except Exception as exc:
        # Airflow raises errors of many types. A running sync can still be cancelled later.
        logger.warning("the job continues: unknown whether its task is still deferred: %s", exc)
        return True
    return False


def ended_by_a_person(ti: _TaskInstance | None) -> bool:
    """Return whether a person has failed, cleared, marked or deleted the task that this worker runs.

    A worker that shuts down receives the same signal while its task is ``running``; a task that the scheduler has given
    up is to be retried. If Airflow does not return the state, the result is False.
    """
    if ti is None:
        return False
    states: list[str | None] = []

    def read() -> None:
        try:
            states.append(_read_state(ti))
        except Exception as exc:
            # Airflow raises errors of many types.
            logger.warning("the job continues: unknown whether a person ended its task: %s", exc)

    # In a thread: at the signal, the main thread may hold a lock for a request to Airflow.
    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    reading.join(_READ_SECONDS)
    return bool(states) and states[0] in _BY_A_PERSON


def _read_state(ti: _TaskInstance) -> str | None:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    states = RuntimeTaskInstance.get_task_states(
        dag_id=ti.dag_id,
        task_ids=[ti.task_id],
        run_ids=[ti.run_id],
        map_index=-1 if ti.map_index is None else ti.map_index,
    )
    return next(iter(states.get(ti.run_id, {}).values()), None)
