"""The client of a listener: follows its feed, and requests job states."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import anyio
import httpx

from airbyte_events._utils import http as responses
from airbyte_events._utils import json_values
from airbyte_events._utils.times import format_time
from airbyte_events.errors import FeedRefused, FeedUnreachable, SettingsError
from airbyte_events.events import EVERYTHING, Cursor, EventFilter, Identity, JobEvent, JobRef, Progress, read_event
from airbyte_events.feed import sse

HELLO_SECONDS = 10.0
"""The maximum silence after a stream was opened. Longer, a proxy buffers the response."""

SILENCE_SECONDS = 40.0
"""The maximum silence of a stream. A listener sends a bookmark at least every 15 s."""

RESPONSE_SECONDS = 60.0
"""The timeout of a request for states: the listener requests those from Airbyte that it does not know."""

LARGEST_RESPONSE = 16 * 1024 * 1024
"""The maximum size of a response in bytes. The states of 1,000 jobs have about 1 MB."""

_LONGEST_MESSAGE = 200

FRAMES = frozenset({"hello", "job", "signal", "bookmark", "reset", "goaway"})
"""The names of frames. Others are ignored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedFrame:
    """A frame of a stream.

    :param name: one of :data:`FRAMES`.
    :param cursor: the cursor to resume from.
    :param event: of a ``job`` or ``signal`` frame; None if it can't be parsed.
    :param data: the payload of any other frame.
    :param more: whether the next frame has arrived, too.
    """

    name: str
    cursor: Cursor | None
    event: JobEvent | None
    data: dict[str, Any]
    more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchAnswer:
    """The states of the jobs that a listener now watches, and the jobs that Airbyte does not know.

    For a job that is in neither, Airbyte has not responded yet.
    """

    states: dict[JobRef, JobEvent]
    unknown: frozenset[JobRef]


