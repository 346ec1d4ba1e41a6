"""Scripts and faults as values."""

from __future__ import annotations

from typing import Any

import pytest

from airbyte_events.simulator import Fault, Phase, Script, Simulator
from airbyte_events.simulator.scripts import DEFAULT_ERROR


class TestScripts:
    def test_lasting(self) -> None:
        script = Script.lasting(60)
        assert [(phase.status, phase.seconds) for phase in script.phases] == [("pending", 0.2), ("running", 59.8)]
        assert sum(phase.seconds for phase in Script.lasting(0.5).phases) == pytest.approx(0.5)

    def test_hanging(self) -> None:
        assert (Script.hanging("queued").phases[0].status, Script.hanging().end) == ("queued", None)

    def test_progress_grows_and_comes_to_its_end_with_the_script(self) -> None:
        script = Script.lasting(4)
        assert [script.progress(seconds) for seconds in (0, 1, 4, 9)] == [0, 0.25, 1, 1]
        assert Script.lasting(0).progress(0) == 1
        hanging = [Script.hanging().progress(seconds) for seconds in (0, 1, 10, 1e6)]
        assert hanging == sorted(hanging)
        assert (hanging[0], hanging[2], hanging[3] < 1) == (0, 0.5, True)

    def test_a_stalled_phase_moves_nothing(self) -> None:
        phases = [Phase(status="running", seconds=2, stalled=stalled) for stalled in (False, True, False)]
        assert [Script(phases=tuple(phases)).progress(seconds) for seconds in (1, 2, 4, 5, 9)] == [
            0.25,
            0.5,
            0.5,
            0.75,
            1,
        ]
        endless = Script(phases=tuple(phases[:2]), end=None)
        assert endless.progress(2) == endless.progress(1e6)
        assert Script(phases=(phases[1],)).progress(9) == 0

    @pytest.mark.parametrize(
        ("values", "says"),
        [
            ({"status": "succeeded", "seconds": 1}, "ends a job"),
            ({"status": "Running", "seconds": 1}, "lower-case word"),
            ({"status": "running", "seconds": -1}, "0 seconds or longer"),
            ({"status": "running", "seconds": float("inf")}, "0 seconds or longer"),
            ({"status": "running", "seconds": 1, "error": DEFAULT_ERROR}, "only an 'incomplete' phase"),
        ],
    )
    def test_wrong_phases(self, values: dict[str, Any], says: str) -> None:
        with pytest.raises(ValueError, match=says):
            Phase(**values)

    @pytest.mark.parametrize(
        ("values", "says"),
        [
            ({"phases": ()}, "at least one phase"),
            ({"end": "running"}, "ends in one of"),
            ({"records": -1}, "0 or more"),
            ({"cancelled_by": "nobody"}, "by user or airbyte"),
        ],
    )
    def test_wrong_scripts(self, values: dict[str, Any], says: str) -> None:
        with pytest.raises(ValueError, match=says):
            Script(**values)


class TestFaults:
    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("lost", Fault(kind="lost")),
            ("late:delay=1.5", Fault(kind="late", delay=1.5)),
            (
                "status:status=429, count=5,route=GET /jobs",
                Fault(kind="status", status=429, count=5, route="GET /jobs"),
            ),
            ("reset:probability=0.1,after=true", Fault(kind="reset", probability=0.1, after=True)),
            ("broken-list:parameter=orderBy", Fault(kind="broken-list", parameter="orderBy")),
            ("status:status=409,problem=state-conflict", Fault(kind="status", status=409, problem="state-conflict")),
        ],
    )
    def test_from_text(self, text: str, fault: Fault) -> None:
        assert Fault.parse(text) == fault

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("gone", "no fault is called 'gone'"),
            ("late", "needs delay"),
            ("status", "needs status"),
            ("lost:delay=1", "takes no delay"),
            ("lost:often=1", "'often=1' is not one of"),
            ("lost:count", "'count' is not one of"),
            ("lost:count=x", "count is a number"),
            ("lost:count=0", "count is 1 or more"),
            ("lost:probability=0", "probability is above 0"),
            ("status:status=99", "HTTP status"),
            ("status:status=409,problem=busy", "no problem is called 'busy'"),
            ("html:problem=forbidden", "takes no problem"),
            ("slow:delay=-1", "0 or more"),
        ],
    )
    def test_from_wrong_text(self, text: str, says: str) -> None:
        with pytest.raises(ValueError, match=says):
            Fault.parse(text)

    def test_apply_by_route_method_or_path(self) -> None:
        route = "GET /jobs/{id}"
        applies = [
            Fault(kind="html", route=name).applies(route) for name in (None, route, "GET", "/jobs/{id}", "/jobs")
        ]
        assert applies == [True, True, True, True, False]


@pytest.mark.parametrize(
    "options",
    [
        {"client_id": "me"},
        {"token_lifetime": 0},
        {"latency": -1},
        {"max_calls": 0},
        {"release": "1"},
        {"release": "1.5-rc"},
        {"faults": [Fault(kind="lost", route="GET /jobs")]},
    ],
)
def test_wrong_simulators(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"together|above 0|no route|like 1.5"):
        Simulator(**options)
