"""Who cancelled a job: a person, whose decision no retry undoes, or Airbyte itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airbyte_events_provider.hooks.airbyte import AirbyteHook


def cancelled_by_airbyte(
    hook: AirbyteHook,
    job_id: int,
    connection_id: str,
    job_type: str | None,
    *,
    moved: bool,
    was_queued: bool,
) -> bool:
    """Return whether Airbyte itself cancelled the job: in the queue of a capacity plan, at the connection's next
    scheduled run or after 8 hours.

    Airbyte's timeline has an event of each cancellation by a user. Where it does not answer, a job counts as cancelled
    by Airbyte if it never left the queue.

    :param moved: whether the job moved records or bytes: then it had left the queue.
    :param was_queued: whether the job was last seen in the queue.
    """
    if moved:
        return False
    by_user = hook.cancelled_by_user(job_id, connection_id, job_type)
    return was_queued if by_user is None else not by_user
