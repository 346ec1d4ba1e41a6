"""Alerts and dashboard: by promtool, and against the metrics of a real listener."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from airbyte_events.listener.assembly import assemble
from airbyte_events.web.server import serving
from support.listener import instance_of, settings_of
from support.loops import anyio_backend as anyio_backend
from support.notify import table
from support.waiting import a_moment

yaml = pytest.importorskip("yaml", reason="NOT CHECKED: PyYAML is not here")

PROMTOOL = "prometheus from Debian"
SITE = "https://docs.example.com/airbyte-events"
ROOT = Path(__file__).resolve().parents[2]


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


def test_each_alert_is_seen_quiet_firing_and_over(rules: list[dict[str, Any]], deploy: Path) -> None:
    seen: dict[tuple[str, str], list[bool]] = {}
    for test in yaml.safe_load((deploy / "prometheus/alerts.test.yaml").read_text())["tests"]:
        for each in test["alert_rule_test"]:
            seen.setdefault((test["name"], each["alertname"]), []).append("exp_alerts" in each)
    whole = {alert for (_, alert), fires in seen.items() if fires == [False, True, False]}
    assert whole == {rule["alert"] for rule in rules}


def test_each_alert_fires_among_healthy_series_for_the_faulty_one_alone(
    rules: list[dict[str, Any]], deploy: Path
) -> None:
    mixed = yaml.safe_load((deploy / "prometheus/alerts.test.yaml").read_text())["tests"][-1]
    fired = {each["alertname"]: each["exp_alerts"] for each in mixed["alert_rule_test"] if "exp_alerts" in each}
    # Series of a listener end the alert that there is none.
    assert fired.keys() == {rule["alert"] for rule in rules} - {"AirbyteEventsAbsent"}
    assert all(len(alerts) == 1 for alerts in fired.values())
    for rule in rules:
        metrics = set(re.findall(r"airbyte_events_\w+", rule["expr"]))
        series = [each["series"] for each in mixed["input_series"] if each["series"].split("{")[0] in metrics]
        assert len(series) > 1, rule["alert"]


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
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        # Where people keep the site is theirs to say; the page's name is the one that the site gives it.
        assert (page, anchor) == (f"{SITE}/operations.html", rule["alert"].lower())
        assert anchor in headings


@pytest.fixture
async def scraped() -> str:
    """What a listener tells that has seen nothing yet."""
    settings = settings_of(instance_of("http://127.0.0.1:9"), notify=(table(),))
    async with assemble(settings) as listener, serving(listener.app) as url, httpx.AsyncClient(trust_env=False) as http:
        led = ('lease_held{lease="sources/default"} 1', "airbyte_events_signals{")
        text = ""
        while not all(each in text for each in led):
            text = (await http.get(f"{url}/metrics")).text
            await a_moment()
        listener.drain()
    return text


@pytest.mark.anyio
async def test_promtool_takes_the_metrics(scraped: str, find: Callable[[str, str], str]) -> None:
    done = await anyio.run_process([find("promtool", PROMTOOL), "check", "metrics"], input=scraped.encode())
    assert (done.stdout, done.stderr) == (b"", b"")


@pytest.mark.anyio
async def test_a_listener_has_the_metrics(
    scraped: str, rules: list[dict[str, Any]], panels: list[dict[str, Any]]
) -> None:
    told = {
        sample.name: sample.labels for family in text_string_to_metric_families(scraped) for sample in family.samples
    }
    # Airbyte has answered nothing yet.
    told["airbyte_events_airbyte_requests_total"] = {"airbyte": "", "route": "", "status": ""}
    told["airbyte_events_connection_last_success_timestamp_seconds"] = {"airbyte": "", "connection": "", "name": ""}
    asked = [*(rule["expr"] for rule in rules), *expressions(panels)]
    names = {name for expression in asked for name in re.findall(r"airbyte_events_\w+", expression)}
    assert len(names) > 20
    assert names <= told.keys()
    for expression in asked:
        for name, selector in re.findall(r"(airbyte_events_\w+)\{([^}]*)\}", expression):
            labels = set(re.findall(r"(\w+)=", selector)) - {"job"}
            assert labels <= told[name].keys(), expression
