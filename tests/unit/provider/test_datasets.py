"""What OpenLineage calls a connection's tables."""

from __future__ import annotations

from typing import Any

import pytest

from airbyte_events_provider.openlineage.datasets import Actor, Name, read_names, written_names

URL = "https://airbyte.example.com/api/public/v1"
POSTGRES = {"host": "db", "port": 5433, "database": "shop"}


def connection(*streams: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"configurations": {"streams": list(streams)}, **fields}


def actor(type: str | None, **configuration: Any) -> Actor:
    return Actor(id="id", type=type, configuration=configuration)


@pytest.mark.parametrize(
    ("source", "stream", "name"),
    [
        (actor("postgres", **POSTGRES), {"namespace": "s"}, Name("postgres://db:5433", "shop.s.orders")),
        (actor("postgres", **POSTGRES, schemas=["only"]), {}, Name("postgres://db:5433", "shop.only.orders")),
        (actor("postgres", **POSTGRES, schemas=["a", "b"]), {}, Name("airbyte://airbyte.example.com/id", "orders")),
        (actor("mysql", host="db", database="shop"), {}, Name("mysql://db:3306", "shop.orders")),
        (actor("mysql", host="db", database="shop"), {"namespace": "n"}, Name("mysql://db:3306", "n.orders")),
        (
            actor("mssql", host="db", port=1, database="d"),
            {"namespace": "dbo"},
            Name("mssql://db:1", "d.dbo.orders"),
        ),
        (
            actor("oracle", host="db", connection_data={"service_name": "XE"}),
            {"namespace": "S"},
            Name("oracle://db:1521", "XE.S.orders"),
        ),
        (actor("stripe"), {}, Name("airbyte://airbyte.example.com/id", "orders")),
        (actor(None), {"namespace": "n"}, Name("airbyte://airbyte.example.com/id", "n.orders")),
        (actor("postgres"), {"namespace": "n"}, Name("airbyte://airbyte.example.com/id", "n.orders")),
    ],
)
def test_what_is_read(source: Actor, stream: dict[str, Any], name: Name) -> None:
    assert list(read_names(connection({"name": "orders"} | stream), source, URL)) == [name]


@pytest.mark.parametrize(
    ("destination", "name"),
    [
        (
            actor("snowflake", host="org-acc.snowflakecomputing.com", database="D", schema="S"),
            "snowflake://org-acc D.S",
        ),
        (actor("bigquery", project_id="p", dataset_id="d"), "bigquery p.d"),
        (actor("bigquery", project_id="p", dataset_id="p:d"), "bigquery p.d"),
        (
            actor("redshift", host="c.x.eu-west-1.redshift.amazonaws.com", database="d", schema="s"),
            "redshift://c.eu-west-1:5439 d.s",
        ),
        (actor("redshift", host="10.0.0.1", database="d", schema="s"), "airbyte://airbyte.example.com/id s"),
        (actor("postgres", **POSTGRES, schema="s"), "postgres://db:5433 shop.s"),
    ],
)
def test_what_is_written(destination: Actor, name: str) -> None:
    given = connection({"name": "orders", "namespace": "src"}, namespaceDefinition="destination", prefix="raw_")
    namespace, _, path = name.partition(" ")
    assert list(written_names(given, destination, URL)) == [Name(namespace, f"{path}.raw_orders")]


@pytest.mark.parametrize(
    ("fields", "schema"),
    [
        ({"namespaceDefinition": "source"}, "src"),
        ({"namespaceDefinition": "destination"}, "s"),
        ({"namespaceDefinition": "custom_format", "namespaceFormat": "x_${SOURCE_NAMESPACE}"}, "x_src"),
        ({"namespaceDefinition": "custom_format", "namespaceFormat": "x"}, "x"),
        ({}, "s"),
    ],
)
def test_which_schema_is_written(fields: dict[str, Any], schema: str) -> None:
    (name,) = written_names(
        connection({"name": "o", "namespace": "src"}, **fields), actor("postgres", **POSTGRES, schema="s"), URL
    )
    assert name.name == f"shop.{schema}.o"


def test_a_format_of_what_is_not_known_is_not_guessed() -> None:
    fields = {"namespaceDefinition": "custom_format", "namespaceFormat": "x_${SOURCE_NAMESPACE}"}
    (name,) = written_names(connection({"name": "o"}, **fields), actor("postgres", **POSTGRES, schema="s"), URL)
    assert name.namespace.startswith("airbyte://")


@pytest.mark.parametrize("given", [{}, {"configurations": None}, {"configurations": {"streams": [None, {"name": 1}]}}])
def test_what_is_malformed_names_nothing(given: dict[str, Any]) -> None:
    assert list(read_names(given, actor("postgres"), URL)) == []
