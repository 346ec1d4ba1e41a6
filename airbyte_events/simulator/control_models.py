"""The request bodies of the control API, and a sentence for each invalid one."""

# No postponed annotations here: pydantic checks JSON against these dataclasses when it runs.
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, TypeVar
from uuid import UUID

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from airbyte_events.airbyte.notification_kinds import SETTINGS
from airbyte_events.errors import AirbyteEventsError
from airbyte_events.events import JobError
from airbyte_events.simulator.notification_bodies import SAMPLES
from airbyte_events.simulator.scripts import Script

JobType = Literal["sync", "reset", "clear", "refresh"]
MAX_COUNT = 100_000

T = TypeVar("T")


def _setting(kind: str) -> str:
    if kind not in SETTINGS:
        raise ValueError(f"no notification setting is called {kind[:40]!r}: {', '.join(SETTINGS)}")
    return kind


class InvalidRequest(AirbyteEventsError):
    """An invalid request to the control API.

    :param status: the HTTP status of the response: 400, 404 or 422.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scripted:
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    script: Script | None = None
    duration: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    def __post_init__(self) -> None:
        if self.script is not None and self.duration is not None:
            raise ValueError("give a script or a duration, not both")

    def chosen_script(self) -> Script | None:
        """Return the script that was given in full, or by its duration in seconds, if any."""
        return Script.lasting(self.duration) if self.duration is not None else self.script


@dataclass(frozen=True, slots=True, kw_only=True)
class NewConnections(_Scripted):
    """``POST /_simulator/connections``. ``start``: start a job of each at once."""

    count: Annotated[int, Field(ge=1, le=MAX_COUNT)] = 1
    connection_id: UUID | None = None
    name: str | None = None
    workspace_id: UUID | None = None
    active: bool = True
    start: bool = False
    job_type: JobType = "sync"

    def __post_init__(self) -> None:
        _Scripted.__post_init__(self)
        if self.connection_id is not None and self.count > 1:
            raise ValueError("a connection_id is of one connection: leave it out, or the count")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionChange(_Scripted):
    """``PATCH /_simulator/connections/{id}``."""

    active: bool | None = None
    name: str | None = None
    next_scripts: tuple[Script, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWorkspace:
    """``POST /_simulator/workspaces``."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    workspace_id: UUID | None = None
    name: str = "Simulated workspace"
    webhook_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookTarget:
    """``PUT /_simulator/webhooks``. Without kinds: all; without a workspace: all; url null: none."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    url: str | None
    kinds: Annotated[tuple[Annotated[str, AfterValidator(_setting)], ...], Field(min_length=1)] | None = None
    workspace_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJobs(_Scripted):
    """``POST /_simulator/jobs``: one job for each connection, as a schedule would start them."""

    connection_id: UUID | None = None
    connection_ids: tuple[UUID, ...] = ()
    job_type: JobType = "sync"
    created_at: datetime | None = None

    def __post_init__(self) -> None:
        _Scripted.__post_init__(self)
        if (self.connection_id is None) == (not self.connection_ids):
            raise ValueError("give either a connection_id or connection_ids")
        if self.created_at is not None and self.created_at.tzinfo is None:
            raise ValueError("created_at is a time with an offset, for example 2024-01-01T00:00:00Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnd:
    """``POST /_simulator/jobs/{id}/end``. Omitted values are taken from the job's script.

    :param cancelled_by: who cancelled the job: a user, or Airbyte itself.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    status: Literal["succeeded", "failed", "cancelled"] = "succeeded"
    error: JobError | None = None
    records: Annotated[int, Field(ge=0)] | None = None
    bytes: Annotated[int, Field(ge=0)] | None = None
    cancelled_by: Literal["user", "airbyte"] | None = None

    def __post_init__(self) -> None:
        if self.error is not None and self.status != "failed":
            raise ValueError(f"only a failed job has an error, not one that has {self.status}")
        if self.cancelled_by is not None and self.status != "cancelled":
            raise ValueError(f"cancelled_by is of a cancelled job, not of one that has {self.status}")

    def values(self) -> dict[str, Any]:
        """Return the values of the job's end, for :meth:`~airbyte_events.simulator.world.World.end_job`."""
        return {name: getattr(self, name) for name in ("error", "records", "bytes", "cancelled_by")}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsEnd(JobEnd):
    """``POST /_simulator/jobs/end``."""

    job_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewNotification:
    """``POST /_simulator/notifications``: send a notification now, true or not.

    :param kind: a name of :data:`SAMPLES`, or ``raw`` for the given ``body`` (JSON) or ``text``.
    :param url: instead of the workspace's.
    :param tag: before the headline, for a job's samples.
    :param wait: respond when the receiver has responded.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    kind: str
    job_id: int | None = None
    connection_id: UUID | None = None
    url: str | None = None
    tag: str | None = None
    body: dict[str, Any] | None = None
    text: str | None = None
    wait: bool = True

    def __post_init__(self) -> None:
        sample = SAMPLES.get(self.kind)
        if sample is None and self.kind != "raw":
            raise ValueError(f"no notification is called {self.kind[:40]!r}: {', '.join(SAMPLES)}, raw")
        if sample is not None and sample.about is not None and getattr(self, f"{sample.about}_id") is None:
            raise ValueError(f"a {self.kind!r} notification needs a {sample.about}_id")
        if (sample is None) != ((self.body is None) != (self.text is None)):
            raise ValueError("a 'raw' notification, and no other, needs either a body or a text")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def parse(kind: type[T], body: bytes) -> T:
    """Read a request body. An empty body is an empty object.

    :raises InvalidRequest: with the faults in one sentence.
    """
    try:
        value: T = _adapter(kind).validate_json(body or b"{}")  # type: ignore[arg-type]
        return value
    except ValidationError as exc:
        faults = exc.errors(include_url=False, include_context=False)
    if faults[0]["type"] in ("json_invalid", "dataclass_type"):
        raise InvalidRequest(400, "the body is a JSON object")
    sentences = []
    for fault in faults:
        where = ".".join(str(part) for part in fault["loc"])
        what = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "unexpected_keyword_argument":
            known = f"; there are {', '.join(field.name for field in fields(kind))}" if len(fault["loc"]) == 1 else ""  # type: ignore[arg-type]
            what = f"there is no such field{known}"
        sentences.append(f"{where}: {what}" if where else what)
    raise InvalidRequest(422, "; ".join(sentences))
