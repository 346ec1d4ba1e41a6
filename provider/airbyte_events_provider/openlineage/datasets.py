"""The OpenLineage names of the tables that an Airbyte connection reads and writes.

The names follow OpenLineage's naming conventions where one exists and Airbyte's configuration contains all its parts: a
guessed name would join the wrong tables. Other tables are named after Airbyte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

_PORTS = {"postgres": 5432, "mysql": 3306, "mssql": 1433, "oracle": 1521, "redshift": 5439}
_SCHEMES = {"postgres": "postgres", "alloydb": "postgres", "mysql": "mysql", "mssql": "mssql", "oracle": "oracle"}


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """A dataset's name in a namespace."""

    namespace: str
    name: str


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
        return next((value for key in keys if (value := _text(self.configuration, key))), None)

    @property
    def database(self) -> str | None:
        nested = self.configuration.get("connection_data")
        fields = {**self.configuration, **(nested if isinstance(nested, Mapping) else {})}
        return next((value for key in ("database", "service_name", "sid") if (value := _text(fields, key))), None)

    @property
    def schema(self) -> str | None:
        """The default schema of tables."""
        if schema := self.text("schema", "default_schema"):
            return schema
        if dataset := self.text("dataset_id"):
            return dataset.rpartition(":")[2]
        schemas = self.configuration.get("schemas")
        only = schemas[0] if isinstance(schemas, list) and len(schemas) == 1 else None
        return only if isinstance(only, str) else None

    def port(self, kind: str) -> Any:
        return self.configuration.get("port") or _PORTS[kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A stream of a connection, or its table in the destination."""

    name: str
    schema: str | None


def read_names(connection: Mapping[str, Any], source: Actor, airbyte_url: str) -> Iterator[Name]:
    """Return the tables that the connection reads.

    :param connection: the response of ``GET /connections/{id}``.
    :param airbyte_url: the API's base URL.
    """
    for stream in streams(connection):
        yield _name(source, Stream(name=stream.name, schema=stream.schema or source.schema), airbyte_url)


def written_names(connection: Mapping[str, Any], destination: Actor, airbyte_url: str) -> Iterator[Name]:
    """Return the tables that the connection writes; parameters as for :func:`read_names`."""
    for stream in streams(connection):
        name = f"{connection.get('prefix') or ''}{stream.name}"
        table = Stream(name=name, schema=_written_schema(connection, stream, destination))
        yield _name(destination, table, airbyte_url)


def streams(connection: Mapping[str, Any]) -> Iterator[Stream]:
    """Return the connection's streams, without malformed ones."""
    configurations = connection.get("configurations")
    listed = configurations.get("streams") if isinstance(configurations, Mapping) else None
    for stream in listed if isinstance(listed, list) else ():
        if isinstance(stream, Mapping) and (name := _text(stream, "name")):
            yield Stream(name=name, schema=_text(stream, "namespace"))


def _written_schema(connection: Mapping[str, Any], stream: Stream, destination: Actor) -> str | None:
    definition = connection.get("namespaceDefinition")
    if definition == "source":
        return stream.schema or destination.schema
    if definition == "custom_format":
        pattern = _text(connection, "namespaceFormat") or ""
        if "${SOURCE_NAMESPACE}" in pattern and stream.schema is None:
            return None
        return pattern.replace("${SOURCE_NAMESPACE}", stream.schema or "") or destination.schema
    return destination.schema


def _name(actor: Actor, table: Stream, airbyte_url: str) -> Name:
    convention = _CONVENTIONS.get(actor.type or "")
    name = None if convention is None else convention(actor, table)
    if name is not None:
        return name
    # Unique to this Airbyte, and the same in every run.
    full = f"{table.schema}.{table.name}" if table.schema else table.name
    return Name(f"airbyte://{urlsplit(airbyte_url).netloc}/{actor.id}", full)


def _relational(actor: Actor, table: Stream) -> Name | None:
    kind = _SCHEMES[actor.type or ""]
    host, database, schema = actor.text("host"), actor.database, table.schema
    if kind == "mysql":
        # MySQL's databases are what others call schemas.
        database, schema = schema or database, None
    elif not schema:
        return None
    if not host or not database:
        return None
    path = ".".join(part for part in (database, schema, table.name) if part)
    return Name(f"{kind}://{host}:{actor.port(kind)}", path)


def _redshift(actor: Actor, table: Stream) -> Name | None:
    parts = (actor.text("host") or "").split(".")
    # CLUSTER.ACCOUNT.REGION.redshift.amazonaws.com
    if parts[3:] != ["redshift", "amazonaws", "com"]:
        return None
    return _in_schema(f"redshift://{parts[0]}.{parts[2]}:{actor.port('redshift')}", actor.database, table)


def _snowflake(actor: Actor, table: Stream) -> Name | None:
    host = actor.text("host") or ""
    account = host.removeprefix("https://").removesuffix("/").removesuffix(".snowflakecomputing.com")
    return _in_schema(f"snowflake://{account}", actor.database, table) if account else None


def _bigquery(actor: Actor, table: Stream) -> Name | None:
    return _in_schema("bigquery", actor.text("project_id"), table)


def _in_schema(namespace: str, database: str | None, table: Stream) -> Name | None:
    return Name(namespace, f"{database}.{table.schema}.{table.name}") if database and table.schema else None


def _text(fields: Mapping[str, Any], key: str) -> str | None:
    value = fields.get(key)
    return value if isinstance(value, str) and value else None


_CONVENTIONS: dict[str, Callable[[Actor, Stream], Name | None]] = {
    **dict.fromkeys(_SCHEMES, _relational),
    "redshift": _redshift,
    "snowflake": _snowflake,
    "bigquery": _bigquery,
}
