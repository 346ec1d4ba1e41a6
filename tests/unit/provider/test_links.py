"""Where the links of a task lead."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airbyte_events_provider.connections.settings import AirbyteSettings, ListenerSettings
from airbyte_events_provider.links.airbyte import AirbyteConnectionLink, AirbyteJobLink, ListenerJobLink, link_xcoms
from airbyte_events_provider.links.airflow import task_page

CONNECTION, JOB, LISTENER = (each().xcom_key for each in (AirbyteConnectionLink, AirbyteJobLink, ListenerJobLink))


def links(url: str, listener: ListenerSettings | None = None, **values: Any) -> dict[str, str]:
    extra = {name: values.pop(name) for name in ("web_url", "instance") if name in values}
    airbyte = AirbyteSettings(conn_id="c", url=url, **extra)
    values = {"connection_id": "co", "job_id": 7, "workspace_id": "ws", **values}
    return link_xcoms(airbyte, listener, **values)


@pytest.mark.parametrize(
    ("url", "web"),
    [
        ("https://api.airbyte.com/v1", "https://cloud.airbyte.com"),
        ("http://airbyte:8000/api/public/v1", "http://airbyte:8000"),
        ("https://intranet/airbyte/api/public/v1", "https://intranet/airbyte"),
    ],
)
def test_airbytes_pages(url: str, web: str) -> None:
    page = f"{web}/workspaces/ws/connections/co"
    assert links(url) == {CONNECTION: page, JOB: f"{page}/timeline?openLogs=true&jobId=7"}


def test_pages_where_the_connection_says() -> None:
    assert links("http://a/api/public/v1", web_url="https://b")[CONNECTION] == "https://b/workspaces/ws/connections/co"


@pytest.mark.parametrize(
    ("url", "values"),
    [
        ("http://localhost:8006/v1", {}),  # an old release: its pages are at another port
        ("http://airbyte/api/public/v1", {"workspace_id": None}),
        ("http://airbyte/api/public/v1", {"connection_id": None}),
    ],
)
def test_no_link_is_better_than_a_wrong_one(url: str, values: dict[str, Any]) -> None:
    assert links(url, **values) == {}


@pytest.mark.parametrize(
    ("given", "at"),
    [
        ({"url": "http://listener:8484"}, "http://listener:8484"),
        ({"url": "http://user:secret@listener:8484/behind"}, "http://listener:8484/behind"),
        ({"url": "http://listener:8484", "dashboard_url": "https://events.example.com"}, "https://events.example.com"),
    ],
)
def test_the_listeners_page(given: dict[str, str], at: str) -> None:
    listener = ListenerSettings(conn_id="l", **given)
    assert links("http://a/api/public/v1", listener, instance="e/u")[LISTENER] == f"{at}/jobs/e%2Fu/7"


def test_names_differ() -> None:
    classes = (AirbyteConnectionLink, AirbyteJobLink, ListenerJobLink)
    assert len({each().name for each in classes}) == len({each().xcom_key for each in classes}) == 3


@pytest.mark.parametrize(
    ("base", "page"),
    [
        ("https://airflow.example.com", "https://airflow.example.com/dags/d/runs/a%2Fb/tasks/t"),
        ("http://airflow:8080/team/", "http://airflow:8080/team/dags/d/runs/a%2Fb/tasks/t"),
        ("https://me:hunter2@airflow.example.com", None),
        ("airflow.example.com", None),
        ("", None),
    ],
)
def test_the_page_of_a_task(monkeypatch: pytest.MonkeyPatch, base: str, page: str | None) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base)
    ti = SimpleNamespace(dag_id="d", run_id="a/b", task_id="t", map_index=-1)
    assert task_page(ti) == page
    assert task_page(None) is None
