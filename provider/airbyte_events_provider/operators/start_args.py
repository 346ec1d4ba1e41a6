"""Tasks without workers: which ones can begin and end in the triggerer, and their trigger's arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import airflow
from airflow.sdk import AssetAlias
from airflow.triggers.base import StartTriggerArgs
from jinja2 import TemplateError
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import SandboxedEnvironment

from airbyte_events_provider.arguments import is_template

LONGEST = timedelta(days=365)
"""The timeout of a trigger that begins its task. :func:`began_at` computes when the task began from the deadline that
Airflow stores (``TaskInstance.defer_task`` in 3.3.2)."""

TRIGGER = "airbyte_events_provider.triggers.airbyte.AirbyteStartTrigger"

_RENDERED = frozenset(
    [
        *("data_interval_end", "data_interval_start", "dag_run", "ds", "ds_nodash", "logical_date", "macros", "params"),
        *("partition_key", "run_id", "task_instance_key_str", "ts", "ts_nodash", "ts_nodash_with_tz"),
    ]
)
"""The template variables that need only the DAG run. For others, the triggerer of Airflow 3.3.2 sends requests whose
responses it can't parse (``ToTriggerRunner``): with ``ti.xcom_pull(…)`` in a template, the task stays deferred."""


def without_workers() -> bool:
    """Return whether this Airflow can begin and end tasks in the triggerer: 3.3 and newer.

    Airflow 3.0.6 renders no templates of tasks that begin there, and stores the XComs of tasks that end there as text.
    """
    return tuple(int(part) for part in airflow.__version__.split(".")[:2]) >= (3, 3)


def can_end_in_triggerer() -> bool:
    """Return whether this Airflow can end tasks in the triggerer.

    Where a plugin listens to task instances, as OpenLineage's does, Airflow refuses DAGs with ``end_from_trigger``,
    because such tasks call no listeners (``airflow.dag_processing.dagbag`` in 3.3.2).
    """
    if not without_workers():
        return False
    from airflow.sdk.listener import get_listener_manager

    return not get_listener_manager().has_listeners


def start_args(
    kwargs: Mapping[str, Any], templated: Iterable[object], inlets: Iterable[object]
) -> StartTriggerArgs | None:
    """Return the arguments to begin a task in the triggerer; None if the task begins in a worker.

    :param kwargs: the arguments of the trigger.
    :param templated: the values of the operator's template fields.
    :param inlets: the operator's inlets. The triggerer can't resolve asset aliases for the templates' context.
    """
    if not without_workers() or not all(map(renders_in_triggerer, templated)):
        return None
    if any(isinstance(inlet, AssetAlias) for inlet in inlets):
        return None
    return StartTriggerArgs(
        trigger_cls=TRIGGER, next_method="execute_complete", trigger_kwargs=dict(kwargs), timeout=LONGEST
    )


def renders_in_triggerer(value: object) -> bool:
    """Return whether the triggerer can render the value of a templated argument."""
    if not is_template(value):
        return True
    if not isinstance(value, str):
        return False
    environment = SandboxedEnvironment()
    try:
        template = environment.parse(value)
        # A DAG's own macros and filters are not serialized: they are unknown here as in the triggerer.
        return find_undeclared_variables(template) <= _RENDERED
    except TemplateError:
        return False


def began_at(timeout_after: datetime | None, execution_timeout: float | None) -> float | None:
    """Return when a task began in the triggerer, in seconds since the epoch, by Airflow's clock.

    :param timeout_after: Airflow's deadline for the trigger; None without a triggerer.
    :param execution_timeout: the task's, in seconds.
    """
    if timeout_after is None:
        return None
    longest = LONGEST.total_seconds()
    return timeout_after.timestamp() - min(longest, longest if execution_timeout is None else execution_timeout)
