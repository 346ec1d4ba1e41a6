"""What reads text of others, without any I/O: it gives a value that is right, or its own error, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import httpx
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from airbyte_events._utils import json_values
from airbyte_events._utils.times import EARLIEST, LATEST, LONGEST_SECONDS, parse_time
from airbyte_events.airbyte import normalise_url
from airbyte_events.airbyte.models import parse_duration, parse_job
from airbyte_events.airbyte.notification_kinds import NotificationKind
from airbyte_events.airbyte.notifications import parse
from airbyte_events.airbyte.url import token_endpoint
from airbyte_events.errors import NotificationError, SettingsError
from airbyte_events.events import (
    NAMED,
    WEBHOOK_FIELDS,
    Cursor,
    EventFilter,
    JobError,
    JobEvent,
    JobRef,
    JobStatus,
    Origin,
    read_event,
)
from airbyte_events.feed import sse
from airbyte_events.feed.client import FeedClient
from airbyte_events.hub.position import OVERLAP, Position, completed_before
from airbyte_events.listener.http.params import (
    FILTERS,
    QueryError,
    event_filter,
    number,
    parse_id,
    refuse_unknown,
)
from airbyte_events.store.reconcile import annotate
from airbyte_events.store.registry import store_location

T = TypeVar("T")

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from(
        [0, -1, 2**63 - 1, 2**63, 10**400, float("nan"), float("inf"), 1e308, "", "\0", "\ud800", "1" * 5_000]
    ),
    st.floats(),
    st.text(),
    st.from_regex(r"\A\[?(THIS IS A TEST NOTIFICATION|x)?\]? ?(Sync (completed|queued|failure occurred)).{0,9}\Z"),
    st.from_regex(r"\AYour (connection|sync for connection) .{0,20}( succeeded| failed|is queued)\W{0,9}\Z"),
    st.from_regex(r"\A(https?://|//|<http)[^ ]{0,30}\Z"),
    st.from_regex(r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:?[0-9]{2})?\Z"),
)
JSON = st.recursive(
    ODD, lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(), each, max_size=4), max_leaves=12
)

ACTOR = {"id": "5f0c3d52-8f27-4a5e-9f7e-0d3c6a1b2c3d", "name": "Orders", "url": "https://x/workspaces/1/connections/2"}
NOTIFICATION: dict[str, Any] = {
    "text": "Your connection Orders from A to B succeeded\nhttps://x/connections/2\nJob ID: 7",
    "blocks": [
        {"type": "section", "text": {"type": "mrkdwn", "text": "Sync completed: <https://x/connections/2|Orders>"}}
    ],
    "data": {
        **dict.fromkeys(("workspace", "connection", "source", "destination"), ACTOR),
        "jobId": 7,
        "startedAt": "2024-01-01T00:00:00Z",
        "finishedAt": "2024-01-01T01:00:00Z",
        "recordsCommitted": 45,
        "bytesCommitted": 90,
        "durationInSeconds": 3600,
        "success": True,
        "errorMessage": None,
        "errorType": None,
        "errorOrigin": None,
    },
}


def places(value: Any, *path: Any) -> list[tuple[Any, ...]]:
    """The paths to everything in a JSON value."""
    within = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in within for place in places(each, *path, key))]


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    """The value with another one at a path, as far as that leads."""
    if not path:
        return by
    key, *rest = path
    if isinstance(value, dict):
        return {**value, key: replaced(value.get(key), tuple(rest), by)}
    if isinstance(value, list):
        return [replaced(each, tuple(rest), by) if at == key else each for at, each in enumerate(value)]
    return value


@st.composite
def altered(draw: st.DrawFn, value: Any) -> Any:
    """The value with a few things in it replaced."""
    for path in draw(st.lists(st.sampled_from(places(value)), max_size=4)):
        value = replaced(value, path, draw(JSON))
    return value


@st.composite
def bodies(draw: st.DrawFn, value: Any) -> bytes:
    """JSON, or what is almost that."""
    text = json.dumps(draw(altered(value)), ensure_ascii=draw(st.booleans()))
    body = text.encode(errors="surrogatepass")
    for _ in range(draw(st.integers(0, 2))):
        start, length = draw(st.integers(0, len(body))), draw(st.integers(0, 8))
        body = body[:start] + draw(st.binary(max_size=8)) + body[start + length :]
    return body


def tried(error: type[Exception], read: Callable[..., T], *args: Any) -> tuple[T | None, str]:
    """What is read, or why it is refused, which must be by this error."""
    try:
        return read(*args), ""
    except error as exc:
        return None, str(exc)


def storable(*texts: str | None) -> None:
    """What a database and a JSON encoder take."""
    for text in texts:
        if text is not None:
            assert isinstance(text, str)
            assert "\0" not in text
            text.encode()


class TestNotifications:
    @given(bodies(NOTIFICATION) | st.binary())
    @example(rb'{"data": {"jobId": 7, "connection": {"name": "a\u0000\ud800"}, "errorMessage": "\ud800\u0000"}}')
    @example(b"[" * 60_000)
    @example(b'{"a":' * 10_000)
    @example(b'{"data": {"jobId": 7, "jobId": ' + b"9" * 60_000 + b', "success": true}}')
    @example(b'{"text": "Your connection ' + b" succeeded!!!" * 5_000 + b'x"}')
    @example(b'{"text": "' + rb"\nConnection ID: \n    " * 3_000 + b'"}')
    def test_a_body_is_read_or_refused(self, body: bytes) -> None:
        found, fault = tried(NotificationError, parse, body)
        if found is None:
            assert "\n" not in fault
            assert len(fault) < 300
            return
        assert found.job_id is None or 0 < found.job_id < 2**63
        storable(found.workspace_id, found.connection_id, found.url, *found.names.values())
        if found.error is not None:
            storable(found.error.message, found.error.type, found.error.origin)
        for amount in (found.records, found.bytes, found.duration_seconds):
            assert amount is None or 0 <= amount < 2**63
        for moment in (found.started_at, found.finished_at):
            assert moment is None or moment.tzinfo is UTC
        if found.url is not None:
            assert re.match(r"https?://[^@]+", found.url)

    @given(altered(NOTIFICATION))
    def test_i3_nothing_that_says_otherwise_counts_as_a_success(self, document: Any) -> None:
        document = replaced(document, ("data", "success"), False)
        found, _ = tried(NotificationError, parse, json.dumps(document).encode())
        if found is not None and isinstance(document["data"], dict):
            assert found.kind is not NotificationKind.SUCCESS

    @given(st.text(max_size=20), st.booleans())
    def test_i3_a_test_or_a_queued_one_claims_no_end(self, title: str, tested: bool) -> None:
        start = "[THIS IS A TEST NOTIFICATION] Sync completed" if tested else "Sync queued"
        blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": f"{start}{title}"}}]
        assert parse(json.dumps({**NOTIFICATION, "blocks": blocks}).encode()).expected_status is None


JOB = {
    "jobId": 5,
    "status": "succeeded",
    "jobType": "sync",
    "startTime": "2024-01-01T00:00Z",
    "connectionId": "c",
    "lastUpdatedAt": "2024-01-01T01:00:00Z",
    "duration": "PT1H",
    "bytesSynced": 5,
    "rowsSynced": 6,
}


class TestJobs:
    @given(bodies(JOB) | st.binary())
    def test_an_answer_is_read_or_refused(self, body: bytes) -> None:
        fields, _ = tried(ValueError, json_values.parse_object, body)
        job, _ = tried(ValueError, parse_job, fields)
        if job is None or fields is None:
            return
        assert 0 < job.job_id < 2**63
        # I3: no state but the one that is written there.
        assert job.status is JobStatus.UNKNOWN or job.status.value == fields["status"]
        storable(job.job_type, job.connection_id)
        for amount in (job.bytes, job.records, job.duration_seconds):
            assert amount is None or 0 <= amount < 2**70

    @given(st.text() | st.from_regex(r"\AP[0-9WDTHMS.,]{0,20}\Z"))
    def test_durations(self, text: str) -> None:
        seconds = parse_duration(text)
        assert seconds is None or 0 <= seconds <= LONGEST_SECONDS

    @given(st.datetimes(timezones=st.just(UTC)))
    @example(datetime.min.replace(tzinfo=UTC))
    @example(datetime.max.replace(tzinfo=UTC))
    def test_times_hold_or_are_refused(self, moment: datetime) -> None:
        found, _ = tried(ValueError, parse_time, moment.isoformat())
        assert found == (moment if EARLIEST <= moment <= LATEST else None)


STORABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
TIMES = st.datetimes(EARLIEST.replace(tzinfo=None), LATEST.replace(tzinfo=None), timezones=st.just(UTC))
COUNT = st.integers(0, 2**63 - 1)
CURSORS = st.builds(Cursor, st.from_regex(r"[0-9a-f]{1,32}", fullmatch=True), st.integers(0, 10**18 - 1))
EVENTS = st.builds(
    JobEvent,
    ref=st.builds(JobRef, STORABLE.filter(bool), st.integers(1, 2**63 - 1)),
    status=st.sampled_from(JobStatus),
    observed_at=TIMES,
    origin=st.sampled_from(Origin),
    connection_id=st.none() | STORABLE,
    workspace_id=st.none() | STORABLE,
    job_type=st.none() | STORABLE,
    previous_status=st.none() | st.sampled_from(JobStatus),
    started_at=st.none() | TIMES,
    finished_at=st.none() | TIMES,
    records=st.none() | COUNT,
    bytes=st.none() | COUNT,
    duration_seconds=st.none() | st.floats(0, LONGEST_SECONDS),
    error=st.none()
    | st.builds(JobError, message=st.none() | STORABLE, type=st.none() | STORABLE, origin=st.none() | STORABLE),
    names=st.dictionaries(st.sampled_from(NAMED), STORABLE),
    url=st.none() | STORABLE.filter(bool),
    unconfirmed=st.frozensets(st.sampled_from(WEBHOOK_FIELDS)),
    cursor=CURSORS,
)


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """In pieces."""
    at = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True)]


class TestTheFeed:
    @given(EVENTS, st.data())
    def test_events_hold_on_their_way(self, event: JobEvent, data: st.DataObject) -> None:
        frame = sse.Frame(event="job", id=str(event.cursor), data=json.dumps(event.envelope("source")))
        decoder = sse.Decoder()
        found = [frame for piece in data.draw(cut(frame.encode())) for frame in decoder.feed(piece)]
        assert found == [frame]
        assert JobEvent.from_envelope(json_values.parse_object(found[0].data.encode())) == event

    @given(EVENTS, st.data())
    def test_what_is_no_event_is_refused(self, event: JobEvent, data: st.DataObject) -> None:
        envelope = data.draw(altered(event.envelope("source")))
        assume(isinstance(envelope, dict))
        found, _ = tried(ValueError, JobEvent.from_envelope, envelope)
        if found is None:
            return
        assert JobEvent.from_envelope(found.envelope("source")) == found
        assert json.loads(json.dumps(found.data(), allow_nan=False)) == found.data()
        hash((found.ref, found.connection_id, found.workspace_id, found.job_type, found.url))

    @given(EVENTS, st.dictionaries(st.text(), JSON))
    def test_what_a_newer_version_adds_is_ignored(self, event: JobEvent, more: dict[str, Any]) -> None:
        known = {*event.data(), "names", "url", "unconfirmed"}
        added = {name: value for name, value in more.items() if name not in known}
        assert JobEvent.from_data({**event.data(), **added}, event.cursor) == event

    @given(JSON)
    def test_any_value_is_read_or_left_out(self, value: Any) -> None:
        assert read_event(value) is None

    @given(EVENTS, EVENTS)
    def test_an_annotation_can_be_stored(self, known: JobEvent, told: JobEvent) -> None:
        both = annotate(known, told)
        assert JobEvent.from_data(both.data(), both.cursor) == both
        assert both.unconfirmed <= known.unconfirmed | told.unconfirmed


class TestPlaces:
    @given(st.lists(EVENTS, max_size=5), st.lists(TIMES, max_size=5), st.none() | TIMES)
    def test_no_time_of_a_job_is_too_far_for_one(
        self, events: list[JobEvent], moments: list[datetime], floor: datetime | None
    ) -> None:
        place = Position(floor=floor)
        for event in events:
            place.record(event)
            assert place.covers(event)
        for moment in moments:
            place.advance(moment, floor)
            assert place.floor is not None
            assert place.floor >= max(moment - OVERLAP, EARLIEST)
            for event in events:
                place.covers(event)
                completed_before(event, moment)
        again = Position.from_data(json.loads(json.dumps(place.data())))
        assert (again.since, list(again.delivered)) == (place.since, list(place.delivered))

    @given(
        st.lists(
            st.sampled_from(
                [b"data: ", b"id: e1-5", b"event: job", b":", b"\n", b"\r\n", b"\r", b"\n\n", b"{}", b"\xff"]
            )
            | st.binary(max_size=5)
        ).map(b"".join),
        st.data(),
    )
    def test_it_does_not_matter_how_bytes_are_cut(self, stream: bytes, data: st.DataObject) -> None:
        def decoded(pieces: list[bytes]) -> list[sse.Frame] | None:
            decoder = sse.Decoder()
            return tried(ValueError, lambda: [frame for piece in pieces for frame in decoder.feed(piece)])[0]

        assert decoded(data.draw(cut(stream))) == decoded([stream])

    @given(CURSORS)
    def test_cursors_hold(self, cursor: Cursor) -> None:
        assert Cursor.parse(str(cursor)) == cursor

    @given(st.text() | st.from_regex(r"\A[0-9a-f٣]{0,33}-[0-9٣+_ ]{0,20}\n?\Z"))
    def test_what_is_no_cursor_is_refused(self, text: str) -> None:
        cursor, _ = tried(ValueError, Cursor.parse, text)
        assert cursor is None or str(cursor) == text


NUMBERS = st.from_regex(r"\A[-+ ]?[0-9٣_]{0,20}(\.|e|,)?[0-9]{0,4}\n?\Z")
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0,"), min_size=1)


class TestQueries:
    @given(
        st.builds(
            EventFilter,
            instances=st.frozensets(NAMES),
            connection_ids=st.frozensets(NAMES),
            job_ids=st.frozensets(st.integers(1, 2**63 - 1)),
            statuses=st.frozensets(st.sampled_from(JobStatus)),
            terminal=st.none() | st.booleans(),
        ),
        st.booleans(),
    )
    def test_filters_hold(self, wanted: EventFilter, commas: bool) -> None:
        values = {
            "instance": list(wanted.instances),
            "connection_id": list(wanted.connection_ids),
            "job_id": [str(job_id) for job_id in wanted.job_ids],
            "status": [status.value for status in wanted.statuses],
            "terminal": [] if wanted.terminal is None else ["true" if wanted.terminal else "false"],
        }
        given_ = {name: [",".join(each)] if commas else each for name, each in values.items() if each}
        assert event_filter(QueryParams(urlencode(given_, doseq=True))) == wanted

    @given(st.lists(st.tuples(st.sampled_from([*FILTERS, "limit", "wait", "x"]), st.text() | NUMBERS), max_size=4))
    def test_anything_else_is_refused_by_its_name(self, pairs: list[tuple[str, str]]) -> None:
        params = QueryParams("&".join(f"{name}={quote(value, errors='replace')}" for name, value in pairs))

        def read() -> tuple[EventFilter, int, float]:
            refuse_unknown(params, FILTERS | {"limit", "wait"})
            limit = number(params, "limit", 100, least=1, most=1000)
            return event_filter(params), limit, number(params, "wait", 0.0, least=0, most=60)

        found, fault = tried(QueryError, read)
        if found is None:
            assert fault.partition(": ")[0] in params
            return
        wanted, limit, wait = found
        assert 1 <= limit <= 1000
        assert 0 <= wait <= 60
        storable(*wanted.instances, *wanted.connection_ids)
        # What was given as a filter is one.
        filters = (("instance", wanted.instances), ("job_id", wanted.job_ids), ("status", wanted.statuses))
        for name, values in filters:
            assert bool(values) is (name in params)

    @given(st.text() | st.from_regex(r"\A[0-9٣]{0,30}\n?\Z"))
    def test_ids(self, text: str) -> None:
        id_, _ = tried(ValueError, parse_id, text)
        assert id_ is None or 0 < id_ < 2**63


_PARTS = "http https ftp :// : / // @ user:canary@ localhost api.airbyte.com [::1] [ ] 8000 99999 :0 ?key=canary # api"
URLS = st.lists(
    st.sampled_from([*_PARTS.split(), "/public", "/v1", "workspaces", "\\", " ", "%", "%00", "é", "。", "٣"])
    | st.text(max_size=4),
    max_size=9,
).map("".join)


@pytest.fixture
def http() -> httpx.AsyncClient:
    """One that is never opened."""
    return httpx.AsyncClient()


class TestURLs:
    @given(URLS)
    def test_airbytes(self, url: str) -> None:
        found, fault = tried(SettingsError, normalise_url, url)
        assert "canary" not in fault
        assert "\n" not in fault
        if found is not None:
            assert normalise_url(found) == found
            assert httpx.URL(found).host
            assert not httpx.URL(found).userinfo
            assert not httpx.URL(found).query

    @given(URLS)
    def test_where_tokens_are_had(self, url: str) -> None:
        found, fault = tried(SettingsError, token_endpoint, "http://localhost:8000/api/public/v1", url)
        assert "canary" not in fault
        if found is not None:
            # The client secret leaves for no other server without TLS.
            assert found.startswith(("http://localhost:8000/", "https://"))
            assert httpx.URL(found).host

    @given(url=URLS)
    def test_a_listeners(self, http: httpx.AsyncClient, url: str) -> None:
        client, fault = tried(SettingsError, FeedClient, http, url, "token")
        assert "canary" not in fault
        if client is not None:
            assert not httpx.URL(client.url).userinfo
            assert not httpx.URL(client.url).query

    @given(URLS | st.from_regex(r"\A(sqlite|memory|mem|postgresql):/{0,4}.{0,9}\Z"))
    def test_a_stores(self, url: str) -> None:
        found, fault = tried(ValueError, store_location, url)
        assert "canary" not in fault
        # PostgreSQL's is shown without what may be secret.
        if found is not None and found.kind != "postgresql":
            assert store_location(str(found)) == found
