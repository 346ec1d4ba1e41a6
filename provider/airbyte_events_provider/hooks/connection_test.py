"""Connection tests that report faults and their remedies."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from airflow.providers.common.compat.sdk import AirflowException

from airbyte_events.airbyte.auth import HeldToken
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
from airbyte_events.jobs import Job
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


@contextlib.contextmanager
def _explaining(*faults: tuple[type[Exception] | tuple[type[Exception], ...], str, str]) -> Iterator[None]:
    """Raise an error as the first fault that has its type.

    :param faults: each a type of errors, a text to put before the error's message, and its remedy.
    """
    try:
        yield
    except AirbyteEventsError as exc:
        for kinds, text, remedy in faults:
            if isinstance(exc, kinds):
                raise Fault(f"{text}: {exc}{f'. {remedy}' if remedy else ''}") from exc
        raise


async def diagnose_airbyte(settings: AirbyteSettings) -> tuple[str, Job | None]:
    """Test the API of an Airbyte with requests that change nothing.

    :return: a message, and one of its jobs if there is any.
    :raises Fault: if a part fails.
    :raises SettingsError: if the settings can't be used.
    """
    part, url = "The server's URL", settings.url
    # With a token of its own, as one that was issued before would still be accepted.
    async with open_airbyte(settings, attempts=1, held=HeldToken()) as airbyte:
        with _explaining(
            (
                AirbyteUnreachable,
                f"{part}: nothing responds at {url}",
                "Check host, port and scheme, whether it is reached from here, and the proxy if there is one",
            ),
            (Unauthorized, f"{part}: a proxy in front of Airbyte requires a login of its own", ""),
            (
                (AirbyteProtocolError, NotFound),
                f"{part}: no public API of Airbyte at {url}",
                "Self-hosted, it is at http(s)://HOST/api/public/v1; Airbyte Cloud's is https://api.airbyte.com/v1",
            ),
            (AirbyteError, f"{part}: Airbyte fails", ""),
        ):
            await airbyte.health()
        with _explaining(
            (
                (Unauthorized, NotFound),
                "The credentials",
                "Login is the client id and password the client secret of an application, made in Airbyte under "
                "Settings, Applications; leave both empty for an Airbyte without authentication",
            ),
            (Forbidden, "The permission to list jobs", "The application's user must be able to read the workspaces"),
            (AirbyteError, "Listing jobs", ""),
        ):
            jobs = (await airbyte.list_jobs(limit=1)).jobs
    access = "takes no credentials" if settings.credentials is None else "accepts the credentials"
    return f"Airbyte at {url} responds, {access} and lists jobs.", jobs[0] if jobs else None


async def diagnose_listener(settings: ListenerSettings, airbyte: AirbyteSettings | None, job: Job | None) -> str:
    """Test whether a listener responds, accepts the token, and serves this Airbyte.

    :param airbyte: the Airbyte that it should serve; None: not tested.
    :param job: one of its jobs, to compare.
    :return: a message.
    :raises Fault: if a part fails.
    :raises SettingsError: if the settings can't be used.
    """
    async with open_listener(settings) as feed:
        listener = f"listener {feed.url}"
        try:
            with _explaining((FeedUnreachable, "The listener", "Check that it runs, and is reached from here")):
                await feed.watch([])
        except FeedRefused as exc:
            if exc.status_code == 401:
                raise Fault(f"The listener's API token: {exc}") from exc
            raise Fault(f"The listener's URL: {exc}. Check that it is a listener's") from exc
        works = f"The {listener} responds and accepts the token."
        if airbyte is None:
            return works
        if job is None:
            return f"{works} Whether it serves this Airbyte can be tested once that has a job."
        ref, name = JobRef(airbyte.instance, job.job_id), f"{airbyte.instance!r}"
        with _explaining(
            (FeedRefused, f"The instance: the {listener} has none called {name}", ""), (FeedError, "The listener", "")
        ):
            watched = await feed.watch([ref])
    state = watched.states.get(ref)
    if ref in watched.unknown or (state is not None and state.connection_id not in {None, job.connection_id}):
        raise Fault(
            f"The instance: {name} of the {listener} is another Airbyte: it does not have job {job.job_id} of this "
            f"one, {airbyte.url}. Set extra 'instance' of {airbyte.conn_id!r} to this Airbyte's name in the "
            "listener's settings"
        )
    if state is None:
        raise Fault(
            f"The {listener} can't get job {job.job_id} from its Airbyte {name}: see its log. Tasks poll meanwhile"
        )
    return f"The {listener} responds, accepts the token, and serves this Airbyte as {name}."
