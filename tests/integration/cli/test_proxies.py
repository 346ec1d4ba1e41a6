"""Proxies in the environment that can't be read: one line each, from every command."""

from __future__ import annotations

import anyio
import anyio.to_thread
import pytest

from support.command import command
from support.command_stage import CommandStage

pytestmark = pytest.mark.anyio

WRONG = {
    "ALL_PROXY": "socks5h://user:canary-password@127.0.0.1:7890",
    "HTTP_PROXY": "http://user:canary#password@proxy:3128",
}
ELSEWHERE = {"LISTENER_URL": "http://listener.invalid", "LISTENER_TOKEN": "canary-that-is-an-api-token-01"}


def environment(stage: CommandStage, proxies: dict[str, str], **settings: str) -> dict[str, str]:
    plain = {name: value for name, value in stage.environ(settings).items() if not name.lower().endswith("_proxy")}
    return plain | proxies


@pytest.mark.parametrize("variable", WRONG)
@pytest.mark.parametrize("words", ["serve", "tail", "jobs", "webhooks status", "trigger orders", "doctor"])
async def test_one_that_can_t_be_read_is_one_line_that_names_it(stage: CommandStage, variable: str, words: str) -> None:
    settings = {"AIRBYTE_URL": "http://airbyte.invalid", "STORE": "memory:", "PORT": "0"}
    settings |= {} if words == "serve" else ELSEWHERE
    env = environment(stage, {variable: WRONG[variable]}, **settings)
    with anyio.fail_after(60):
        done = await anyio.run_process([*command(), *words.split()], env=env, check=False)
    said = done.stdout.decode() + done.stderr.decode()
    assert done.returncode in (1, 2)
    assert f"{variable}: " in said
    assert not any(word in said for word in ("Traceback", "canary", "password@"))
    if words != "doctor":
        assert done.stderr.decode().count("\n") == 1
