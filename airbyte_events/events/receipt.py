"""Receipts: which tasks received a job's completion, and when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airbyte_events._utils.json_values import instant, mapping, web_page
from airbyte_events._utils.times import format_time

MAX_RECEIPTS = 10
"""The most receipts that are kept of a job: the first ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReceipt:
    """A task that received a job's completion.

    :param received_at: when it did.
    :param waiting_since: when it began to wait.
    :param task_url: the task's page; None if its Airflow does not know its own URL.
    """

    received_at: datetime
    waiting_since: datetime
    task_url: str | None = None

    def data(self) -> dict[str, Any]:
        """Return JSON values."""
        times = {"waiting_since": format_time(self.waiting_since), "received_at": format_time(self.received_at)}
        return {"task_url": self.task_url, **times}


def read_receipts(values: object) -> tuple[TaskReceipt, ...]:
    """Read receipts from their :meth:`TaskReceipt.data`; what is none is left out."""
    found = []
    for value in map(mapping, values if isinstance(values, list) else ()):
        received_at, waiting_since = instant(value.get("received_at")), instant(value.get("waiting_since"))
        if received_at is not None and waiting_since is not None:
            url = web_page(value.get("task_url"))
            found.append(TaskReceipt(received_at=received_at, waiting_since=waiting_since, task_url=url))
    return tuple(found[:MAX_RECEIPTS])


def add_receipts(known: tuple[TaskReceipt, ...], more: Iterable[TaskReceipt]) -> tuple[TaskReceipt, ...]:
    """Return the receipts with those of further tasks. A task's first receipt counts: it may be run again later."""
    earliest_last = sorted([*known, *more], key=lambda receipt: receipt.received_at, reverse=True)
    by_task = {receipt.task_url: receipt for receipt in earliest_last}
    return tuple(sorted(by_task.values(), key=lambda receipt: receipt.received_at))[:MAX_RECEIPTS]
