"""What a task's lineage is made of, and that it costs the task nothing."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import anyio.to_thread
import pytest
from asgiref.sync import sync_to_async

from airbyte_events.errors import AirbyteError
from airbyte_events.simulator import Fault
from airbyte_events_provider.connections.read import aread_airbyte
from airbyte_events_provider.hooks.airbyte import AirbyteHook
from airbyte_events_provider.openlineage.datasets import Name
from airbyte_events_provider.openlineage.extractor import Tables, find_tables, lineage
from support.airflow_stage import AirflowStage

pytestmark = pytest.mark.anyio

has_openlineage = find_spec("airflow.providers.openlineage") is not None
openlineage = pytest.mark.skipif(not has_openlineage, reason="the OpenLineage provider is not installed")

TOLD = {
    "status": "success",
    "message": "done",
    "job_id": 7,
    "job": {"job_type": "sync", "records": 12, "bytes": 340, "status": "succeeded"},
}


@pytest.fixture
def databases(stage: AirflowStage) -> Any:
    """The connection copies one table of a PostgreSQL to a Snowflake."""
    world = stage.sim.world
    (source,), (destination,) = world.sources.values(), world.destinations.values()
    source.type, source.configuration = "postgres", {"host": "db", "database": "shop", "password": "**********"}
    destination.type = "snowflake"
    destination.configuration = {"host": "org-acc.snowflakecomputing.com", "database": "DWH", "schema": "RAW"}
    connection = world.connections[stage.connection_id]
    connection.streams["configurations"]["streams"] = [{"name": "orders", "namespace": "public"}]
    return stage


READ = Name("postgres://db:5432", "shop.public.orders")
WRITTEN = Name("snowflake://org-acc", "DWH.RAW.orders")


async def test_the_tables_of_a_connection(databases: Any) -> None:
    settings = await aread_airbyte("airbyte_default")
    assert await find_tables(settings, databases.connection_id) == Tables(read=(READ,), written=(WRITTEN,))


async def test_who_may_not_see_the_source_gets_airbytes_name_for_it(databases: Any) -> None:
    databases.sim.add_fault(Fault(kind="status", status=403, route="GET /sources/{id}"))
    tables = await find_tables(await aread_airbyte("airbyte_default"), databases.connection_id)
    assert tables.written == (WRITTEN,)
    assert [(table.namespace.startswith("airbyte://127.0.0.1"), table.name) for table in tables.read] == [
        (True, "public.orders")
    ]


async def test_trouble_is_told_after_one_attempt(databases: Any) -> None:
    databases.sim.add_fault(Fault(kind="status", status=503))
    with pytest.raises(AirbyteError):
        await find_tables(await aread_airbyte("airbyte_default"), databases.connection_id)
    assert databases.requests("GET /connections/{id}") <= 1


async def test_trouble_costs_the_lineage_alone(databases: Any) -> None:
    databases.sim.add_fault(Fault(kind="status", status=503))
    assert await anyio.to_thread.run_sync(lineage, AirbyteHook(), databases.connection_id, TOLD) is None
    assert await anyio.to_thread.run_sync(lineage, AirbyteHook(), "no id/../at all", TOLD) is None
    assert await anyio.to_thread.run_sync(lineage, AirbyteHook("no_such"), databases.connection_id, TOLD) is None


@pytest.mark.skipif(has_openlineage, reason="the OpenLineage provider is installed")
async def test_without_the_provider_nobody_is_asked(databases: Any) -> None:
    assert await anyio.to_thread.run_sync(lineage, AirbyteHook(), databases.connection_id, TOLD) is None
    assert databases.requests("GET /connections/{id}") == 0


@openlineage
async def test_the_lineage_of_a_sync(databases: Any) -> None:
    told: Any = await anyio.to_thread.run_sync(lineage, AirbyteHook(), databases.connection_id, TOLD)
    assert [(each.namespace, each.name) for each in told.inputs] == [(READ.namespace, READ.name)]
    (output,) = told.outputs
    assert (output.namespace, output.name) == (WRITTEN.namespace, WRITTEN.name)
    statistics = output.outputFacets["outputStatistics"]
    assert (statistics.rowCount, statistics.size) == (12, 340)
    assert told.run_facets["externalQuery"].externalQueryId == "7"
    assert "errorMessage" not in told.run_facets


@openlineage
async def test_a_sum_over_several_tables_is_none_of_theirs(databases: Any) -> None:
    connection = databases.sim.world.connections[databases.connection_id]
    connection.streams["configurations"]["streams"].append({"name": "items", "namespace": "public"})
    told: Any = await anyio.to_thread.run_sync(lineage, AirbyteHook(), databases.connection_id, TOLD)
    assert [each.outputFacets for each in told.outputs] == [{}, {}]


@openlineage
async def test_a_reset_reads_nothing_and_a_failure_says_why(databases: Any) -> None:
    failed = {"status": "error", "message": "Wrong password", "job_id": 7, "job": {"job_type": "reset"}}
    told: Any = await anyio.to_thread.run_sync(lineage, AirbyteHook(), databases.connection_id, failed)
    assert told.inputs == []
    assert told.run_facets["errorMessage"].message == "Wrong password"
    told = await anyio.to_thread.run_sync(lineage, AirbyteHook(), databases.connection_id, None)
    assert told.run_facets == {}


async def test_the_workspace_for_links(stage: AirflowStage) -> None:
    find = sync_to_async(AirbyteHook().find_airbyte_connection)
    assert (await find(stage.connection_id))["workspaceId"] == stage.sim.workspace.id
    assert await find("no id") == {}
    stage.sim.add_fault(Fault(kind="status", status=500, route="GET /connections/{id}"))
    assert await find(stage.connection_id) == {}
    assert stage.requests("GET /connections/{id}") == 2
