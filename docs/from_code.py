"""Generate the reference pages from the code, whenever the site is built.

sphinxcontrib-typer and sphinxcontrib-openapi read worse. The first draws each command's help as a terminal does, in
boxes that are wider than the page, instead of a table of options. The second invents response bodies from the schemas,
and leaves out what their fields mean.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import typer.main
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sphinx.application import Sphinx

from airbyte_events.cli.app import application
from airbyte_events.listener.assembly import assemble
from airbyte_events.listener.http.openapi import DOCUMENT
from airbyte_events.listener.settings import InstanceSettings, Settings
from airbyte_events.listener.settings import reference as settings_reference
from airbyte_events.simulator import Script, Simulator, serve_simulator
from airbyte_events.store.registry import store_location
from airbyte_events.web.auth import new_token
from airbyte_events.web.server import serving
from airbyte_events_provider.get_provider_info import get_provider_info

MARK = re.compile(r"(<!-- From the code.*-->\n)(\S.*\n)*")
"""The place in a page, with the text that readers of the source see instead."""


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", fill_in)
    app.connect("build-finished", add_openapi)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def fill_in(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the generated text into a page."""
    if page in PAGES:
        source[0], found = MARK.subn(lambda _: PAGES[page](), source[0])
        if found != 1:
            raise ValueError(f"docs/{page}.md has no comment <!-- From the code … -->")


def add_openapi(app: Sphinx, failure: Exception | None) -> None:
    """Write the OpenAPI document beside the pages."""
    if failure is None:
        (Path(app.outdir) / "openapi.json").write_text(json.dumps(DOCUMENT, indent=1), encoding="utf-8")


# -- the command line -------------------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command and group by its full name."""

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield name, command
        for each in getattr(command, "commands", {}).values():
            yield from walk(f"{name} {each.name}", each)

    return walk("airbyte-events", typer.main.get_command(application(rich=False)))


def command_line() -> str:
    """Return every command with its arguments and options."""
    return "\n".join(line for name, command in commands() for line in _command(name, command))


def _command(name: str, command: Any) -> Iterator[str]:
    context = command.make_context(name, [], resilient_parsing=True)
    yield f"## {name}\n"
    yield _prose(command.help) + "\n"
    yield f"```text\n{name} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    records = [record for each in command.params if (record := each.get_help_record(context))]
    yield from _table(("", "meaning"), ((_code(" ".join(what.split())), _prose(means)) for what, means in records))
    if command.epilog:
        yield "```text\n" + command.epilog.removeprefix("\b\n") + "\n```\n"


# -- the HTTP API -----------------------------------------------------------------------------------------------------


def http_api() -> str:
    """Return every path with its parameters and responses, then every schema."""
    return "\n".join([*_operations(), "## Objects\n", *_objects()])


def _operations() -> Iterator[str]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield f"## {method.upper()} {path}\n"
            yield f"{operation['summary']}. {operation.get('description', '')}\n"
            if operation.get("security") == []:
                yield "Needs no token.\n"
            yield from _table(
                ("parameter", "type", "meaning"),
                (
                    (_code(each["name"]), _type(each["schema"]), _parameter(each))
                    for each in operation.get("parameters", ())
                ),
            )
            if body := operation.get("requestBody"):
                (content,) = body["content"].values()
                yield f"Body: {body['description']}\n"
                yield from _properties(content["schema"])
                yield from _example(content)
            yield from _table(
                ("response", "body", "meaning"), (_response(*each) for each in operation["responses"].items())
            )
            for answer in operation["responses"].values():
                for content in answer.get("content", {}).values():
                    yield from _example(content)


def _parameter(parameter: dict[str, Any]) -> str:
    kind = {"header": "Header. ", "path": "Part of the path. "}.get(parameter["in"], "")
    default = parameter["schema"].get("default")
    return f"{kind}{parameter['description']}" + ("" if default is None else f" Default: `{default}`.")


def _response(status: str, answer: dict[str, Any]) -> tuple[str, str, str]:
    if "$ref" in answer:
        answer = DOCUMENT["components"]["responses"][_last(answer["$ref"])]
    bodies = " or ".join(dict.fromkeys(_type(each["schema"]) for each in answer["content"].values()))
    return status, bodies, answer["description"]


def _example(content: dict[str, Any]) -> Iterator[str]:
    if (example := content.get("example")) is not None:
        text = example if isinstance(example, str) else json.dumps(example, indent=2)
        yield f"```text\n{text.strip()}\n```\n"


def _objects() -> Iterator[str]:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        yield f"### {name}\n"
        if words := schema.get("description"):
            yield words + "\n"
        yield from _properties(schema)


