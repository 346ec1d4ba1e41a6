"""What Airflow's web interface has of this package, by configuration."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import version

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from airbyte_events_provider.plugins.mounted import MountedListener
from airbyte_events_provider.plugins.plugin import (
    PREFIX,
    AirbyteEventsPlugin,
    dashboard_entry,
    external_views,
    fastapi_apps,
    mounted_listener,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the libraries that an API server brings together
    import airflow.api_fastapi.app  # noqa: F401 (before the plugin does)

AIRFLOW = tuple(int(part) for part in version("apache-airflow").split(".")[:2])


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AIRFLOW__API__WORKERS", "1")
    yield
    for each in (dashboard_entry, external_views, fastapi_apps, mounted_listener):
        each.cache_clear()


def test_by_default_there_is_the_page_of_a_tasks_job() -> None:
    # Airflow reads the class or an instance of it, by how it found the plugin.
    for plugin in (AirbyteEventsPlugin, AirbyteEventsPlugin()):
        names = ["Airbyte job"] if AIRFLOW >= (3, 1) else []
        assert [view["name"] for view in plugin.external_views] == names
        assert [app["name"] for app in plugin.fastapi_apps] == names


def test_nothing_if_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__JOB_PAGE", "False")
    assert AirbyteEventsPlugin.external_views == []
    assert AirbyteEventsPlugin.fastapi_apps == []


def test_the_dashboard_opens_in_another_tab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__DASHBOARD_URL", "https://events.example.com")
    view, *_ = AirbyteEventsPlugin.external_views
    assert (view["href"], view["destination"]) == ("https://events.example.com", "nav")
    assert "url_route" not in view


@pytest.mark.parametrize("url", ["events.example.com", "javascript:alert(1)", "https://user:secret@events"])
def test_what_is_no_web_address_is_no_link(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__DASHBOARD_URL", url)
    assert dashboard_entry() == []
    assert "dashboard_url is no web address" in caplog.text
    assert "secret" not in caplog.text


def test_the_mounted_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__MOUNT_RECEIVER", "True")
    app, *_ = AirbyteEventsPlugin.fastapi_apps
    assert app["url_prefix"] == PREFIX
    assert isinstance(app["app"], MountedListener)
    # Airflow may read it more than once, and there is one.
    assert AirbyteEventsPlugin().fastapi_apps[0]["app"] is app["app"]


def test_with_more_than_one_worker_it_is_not_mounted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__MOUNT_RECEIVER", "True")
    monkeypatch.setenv("AIRFLOW__API__WORKERS", "4")
    assert mounted_listener() == []
    assert "[api] workers=4" in caplog.text
    assert "airbyte-events serve" in caplog.text


def test_without_the_server_extra(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__MOUNT_RECEIVER", "True")
    monkeypatch.setitem(sys.modules, "airbyte_events_provider.plugins.mounted", None)
    assert mounted_listener() == []
    assert "pip install 'airbyte-events[server]'" in caplog.text


def test_workers_load_the_plugin_without_the_server() -> None:
    # Every process of Airflow loads plugins, and most of them need nothing of this one.
    program = (
        "import sys, airbyte_events_provider.plugins.plugin as plugin; plugin.AirbyteEventsPlugin().fastapi_apps;"
        "heavy = ('uvicorn', 'airbyte_events.listener.settings', 'airbyte_events.listener.assembly')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


PORTLESS = {"conn_type": "airbyte", "port": 0, "extra": "{}"}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "body", "arrives"),
    [
        ("/api/v2/connections/test", json.dumps(PORTLESS), json.dumps(PORTLESS | {"port": None})),
        ("/base/api/v2/connections/test", json.dumps(PORTLESS), json.dumps(PORTLESS | {"port": None})),
        ("/api/v2/connections", json.dumps(PORTLESS), None),
        ("/api/v2/connections/test", json.dumps(PORTLESS | {"conn_type": "http"}), None),
        ("/api/v2/connections/test", json.dumps(PORTLESS | {"port": 8000}), None),
        ("/api/v2/connections/test", json.dumps(PORTLESS | {"extra": "x" * 300_000}), None),
        ("/api/v2/connections/test", "[" * 100_000, None),
        ("/api/v2/connections/test", "no JSON", None),
        ("/api/v2/connections/test", "[]", None),
        ("/api/v2/connections/test", "", None),
    ],
)
async def test_a_tested_connection_with_port_0_has_none(path: str, body: str, arrives: str | None) -> None:
    (each,) = AirbyteEventsPlugin.fastapi_root_middlewares
    app = Starlette(routes=[Route("/{path:path}", echo, methods=["POST"])])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(each["middleware"](app)), base_url="http://a") as http:
        answer = await http.post(path, content=chunks(body))
    assert answer.text == (body if arrives is None else arrives)


async def echo(request: Request) -> Response:
    return Response(await request.body())


async def chunks(body: str) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 50_000):
        yield body[start : start + 50_000].encode()
