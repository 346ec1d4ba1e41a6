"""What Airflow's provider manager is told is true, and what it wants."""

from __future__ import annotations

import ast
import json
import warnings
from dataclasses import fields
from importlib import import_module, metadata
from importlib.resources import files
from inspect import getsource
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from airflow.providers.common.compat.sdk import BaseOperatorLink
from packaging.version import Version

import airbyte_events_provider
from airbyte_events_provider import get_provider_info as module
from airbyte_events_provider.connections.settings import AirbyteSettings, ListenerSettings
from airbyte_events_provider.get_provider_info import get_provider_info

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the libraries that an API server brings together
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService


def import_string(path: str) -> Any:
    module_name, _, name = path.rpartition(".")
    return getattr(import_module(module_name), name)


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
    hook = import_string(entry["hook-class-name"])
    assert (hook.conn_type, hook.hook_name) == (entry["connection-type"], entry["hook-name"])
    behaviour = {key.replace("_", "-"): value for key, value in hook.get_ui_field_behaviour().items()}
    assert behaviour == entry["ui-field-behaviour"]
    assert hook(**{hook.conn_name_attr: "some_id"})


@pytest.mark.parametrize("entry", get_provider_info()["connection-types"], ids=lambda entry: entry["connection-type"])
def test_forms_before_airflow_3_2_have_the_same_fields(entry: dict[str, Any]) -> None:
    pytest.importorskip("wtforms")
    widgets = import_string(entry["hook-class-name"]).get_connection_form_widgets()
    assert {name: widget.args[0] for name, widget in widgets.items()} == {
        name: field["label"] for name, field in entry["conn-fields"].items()
    }
    hidden = {name for name, widget in widgets.items() if widget.field_class.__name__ == "PasswordField"}
    assert hidden == {name for name, field in entry["conn-fields"].items() if "format" in field["schema"]}


def test_the_forms_that_airflow_draws() -> None:
    if Version(metadata.version("apache-airflow")) < Version("3.2"):
        pytest.importorskip("wtforms", reason="before Airflow 3.2, forms are made of these")
    drawn: dict[str | None, Any] = {form.connection_type: form for form in HookMetaService.hook_meta_data()}
    for entry in get_provider_info()["connection-types"]:
        form = drawn[entry["connection-type"]]
        assert form.hook_class_name == entry["hook-class-name"]
        assert form.standard_fields.host.title == entry["ui-field-behaviour"]["relabeling"]["host"]
        assert not form.standard_fields.port.hidden
        assert {name: field["schema"]["title"] for name, field in form.extra_fields.items()} == {
            name: field["label"] for name, field in entry["conn-fields"].items()
        }


@pytest.mark.parametrize(
    ("connection_type", "settings"), [("airbyte", AirbyteSettings), ("airbyte_events", ListenerSettings)]
)
def test_there_is_a_field_for_every_extra(connection_type: str, settings: type[Any]) -> None:
    (form,) = (each for each in get_provider_info()["connection-types"] if each["connection-type"] == connection_type)
    of_airflows_own = {"conn_id", "url", "credentials", "token", "token_url"}
    assert set(form["conn-fields"]) == {field.name for field in fields(settings)} - of_airflows_own


def test_links_plugins_and_queues_are_classes() -> None:
    info = get_provider_info()
    for path in info["extra-links"]:
        assert issubclass(import_string(path), BaseOperatorLink)
    (plugin,) = info["plugins"]
    assert import_string(plugin["plugin-class"]).name == plugin["name"]


def test_airflow_loads_the_plugin_whether_or_not_it_discovers_providers() -> None:
    points = metadata.entry_points(group="airflow.plugins")
    (point,) = (each for each in points if each.value.startswith("airbyte_events_provider."))
    assert point.value.replace(":", ".") == get_provider_info()["plugins"][0]["plugin-class"]


def test_every_option_is_used() -> None:
    folder = Path(airbyte_events_provider.__path__[0])
    used = {
        node.args[1].value
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and len(node.args) == 2
        and isinstance(node.args[0], ast.Name)
        and node.args[0].id == "SECTION"
        and isinstance(node.args[1], ast.Constant)
    }
    assert used == set(get_provider_info()["config"]["airbyte_events"]["options"])
