"""What pages name exists: tests, files, commands and their options, HTTP paths, metrics, settings."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
from starlette.routing import Route

from airbyte_events.cli.app import application
from airbyte_events.listener.http.openapi import DOCUMENT
from airbyte_events.listener.settings.reference import reference
from airbyte_events.simulator import Simulator
from airbyte_events.simulator.app import simulator_app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROJECT = [*PAGES, ROOT / "CHANGELOG.md", *sorted((ROOT / ".github").glob("*.md"))]
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "airbyte_events").rglob("*.py")))
TESTS = {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("*.py"))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_tests_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    names = {path.name for path in TESTS}
    for path in re.findall(r"`(tests/[\w/]+\.py)", text):
        assert Path(path) in TESTS, path
    for file in re.findall(r"`(test_\w+\.py)", text):
        assert file in names, file
    for function in re.findall(r"(?<=[`:])(test_\w+)(?=[`…])", text):
        assert any(f"def {function}" in source for source in TESTS.values()), function
    for file, name in re.findall(r"`([\w/]*test_\w+\.py)(?:`: `|::)([Tt]est_?\w+)", text):
        sources = [source for path, source in TESTS.items() if f"/{path}".endswith(f"/{file}")]
        assert any(re.search(rf"(def|class) {name}", source) for source in sources), f"{file}: {name}"
    for group in re.findall(r"(?<=[`:])(Test\w+)(?=[`:])", text):
        assert any(f"class {group}" in source for source in TESTS.values()), group


def test_log_lines_of_the_runbooks_are_written() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    runbooks = page[page.index("## Runbooks") :]
    quoted = [
        line
        for after in re.findall(r"(?:the log|their logs) for (.*?)[.:]", runbooks, re.DOTALL)
        for line in _quotes(after)
    ]
    assert len(quoted) > 8
    missing = [line for line in quoted if not re.search(".*".join(map(re.escape, line.split("…"))), SOURCE)]
    assert missing == []


def _quotes(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text.replace("\n", " "))


def test_what_the_architecture_page_names_exists() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    files = set(re.findall(r"`([\w/.]+?(?:\.py|\.md|\.toml|\.yaml|\.js|/))`", page))
    assert len(files) > 30
    assert sorted(name for name in files if not _found(name)) == []
    named = re.findall(r"`([\w/]+\.py)`:\s+`(\w+)(?:\(\))?`", page)
    assert len(named) > 10
    for file, name in named:
        assert re.search(rf"(?:def|class) {name}\b|^{name}\b.* = ", _found(file), re.MULTILINE), f"{file}: {name}"


def _found(name: str) -> str:
    """Return the text of a file that the page names, or the path of a folder; empty if there is none."""
    for path in (ROOT / "airbyte_events" / name, ROOT / name, ROOT / "provider" / "airbyte_events_provider" / name):
        if path.is_dir():
            return str(path)
        if path.is_file():
            return path.read_text(encoding="utf-8")
    return ""


def pages(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", paths, ids=lambda page: str(page.relative_to(ROOT)))


def _names(page: Path) -> list[str]:
    """Return what a page has between backquotes, without its samples."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(name.split()) for name in _quotes(text)]


@pages(PROJECT)
def test_named_files_exist(page: Path) -> None:
    files = [name.partition(":")[0].split()[0] for name in _names(page) if re.match(FOLDERS, name)]
    assert [file for file in files if not (ROOT / file).exists()] == []
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


FOLDERS = r"(airbyte_events|deploy|docs|provider|tests|\.ci|\.github)/"


@pages(PAGES)
def test_named_commands_exist(page: Path) -> None:
    """Those of the samples are parsed in test_samples.py."""
    for name in _names(page):
        if name.startswith("airbyte-events ") and not name.startswith("airbyte-events COMMAND"):
            _walk(name)


def _walk(line: str) -> None:
    command: Any = typer.main.get_command(application(rich=False))
    words = line.split()
    for before, word in itertools.pairwise(words):
        commands = getattr(command, "commands", {})
        if word.startswith("-"):
            assert word in {option for each in command.params for option in each.opts}, line
        elif word in commands:
            command = commands[word]
        else:
            assert not commands or before.startswith("-"), line


@pytest.mark.parametrize(
    "wrong",
    [
        "airbyte-events servee",
        "airbyte-events webhooks tests",
        "airbyte-events tail --end",
        "airbyte-events jobs shows",
    ],
)
def test_a_wrong_command_would_be_noticed(wrong: str) -> None:
    with pytest.raises(AssertionError, match=wrong):
        _walk(wrong)


@pages(PAGES)
def test_named_http_paths_exist(page: Path) -> None:
    """Airbyte's own are in the simulator's page, whose tests call them."""
    known = {f"{method.upper()} {path}" for path, methods in DOCUMENT["paths"].items() for method in methods}
    for route in simulator_app(Simulator()).routes:
        if isinstance(route, Route) and route.path.startswith("/_simulator"):
            known |= {f"{method} {route.path}" for method in route.methods or ()}
    shapes = [re.sub(r"\\\{\w+(:\w+)?\\\}", "[^/]+", re.escape(path)) for path in known]
    for name in _names(page):
        if re.match(r"[A-Z]+ /(v1|webhooks|healthz|readyz|metrics|openapi|_simulator)", name) and "…" not in name:
            path = name.partition("?")[0]
            assert any(re.fullmatch(shape, path) for shape in shapes), name
    answers = {path.partition("{")[0].rstrip("/") for path in DOCUMENT["paths"]}
    for name in _names(page):
        if re.match(r"/(v1/\w|healthz|readyz|metrics|openapi)", name):
            assert name in answers, name


@pages(PROJECT)
def test_named_metrics_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w/])airbyte_events_(?!provider|default|demo|writer|submission)\w+", text))
    if page.name == "operations.md":
        rows = re.findall(r"^\| [^|]*\? \| (.*) \|$", text, re.MULTILINE)
        cells = [name for row in rows for name in _quotes(re.sub(r"by [^;|]*?(?=;|, on|:|$)", "", row))]
        named |= {f"airbyte_events_{name}" for name in cells if re.fullmatch(r"[a-z_]+", name)}
        assert len(named) > 25
    assert [name for name in sorted(named) if not _exported(name)] == []


def _exported(name: str) -> bool:
    stem = re.sub(r"_(total|bucket|sum|count)$", "", name)
    return any(f'"{each}"' in SOURCE for each in (name, stem, stem.removeprefix("airbyte_events_")))


@pages(PAGES)
def test_settings_named_without_their_prefix_exist(page: Path) -> None:
    known = {line.variable.removeprefix("AIRBYTE_EVENTS_") for line in reference()}
    prefixes = r"(API|METRICS|OPERATOR|WEBHOOK|RETAIN|POLL|TLS|PUBLIC|FORWARD|BEARER|CLIENT|WORKSPACE)_"
    named = {name.removesuffix("_FILE") for name in _names(page) if re.fullmatch(prefixes + r"[A-Z_]+", name)}
    assert named - {"WEBHOOK_FIELDS"} <= known
