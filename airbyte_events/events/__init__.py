"""The core's values: job references and states, events, filters."""

from airbyte_events.events.event import NAMED, WEBHOOK_FIELDS, Cursor, JobError, JobEvent, JobRef, read_event
from airbyte_events.events.filter import EVERYTHING, WHOLE_LOG, EventFilter
from airbyte_events.events.identity import ANY_JOB, START_PRECISION, Identity, same_job
from airbyte_events.events.progress import Progress, StreamProgress, Usual
from airbyte_events.events.receipt import MAX_RECEIPTS, TaskReceipt, add_receipts
from airbyte_events.events.signal import Signal, SignalKind
from airbyte_events.events.status import (
    FOLLOWED_BY,
    PUSHED_JOB_TYPES,
    JobStatus,
    Origin,
    parse_origin,
    parse_status,
    reported_job_type,
    same_job_type,
)

__all__ = [
    "ANY_JOB",
    "EVERYTHING",
    "FOLLOWED_BY",
    "MAX_RECEIPTS",
    "NAMED",
    "PUSHED_JOB_TYPES",
    "START_PRECISION",
    "WEBHOOK_FIELDS",
    "WHOLE_LOG",
    "Cursor",
    "EventFilter",
    "Identity",
    "JobError",
    "JobEvent",
    "JobRef",
    "JobStatus",
    "Origin",
    "Progress",
    "Signal",
    "SignalKind",
    "StreamProgress",
    "TaskReceipt",
    "Usual",
    "add_receipts",
    "parse_origin",
    "parse_status",
    "read_event",
    "reported_job_type",
    "same_job",
    "same_job_type",
]
