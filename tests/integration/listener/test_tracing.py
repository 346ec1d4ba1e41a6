"""One trace for each job, from its webhook to the trigger, by OpenTelemetry's own SDK."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta

import httpx
import pytest

from airbyte_events._utils.times import utcnow
from airbyte_events._utils.tracing import record
from airbyte_events.events import JobRef
from airbyte_events.simulator import Script, Simulator, serve_simulator
from support.listener import WEBHOOK_TOKEN, instance_of, serve_listener, settings_of
from support.waiting import until

pytest.importorskip("opentelemetry.sdk.trace", reason="OpenTelemetry's SDK is not here")

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from support.loops import anyio_backend as anyio_backend


@pytest.fixture(scope="module")
def provider() -> TracerProvider:
    """The one of this process: OpenTelemetry takes no second."""
    provider = TracerProvider()
    trace.set_tracer_provider(provider)
    given = trace.get_tracer_provider()
    assert isinstance(given, TracerProvider)
    return given


@pytest.fixture
def exporter(provider: TracerProvider) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


def trace_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.trace_id)


def test_a_job_has_one_trace_and_another_has_another(exporter: InMemorySpanExporter) -> None:
    now = utcnow()
    record("webhook", JobRef("default", 1), now - timedelta(seconds=2), kind="success", notification=None)
    record("trigger", JobRef("default", 1), now + timedelta(hours=1))
    record("webhook", JobRef("other", 1), now)
    first, second, third = exporter.get_finished_spans()
    assert trace_id(first) == trace_id(second) != trace_id(third)
    assert first.attributes == {"airbyte.instance": "default", "airbyte.job_id": 1, "airbyte.kind": "success"}
    for span in (first, second, third):
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.end_time >= span.start_time
    assert (first.end_time or 0) - (first.start_time or 0) >= 2_000_000_000


@pytest.mark.anyio
async def test_from_webhook_to_event(exporter: InMemorySpanExporter) -> None:
    simulator = Simulator()
    job = simulator.world.start_job(simulator.world.add_connection(Script.hanging()))
    async with (
        serve_simulator(simulator) as served,
        serve_listener(settings_of(instance_of(served.url))) as listener,
        httpx.AsyncClient(trust_env=False) as http,
    ):
        simulator.world.end_job(job, "succeeded")
        body = json.dumps({"data": {"jobId": job.id, "success": True}})
        assert (await http.post(listener.webhooks, content=body)).status_code == 202
        await until(lambda: len(exporter.get_finished_spans()) >= 3)
        spans = exporter.get_finished_spans()
    assert {span.name for span in spans} == {"webhook", "confirm", "event"}
    assert len({trace_id(span) for span in spans}) == 1
    assert WEBHOOK_TOKEN not in str([span.to_json() for span in spans])


def test_without_opentelemetry_nothing_is_recorded() -> None:
    script = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from airbyte_events._utils.times import utcnow; from airbyte_events._utils.tracing import record\n"
        "from airbyte_events.events import JobRef\n"
        "record('webhook', JobRef('default', 1), utcnow())"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
