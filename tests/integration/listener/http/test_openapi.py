"""The OpenAPI document is what the listener has and answers."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import jsonschema
import pytest
from pydantic import SecretStr
from starlette.routing import BaseRoute, Mount, Route

from airbyte_events._utils.times import utcnow
from airbyte_events.events import Cursor, JobError, JobEvent, JobRef, JobStatus, Origin, Signal, SignalKind
from airbyte_events.feed import sse
from airbyte_events.listener.assembly import assemble
from airbyte_events.listener.http.openapi import DOCUMENT
from support.listener import API_TOKEN, OPERATOR_TOKEN, WEBHOOK_TOKEN, Installation, bearer, instance_of, settings_of
from support.waiting import a_moment

pytestmark = pytest.mark.anyio


def closed(schema: Any) -> Any:
    """The schema, and nothing that it does not name."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: closed(each) for name, each in schema.items()}
    if "required" in schema and "properties" in schema:
        schema.setdefault("additionalProperties", False)
    return schema


STRICT = closed(copy.deepcopy(DOCUMENT))


def conforms(value: Any, schema: Any) -> None:
    """:param schema: or the name of one."""
    if isinstance(schema, str):
        schema = {"$ref": f"#/components/schemas/{schema}"}
    formats = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator({**STRICT, **schema}, format_checker=formats).validate(value)


def answers(method: str, path: str) -> dict[str, Any]:
    """The operation's responses by status."""
    found = STRICT["paths"][path][method.lower()]["responses"]
    named = STRICT["components"]["responses"]
    return {
        status: named[each["$ref"].rpartition("/")[2]] if "$ref" in each else each for status, each in found.items()
    }


def check(method: str, path: str, answer: httpx.Response) -> Any:
    """The answer is one that the document tells of."""
    response = answers(method, path)[str(answer.status_code)]
    media_type, _, _ = answer.headers["content-type"].partition(";")
    told = answer.json() if media_type == "application/json" else answer.text
    conforms(told, response["content"][media_type]["schema"])
    for name, header in response.get("headers", {}).items():
        conforms(answer.headers[name], header["schema"])
    return told


def operations(routes: Iterable[BaseRoute], prefix: str = "") -> Iterable[tuple[str, str]]:
    for route in routes:
        if isinstance(route, Mount):
            yield from operations(route.routes, prefix + route.path)
        elif isinstance(route, Route) and route.include_in_schema:
            yield from ((method, prefix + route.path) for method in (route.methods or set()) - {"HEAD"})


class DescribedListener(Installation):
    async def ask(self, method: str, path: str, *, at: dict[str, Any] | None = None, **options: Any) -> Any:
        """Ask, and check the answer against what the document says.

        :param path: as the document has it.
        :param at: what is put in its place holders.
        """
        return check(method, path, await self.http.request(method, path.format(**(at or {})), **options))


@pytest.fixture
async def api() -> AsyncIterator[DescribedListener]:
    operators, sinks = (SecretStr(OPERATOR_TOKEN),), (SecretStr("http://127.0.0.1:9/sink"),)
    async with DescribedListener.open(token=OPERATOR_TOKEN, operator_tokens=operators, forward_urls=sinks) as api:
        yield api


async def raise_a_signal(api: DescribedListener) -> None:
    signal = Signal(kind=SignalKind.STALLED, raised=True, job_id=7, since=utcnow(), message="job 7 has moved nothing")
    event = JobEvent.of_signal(signal, instance="default", connection_id="c", observed_at=utcnow())
    await api.served.listener.store.append([event])


