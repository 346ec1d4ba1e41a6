"""Beside the official provider: what it takes is taken here, and in one Airflow both work."""

from __future__ import annotations

import inspect
import json
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest

from .conftest import run

OFFICIAL = "airflow.providers.airbyte"
OURS = "airbyte_events_provider"

CLASSES = [
    ("hooks", "AirbyteHook"),
    ("operators", "AirbyteTriggerSyncOperator"),
    ("sensors", "AirbyteJobSensor"),
    ("triggers", "AirbyteSyncTrigger"),
]


def both(kind: str, name: str) -> tuple[Any, Any]:
    theirs, ours = (getattr(import_module(f"{prefix}.{kind}.airbyte"), name) for prefix in (OFFICIAL, OURS))
    return theirs, ours


def parameters(function: Any) -> dict[str, tuple[Any, Any]]:
    """Kind and default by name; those that no caller names left out."""
    return {
        name: (parameter.kind, parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    }


@pytest.mark.parametrize(("kind", "name"), CLASSES)
def test_constructors_take_what_theirs_take(kind: str, name: str) -> None:
    theirs, ours = (parameters(each.__init__) for each in both(kind, name))
    for parameter, (of_kind, default) in theirs.items():
        assert ours[parameter][0] is of_kind
        # What theirs wants may be optional here: a connection can be given by name.
        assert ours[parameter][1] == default or default is inspect.Parameter.empty
    # In the same places, too, for those who don't name them.
    assert list(ours)[: len(theirs)] == list(theirs) or kind == "sensors"


# A trigger's methods are called by Airflow alone.
@pytest.mark.parametrize(("kind", "name"), [each for each in CLASSES if each[0] != "triggers"])
def test_public_methods_take_what_theirs_take(kind: str, name: str) -> None:
    theirs, ours = both(kind, name)
    for method, function in vars(theirs).items():
        if method.startswith("_") or not callable(getattr(theirs, method)):
            continue
        mine = parameters(getattr(ours, method))
        wanted = parameters(getattr(theirs, method))
        if method == "execute_complete":
            # Airflow always gives the event.
            assert set(wanted) <= set(mine)
            continue
        assert {parameter: mine.get(parameter) for parameter in wanted} == wanted, function


@pytest.mark.parametrize(("kind", "name"), CLASSES)
def test_class_attributes_are_theirs(kind: str, name: str) -> None:
    theirs, ours = both(kind, name)
    assert set(getattr(theirs, "template_fields", ())) <= set(getattr(ours, "template_fields", ()))
    for attribute in ("conn_name_attr", "default_conn_name", "conn_type", "hook_name", "ui_color"):
        if attribute in vars(theirs):
            assert getattr(ours, attribute) == getattr(theirs, attribute)


def test_a_trigger_keeps_what_theirs_keeps() -> None:
    values = {"job_id": 1, "conn_id": "c", "end_time": 2.0, "poll_interval": 3.0, "execution_deadline": 4.0}
    theirs, ours = (each(**values).serialize()[1] for each in both("triggers", "AirbyteSyncTrigger"))
    assert {name: ours[name] for name in theirs} == theirs


CALLS = [
    {"airbyte_conn_id": "c", "connection_id": "x", "wait_seconds": 0, "timeout": 360},
    {"airbyte_conn_id": "c", "connection_id": "x", "wait_seconds": 0, "timeout": 360, "deferrable": True},
    {"connection_id": "x", "deferrable": True, "execution_timeout": timedelta(seconds=30)},
    {"connection_id": "x", "asynchronous": True},
    {"connection_id": "x", "api_version": "v1", "deferrable": False},
]


@pytest.mark.parametrize("call", CALLS)
def test_the_operator_calls_of_their_tests(call: dict[str, Any]) -> None:
    theirs, ours = (each(task_id="t", **call) for each in both("operators", "AirbyteTriggerSyncOperator"))
    assert {name: getattr(ours, name) for name in call} == {name: getattr(theirs, name) for name in call}


@pytest.mark.parametrize("call", [{}, {"deferrable": True}, {"deferrable": True, "poke_interval": 10, "timeout": 3600}])
def test_the_sensor_calls_of_their_tests(call: dict[str, Any]) -> None:
    theirs, ours = (each(task_id="t", airbyte_job_id=1, **call) for each in both("sensors", "AirbyteJobSensor"))
    names = {"airbyte_job_id", "airbyte_conn_id", "deferrable", "timeout", "mode", "api_version"}
    # In a worker, ours pokes every 3 s by default, and not every 60 s.
    names |= {"poke_interval"} if call else set()
    assert {name: getattr(ours, name) for name in names} == {name: getattr(theirs, name) for name in names}


@pytest.mark.parametrize("proxies", [None, "http://proxy:3128", {"https": "http://proxy:3128"}])
def test_a_connection_means_the_same_to_both_hooks(proxies: object, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"conn_type": "airbyte", "host": "http://airbyte:8000/api/public/v1", "login": "id", "password": "secret"}
    extra = {"timeout": 7, **({} if proxies is None else {"proxies": proxies})}
    monkeypatch.setenv("AIRFLOW_CONN_C", json.dumps({**fields, "extra": extra}))
    theirs, ours = (each("c", timeout=3) for each in both("hooks", "AirbyteHook"))
    assert ours.conn == theirs.conn
    assert type(ours.airbyte_api) is type(theirs.airbyte_api)


def test_airflow_lists_both(airflow_home: Path) -> None:
    listed = run("airflow", "providers", "list")
    assert "airbyte-events" in listed
    assert "apache-airflow-providers-airbyte" in listed
    hooks = run("airflow", "providers", "hooks")
    assert f"{OURS}.hooks.airbyte.AirbyteHook" in hooks
    assert f"{OURS}.hooks.listener.ListenerHook" in hooks
    for command in ("links", "triggers", "widgets", "behaviours", "queues", "configs"):
        assert "Traceback" not in run("airflow", "providers", command)


def test_public_methods_of_their_trigger_are_here() -> None:
    theirs, ours = both("triggers", "AirbyteSyncTrigger")
    public = {name for name, value in vars(theirs).items() if callable(value) and not name.startswith("_")}
    assert public == {"serialize", "run", "is_still_running"}
    assert all(callable(getattr(ours, name)) for name in public)


@pytest.mark.parametrize("task", ["operator", "sensor"])
@pytest.mark.parametrize(("before", "after"), [(OFFICIAL, OURS), (OURS, OFFICIAL)], ids=["here", "back"])
def test_a_task_deferred_by_one_provider_continues_with_the_other(
    before: str, after: str, task: str, airflow_home: Path, airbyte: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import is changed while the trigger waits: that of the provider before fires, the task after continues."""
    said = run("python", str(Path(__file__).with_name("changing.py")), task, before, after)
    assert "continued with job 1" in said
    jobs = airbyte.get("/jobs").json()["jobs"]
    assert [(job["job_id"], job["status"]) for job in jobs] == [(1, "succeeded")]


@pytest.mark.parametrize("prefix", [OFFICIAL, OURS])
def test_one_dag_with_either_import(prefix: str, airbyte: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRBYTE_PREFIX", prefix)
    said = run("python", str(Path(__file__).with_name("dags") / "two_ways.py"))
    assert "state success" in said
    assert "job 1" in said
    jobs = airbyte.get("/jobs").json()["jobs"]
    assert [(job["job_id"], job["status"]) for job in sorted(jobs, key=lambda job: job["job_id"])] == [
        (1, "succeeded"),
        (2, "succeeded"),
    ]
