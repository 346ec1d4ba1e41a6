"""The hook for a listener of airbyte-events."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException, BaseHook

from airbyte_events.client import FeedClient
from airbyte_events.errors import AirbyteEventsError
from airbyte_events_provider.blocking import run_blocking
from airbyte_events_provider.clients import open_listener
from airbyte_events_provider.connections import aread_listener, read_listener


class ListenerHook(BaseHook):
    """A listener, which tells of Airbyte's jobs when they end.

    :param listener_conn_id: the Airflow connection: host is the listener's URL, password is one of its API tokens.
        Extra: ``verify``.
    """

    conn_name_attr = "listener_conn_id"
    default_conn_name = "airbyte_events_default"
    conn_type = "airbyte_events"
    hook_name = "Airbyte Events"

    def __init__(self, listener_conn_id: str = "airbyte_events_default") -> None:
        super().__init__()
        self.listener_conn_id = listener_conn_id

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """How Airflow's form names the fields."""
        return {
            "hidden_fields": ["login", "schema", "port"],
            "relabeling": {"host": "Listener URL", "password": "API token"},
            "placeholders": {"host": "http://localhost:8484"},
        }

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[FeedClient]:
        """The listener for coroutines: ``async with hook.open() as feed, feed.stream() as frames``.

        :raises SettingsError: if the connection is wrong.
        """
        async with open_listener(await aread_listener(self.listener_conn_id)) as feed:
            yield feed

    def test_connection(self) -> tuple[bool, str]:
        """Whether the listener is there and takes the token; if not, why.

        :return: the answer, and it in words.
        """
        try:
            settings = read_listener(self.listener_conn_id)

            async def ask() -> None:
                async with open_listener(settings) as feed:
                    await feed.watch([])

            run_blocking(ask)
        except (AirbyteEventsError, AirflowException) as exc:
            return False, str(exc)
        return True, f"The listener {settings.url} answers."
