"""The OpenLineage names of the tables that an Airbyte connection reads and writes.

The names follow OpenLineage's naming conventions where one exists and Airbyte's configuration contains all its parts: a
guessed name would join the wrong tables. Other tables are named after Airbyte.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from airbyte_events._utils.json_values import mapping, text

_SERVERS = {
    "postgres": ("postgres", 5432),
    "alloydb": ("postgres", 5432),
    "mysql": ("mysql", 3306),
    "mssql": ("mssql", 1433),
    "oracle": ("oracle", 1521),
}
"""The scheme and default port of databases that are named by host and port."""


class Name(NamedTuple):
    """A dataset's name in a namespace."""

    namespace: str
    name: str


class Stream(NamedTuple):
    """A stream of a connection, or its table in the destination."""

    name: str
    schema: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """A source or a destination.

    :param id: the id in Airbyte.
    :param type: the connector's type, such as ``postgres``; None: unknown.
    :param configuration: as Airbyte's API returns it, without secrets.
    """

    id: str
    type: str | None = None
    configuration: Mapping[str, Any]

    def text(self, *keys: str) -> str | None:
        return next((value for key in keys if (value := text(self.configuration.get(key)))), None)

    @property
    def database(self) -> str | None:
        nested = Actor(
            id="", configuration={**self.configuration, **mapping(self.configuration.get("connection_data"))}
        )
        return nested.text("database", "service_name", "sid")

    @property
    def schema(self) -> str | None:
        """The default schema of tables."""
        if schema := self.text("schema", "default_schema"):
            return schema
        if dataset := self.text("dataset_id"):
            return dataset.rpartition(":")[2]
        schemas = self.configuration.get("schemas")
        return text(schemas[0]) if isinstance(schemas, list) and len(schemas) == 1 else None


def read_names(connection: Mapping[str, Any], source: Actor, airbyte_url: str) -> Iterator[Name]:
    """Return the tables that the connection reads.

    :param connection: the response of ``GET /connections/{id}``.
    :param airbyte_url: the API's base URL.
    """
    for stream in _streams(connection):
        yield _name(source, Stream(stream.name, stream.schema or source.schema), airbyte_url)


def written_names(connection: Mapping[str, Any], destination: Actor, airbyte_url: str) -> Iterator[Name]:
    """Return the tables that the connection writes; parameters as for :func:`read_names`."""
    for stream in _streams(connection):
        name = f"{connection.get('prefix') or ''}{stream.name}"
        yield _name(destination, Stream(name, _written_schema(connection, stream, destination)), airbyte_url)


def _streams(connection: Mapping[str, Any]) -> Iterator[Stream]:
    """Return the connection's streams, without malformed ones."""
    listed = mapping(connection.get("configurations")).get("streams")
    for stream in map(mapping, listed if isinstance(listed, list) else ()):
        if name := text(stream.get("name")):
            yield Stream(name, text(stream.get("namespace")))


def _written_schema(connection: Mapping[str, Any], stream: Stream, destination: Actor) -> str | None:
    definition = connection.get("namespaceDefinition")
    if definition == "source":
        return stream.schema or destination.schema
    if definition == "custom_format":
        pattern = text(connection.get("namespaceFormat")) or ""
        if "${SOURCE_NAMESPACE}" in pattern and stream.schema is None:
            return None
        return pattern.replace("${SOURCE_NAMESPACE}", stream.schema or "") or destination.schema
    return destination.schema


def _name(actor: Actor, table: Stream, airbyte_url: str) -> Name:
    namespace, path = _convention(actor, table)
    if namespace and all(path):
        return Name(namespace, ".".join(map(str, path)))
    # Unique to this Airbyte, and the same in every run.
    full = f"{table.schema}.{table.name}" if table.schema else table.name
    return Name(f"airbyte://{urlsplit(airbyte_url).netloc}/{actor.id}", full)


def _convention(actor: Actor, table: Stream) -> tuple[str | None, list[str | None]]:
    """Return namespace and path of a table by OpenLineage's conventions, with None for what is unknown."""
    host, database, port = actor.text("host") or "", actor.database, actor.configuration.get("port")
    if server := _SERVERS.get(actor.type or ""):
        namespace = f"{server[0]}://{host}:{port or server[1]}" if host else None
        if actor.type == "mysql":
            # MySQL's databases are what others call schemas.
            return namespace, [database and (table.schema or database), table.name]
    elif actor.type == "redshift":
        # CLUSTER.ACCOUNT.REGION.redshift.amazonaws.com
        parts = host.split(".")
        known = parts[3:] == ["redshift", "amazonaws", "com"]
        namespace = f"redshift://{parts[0]}.{parts[2]}:{port or 5439}" if known else None
    elif actor.type == "snowflake":
        account = host.removeprefix("https://").removesuffix("/").removesuffix(".snowflakecomputing.com")
        namespace = f"snowflake://{account}" if account else None
    else:
        namespace = "bigquery" if actor.type == "bigquery" else None
        database = actor.text("project_id")
    return namespace, [database, table.schema, table.name]
