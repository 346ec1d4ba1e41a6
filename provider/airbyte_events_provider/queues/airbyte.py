"""Completed Airbyte jobs as a message queue, for the ``MessageQueueTrigger`` of Airflow's common.messaging provider.

Requires ``apache-airflow-providers-common-messaging``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from airflow.providers.common.messaging.providers.base_provider import BaseMessageQueueProvider
from airflow.triggers.base import BaseEventTrigger

from airbyte_events_provider.triggers.airbyte import AirbyteSyncEventTrigger

SCHEME = "airbyte-events"

_REPEATABLE = {
    "connection_id": "connection_ids",
    "workspace_id": "workspace_ids",
    "job_type": "job_types",
    "status": "statuses",
}
_SINGLE: dict[str, Callable[[str], Any]] = {"listener_conn_id": str, "poll_interval": float}


class AirbyteEventsMessageQueueProvider(BaseMessageQueueProvider):
    """The completed jobs of an Airbyte.

    By scheme, with the arguments of :class:`~airbyte_events_provider.triggers.airbyte.AirbyteSyncEventTrigger`::

        MessageQueueTrigger(scheme="airbyte-events", connection_ids="2f3c…", statuses=["succeeded", "failed"])

    By queue, whose host is the Airflow connection of the Airbyte (default ``airbyte_default``), and whose parameters
    ``connection_id``, ``workspace_id``, ``job_type`` and ``status`` can be repeated::

        MessageQueueTrigger(queue="airbyte-events://airbyte_default?connection_id=2f3c…&status=succeeded")
    """

    scheme = SCHEME

    # Before version 2 of common-messaging there are no such methods to inherit.
    def scheme_matches(self, scheme: str) -> bool:
        return scheme == SCHEME

    def queue_matches(self, queue: str) -> bool:
        return queue.startswith(f"{SCHEME}://")

    def trigger_class(self) -> type[BaseEventTrigger]:
        return AirbyteSyncEventTrigger

    def trigger_kwargs(self, queue: str, **kwargs: Any) -> dict[str, Any]:
        """Return the trigger's arguments from the queue's parameters.

        :raises ValueError: if the queue is wrong.
        """
        parts = urlsplit(queue)
        arguments: dict[str, Any] = {"airbyte_conn_id": unquote(parts.netloc)} if parts.netloc else {}
        if parts.path.strip("/") or parts.fragment:
            raise ValueError(f"queue={queue!r}: write {SCHEME}://AIRFLOW_CONNECTION?connection_id=…&status=succeeded")
        for name, values in parse_qs(parts.query, keep_blank_values=True).items():
            if name in _REPEATABLE:
                arguments[_REPEATABLE[name]] = values
            elif name in _SINGLE and len(values) == 1:
                arguments[name] = _SINGLE[name](values[0])
            else:
                known = ", ".join([*_REPEATABLE, *_SINGLE])
                raise ValueError(f"the queue has no parameter {name}, or has it twice; its parameters are {known}")
        return arguments
