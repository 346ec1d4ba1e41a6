"""What a task knows when it begins to wait: the job's pages, who reports its completion, and the usual duration."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airbyte_events._utils.json_values import text
from airbyte_events_provider.connections.read import read_hub
from airbyte_events_provider.links.airbyte import job_page, link_xcoms

if TYPE_CHECKING:
    from airbyte_events_provider.hooks.airbyte import AirbyteHook

logger = logging.getLogger(__name__)

_LONGEST_NAME = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """A wait that begins.

    :param links: URLs by XCom key, see :func:`~airbyte_events_provider.links.airbyte.link_xcoms`.
    :param line: the log line.
    """

    links: dict[str, str]
    line: str

    def log(self) -> None:
        logger.info("%s", self.line)


def outlook(
    hook: AirbyteHook,
    job_id: int,
    connection_id: str | None,
    *,
    poll_interval: float,
    usual_seconds: float | None = None,
) -> Outlook:
    """Return what is known of a wait. It requests the Airbyte connection once, for its name and workspace.

    :param poll_interval: seconds between polls without a listener.
    :param usual_seconds: the usual duration of such jobs.
    """
    connection = {} if connection_id is None else hook.find_airbyte_connection(connection_id)
    hub = read_hub(hook.airbyte_conn_id, hook.listener_conn_id)
    links = link_xcoms(
        hub.airbyte,
        hub.listener,
        connection_id=connection_id,
        job_id=job_id,
        workspace_id=text(connection.get("workspaceId")),
    )
    if hub.listener is not None:
        how, by = "the listener reports the completion", f"listener={hub.listener.conn_id}"
    else:
        how, by = "polling Airbyte for the completion", f"poll_seconds={poll_interval:g}"
    name = text(connection.get("name"), _LONGEST_NAME)
    usual = "unknown" if usual_seconds is None else f"{usual_seconds:.0f}"
    # The name is a person's text: repr() escapes line breaks.
    facts = f"connection={repr(name) if name else connection_id} {by} usual_seconds={usual}"
    return Outlook(links=links, line=f"{how}: job={job_id} {facts} link={job_page(links) or 'unknown'}")
