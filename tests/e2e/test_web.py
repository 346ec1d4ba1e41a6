"""What people see of this package in Airflow's web interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow_stack import AirflowStack
    from services import Services


@pytest.mark.parametrize("port_is_given", [False, True])
def test_the_test_button(airflow: AirflowStack, services: Services, port_is_given: bool) -> None:
    """The page sends the stored connection, its secrets hidden, and 0 for an empty port."""
    stored: dict[str, Any] = services.addresses.airflow_connections()["airbyte_default"]
    url = stored["host"]
    conn_id = f"with_a_port_{port_is_given}"
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
