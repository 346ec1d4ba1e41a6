"""The base class of triggers: serializes their arguments.

A triggerer imports this module and those of most triggers on its event loop: they import nothing that takes long. See
:mod:`airbyte_events_provider.triggers.importing`.
"""

from __future__ import annotations

import inspect
from typing import Any

from airflow.triggers.base import BaseTrigger

from airbyte_events_provider.arguments import check_arguments

_PUBLIC = "airbyte_events_provider.triggers.airbyte"
"""The module of the class paths that Airflow stores, whichever module defines the class."""

LATER_ARGUMENTS = ("connection_name", "workspace_id", "refresh_mode", "streams")
"""Arguments that 0.1.0 does not have. Left out if not set, so that a watcher keeps the position that it had there."""


class StoredTrigger(BaseTrigger):
    """A trigger whose attributes are its constructor's arguments, from which a triggerer recreates it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __post_init__(self) -> None:
        # For dataclasses.
        StoredTrigger.__init__(self)
        check_arguments(type(self), vars(self))

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments, which contain no secrets."""
        made = type(self)
        module = _PUBLIC if made.__module__.startswith("airbyte_events_provider.triggers.") else made.__module__
        arguments = {name: getattr(self, name) for name in inspect.signature(made).parameters}
        given = {name: value for name, value in arguments.items() if value or name not in LATER_ARGUMENTS}
        return f"{module}.{made.__qualname__}", given
