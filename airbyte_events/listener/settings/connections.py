"""The settings of one connection: when its jobs are late or stalled."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from airbyte_events._utils.printable import shown
from airbyte_events.listener.settings.declaration import CompleteError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 366 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """A table ``[instances.NAME.connections."UUID or name"]``. 0 is never, None the default.

    :param fresh_within: seconds within which a sync must succeed; by default no time.
    :param stalled_after: seconds without progress of a running job.
    :param slow_factor: the multiple of the usual duration from which on a job is slow.
    """

    fresh_within: float | None = None
    stalled_after: float | None = None
    slow_factor: float | None = None


def parse_connections(value: object) -> Mapping[str, ConnectionSettings]:
    """Read the tables, by UUID or name in lower case.

    :raises CompleteError: if one is wrong.
    """
    if not isinstance(value, Mapping):
        raise CompleteError('not tables; write [instances.default.connections."Orders"]')
    return {str(name).strip().lower(): _parse(str(name), table) for name, table in value.items()}


def _parse(name: str, table: object) -> ConnectionSettings:
    if isinstance(table, ConnectionSettings):
        return table
    if not isinstance(table, Mapping):
        raise CompleteError(f'{shown(name)!r} is no table; write [instances.default.connections."Orders"]')
    values = {}
    for key, value in table.items():
        if key not in ConnectionSettings.__slots__:
            known = ", ".join(ConnectionSettings.__slots__)
            raise CompleteError(f"{shown(name)!r} has no setting {shown(str(key))!r}; known are {known}")
        parsed = _factor(value) if key == "slow_factor" else _seconds(value)
        if parsed is None:
            example = "slow_factor = 3" if key == "slow_factor" else f'{key} = "26h"'
            fault = "not a factor of 1 or more, or 0" if key == "slow_factor" else "not a time up to a year, or 0"
            raise CompleteError(f"{key} of {shown(name)!r} is {fault}; write {example}")
        values[key] = parsed
    return ConnectionSettings(**values)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _factor(value: object) -> float | None:
    number = _number(value)
    return number if number is not None and (number == 0 or 1 <= number <= 1000) else None


def _seconds(value: object) -> float | None:
    if isinstance(value, str) and (match := re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*([smhd])", value.strip())):
        value = float(match[1]) * _UNITS[match[2]]
    number = _number(value)
    return number if number is not None and 0 <= number <= _LONGEST else None
