"""Checks of the arguments of operators, sensors and triggers: a wrong one fails the DAG's import, not its task."""

from __future__ import annotations

import math
from datetime import datetime
from numbers import Integral, Real
from typing import Any

from airflow.sdk import XComArg


class WrongArgument(TypeError, ValueError):
    """An argument that can't be meant so. Both kinds, since Airflow's triggerer survives no other than TypeError from
    the constructor of a trigger (``TriggerRunner.create_triggers`` in 3.3.2)."""


def is_template(value: object) -> bool:
    """Return whether Airflow makes another value of this one before the task runs: a Jinja template, or an XComArg."""
    return isinstance(value, XComArg) or (isinstance(value, str) and ("{{" in value or "{%" in value))


def check_text(name: str, value: object, *, optional: bool = False, templated: bool = False) -> None:
    """Check that an argument is text.

    :param optional: whether None is allowed.
    :param templated: whether Airflow renders the argument: an XComArg is allowed, too.
    :raises WrongArgument: if it is something else.
    """
    if isinstance(value, str) or (value is None and optional) or (templated and is_template(value)):
        return
    raise WrongArgument(f"{name}={_shown(value)} is not text{' or None' if optional else ''}")


def check_flag(name: str, value: object) -> None:
    """Check that an argument is True or False; raises as :func:`check_text` does."""
    if not isinstance(value, bool):
        raise WrongArgument(f"{name}={_shown(value)} is neither True nor False")


def check_number(name: str, value: object, *, optional: bool = False, unit: str = "seconds") -> None:
    """Check that an argument is a number of some unit, zero or more.

    :param optional: whether None is allowed.
    :raises WrongArgument: if it is something else: a ``timedelta``, text, a negative number, no finite one.
    """
    if value is None and optional:
        return
    if not isinstance(value, Real) or isinstance(value, bool):
        seconds = getattr(value, "total_seconds", None)
        example = f"{seconds():g}" if callable(seconds) else "60"
        raise WrongArgument(f"{name}={_shown(value)} is not a number of {unit}: write {example}")
    if not math.isfinite(value) or value < 0:
        raise WrongArgument(f"{name}={value} is not a number of {unit} from 0 on")


def check_count(name: str, value: object, *, optional: bool = False) -> None:
    """Check that an argument is a whole number, zero or more; raises as :func:`check_number` does."""
    if value is None and optional:
        return
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise WrongArgument(f"{name}={_shown(value)} is not a whole number")
    if value < 0:
        raise WrongArgument(f"{name} can't be negative")


def check_job_id(name: str, value: object, *, templated: bool = False) -> None:
    """Check that an argument is the id of a job: a whole number, also as text, since templates make text of it.

    :param templated: whether Airflow renders the argument.
    :raises WrongArgument: if it is something else.
    """
    if templated and is_template(value):
        return
    if isinstance(value, str):
        if not value.strip().isdecimal():
            raise WrongArgument(f"{name}={_shown(value)} is not the id of a job: write 17, or a template")
    elif not isinstance(value, Integral) or isinstance(value, bool):
        raise WrongArgument(f"{name}={_shown(value)} is not the id of a job: write 17, or a template")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def seconds(moment: datetime | None) -> float | None:
    """Return a time as triggers take it, in seconds since the epoch."""
    return None if moment is None else moment.timestamp()
