"""What runs the walk finds the steps of its page, and notices a page that is wrong."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def walkthrough() -> ModuleType:
    found = importlib.util.spec_from_file_location("docs_walkthrough", ROOT / "deploy" / "walkthrough.py")
    assert found is not None
    assert found.loader is not None
    module = sys.modules[found.name] = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def page(commands: str, shows: str, status: str = "") -> str:
    return f"# A walk\n\n{status}```sh\n{commands}\n```\n\n```text\n{shows}\n```\n"


def test_a_right_page(walkthrough: ModuleType, tmp_path: Path) -> None:
    text = (
        page("A=one", "") + page("echo $A two; echo three", "one…\nthree") + page("false", "", "<!-- status: 1 -->\n")
    )
    assert walkthrough.walk(text, tmp_path) == 0


@pytest.mark.parametrize(
    ("commands", "shows", "fault"),
    [
        ("echo one", "two", "does not show: two"),
        ("echo two; echo one", "one\ntwo", "does not show: two"),
        ("false", "", "ended with 1, not with 0"),
        ("exit 3", "", "ended with None, not with 0"),
    ],
)
def test_a_wrong_page(
    walkthrough: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    commands: str,
    shows: str,
    fault: str,
) -> None:
    assert walkthrough.walk(page(commands, shows), tmp_path) == 1
    assert fault in capsys.readouterr().err


def test_a_page_without_steps(walkthrough: ModuleType, tmp_path: Path) -> None:
    assert walkthrough.walk("# A walk\n", tmp_path) == 1


def test_one_that_takes_too_long(walkthrough: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert walkthrough.walk(page("sleep 60", ""), tmp_path, limit=0.2) == 1
    assert "not done" in capsys.readouterr().err
