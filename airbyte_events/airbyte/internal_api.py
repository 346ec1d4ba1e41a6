"""Airbyte's internal API, which its own pages use: optional, for what the public API lacks.

Airbyte does not support it for others: a release may lack a call, refuse it, or change it. Facts about it are from the
platform's ``config.yaml`` and handlers.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import anyio

from airbyte_events._utils import json_values
from airbyte_events._utils.token_bucket import TokenBucket
from airbyte_events.airbyte.notifications import LONGEST_REASON, LONGEST_WORD
from airbyte_events.airbyte.session import Session
from airbyte_events.airbyte.url import internal_url
from airbyte_events.errors import AirbyteError, AirbyteProtocolError
from airbyte_events.events import JobError, StreamProgress, reported_job_type
from airbyte_events.events.progress import MOST_STREAMS
from airbyte_events.jobs import Failure

logger = logging.getLogger(__name__)

RESPONSE_SECONDS = 2.0
"""The longest that a task waits for an optional value, once a minute at most while there is none."""

LARGEST = 1024 * 1024
"""Bytes of a response: parsing a larger one would block a triggerer's event loop."""

FIRST_PAUSE = 60.0
"""Seconds after a failed call for which it is not sent, doubled with each failure in a row."""

LONGEST_PAUSE = 3600.0

BURST = 100
PER_SECOND = 2.0
"""The limit of optional requests: beyond it, values are left out."""

SHARED_SECONDS = 60.0
"""How long a reason is kept for further callers: a list and a read can find one failure at the same time."""

_CONCURRENT = 4
_REMEMBERED = 1_000

_EVENTS_PAGE = 100

TEST_SECONDS = 20.0
"""The longest wait for Airbyte's test notification: its client connects without a time-out."""

JOB_INFO = "/jobs/get_without_logs"
SYNC_PROGRESS = "/connections/sync_progress"
EVENTS = "/connections/events/list"
TRY_WEBHOOK = "/notifications/try_webhook"
_CANCELLED = {"sync": "SYNC_CANCELLED", "reset": "CLEAR_CANCELLED", "refresh": "REFRESH_CANCELLED"}
"""By job type: the event of a cancellation by a user. Airbyte writes none of those that it makes itself
(``ConnectionTimelineEventHelper.logJobCancellationEventInConnectionTimeline``)."""


@dataclass(slots=True, kw_only=True)
class _Request:
    sent_at: float
    done: anyio.Event = field(default_factory=anyio.Event)
    failure: Failure | None = None


