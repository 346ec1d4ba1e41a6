"""How log lines are written."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from airbyte_events.events import Cursor
from airbyte_events.logs import ConsoleLines, JSONLines

FIELDS = {"instance": "default", "job_id": 7, "cursor": Cursor("5f3a9c1e", 42), "connection_id": None}


def record(message: str, *args: object, raised: bool = False, **fields: object) -> logging.LogRecord:
    info = None
    if raised:
        try:
            raise ValueError("so\nit is")
        except ValueError:
            info = sys.exc_info()
    made = logging.getLogger("here").makeRecord("here", logging.WARNING, "f", 1, message, args, info, extra=fields)
    made.created = 1_700_000_000.25
    return made


class TestJSON:
    def test_an_object_a_line(self) -> None:
        line = JSONLines().format(record("%s “%s”\nand more", "job", "ä", **FIELDS))
        assert "\n" not in line
        assert json.loads(line) == {
            "time": "2023-11-14T22:13:20.250Z",
            "level": "warning",
            "logger": "here",
            "message": "job “ä”\nand more",
            "instance": "default",
            "job_id": 7,
            "cursor": "5f3a9c1e-42",
        }

    def test_what_was_raised(self) -> None:
        line = JSONLines().format(record("oh", raised=True))
        assert "\n" not in line
        assert json.loads(line)["exception"].endswith("ValueError: so\nit is")

    def test_a_field_takes_no_place_of_the_line_s_own(self) -> None:
        assert json.loads(JSONLines().format(record("oh", level="none", logger="none")))["level"] == "warning"

    @pytest.mark.parametrize("value", [object(), {1, 2}, b"x", float("inf"), "\udc80"])
    def test_any_value_can_be_written(self, value: object) -> None:
        JSONLines().format(record("oh", thing=value)).encode("utf-8", "backslashreplace")


class TestConsole:
    def test_fields_come_last(self) -> None:
        line = ConsoleLines().format(record("job %d", 7, **FIELDS))
        assert line.endswith(" WARNING here: job 7 instance=default job_id=7 cursor=5f3a9c1e-42")

    def test_what_others_wrote_makes_no_line_and_no_colour_of_its_own(self) -> None:
        written = "c\r\n2026-01-01 all is well\x1b[31m\x9b2J\u202e"
        line = ConsoleLines().format(record("of %s", written, connection_id=written, raised=True))
        head, _, raised = line.partition("\n")
        assert head.isprintable()
        assert raised.startswith("Traceback ")

    def test_what_was_raised_comes_below(self) -> None:
        lines = ConsoleLines().format(record("oh", raised=True, instance="default")).splitlines()
        assert lines[0].endswith("here: oh instance=default")
        assert lines[1].startswith("Traceback")
