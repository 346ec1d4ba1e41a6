"""OpenLineage of a task that ran an Airbyte job, where Airflow's OpenLineage provider is installed.

Data that Airbyte does not return is left out of the lineage, and never fails the task.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
from airflow.providers.common.compat.sdk import AirflowException

from airbyte_events._utils.json_values import mapping, text
from airbyte_events.errors import AirbyteError, AirbyteEventsError
from airbyte_events_provider.blocking import run_blocking
from airbyte_events_provider.connections.clients import open_airbyte
from airbyte_events_provider.connections.settings import AirbyteSettings
from airbyte_events_provider.openlineage.datasets import Actor, Name, read_names, written_names
from airbyte_events_provider.waiting.result import SUCCESS

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airbyte_events_provider.hooks.airbyte import AirbyteHook

logger = logging.getLogger(__name__)

LINEAGE_SECONDS = 8.0
"""Airflow gives the extraction of a task's lineage 10 s in all."""


class Tables(NamedTuple):
    """The tables that a connection reads and writes."""

    read: tuple[Name, ...] = ()
    written: tuple[Name, ...] = ()


def lineage(
    hook: AirbyteHook, connection_id: str, result: Mapping[str, Any] | None
) -> OperatorLineage[Any, Any] | None:
    """Return the tables that the connection reads and writes, and the result of the job.

    Record counts are included only if the connection has a single table: Airbyte returns the sum of all tables.

    :param connection_id: the Airbyte connection (UUID).
    :param result: the result of the task's wait, if any.
    :return: None if the OpenLineage provider is not installed, or Airbyte does not return the connection.
    """
    try:
        from airflow.providers.common.compat.openlineage.facet import Dataset
        from airflow.providers.openlineage.extractors import OperatorLineage
    except ImportError:
        return None
    job: Mapping[str, Any] = (result or {}).get("job") or {}
    try:
        tables = run_blocking(lambda: find_tables(hook.settings, connection_id))
    except (AirbyteEventsError, AirflowException) as exc:
        logger.warning("no tables for OpenLineage: %s", exc)
        return None
    reads = () if job.get("job_type") in {"reset", "clear"} else tables.read
    return OperatorLineage(
        inputs=[Dataset(namespace=table.namespace, name=table.name) for table in reads],
        outputs=[_output(table, job if len(tables.written) == 1 else {}) for table in tables.written],
        run_facets=dict(_run_facets(result or {}, hook.settings.url)),
    )


async def find_tables(settings: AirbyteSettings, connection_id: str) -> Tables:
    """Return the tables that the connection reads and writes, within :data:`LINEAGE_SECONDS`.

    If Airbyte does not return the source or destination, its tables are named after Airbyte.

    :raises AirbyteError: if Airbyte does not return the connection.
    """
    try:
        async with open_airbyte(settings, attempts=1) as airbyte:
            with anyio.fail_after(LINEAGE_SECONDS):
                connection = await airbyte.get_connection(connection_id)
                source_id, destination_id = (
                    str(connection.get(key) or "unknown") for key in ("sourceId", "destinationId")
                )
                source = await _actor(source_id, "sourceType", airbyte.get_source(source_id))
                destination = await _actor(destination_id, "destinationType", airbyte.get_destination(destination_id))
    except TimeoutError as exc:
        message = f"Airbyte did not return connection {connection_id} within {LINEAGE_SECONDS:g} s"
        raise AirbyteError(message) from exc
    except ValueError as exc:
        raise AirbyteError(f"connection {connection_id}: {exc}") from exc
    return Tables(
        read=tuple(read_names(connection, source, settings.url)),
        written=tuple(written_names(connection, destination, settings.url)),
    )


async def _actor(id: str, type_key: str, request: Awaitable[dict[str, Any]]) -> Actor:
    """Return the source or destination; without configuration if the client may not read that."""
    try:
        fields = await request
    except (AirbyteError, ValueError) as exc:
        logger.info("no OpenLineage names of tables, reporting Airbyte's: %s", exc)
        fields = {}
    return Actor(id=id, type=text(fields.get(type_key)), configuration=mapping(fields.get("configuration")))


def _output(table: Name, job: Mapping[str, Any]) -> Any:
    from airflow.providers.common.compat.openlineage.facet import OutputDataset, OutputStatisticsOutputDatasetFacet

    records, size = job.get("records"), job.get("bytes")
    facets: dict[str, Any] = {}
    if records is not None or size is not None:
        facets["outputStatistics"] = OutputStatisticsOutputDatasetFacet(rowCount=records, size=size)
    return OutputDataset(namespace=table.namespace, name=table.name, outputFacets=facets)


def _run_facets(result: Mapping[str, Any], source: str) -> Iterator[tuple[str, Any]]:
    from airflow.providers.common.compat.openlineage.facet import ErrorMessageRunFacet, ExternalQueryRunFacet

    if result.get("job_id") is not None:
        yield "externalQuery", ExternalQueryRunFacet(externalQueryId=str(result["job_id"]), source=source)
    if result.get("status") not in {None, SUCCESS}:
        yield "errorMessage", ErrorMessageRunFacet(message=str(result.get("message")), programmingLanguage="Airbyte")
