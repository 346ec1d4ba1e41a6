"""The tests that pages name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
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
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "airbyte_events").rglob("*.py"))
    missing = [line for line in quoted if not re.search(".*".join(map(re.escape, line.split("…"))), source)]
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
