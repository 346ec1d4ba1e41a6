"""Links on a task: its connection and job in Airbyte's web app, and its job on the listener's dashboard.

Airflow's worker makes the links of a task when that ends, so a deferred task had none while it waits. An operator
leaves them itself, as XComs, as soon as it has a job: :func:`link_xcoms` says which. The classes give back what was
left.
"""

from __future__ import annotations

import logging
from typing import Any, ClassVar
from urllib.parse import quote, urlencode, urlsplit

import anyio
from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

from airbyte_events.airbyte import AirbyteClient
from airbyte_events.errors import AirbyteError
from airbyte_events_provider.connections.settings import AirbyteSettings, ListenerSettings

logger = logging.getLogger(__name__)

WORKSPACE_SECONDS = 10.0
"""A link may cost its task so long, and no longer."""

_CLOUD_API = "https://api.airbyte.com/v1"
_CLOUD_WEB = "https://cloud.airbyte.com"
_API_PATH = "/api/public/v1"


class _LeftLink(BaseOperatorLink):
    """A link that is an XCom of its task."""

    xcom: ClassVar[str]

    @property
    def xcom_key(self) -> str:
        """Under which the link is left."""
        return self.xcom

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """What the task has left, or nothing: a task that failed before it had a job has no such page."""
        link = XCom.get_value(ti_key=ti_key, key=self.xcom)
        return link if isinstance(link, str) else ""


class AirbyteConnectionLink(_LeftLink):
    """The connection's page in Airbyte's web app."""

    name = "Airbyte connection"
    xcom = "_link_AirbyteConnectionLink"


class AirbyteJobLink(_LeftLink):
    """The job in the connection's timeline in Airbyte's web app, its log open."""

    name = "Airbyte job"
    xcom = "_link_AirbyteJobLink"


class ListenerJobLink(_LeftLink):
    """The job on the listener's dashboard."""

    name = "Job on the listener"
    xcom = "_link_ListenerJobLink"


def link_xcoms(
    airbyte: AirbyteSettings,
    listener: ListenerSettings | None,
    *,
    connection_id: str | None,
    job_id: int,
    workspace_id: str | None = None,
) -> dict[str, str]:
    """The XComs by which a task has its links, from now on and whatever becomes of it; nobody is asked.

    :param airbyte: the Airflow connection of the Airbyte.
    :param listener: that of the listener, if there is one.
    :param connection_id: the Airbyte connection (UUID).
    :param job_id: its job.
    :param workspace_id: the connection's workspace; without it, Airbyte's pages have no address.
    :return: URLs by XCom key, only those that are known.
    """
    links = {}
    web = web_address(airbyte)
    if web and workspace_id and connection_id:
        page = f"{web}/workspaces/{quote(workspace_id, safe='')}/connections/{quote(connection_id, safe='')}"
        links[AirbyteConnectionLink.xcom] = page
        links[AirbyteJobLink.xcom] = f"{page}/timeline?{urlencode({'openLogs': 'true', 'jobId': job_id})}"
    if listener is not None and (dashboard := dashboard_address(listener)):
        links[ListenerJobLink.xcom] = f"{dashboard}/jobs/{quote(airbyte.instance, safe='')}/{job_id}"
    return links


async def workspace_of(airbyte: AirbyteClient, connection_id: str) -> str | None:
    """The workspace of an Airbyte connection, asked for once; None if Airbyte does not tell.

    :param connection_id: the Airbyte connection (UUID).
    """
    try:
        with anyio.fail_after(WORKSPACE_SECONDS):
            workspace_id = (await airbyte.get_connection(connection_id, attempts=1)).get("workspaceId")
    except (AirbyteError, ValueError, TimeoutError) as exc:
        logger.info("the task has no link to Airbyte's web app, as its connection's workspace is not known: %s", exc)
        return None
    return workspace_id if isinstance(workspace_id, str) and workspace_id else None


def web_address(airbyte: AirbyteSettings) -> str | None:
    """Where Airbyte's web app is: as the connection says, else where it stands beside its API.

    :return: without a slash at its end; None where that can't be told from the API's address.
    """
    if airbyte.web_url:
        return airbyte.web_url
    if airbyte.url == _CLOUD_API:
        return _CLOUD_WEB
    return airbyte.url.removesuffix(_API_PATH) if airbyte.url.endswith(_API_PATH) else None


def dashboard_address(listener: ListenerSettings) -> str | None:
    """Where people reach the listener: as the connection says, else where the workers do."""
    if listener.dashboard_url:
        return listener.dashboard_url
    try:
        parts = urlsplit(listener.url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return None
    return f"{parts.scheme}://{host}{parts.path}".rstrip("/")
