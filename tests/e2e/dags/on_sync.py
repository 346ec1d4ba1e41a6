"""A DAG that runs whenever a sync of one Airbyte connection succeeds, whoever started it."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airbyte_events_provider.triggers.airbyte import AirbyteSyncEventTrigger

trigger = AirbyteSyncEventTrigger(connection_ids="0a55e7e0-0000-4000-8000-000000000001")
asset = Asset("synced_orders", watchers=[AssetWatcher(name="synced", trigger=trigger)])

with DAG(dag_id="on_sync", schedule=[asset]):

    @task
    def jobs(triggering_asset_events: Any = None) -> list[int]:
        """The jobs whose ends the run is for."""
        return [event.extra["payload"]["job_id"] for event in triggering_asset_events[asset]]

    jobs()
