"""Alerts and dashboard: by promtool, and against the metrics of a real listener."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from airbyte_events.listener import assemble
from airbyte_events.server import serving
from airbyte_events.settings import InstanceSettings, Settings, StoreLocation

yaml = pytest.importorskip("yaml", reason="NOT CHECKED: PyYAML is not here")

PROMTOOL = "prometheus from Debian"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def rules(deploy: Path) -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((deploy / "prometheus/alerts.yaml").read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


@pytest.fixture
def panels(deploy: Path) -> list[dict[str, Any]]:
    dashboard = json.loads((deploy / "grafana/airbyte-events.json").read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions(panels: list[dict[str, Any]]) -> list[str]:
    """As Grafana sends them."""
    found = [target["expr"] for panel in panels for target in panel["targets"]]
    return [re.sub(r"\$(job|airbyte)", ".*", each.replace("$__rate_interval", "5m")) for each in found]


def test_promtool_takes_the_alerts(deploy: Path, check: Callable[..., str]) -> None:
    check("promtool", "check", "rules", deploy / "prometheus/alerts.yaml", package=PROMTOOL)


def test_alerts_fire_when_they_should(deploy: Path, check: Callable[..., str]) -> None:
    check("promtool", "test", "rules", deploy / "prometheus/alerts.test.yaml", package=PROMTOOL)


def test_promtool_takes_what_the_dashboard_asks(
    panels: list[dict[str, Any]], check: Callable[..., str], tmp_path: Path
) -> None:
    rules = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(expressions(panels))]
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    check("promtool", "check", "rules", tmp_path / "rules.yaml", package=PROMTOOL)


def test_the_dashboard_is_laid_out_without_overlaps(panels: list[dict[str, Any]]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken
        taken |= cells
    assert len({panel["title"] for panel in panels}) == len(panels) - 1  # requests: of webhooks, and of Airbyte


def test_every_alert_has_a_runbook(rules: list[dict[str, Any]]) -> None:
    page = (ROOT / "docs/operations.md").read_text()
    titles = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    headings = {re.sub(r"[^\w-]", "", title.lower().replace(" ", "-")) for title in titles}
    for rule in rules:
        file, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (file, anchor) == ("docs/operations.md", rule["alert"].lower())
        assert anchor in headings


@pytest.mark.anyio
async def test_a_listener_has_the_metrics(rules: list[dict[str, Any]], panels: list[dict[str, Any]]) -> None:
    settings = Settings.exactly(
        instances={"default": InstanceSettings(airbyte_url="http://127.0.0.1:9")},
        store=StoreLocation(kind="memory"),
        api_tokens=[SecretStr("a" * 32)],
        webhook_tokens=[SecretStr("b" * 32)],
    )
    async with assemble(settings) as listener, serving(listener.app) as url, httpx.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"{url}/metrics")).text
        listener.drain()
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    names = {
        family.name + suffix
        for family in text_string_to_metric_families(text)
        for suffix in suffixes.get(family.type, ("",))
    }
    asked = {
        name
        for expression in (*(rule["expr"] for rule in rules), *expressions(panels))
        for name in re.findall(r"airbyte_events_\w+", expression)
    }
    assert len(asked) > 20
    assert asked <= names
