"""What people see of this package in Airflow's web interface."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from processes import free_ports

if TYPE_CHECKING:
    from airflow_stack import AirflowStack
    from services import Services


@pytest.mark.needs_airflow(3, 3, "the secrets of a stored connection in its test")
@pytest.mark.parametrize("port_is_given", [False, True])
def test_the_test_button(airflow: AirflowStack, services: Services, port_is_given: bool) -> None:
    """The page sends the stored connection, its secrets hidden, and 0 for an empty port."""
    stored: dict[str, Any] = services.addresses.airflow_connections()["airbyte_default"]
    url = stored["host"]
    conn_id = f"tested_{secrets.token_hex(4)}"
    host, _, port = url.rpartition(":")
    fields = {"connection_id": conn_id, "conn_type": "airbyte", "host": url, "port": None}
    if port_is_given:
        fields |= {"host": host, "port": int(port.partition("/")[0])}
    fields |= {name: stored[name] for name in ("login", "password") if name in stored}
    airflow.api.request("POST", "/connections", json=fields)
    sent = airflow.api.request("GET", f"/connections/{conn_id}") | {"port": fields["port"] or 0}
    sent = {name: "" if value is None else value for name, value in sent.items() if name != "team_name"}
    tested = airflow.api.request("POST", "/connections/test", json=sent)
    assert tested["status"], tested["message"]
    assert "and lists jobs" in tested["message"]


def page_of(run_id: str, dag_id: str = "one_sync", task_id: str = "sync") -> str:
    """The path as Airflow fills it in: it leaves the index of a task that is not mapped."""
    return f"/airbyte-job/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/%7BMAP_INDEX%7D"


@contextmanager
def logged_in(airflow: AirflowStack, home: Path) -> Iterator[Callable[[str | None], httpx.Client]]:
    """An API server that asks people who they are; a function that returns the browser of one of them."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    passwords = home / "passwords.json"
    passwords.write_text(json.dumps({"reader": "secret", "nobody": "secret"}))
    settings = {
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "reader:viewer,nobody:",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
    }
    with airflow.another("api-server", settings), httpx.Client(base_url=url, trust_env=False, timeout=30) as anybody:

        def is_up() -> bool:
            try:
                return anybody.get("/api/v2/version").is_success
            except httpx.TransportError:
                return False

        airflow.processes.wait_until(is_up, "the API server with log-in", timeout=120)

        def browser(user: str | None) -> httpx.Client:
            anybody.cookies.clear()
            if user is not None:
                answer = anybody.post("/auth/token", json={"username": user, "password": "secret"}).raise_for_status()
                anybody.cookies.set("_token", answer.json()["access_token"])
            return anybody

        yield browser


@pytest.mark.needs_airflow(3, 1, "plugins' pages beside tasks")
def test_the_page_of_a_tasks_job(airflow: AirflowStack, services: Services, tmp_path: Path) -> None:
    (view,) = [
        view
        for plugin in airflow.api.request("GET", "/plugins")["plugins"]
        for view in plugin["external_views"]
        if view["name"] == "Airbyte job"
    ]
    assert (view["destination"], view["href"][0]) == ("task_instance", "a"), "relative to Airflow's own address"

    script = {"phases": [{"status": "running", "seconds": 1}], "end": None}
    answer = services.airbyte.post("/_simulator/connections", json={"script": script, "name": "<b>Orders</b>"})
    connection_id = answer.raise_for_status().json()["connection_ids"][0]
    run_id = airflow.trigger_dag("one_sync", {"connection": connection_id})
    airflow.wait_for_task("one_sync", run_id, "sync", {"deferred"})
    with logged_in(airflow, tmp_path) as browser:
        assert browser(None).get(page_of(run_id)).status_code == 401
        assert browser("nobody").get(page_of(run_id)).status_code == 403
        assert "No Airbyte job" in browser("reader").get(page_of("no_such_run")).text

        running = browser("reader").get(page_of(run_id)).raise_for_status()
        jobs = services.airbyte.get("/_simulator/jobs", params={"connection_id": connection_id}).json()["jobs"]
        job_id = jobs[0]["job_id"]
        assert f"Airbyte job {job_id} of &lt;b&gt;Orders&lt;/b&gt;" in running.text
        assert '<strong class="running">' in running.text
        assert '<meta http-equiv="refresh"' in running.text
        assert "script" not in running.text
        style = httpx.URL(str(running.url)).join(running.text.partition('rel="stylesheet" href="')[2].partition('"')[0])
        assert browser(None).get(style).headers["content-type"].startswith("text/css")

        services.airbyte.post(f"/_simulator/jobs/{job_id}/end", json={"status": "succeeded"}).raise_for_status()
        airflow.wait_for_run("one_sync", run_id)

        def shown() -> str | None:
            # What others have just requested is shown for some seconds.
            text = browser("reader").get(page_of(run_id)).raise_for_status().text
            return text if '<strong class="succeeded">' in text else None

        text = airflow.processes.wait_until(shown, "the page of the completed job", timeout=60)
        for step in ("The webhook arrived", "it was published", "The trigger fired", "The task completed"):
            assert step in text
        assert f"by the listener {services.addresses.listener_url}" in text
        assert services.addresses.api_token not in text
        assert "refresh" not in text
