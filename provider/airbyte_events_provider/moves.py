"""What is done when Airflow ends a trigger: once, to its end, and not where another triggerer has the trigger now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Protocol

import anyio
from asgiref.sync import sync_to_async

logger = logging.getLogger(__name__)

LOOK_SECONDS = 8.0
"""A task that is cleared can be deferred anew before the trigger of its try before has ended, where tries begin in the
triggerer. Such a try goes to a worker at once, so that its task is no longer deferred before this is over."""


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


async def _state(ti: _TaskInstance) -> str | None:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    states = await sync_to_async(RuntimeTaskInstance.get_task_states)(
        dag_id=ti.dag_id,
        task_ids=[ti.task_id],
        run_ids=[ti.run_id],
        map_index=-1 if ti.map_index is None else ti.map_index,
    )
    return next(iter(states.get(ti.run_id, {}).values()), None)
