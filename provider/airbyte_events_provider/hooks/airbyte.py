"""The hook for Airbyte's public API."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from airflow.providers.common.compat.sdk import AirflowException, AirflowNotFoundException

from airbyte_events._utils.times import utcnow
from airbyte_events.airbyte import AirbyteClient, Job
from airbyte_events.airbyte.submission import How, OnConflict, Submission, submit
from airbyte_events.errors import AirbyteError, AirbyteEventsError, FeedError, SettingsError
from airbyte_events.events import Identity, JobRef
from airbyte_events.jobs import Failure, Refresh
from airbyte_events_provider.blocking import run_blocking
from airbyte_events_provider.connections.clients import open_airbyte, open_listener
from airbyte_events_provider.connections.read import (
    aread_airbyte,
    aread_listener,
    choose_listener,
    read_airbyte,
    read_hub,
)
from airbyte_events_provider.connections.settings import AirbyteSettings, parse_timeout
from airbyte_events_provider.hooks.connection_test import Fault, diagnose_airbyte, diagnose_listener, run_test
from airbyte_events_provider.hooks.forms import FormHook
from airbyte_events_provider.hooks.sdk import open_sdk
from airbyte_events_provider.waiting.progress import WARN, ProgressWatch
from airbyte_events_provider.waiting.result import SUCCESS, conclude
from airbyte_events_provider.waiting.shared_hub import wait_alone

if TYPE_CHECKING:
    from airbyte_api import AirbyteAPI

T = TypeVar("T")

_CONNECTION_SECONDS = 10.0
_LINK_SECONDS = 5.0
_EVENT_DELAYS = (0.0, 2.0)
"""Seconds before each request for the event of a cancellation, which Airbyte writes after the job's status."""


