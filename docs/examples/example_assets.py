"""Run a DAG whenever a connection has synced, whether Airbyte's schedule, a person or a DAG started the sync."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airbyte_events_provider.triggers.airbyte import AirbyteSyncEventTrigger

orders = Asset(
    "orders",
    watchers=[
        AssetWatcher(
            name="orders_synced",
            trigger=AirbyteSyncEventTrigger(connection_ids="7b480e47-6992-5e8b-9c8a-acfd34a1b7bc"),
        )
    ],
)

with DAG(dag_id="example_assets", schedule=[orders]):

    @task
    def report(triggering_asset_events: Any = None) -> list[str]:
        """Describe the synced records."""
        jobs = [event.extra["payload"] for event in triggering_asset_events[orders]]
        return [f"job {job['job_id']}: {job['records']} records" for job in jobs]

    report()
