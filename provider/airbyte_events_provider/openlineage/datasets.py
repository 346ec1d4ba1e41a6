"""What OpenLineage calls the tables that an Airbyte connection reads and writes.

The names follow OpenLineage's naming conventions for the databases that have one, as far as the configuration tells
what they need; a name that is guessed would join the wrong tables. The others are named after Airbyte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

_PORTS = {"postgres": 5432, "mysql": 3306, "mssql": 1433, "oracle": 1521, "redshift": 5439}
_SCHEMES = {"postgres": "postgres", "alloydb": "postgres", "mysql": "mysql", "mssql": "mssql", "oracle": "oracle"}
_WITHOUT_SCHEMA = frozenset({"mysql"})


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """A dataset's name, in a namespace."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """A source or a destination.

    :param id: in Airbyte.
    :param type: the connector's, such as ``postgres``; None if it is not known.
    :param configuration: what Airbyte tells of it; secrets are blotted out there.
    """

    id: str
    type: str | None = None
    configuration: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A stream of a connection, or the table that it becomes: its name, and the schema that it is in."""

    name: str
    schema: str | None


def read_names(connection: Mapping[str, Any], source: Actor, airbyte_url: str) -> Iterator[Name]:
    """The tables that the connection reads.

    :param connection: as ``GET /connections/{id}`` tells it.
    :param airbyte_url: the API's base.
    """
    for stream in streams(connection):
        schema = stream.schema or _default_schema(source)
        yield _name(source, Stream(name=stream.name, schema=schema), airbyte_url)


def written_names(connection: Mapping[str, Any], destination: Actor, airbyte_url: str) -> Iterator[Name]:
    """The tables that the connection writes; parameters as for :func:`read_names`."""
    for stream in streams(connection):
        name = f"{connection.get('prefix') or ''}{stream.name}"
        yield _name(
            destination, Stream(name=name, schema=_written_schema(connection, stream, destination)), airbyte_url
        )


def streams(connection: Mapping[str, Any]) -> Iterator[Stream]:
    """The connection's streams, as far as they are well-formed."""
    configurations = connection.get("configurations")
    listed = configurations.get("streams") if isinstance(configurations, Mapping) else None
    for stream in listed if isinstance(listed, list) else ():
        if isinstance(stream, Mapping) and _text(stream, "name"):
            yield Stream(name=str(stream["name"]), schema=_text(stream, "namespace"))


def _written_schema(connection: Mapping[str, Any], stream: Stream, destination: Actor) -> str | None:
    default = _default_schema(destination)
    definition = connection.get("namespaceDefinition")
    if definition == "source":
        return stream.schema or default
    if definition == "custom_format":
        pattern = _text(connection, "namespaceFormat") or ""
        if "${SOURCE_NAMESPACE}" in pattern and stream.schema is None:
            return None
        return pattern.replace("${SOURCE_NAMESPACE}", stream.schema or "") or default
    return default


def _default_schema(actor: Actor) -> str | None:
    configuration = actor.configuration
    for key in ("schema", "default_schema", "dataset_id"):
        if (value := _text(configuration, key)) is not None:
            return value.rpartition(":")[2] if key == "dataset_id" else value
    schemas = configuration.get("schemas")
    only = schemas[0] if isinstance(schemas, list) and len(schemas) == 1 else None
    return only if isinstance(only, str) else None


def _name(actor: Actor, table: Stream, airbyte_url: str) -> Name:
    convention = _CONVENTIONS.get(actor.type or "")
    name = None if convention is None else convention(actor, table)
    if name is not None:
        return name
    # One that only Airbyte knows, the same in every run.
    full = f"{table.schema}.{table.name}" if table.schema else table.name
    return Name(f"airbyte://{urlsplit(airbyte_url).netloc}/{actor.id}", full)


def _relational(actor: Actor, table: Stream) -> Name | None:
    kind = _SCHEMES[actor.type or ""]
    host, database = _text(actor.configuration, "host"), _database(actor)
    port = actor.configuration.get("port") or _PORTS[kind]
    if kind in _WITHOUT_SCHEMA:
        # What others call a schema is a database here.
        database, path = table.schema or database, table.name
    else:
        path = f"{table.schema}.{table.name}" if table.schema else ""
    if not host or not database or not path:
        return None
    return Name(f"{kind}://{host}:{port}", f"{database}.{path}")


def _database(actor: Actor) -> str | None:
    connection = actor.configuration.get("connection_data")
    given = {**actor.configuration, **(connection if isinstance(connection, Mapping) else {})}
    return next((value for key in ("database", "service_name", "sid") if (value := _text(given, key))), None)


def _redshift(actor: Actor, table: Stream) -> Name | None:
    host, database = _text(actor.configuration, "host"), _database(actor)
    parts = (host or "").split(".")
    # CLUSTER.ACCOUNT.REGION.redshift.amazonaws.com
    if parts[3:] != ["redshift", "amazonaws", "com"] or not database or not table.schema:
        return None
    port = actor.configuration.get("port") or _PORTS["redshift"]
    return Name(f"redshift://{parts[0]}.{parts[2]}:{port}", f"{database}.{table.schema}.{table.name}")


def _snowflake(actor: Actor, table: Stream) -> Name | None:
    host, database = _text(actor.configuration, "host"), _database(actor)
    account = (host or "").removeprefix("https://").removesuffix("/").removesuffix(".snowflakecomputing.com")
    if not account or not database or not table.schema:
        return None
    return Name(f"snowflake://{account}", f"{database}.{table.schema}.{table.name}")


def _bigquery(actor: Actor, table: Stream) -> Name | None:
    project = _text(actor.configuration, "project_id")
    return Name("bigquery", f"{project}.{table.schema}.{table.name}") if project and table.schema else None


def _text(fields: Mapping[str, Any], key: str) -> str | None:
    value = fields.get(key)
    return value if isinstance(value, str) and value else None


_CONVENTIONS: dict[str, Callable[[Actor, Stream], Name | None]] = {
    **dict.fromkeys(_SCHEMES, _relational),
    "redshift": _redshift,
    "snowflake": _snowflake,
    "bigquery": _bigquery,
}
