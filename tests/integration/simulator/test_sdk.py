"""Airbyte's own client for Python finds nothing odd."""

from __future__ import annotations

from typing import Any

import anyio.to_thread
import pytest
from airbyte_api import AirbyteAPI, api, models

pytestmark = pytest.mark.anyio


def walk(url: str, base: str, connection_id: str, secret: str | None) -> list[Any]:
    security = None
    if secret is not None:
        credentials = models.SchemeClientCredentials(
            client_id="sdk", client_secret=secret, token_url=f"{url}{base}/applications/token"
        )
        security = models.Security(client_credentials=credentials)
    with AirbyteAPI(security=security, server_url=url + base) as client:
        request = models.JobCreateRequest(connection_id=connection_id, job_type=models.JobTypeEnum.SYNC)
        created = client.jobs.create_job(request=request).job_response
        assert created is not None
        read = client.jobs.get_job(request=api.GetJobRequest(job_id=created.job_id)).job_response
        listed = client.jobs.list_jobs(request=api.ListJobsRequest(connection_id=connection_id)).jobs_response
        cancelled = client.jobs.cancel_job(request=api.CancelJobRequest(job_id=created.job_id)).job_response
        workspaces = client.workspaces.list_workspaces(request=api.ListWorkspacesRequest()).workspaces_response
        connection = client.connections.get_connection(request=api.GetConnectionRequest(connection_id=connection_id))
        assert read is not None
        assert listed is not None
        assert cancelled is not None
        assert workspaces is not None
        assert connection.connection_response is not None
        return [
            read.status.value,
            [job.job_id == created.job_id for job in listed.data],
            cancelled.status.value,
            len(workspaces.data),
            connection.connection_response.name,
        ]


@pytest.mark.parametrize("base", ["/api/public/v1", "/v1"])
@pytest.mark.parametrize("secret", [None, "for the SDK"])
async def test_creates_reads_lists_and_cancels(rehearse: Any, base: str, secret: str | None) -> None:
    # The SDK keeps tokens for the life of the process, by client id and secret.
    secret = secret and f"{secret} at {base}"
    async with rehearse(client_id=secret and "sdk", client_secret=secret) as airbyte:
        seen = await anyio.to_thread.run_sync(walk, airbyte.sim.url, base, airbyte.connection_id, secret)
        assert seen == ["running", [True], "cancelled", 1, "orders"]
