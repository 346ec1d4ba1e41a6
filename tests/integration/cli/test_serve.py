"""What ``airbyte-events serve`` says when it starts."""

from __future__ import annotations

import re
import signal
import socket
from typing import Any

import pytest

from support.command_stage import CommandStage, Started

pytestmark = pytest.mark.anyio


async def until(serve: Started, words: str) -> list[str]:
    said = [await serve.line()]
    while words not in said[-1]:
        said.append(await serve.line())
    return said


async def test_says_what_it_reaches_and_what_is_missing(stage: CommandStage) -> None:
    await stage.leave()
    args = ("serve", "--port", "0")
    settings: dict[str, Any] = {"API_TOKENS": "an-api-token-of-22-letters", "PUBLIC_URL": "https://events.example.com"}
    async with stage.started(*args, **settings) as serve:
        said = await until(serve, "no webhook yet")
        assert "listens on http://127.0.0.1:" in said[0]
        assert f"store      sqlite:///{stage.folder}/events.db" in said[1]
        assert "https://events.example.com/webhooks/default/<webhook token>" in said[3]
        assert said[-2:] == [
            "  default is reachable and lists its jobs",
            "  default has sent no webhook yet, so completions are detected by polling: airbyte-events webhooks "
            "install --url https://events.example.com",
        ]
        serve.process.send_signal(signal.SIGTERM)
        assert await serve.ended() == 0


async def test_an_airbyte_that_is_not_there_delays_nothing(stage: CommandStage) -> None:
    await stage.leave()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silence = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with stage.started("serve", "--port", "0", AIRBYTE_URL=silence) as serve:
            (said,) = await until(serve, "listens on ")
            url = said.rpartition(" ")[2]
            # While nobody has answered yet.
            assert (await stage.run("jobs", LISTENER_URL=url)).code == 1
            serve.process.send_signal(signal.SIGTERM)
            assert await serve.ended() == 0
    async with stage.started("serve", "--port", "0", AIRBYTE_URL="http://127.0.0.1:9") as serve:
        said = (await until(serve, "can't be reached yet"))[-1]
        assert "no connection" in said
        assert "run airbyte-events doctor for details" in said


async def test_the_demo_is_coloured_and_fits_80_columns_at_a_terminal(stage: CommandStage) -> None:
    code, seen = await stage.at_terminal("demo")
    assert (code, "\x1b[32msucceeded" in seen, "\x1b[31mfailed" in seen) == (0, True, True)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", seen)
    assert re.search(r"^  ms after completion: webhook \d+, confirmed \d+, ", plain, re.MULTILINE)
    assert [line for line in plain.splitlines() if len(line) > 80] == []
