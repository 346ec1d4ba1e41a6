"""How log lines are written."""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import Any

import pytest
from structlog.contextvars import bound_contextvars

from airbyte_events.events import Cursor
from airbyte_events.listener.logging import formatter

FIELDS: dict[str, Any] = {"instance": "default", "job_id": 7, "cursor": Cursor("5f3a9c1e", 42), "connection_id": None}


HOSTILE = (
    "c\r\n2026-01-01 all is well\x1b[31m\x07\x7f\x85\x9b2J\u061c\u200e\u200f\u202a\u202e\u2066\u2069\u2028\u2029\ufeff"
)
"""Control characters of all kinds: C0, C1, DEL, bidirectional ones and other ends of lines."""


def record(message: str, *args: object, raised: bool | str = False, **fields: Any) -> logging.LogRecord:
    info = None
    if raised:
        try:
            raise ValueError("so\nit is" if raised is True else raised)
        except ValueError:
            info = sys.exc_info()
    made = logging.getLogger("here").makeRecord("here", logging.WARNING, "f", 1, message, args, info, extra=fields)
    made.created = 1_700_000_000.25
    return made


class TestJSON:
    def test_an_object_a_line(self) -> None:
        line = formatter("json").format(record("%s “%s”\nand more", "job", "ä", **FIELDS))
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
        line = formatter("json").format(record("oh", raised=True))
        assert "\n" not in line
        assert json.loads(line)["exception"].endswith("ValueError: so\nit is")

    def test_a_field_takes_no_place_of_the_line_s_own(self) -> None:
        assert json.loads(formatter("json").format(record("oh", level="none", logger="none")))["level"] == "warning"

    def test_what_others_wrote_is_printable_and_comes_back_as_it_was(self) -> None:
        line = formatter("json").format(record("of %s", HOSTILE, connection_id=HOSTILE, raised=True))
        assert line.isprintable()
        told = json.loads(line)
        assert (told["message"], told["connection_id"]) == (f"of {HOSTILE}", HOSTILE)

    @pytest.mark.parametrize("value", [object(), {1, 2}, b"x", float("inf"), "\udc80"])
    def test_any_value_can_be_written(self, value: object) -> None:
        formatter("json").format(record("oh", thing=value)).encode("utf-8", "backslashreplace")

    def test_what_is_bound_around_it_is_a_field_unless_the_line_has_its_own(self) -> None:
        with bound_contextvars(instance="bound", lease="retention"):
            line = json.loads(formatter("json").format(record("oh", instance="own")))
        assert (line["instance"], line["lease"]) == ("own", "retention")


class TestConsole:
    def test_fields_come_last(self) -> None:
        line = formatter("console").format(record("job %d", 7, **FIELDS))
        assert line == (
            "2023-11-14T22:13:20.250Z [warning  ] job 7 [here] instance=default job_id=7 cursor=5f3a9c1e-42"
        )

    def test_what_others_wrote_makes_no_line_and_no_colour_of_its_own(self) -> None:
        line = formatter("console").format(record("of %s", HOSTILE, connection_id=HOSTILE, raised=True))
        head, _, raised = line.partition("\n")
        assert head.isprintable()
        assert raised.startswith("Traceback ")

    def test_what_was_raised_has_nothing_that_a_terminal_obeys(self) -> None:
        lines = formatter("console").format(record("oh", raised=HOSTILE)).split("\n")
        assert all(line.isprintable() for line in lines)
        assert lines[1].startswith("Traceback ")

    def test_what_was_raised_comes_below(self) -> None:
        lines = formatter("console").format(record("oh", raised=True, instance="default")).splitlines()
        assert lines[0].endswith("oh [here] instance=default")
        assert lines[1].startswith("Traceback")

    def test_a_terminal_gets_colours_of_ours_alone(self) -> None:
        line = formatter("console", colors=True).format(record("of %s", HOSTILE, connection_id=HOSTILE))
        assert "\x1b[" in line
        assert re.sub(r"\x1b\[[0-9;]*m", "", line).isprintable()
        assert "\x1b[31m\x07" not in line