def test_the_document_is_one_of_openapi_3_1() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    ids = [operation["operationId"] for path in DOCUMENT["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))

    def references(value: Any) -> Iterable[str]:
        if isinstance(value, dict):
            yield from [value["$ref"]] if "$ref" in value else []
        for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from references(each)

    for reference in references(DOCUMENT):
        _, _, kind, name = reference.split("/")
        assert name in DOCUMENT["components"][kind], reference


def test_an_event_that_tells_all_and_one_that_tells_nothing_conform() -> None:
    ref, at, cursor = JobRef("default", 7), datetime(2024, 1, 1, tzinfo=UTC), Cursor("ab", 1)
    bare = JobEvent(ref=ref, status=JobStatus.UNKNOWN, observed_at=at, origin=Origin.POLL, cursor=cursor)
    full = JobEvent(
        ref=ref,
        status=JobStatus.FAILED,
        observed_at=at,
        origin=Origin.WEBHOOK,
        connection_id="c",
        workspace_id="w",
        job_type="sync",
        previous_status=JobStatus.RUNNING,
        started_at=at,
        finished_at=at,
        records=0,
        bytes=2**63 - 1,
        duration_seconds=0.5,
        error=JobError(message="m", type="t", origin="o"),
        names={"workspace": "a", "connection": "b", "source": "c", "destination": "d"},
        url="https://airbyte.example.com",
        cursor=cursor,
    )
    for event in (bare, full, replace(full, error=JobError(message=None))):
        conforms(event.data(), "Job")
        conforms(event.envelope("https://airbyte.example.com"), "Event")


async def test_its_paths_and_methods_are_the_applications() -> None:
    async with assemble(settings_of(instance_of("http://127.0.0.1:9"), webhook_port=1)) as listener:
        app: Any = listener.app
        while not hasattr(app, "routes"):
            app = app.app  # what is around the application
        # The receiver does without a route table: what it takes is asked for below.
        routed = {*operations(app.routes), ("POST", "/webhooks/{instance}/{token}")}
    described = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert described == routed


async def test_it_is_public_and_what_is_served(api: DescribedListener) -> None:
    answer = await api.http.get("/openapi.json", headers={"Authorization": ""})
    assert answer.json() == json.loads(json.dumps(DOCUMENT))


async def test_what_is_public_and_what_is_not(api: DescribedListener) -> None:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            filled = path.format(instance="default", token="wrong", job_id=1, id=1, probe="none")
            answer = await api.http.request(method, filled, headers={"Authorization": ""})
            assert (answer.status_code == 401) is ("security" not in operation), (method, path)
            check(method, path, answer)


async def test_so_is_what_is_told_who_guesses(api: DescribedListener) -> None:
    seen = set()
    with anyio.fail_after(30):
        while 429 not in seen:
            for method, path in (("GET", "/v1/jobs"), ("POST", "/webhooks/{instance}/{token}")):
                filled = path.format(instance="default", token="wrong")
                answer = await api.http.request(method, filled, headers={"Authorization": "Bearer wrong"})
                check(method, path, answer)
                seen.add(answer.status_code)
    assert seen == {401, 404, 429}


async def test_real_answers_are_those_it_describes(api: DescribedListener) -> None:
    job = api.start()
    silent = api.start("reset")
    refs: list[dict[str, Any]] = [{"instance": "default", "job_id": job_id} for job_id in (job.id, silent.id, 999)]
    refs[0]["task_url"] = "https://airflow.example.com/dags/orders/runs/1/tasks/sync"
    watched = await api.ask("POST", "/v1/watches", json={"jobs": refs})
    assert len(watched["jobs"]) == 2
    assert len(watched["unknown"]) == 1

    progress = await api.ask("GET", "/v1/progress", params={"instance": "default", "job_id": job.id, "streams": "true"})
    assert progress["progress"]
    await api.ask("GET", "/v1/progress", params={"instance": "default"})

    after = {"after": str(api.served.listener.bus.cursor)}
    await raise_a_signal(api)
    await api.ask("GET", "/v1/signals", params={"wrong": "1"})
    (signal,) = (await api.ask("GET", "/v1/signals", params={"raised": "true"}))["signals"]
    assert (signal["signal"], signal["state"], signal["job_id"]) == ("stalled", "raised", 7)
    assert (await api.ask("GET", "/v1/signals", params={"raised": "false"}))["signals"] == []
    asked = (await api.ask("GET", "/v1/events", params={**after, "signals": "true"}))["events"]
    assert [event["type"] for event in asked if "signal" in event["data"]] == ["io.airbyte.job.stalled"]
    assert (await api.ask("GET", "/v1/events", params=after))["events"] == []

    api.sim.world.end_job(job, "failed")
    page = await api.ask("GET", "/v1/events", params={"after": watched["cursor"], "wait": 10})
    assert page["events"]
    hook = {"instance": "default", "token": WEBHOOK_TOKEN}
    webhook = "/webhooks/{instance}/{token}"
    for content in (b'{"data": {"jobId": 999, "success": true}}', b'{"text": "Hello World!"}', b"no", b" " * 70_000):
        await api.ask("POST", webhook, at=hook, content=content)
    with anyio.fail_after(30):
        while any(
            each["outcome"] == "pending" for each in (await api.ask("GET", "/v1/notifications"))["notifications"]
        ):
            await a_moment()
    assert (await api.ask("GET", "/v1/notifications", params={"limit": 1}))["next"]
    assert (await api.ask("GET", "/v1/jobs", params={"limit": 1}))["next"]
    receipts = [{**each, "seconds_ago": 0.5, "waited_seconds": 60} for each in refs]
    assert (await api.ask("POST", "/v1/receipts", json={"receipts": receipts}))["receipts"] == 1
    await api.ask("POST", "/v1/receipts", json={"receipts": refs})
    for id_ in (job.id, silent.id, 999):
        await api.ask("GET", "/v1/jobs/{instance}/{job_id}", at={"instance": "default", "job_id": id_})
    for notification in (await api.ask("GET", "/v1/notifications"))["notifications"]:
        await api.ask("POST", "/v1/notifications/{id}/replay", at={"id": notification["id"]})
    await api.ask("POST", "/v1/notifications/{id}/replay", at={"id": 999})
    probe = (await api.ask("POST", "/v1/probes"))["probe"]
    for each in (probe, "none"):
        await api.ask("GET", "/v1/probes/{probe}", at={"probe": each})
    for id_ in (1, 999):
        await api.ask("GET", "/v1/notifications/{id}/body", at={"id": id_})
    for action, id_ in (("cancel", silent.id), ("cancel", job.id), ("retry", job.id), ("retry", 999)):
        path = "/v1/jobs/{instance}/{job_id}/" + action
        at = {"instance": "default", "job_id": id_}
        await api.ask("POST", path, at=at)
        await api.ask("POST", path, at=at, headers=bearer(API_TOKEN))
    deliveries = (await api.ask("GET", "/v1/deliveries"))["deliveries"]
    assert deliveries
    for id_ in (deliveries[0]["id"], 999):
        await api.ask("POST", "/v1/deliveries/{id}/retry", at={"id": id_})
    for path in ("/v1/events", "/v1/jobs", "/v1/notifications", "/v1/deliveries"):
        await api.ask("GET", path, params={"wrong": "1"})
    await api.ask("POST", "/v1/watches", content=b"no")
    await api.ask("GET", "/v1/events", params={"after": "ab-1"})
    await api.ask("GET", "/healthz")
    await api.ask("GET", "/readyz")
    api.served.listener.bus.close()
    await api.ask("GET", "/readyz")


async def test_so_are_the_frames_of_a_stream(api: DescribedListener) -> None:
    schemas = {"hello": "Hello", "job": "Event", "bookmark": "Bookmark", "reset": "ResetFrame", "goaway": "Goaway"}
    frames: list[sse.Frame] = []
    decoder = sse.Decoder()
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "ab-1"}
    job = api.start()
    with anyio.fail_after(30):
        async with api.http.stream("GET", "/v1/events", headers=headers) as response:
            documented = answers("GET", "/v1/events")["200"]["content"]
            assert response.headers["content-type"].partition(";")[0] in documented
            async for chunk in response.aiter_raw():
                for frame in decoder.feed(chunk):
                    frames.append(frame)
                    conforms(json.loads(frame.data), schemas[frame.event])
                    if frame.event == "reset":
                        api.sim.world.end_job(job, "succeeded")
                    if frame.event == "job":
                        api.served.listener.bus.close()
    assert [frame.event for frame in frames] == ["hello", "reset", "job", "goaway"]


def test_its_example_of_a_stream_is_one() -> None:
    content = DOCUMENT["paths"]["/v1/events"]["get"]["responses"]["200"]["content"]["text/event-stream"]
    assert [frame.event for frame in sse.Decoder().feed(content["example"].encode())] == [
        "hello",
        "job",
        "bookmark",
        "goaway",
    ]
