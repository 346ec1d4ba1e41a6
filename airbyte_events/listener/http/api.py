"""The listener's API beside the feed: watches, job states, the inbox."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airbyte_events._utils import json_values
from airbyte_events._utils.times import format_time, parse_time, utcnow
from airbyte_events.airbyte.notifications import reread
from airbyte_events.errors import AirbyteError, StoreError
from airbyte_events.events import Identity, JobEvent, JobRef
from airbyte_events.listener.forwarding.targets import Target, Targets
from airbyte_events.listener.http.feed import Feed
from airbyte_events.listener.http.params import (
    FILTERS,
    QueryError,
    event_filter,
    page,
    refuse_others,
    whole_id,
    whole_number,
)
from airbyte_events.listener.pipeline import Pipeline
from airbyte_events.listener.settings.declaration import INSTANCE_NAME
from airbyte_events.monitor.observation import PRECISION, Received, ranked
from airbyte_events.store.records import Attempt, Delivery, DeliveryState, Outcome, StoredNotification

logger = logging.getLogger(__name__)

MAX_WATCHES = 1_000
MAX_BODY = 256 * 1024


class API:
    """The routes under ``/v1``.

    :param feed: the event feed, which knows bus and store.
    :param pipelines: by instance name.
    :param targets: by instance name, where notifications are forwarded to.
    """

    def __init__(
        self, feed: Feed, pipelines: Mapping[str, Pipeline], targets: Mapping[str, Targets] | None = None
    ) -> None:
        self._feed = feed
        self._store = feed.store
        self._pipelines = pipelines
        self._targets = targets or {}

    @property
    def routes(self) -> list[Route]:
        return [
            Route("/events", self._feed.events),
            Route("/watches", self.watch, methods=["POST"]),
            Route("/jobs", self.jobs),
            Route("/jobs/{instance}/{job_id}", self.job),
            Route("/notifications", self.notifications),
            Route("/notifications/{id}/replay", self.replay, methods=["POST"]),
            Route("/deliveries", self.deliveries),
            Route("/deliveries/{id}/retry", self.retry, methods=["POST"]),
        ]

    async def watch(self, request: Request) -> Response:
        """Watch jobs, and tell their states: last state, then live."""
        try:
            refs = self._refs(await _json(request))
        except QueryError as exc:
            return _refuse(400, str(exc))
        # Before the states: what happens while they are read is on the feed behind this cursor.
        cursor = str(self._feed.bus.cursor)
        states: dict[JobRef, JobEvent | None] = {}
        failures: list[StoreError] = []

        async def watch_instance(name: str) -> None:
            jobs = {ref.job_id: identity for ref, identity in refs.items() if ref.instance == name}
            try:
                found = await self._pipelines[name].watch(jobs)
            except StoreError as exc:
                failures.append(exc)
                return
            except AirbyteError as exc:
                # They are watched: polling finds them when Airbyte is back.
                about = {"instance": name}
                logger.warning(
                    "%d jobs of %s are watched, their states not known yet: %s", len(jobs), name, exc, extra=about
                )
                return
            states.update({JobRef(name, job_id): state for job_id, state in found.items()})

        async with anyio.create_task_group() as tasks:
            for name in {ref.instance for ref in refs}:
                tasks.start_soon(watch_instance, name)
        if failures:
            raise failures[0]
        return JSONResponse(
            {
                "jobs": [state.data() for state in states.values() if state is not None],
                "unknown": [{"instance": ref.instance, "job_id": ref.job_id} for ref, s in states.items() if s is None],
                "cursor": cursor,
            }
        )

    def _refs(self, body: dict[str, Any]) -> dict[JobRef, Identity]:
        jobs = body.get("jobs")
        if not isinstance(jobs, list):
            raise QueryError('give {"jobs": [{"instance": "default", "job_id": 17}]}')
        if len(jobs) > MAX_WATCHES:
            raise QueryError(f"jobs: at most {MAX_WATCHES} a call, not {len(jobs)}")
        refs: dict[JobRef, Identity] = {}
        for job in jobs:
            instance, job_id = (job.get("instance"), job.get("job_id")) if isinstance(job, dict) else (None, None)
            if type(job_id) is not int or not 0 < job_id < 2**63:
                raise QueryError("jobs: each has a job_id, a whole number above 0")
            if not isinstance(instance, str) or instance not in self._pipelines:
                raise QueryError(f"jobs: the instances here are {', '.join(sorted(self._pipelines))}")
            refs[JobRef(instance, job_id)] = _identity(job)
        return refs

    async def jobs(self, request: Request) -> Response:
        """Latest states, newest first."""
        try:
            refuse_others(request.query_params, FILTERS | {"limit", "before"})
            wanted = event_filter(request.query_params)
            limit = whole_number(request.query_params, "limit", 100, least=1, most=1000)
            before = _before(request)
        except QueryError as exc:
            return _refuse(400, str(exc))
        states, following = await page(
            lambda step, place: self._store.jobs(limit=step, before=place, wanted=wanted),
            limit,
            before,
            lambda state: 0 if state.cursor is None else state.cursor.sequence,
            lambda state: state.weight,
        )
        return JSONResponse({"jobs": [state.data() for state in states], "next": _next(following)})

    async def job(self, request: Request) -> Response:
        """One job with its history."""
        instance = request.path_params["instance"]
        try:
            ref = JobRef(instance, whole_id(request.path_params["job_id"]))
        except ValueError:
            raise HTTPException(404) from None
        if INSTANCE_NAME.fullmatch(instance) is None:
            raise HTTPException(404)
        if (state := (await self._store.states([ref])).get(ref)) is None:
            return _refuse(404, f"nothing is known of job {ref}")
        history = await self._store.history(ref)
        since = state.finished_at and state.finished_at - PRECISION
        announcements = (await self._store.announcements({ref: since})).get(ref, [])
        best = ranked([Received.of(each, reread) for each in announcements], state)
        announcement = next((each for each in announcements if best and each.id == best[0].id), None)
        return JSONResponse(
            {
                "job": state.data(),
                "history": [self._feed.envelope(event) for event in history],
                "notification": None if announcement is None else _notification(announcement),
            }
        )

    async def notifications(self, request: Request) -> Response:
        """The inbox, newest first."""
        try:
            refuse_others(request.query_params, frozenset({"limit", "before"}))
            limit = whole_number(request.query_params, "limit", 100, least=1, most=1000)
            before = _before(request)
        except QueryError as exc:
            return _refuse(400, str(exc))
        found, following = await page(
            lambda step, place: self._store.notifications(limit=step, before=place),
            limit,
            before,
            lambda stored: stored.id,
            lambda stored: len(stored.body),
        )
        return JSONResponse({"notifications": [_notification(stored) for stored in found], "next": _next(following)})

    async def replay(self, request: Request) -> Response:
        """Confirm a notification again."""
        try:
            id_ = whole_id(request.path_params["id"])
        except ValueError:
            raise HTTPException(404) from None
        before = min(id_ + 1, 2**63 - 1)
        found = [stored for stored in await self._store.notifications(limit=1, before=before) if stored.id == id_]
        if not found:
            return _refuse(404, f"there is no notification {id_}")
        if found[0].outcome in (Outcome.IGNORED, Outcome.REJECTED) or found[0].instance not in self._pipelines:
            return _refuse(409, "this notification tells of no job's end: there is nothing to confirm")
        await self._store.settle({id_: Outcome.PENDING}, utcnow())
        return JSONResponse({"event": id_}, status_code=202)

    async def deliveries(self, request: Request) -> Response:
        """What was, is to be or could not be forwarded, newest first: ``{"deliveries": […], "next": id or null}``.

        Query: ``state`` (``due``, ``delivered`` or ``dead``), ``limit``, ``before``. Each has ``id``, ``notification``
        (as in the inbox), ``target`` (its ``name``, and its ``url`` without the path, null for one that is not in the
        settings), ``state``, ``attempts``, ``due_at`` and ``fault`` (or null). 400 for a wrong parameter.
        """
        try:
            refuse_others(request.query_params, frozenset({"state", "limit", "before"}))
            state = _delivery_state(request)
            limit = whole_number(request.query_params, "limit", 100, least=1, most=1000)
            before = _before(request)
        except QueryError as exc:
            return _refuse(400, str(exc))
        found, following = await page(
            lambda step, place: self._store.deliveries(limit=step, before=place, state=state),
            limit,
            before,
            lambda delivery: delivery.id,
            lambda delivery: len(delivery.notification.body),
        )
        return JSONResponse({"deliveries": [self._delivery(each) for each in found], "next": _next(following)})

    async def retry(self, request: Request) -> Response:
        """Send a dead delivery again: 202 and ``{"delivery": id}``.

        404 for one that is not there, 409 for one that is not dead or whose target is not in the settings.
        """
        try:
            id_ = whole_id(request.path_params["id"])
        except ValueError:
            raise HTTPException(404) from None
        before = min(id_ + 1, 2**63 - 1)
        found = [each for each in await self._store.deliveries(limit=1, before=before) if each.id == id_]
        if not found:
            return _refuse(404, f"there is no delivery {id_}")
        if found[0].state is not DeliveryState.DEAD:
            return _refuse(409, f"this delivery is {found[0].state.value}, not dead")
        if self._target(found[0]) is None:
            return _refuse(409, "the target of this delivery is not in the settings any more")
        again = Attempt(delivery=id_, state=DeliveryState.DUE, due_at=utcnow(), fault=found[0].fault)
        await self._store.attempted([again])
        return JSONResponse({"delivery": id_}, status_code=202)

    def _target(self, delivery: Delivery) -> Target | None:
        targets = self._targets.get(delivery.notification.instance)
        return None if targets is None else targets.get(delivery.target)

    def _delivery(self, delivery: Delivery) -> dict[str, Any]:
        target = self._target(delivery)
        return {
            "id": delivery.id,
            "notification": _notification(delivery.notification),
            "target": {"name": delivery.target, "url": None if target is None else target.shown},
            "state": delivery.state.value,
            "attempts": delivery.attempts,
            "due_at": format_time(delivery.due_at),
            "fault": delivery.fault,
        }


def _identity(job: dict[str, Any]) -> Identity:
    try:
        return Identity(json_values.text(job.get("connection_id")), parse_time(job.get("started_at")))
    except ValueError:
        raise QueryError("jobs: connection_id is text, and started_at an RFC 3339 time, where they are given") from None


def _delivery_state(request: Request) -> DeliveryState | None:
    text = request.query_params.get("state")
    try:
        return None if text is None else DeliveryState(text)
    except ValueError:
        raise QueryError(f"state: give one of {', '.join(state.value for state in DeliveryState)}") from None


def _notification(stored: StoredNotification) -> dict[str, Any]:
    return {
        "id": stored.id,
        "instance": stored.instance,
        "received_at": format_time(stored.received_at),
        "kind": stored.kind,
        "job_id": stored.job_id,
        "outcome": stored.outcome.value,
        "settled_at": format_time(stored.settled_at),
    }


def _next(place: int | None) -> str | None:
    return None if place is None else str(place)


def _before(request: Request) -> int | None:
    if "before" not in request.query_params:
        return None
    return whole_number(request.query_params, "before", 0, least=0, most=2**53)


async def _json(request: Request) -> dict[str, Any]:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise QueryError(f"the body has at most {MAX_BODY} bytes")
    try:
        return json_values.parse_object(bytes(body))
    except ValueError as exc:
        raise QueryError(f"the body {exc}") from None


def _refuse(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status_code=status)
