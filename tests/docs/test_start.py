"""What the first page has a newcomer type works as it stands there, with the simulator in Airbyte's place."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx
import pytest
from processes import Processes, free_ports

PAGE = Path(__file__).parents[2] / "docs" / "start.md"
SECRET = "client-secret-0123456789"


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of each block of the listener's steps."""
    part = page[page.index("### 2.") : page.index("### 4.")] + page[page.index("### 5.") :]
    return re.findall(r"^```(sh|toml)\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


def test_every_step_of_the_listener(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("airbyte-events")
    if not program.exists() or shutil.which("bash") is None:
        pytest.skip("no bash, or the command is not beside this Python")
    airbyte, listener = free_ports(2)
    page = PAGE.read_text(encoding="utf-8")
    page = page.replace("https://airbyte.example.com", f"http://127.0.0.1:{airbyte}")
    page = page.replace("http://listener.example.com:8484", f"http://127.0.0.1:{listener}")
    page = page.replace('host = "0.0.0.0"', f'host = "127.0.0.1"\nport = {listener}')
    client_id = re.findall('client_id = "(.*)"', page)[0]
    (tmp_path / "client-secret").write_text(SECRET)
    away = ("AIRBYTE_EVENTS_", "AIRFLOW_", "XDG_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(away)}
    environment = kept | {"HOME": str(tmp_path), "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}

    def shell(commands: str) -> str:
        done = subprocess.run(
            ["bash", "-ec", commands], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    simulate = [str(program), "simulate", "--port", str(airbyte), "--client-id", client_id, "--client-secret", SECRET]
    (_, secrets), (_, settings), (_, serve), (_, install), (_, doctor) = blocks(page)
    shell("\n".join(line for line in secrets.splitlines() if not line.startswith("pip ")))
    (tmp_path / "airbyte-events.toml").write_text(settings)
    with Processes(tmp_path, tmp_path) as processes:
        processes.start("simulate", simulate, env=environment)
        processes.start("serve", [str(program), *serve.split()[1:]], env=environment)
        for url in (f"http://127.0.0.1:{airbyte}/_simulator", f"http://127.0.0.1:{listener}/readyz"):
            processes.wait_until(partial(answers, url), url, timeout=30, blame=["simulate", "serve"])
        assert "arrived whole" in shell(f"{install.strip()} --yes")
        assert "0 failures, 0 warnings" in shell(doctor)
