"""OpenTelemetry: what became of a job's end, from its webhook to the trigger, in one trace.

All spans of a job have the trace that its name makes, so that the listener, another one that shares its store, and
Airflow's triggerer add to it without a word between them. Without OpenTelemetry's API, or with nobody who has set up
its SDK, nothing is recorded.
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
    """A span that ends now.

    :param name: ``webhook``, ``confirm``, ``event`` or ``trigger``.
    :param ref: whose trace it belongs to: an instance's name and a job id.
    :param since: when it began; a time to come counts as now.
    :param attributes: what else is known, beside instance and job; None is left out.
    """
    # Of a provider that nobody has set up there is a proxy, whose spans cost time and go nowhere.
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
