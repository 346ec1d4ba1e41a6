"""The triggers, at the class paths that Airflow stores and DAGs import."""

from airbyte_events_provider.triggers.connection import AirbyteConnectionSyncTrigger
from airbyte_events_provider.triggers.job import AirbyteSyncTrigger
from airbyte_events_provider.triggers.start import AirbyteStartTrigger
from airbyte_events_provider.triggers.watcher import AirbyteSyncEventTrigger

__all__ = ["AirbyteConnectionSyncTrigger", "AirbyteStartTrigger", "AirbyteSyncEventTrigger", "AirbyteSyncTrigger"]
