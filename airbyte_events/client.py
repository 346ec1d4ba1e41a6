"""A listener's client: follows its feed, asks for job states."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Any

import anyio
import httpx

from airbyte_events import sse
from airbyte_events.errors import FeedRefused, FeedUnreachable
from airbyte_events.events import Cursor, JobEvent, JobRef

HELLO_SECONDS = 10.0
"""A stream that says nothing for so long after it was opened is held back by something on the way."""

SILENCE_SECONDS = 40.0
"""A stream that says nothing for so long is dead: a listener sends a bookmark at least every 15 s."""

WATCHES_PER_CALL = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedFrame:
    """What a stream said.

    :param name: ``hello``, ``job``, ``bookmark``, ``reset`` or ``goaway``.
    :param cursor: where to resume behind it.
    :param event: of a ``job`` frame.
    :param data: the payload of any other one.
    """

    name: str
    cursor: Cursor | None
    event: JobEvent | None
    data: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchAnswer:
    """The states of jobs that a listener now watches, and those that Airbyte does not know.

    A job that is in neither could not be asked for yet.
    """

    states: dict[JobRef, JobEvent]
    unknown: frozenset[JobRef]


class FeedClient:
    """:param http: a client whose life belongs to the caller.
    :param url: the listener's, such as ``http://listener:8484``.
    :param token: one of the listener's API tokens.
    """

    def __init__(self, http: httpx.AsyncClient, url: str, token: str | None) -> None:
        self._http = http
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def __repr__(self) -> str:
        return f"FeedClient({self.url!r})"

    @contextlib.asynccontextmanager
    async def stream(
        self, *, after: Cursor | None = None, instance: str | None = None
    ) -> AsyncIterator[AsyncIterator[FeedFrame]]:
        """Open the stream: ``async with client.stream() as frames: async for frame in frames``.

        The iterator ends with the response; it raises :class:`FeedUnreachable` when the stream breaks or goes silent.

        :param after: where to resume; by default with what happens from now on.
        :param instance: only this instance's jobs.
        :raises FeedUnreachable: if there is no answer.
        :raises FeedRefused: if the listener refuses.
        """
        headers = {**self._headers, "Accept": "text/event-stream", "Cache-Control": "no-store"}
        if after is not None:
            headers["Last-Event-ID"] = str(after)
        timeout = httpx.Timeout(HELLO_SECONDS, read=SILENCE_SECONDS)
        request = self._http.build_request(
            "GET", f"{self.url}/v1/events", headers=headers, params=_params(instance), timeout=timeout
        )
        with _translated(self.url):
            with anyio.fail_after(HELLO_SECONDS):
                response = await self._http.send(request, stream=True)
        try:
            if response.status_code != 200:
                with _translated(self.url):
                    await response.aread()
                raise _refusal(self.url, response)
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise FeedRefused(200, f"{self.url}/v1/events does not answer as a listener's feed: check the URL")
            yield self._frames(response)
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()

    async def _frames(self, response: httpx.Response) -> AsyncIterator[FeedFrame]:
        decoder = sse.Decoder()
        chunks = response.aiter_raw()
        wait = HELLO_SECONDS
        while True:
            with _translated(self.url):
                with anyio.fail_after(wait):
                    chunk = await anext(chunks, None)
            if chunk is None:
                return
            try:
                frames = [_parse(frame) for frame in decoder.feed(chunk)]
            except ValueError as exc:
                raise FeedUnreachable(f"{self.url} sent a frame that is no feed's: {exc}") from exc
            for frame in frames:
                wait = SILENCE_SECONDS
                yield frame

    async def watch(self, refs: Collection[JobRef]) -> WatchAnswer:
        """Have the listener watch these jobs, at most :data:`WATCHES_PER_CALL`, and tell their states.

        :raises FeedUnreachable: if there is no answer.
        :raises FeedRefused: if the listener refuses.
        """
        body = {"jobs": [{"instance": ref.instance, "job_id": ref.job_id} for ref in refs]}
        with _translated(self.url):
            response = await self._http.post(
                f"{self.url}/v1/watches", json=body, headers=self._headers, timeout=httpx.Timeout(10.0, read=60.0)
            )
        if response.status_code != 200:
            raise _refusal(self.url, response)
        try:
            answer = response.json()
            states = [JobEvent.from_data(data) for data in answer["jobs"]]
            unknown = [JobRef(each["instance"], each["job_id"]) for each in answer.get("unknown", ())]
        except (ValueError, KeyError, TypeError) as exc:
            raise FeedUnreachable(f"{self.url}/v1/watches gave an answer that is no listener's: {exc!r}") from exc
        return WatchAnswer(states={state.ref: state for state in states}, unknown=frozenset(unknown))


def _params(instance: str | None) -> dict[str, str]:
    return {"instance": instance} if instance else {}


def _parse(frame: sse.Frame) -> FeedFrame:
    data = json.loads(frame.data)
    if not isinstance(data, dict):
        raise ValueError("its data is not an object")
    event = JobEvent.from_envelope(data) if frame.event == "job" else None
    cursor = Cursor.parse(frame.id) if frame.id else None
    return FeedFrame(name=frame.event, cursor=cursor, event=event, data=data)


def _refusal(url: str, response: httpx.Response) -> FeedRefused | FeedUnreachable:
    if response.status_code >= 500:
        return FeedUnreachable(f"{url} answers {response.status_code}")
    if response.status_code == 401:
        return FeedRefused(401, f"{url} refuses the API token: check the password of the listener's Airflow connection")
    return FeedRefused(response.status_code, f"{url} answers {response.status_code}: {response.text[:200]}")


@contextlib.contextmanager
def _translated(url: str) -> Any:
    try:
        yield
    except TimeoutError as exc:
        raise FeedUnreachable(f"{url} said nothing in time") from exc
    except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as exc:
        raise FeedUnreachable(f"{url} gives no answer: {type(exc).__name__}") from exc
