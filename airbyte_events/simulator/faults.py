"""Injected faults: of webhooks, and of requests to the public API."""

# No postponed annotations here: the control API checks its JSON against this dataclass when it runs.
import math
import random
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from airbyte_events.simulator.responses import PROBLEMS

WEBHOOK_FAULTS = {
    "lost": "the webhook is not sent",
    "late": "it is sent `delay` seconds later",
    "doubled": "it is sent twice",
    "reordered": "it is sent after the response to the next webhook, or after `delay` seconds",
}
API_FAULTS = {
    "status": "the response is `status`: 429, 401, 409, 500 …, in a problem document titled `problem`",
    "html": "the response is a web page, with 200 or `status`",
    "empty": "the response is an empty body, with 200 or `status`",
    "truncated": "the response is cut half-way",
    "reset": "the connection is reset instead of a response",
    "slow": "the call takes `delay` seconds longer",
    "broken-list": "GET /jobs responds with 500: to every call, or only to those that use `parameter`",
}
_NEEDS = {"late": "delay", "slow": "delay", "status": "status"}
_TAKES = {
    "late": {"delay"},
    "reordered": {"delay"},
    "slow": {"delay"},
    "status": {"status", "problem", "after"},
    "html": {"status", "after"},
    "empty": {"status", "after"},
    "reset": {"after"},
    "broken-list": {"parameter"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault.

    :param kind: one of :data:`WEBHOOK_FAULTS` or :data:`API_FAULTS`.
    :param count: how often it happens; None: until it is cleared.
    :param probability: that it happens to a matching call or webhook, above 0 and at most 1.
    :param route: what it applies to. Calls: a route such as ``GET /jobs/{id}``, a method or a path, also that of one
        job such as ``/jobs/17``; webhooks: a kind of notification such as ``failure``. None: all.
    :param delay: seconds, for ``late``, ``slow`` and (default 5) ``reordered``.
    :param status: the HTTP status of ``status`` (required), ``html`` and ``empty``.
    :param problem: the title of a ``status`` fault's problem document, such as ``state-conflict`` for a 409, which is
        ``try-again-later`` by default.
    :param after: inject it after the call was carried out: a job is created, but its caller gets no response.
    :param parameter: ``orderBy``, ``status``, …: the query parameter at which a ``broken-list`` fails.
    :raises ValueError: if the values contradict each other.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    kind: str
    count: int | None = None
    probability: float = 1.0
    route: str | None = None
    delay: float | None = None
    status: int | None = None
    problem: str | None = None
    after: bool = False
    parameter: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in WEBHOOK_FAULTS and self.kind not in API_FAULTS:
            raise ValueError(f"no fault is called {self.kind[:40]!r}: {', '.join((*WEBHOOK_FAULTS, *API_FAULTS))}")
        if self.count is not None and self.count < 1:
            raise ValueError("count is 1 or more, or null: until the fault is cleared")
        if not 0 < self.probability <= 1:
            raise ValueError("probability is above 0 and at most 1")
        if self.delay is not None and not 0 <= self.delay < math.inf:
            raise ValueError("delay is a number of seconds, 0 or more")
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError("status is an HTTP status from 200 to 599")
        needed = _NEEDS.get(self.kind)
        if needed and getattr(self, needed) is None:
            raise ValueError(f"a {self.kind!r} fault needs {needed}")
        taken = _TAKES.get(self.kind, set())
        if self.problem is not None and self.problem not in PROBLEMS:
            raise ValueError(f"no problem is called {self.problem[:40]!r}: {', '.join(PROBLEMS)}")
        for name in ("delay", "status", "problem", "after", "parameter"):
            if getattr(self, name) not in (None, False) and name not in taken:
                raise ValueError(f"a {self.kind!r} fault takes no {name}")

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """Read ``kind`` or ``kind:name=value,name=value``.

        :raises ValueError: if the text is not a fault.
        """
        kind, _, rest = text.partition(":")
        values: dict[str, Any] = {"kind": kind.strip()}
        for item in filter(None, (part.strip() for part in rest.split(","))):
            name, equals, value = item.partition("=")
            if not equals or name not in {field.name for field in fields(cls)} - {"kind"}:
                known = "count=, probability=, route=, delay=, status=, problem=, after=, parameter="
                raise ValueError(f"{item!r} is not one of {known}")
            try:
                if name in ("count", "status"):
                    values[name] = int(value)
                elif name in ("probability", "delay"):
                    values[name] = float(value)
                else:
                    values[name] = value.lower() == "true" if name == "after" else value
            except ValueError:
                raise ValueError(f"{name} is a number, not {value!r}") from None
        return cls(**values)

    def applies(self, route: str, path: str | None = None) -> bool:
        """:param path: of a call, with the ids in it."""
        return self.route in (None, route, path) or self.route in route.split(" ")


@dataclass(slots=True, kw_only=True, eq=False)
class ArmedFault:
    """An active fault. ``struck`` counts how often it happened."""

    id: int
    fault: Fault
    struck: int = 0

    @property
    def spent(self) -> bool:
        return self.fault.count is not None and self.struck >= self.fault.count

    def data(self) -> dict[str, Any]:
        return {"id": self.id, **asdict(self.fault), "struck": self.struck}


class Faults:
    """The active faults."""

    def __init__(self) -> None:
        self._random = random.Random()  # noqa: S311 -- to break things, not to protect them
        self._armed: dict[int, ArmedFault] = {}
        self._last_id = 0

    def add(self, fault: Fault) -> ArmedFault:
        self._last_id += 1
        self._armed[self._last_id] = ArmedFault(id=self._last_id, fault=fault)
        return self._armed[self._last_id]

    def clear(self, id: int | None = None) -> int:
        """Remove one fault, or all.

        :return: the number of faults removed.
        """
        cleared = [id] if id in self._armed else [] if id is not None else list(self._armed)
        for number in cleared:
            del self._armed[number]
        return len(cleared)

    def armed(self) -> list[ArmedFault]:
        return list(self._armed.values())

    def strike(
        self, kinds: dict[str, str], route: str, parameters: frozenset[str] = frozenset(), path: str | None = None
    ) -> list[ArmedFault]:
        """Return the faults of these kinds that happen now: at most one that replaces the response, and slow ones."""
        struck: list[ArmedFault] = []
        for armed in self._armed.values():
            fault = armed.fault
            if fault.kind not in kinds or armed.spent or not fault.applies(route, path):
                continue
            if fault.kind == "broken-list" and (
                route != "GET /jobs" or (fault.parameter is not None and fault.parameter not in parameters)
            ):
                continue
            if fault.kind != "slow" and any(other.fault.kind != "slow" for other in struck):
                continue
            if fault.probability < 1 and self._random.random() >= fault.probability:
                continue
            armed.struck += 1
            struck.append(armed)
        return struck
