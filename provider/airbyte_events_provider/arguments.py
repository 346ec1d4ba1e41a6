"""Checks of the arguments of operators, sensors and triggers, when the DAG is imported."""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Mapping
from functools import lru_cache
from numbers import Integral, Real

from airflow.sdk import XComArg


class WrongArgument(TypeError, ValueError):
    """An argument of the wrong type or value.

    Also a TypeError: any other error from a trigger's constructor ends Airflow's triggerer
    (``TriggerRunner.create_triggers`` in 3.3.2).
    """


def is_template(value: object) -> bool:
    """Return whether Airflow renders this value before the task runs: a Jinja template or an XComArg."""
    return isinstance(value, XComArg) or (isinstance(value, str) and ("{{" in value or "{%" in value))


def check_arguments(cls: type, given: Mapping[str, object]) -> None:
    """Check a constructor's arguments by its annotations: ``check_arguments(Operator, locals())``.

    It checks ``str``, ``bool``, ``float`` (0 or more) and ``int`` (0 or more), also with ``| None``, and job ids by
    name. An argument in ``template_fields`` may be a template.

    :raises WrongArgument: if an argument has another type or value.
    """
    templated = getattr(cls, "template_fields", ())
    for name, annotation in _annotations(cls).items():
        if name not in given or (name in templated and is_template(given[name])):
            continue
        value = given[name]
        kind, _, rest = annotation.partition(" | ")
        if name.endswith("job_id"):
            fault = _job_id_fault(value)
        elif kind not in _FAULTS or rest not in {"", "None"} or (value is None and rest):
            continue
        else:
            fault = _FAULTS[kind](name, value)
        if fault is not None:
            raise WrongArgument(f"{name}={format_value(value)} {fault}")


def check_choice(name: str, value: object, allowed: Collection[str]) -> None:
    """Raise :class:`WrongArgument` unless the value is allowed."""
    if value not in allowed:
        raise WrongArgument(f"{name}={format_value(value)} is none of {', '.join(allowed)}")


def check_named(connection_id: object, connection_name: object, workspace_id: object) -> None:
    """Check that a connection is given either by its id or by its name.

    :raises WrongArgument: if it is not.
    """
    if connection_id is not None and connection_name is not None:
        raise WrongArgument(
            f"connection_name={format_value(connection_name)} and connection_id are both set: write one of them"
        )
    if workspace_id is not None and connection_name is None:
        raise WrongArgument(
            f"workspace_id={format_value(workspace_id)} has no effect without connection_name: a UUID is unique"
        )
    if connection_id is None and connection_name is None:
        raise WrongArgument("connection_id=None: write the Airbyte connection's UUID, or its name as connection_name")


@lru_cache
def _annotations(cls: type) -> dict[str, str]:
    return {name: str(each.annotation) for name, each in inspect.signature(cls).parameters.items()}


def _text_fault(name: str, value: object) -> str | None:
    return None if isinstance(value, str) else "is not text"


def _flag_fault(name: str, value: object) -> str | None:
    return None if isinstance(value, bool) else "is neither True nor False"


def _number_fault(name: str, value: object) -> str | None:
    unit = "seconds since the epoch" if name.endswith(("_time", "_deadline", "_at")) else "seconds"
    if not isinstance(value, Real) or isinstance(value, bool):
        seconds = getattr(value, "total_seconds", None)
        return f"is not a number of {unit}: write {seconds() if callable(seconds) else 60:g}"
    return None if math.isfinite(value) and float(value) >= 0 else f"is not a number of {unit} from 0 on"


def _count_fault(name: str, value: object) -> str | None:
    if not isinstance(value, Integral) or isinstance(value, bool):
        return "is not a whole number"
    return "is negative: write 0 or more" if value < 0 else None


def _job_id_fault(value: object) -> str | None:
    # A rendered template is text.
    whole = value.strip().isdecimal() if isinstance(value, str) else isinstance(value, Integral)
    return None if whole and not isinstance(value, bool) else "is not a job id: write 17, or a template"


_FAULTS = {"str": _text_fault, "bool": _flag_fault, "float": _number_fault, "int": _count_fault}


def format_value(value: object) -> str:
    """Return the value for an error message, truncated to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
