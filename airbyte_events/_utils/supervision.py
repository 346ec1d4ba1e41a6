"""Keeping alive what is to run for ever: what it raises is logged, and it begins again after a pause."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping

import anyio

from airbyte_events._utils.backoff import pause

logger = logging.getLogger(__name__)

STEADY_SECONDS = 10.0
"""What has run for so long counts as running."""


async def supervise(
    name: str,
    source: Callable[[], Awaitable[None]],
    faults: MutableMapping[str, str],
    *,
    steady: float = STEADY_SECONDS,
    first: float = 1.0,
) -> None:
    """Run something until it returns or is cancelled, again and again if it raises.

    An error that this package does not expect is a fault of its own: it must not end what else the process does, nor
    leave those waiting who rely on the source.

    :param name: what it is called in the log and in ``faults``.
    :param faults: says why it does not run, from its failure until it has run for ``steady`` seconds.
    :param first: seconds until the first of the later tries, see :func:`~airbyte_events._utils.backoff.pause`.
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
        except Exception as exc:
            failures += 1
            faults[name] = f"fails: {_cause(exc)}"
            # The same traceback again and again would hide all else.
            logger.error("%s fails and is begun again: %s", name, _cause(exc), exc_info=exc if failures == 1 else None)
        else:
            faults.pop(name, None)
            return
        await anyio.sleep(pause(failures - 1, first=first))


def _cause(exc: BaseException) -> str:
    """The first error's kind: a task group wraps what is raised in it. Its words may hold anything, secrets too."""
    while (inner := getattr(exc, "exceptions", None)) is not None:
        exc = inner[0]
    return type(exc).__name__