def _properties(schema: dict[str, Any]) -> Iterator[str]:
    required = schema.get("required", ())
    rows = (
        (_code(name), _type(each) + ("" if name in required else ", may be missing"), each.get("description", ""))
        for name, each in schema.get("properties", {}).items()
    )
    yield from _table(("field", "type", "meaning"), rows)


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = _last(schema["$ref"])
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return ", ".join(_code(str(each)) for each in schema["enum"])
    if "const" in schema:
        return _code(str(schema["const"]))
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(map(_type, schema[several]))
    kinds = schema.get("type", "anything")
    if kinds == "array":
        return "list of " + _type(schema["items"])
    names = {"string": "time"} if schema.get("format") == "date-time" else {}
    return " or ".join(names.get(kind, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds))


def _last(reference: str) -> str:
    return reference.rpartition("/")[2]


# -- metrics ----------------------------------------------------------------------------------------------------------


def metrics() -> str:
    """Return the metrics of a listener that has confirmed a webhook."""
    return "\n".join(_table(("metric", "type", "labels", "meaning"), map(_metric, anyio.run(scrape))))


async def scrape() -> list[Metric]:
    """Run a sync, and return the listener's metrics once it has completed."""
    api_token, webhook_token = new_token(), new_token()
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    simulator = Simulator()
    connection = simulator.world.add_connection(Script.lasting(0.1))
    async with serve_simulator(simulator) as airbyte, httpx.AsyncClient(trust_env=False) as http:
        settings = Settings(
            instances={"default": InstanceSettings(airbyte_url=airbyte.url)},
            store=store_location("memory:"),
            api_tokens=[SecretStr(api_token)],
            webhook_tokens=[SecretStr(webhook_token)],
        )
        async with assemble(settings) as listener, serving(listener.app) as url:
            simulator.workspace.set_webhook(f"{url}/webhooks/default/{webhook_token}")
            job = simulator.world.start_job(connection)
            headers = {"Authorization": f"Bearer {api_token}"}
            with anyio.fail_after(20):
                while True:
                    seen = await http.get(f"{url}/v1/jobs/default/{job.id}", headers=headers)
                    if seen.status_code == 200 and seen.json()["job"]["status"] == "succeeded":
                        break
                    await anyio.sleep(0.1)
            answer = await http.get(f"{url}/metrics", headers=headers)
    return list(text_string_to_metric_families(answer.raise_for_status().text))


def _metric(family: Metric) -> tuple[str, str, str, str]:
    labels = dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le")
    name = family.name + "_total" * (family.type == "counter")
    return _code(name), family.type, ", ".join(map(_code, labels)), family.documentation


# -- Airflow ----------------------------------------------------------------------------------------------------------


def airflow() -> str:
    """Return the provider's options, and the fields of its connection types."""
    provider = get_provider_info()
    return "\n".join([*_options(provider["config"]), *_fields(provider["connection-types"])])


def _options(sections: dict[str, Any]) -> Iterator[str]:
    yield "## Airflow's configuration\n"
    yield "In `airflow.cfg`, section `[airbyte_events]`, or as `AIRFLOW__AIRBYTE_EVENTS__NAME` in the environment.\n"
    rows = (
        (_code(name), option["type"], _or_nothing(option["default"]), option["description"].strip())
        for section in sections.values()
        for name, option in section["options"].items()
    )
    yield from _table(("option", "type", "default", "meaning"), rows)


def _fields(types: list[dict[str, Any]]) -> Iterator[str]:
    for each in types:
        yield f"## Airflow connections of type {each['connection-type']}\n"
        form = each["ui-field-behaviour"]
        rows = [(_code(name), label, "") for name, label in form["relabeling"].items()]
        rows += [
            (f"extra {_code(name)}", field["label"], _prose(field["description"]))
            for name, field in each["conn-fields"].items()
        ]
        yield from _table(("field", "in the form", "meaning"), rows)


def _or_nothing(value: str | None) -> str:
    return "" if value is None else _code(value)


# -- Markdown ---------------------------------------------------------------------------------------------------------


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    if lines:
        yield "\n".join(["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *lines]) + "\n"


def _code(text: str) -> str:
    return f"`{text}`"


def _prose(text: str) -> str:
    """Escape text that is not Markdown."""
    return re.sub(r"([\\`*_<>\[\]#])", r"\\\1", " ".join(text.replace("\b", "").split()))


PAGES: dict[str, Callable[[], str]] = {
    "settings": settings_reference.markdown,
    "reference/cli": command_line,
    "reference/http": http_api,
    "reference/metrics": metrics,
    "reference/provider": airflow,
}
"""The text of each page."""
