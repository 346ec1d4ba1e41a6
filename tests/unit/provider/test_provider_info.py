"""What Airflow's provider manager is told is true, and what it wants."""

from __future__ import annotations

import ast
import json
from importlib import import_module, metadata
from importlib.resources import files
from inspect import getsource
from typing import Any

import jsonschema
import pytest

from airbyte_events_provider import get_provider_info as module
from airbyte_events_provider.get_provider_info import get_provider_info


def test_the_package_name_is_that_of_the_distribution() -> None:
    points = metadata.entry_points(group="apache_airflow_provider")
    (point,) = (each for each in points if each.value.startswith("airbyte_events_provider."))
    assert point.dist is not None
    assert get_provider_info()["package-name"] == point.dist.name
    assert point.load() is get_provider_info


def test_it_imports_nothing_but_typing() -> None:
    imports = [
        node for node in ast.walk(ast.parse(getsource(module))) if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    assert {getattr(node, "module", None) for node in imports} == {"__future__", "typing"}


def test_it_is_as_airflows_schema_wants_it() -> None:
    schema = json.loads((files("airflow") / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_all_modules_are_there() -> None:
    info = get_provider_info()
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for entry in info[kind]:
            for name in entry["python-modules"]:
                import_module(name)


@pytest.mark.parametrize("entry", get_provider_info()["connection-types"], ids=lambda entry: entry["connection-type"])
def test_connection_types_are_as_their_hooks_say(entry: dict[str, Any]) -> None:
    path, _, name = entry["hook-class-name"].rpartition(".")
    hook = getattr(import_module(path), name)
    assert (hook.conn_type, hook.hook_name) == (entry["connection-type"], entry["hook-name"])
    behaviour = {key.replace("_", "-"): value for key, value in hook.get_ui_field_behaviour().items()}
    assert behaviour == entry["ui-field-behaviour"]
    assert hook(**{hook.conn_name_attr: "some_id"})


def test_every_option_is_used() -> None:
    used = {
        node.args[1].value
        for name in ("hub", "connections", "operators.airbyte", "sensors.airbyte")
        for node in ast.walk(ast.parse(getsource(import_module(f"airbyte_events_provider.{name}"))))
        if isinstance(node, ast.Call)
        and len(node.args) == 2
        and isinstance(node.args[0], ast.Name)
        and node.args[0].id == "SECTION"
        and isinstance(node.args[1], ast.Constant)
    }
    assert used == set(get_provider_info()["config"]["airbyte_events"]["options"])
