"""The Helm chart, by Helm itself and by Kubernetes' own schemas."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from support.process import environ_of

yaml = pytest.importorskip("yaml", reason="NOT CHECKED: PyYAML is not here")

CHART = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "airbyte-events"
VERSIONS = ("1.25", "1.30", "1.34")
SMALL: dict[str, Any] = {
    "instances": {"default": {"airbyte_url": "http://airbyte:8001/api/public/v1", "client_id": "an & id"}},
    "secret": {"apiTokens": "a" * 32, "webhookTokens": "b" * 32, "clientSecrets": {"default": 'a "secret"'}},
}
LARGE: dict[str, Any] = {
    "replicas": 3,
    "instances": SMALL["instances"] | {"cloud": {"airbyte_url": "https://api.airbyte.com/v1"}},
    "settings": {"poll_interval": 5, "webhook_allow": ["192.0.2.0/24"], "public_url": "https://events.example.com"},
    "secret": {"existing": "mine", "forwardUrls": {"cloud": "there"}},
    "store": {"kind": "postgresql"},
    "ingress": {"enabled": True, "host": "events.example.com", "tlsSecret": "tls", "path": "/webhooks/"},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "runbooks": "https://wiki.example.com/events/"},
    "extraEnv": [{"name": "SSL_CERT_FILE", "value": "/etc/ca/ca.pem"}],
    "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca"}],
    "networkPolicy": {
        "enabled": True,
        "from": [{"namespaceSelector": {"matchLabels": {"name": "airflow"}}}],
        "egress": [{"ports": [{"port": 5432}]}],
    },
    "serviceAccount": {"create": True, "annotations": {"role": "x"}},
    "podLabels": {"team": "data"},
    "podAnnotations": {"note": "y"},
    "tolerations": [{"key": "spot", "operator": "Exists"}],
    "nodeSelector": {"disk": "ssd"},
    "image": {"repository": "registry.example.com/airbyte-events", "pullSecrets": [{"name": "pull"}]},
}
Render = Callable[[Mapping[str, Any]], dict[str, dict[str, Any]]]


@pytest.fixture
def render(helm: ModuleType) -> Render:
    def render(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """What Helm makes of the chart, by kind."""
        with helm.Chart.load(str(CHART)) as chart:
            chart.validate_schema(values)
            rendered = chart.render(dict(values), name="demo", namespace="prod")
        texts = [text for name, text in rendered.items() if name.endswith(".yaml")]
        objects = [each for text in texts for each in yaml.safe_load_all(text) if each]
        assert len({each["kind"] for each in objects}) == len(objects)
        return {each["kind"]: each for each in objects}

    return render


@pytest.mark.parametrize("values", [{}, SMALL, LARGE], ids=["defaults", "small", "large"])
def test_helm_lint_finds_no_fault(helm: ModuleType, values: dict[str, Any]) -> None:
    found = helm.lint(str(CHART), values=values) if values else helm.lint(str(CHART))
    assert [each for each in found["messages"] if each["severity"] > 1] == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("values", [SMALL, LARGE], ids=["small", "large"])
def test_kubernetes_knows_every_field(render: Render, values: dict[str, Any], version: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kubernetes_validate = pytest.importorskip(
            "kubernetes_validate", reason="NOT CHECKED: kubernetes-validate is not here (PyPI)"
        )
        for kind, each in render(values).items():
            if kind not in ("ServiceMonitor", "PrometheusRule"):  # Prometheus' own, checked below; and HTTPRoute
                kubernetes_validate.validate(copy.deepcopy(each), version, strict=True)


def test_what_one_listener_has(render: Render) -> None:
    objects = render(SMALL)
    assert objects.keys() == {
        "ConfigMap",
        "Deployment",
        "PersistentVolumeClaim",
        "Secret",
        "Service",
        "ServiceAccount",
        "Pod",
    }
    assert objects["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}
    assert objects["Secret"]["stringData"]["client-secret-default"] == 'a "secret"'


def test_what_several_listeners_have(render: Render) -> None:
    objects = render(LARGE)
    assert objects.keys() == {
        "ConfigMap",
        "Deployment",
        "Ingress",
        "NetworkPolicy",
        "Pod",
        "PodDisruptionBudget",
        "PrometheusRule",
        "Service",
        "ServiceAccount",
        "ServiceMonitor",
    }
    pod = objects["Deployment"]["spec"]["template"]
    selected = objects["Service"]["spec"]["selector"]
    assert selected.items() <= pod["metadata"]["labels"].items()
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"] == selected
    assert objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == selected
    monitor = objects["ServiceMonitor"]["spec"]
    assert monitor["selector"]["matchLabels"].items() <= objects["Service"]["metadata"]["labels"].items()
    assert [each["port"] for each in monitor["endpoints"]] == [
        each["name"] for each in objects["Service"]["spec"]["ports"]
    ]
    annotations = objects["Ingress"]["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    assert "AIRBYTE_EVENTS" not in str(objects["ConfigMap"])


def test_metrics_want_the_token_that_prometheus_shows(render: Render) -> None:
    objects = render(LARGE | {"secret": {**LARGE["secret"], "metricsToken": "given"}})
    (endpoint,) = [each for each in objects["ServiceMonitor"]["spec"]["endpoints"] if each["path"] == "/metrics"]
    credentials = endpoint["authorization"]["credentials"]
    assert f'/{credentials["key"]}"' in objects["ConfigMap"]["data"]["airbyte-events.toml"]
    assert credentials["name"] in str(objects["Deployment"])
    assert "authorization" not in str(render(LARGE)["ServiceMonitor"])


def test_operator_tokens_are_a_file_of_the_secret_and_not_there_by_default(render: Render) -> None:
    objects = render(LARGE | {"secret": {**LARGE["secret"], "operatorTokens": "given"}})
    assert 'operator_tokens_file = "/run/secrets/airbyte-events/operator-tokens"' in str(objects["ConfigMap"])
    assert "operator" not in str(render(LARGE)["ConfigMap"])


def test_its_alerts_are_those_of_the_file_and_name_a_runbook_where_there_is_one(render: Render) -> None:
    (group,) = yaml.safe_load((CHART.parents[1] / "prometheus/alerts.yaml").read_text())["groups"]
    (with_runbooks,) = render(LARGE)["PrometheusRule"]["spec"]["groups"]
    assert with_runbooks["rules"][0]["annotations"]["runbook_url"] == (
        "https://wiki.example.com/events/operations.html#airbyteeventsabsent"
    )
    (without,) = render(LARGE | {"prometheusRule": {"enabled": True}})["PrometheusRule"]["spec"]["groups"]
    for rules in (group["rules"], with_runbooks["rules"], without["rules"]):
        for rule in rules:
            rule["annotations"].pop("runbook_url", None)
    assert group == with_runbooks == without


@pytest.mark.parametrize("where", ["Deployment", "Pod"])
def test_the_pod_runs_with_the_least(render: Render, where: str) -> None:
    pod = render(SMALL)[where]["spec"]
    pod = pod.get("template", {"spec": pod})["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    container = pod["containers"][0]["securityContext"]
    assert (container["readOnlyRootFilesystem"], container["allowPrivilegeEscalation"]) == (True, False)
    assert container["capabilities"] == {"drop": ["ALL"]}


def test_replica_count_and_digest(render: Render) -> None:
    digest = "sha256:" + "0" * 64
    objects = render(LARGE | {"replicas": 1, "replicaCount": 2, "image": {"repository": "x/y", "digest": digest}})
    assert objects["Deployment"]["spec"]["replicas"] == 2
    assert "PodDisruptionBudget" in objects
    assert objects["Deployment"]["spec"]["template"]["spec"]["containers"][0]["image"] == f"x/y@{digest}"


def test_a_route_of_the_gateway_api(render: Render) -> None:
    gateway = {"name": "public", "namespace": "gateways"}
    route = {"enabled": True, "parentRefs": [gateway], "hostnames": ["events.example.com"], "path": "/webhooks/"}
    objects = render(SMALL | {"httpRoute": route})
    spec = objects["HTTPRoute"]["spec"]
    assert (spec["parentRefs"], spec["hostnames"]) == ([gateway], ["events.example.com"])
    (rule,) = spec["rules"]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/webhooks/"}}]
    (backend,) = rule["backendRefs"]
    service = objects["Service"]
    assert (backend["name"], backend["port"]) == (service["metadata"]["name"], service["spec"]["ports"][0]["port"])


def test_its_test_reads_a_real_listener(render: Render, tmp_path: Path) -> None:
    (container,) = render(SMALL)["Pod"]["spec"]["containers"]
    (script,) = container["args"]
    asked: list[tuple[str, str | None]] = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Authorization"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    (tmp_path / "api-tokens").write_text("first,\nsecond\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        script = script.replace("http://demo-airbyte-events:8484", f"http://127.0.0.1:{server.server_port}")
        script = script.replace("/run/secrets/airbyte-events", str(tmp_path))
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert asked == [("/readyz", "Bearer first"), ("/v1/status", "Bearer first")]


def test_the_notes_name_commands_that_there_are(helm: ModuleType) -> None:
    with helm.Chart.load(str(CHART)) as chart:
        rendered = chart.render(SMALL, name="demo", namespace="prod")
    notes = next(text for name, text in rendered.items() if name.endswith("NOTES.txt"))
    assert "helm -n prod test demo" in notes
    assert "http://demo-airbyte-events.prod:8484/webhooks/default/WEBHOOK-TOKEN" in notes
    for words in re.findall(r"-- airbyte-events ([a-z ]+)", notes):
        done = subprocess.run(
            [sys.executable, "-m", "airbyte_events.cli.main", *words.split(), "--help"], capture_output=True, timeout=60
        )
        assert done.returncode == 0, words


def test_its_readme_has_each_value() -> None:
    def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
        for key, value in values.items():
            if isinstance(value, dict) and value and not key.endswith("annotations"):
                yield from leaves(value, f"{prefix}{key}.")
            else:
                yield prefix + key

    rows = re.findall(r"^\| `([\w.]+)` \| `?(.*?)`? \|", (CHART / "README.md").read_text(), re.MULTILINE)
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert {name for name, _ in rows} == {*leaves(values), "replicaCount"}
    for name, default in rows:
        value: Any = values
        for key in name.split("."):
            value = value.get(key) if value else None
        if not isinstance(value, dict | list | type(None)):
            assert default == str(value).lower() if isinstance(value, bool) else default == (str(value) or '""'), name


@pytest.mark.parametrize("values", [SMALL, LARGE], ids=["small", "large"])
def test_a_listener_takes_the_settings_and_the_secrets_where_they_are_mounted(
    render: Render, values: dict[str, Any], tmp_path: Path
) -> None:
    objects = render(values)
    mounted = str(tmp_path / "secrets")
    file = objects["ConfigMap"]["data"]["airbyte-events.toml"].replace("/run/secrets/airbyte-events", mounted)
    (tmp_path / "settings.toml").write_text(file)
    secrets = objects.get("Secret", {}).get("stringData") or {
        "api-tokens": "a" * 32,
        "webhook-tokens": "b" * 32,
        "client-secret-default": "s",
        "forward-urls-cloud": "https://hooks.example.com/x",
        "store": "postgresql://user:password@db/events",
    }
    (tmp_path / "secrets").mkdir()
    for name, value in secrets.items():
        (tmp_path / "secrets" / name).write_text(value)
    container = objects["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    given = {each["name"]: each["value"] for each in container["env"]}
    given["AIRBYTE_EVENTS_CONFIG"] = str(tmp_path / "settings.toml")
    script = (
        "from airbyte_events.listener.settings import load; s = load();"
        "print(s.host, s.port, s.log_format, s.store.kind, *s.instances, s.instances['default'].client_id, sep=';')"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environ_of() | given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = ";".join(sorted(values["instances"]))
    kind = values.get("store", {"kind": "sqlite"})["kind"]
    assert done.stdout.strip() == f"0.0.0.0;8484;json;{kind};{names};an & id"


@pytest.mark.parametrize(
    "wrong",
    [
        {"replicas": 0},
        {"replica": 1},
        {"image": {"repository": "x", "digest": "sha256:12"}},
        {"httpRoute": {"enabled": True}},
        {"store": {"kind": "memory"}},
        {"settings": {"api_tokens": "x"}},
        {"instances": {"Big": {"airbyte_url": "http://a"}}},
        {"instances": {"default": {"client_id": "x"}}},
        {"ingress": {"enabled": True, "host": ""}},
    ],
    ids=str,
)
def test_wrong_values_are_refused(helm: ModuleType, wrong: dict[str, Any]) -> None:
    with helm.Chart.load(str(CHART)) as chart, pytest.raises(helm.HelmError):
        chart.validate_schema(SMALL | wrong)


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ({"instances": {}}, "name at least one Airbyte"),
        ({"replicas": 2}, "replicas: SQLite serves one listener, not 2: set store.kind to postgresql"),
        ({"replicaCount": 3}, "replicas: SQLite serves one listener, not 3: set store.kind to postgresql"),
        ({"secret": {"webhookTokens": "b" * 32}}, "secret.apiTokens"),
        ({"secret": {"apiTokens": "a" * 32, "webhookTokens": "b" * 32}}, "secret.clientSecrets.default"),
    ],
    ids=["instances", "replicas", "replicaCount", "token", "client secret"],
)
def test_what_is_missing_is_named(helm: ModuleType, missing: dict[str, Any], told: str) -> None:
    with helm.Chart.load(str(CHART)) as chart, pytest.raises(helm.HelmError, match=told):
        chart.render(SMALL | missing, name="demo", namespace="prod")


def test_the_versions_are_those_of_the_package() -> None:
    import airbyte_events

    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == airbyte_events.__version__
    assert f":{airbyte_events.__version__}\n" in chart["annotations"]["artifacthub.io/images"]
