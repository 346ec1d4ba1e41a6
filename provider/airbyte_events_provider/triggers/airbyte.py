"""The triggers, at the class paths that Airflow stores and DAGs import."""

from typing import TYPE_CHECKING, Any

from airbyte_events_provider.triggers.connection import AirbyteConnectionSyncTrigger
from airbyte_events_provider.triggers.job import AirbyteSyncTrigger
from airbyte_events_provider.triggers.start import AirbyteStartTrigger

if TYPE_CHECKING:
    from airbyte_events_provider.triggers.watcher import AirbyteSyncEventTrigger

__all__ = ["AirbyteConnectionSyncTrigger", "AirbyteStartTrigger", "AirbyteSyncEventTrigger", "AirbyteSyncTrigger"]


def __getattr__(name: str) -> Any:
    # Its module imports all that a watcher does: a triggerer needs it only where an asset has a watcher.
    if name == "AirbyteSyncEventTrigger":
        from airbyte_events_provider.triggers.watcher import AirbyteSyncEventTrigger

        return AirbyteSyncEventTrigger
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
