"""Connection tests that report faults and their remedies."""

from __future__ import annotations

from collections.abc import Callable

from airflow.providers.common.compat.sdk import AirflowException

from airbyte_events.airbyte import AirbyteClient, Job
from airbyte_events.errors import (
    AirbyteError,
    AirbyteEventsError,
    AirbyteProtocolError,
    AirbyteUnreachable,
    FeedError,
    FeedRefused,
    FeedUnreachable,
    Forbidden,
    NotFound,
    Unauthorized,
)
from airbyte_events.events import JobRef
from airbyte_events.feed.client import FeedClient
from airbyte_events_provider.connections.clients import open_airbyte, open_listener
from airbyte_events_provider.connections.settings import AirbyteSettings, ListenerSettings


class Fault(Exception):
    """A failed part of a test: which part, the reason and the remedy."""


def run_test(test: Callable[[], str]) -> tuple[bool, str]:
    """Return the result of a hook's ``test_connection``: whether the test passed, and its message."""
    try:
        return True, test()
    except (Fault, AirbyteEventsError, AirflowException) as exc:
        return False, str(exc)


async def diagnose_airbyte(settings: AirbyteSettings) -> tuple[str, Job | None]:
    """Test the API of an Airbyte with requests that change nothing.

    :return: a message, and one of its jobs if there is any.
    :raises Fault: if a part fails.
    :raises SettingsError: if the settings can't be used.
    """
    async with open_airbyte(settings, attempts=1) as airbyte:
        await _find_api(airbyte)
        job = await _list_jobs(airbyte)
    access = "takes no credentials" if settings.credentials is None else "accepts the credentials"
    return f"Airbyte at {settings.url} answers, {access} and lists jobs.", job


async def _find_api(airbyte: AirbyteClient) -> None:
    part = "The server's URL"
    try:
        await airbyte.health()
    except AirbyteUnreachable as exc:
        raise Fault(
            f"{part}: nothing answers at {airbyte.url}: {exc}. Check host, port and scheme, whether it is reached from "
            "here, and the proxy if there is one"
        ) from exc
    except Unauthorized as exc:
        raise Fault(f"{part}: a proxy in front of Airbyte requires a login of its own: {exc}") from exc
    except (AirbyteProtocolError, NotFound) as exc:
        raise Fault(
            f"{part}: no public API of Airbyte at {airbyte.url}: {exc}. Self-hosted, it is at "
            "http(s)://HOST/api/public/v1; Airbyte Cloud's is https://api.airbyte.com/v1"
        ) from exc
    except AirbyteError as exc:
        raise Fault(f"{part}: Airbyte fails: {exc}") from exc


async def _list_jobs(airbyte: AirbyteClient) -> Job | None:
    try:
        page = await airbyte.list_jobs(limit=1)
    except (Unauthorized, NotFound) as exc:
        raise Fault(
            f"The credentials: {exc}. Login is the client id and password the client secret of an application, made in "
            "Airbyte under Settings, Applications; leave both empty for an Airbyte without authentication"
        ) from exc
    except Forbidden as exc:
        raise Fault(
            f"The permission to list jobs: {exc}. The application's user must be able to read the workspaces"
        ) from exc
    except AirbyteError as exc:
        raise Fault(f"Listing jobs: {exc}") from exc
    return page.jobs[0] if page.jobs else None


async def diagnose_listener(settings: ListenerSettings, airbyte: AirbyteSettings | None, job: Job | None) -> str:
    """Test whether a listener responds, accepts the token, and serves this Airbyte.

    :param airbyte: the Airbyte that it should serve; None: not tested.
    :param job: one of its jobs, to compare.
    :return: a message.
    :raises Fault: if a part fails.
    :raises SettingsError: if the settings can't be used.
    """
    async with open_listener(settings) as feed:
        try:
            await feed.watch([])
        except FeedUnreachable as exc:
            raise Fault(f"The listener: {exc}. Check that it runs, and is reached from here") from exc
        except FeedRefused as exc:
            if exc.status_code == 401:
                raise Fault(f"The listener's API token: {exc}") from exc
            raise Fault(f"The listener's URL: {exc}. Check that it is a listener's") from exc
        if airbyte is None:
            return f"The listener {feed.url} answers and accepts the token."
        if job is None:
            return (
                f"The listener {feed.url} answers and accepts the token. Whether it serves this Airbyte can be tested "
                "once that has a job."
            )
        await _compare(feed, airbyte, job)
    return f"The listener {feed.url} answers, accepts the token, and serves this Airbyte as {airbyte.instance!r}."


async def _compare(feed: FeedClient, airbyte: AirbyteSettings, job: Job) -> None:
    ref = JobRef(airbyte.instance, job.job_id)
    name = f"{airbyte.instance!r}"
    try:
        answer = await feed.watch([ref])
    except FeedRefused as exc:
        raise Fault(f"The instance: the listener {feed.url} has none called {name}: {exc}") from exc
    except FeedError as exc:
        raise Fault(f"The listener: {exc}") from exc
    state = answer.states.get(ref)
    if ref in answer.unknown or (state is not None and state.connection_id not in {None, job.connection_id}):
        raise Fault(
            f"The instance: {name} of the listener {feed.url} is another Airbyte: it does not have job {job.job_id} of "
            f"this one, {airbyte.url}. Set extra 'instance' of {airbyte.conn_id!r} to this Airbyte's name in the "
            "listener's settings"
        )
    if state is None:
        raise Fault(
            f"The listener {feed.url} can't get job {job.job_id} from its Airbyte {name}: see its log. Tasks poll "
            "meanwhile"
        )
