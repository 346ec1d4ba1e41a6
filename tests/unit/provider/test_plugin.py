"""What Airflow's web interface has of this package, by configuration."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from airbyte_events_provider.plugins.mounted import MountedListener
from airbyte_events_provider.plugins.plugin import PREFIX, AirbyteEventsPlugin, dashboard_entry, mounted_listener


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AIRFLOW__API__WORKERS", "1")
    yield
    dashboard_entry.cache_clear()
    mounted_listener.cache_clear()


def test_nothing_by_default() -> None:
    # Airflow reads the class or an instance of it, by how it found the plugin.
    for plugin in (AirbyteEventsPlugin, AirbyteEventsPlugin()):
        assert plugin.external_views == []
        assert plugin.fastapi_apps == []


def test_the_dashboard_opens_in_another_tab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__DASHBOARD_URL", "https://events.example.com")
    (view,) = AirbyteEventsPlugin.external_views
    assert (view["href"], view["destination"]) == ("https://events.example.com", "nav")
    assert "url_route" not in view


@pytest.mark.parametrize("url", ["events.example.com", "javascript:alert(1)", "https://user:secret@events"])
def test_what_is_no_web_address_is_no_link(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__DASHBOARD_URL", url)
    assert AirbyteEventsPlugin.external_views == []
    assert "dashboard_url is no web address" in caplog.text
    assert "secret" not in caplog.text


def test_the_mounted_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__MOUNT_RECEIVER", "True")
    (app,) = AirbyteEventsPlugin.fastapi_apps
    assert app["url_prefix"] == PREFIX
    assert isinstance(app["app"], MountedListener)
    # Airflow may read it more than once, and there is one.
    assert AirbyteEventsPlugin().fastapi_apps[0]["app"] is app["app"]


def test_with_more_than_one_worker_it_is_not_mounted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__MOUNT_RECEIVER", "True")
    monkeypatch.setenv("AIRFLOW__API__WORKERS", "4")
    assert AirbyteEventsPlugin.fastapi_apps == []
    assert "[api] workers=4" in caplog.text
    assert "airbyte-events serve" in caplog.text


def test_without_the_server_extra(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__MOUNT_RECEIVER", "True")
    monkeypatch.setitem(sys.modules, "airbyte_events_provider.plugins.mounted", None)
    assert AirbyteEventsPlugin.fastapi_apps == []
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
