"""Schemathesis, by the OpenAPI document, against a whole listener over a socket with a simulated Airbyte behind.

Streams are left to tests of their own: what is asked for here are pages.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema
import pytest
import requests
import schemathesis
from anyio.from_thread import start_blocking_portal
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from airbyte_events.listener.http.api import MAX_RECEIPT_SECONDS
from airbyte_events.listener.http.openapi import DOCUMENT
from airbyte_events.simulator import Script, Simulator, serve_simulator
from support.listener import API_TOKEN, WEBHOOK_TOKEN, bearer, instance_of, serve_listener, settings_of

# Those are the listener's, in its thread.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")

WEBHOOK = {"instance": "default", "token": WEBHOOK_TOKEN}

SCHEMA = schemathesis.openapi.from_dict(copy.deepcopy(DOCUMENT))  # it changes what it is given
OPERATIONS = [(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods]
CONFORMS = CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    ]
)

few = settings(max_examples=max(settings().max_examples * 2 // 5, 10))


@asynccontextmanager
async def listening() -> AsyncIterator[str]:
    """A listener that knows of a job that runs and of one that has failed, and of notifications of all kinds."""
    async with serve_simulator(Simulator()) as sim:
        instance = instance_of(sim.url, forward_urls=(SecretStr("http://127.0.0.1:9/sink"),))
        async with serve_listener(settings_of(instance)) as served:
            sim.workspace.set_webhook(served.webhooks)
            for status in (None, "failed"):
                job = sim.world.start_job(sim.world.add_connection(Script.hanging()), "sync")
                if status is not None:
                    sim.world.end_job(job, status)
                for delivery in job.deliveries:
                    await delivery.over.wait()
            yield served.url


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(listening()) as url:
        yield url


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


@st.composite
def cases(draw: st.DrawFn, method: str, path: str, mode: GenerationMode) -> schemathesis.Case[Any]:
    """A request that is right (or wrong) by the document, with names and tokens that this listener has."""
    case = draw(SCHEMA[path][method].as_strategy(generation_mode=mode))
    if path.startswith("/webhooks/"):
        case.path_parameters = dict(WEBHOOK)
    if mode is GenerationMode.POSITIVE:
        small = st.integers(1, 4)
        for name in case.path_parameters.keys() & {"id", "job_id"}:
            case.path_parameters[name] = draw(small | st.just(case.path_parameters[name]))
        if path == "/v1/jobs/{instance}/{job_id}":
            case.path_parameters["instance"] = draw(st.sampled_from(["default", "other"]))
        if path == "/v1/progress":
            case.query["instance"] = "default"
        body: Any = case.body
        if path == "/v1/watches":
            body["jobs"] = [{"instance": "default", "job_id": draw(small)} for _ in body["jobs"]]
        if path == "/v1/receipts":
            ages = {name: st.floats(0, MAX_RECEIPT_SECONDS) for name in ("seconds_ago", "waited_seconds")}
            receipt = st.fixed_dictionaries({"instance": st.just("default"), "job_id": small, **ages})
            body["receipts"] = [draw(receipt) for _ in body["receipts"]]
        # Nobody has the time.
        if "wait" in (case.query or {}):
            case.query["wait"] = draw(st.sampled_from([0, 0.01]))
    return case


def ask(case: schemathesis.Case[Any], url: str, session: requests.Session) -> Any:
    headers = bearer(API_TOKEN)
    answer = case.call(base_url=url, session=session, headers=headers, timeout=90)
    case.validate_response(answer, checks=CONFORMS)  # type: ignore[arg-type]
    return answer


def is_right(method: str, path: str, request: requests.PreparedRequest) -> bool:
    """Whether a request is right by the document as it was sent: a number for a text is a text by then."""
    operation = DOCUMENT["paths"][path][method.lower()]
    schemas = {each["name"]: each["schema"] for each in operation.get("parameters", ()) if each["in"] == "query"}
    query = parse_qs(urlsplit(str(request.url)).query, keep_blank_values=True)
    if query.keys() - schemas.keys():
        return False
    found = [(schemas[name], values) for name, values in query.items()]
    right = all(
        valid(schema, [read(schema["items"], each) for value in values for each in value.split(",")])
        if schema["type"] == "array"
        else len(values) == 1 and valid(schema, read(schema, values[0]))
        for schema, values in found
    )
    if not right or "requestBody" not in operation:
        return right
    try:
        body = json.loads(request.body or b"")  # type: ignore[arg-type]
    except ValueError:
        return False
    return valid(operation["requestBody"]["content"]["application/json"]["schema"], body)


def read(schema: dict[str, Any], text: str) -> Any:
    """The value of a parameter."""
    if schema["type"] == "boolean":
        return {"true": True, "false": False}.get(text, text)
    if schema["type"] in ("integer", "number") and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text, re.ASCII):
        return float(text) if "." in text else int(text)
    return text


def valid(schema: dict[str, Any], value: Any) -> bool:
    return bool(jsonschema.Draft202012Validator({**DOCUMENT, **schema}).is_valid(value))


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
@few
@given(data=st.data())
def test_what_is_right_is_taken(
    url: str, session: requests.Session, method: str, path: str, data: st.DataObject
) -> None:
    answer = ask(data.draw(cases(method, path, GenerationMode.POSITIVE)), url, session)
    assert answer.status_code not in (400, 401, 413, 429), answer.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (method, path)
        for method, path in OPERATIONS
        if "parameters" in DOCUMENT["paths"][path][method.lower()]
        or "requestBody" in DOCUMENT["paths"][path][method.lower()]
    ],
)
@few
@given(data=st.data())
def test_what_is_wrong_is_refused(
    url: str, session: requests.Session, method: str, path: str, data: st.DataObject
) -> None:
    answer = ask(data.draw(cases(method, path, GenerationMode.NEGATIVE)), url, session)
    assert answer.status_code >= 400 or is_right(method, path, answer.request), answer.request.url
