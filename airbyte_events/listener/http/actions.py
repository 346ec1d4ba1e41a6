"""What changes jobs or shows raw webhooks: for the operator tokens of the settings only, and logged."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airbyte_events.airbyte.submission import How, submit
from airbyte_events.errors import AirbyteError
from airbyte_events.events import Identity, JobEvent, JobRef
from airbyte_events.listener.http.masking import shown_body
from airbyte_events.listener.http.params import one_of, path_id
from airbyte_events.listener.pipeline import Pipeline
from airbyte_events.store.base import EventStore
from airbyte_events.web.sessions import Operators

logger = logging.getLogger(__name__)

PATIENCE = 60.0
"""Seconds for which to search for a job whose creation got no response."""


@dataclass(frozen=True, eq=False)
class Actions:
    """The routes under ``/v1`` that need an operator token."""

    store: EventStore
    pipelines: Mapping[str, Pipeline]
    operators: Operators = field(default_factory=Operators)

    @property
    def routes(self) -> list[Route]:
        return [
            Route("/jobs/{instance}/{job_id}/retry", self.retry, methods=["POST"]),
            Route("/jobs/{instance}/{job_id}/cancel", self.cancel, methods=["POST"]),
            Route("/notifications/{id}/body", self.body),
        ]

    async def retry(self, request: Request) -> Response:
        """Start a sync of a completed job's connection, or return the active one."""
        state, pipeline = await self._job(request)
        if state.connection_id is None:
            raise HTTPException(409, f"the connection of job {state.ref} is not known")
        try:
            submission = await submit(pipeline.airbyte, state.connection_id, until=time.time() + PATIENCE)
        except AirbyteError as exc:
            return self._failed(request, "retry", state, exc)
        job, how = submission.job, submission.how
        self._log(request, "retry", state, f"job_started={state.ref.instance}/{job.job_id} how={how.value!r}")
        if how is How.BLOCKED:
            active = f"job {state.ref.instance}/{job.job_id}, a {job.job_type}, is active: nothing was started"
            return JSONResponse({"error": active}, 409)
        await self._watch(pipeline, job.job_id, Identity(state.connection_id, job.started_at))
        return JSONResponse({"instance": state.ref.instance, "job_id": job.job_id, "how": how.value}, 202)

    async def cancel(self, request: Request) -> Response:
        """Cancel an active job. Its state follows when the API reports it."""
        state, pipeline = await self._job(request)
        if state.terminal:
            raise HTTPException(409, f"job {state.ref} has completed: {state.status.value}")
        identity = Identity(state.connection_id, state.started_at)
        try:
            job = await pipeline.airbyte.cancel_job(state.ref.job_id, identity)
        except AirbyteError as exc:
            return self._failed(request, "cancel", state, exc)
        self._log(request, "cancel", state, f"status={job.status.value}")
        await self._watch(pipeline, state.ref.job_id, identity)
        return JSONResponse({"instance": state.ref.instance, "job_id": state.ref.job_id, "how": "cancelled"}, 202)

    async def body(self, request: Request) -> Response:
        """Return a notification's body without secrets."""
        self._authorize(request)
        id_ = path_id(request)
        if (found := await one_of(self.store.notifications, id_)) is None:
            raise HTTPException(404)
        text, truncated = shown_body(found.body)
        return JSONResponse({"id": id_, "body": text, "truncated": truncated})

    def _authorize(self, request: Request) -> None:
        if not self.operators.authorizes(request.scope):
            raise HTTPException(403, "this needs one of the listener's operator tokens (setting OPERATOR_TOKENS)")

    async def _job(self, request: Request) -> tuple[JobEvent, Pipeline]:
        self._authorize(request)
        ref = JobRef(request.path_params["instance"], path_id(request, "job_id"))
        if (pipeline := self.pipelines.get(ref.instance)) is None:
            raise HTTPException(404)
        if (state := (await self.store.states([ref])).get(ref)) is None:
            raise HTTPException(404)
        return state, pipeline

    async def _watch(self, pipeline: Pipeline, job_id: int, identity: Identity) -> None:
        try:
            await pipeline.watch({job_id: identity})
        except AirbyteError as exc:
            # It is watched: a poll finds its state once Airbyte responds again.
            logger.warning("could not read the job of an action: job=%s/%d error=%s", pipeline.instance, job_id, exc)

    def _failed(self, request: Request, action: str, state: JobEvent, exc: AirbyteError) -> Response:
        self._log(request, action, state, f"error={exc}")
        return JSONResponse({"error": str(exc)}, 502)

    def _log(self, request: Request, action: str, state: JobEvent, result: str) -> None:
        logger.info(
            "operator action: action=%s job=%s connection=%s %s %s",
            action,
            state.ref,
            state.connection_id,
            result,
            self.operators.describe(request.scope),
            extra={"instance": state.ref.instance, "job_id": state.ref.job_id},
        )
