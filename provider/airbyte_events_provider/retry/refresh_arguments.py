"""The arguments of a refresh."""

from __future__ import annotations

from collections.abc import Sequence

from airbyte_events.jobs import Refresh, RefreshMode
from airbyte_events_provider.arguments import WrongArgument, check_choice, format_value, is_template

MODES = tuple(mode.value for mode in RefreshMode)


def check_refresh(job_type: str, refresh_mode: object, streams: object) -> None:
    """Check the arguments of a refresh, when the DAG is imported.

    :raises WrongArgument: if one is wrong, or has no effect with the job type.
    """
    for name, value in (("refresh_mode", refresh_mode), ("streams", streams)):
        if value is not None and job_type != "refresh":
            raise WrongArgument(f"{name}={format_value(value)} has no effect without job_type='refresh'")
    if refresh_mode is not None:
        check_choice("refresh_mode", refresh_mode, MODES)
    if streams is not None and not is_template(streams):
        _checked(streams)


def parse_refresh(job_type: str, refresh_mode: str | None, streams: object) -> Refresh | None:
    """Return the refresh of a task with this job type, after its templates were rendered.

    :raises WrongArgument: if the streams are not a list of names.
    """
    if job_type != "refresh":
        return None
    return Refresh(mode=RefreshMode(refresh_mode or RefreshMode.MERGE), streams=_checked(streams or ()))


def _checked(streams: object) -> tuple[str, ...]:
    # One text would be read as a list of letters.
    listed = streams if isinstance(streams, Sequence) and not isinstance(streams, str) else [None]
    if not all(is_template(each) or (isinstance(each, str) and each) for each in listed):
        raise WrongArgument(f"streams={format_value(streams)} is no list of names: write streams=['orders']")
    return tuple(listed)
