"""What the triggers have in common: Airflow stores them by their arguments, and no failure ends them silently."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import Any

from airflow.triggers.base import BaseTrigger

from airbyte_events.errors import AirbyteEventsError
from airbyte_events_provider.arguments import check_arguments
from airbyte_events_provider.waiting.result import ERROR, without_job

_PUBLIC = "airbyte_events_provider.triggers.airbyte"
"""The module of the class paths that Airflow has stored, wherever the class lives."""


class StoredTrigger(BaseTrigger):
    """A trigger that is made again in a triggerer from its constructor's arguments, which are its attributes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __post_init__(self) -> None:
        # Of a trigger that is a dataclass.
        StoredTrigger.__init__(self)
        check_arguments(type(self), vars(self))

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments; none of them is secret."""
        made = type(self)
        module = _PUBLIC if made.__module__.startswith("airbyte_events_provider.triggers.") else made.__module__
        arguments = {name: getattr(self, name) for name in inspect.signature(made).parameters}
        return f"{module}.{made.__qualname__}", arguments

    async def _guarded(self, wait: Awaitable[dict[str, Any]], what: str, job_id: int | None = None) -> dict[str, Any]:
        """Return the result of a wait, or its failure as one: a trigger without an event fails its task silently."""
        try:
            return await wait
        except AirbyteEventsError as exc:
            message = f"Waiting for {what} failed: {exc}"
        except Exception as exc:
            self.log.exception("waiting for %s failed", what)
            message = f"Waiting for {what} failed: {type(exc).__name__}: {exc}"
        return without_job(ERROR, message, job_id)
