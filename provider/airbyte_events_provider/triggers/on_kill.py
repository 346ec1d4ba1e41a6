"""What Airflow's ``on_kill`` means for a task's job: who ended the task, and whether another triggerer has it."""

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
"""How long to wait until a task is no longer deferred. A task that is cleared can be deferred anew before the trigger
of its try before has ended, where tries begin in the triggerer; such a try goes to a worker at once."""

_ANSWER_SECONDS = 2.0
"""A task that a person has ended gets five seconds from Airflow."""

_BY_A_PERSON = frozenset({"failed", "success", "skipped", "removed", "restarting", None})
"""The states of a task that a person has acted on; None: it was deleted."""

_running: set[asyncio.Task[None]] = set()


async def shielded(work: Coroutine[Any, Any, None]) -> None:
    """Complete the work of an ``on_kill``, however long it takes.

    Airflow 3.3 cancels a trigger that is to end once more every second until it has ended, its ``on_kill`` included.
    """
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
    """Return whether a task still waits for the trigger that is ended here: another triggerer has it then.

    Airflow 3.3 calls ``on_kill`` also in a triggerer that was held up for so long that another one took its triggers
    over, and in one of two that took the same trigger at the same moment.

    :param ti: the trigger's task instance; None: no task waits.
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
        # Airflow's errors here are of many kinds. A sync that goes on can be cancelled later, not the other way round.
        logger.warning("the job goes on: whether its task is still deferred is not known: %s", exc)
        return True
    return False


def ended_by_a_person(ti: _TaskInstance | None) -> bool:
    """Return whether a person has failed, cleared, marked or deleted the task that this worker runs.

    A worker that is shut down gets the same signal, and its task is still ``running``; one that the scheduler has given
    up is to be tried again. If Airflow does not say, no person did.
    """
    if ti is None:
        return False
    states: list[str | None] = []

    def read() -> None:
        try:
            states.append(_read_state(ti))
        except Exception as exc:
            # Airflow's errors here are of many kinds.
            logger.warning("the job goes on: whether a person has ended its task is not known: %s", exc)

    # In a thread: the signal may have come while the main one talks to Airflow, holding a lock.
    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    reading.join(_ANSWER_SECONDS)
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
