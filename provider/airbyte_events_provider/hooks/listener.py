"""The hook for a listener of airbyte-events."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from functools import partial

from airbyte_events.feed.client import FeedClient
from airbyte_events_provider.blocking import run_blocking
from airbyte_events_provider.connections.clients import open_listener
from airbyte_events_provider.connections.read import aread_listener, read_listener
from airbyte_events_provider.hooks.connection_test import diagnose_listener, run_test
from airbyte_events_provider.hooks.forms import FormHook


class ListenerHook(FormHook):
    """Call a listener, which reports the completions of Airbyte's jobs.

    :param listener_conn_id: the Airflow connection: host is the listener's URL, password is one of its API tokens.
        Extra: ``dashboard_url``, ``verify``, ``client_cert``.
    """

    conn_name_attr = "listener_conn_id"
    default_conn_name = "airbyte_events_default"
    conn_type = "airbyte_events"
    hook_name = "Airbyte Events"

    def __init__(self, listener_conn_id: str = "airbyte_events_default") -> None:
        super().__init__()
        self.listener_conn_id = listener_conn_id

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[FeedClient]:
        """Open the feed's client, for coroutines: ``async with hook.open() as feed, feed.stream() as frames``.

        :raises SettingsError: if the connection is wrong.
        """
        async with open_listener(await aread_listener(self.listener_conn_id)) as feed:
            yield feed

    def test_connection(self) -> tuple[bool, str]:
        """Test the listener's URL and token; return whether both work, and a message."""
        conn_id = self.listener_conn_id
        return run_test(lambda: run_blocking(partial(diagnose_listener, read_listener(conn_id), None, None)))
