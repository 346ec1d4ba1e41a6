"""The systemd unit, the compose file, and the style of all YAML."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.process import environ_of

yaml = pytest.importorskip("yaml", reason="NOT CHECKED: PyYAML is not here")

STYLE = (
    "{extends: default, rules: {document-start: disable, line-length: {max: 130},"
    " comments: {min-spaces-from-content: 1}, comments-indentation: disable,"
    " braces: {max-spaces-inside: 1}, truthy: {check-keys: false}}}"
)

SECRETS = {"POSTGRES_PASSWORD": "p" * 32, "API_TOKEN": "a" * 32, "WEBHOOK_TOKEN": "b" * 32}


def settings_of(given: dict[str, str]) -> dict[str, Any]:
    """What a listener makes of these environment variables."""
    script = (
        "import json; from airbyte_events.listener.settings import load; s = load();"
        "print(json.dumps([s.host, s.port, s.store.kind, s.log_format, s.instances['default'].airbyte_url]))"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environ_of() | given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(zip(("host", "port", "store", "log_format", "airbyte_url"), json.loads(done.stdout), strict=True))


def test_yamllint_finds_nothing(deploy: Path, check: Callable[..., str]) -> None:
    files = [path for path in deploy.rglob("*.y*ml") if "templates" not in path.parts]
    assert len(files) >= 6
    check("yamllint", "--strict", "-d", STYLE, *files, package="yamllint from PyPI")


class TestSystemd:
    @pytest.fixture
    def unit(self, deploy: Path, tmp_path: Path) -> Path:
        """The unit, with a program that is there."""
        text = (deploy / "systemd/airbyte-events.service").read_text()
        assert text.count("ExecStart=/opt/airbyte-events/bin/airbyte-events serve\n") == 1
        unit = tmp_path / "airbyte-events.service"
        unit.write_text(text.replace("/opt/airbyte-events/bin/airbyte-events", "/bin/true"))
        return unit

    def test_systemd_finds_nothing_wrong(self, unit: Path, check: Callable[..., str]) -> None:
        said = check("systemd-analyze", "verify", "--man=no", unit, package="systemd from Debian")
        assert unit.name not in said, said

    def test_it_is_confined(self, unit: Path, check: Callable[..., str]) -> None:
        # From 0, safe, to 10.
        check("systemd-analyze", "security", "--offline=true", "--threshold=15", unit, package="systemd from Debian")

    def test_a_listener_takes_its_settings(self, unit: Path, tmp_path: Path) -> None:
        given = dict(re.findall(r"^Environment=(\w+)=(.*)$", unit.read_text(), re.MULTILINE))
        given = {name: value.replace("%d", str(tmp_path)) for name, value in given.items()}
        for name in re.findall(r"^LoadCredential=([\w-]+):", unit.read_text(), re.MULTILINE):
            (tmp_path / name).write_text(f"{name}-0123456789abcdef0123456789")
        given |= {"AIRBYTE_EVENTS_AIRBYTE_URL": "http://airbyte:8001", "AIRBYTE_EVENTS_CLIENT_ID": "id"}
        assert settings_of(given)["store"] == "sqlite"


class TestCompose:
    @pytest.fixture
    def compose(self, deploy: Path) -> dict[str, Any]:
        """The file, its variables filled in."""
        text = (deploy / "compose/compose.yaml").read_text()
        text = re.sub(r"\$\{(\w+):\?see example\.env\}", lambda match: SECRETS[match[1]], text)
        assert "${" not in text
        parsed: dict[str, Any] = yaml.safe_load(text)
        return parsed

    def test_compose_takes_it(self, deploy: Path, check: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in SECRETS.items():
            monkeypatch.setenv(name, value)
        said = check(
            "docker-compose", "-f", deploy / "compose/compose.yaml", "config", package="docker-compose from Debian"
        )
        assert "airbyte-events" in said

    def test_the_example_names_every_secret(self, deploy: Path) -> None:
        example = (deploy / "compose/example.env").read_text()
        assert set(re.findall(r"^(\w+)=$", example, re.MULTILINE)) == SECRETS.keys()

    def test_the_listener_takes_its_settings(self, compose: dict[str, Any]) -> None:
        settings = settings_of(compose["services"]["listener"]["environment"])
        assert (settings["store"], settings["airbyte_url"]) == ("postgresql", "http://simulator:8000/api/public/v1")

    def test_what_one_service_says_of_another_is_so(self, compose: dict[str, Any]) -> None:
        services = compose["services"]
        airflow = services["airflow"]["environment"]
        listener = json.loads(airflow["AIRFLOW_CONN_AIRBYTE_EVENTS_DEFAULT"])
        environment = services["listener"]["environment"]
        assert listener["password"] == environment["AIRBYTE_EVENTS_API_TOKENS"]
        airbyte = json.loads(airflow["AIRFLOW_CONN_AIRBYTE_DEFAULT"])
        assert airbyte["host"] == environment["AIRBYTE_EVENTS_AIRBYTE_URL"]
        webhook = f"{listener['host']}/webhooks/default/{environment['AIRBYTE_EVENTS_WEBHOOK_TOKENS']}"
        assert f"--webhook-url={webhook}" in services["simulator"]["command"]
        postgres = services["postgres"]["environment"]
        user, password, database = (postgres[f"POSTGRES_{name}"] for name in ("USER", "PASSWORD", "DB"))
        assert environment["AIRBYTE_EVENTS_STORE"] == f"postgresql://{user}:{password}@postgres/{database}"

    def test_nothing_is_published_beyond_this_machine(self, compose: dict[str, Any]) -> None:
        published = [port for service in compose["services"].values() for port in service.get("ports", ())]
        assert len(published) == 3
        assert all(port.startswith("127.0.0.1:") for port in published)

    def test_the_simulator_takes_its_options(self, compose: dict[str, Any]) -> None:
        command = compose["services"]["simulator"]["command"]
        done = subprocess.run(
            [sys.executable, "-c", "from airbyte_events.cli.main import main; main()", *command, "--help"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
