"""``airbyte-events simulate`` as a process."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from airbyte_events.simulator.models import sample_id
from support.command import command


@contextmanager
def simulating(*options: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*command(), "simulate", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def refused(*options: str) -> tuple[int, str]:
    done = subprocess.run([*command(), "simulate", *options], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_says_where_it_is_and_stops_cleanly(stop: signal.Signals) -> None:
    with simulating(
        *("--port", "0", "--json", "--connections", "2", "--client-id", "me", "--client-secret", "s3cret", "--cloud")
    ) as process:
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        assert facts["connections"] == [sample_id("connection", 1), sample_id("connection", 2)]
        assert (facts["client_id"], facts["client_secret"], facts["cloud"]) == ("me", "s3cret", True)
        assert facts["api_url"] == f"{facts['url']}/v1"
        assert httpx.get(f"{facts['api_url']}/jobs", trust_env=False).status_code == 401
        assert httpx.get(facts["control_url"], trust_env=False).json()["connections"] == 2
        process.send_signal(stop)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert (process.stdout.read(), process.stderr.read()) == ("", "")


def test_is_plain_in_a_pipe_and_keeps_webhook_tokens_to_itself() -> None:
    with simulating("--port", "0", "--webhook-url", "http://u:p@127.0.0.1:8484/webhooks/default/t0ken") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(8)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert lines[0].startswith("API: http://127.0.0.1:")
    assert lines[0].endswith("/api/public/v1")
    assert "Webhooks to: http://127.0.0.1:8484/…" in lines
    assert [line for line in lines if line.startswith("Connection: ")] == [
        f"Connection: {sample_id('connection', number)}" for number in (1, 2, 3)
    ]


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert refused("--port", port) == (
            1,
            f"airbyte-events: can't listen on 127.0.0.1:{port}: Address already in use; write another --host or "
            "--port\n",
        )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--fault", "gone"), "no fault is called 'gone'"),
        (("--fault", "late"), "a 'late' fault needs delay"),
        (("--client-id", "me"), "a client id and a client secret go together"),
        (("--connections", "-1"), "--connections"),
    ],
)
def test_wrong_options(options: tuple[str, ...], says: str) -> None:
    status, stderr = refused(*options)
    assert status == 2
    assert says in stderr
