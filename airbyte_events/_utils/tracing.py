"""OpenTelemetry: one trace for a job's completion, from the webhook to the trigger.

The trace id is derived from instance and job id, so that listeners and Airflow's triggerer add spans to it without
passing a context. Nothing is recorded without OpenTelemetry's API and a configured SDK.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from airbyte_events._utils.times import utcnow

try:
    from opentelemetry import trace
except ImportError:
    trace = None  # type: ignore[assignment]


def record(name: str, ref: tuple[str, int], since: datetime, **attributes: str | int | None) -> None:
    """Record a span that ends now.

    :param name: ``webhook``, ``confirm``, ``event`` or ``trigger``.
    :param ref: the instance's name and the job id.
    :param since: when it began; a future time counts as now.
    :param attributes: besides instance and job; None is left out.
    """
    # Without an SDK, the provider is a proxy, whose spans cost time and are dropped.
    if trace is None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return
    now = utcnow()
    instance, job_id = ref
    given: dict[str, Any] = {"instance": instance, "job_id": job_id, **attributes}
    span = trace.get_tracer("airbyte_events").start_span(
        name,
        context=_trace_of(ref),
        start_time=_nanoseconds(min(since, now)),
        attributes={f"airbyte.{key}": value for key, value in given.items() if value is not None},
    )
    span.end(_nanoseconds(now))


def _trace_of(ref: tuple[str, int]) -> Any:
    instance, job_id = ref
    digest = hashlib.blake2b(f"{instance}/{job_id}".encode(), digest_size=24).digest()
    root = trace.SpanContext(
        trace_id=int.from_bytes(digest[:16], "big"),
        span_id=int.from_bytes(digest[16:], "big"),
        is_remote=True,
        trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(root))


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1_000
