"""Reading Airflow connections, in a worker or on the event loop of a triggerer."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, conf
from asgiref.sync import sync_to_async

from airbyte_events.errors import SettingsError
from airbyte_events_provider.config import SECTION
from airbyte_events_provider.connections.settings import (
    AirbyteSettings,
    HubSettings,
    ListenerSettings,
    parse_airbyte,
    parse_listener,
    secrets,
)

try:
    from airflow.sdk.log import mask_secret
except ImportError:  # Airflow 3.0
    from airflow.sdk.execution_time.secrets_masker import mask_secret  # type: ignore[no-redef]

logger = logging.getLogger(__name__)


def read_airbyte(conn_id: str) -> AirbyteSettings:
    """Return the settings of an Airflow connection of type ``airbyte``.

    :raises AirflowNotFoundException: if there is no such connection.
    :raises SettingsError: if a field is wrong.
    """
    connection = BaseHook.get_connection(conn_id)
    for secret in secrets(connection):
        mask_secret(secret)
    return parse_airbyte(connection)


def read_listener(conn_id: str) -> ListenerSettings:
    """Return the settings of a listener's connection; raises as :func:`read_airbyte` does."""
    return parse_listener(BaseHook.get_connection(conn_id))


def read_hub(airbyte_conn_id: str, listener_conn_id: str | None = None) -> HubSettings:
    """Return the settings of a hub.

    If the listener's connection is missing or wrong, it is logged and left out: the hub polls Airbyte.

    :param listener_conn_id: see :func:`choose_listener`.
    :raises AirflowNotFoundException: if there is no such Airbyte connection.
    :raises SettingsError: if a field of it is wrong.
    """
    airbyte = read_airbyte(airbyte_conn_id)
    if chosen := choose_listener(listener_conn_id, airbyte):
        with _polling_instead(chosen):
            return HubSettings(airbyte=airbyte, listener=read_listener(chosen))
    return HubSettings(airbyte=airbyte)


def choose_listener(wanted: str | None, airbyte: AirbyteSettings) -> str | None:
    """Return the id of the listener's Airflow connection; None for no listener.

    :param wanted: the task's; None: that of the Airbyte's connection, else of Airflow's configuration. An empty string:
        no listener.
    """
    if wanted is not None:
        return wanted or None
    return airbyte.listener_conn_id or conf.get(SECTION, "listener_conn_id", fallback=None) or None


@contextlib.contextmanager
def _polling_instead(conn_id: str) -> Iterator[None]:
    try:
        yield
    except (AirflowNotFoundException, SettingsError) as exc:
        logger.error("polling Airbyte instead of the listener: Airflow connection %r can't be used: %s", conn_id, exc)


# Reading blocks: it is a request to the supervisor of Airflow's process. Any thread will do, so none waits for a
# trigger that blocks asgiref's own.
aread_airbyte = sync_to_async(read_airbyte, thread_sensitive=False)
aread_listener = sync_to_async(read_listener, thread_sensitive=False)
aread_hub = sync_to_async(read_hub, thread_sensitive=False)
"""The functions for event loops."""
