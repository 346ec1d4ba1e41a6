"""Completed Airbyte jobs as a message queue, for the ``MessageQueueTrigger`` of Airflow's common.messaging provider.

Importing this needs ``apache-airflow-providers-common-messaging``.
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
    """The completed jobs of an Airbyte.

    By scheme, with the arguments of :class:`~airbyte_events_provider.triggers.airbyte.AirbyteSyncEventTrigger`::

        MessageQueueTrigger(scheme="airbyte-events", connection_ids="2f3c…", statuses=["succeeded", "failed"])

    By queue, where the host is the Airflow connection of the Airbyte (``airbyte_default`` if there is none), and
    ``connection_id``, ``workspace_id``, ``job_type`` and ``status`` may occur more than once::

        MessageQueueTrigger(queue="airbyte-events://airbyte_default?connection_id=2f3c…&status=succeeded")
    """

    scheme = SCHEME

    # Versions before 2 of common-messaging have no such methods to inherit.
    def scheme_matches(self, scheme: str) -> bool:
        """Return whether the scheme is ``airbyte-events``."""
        return scheme == SCHEME

    def queue_matches(self, queue: str) -> bool:
        """Return whether the queue's scheme is ``airbyte-events``."""
        return queue.startswith(f"{SCHEME}://")

    def trigger_class(self) -> type[BaseEventTrigger]:
        """Return the trigger that fires for the jobs."""
        return AirbyteSyncEventTrigger

    def trigger_kwargs(self, queue: str, **kwargs: Any) -> dict[str, Any]:
        """Return the trigger's arguments that the queue has.

        :raises ValueError: if the queue is wrong.
        """
        parts = urlsplit(queue)
        arguments: dict[str, Any] = {"airbyte_conn_id": unquote(parts.netloc)} if parts.netloc else {}
        if parts.path.strip("/") or parts.fragment:
            raise ValueError(f"queue={queue!r}: write {SCHEME}://AIRFLOW_CONNECTION?connection_id=…&status=succeeded")
        for name, values in parse_qs(parts.query, keep_blank_values=True).items():
            if name in _SEVERAL:
                arguments[_SEVERAL[name]] = values
            elif name in _ONE and len(values) == 1:
                arguments[name] = _ONE[name](values[0])
            else:
                known = ", ".join([*_SEVERAL, *_ONE])
                raise ValueError(f"the queue has no parameter {name}, or has it twice; its parameters are {known}")
        return arguments
