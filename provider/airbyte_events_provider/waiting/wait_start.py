"""The start of a wait: the links to the job, who reports its completion, and the usual duration."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airbyte_events._utils import json_values
from airbyte_events._utils.json_values import instant, mapping, seconds, text
from airbyte_events._utils.times import format_time
from airbyte_events.events import Identity
from airbyte_events_provider.connections.read import read_hub
from airbyte_events_provider.links.airbyte import job_page, link_xcoms

if TYPE_CHECKING:
    from airbyte_events_provider.hooks.airbyte import AirbyteHook

logger = logging.getLogger(__name__)

JOB_XCOM = "_airbyte_job"
"""The key of the XCom by which Airflow's page of the task finds the job."""

_LONGEST_NAME = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReference:
    """A job that a task waits for, with all that is needed to request it.

    :param connection_id: the Airbyte connection (UUID).
    :param name: its name.
    :param started_at: when the job was created.
    :param airbyte_conn_id: the Airflow connection of the Airbyte.
    :param listener_conn_id: see :func:`~airbyte_events_provider.connections.read.choose_listener`.
    :param usual_seconds: the usual duration of such jobs.
    """

    job_id: int
    airbyte_conn_id: str
    listener_conn_id: str | None = None
    connection_id: str | None = None
    name: str | None = None
    started_at: datetime | None = None
    usual_seconds: float | None = None

    @property
    def identity(self) -> Identity:
        return Identity(self.connection_id, self.started_at)

    def values(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self) | {"started_at": format_time(self.started_at)}

    @classmethod
    def parse(cls, values: object) -> JobReference | None:
        """Return the reference with these :meth:`values`; None if they are not a reference's."""
        given = mapping(values)
        number, conn_id = json_values.job_id(given.get("job_id")), text(given.get("airbyte_conn_id"))
        listener = given.get("listener_conn_id")
        if number is None or conn_id is None or not isinstance(listener, str | None):
            return None
        return cls(
            job_id=number,
            airbyte_conn_id=conn_id,
            listener_conn_id=listener,
            connection_id=text(given.get("connection_id")),
            name=text(given.get("name"), _LONGEST_NAME),
            started_at=instant(given.get("started_at")),
            usual_seconds=seconds(given.get("usual_seconds")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitStart:
    """A wait that begins.

    :param xcoms: the links to the job's pages (see :func:`~airbyte_events_provider.links.airbyte.link_xcoms`), and the
        reference to it, by XCom key.
    :param line: the log line.
    """

    xcoms: dict[str, Any]
    line: str

    def log(self) -> None:
        logger.info("%s", self.line)

    def push(self, ti: Any) -> None:
        """Push the XComs, if there is a task instance."""
        for key, value in self.xcoms.items() if ti is not None else ():
            ti.xcom_push(key=key, value=value)


def wait_start(
    hook: AirbyteHook,
    job_id: int,
    identity: Identity,
    *,
    poll_interval: float,
    usual_seconds: float | None = None,
    named: bool = True,
) -> WaitStart:
    """Return what is known of a wait. It requests the Airbyte connection once, for its name and workspace.

    :param named: whether to request them. Without a workspace there are no links to Airbyte's web app.
    :param poll_interval: seconds between polls without a listener.
    :param usual_seconds: the usual duration of such jobs.
    """
    connection_id = identity.connection_id
    connection = hook.find_airbyte_connection(connection_id) if named and connection_id is not None else {}
    hub = read_hub(hook.airbyte_conn_id, hook.listener_conn_id)
    links = link_xcoms(
        hub.airbyte,
        hub.listener,
        connection_id=connection_id,
        job_id=job_id,
        workspace_id=text(connection.get("workspaceId")),
    )
    reference = JobReference(
        job_id=job_id,
        airbyte_conn_id=hook.airbyte_conn_id,
        listener_conn_id=hook.listener_conn_id,
        connection_id=connection_id,
        name=text(connection.get("name"), _LONGEST_NAME),
        started_at=identity.started_at,
        usual_seconds=usual_seconds,
    )
    if hub.listener is not None:
        how, by = "the listener reports the completion", f"listener={hub.listener.conn_id}"
    else:
        how, by = "polling Airbyte for the completion", f"poll_seconds={poll_interval:g}"
    usual = "unknown" if usual_seconds is None else f"{usual_seconds:.0f}"
    # The name is a person's text: repr() escapes line breaks.
    facts = f"connection={repr(reference.name) if reference.name else connection_id} {by} usual_seconds={usual}"
    line = f"{how}: job={job_id} {facts} link={job_page(links) or 'unknown'}"
    return WaitStart(xcoms={**links, JOB_XCOM: reference.values()}, line=line)
