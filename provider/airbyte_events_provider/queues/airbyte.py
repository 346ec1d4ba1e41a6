"""Ends of Airbyte jobs as a message queue, for the ``MessageQueueTrigger`` of Airflow's common.messaging provider.

To be imported only where ``apache-airflow-providers-common-messaging`` is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from airflow.providers.common.messaging.providers.base_provider import BaseMessageQueueProvider
from airflow.triggers.base import BaseEventTrigger

from airbyte_events_provider.triggers.airbyte import AirbyteSyncEventTrigger

SCHEME = "airbyte-events"

_SEVERAL = {
    "connection_id": "connection_ids",
    "workspace_id": "workspace_ids",
    "job_type": "job_types",
    "status": "statuses",
}
_ONE: dict[str, Callable[[str], Any]] = {"listener_conn_id": str, "poll_interval": float}


class AirbyteEventsMessageQueueProvider(BaseMessageQueueProvider):
    """The ends of an Airbyte's jobs.

    By scheme, with the arguments of :class:`~airbyte_events_provider.triggers.airbyte.AirbyteSyncEventTrigger`::

        MessageQueueTrigger(scheme="airbyte-events", connection_ids="2f3c…", statuses=["succeeded", "failed"])

    By queue, where the host is the Airflow connection of the Airbyte (``airbyte_default`` if there is none), and
    ``connection_id``, ``workspace_id``, ``job_type`` and ``status`` may occur more than once::

        MessageQueueTrigger(queue="airbyte-events://airbyte_default?connection_id=2f3c…&status=succeeded")
    """

    scheme = SCHEME

    # Versions before 2 of common-messaging have no such methods to inherit.
    def scheme_matches(self, scheme: str) -> bool:
        """Whether it is ours."""
        return scheme == SCHEME

    def queue_matches(self, queue: str) -> bool:
        """Whether it is one of ours."""
        return queue.startswith(f"{SCHEME}://")

    def trigger_class(self) -> type[BaseEventTrigger]:
        """The trigger that tells of the ends."""
        return AirbyteSyncEventTrigger

    def trigger_kwargs(self, queue: str, **kwargs: Any) -> dict[str, Any]:
        """The trigger's arguments that the queue says.

        :raises ValueError: if there is something wrong with it.
        """
        parts = urlsplit(queue)
        said: dict[str, Any] = {"airbyte_conn_id": unquote(parts.netloc)} if parts.netloc else {}
        if parts.path.strip("/") or parts.fragment:
            raise ValueError(f"a queue is written {SCHEME}://AIRFLOW_CONNECTION?connection_id=…&status=succeeded")
        for name, values in parse_qs(parts.query, keep_blank_values=True).items():
            if name in _SEVERAL:
                said[_SEVERAL[name]] = values
            elif name in _ONE and len(values) == 1:
                said[name] = _ONE[name](values[0])
            else:
                known = ", ".join([*_SEVERAL, *_ONE])
                raise ValueError(f"the queue's {name} is not known, or given twice; there are: {known}")
        return said
