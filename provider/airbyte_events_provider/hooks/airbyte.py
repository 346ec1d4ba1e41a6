"""The hook for Airbyte's public API."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import AirflowException, AirflowNotFoundException, BaseHook

from airbyte_events._utils.times import utcnow
from airbyte_events.airbyte import AirbyteClient, Job
from airbyte_events.airbyte.submission import (
    LOOKS,
    How,
    OnConflict,
    Snapshot,
    Submission,
    find_created,
    submit,
    take_snapshot,
)
from airbyte_events.errors import AirbyteEventsError, SettingsError
from airbyte_events.events import JobEvent
from airbyte_events_provider.blocking import run_blocking
from airbyte_events_provider.connections.clients import open_airbyte
from airbyte_events_provider.connections.read import (
    aread_airbyte,
    aread_listener,
    choose_listener,
    read_airbyte,
    read_hub,
)
from airbyte_events_provider.connections.settings import AirbyteSettings, parse_timeout
from airbyte_events_provider.hooks.connection_test import Fault, diagnose_airbyte, diagnose_listener
from airbyte_events_provider.hooks.forms import behaviour, widgets
from airbyte_events_provider.hooks.sdk import open_sdk
from airbyte_events_provider.links.airbyte import workspace_of
from airbyte_events_provider.waiting.result import SUCCESS, conclude
from airbyte_events_provider.waiting.shared_hub import wait_alone

if TYPE_CHECKING:
    from airbyte_api import AirbyteAPI

T = TypeVar("T")


class AirbyteHook(BaseHook):
    """Airbyte's public API. Reads are repeated while Airbyte is in trouble; a job is never started twice.

    The connection is read when it is first needed, and once.

    :param airbyte_conn_id: the Airflow connection: host is the server's URL, login and password are the client id and
        secret of an application (none for an Airbyte without authentication), schema is the token URL where it is not
        the usual one. Extra: ``listener_conn_id``, ``instance``, ``web_url``, ``proxies``, ``timeout``, ``verify``,
        ``client_cert``.
    :param api_version: only ``v1`` exists.
    :param timeout: seconds for one request, instead of the connection's.
    :raises ValueError: if ``timeout`` is no positive number.
    :param listener_conn_id: the Airflow connection of the listener that waits are told by; by default the one that
        the Airbyte's connection or Airflow's configuration names. An empty string is none.
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

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """How Airflow's form names the fields."""
        return behaviour(cls.conn_type)

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """The fields of the extra in Airflow's form, before Airflow 3.2."""
        return widgets(cls.conn_type)

    @cached_property
    def settings(self) -> AirbyteSettings:
        """The connection, read and checked.

        :raises AirflowException: if it is missing or wrong.
        """
        with _translated():
            return self._with_timeout(read_airbyte(self.airbyte_conn_id))

    def _with_timeout(self, settings: AirbyteSettings) -> AirbyteSettings:
        if self.timeout is None:
            return settings
        return replace(settings, timeout=parse_timeout(self.timeout, "the hook's timeout"))

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[AirbyteClient]:
        """The API for coroutines: ``async with hook.open() as airbyte: job = await airbyte.get_job(17)``.

        :raises SettingsError: if the connection is wrong.
        """
        settings = self._with_timeout(await aread_airbyte(self.airbyte_conn_id))
        async with open_airbyte(settings) as airbyte:
            yield airbyte

    def _call(self, call: Callable[[AirbyteClient], Awaitable[T]], *, attempts: int = 5) -> T:
        settings = self.settings

        async def work() -> T:
            async with open_airbyte(settings, attempts=attempts) as airbyte:
                return await call(airbyte)

        with _translated():
            return run_blocking(work)

    def get_conn_params(self, conn_id: str) -> dict[str, Any]:
        """The fields of a connection of this type, under the names that the API has for them."""
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
        """What :meth:`get_conn_params` gives for the hook's own connection."""
        return self.get_conn_params(self.airbyte_conn_id)

    def create_api_session(self) -> AirbyteAPI:
        """Airbyte's own Python SDK, which is not needed otherwise: ``pip install airbyte-api``.

        What goes through it has none of this hook's care: it is not repeated, and a job may be started twice.

        :raises AirflowException: if it is not installed, or the connection is wrong.
        """
        with _translated():
            return open_sdk(self.settings)

    @cached_property
    def airbyte_api(self) -> AirbyteAPI:
        """What :meth:`create_api_session` gives."""
        return self.create_api_session()

    def get_job_details(self, job_id: int) -> Job:
        """The job as it is now: ``job_id``, ``status``, ``job_type``, ``connection_id``, ….

        :raises AirflowException: if Airbyte does not tell.
        """
        return self._call(lambda airbyte: airbyte.get_job(int(job_id)))

    def get_job_status(self, job_id: int) -> str:
        """The job's status, such as ``running``; raises as :meth:`get_job_details` does."""
        return self.get_job_details(job_id).status.value

    def take_snapshot(self, connection_id: str, job_type: str) -> Snapshot:
        """Return the connection's jobs before one is started.

        See :func:`~airbyte_events.airbyte.submission.take_snapshot`.


        :raises AirflowException: if Airbyte does not list them.
        """
        return self._call(lambda airbyte: take_snapshot(airbyte, connection_id, job_type))

    def submit(
        self,
        connection_id: str,
        job_type: str = "sync",
        on_conflict: OnConflict = OnConflict.ATTACH,
        *,
        before: Snapshot | None = None,
        until: float | None = None,
    ) -> Submission:
        """Start a job, or find the one that runs already; see :func:`~airbyte_events.airbyte.submission.submit`.

        :param connection_id: the Airbyte connection (UUID).
        :raises AirflowException: if there is none in the end.
        """
        return self._call(
            lambda airbyte: submit(airbyte, connection_id, job_type, on_conflict, before=before, until=until)
        )

    def find_created(
        self, connection_id: str, job_type: str, after_id: int, looks: Sequence[float] = LOOKS
    ) -> Job | None:
        """Return the job that a submission may have created.

        See :func:`~airbyte_events.airbyte.submission.find_created`.


        :raises AirflowException: if Airbyte does not list the connection's jobs.
        """
        return self._call(lambda airbyte: find_created(airbyte, connection_id, job_type, after_id, looks))

    def find_active(self, connection_id: str) -> Job | None:
        """Return the connection's active job, if there is one; raises as :meth:`take_snapshot` does."""
        return self.take_snapshot(connection_id, "sync").active

    def clock_ahead(self) -> timedelta:
        """How far Airbyte's clock is ahead of this machine's; zero if Airbyte does not say.

        The time that its response takes is no difference of clocks.
        """

        async def look(airbyte: AirbyteClient) -> timedelta:
            asked = utcnow()
            page = await airbyte.list_jobs(limit=1, once=True)
            return page.ahead(asked, utcnow())

        try:
            return self._call(look)
        except AirflowException as exc:
            self.log.warning("Airbyte's clock is taken for this machine's: %s", exc)
            return timedelta(0)

    def list_connections(self) -> list[dict[str, Any]]:
        """All Airbyte connections that the client sees, in the API's own fields: ``connectionId``, ``name``, ….

        :raises AirflowException: if Airbyte does not tell.
        """
        return self._call(lambda airbyte: airbyte.list_connections())

    def workspace_of(self, connection_id: str) -> str | None:
        """The workspace of an Airbyte connection; None if Airbyte does not tell at once."""
        return self._call(lambda airbyte: workspace_of(airbyte, connection_id), attempts=1)

    def _submit_only(self, connection_id: str, job_type: str) -> Job:
        submission = self.submit(connection_id, job_type)
        if submission.how is How.IN_THE_WAY:
            raise AirflowException(
                f"{submission.job.job_type} job {submission.job.job_id} of Airbyte connection {connection_id} runs, "
                f"so no {job_type} can be started: wait for its end first."
            )
        return submission.job

    def submit_sync_connection(self, connection_id: str) -> Job:
        """Start a sync of the Airbyte connection; see :meth:`submit`."""
        return self._submit_only(connection_id, "sync")

    def submit_reset_connection(self, connection_id: str) -> Job:
        """Start a reset of the Airbyte connection; see :meth:`submit`."""
        return self._submit_only(connection_id, "reset")

    def cancel_job(self, job_id: int) -> Job:
        """Cancel the job if it is active; what another job of the connection does is left alone.

        :return: the job, as it is now.
        :raises AirflowException: if it could not be cancelled.
        """
        return self._call(lambda airbyte: airbyte.cancel_job(int(job_id)))

    def wait(
        self,
        job_id: int,
        *,
        connection_id: str | None = None,
        started_at: datetime | None = None,
        until: float | None = None,
        execution_deadline: float | None = None,
        poll_interval: float = 3,
    ) -> dict[str, Any]:
        """Wait for a job's end, told by the listener if there is one, and by looks at Airbyte otherwise.

        :param connection_id: the Airbyte connection that the job is known to be of.
        :param started_at: when it is known to have been created: Airbyte gives numbers again once its database was
            restored or made anew.
        :param until: how long, in seconds since the epoch.
        :param execution_deadline: how long the job may run, likewise.
        :param poll_interval: seconds between looks.
        :return: what the job came to, see :func:`~airbyte_events_provider.waiting.result.conclude`.
        """
        with _translated():
            hub = replace(read_hub(self.airbyte_conn_id, self.listener_conn_id), airbyte=self.settings)

        async def work() -> dict[str, Any]:
            deadlines = [each for each in (until, execution_deadline) if each is not None]
            wait: Awaitable[JobEvent] = wait_alone(
                hub,
                int(job_id),
                connection_id=connection_id,
                started_at=started_at,
                until=min(deadlines, default=None),
                poll_interval=poll_interval,
            )
            return await conclude(wait, int(job_id), until, execution_deadline)

        return run_blocking(work)

    def wait_for_job(self, job_id: str | int, wait_seconds: float = 3, timeout: float | None = 3600) -> None:
        """Wait until the job has succeeded; one that takes longer is cancelled.

        :param wait_seconds: between looks, where no listener tells.
        :param timeout: seconds; None or 0: as long as it takes.
        :raises AirflowException: if it failed, was cancelled, or did not end in time.
        """
        until = time.time() + timeout if timeout else None
        told = self.wait(int(job_id), until=until, poll_interval=wait_seconds)
        if told["status"] == SUCCESS:
            return
        if told["job"] is None and until is not None and time.time() >= until:
            job = self.cancel_job(int(job_id))
            raise AirflowException(
                f"Airbyte job {job_id} did not end within {timeout:g} s: it is {job.status.value} now"
            )
        raise AirflowException(told["message"])

    def test_connection(self) -> tuple[bool, str]:
        """Whether all works that the connection is for; if not, which part does not, and what to do.

        :return: the answer, and it in words.
        """

        async def examine(settings: AirbyteSettings) -> str:
            found, job = await diagnose_airbyte(settings)
            chosen = choose_listener(self.listener_conn_id, settings)
            if chosen is None:
                return f"{found} No listener is configured: waiting tasks poll."
            try:
                return f"{found} {await diagnose_listener(await aread_listener(chosen), settings, job)}"
            except (Fault, SettingsError, AirflowNotFoundException) as exc:
                raise Fault(f"{found} But not all of its listener: {exc}") from exc

        try:
            settings = self.settings
            return True, run_blocking(lambda: examine(settings))
        except (Fault, AirbyteEventsError, AirflowException) as exc:
            return False, str(exc)


@contextlib.contextmanager
def _translated() -> Any:
    try:
        yield
    except AirflowNotFoundException:
        raise
    except AirbyteEventsError as exc:
        raise AirflowException(str(exc)) from exc