class AirbyteHook(FormHook):
    """Call Airbyte's public API. Reads are retried; a job is never started twice.

    The Airflow connection is read once, at the first call.

    :param airbyte_conn_id: the Airflow connection: host is the server's URL, login and password are the client id and
        secret of an application (none for an Airbyte without authentication), schema is the token URL if it is not the
        default one. Extra: ``listener_conn_id``, ``instance``, ``web_url``, ``proxies``, ``headers``, ``timeout``,
        ``verify``, ``client_cert``.
    :param api_version: only ``v1`` exists.
    :param timeout: seconds for one request, instead of the connection's.
    :param listener_conn_id: the Airflow connection of the listener that reports completions; None: that of the
        Airbyte's connection or Airflow's configuration. An empty string: none.
    :raises ValueError: if ``timeout`` is not a positive number.
    """

    conn_name_attr = "airbyte_conn_id"
    default_conn_name = "airbyte_default"
    conn_type = "airbyte"
    hook_name = "Airbyte"

    def __init__(
        self,
        airbyte_conn_id: str = "airbyte_default",
        api_version: str = "v1",
        timeout: float | None = None,
        *,
        listener_conn_id: str | None = None,
    ) -> None:
        super().__init__()
        if timeout is not None:
            try:
                parse_timeout(timeout, "the hook's timeout")
            except SettingsError as exc:
                raise ValueError(str(exc)) from exc
        self.airbyte_conn_id = airbyte_conn_id
        self.api_version = api_version
        self.timeout = timeout
        self.listener_conn_id = listener_conn_id

    @cached_property
    def settings(self) -> AirbyteSettings:
        """The settings of the Airflow connection.

        :raises AirflowException: if it is missing or wrong.
        """
        with _translated():
            return self._with_timeout(read_airbyte(self.airbyte_conn_id))

    def _with_timeout(self, settings: AirbyteSettings) -> AirbyteSettings:
        return settings if self.timeout is None else replace(settings, timeout=float(self.timeout))

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[AirbyteClient]:
        """Open the client, for coroutines: ``async with hook.open() as airbyte: job = await airbyte.get_job(17)``.

        :raises SettingsError: if the connection is wrong.
        """
        settings = self._with_timeout(await aread_airbyte(self.airbyte_conn_id))
        async with open_airbyte(settings) as airbyte:
            yield airbyte

    def call(self, call: Callable[[AirbyteClient], Awaitable[T]], *, attempts: int = 5) -> T:
        """Return what a coroutine function returns that calls the client, such as ``lambda airbyte: …``.

        :param attempts: the maximum of attempts of a read.
        :raises AirflowException: if it fails.
        """
        settings = self.settings

        async def work() -> T:
            async with open_airbyte(settings, attempts=attempts) as airbyte:
                return await call(airbyte)

        with _translated():
            return run_blocking(work)

    def get_conn_params(self, conn_id: str) -> dict[str, Any]:
        """Return the fields of a connection of this type under the API's names, as the official hook does."""
        connection = self.get_connection(conn_id)
        extra = connection.extra_dejson
        return {
            "host": connection.host,
            "client_id": connection.login,
            "client_secret": connection.password,
            "token_url": connection.schema or "v1/applications/token",
            "proxies": extra.get("proxies"),
            "timeout": extra.get("timeout"),
        }

    @cached_property
    def conn(self) -> dict[str, Any]:
        """The result of :meth:`get_conn_params` for the hook's own connection."""
        return self.get_conn_params(self.airbyte_conn_id)

    def create_api_session(self) -> AirbyteAPI:
        """Return Airbyte's own Python SDK, as the official hook does; requires ``pip install airbyte-api``.

        Its requests are not retried, and it may start a job twice.

        :raises AirflowException: if it is not installed, or the connection is wrong.
        """
        with _translated():
            return open_sdk(self.settings)

    @cached_property
    def airbyte_api(self) -> AirbyteAPI:
        """The result of :meth:`create_api_session`."""
        return self.create_api_session()

    def get_job_details(self, job_id: int) -> Job:
        """Return the job as it is now: ``job_id``, ``status``, ``job_type``, ``connection_id``, ….

        :raises AirflowException: if Airbyte does not return it; likewise in the methods below.
        """
        return self.call(lambda airbyte: airbyte.get_job(int(job_id)))

    def get_job_status(self, job_id: int) -> str:
        """Return the job's status, such as ``running``."""
        return self.get_job_details(job_id).status.value

    def submit(
        self,
        connection_id: str,
        job_type: str = "sync",
        on_conflict: OnConflict = OnConflict.ATTACH,
        *,
        refresh: Refresh | None = None,
    ) -> Submission:
        """Start a job, or return the active one, see :func:`~airbyte_events.airbyte.submission.submit`."""
        return self.call(lambda airbyte: submit(airbyte, connection_id, job_type, on_conflict, refresh=refresh))

    def cancelled_by_airbyte(
        self, job_id: int, connection_id: str, job_type: str | None, *, moved: bool, was_queued: bool
    ) -> bool:
        """Return whether Airbyte itself cancelled the job, and not a person: in the queue of a capacity plan, at the
        connection's next scheduled run or after 8 hours. A retry must not undo a person's decision.

        Airbyte's timeline has an event of each cancellation by a user. Where it does not respond, a job counts as
        cancelled by Airbyte if it never left the queue.

        :param moved: whether the job moved records or bytes: then it had left the queue.
        :param was_queued: whether the job was last seen in the queue.
        """

        async def ask(airbyte: AirbyteClient) -> bool | None:
            by_user = None
            for seconds in _EVENT_DELAYS:
                await anyio.sleep(seconds)
                by_user = await airbyte.internal.cancelled_by_user(connection_id, job_id, job_type)
                if by_user is not False:
                    break
            return by_user

        if moved:
            return False
        by_user = self.call(ask)
        return was_queued if by_user is None else not by_user

    def find_failure(self, job_id: int) -> Failure | None:
        """Return why a failed job failed, by one request; None if Airbyte does not report it within seconds."""
        return self.call(lambda airbyte: airbyte.failure(job_id), attempts=1)

    def clock_ahead(self) -> timedelta:
        """Return how far Airbyte's clock is ahead of this machine's; zero if unknown."""

        async def compare(airbyte: AirbyteClient) -> timedelta:
            asked_at = utcnow()
            page = await airbyte.list_jobs(limit=1, once=True)
            return page.ahead(asked_at, utcnow())

        try:
            return self.call(compare)
        except AirflowException as exc:
            self.log.warning("Airbyte's clock is assumed to be this machine's: %s", exc)
            return timedelta(0)

    def list_connections(self) -> list[dict[str, Any]]:
        """Return all readable Airbyte connections, in the API's fields (``connectionId``, ``name``, …)."""
        return self.call(lambda airbyte: airbyte.list_connections())

    def find_connection(self, name: str, workspace_id: str | None = None) -> str:
        """Return the id of the Airbyte connection with this name.

        :param workspace_id: only connections of this workspace.
        :raises AirflowException: if there is none, or several have the name; the message lists candidates.
        """
        found = self.call(lambda airbyte: airbyte.find_connection(name, workspace_id))
        self.log.info("Airbyte connection found by name: name=%r connection=%s", name, found)
        return found

    def find_airbyte_connection(self, connection_id: str) -> dict[str, Any]:
        """Return an Airbyte connection in the API's fields; empty if Airbyte does not return it within 10 s."""

        async def request(airbyte: AirbyteClient) -> dict[str, Any]:
            try:
                with anyio.fail_after(_CONNECTION_SECONDS):
                    return await airbyte.get_connection(connection_id)
            except (AirbyteError, ValueError, TimeoutError) as exc:
                self.log.info("no link to Airbyte's web app: the connection's workspace is not known: %s", exc)
                return {}

        return self.call(request, attempts=1)

    def _submit_or_fail(self, connection_id: str, job_type: str) -> Job:
        submission = self.submit(connection_id, job_type)
        job = submission.job
        if submission.how is How.BLOCKED:
            raise AirflowException(
                f"no {job_type} started: {job.job_type} job {job.job_id} of Airbyte connection {connection_id} runs: "
                "wait until it completes"
            )
        return job

    def submit_sync_connection(self, connection_id: str) -> Job:
        """Start a sync of the Airbyte connection; see :meth:`submit`."""
        return self._submit_or_fail(connection_id, "sync")

    def submit_reset_connection(self, connection_id: str) -> Job:
        """Start a reset of the Airbyte connection; see :meth:`submit`."""
        return self._submit_or_fail(connection_id, "reset")

    def cancel_job(self, job_id: int) -> Job:
        """Cancel the job if it is active, and return it as it is now."""
        return self.call(lambda airbyte: airbyte.cancel_job(int(job_id)))

    def wait(
        self,
        job_id: int,
        *,
        connection_id: str | None = None,
        started_at: datetime | None = None,
        until: float | None = None,
        execution_deadline: float | None = None,
        poll_interval: float = 3,
        stalled_after: float | None = None,
        on_stall: str = WARN,
        task_url: str | None = None,
        waiting_since: datetime | None = None,
    ) -> dict[str, Any]:
        """Wait for a job, by a listener's push or by polls.

        :param connection_id: see :meth:`airbyte_events.hub.hub.Hub.wait`, as for ``started_at``, ``task_url`` and
            ``waiting_since``.
        :param until: the deadline of the wait, in seconds since the epoch; None: no limit.
        :param execution_deadline: the deadline of the job, likewise.
        :param poll_interval: seconds between polls.
        :param stalled_after: see :class:`~airbyte_events_provider.operators.airbyte.AirbyteTriggerSyncOperator`.
        :param on_stall: likewise.
        :return: see :func:`~airbyte_events_provider.waiting.result.conclude`.
        """
        with _translated():
            hub = replace(read_hub(self.airbyte_conn_id, self.listener_conn_id), airbyte=self.settings)
        limits = [each for each in (until, execution_deadline) if each is not None]

        async def work() -> dict[str, Any]:
            wait = wait_alone(
                hub,
                int(job_id),
                poll_interval,
                ProgressWatch(log=self.log, stalled_after=stalled_after, on_stall=on_stall),
                connection_id=connection_id,
                started_at=started_at,
                until=min(limits, default=None),
                task_url=task_url,
                waiting_since=waiting_since,
            )
            return await conclude(wait, int(job_id), until, execution_deadline)

        return run_blocking(work)

    def link_task(self, job: Job, task_url: str | None) -> None:
        """Have the listener link from the job to the page of a task that polls for it; a failure is logged."""
        with _translated():
            hub = read_hub(self.airbyte_conn_id, self.listener_conn_id)
        listener, ref = hub.listener, JobRef(hub.airbyte.instance, job.job_id)
        if listener is None or task_url is None:
            return

        async def watch() -> None:
            try:
                with anyio.fail_after(_LINK_SECONDS):
                    async with open_listener(listener) as feed:
                        await feed.watch({ref: Identity(job.connection_id, job.started_at)}, {ref: task_url})
            except (FeedError, SettingsError, TimeoutError) as exc:
                self.log.info("the listener does not link to this task: job=%s reason=%s", job.job_id, exc)

        run_blocking(watch)

    def wait_for(self, job: Job, **limits: Any) -> dict[str, Any]:
        """Wait for this job, and no other of the same id; see :meth:`wait`."""
        return self.wait(job.job_id, connection_id=job.connection_id, started_at=job.started_at, **limits)

    def wait_for_job(self, job_id: str | int, wait_seconds: float = 3, timeout: float | None = 3600) -> None:
        """Wait until the job has succeeded; cancel it after the timeout.

        :param wait_seconds: seconds between polls without a listener.
        :param timeout: seconds; None or 0: no limit.
        :raises AirflowException: if the job failed, was cancelled, or did not complete in time.
        """
        until = time.time() + timeout if timeout else None
        result = self.wait(int(job_id), until=until, poll_interval=wait_seconds)
        if result["status"] == SUCCESS:
            return
        if result["job"] is None and until is not None and time.time() >= until:
            job = self.cancel_job(int(job_id))
            raise AirflowException(
                f"Airbyte job {job_id} did not complete within {timeout:g} s: it is {job.status.value} now"
            )
        raise AirflowException(result["message"])

    def test_connection(self) -> tuple[bool, str]:
        """Test the Airbyte and its listener; return whether both work, and a message."""

        async def examine(settings: AirbyteSettings) -> str:
            found, job = await diagnose_airbyte(settings)
            chosen = choose_listener(self.listener_conn_id, settings)
            if chosen is None:
                return f"{found} No listener is configured: waiting tasks poll."
            try:
                return f"{found} {await diagnose_listener(await aread_listener(chosen), settings, job)}"
            except (Fault, SettingsError, AirflowNotFoundException) as exc:
                raise Fault(f"{found} The listener fails: {exc}") from exc

        return run_test(lambda: run_blocking(partial(examine, self.settings)))


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except AirflowNotFoundException:
        raise
    except AirbyteEventsError as exc:
        raise AirflowException(str(exc)) from exc
