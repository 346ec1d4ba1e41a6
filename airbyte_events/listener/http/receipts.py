"""``POST /v1/receipts``: tasks report that they have received completions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airbyte_events._utils import json_values
from airbyte_events._utils.times import utcnow
from airbyte_events.events import JobEvent, JobRef, TaskReceipt
from airbyte_events.listener.http.params import QueryError, identity, job_list, job_ref
from airbyte_events.listener.pipeline import Pipeline, ReceivedBy

MAX_RECEIPT_SECONDS = 366 * 86400.0
"""The longest wait, and the greatest age of a receipt."""


@dataclass(frozen=True, eq=False)
class ReceiptRoutes:
    """The route for receipts.

    :param pipelines: by instance name.
    :param received: called for each receipt that is stored.
    """

    pipelines: Mapping[str, Pipeline]
    received: Callable[[JobEvent, TaskReceipt], None]

    @property
    def routes(self) -> list[Route]:
        return [Route("/receipts", self.receive, methods=["POST"])]

    async def receive(self, request: Request) -> Response:
        """Store receipts with the completed jobs that they are of; those of other jobs are ignored."""
        receipts: dict[str, list[tuple[JobRef, ReceivedBy]]] = {}
        for entry in await job_list(request, "receipts"):
            ref = job_ref(entry, "receipts", self.pipelines)
            receipts.setdefault(ref.instance, []).append((ref, _received_by(entry)))
        stored = 0
        for name, of_instance in receipts.items():
            for state, receipt in await self.pipelines[name].receive(of_instance):
                self.received(state, receipt)
                stored += 1
        return JSONResponse({"receipts": stored}, status_code=202)


def _received_by(entry: dict[str, Any]) -> ReceivedBy:
    ago, waited = (json_values.seconds(entry.get(name)) for name in ("seconds_ago", "waited_seconds"))
    if ago is None or waited is None or max(ago, waited) > MAX_RECEIPT_SECONDS:
        raise QueryError(
            f"receipts: each needs seconds_ago and waited_seconds, numbers from 0 to {MAX_RECEIPT_SECONDS:.0f}"
        )
    # By this clock: that of the task's machine may differ.
    received_at = utcnow() - timedelta(seconds=ago)
    return ReceivedBy(
        identity(entry, "receipts"),
        TaskReceipt(
            received_at=received_at,
            waiting_since=received_at - timedelta(seconds=waited),
            task_url=json_values.web_page(entry.get("task_url")),
        ),
    )
