"""The samples of the documentation are right: Python runs, commands exist, settings load, JSON fits its schema."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
import typer.main

from airbyte_events.cli.app import application
from airbyte_events.listener.assembly import assemble
from airbyte_events.listener.http.openapi import DOCUMENT
from airbyte_events.listener.settings import InstanceSettings, Settings, load
from airbyte_events.listener.settings.declaration import SECRETS
from airbyte_events.listener.settings.reference import reference
from airbyte_events.simulator import Script, Simulator, serve_simulator
from airbyte_events.simulator.control_models import NewConnections, parse
from airbyte_events.store.registry import store_location
from airbyte_events.web.server import serving
from airbyte_events_provider.get_provider_info import get_provider_info

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"console", "diff", "dockerfile", "ini", "json", "nginx", "python", "sh", "sql", "text", "toml", "yaml"}

_FENCE = re.compile(
    r"^(?P<indent> *)(?:<!-- schema: (?P<schema>\w+) -->\n *)?```(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Sample:
    """:param where: page and line.
    :param schema: what the comment before it says, of JSON.
    """

    where: str
    language: str
    text: str
    schema: str | None


def samples_of(page: Path) -> Iterator[Sample]:
    text = page.read_text(encoding="utf-8")
    for fence in _FENCE.finditer(text):
        where = f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, fence.start()) + 1}"
        inner = re.sub(rf"^{fence['indent']}", "", fence["text"], flags=re.MULTILINE)
        yield Sample(where, fence["language"], inner, fence["schema"])


SAMPLES = [sample for page in PAGES for sample in samples_of(page)]


def samples(*languages: str) -> pytest.MarkDecorator:
    wanted = [sample for sample in SAMPLES if sample.language in languages]
    assert wanted
    return pytest.mark.parametrize("sample", wanted, ids=lambda sample: sample.where)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_what_it_is(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("```") == 2 * len(list(samples_of(page))), "a fence is not closed, or not found here"
    for sample in samples_of(page):
        # The picture of the README is no sample.
        known = sample.language in LANGUAGES or sample.language.startswith("{") or "──►" in sample.text
        assert known, f"{sample.where}: {sample.language or 'no language'}"
    assert not re.search(r"\n\n    \S(?!.*\n\n?- )", re.sub(_FENCE, "", text)), "an indented block: make it a fence"


@pytest.mark.filterwarnings("ignore:The `queue` parameter is deprecated")  # as the page says
@pytest.mark.parametrize(
    "page", sorted({sample.where.partition(":")[0] for sample in SAMPLES if sample.language == "python"})
)
def test_python_runs(page: str) -> None:
    """What a page has is run in its order, each with what is there by then."""
    pytest.importorskip("airflow")
    names: dict[str, Any] = {"__name__": "sample"}
    for sample in samples_of(ROOT / page):
        if sample.language == "python":
            if "common.messaging" in sample.text:
                pytest.importorskip("airflow.providers.common.messaging")
            exec(compile(sample.text, sample.where, "exec"), names)
    for name, value in names.items():
        if name.startswith("test_"):
            anyio.run(value)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_program_of_the_python_api_is_told(anyio_backend: str) -> None:
    names: dict[str, Any] = {}
    for sample in samples_of(ROOT / "docs" / "reference" / "python.md"):
        if sample.language == "python":
            exec(compile(sample.text, sample.where, "exec"), names)
    simulator = Simulator()
    connection = simulator.world.add_connection(Script.lasting(0.2))
    async with serve_simulator(simulator) as airbyte:
        settings = Settings(
            instances={"default": InstanceSettings(airbyte_url=airbyte.url)},
            store=store_location("memory:"),
            api_tokens=["a" * 22],
            webhook_tokens=["w" * 22],
        )
        async with assemble(settings) as listener, serving(listener.app) as url:
            simulator.workspace.set_webhook(f"{url}/webhooks/default/{'w' * 22}")
            with anyio.fail_after(20):
                assert await names["sync"](airbyte.url, connection.id, url, "a" * 22) == "succeeded"
            listener.drain()


@samples("sh")
def test_shell_parses(sample: Sample) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    subprocess.run([bash, "-n"], input=sample.text, text=True, check=True, timeout=10)


@samples("sh", "console")
def test_commands_exist(sample: Sample) -> None:
    for arguments in _commands(sample):
        _accept(arguments)


@samples("sh")
def test_what_is_sent_is_json(sample: Sample) -> None:
    for body in re.findall(r"(?:-d|CONN_\w+=)\s*'(\{.*?\})'(?=\s|$)", sample.text, re.DOTALL):
        json.loads(re.sub(r"'\$\w+'", "x", body))


@samples("toml")
def test_settings_load(sample: Sample, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    contents = {"url": "https://example.com/", "secret": "whsec_" + "a" * 40}
    for key, name in re.findall(r'(\w+)_file = "(?:/run/secrets/)?([\w-]+)"', sample.text):
        (tmp_path / name).write_text(contents.get(key, "a" * 22 + name), encoding="utf-8")
    config = tmp_path / "airbyte-events.toml"
    config.write_text(sample.text.replace("/run/secrets", str(tmp_path)), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert load(config).instances


@samples("json")
def test_json_fits_its_schema(sample: Sample) -> None:
    value = json.loads(sample.text)
    if sample.schema == "script":
        parse(NewConnections, json.dumps({"script": value}).encode())
        return
    if sample.schema == "log":
        assert {"time", "level", "logger", "message"} <= set(value)
        return
    jsonschema = pytest.importorskip("jsonschema")
    assert sample.schema in DOCUMENT["components"]["schemas"], "say which, by <!-- schema: NAME --> in the line before"
    schema = {"$ref": f"#/components/schemas/{sample.schema}", "components": DOCUMENT["components"]}
    jsonschema.Draft202012Validator(schema).validate(value)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    known = {line.variable for line in reference()} | {f"AIRBYTE_EVENTS_{name.upper()}_FILE" for name in SECRETS}
    text = re.sub(r"(AIRBYTE_EVENTS_)INSTANCES__[A-Z]+__", r"\1", text)
    told = set(re.findall(r"(?<![A-Z_])AIRBYTE_EVENTS_[A-Z][A-Z_]*[A-Z]", text))
    assert told <= known, told - known
    options = get_provider_info()["config"]["airbyte_events"]["options"]
    named = set(re.findall(r"\[airbyte_events\]\s(\w+)", text))
    assert named <= set(options), named - set(options)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_exist(page: Path) -> None:
    makefile = ROOT / "Makefile"
    if not makefile.exists():
        pytest.skip("the sources are gone")
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile.read_text(encoding="utf-8"), re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    for named in re.findall(r"`make ([a-z0-9 -]+?)(?= [A-Z]+=|`)|^make ([a-z-]+)", text, re.MULTILINE):
        assert set("".join(named).split()) <= targets, named


def test_links_of_the_readme_lead_somewhere() -> None:
    """Those of the pages are checked when the site is built."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def _commands(sample: Sample) -> Iterator[list[str]]:
    """The arguments of each ``airbyte-events`` of a sample."""
    text = sample.text.replace("\\\n", " ")
    if sample.language == "console":
        text = "\n".join(line[2:] for line in text.splitlines() if line.startswith("$ "))
    text = re.sub(r"<<'(\w+)'\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"(^|\s)#.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"(?<=\s)\d(?=[<>])", "", text)
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    command: list[str] = []
    for token in [*lexer, "\n"]:
        if set(token) <= set("();<>|&\n"):
            while command and re.fullmatch(r"\w+=.*", command[0]):
                del command[0]
            if command[:1] == ["airbyte-events"]:
                yield command[1:]
            command = []
        else:
            command.append(token)


def _accept(arguments: list[str]) -> None:
    """Parse a command line as it would be, without running it."""
    command: Any = typer.main.get_command(application(rich=False))
    name = "airbyte-events"
    while arguments and arguments[0] in getattr(command, "commands", {}):
        name, command, arguments = arguments[0], command.commands[arguments[0]], arguments[1:]
    flags = {option for each in command.params for option in each.opts} | {"--help"}
    if getattr(command, "commands", {}) and not getattr(command, "invoke_without_command", False):
        assert arguments, f"{name} wants a command"
        assert set(arguments) <= flags, f"no such command: {name} {' '.join(arguments)}"
    elif "--help" not in arguments:
        command.make_context(name, arguments)


@pytest.mark.parametrize("wrong", ["servee", "tail --endedd", "jobs show", "webhooks install --kind everything", ""])
def test_a_wrong_command_would_be_noticed(wrong: str) -> None:
    sample = Sample("here", "sh", f"A=1 airbyte-events {wrong} > log 2>&1 &", None)
    (arguments,) = _commands(sample)
    with pytest.raises(Exception, match=r"\S"):
        _accept(arguments)
