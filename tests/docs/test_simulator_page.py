"""What the simulator's page has its reader type is taken by a simulator, one call after the other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "simulator.md"


def test_every_call() -> None:
    program = Path(sys.executable).with_name("airbyte-events")
    if not program.exists() or shutil.which("bash") is None or shutil.which("curl") is None:
        pytest.skip("no bash or curl, or the command is not beside this Python")
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    calls = [block for block in blocks if "curl" in block]
    assert sum(block.count("curl ") for block in calls) > 10
    command = [str(program), "simulate", "--port", "0", "--json", "--webhook-url", "http://127.0.0.1:9/"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as simulator:
        try:
            assert simulator.stdout is not None
            facts = json.loads(simulator.stdout.readline())
            with httpx.Client(base_url=facts["control_url"], trust_env=False) as control:
                hanging = {"count": 3, "start": True, "script": {"end": None}}
                control.post("/connections", json=hanging).raise_for_status()
            script = "set -e\ncurl() { command curl --silent --show-error --fail-with-body --noproxy '*' \"$@\"; }\n"
            script += "\n".join(calls).replace("http://127.0.0.1:8000", facts["url"])
            done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr
        finally:
            simulator.terminate()