class FeedClient:
    """A client of a listener's API.

    :param http: an HTTP client that the caller opens and closes.
    :param url: the listener's URL, such as ``http://listener:8484``.
    :param token: one of the listener's API tokens.
    :param hello: seconds, see :data:`HELLO_SECONDS`.
    :param silence: seconds, see :data:`SILENCE_SECONDS`.
    :param answer: seconds, see :data:`RESPONSE_SECONDS`.
    :param reaching: the remedy if no listener responds.
    :param authenticating: the remedy if the listener refuses the token.
    :raises SettingsError: if the URL or the token is invalid.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        url: str,
        token: str | None,
        *,
        hello: float = HELLO_SECONDS,
        silence: float = SILENCE_SECONDS,
        answer: float = RESPONSE_SECONDS,
        reaching: str | None = None,
        authenticating: str = "check the password of the listener's Airflow connection",
    ) -> None:
        try:
            base = httpx.URL(url.rstrip("/"))
        except httpx.InvalidURL:
            raise SettingsError("the listener's URL is not valid: write it as http://listener:8484") from None
        token = (token or "").strip()
        if not token.isascii() or not token.isprintable():
            raise SettingsError("the listener's API token has characters that no token has")
        self._http = http
        self._base = str(base.copy_with(query=None, fragment=None)).rstrip("/")
        self.url = str(base.copy_with(userinfo=b"", query=None, fragment=None)).rstrip("/")
        """The listener's URL without credentials."""
        self._token = token
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._hello = hello
        self._silence = silence
        self._answer = answer
        self._reaching = f": {reaching}" if reaching else ""
        self._authenticating = authenticating

    def __repr__(self) -> str:
        return f"FeedClient({self.url!r})"

    @contextlib.asynccontextmanager
    async def stream(
        self, *, after: Cursor | None = None, instance: str | None = None, wanted: EventFilter = EVERYTHING
    ) -> AsyncIterator[AsyncIterator[FeedFrame]]:
        """Open the stream: ``async with client.stream() as frames: async for frame in frames``.

        The iterator ends with the response. It raises :class:`FeedUnreachable` when the stream breaks or is silent.

        :param after: the cursor to resume from; by default the newest.
        :param instance: only this instance's jobs.
        :param wanted: only these events.
        :raises FeedUnreachable: if the listener does not respond.
        :raises FeedRefused: if the listener refuses.
        """
        headers = {**self._headers, **responses.UNPACKED, "Accept": "text/event-stream", "Cache-Control": "no-store"}
        if after is not None:
            headers["Last-Event-ID"] = str(after)
        params: list[tuple[str, str | int | float | bool | None]] = [*query(wanted)]
        if instance:
            params.append(("instance", instance))
        with self._translated(self._hello):
            request = self._http.build_request(
                "GET", f"{self._base}/v1/events", headers=headers, params=params or None, timeout=None
            )
            response = await self._http.send(request, stream=True, follow_redirects=False)
        try:
            if response.status_code != 200:
                with self._translated(self._hello):
                    raise self._refusal(response.status_code, await responses.read_body(response, LARGEST_RESPONSE))
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise FeedRefused(200, f"{self.url}/v1/events does not respond as a listener's feed: check the URL")
            async with contextlib.aclosing(self._frames(response)) as frames:
                yield frames
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()

    async def _frames(self, response: httpx.Response) -> AsyncGenerator[FeedFrame, None]:
        decoder = sse.Decoder()
        chunks = response.aiter_raw()
        silent_at = anyio.current_time() + self._hello
        try:
            while True:
                with self._translated(silent_at - anyio.current_time()):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                try:
                    received = decoder.feed(chunk)
                    frames = [parsed for frame in received if (parsed := _parse(frame)) is not None]
                except ValueError as exc:
                    fault = str(exc)[:_LONGEST_MESSAGE]
                    raise FeedUnreachable(f"{self.url} sent a frame that is no feed's: {fault}") from exc
                for frame in frames[:-1]:
                    yield replace(frame, more=True)
                for frame in frames[-1:]:
                    yield frame
                if received:
                    silent_at = anyio.current_time() + self._silence
        finally:
            await _abandon(chunks)

    async def watch(
        self, refs: Collection[JobRef] | Mapping[JobRef, Identity], task_urls: Mapping[JobRef, str] | None = None
    ) -> WatchAnswer:
        """Have the listener watch these jobs, at most 1,000, and return their states.

        :param refs: the jobs, with their identities where those are known.
        :param task_urls: the pages of the tasks that wait for them, for people who look at the jobs.
        :raises FeedUnreachable: if the listener does not respond.
        :raises FeedRefused: if the listener refuses.
        """
        identities = refs if isinstance(refs, Mapping) else dict.fromkeys(refs, Identity())
        pages = task_urls or {}
        body = {"jobs": [_wanted(ref, identity, pages.get(ref)) for ref, identity in identities.items()]}
        answer = await self.request("POST", "/v1/watches", json=body)
        try:
            # A state that can't be parsed counts as not reported.
            states = [state for data in answer["jobs"] if (state := read_event(data)) is not None]
            unknown = frozenset(
                JobRef(str(each["instance"]), int(each["job_id"])) for each in answer.get("unknown", ())
            )
        except (ValueError, KeyError, TypeError, OverflowError) as exc:
            raise FeedUnreachable(f"{self.url}/v1/watches responded with something that is no listener's") from exc
        return WatchAnswer(states={state.ref: state for state in states}, unknown=unknown)

    async def progress(self, job: JobRef, *, streams: bool = False, max_age: float = 0.0) -> list[Progress]:
        """Return how far the job is, as far as the listener knows: nothing unless it is active.

        :param streams: also of its streams.
        :param max_age: seconds, the age up to which the listener need not ask Airbyte again.
        :raises FeedError: as :meth:`watch` does; also if the listener is of a version without progress.
        """
        params = {"instance": job.instance, "job_id": str(job.job_id)}
        params |= {"streams": "true"} if streams else {}
        params |= {"max_age": str(int(max_age))} if max_age >= 1 else {}
        found = (await self.request("GET", "/v1/progress", params=params)).get("progress")
        return [each for each in map(Progress.read, found if isinstance(found, list) else []) if each is not None]

    async def request(self, method: str, path: str, **given: Any) -> dict[str, Any]:
        """Return the response to a request.

        :param given: further arguments of httpx, such as ``params`` or ``json``.
        :raises FeedUnreachable: if the listener does not respond.
        :raises FeedRefused: if the listener refuses.
        """
        headers = {**self._headers, **responses.UNPACKED, "Accept": "application/json"}
        with self._translated(self._answer):
            async with self._http.stream(
                method, f"{self._base}{path}", headers=headers, timeout=None, follow_redirects=False, **given
            ) as response:
                content = await responses.read_body(response, LARGEST_RESPONSE)
        if response.status_code not in (200, 202):
            raise self._refusal(response.status_code, content)
        try:
            return json_values.parse_object(content)
        except ValueError as exc:
            raise FeedUnreachable(f"{self.url}{path} responded with something that is no listener's") from exc

    def _refusal(self, status: int, body: bytes) -> FeedRefused | FeedUnreachable:
        # Only a listener's own message is repeated: a proxy's page may contain the request.
        try:
            message = json_values.text(json_values.parse_object(body).get("error"))
        except ValueError:
            message = None
        if message and self._token:
            message = message.replace(self._token, "…")
        if (remedy := proxy_remedy(status, message)) is not None:
            return FeedRefused(status, f"{self.url} responds with {status}: {remedy}")
        if status == 401:
            fault = "refuses the API token" if self._token else "requires an API token"
            return FeedRefused(401, f"{self.url} {fault}: {self._authenticating}")
        text = f"{self.url} responds with {status}" + (f": {message[:_LONGEST_MESSAGE]}" if message else "")
        return FeedUnreachable(text) if status >= 500 else FeedRefused(status, text)

    @contextlib.contextmanager
    def _translated(self, seconds: float) -> Iterator[None]:
        try:
            with anyio.fail_after(seconds):
                yield
        except TimeoutError as exc:
            raise FeedUnreachable(f"{self.url} did not respond in time") from exc
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as exc:
            raise FeedUnreachable(f"{self.url} does not respond: {responses.why(exc)}{self._reaching}") from exc
        except responses.ResponseRefused as exc:
            raise FeedUnreachable(f"{self.url}: the response {exc}") from exc


