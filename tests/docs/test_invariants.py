"""The invariants of the contributing page have tests that are named after them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (I\d+) \| [^|]+ \| `([\w/.]+)`: `(test_\w+)` \|$", re.MULTILINE)
ROWS = ROW.findall((ROOT / "docs" / "contributing.md").read_text(encoding="utf-8"))
SOURCES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}


def numbers(test: str) -> list[str]:
    """Return those that its name begins with: I1 and I5 of ``test_i1_i5_…``."""
    match = re.match(r"test_((?:i\d+_)+)", test)
    return [] if match is None else match[1].upper().rstrip("_").split("_")


def test_they_are_numbered() -> None:
    assert [number for number, _, _ in ROWS] == [f"I{each}" for each in range(1, 11)]


def test_each_has_the_test_that_is_named_for_it() -> None:
    for number, file, test in ROWS:
        assert number in numbers(test)
        assert re.search(rf"def {test}\(", SOURCES[ROOT / file])


def test_tests_name_no_others() -> None:
    tests = [test for source in SOURCES.values() for test in re.findall(r"def (test_\w+)", source)]
    named = {number for test in tests for number in numbers(test)}
    assert named == {number for number, _, _ in ROWS}
