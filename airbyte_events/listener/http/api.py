"""The API beside the feed: watches, jobs, notifications, deliveries."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airbyte_events._utils import json_values
from airbyte_events._utils.times import format_time, utcnow
from airbyte_events.airbyte.notifications import reread
from airbyte_events.errors import AirbyteError, StoreError
from airbyte_events.events import EventFilter, JobEvent, JobRef, TaskReceipt, Usual
from airbyte_events.listener.forwarding.targets import DeliveryTarget
from airbyte_events.listener.http import params
from airbyte_events.listener.http.actions import Actions
from airbyte_events.listener.http.feed import Feed
from airbyte_events.listener.http.probes import Probe, Probes
from airbyte_events.listener.pipeline import Pipeline, ReceivedBy
from airbyte_events.listener.settings.declaration import INSTANCE_NAME
from airbyte_events.monitor.observation import PRECISION, Received, ranked
from airbyte_events.store.records import Attempt, Delivery, DeliveryState, Outcome, StoredNotification
from airbyte_events.web.sessions import Operators

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_AGE = 3600
"""Seconds, the most that a request for progress may give as the age of a response that is as good."""

MAX_PROGRESS = 100
"""The most jobs of a request for progress."""

MAX_RECEIPT_SECONDS = 366 * 86400.0
"""The longest wait, and the greatest age of a receipt."""


@dataclass(frozen=True, eq=False)
class API:
    """The routes under ``/v1``.

    :param pipelines: by instance name.
    :param targets: those of forwarding and of outgoing notifications, by instance name.
    :param usual: returns what is usual for an instance's connection and type of job; by default nothing is known.
    :param received: called for each receipt that is stored.
    """

    feed: Feed
    pipelines: Mapping[str, Pipeline]
    targets: Mapping[str, Mapping[str, DeliveryTarget]] = field(default_factory=dict)
    usual: Callable[[str, str | None, str | None], Usual | None] = lambda instance, connection_id, job_type: None
    probes: Probes = field(default_factory=Probes)
    operators: Operators = field(default_factory=Operators)
    received: Callable[[JobEvent, TaskReceipt], None] = lambda state, receipt: None

    @property
    def routes(self) -> list[Route]:
        return [
            Route("/events", self.feed.events),
            Route("/watches", self.watch, methods=["POST"]),
            Route("/jobs", self.jobs),
            Route("/jobs/{instance}/{job_id}", self.job),
            Route("/progress", self.progress),
            Route("/signals", self.signals),
            Route("/notifications", self.notifications),
            Route("/notifications/{id}/replay", self.replay, methods=["POST"]),
            Route("/probes", self.announce, methods=["POST"]),
            Route("/probes/{probe}", self.probe),
            Route("/receipts", self.receipts, methods=["POST"]),
            *Actions(self.feed.store, self.pipelines, self.operators).routes,
            Route("/deliveries", self.deliveries),
            Route("/deliveries/{id}/retry", self.retry, methods=["POST"]),
        ]

    async def watch(self, request: Request) -> Response:
        jobs = await params.job_list(request, "jobs")
        refs = {params.job_ref(job, "jobs", self.pipelines): params.identity(job, "jobs") for job in jobs}
        task_urls = _task_urls(jobs)
        # Taken before the states: what changes while they are read is in the feed behind this cursor.
        cursor = str(self.feed.bus.cursor)
        states: dict[JobRef, JobEvent | None] = {}
        failures: list[StoreError] = []

        async def watch_instance(name: str) -> None:
            watched = {ref.job_id: identity for ref, identity in refs.items() if ref.instance == name}
            try:
                found = await self.pipelines[name].watch(watched)
                await self.pipelines[name].link(found, watched, task_urls.get(name, {}))
            except StoreError as exc:
                failures.append(exc)
            except AirbyteError as exc:
                # They are watched: a poll finds their states once Airbyte responds again.
                fields = {"instance": name}
                logger.warning("could not read watched jobs: count=%d error=%s", len(watched), exc, extra=fields)
            else:
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

    async def receipts(self, request: Request) -> Response:
        """Store receipts with the completed jobs that they are of; those of other jobs are ignored."""
        reported: dict[str, list[tuple[JobRef, ReceivedBy]]] = {}
        for entry in await params.job_list(request, "receipts"):
            ref = params.job_ref(entry, "receipts", self.pipelines)
            reported.setdefault(ref.instance, []).append((ref, _received_by(entry)))
        stored = 0
        for name, of_instance in reported.items():
            for state, receipt in await self.pipelines[name].receive(of_instance):
                self.received(state, receipt)
                stored += 1
        return JSONResponse({"receipts": stored}, status_code=202)

    async def jobs(self, request: Request) -> Response:
        filters = params.event_filter(request.query_params)
        # Read before the states: these have all earlier changes.
        as_of = {
            name: format_time(await each.as_of())
            for name, each in self.pipelines.items()
            if not filters.instances or name in filters.instances
        }
        found = await self._states(request, "jobs", filters, params.FILTERS)
        return JSONResponse({**found, "as_of": as_of})

    async def job(self, request: Request) -> Response:
        instance = request.path_params["instance"]
        ref = JobRef(instance, params.path_id(request, "job_id"))
        if INSTANCE_NAME.fullmatch(instance) is None:
            raise HTTPException(404)
        pipeline = self.pipelines.get(instance)
        as_of = None if pipeline is None else format_time(await pipeline.as_of())
        if (state := (await self.feed.store.states([ref])).get(ref)) is None:
            return _refuse(404, f"job {ref} is unknown")
        history = await self.feed.store.history(ref)
        since = state.finished_at and state.finished_at - PRECISION
        announcements = (await self.feed.store.announcements({ref: since})).get(ref, [])
        best = ranked([Received.of(each, reread) for each in announcements], state)
        announcement = next((each for each in announcements if best and each.id == best[0].id), None)
        return JSONResponse(
            {
                "job": state.data(),
                "history": [self.feed.envelope(event) for event in history],
                "as_of": as_of,
                "notification": None if announcement is None else _notification(announcement),
            }
        )

    async def progress(self, request: Request) -> Response:
        """Return the progress of active jobs, requested from Airbyte within a budget."""
        query = request.query_params
        params.refuse_unknown(query, frozenset({"instance", "job_id", "streams", "max_age"}))
        name, ids = query.get("instance", ""), dict.fromkeys(params.job_ids(query))
        if name not in self.pipelines:
            raise params.QueryError(f"instance: give one of {', '.join(sorted(self.pipelines))}")
        if not 1 <= len(ids) <= MAX_PROGRESS:
            raise params.QueryError(f"job_id: give from 1 to {MAX_PROGRESS} ids, separated by commas")
        states = await self.feed.store.states([JobRef(name, job_id) for job_id in ids])
        active = {ref.job_id: state for ref, state in states.items() if not state.terminal}
        streams = params.flag(query, "streams") or False
        max_age = params.number(query, "max_age", 0, least=0, most=MAX_AGE)
        found = await self.pipelines[name].progress.read(active, streams=streams, max_age=max_age)
        values = []
        for each in found.values():
            state = active[each.job_id]
            usual = self.usual(name, state.connection_id, state.job_type)
            values.append({"instance": name, **replace(each, usual=usual).data()})
        return JSONResponse({"progress": values})

    async def signals(self, request: Request) -> Response:
        query = request.query_params
        filters = replace(params.event_filter(query), jobs=False, signals=True)
        raised = params.flag(query, "raised")
        wanted = replace(filters, terminal=None if raised is None else not raised)
        known = frozenset({"instance", "connection_id", "raised"})
        return JSONResponse(await self._states(request, "signals", wanted, known))

    async def _states(self, request: Request, name: str, wanted: EventFilter, known: frozenset[str]) -> dict[str, Any]:
        return await _list(
            request,
            name,
            lambda limit, before: self.feed.store.jobs(limit=limit, before=before, wanted=wanted),
            JobEvent.data,
            position=lambda state: state.sequence,
            size=lambda state: state.weight,
            known=known,
        )

    async def notifications(self, request: Request) -> Response:
        found = await _list(
            request,
            "notifications",
            lambda limit, before: self.feed.store.notifications(limit=limit, before=before),
            _notification,
            position=lambda stored: stored.id,
            size=lambda stored: len(stored.body),
        )
        return JSONResponse(found)

    async def replay(self, request: Request) -> Response:
        """Confirm a notification again."""
        id_ = params.path_id(request)
        if (found := await params.one_of(self.feed.store.notifications, id_)) is None:
            return _refuse(404, f"notification {id_} does not exist")
        if found.outcome in (Outcome.IGNORED, Outcome.REJECTED) or found.instance not in self.pipelines:
            return _refuse(409, f"notification {id_} reports no completed job, so there is nothing to confirm")
        await self.feed.store.settle({id_: Outcome.PENDING}, utcnow())
        return JSONResponse({"event": id_}, status_code=202)

    async def announce(self, request: Request) -> Response:
        """Announce a probe: a request to the receiver with the query ``probe=…``."""
        return JSONResponse(_probe(self.probes.announce()))

    async def probe(self, request: Request) -> Response:
        """Return whether and how a probe has arrived."""
        found = self.probes.get(request.path_params["probe"])
        return _refuse(404, "there is no such probe") if found is None else JSONResponse(_probe(found))

    async def deliveries(self, request: Request) -> Response:
        """Return the deliveries of forwarded and outgoing notifications, newest first."""
        given = request.query_params.get("state")
        if given not in (None, *DeliveryState):
            raise params.QueryError(f"state: give one of {', '.join(DeliveryState)}")
        state = None if given is None else DeliveryState(given)
        found = await _list(
            request,
            "deliveries",
            lambda limit, before: self.feed.store.deliveries(limit=limit, before=before, state=state),
            self._delivery,
            position=lambda delivery: delivery.id,
            size=lambda delivery: len(delivery.notification.body),
            known=frozenset({"state"}),
        )
        return JSONResponse(found)

    async def retry(self, request: Request) -> Response:
        id_ = params.path_id(request)
        if (found := await params.one_of(self.feed.store.deliveries, id_)) is None:
            return _refuse(404, f"delivery {id_} does not exist")
        if found.state is not DeliveryState.DEAD:
            return _refuse(409, f"delivery {id_} is {found.state.value}, not dead")
        if self._target(found) is None:
            return _refuse(409, f"the target of delivery {id_} is no longer in the settings")
        again = Attempt(delivery=id_, state=DeliveryState.DUE, due_at=utcnow(), fault=found.fault)
        await self.feed.store.attempted([again])
        return JSONResponse({"delivery": id_}, status_code=202)

    def _target(self, delivery: Delivery) -> DeliveryTarget | None:
        targets = self.targets.get(delivery.notification.instance)
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


async def _list(
    request: Request,
    name: str,
    read: Callable[[int, int | None], Awaitable[Sequence[T]]],
    item: Callable[[T], dict[str, Any]],
    *,
    position: Callable[[T], int],
    size: Callable[[T], int],
    known: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Return a page of a list.

    :param name: of the list in the response.
    :param known: what the request may have besides ``limit`` and ``before``.
    """
    query = request.query_params
    params.refuse_unknown(query, known | {"limit", "before"})
    limit = params.number(query, "limit", 100, least=1, most=1000)
    before = params.number(query, "before", 0, least=0, most=2**53) if "before" in query else None
    found, following = await params.page(read, limit, before, position, size)
    return {name: list(map(item, found)), "next": None if following is None else str(following)}