class InternalApi:
    """The calls of Airbyte's internal API that answer, see :data:`FIRST_PAUSE` for those that do not.

    :param session: of the public API, whose tokens are valid here, too.
    """

    def __init__(self, session: Session, *, per_second: float = PER_SECOND) -> None:
        self.url = internal_url(session.url)
        """The base, without a trailing slash."""
        self._session = session
        self._bucket = TokenBucket(rate=per_second, burst=BURST)
        self._places = anyio.Semaphore(_CONCURRENT)
        self._pauses: dict[str, tuple[float, float]] = {}
        self._failures: OrderedDict[int, _Request] = OrderedDict()

    async def failure(self, job_id: int) -> Failure | None:
        """Return why a failed job failed; None if it can't be read now. Callers of one job share one request.

        A response without a reason is a failure without one. It takes twice :data:`RESPONSE_SECONDS` at most, and
        raises nothing.
        """
        request, now = self._failures.get(job_id), anyio.current_time()
        if request is not None and now < request.sent_at + SHARED_SECONDS:
            await request.done.wait()
            return request.failure
        request = self._failures[job_id] = _Request(sent_at=now)
        self._failures.move_to_end(job_id)
        if len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)
        try:
            answer = await self._read(JOB_INFO, {"id": job_id})
            request.failure = None if answer is None else parse_failure(job_id, answer) or Failure()
        finally:
            request.done.set()
            if request.failure is None and self._failures.get(job_id) is request:
                # It can be requested again.
                del self._failures[job_id]
        return request.failure

    async def cancelled_by_user(self, connection_id: str, job_id: int, job_type: str | None) -> bool | None:
        """Return whether a user cancelled the job, and not Airbyte itself; None if it can't be read now.

        Airbyte writes a user's event shortly after the job's status. It takes twice :data:`RESPONSE_SECONDS` at most,
        and raises nothing.
        """
        event = _CANCELLED.get(reported_job_type(job_type or "sync"))
        if event is None:
            return None
        body = {
            "connectionId": connection_id,
            "eventTypes": [event],
            "pagination": {"pageSize": _EVENTS_PAGE, "rowOffset": 0},
        }
        answer = await self._read(EVENTS, body)
        return None if answer is None else parse_cancelled(job_id, event, answer)

    async def stream_progress(self, job_id: int, connection_id: str) -> tuple[StreamProgress, ...] | None:
        """Return the streams of the job that runs in the connection; None if that can't be read now.

        It takes twice :data:`RESPONSE_SECONDS` at most, and raises nothing.
        """
        answer = await self._read(SYNC_PROGRESS, {"connectionId": connection_id})
        return None if answer is None else parse_streams(job_id, answer)

    async def check(self, job_id: int) -> None:
        """Request a job, whether or not earlier calls failed.

        :raises AirbyteError: if the call does not answer as expected; the message says why.
        """
        answer = await self._request(JOB_INFO, {"id": job_id})
        if json_values.job_id(json_values.mapping(answer.get("job")).get("id")) != job_id:
            raise AirbyteProtocolError(f"POST {self.url}{JOB_INFO}: the response is not that job")

    async def try_webhook(self, url: str) -> tuple[bool, str | None]:
        """Have Airbyte send its test notification of a successful sync to a URL.

        :return: whether it got a 2xx response; and if it got no response, its reason, if it has one.
        :raises AirbyteUnreachable: if it does not say so within :data:`TEST_SECONDS`.
        :raises AirbyteError: if this Airbyte does not send it.
        """
        body = {"notificationTrigger": "sync_success", "slackConfiguration": {"webhook": url}}
        answer = await self._request(TRY_WEBHOOK, body, TEST_SECONDS)
        if answer.get("status") not in ("succeeded", "failed"):
            raise AirbyteProtocolError(f"POST {self.url}{TRY_WEBHOOK}: the response has no status of the test")
        return answer["status"] == "succeeded", json_values.text(answer.get("message"), LONGEST_WORD)

    async def _read(self, route: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """Return the response; None if there is none, or none was requested."""
        with anyio.move_on_after(RESPONSE_SECONDS) as waiting:
            async with self._places:
                waiting.deadline = math.inf
                return await self._read_now(route, body)
        return None

    async def _read_now(self, route: str, body: dict[str, Any]) -> dict[str, Any] | None:
        until, pause = self._pauses.get(route, (0.0, FIRST_PAUSE))
        if anyio.current_time() < until or self._session.backing_off or not self._bucket.take():
            return None
        try:
            answer = await self._request(route, body)
        except AirbyteError as exc:
            self._pauses[route] = anyio.current_time() + pause, min(2 * pause, LONGEST_PAUSE)
            logger.info("the internal API does not respond: call=%s retry_seconds=%g: %s", route, pause, exc)
            return None
        self._pauses.pop(route, None)
        return answer

    async def _request(self, route: str, body: dict[str, Any], seconds: float = RESPONSE_SECONDS) -> dict[str, Any]:
        request = self._session.request(
            "POST", route, url=self.url + route, json=body, timeout=seconds, largest=LARGEST
        )
        return (await self._session.read_aside(request)).object()


def parse_failure(job_id: int, answer: dict[str, Any]) -> Failure | None:
    """Read why a job failed; None if the response does not report a failure of that job.

    The reason is the last attempt's first failure, as in the webhook.
    """
    job, attempts = json_values.mapping(answer.get("job")), answer.get("attempts")
    if json_values.job_id(job.get("id")) != job_id or job.get("status") != "failed" or not isinstance(attempts, list):
        return None
    error = None
    if attempts:
        attempt = json_values.mapping(json_values.mapping(attempts[-1]).get("attempt"))
        failures = json_values.mapping(attempt.get("failureSummary")).get("failures")
        if isinstance(failures, list) and failures:
            error = _parse_reason(json_values.mapping(failures[0]))
    return Failure(
        error=error,
        attempts=len(attempts),
        connection_id=json_values.text(job.get("configId"), LONGEST_WORD),
    )


def parse_cancelled(job_id: int, event_type: str, answer: dict[str, Any]) -> bool | None:
    """Read whether the events of a connection have the cancellation of a job; None if that is not certain."""
    events = answer.get("events")
    if not isinstance(events, list):
        return None
    ids = []
    for event in map(json_values.mapping, events):
        if event.get("eventType") != event_type:
            return None
        ids.append(json_values.job_id(json_values.mapping(event.get("summary")).get("jobId")))
    if job_id in ids:
        return True
    return None if None in ids else False


def parse_streams(job_id: int, answer: dict[str, Any]) -> tuple[StreamProgress, ...] | None:
    """Read the progress of each stream; None if the response is not of that job."""
    streams = answer.get("streams")
    if json_values.job_id(answer.get("jobId")) != job_id or not isinstance(streams, list):
        return None
    parsed = [
        StreamProgress(
            name=name,
            namespace=json_values.text(fields.get("streamNamespace"), LONGEST_WORD),
            records=json_values.whole(fields.get("recordsEmitted")),
            bytes=json_values.whole(fields.get("bytesEmitted")),
        )
        for fields in map(json_values.mapping, streams[:MOST_STREAMS])
        if (name := json_values.text(fields.get("streamName"), LONGEST_WORD)) is not None
    ]
    return tuple(parsed)


def _parse_reason(reason: dict[str, Any]) -> JobError | None:
    stream = json_values.mapping(reason.get("streamDescriptor"))
    names = [json_values.text(stream.get(each), LONGEST_WORD) for each in ("namespace", "name")]
    retryable = reason.get("retryable")
    error = JobError(
        message=json_values.text(reason.get("externalMessage"), LONGEST_REASON),
        type=json_values.text(reason.get("failureType"), LONGEST_WORD),
        origin=json_values.text(reason.get("failureOrigin"), LONGEST_WORD),
        retryable=retryable if isinstance(retryable, bool) else None,
        stream=".".join(filter(None, names)) if names[1] else None,
    )
    return None if error == JobError(message=None) else error
