"""Links of a task: its connection and job in Airbyte's web app, and its job on the listener's dashboard.

The operator pushes them as XComs once it has a job: Airflow itself would create them only when the task ends, so a
deferred task would have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

from airbyte_events.airbyte.url import connection_page, job_log_page, web_url
from airbyte_events_provider.connections.settings import AirbyteSettings, ListenerSettings


class _XComLink(BaseOperatorLink):
    """A link that is an XCom of its task."""

    xcom: ClassVar[str]

    @property
    def xcom_key(self) -> str:
        return self.xcom

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the link; empty if the task failed before it had a job."""
        link = XCom.get_value(ti_key=ti_key, key=self.xcom)
        return link if isinstance(link, str) else ""


class AirbyteConnectionLink(_XComLink):
    """The connection's page in Airbyte's web app."""

    name = "Airbyte connection"
    xcom = "_link_AirbyteConnectionLink"


class AirbyteJobLink(_XComLink):
    """The job in the connection's timeline in Airbyte's web app, its log open."""

    name = "Airbyte job"
    xcom = "_link_AirbyteJobLink"


class ListenerJobLink(_XComLink):
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
    """Return the known links of a task: URLs by XCom key.

    :param connection_id: the Airbyte connection (UUID).
    :param workspace_id: the connection's workspace, which is part of the URLs.
    """
    links = {}
    web = airbyte.web_url or web_url(airbyte.url)
    if web and workspace_id and connection_id:
        page = connection_page(web, workspace_id, connection_id)
        links[AirbyteConnectionLink.xcom] = page
        links[AirbyteJobLink.xcom] = job_log_page(page, job_id)
    if listener is not None and (dashboard := _dashboard(listener)):
        links[ListenerJobLink.xcom] = f"{dashboard}/jobs/{quote(airbyte.instance, safe='')}/{job_id}"
    return links


def job_page(links: Mapping[str, str]) -> str | None:
    """Return the page of the job among the links: the listener's, else Airbyte's; None if neither is known."""
    return links.get(ListenerJobLink.xcom) or links.get(AirbyteJobLink.xcom)


def _dashboard(listener: ListenerSettings) -> str | None:
    """Return the URL of the dashboard: the connection's, else the listener's without credentials."""
    if listener.dashboard_url:
        return listener.dashboard_url
    try:
        parts = urlsplit(listener.url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return None
    return f"{parts.scheme}://{host}{parts.path}".rstrip("/")