def _task_urls(jobs: list[dict[str, Any]]) -> dict[str, dict[int, str]]:
    """Return the pages of waiting tasks by instance and job. What is no web page's URL is ignored."""
    urls: dict[str, dict[int, str]] = {}
    for job in jobs:
        if (url := json_values.web_page(job.get("task_url"))) is not None:
            urls.setdefault(job["instance"], {})[job["job_id"]] = url
    return urls


def _received_by(entry: dict[str, Any]) -> ReceivedBy:
    ago, waited = (json_values.seconds(entry.get(name)) for name in ("seconds_ago", "waited_seconds"))
    if ago is None or waited is None or max(ago, waited) > MAX_RECEIPT_SECONDS:
        raise params.QueryError(
            f"receipts: each needs seconds_ago and waited_seconds, numbers from 0 to {MAX_RECEIPT_SECONDS:.0f}"
        )
    # By this clock: that of the task's machine may differ.
    received_at = utcnow() - timedelta(seconds=ago)
    return ReceivedBy(
        params.identity(entry, "receipts"),
        TaskReceipt(
            received_at=received_at,
            waiting_since=received_at - timedelta(seconds=waited),
            task_url=json_values.web_page(entry.get("task_url")),
        ),
    )


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


def _probe(probe: Probe) -> dict[str, Any]:
    return {
        "probe": probe.id,
        "result": None if probe.result is None else probe.result.value,
        "bytes": probe.bytes,
        "notification": probe.notification,
    }


def _refuse(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status_code=status)
