"""Supervision: log what a task raises, and restart it after a delay."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping

import anyio

from airbyte_events._utils.backoff import pause

logger = logging.getLogger(__name__)


async def supervise(
    name: str,
    source: Callable[[], Awaitable[None]],
    faults: MutableMapping[str, str],
    *,
    steady: float = 10.0,
    first: float = 1.0,
) -> None:
    """Run a function until it returns or is cancelled; restart it if it raises.

    An unexpected error stops neither the process's other tasks nor, for ever, this one.

    :param name: in the log and in ``faults``.
    :param faults: has the reason from a failure until the function has run for ``steady`` seconds.
    :param first: seconds until the first restart, see :func:`~airbyte_events._utils.backoff.pause`.
    """
    failures = 0

    async def count_as_running() -> None:
        nonlocal failures
        await anyio.sleep(steady)
        failures = 0
        faults.pop(name, None)

    while True:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(count_as_running)
                await source()
                tasks.cancel_scope.cancel()
        except Exception as exc:  # also a fault of our own must not end the other tasks
            failures += 1
            faults[name] = f"fails: {_cause(exc)}"
            # Only the first traceback: repeated ones would hide other lines.
            logger.error("%s failed, restarting: error=%s", name, _cause(exc), exc_info=exc if failures == 1 else None)
        else:
            faults.pop(name, None)
            return
        await anyio.sleep(pause(failures - 1, first=first))


def _cause(exc: BaseException) -> str:
    """Return the type of the first error in a group. Its message could contain secrets."""
    while (inner := getattr(exc, "exceptions", None)) is not None:
        exc = inner[0]
    return type(exc).__name__
