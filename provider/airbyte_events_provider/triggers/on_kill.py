"""What is done when Airflow ends a task from outside: who decided it, and what that means for the task's job."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from typing import Any, Protocol

import anyio
from asgiref.sync import sync_to_async

logger = logging.getLogger(__name__)

LOOK_SECONDS = 8.0
"""A task that is cleared can be deferred anew before the trigger of its try before has ended, where tries begin in the
triggerer. Such a try goes to a worker at once, so that its task is no longer deferred before this is over."""


_ASK_SECONDS = 2.0
"""A task that a person has ended gets five seconds from Airflow."""

_DECIDED = frozenset({"failed", "success", "skipped", "removed", "restarting", None})
"""The states of a task that a person has acted on; None is one that was deleted."""

_under_way: set[asyncio.Task[None]] = set()


async def to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Do something in ``on_kill``, however long it takes.

    Airflow 3.3 cancels a trigger that is to end once more every second until it has ended, its ``on_kill`` included.
    """
    task = asyncio.create_task(work)
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    await asyncio.shield(task)


class _TaskInstance(Protocol):
    dag_id: str
    task_id: str
    run_id: str
    map_index: int | None


async def has_moved(ti: _TaskInstance | None) -> bool:
    """Whether a task still waits for the trigger that is ended here: then another triggerer has it.

    That happens to a triggerer that was held up for so long that another one took its triggers over, and to two that
    took the same one at the same moment. Airflow 3.3 ends the trigger in the same way as when a person has acted on the
    task, and calls its ``on_kill``, too.

    :param ti: whose trigger it is; nobody's trigger does not move.
    """
    if ti is None:
        return False
    until = anyio.current_time() + LOOK_SECONDS
    try:
        while await _state(ti) == "deferred":
            if anyio.current_time() >= until:
                return True
            await anyio.sleep(0.5)
    except Exception as exc:
        # Airflow's errors here are of many kinds. A sync that runs on can still be cancelled; the other way is none.
        logger.warning("whether the task still waits is not known, so its job is left alone: %s", exc)
        return True
    return False


def ended_by_a_person(ti: _TaskInstance | None) -> bool:
    """Return whether the task that a worker runs is to end since a person has failed, cleared, marked or deleted it.

    A worker that is shut down gets the same signal: its task is ``running`` still. One that the scheduler has given up
    is to be tried again. Where Airflow does not say, nobody has decided anything.
    """
    if ti is None:
        return False
    states: list[str | None] = []

    def ask() -> None:
        try:
            states.append(_read_state(ti))
        except Exception as exc:
            # Airflow's errors here are of many kinds.
            logger.warning("whether a person has ended the task is not known, so its job goes on: %s", exc)

    # In a thread: the signal may have come while the main one talks to Airflow, holding a lock.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_ASK_SECONDS)
    return bool(states) and states[0] in _DECIDED


async def _state(ti: _TaskInstance) -> str | None:
    return await sync_to_async(_read_state)(ti)


def _read_state(ti: _TaskInstance) -> str | None:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    states = RuntimeTaskInstance.get_task_states(
        dag_id=ti.dag_id,
        task_ids=[ti.task_id],
        run_ids=[ti.run_id],
        map_index=-1 if ti.map_index is None else ti.map_index,
    )
    return next(iter(states.get(ti.run_id, {}).values()), None)