def proxy_remedy(status: int, message: str | None) -> str | None:
    """Return the remedy for a response of a proxy in front of a listener: a redirect, or a login.

    :param message: the response's error message, if it has a listener's format.
    """
    if 300 <= status <= 399:
        return "a redirect: write the URL that needs none, or, if it leads to a login, let the listener's paths pass"
    if status == 401 and message is None:
        return "a proxy in front of the listener requires a login: let the listener's paths pass without it"
    return None


def _wanted(ref: JobRef, identity: Identity, task_url: str | None) -> dict[str, str | int]:
    known = {
        "connection_id": identity.connection_id,
        "started_at": format_time(identity.started_at),
        "task_url": task_url,
    }
    optional = {name: value for name, value in known.items() if value is not None}
    return {"instance": ref.instance, "job_id": ref.job_id, **optional}


def query(wanted: EventFilter) -> list[tuple[str, str]]:
    params = [("instance", name) for name in sorted(wanted.instances)]
    params += [("connection_id", id_) for id_ in sorted(wanted.connection_ids)]
    params += [("job_id", str(id_)) for id_ in sorted(wanted.job_ids)]
    params += [("status", status.value) for status in sorted(wanted.statuses)]
    params += [("signals", "true")] if wanted.signals else []
    return params if wanted.terminal is None else [*params, ("terminal", "true" if wanted.terminal else "false")]


async def _abandon(chunks: AsyncIterator[bytes]) -> None:
    # A cancelled read ends httpx's nested generators, which the garbage collector would end otherwise.
    with anyio.CancelScope() as reading, contextlib.suppress(httpx.HTTPError, httpx.StreamError):
        reading.cancel()
        async for _ in chunks:
            pass


def _parse(frame: sse.Frame) -> FeedFrame | None:
    if frame.event not in FRAMES:
        return None
    data = json_values.parse_object(frame.data.encode())
    event = None
    if frame.event in ("job", "signal"):
        if not isinstance(data.get("data"), dict):
            raise ValueError("no event's envelope")
        event = read_event(data["data"], Cursor.parse(str(data.get("id"))))
    return FeedFrame(name=frame.event, cursor=Cursor.parse(frame.id) if frame.id else None, event=event, data=data)
