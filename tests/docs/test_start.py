"""What the first page has a newcomer type works as it stands there, with the simulator in Airbyte's place."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "start.md"
SECRET = "client-secret-0123456789"


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of each block of the listener's steps."""
    part = page[page.index("### 2.") : page.index("### 4.")] + page[page.index("### 5.") :]
    return re.findall(r"^```(sh|toml)\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)


@contextmanager
def running(command: list[str], url: str, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    with (folder / f"{command[1]}.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while not answers(url):
            assert process.poll() is None, (folder / f"{command[1]}.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def test_every_step_of_the_listener(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("airbyte-events")
    if not program.exists() or shutil.which("bash") is None:
        pytest.skip("no bash, or the command is not beside this Python")
    airbyte, listener = free_ports()
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
    with (
        running(simulate, f"http://127.0.0.1:{airbyte}/_simulator", tmp_path, environment),
        running([str(program), *serve.split()[1:]], f"http://127.0.0.1:{listener}/readyz", tmp_path, environment),
    ):
        assert "arrived whole" in shell(f"{install.strip()} --yes")
        assert "0 failures, 0 warnings" in shell(doctor)
