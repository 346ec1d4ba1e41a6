"""The steps of a release, which the workflow of a tag runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from airbyte_events import __version__
from support.loops import anyio_backend as anyio_backend

yaml = pytest.importorskip("yaml", reason="NOT CHECKED: PyYAML is not here")

ROOT = Path(__file__).resolve().parents[2]
STEPS = ROOT / ".ci" / "release"
WORKFLOW = ROOT / ".github" / "workflows" / "release.yml"

pytestmark = pytest.mark.skipif(not STEPS.exists(), reason="the sources are not here")


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [STEPS, *arguments], env=os.environ | environ, capture_output=True, text=True, cwd="/", timeout=60
    )


def test_the_workflow_runs_steps_that_there_are() -> None:
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"].values()
    commands = " ".join(step.get("run", "") for job in jobs for step in job["steps"])
    steps = set(re.findall(r"\.ci/release ([\w-]+)", commands))
    assert steps == set(re.findall(r"^([\w-]+)\)$", STEPS.read_text(), re.MULTILINE))
    assert steps == set(re.findall(r"^    \.ci/release ([\w-]+)", run().stdout, re.MULTILINE))


def test_a_tag_has_to_be_the_version_with_its_section_of_the_changelog(tmp_path: Path) -> None:
    checked = ("airbyte_events/__init__.py", "deploy/helm/airbyte-events/Chart.yaml", "docs/start.md", ".ci/release")
    for name in checked:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for changelog, said in (
        (f"## {__version__}\n\nThe first version.\n", ""),
        (
            f"## Unreleased\n\n- More.\n\n## {__version__}\n\nThe first version.\n",
            "'## Unreleased': give it the version",
        ),
        ("## 9.9.9\n\nAnother.\n", f"no section '## {__version__}'"),
    ):
        (tmp_path / "CHANGELOG.md").write_text(changelog)
        command = [str(tmp_path / ".ci" / "release"), "check", f"v{__version__}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, said in done.stderr) == (1 if said else 0, True)
    for tag in ("v9.9.9", __version__):
        done = run("check", tag)
        assert done.returncode == 1
        assert f"tag v{__version__}" in done.stderr


def test_the_notes_are_the_version_s_section_of_the_changelog() -> None:
    notes = run("notes").stdout
    assert "**Listener**" in notes
    assert "## " not in notes


def test_a_dry_run_sends_nothing() -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if head.returncode:
        pytest.skip("NOT CHECKED: no git repository is here")
    for step in ("log-in", "image", "chart", "publish"):
        done = run(step, DRY_RUN="1", REGISTRY="registry.example.com/x", REGISTRY_PASSWORD="secret")
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines
        assert all(line.startswith("dry run: ") for line in lines)
        assert "secret" not in done.stdout
    image = run("image", DRY_RUN="1", REGISTRY="registry.example.com/x").stdout
    for each in (
        f"--tag registry.example.com/x/airbyte-events:{__version__}",
        "linux/amd64,linux/arm64",
        "--sbom=true",
        "--provenance=mode=max",
        f"revision={head.stdout.strip()}",
    ):
        assert each in image


def test_the_packaged_chart_is_a_chart(helm: ModuleType, tmp_path: Path) -> None:
    assert run("chart", DRY_RUN="1").returncode == 0
    with tarfile.open(ROOT / "build" / f"airbyte-events-{__version__}.tgz") as package:
        package.extractall(tmp_path, filter="data")
    assert [each for each in helm.lint(str(tmp_path / "airbyte-events"))["messages"] if each["severity"] > 1] == []
