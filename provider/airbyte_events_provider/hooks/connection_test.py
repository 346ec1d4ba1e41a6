"""Which part of a connection works, and what to do about the part that does not."""

from __future__ import annotations

from airbyte_events.airbyte import AirbyteClient, Job
from airbyte_events.errors import (
    AirbyteError,
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
    """A part that does not work: which, why, and what to do."""


async def diagnose_airbyte(settings: AirbyteSettings) -> tuple[str, Job | None]:
    """Ask an Airbyte for all that this package asks it for when nothing is to be changed.

    :return: what was found to work, and a job of it if it has any.
    :raises Fault: if something does not.
    :raises SettingsError: if the settings can't be used.
    """
    async with open_airbyte(settings, attempts=1) as airbyte:
        await _find_api(airbyte)
        job = await _list_jobs(airbyte)
    access = "takes no credentials" if settings.credentials is None else "accepts the credentials"
    return f"Airbyte at {settings.url} answers, {access} and lists jobs.", job


async def _find_api(airbyte: AirbyteClient) -> None:
    try:
        await airbyte.health()
    except AirbyteUnreachable as exc:
        raise Fault(
            f"The server's URL: nobody answers at {airbyte.url}: {exc}. Is it reached from here, by this host, port "
            "and scheme, and through the proxy if there is one?"
        ) from exc
    except Unauthorized as exc:
        raise Fault(f"The server's URL: something in front of Airbyte wants a login of its own: {exc}") from exc
    except (AirbyteProtocolError, NotFound) as exc:
        raise Fault(
            f"The server's URL: what answers at {airbyte.url} is not Airbyte's public API: {exc}. Self-hosted, that "
            "is at http(s)://HOST/api/public/v1; Airbyte Cloud's is https://api.airbyte.com/v1"
        ) from exc
    except AirbyteError as exc:
        raise Fault(f"The server's URL: Airbyte is there, and in trouble: {exc}") from exc


async def _list_jobs(airbyte: AirbyteClient) -> Job | None:
    try:
        page = await airbyte.list_jobs(limit=1)
    except (Unauthorized, NotFound) as exc:
        raise Fault(
            f"The credentials: {exc}. Login is the client id and password the client secret of an application, made in "
            "Airbyte under Settings, Applications; a self-hosted Airbyte without authentication wants neither"
        ) from exc
    except Forbidden as exc:
        raise Fault(
            f"The permission to list jobs: {exc}. The user whose application it is must be able to read the workspaces"
        ) from exc
    except AirbyteError as exc:
        raise Fault(f"Listing jobs: {exc}") from exc
    return page.jobs[0] if page.jobs else None


async def diagnose_listener(settings: ListenerSettings, airbyte: AirbyteSettings | None, job: Job | None) -> str:
    """Ask a listener whether it is there, takes the token, and listens to this Airbyte.

    :param airbyte: the Airbyte that it should know, if it is about one.
    :param job: one of its jobs, to tell it from other Airbytes.
    :return: what was found to work.
    :raises Fault: if something does not.
    :raises SettingsError: if the settings can't be used.
    """
    async with open_listener(settings) as feed:
        await _enter(feed)
        if airbyte is None:
            return f"The listener {feed.url} answers and takes the token."
        if job is None:
            return (
                f"The listener {feed.url} answers and takes the token; whether it listens to this Airbyte shows "
                "when that has a job."
            )
        await _compare(feed, airbyte, job)
    return f"The listener {feed.url} answers, takes the token, and knows this Airbyte as {airbyte.instance!r}."


async def _enter(feed: FeedClient) -> None:
    try:
        await feed.watch([])
    except FeedUnreachable as exc:
        raise Fault(f"The listener: {exc}. Does it run, and is it reached from here?") from exc
    except FeedRefused as exc:
        if exc.status_code == 401:
            raise Fault(f"The listener's API token: {exc}") from exc
        raise Fault(f"The listener's URL: {exc}. Is that a listener's?") from exc


async def _compare(feed: FeedClient, airbyte: AirbyteSettings, job: Job) -> None:
    """A job that both know, and of the same connection, is of the same Airbyte."""
    ref = JobRef(airbyte.instance, job.job_id)
    advice = f"Is extra 'instance' of {airbyte.conn_id!r} what the listener calls this Airbyte ({airbyte.url})?"
    try:
        answer = await feed.watch([ref])
    except FeedRefused as exc:
        raise Fault(f"The instance: the listener {feed.url} has none called {airbyte.instance!r}: {exc}") from exc
    except FeedError as exc:
        raise Fault(f"The listener: {exc}") from exc
    state = answer.states.get(ref)
    if ref in answer.unknown or (state is not None and state.connection_id not in {None, job.connection_id}):
        raise Fault(
            f"The instance: what the listener {feed.url} calls {airbyte.instance!r} is another Airbyte: it does not "
            f"have job {job.job_id} of this one. {advice}"
        )
    if state is None:
        raise Fault(
            f"The listener {feed.url} can't ask its Airbyte {airbyte.instance!r} for job {job.job_id}; its log tells "
            "why. Tasks wait by polling meanwhile"
        )
