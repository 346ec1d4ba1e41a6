"""Airflow's part of ``airbyte-events doctor``: checks versions and Airflow connections."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

from airflow.providers.common.compat.sdk import AirflowException, AirflowNotFoundException

from airbyte_events.errors import AirbyteEventsError
from airbyte_events_provider.connections.read import choose_listener
from airbyte_events_provider.hooks.airbyte import AirbyteHook

LOWEST_AIRFLOW = (3, 0)

_PART = "Airflow"

Line = tuple[str, str, str, str]
"""A level (``ok``, ``warning``, ``failure``), a part, a text and a remedy."""


def examine(conn_ids: Sequence[str]) -> list[Line]:
    """Check this Airflow.

    :param conn_ids: the Airflow connections to check; empty: the default one.
    """
    lines = [*_versions()]
    with _server_context():
        for conn_id in conn_ids or [AirbyteHook.default_conn_name]:
            lines += _connection(conn_id, wanted=bool(conn_ids))
    return lines


@contextlib.contextmanager
def _server_context() -> Iterator[None]:
    """Read connections also from Airflow's database, as ``airflow connections test`` does."""
    name = "_AIRFLOW_PROCESS_CONTEXT"
    before = os.environ.get(name)
    os.environ[name] = before or "server"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


def _versions() -> Iterator[Line]:
    airflow = version("apache-airflow")
    provider = version("airbyte-events")
    if tuple(int(part) for part in airflow.split(".")[:2]) < LOWEST_AIRFLOW:
        yield "failure", _PART, f"version {airflow}", "Airflow 3.0 or newer is needed"
    else:
        yield "ok", _PART, f"version {airflow}, with airbyte-events {provider}", ""
    with contextlib.suppress(PackageNotFoundError):
        official = version("apache-airflow-providers-airbyte")
        text = f"the official Airbyte provider {official} is installed, too; DAGs choose by their imports"
        yield "ok", _PART, text, ""


def _connection(conn_id: str, *, wanted: bool) -> Iterator[Line]:
    part = f"{_PART} {conn_id}"
    hook = AirbyteHook(conn_id)
    try:
        listener = choose_listener(None, hook.settings)
    except AirflowNotFoundException:
        remedy = (
            f"airflow connections add {conn_id} --conn-type airbyte --conn-host URL …, or name another: --airflow-conn"
        )
        yield "failure" if wanted else "warning", part, "there is no such connection", remedy
        return
    except (AirflowException, AirbyteEventsError) as exc:
        yield "failure", part, str(exc), "correct the connection: Admin, Connections"
        return
    works, text = hook.test_connection()
    if not works:
        yield "failure", part, text, "start what does not respond, or correct the connection: Admin, Connections"
    elif listener is None:
        remedy = "add a connection of type airbyte_events, and name it in the extra listener_conn_id of this one"
        yield "warning", part, text, remedy
    else:
        yield "ok", part, text, ""
