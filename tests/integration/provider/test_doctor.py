"""What ``airbyte-events doctor`` tells of an Airflow."""

from __future__ import annotations

import anyio.to_thread
import pytest

from airbyte_events_provider.doctor import Line, examine
from support.airflow_stage import AirflowStage

pytestmark = pytest.mark.anyio


async def examined(*conn_ids: str) -> list[Line]:
    return await anyio.to_thread.run_sync(examine, conn_ids)


async def test_versions_and_a_connection_without_a_listener(stage: AirflowStage) -> None:
    stage.connect_airbyte()
    version, connection = (line for line in await examined() if "official" not in line[2])
    assert version[:2] == ("ok", "Airflow")
    assert connection[:2] == ("warning", "Airflow airbyte_default")
    assert "listener_conn_id" in connection[3]


async def test_a_connection_that_is_wrong(stage: AirflowStage) -> None:
    stage.connect("broken", conn_type="airbyte", host=f"{stage.sim.url}/api/v1")
    (line,) = (line for line in await examined("broken") if "broken" in line[1])
    assert line[0] == "failure"
    assert "/api/public/v1" in line[2]


async def test_a_listener_that_is_not_there(stage: AirflowStage) -> None:
    stage.connect_listener("http://127.0.0.1:9")
    (line,) = (line for line in await examined("airbyte_default") if "airbyte_default" in line[1])
    assert line[0] == "failure"
    assert "The listener fails" in line[2]
    assert "start what does not respond" in line[3]


@pytest.mark.parametrize(("conn_ids", "level"), [((), "warning"), (("elsewhere",), "failure")])
async def test_a_connection_that_is_not_there(stage: AirflowStage, conn_ids: tuple[str, ...], level: str) -> None:
    stage.monkeypatch.delenv("AIRFLOW_CONN_AIRBYTE_DEFAULT", raising=False)
    line = (await examined(*conn_ids))[-1]
    assert (line[0], line[2]) == (level, "there is no such connection")
