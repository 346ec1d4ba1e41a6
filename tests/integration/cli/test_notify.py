"""``airbyte-events notify``: the targets in the settings, and a message that tries them."""

from __future__ import annotations

import json

import pytest
from standardwebhooks import Webhook

from support.command_stage import CommandStage
from support.notify import SIGNING_KEY
from support.servers import ScriptedServer

pytestmark = pytest.mark.anyio

SECRET = "canary-that-is-in-a-url"


@pytest.fixture
def config(stage: CommandStage, server: ScriptedServer) -> str:
    """A file with two targets."""
    file = stage.folder / "events.toml"
    file.write_text(
        f'[[notify]]\nname = "chat"\ntype = "slack"\nurl = "{server.url}/{SECRET}"\nstatuses = ["failed"]\n'
        f'signals = ["stalled"]\nconnections = ["Orders, daily"]\n[[notify]]\nname = "events"\ntype = "cloudevents"\n'
        f'url = "{server.url}/events"\nsecret = "{SIGNING_KEY}"\n',
        encoding="utf-8",
    )
    return str(file)


async def test_targets_are_listed_with_their_filters(stage: CommandStage, server: ScriptedServer, config: str) -> None:
    done = await stage.run("notify", "list", "--config", config)
    assert (done.code, done.err) == (0, "")
    heading, *lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert heading == "NAME TYPE URL COMPLETIONS SIGNALS"
    assert lines == [
        f"chat slack {server.url}/… connections Orders, daily; statuses failed stalled",
        f"events cloudevents {server.url}/… all none",
    ]
    (chat, events) = json.loads((await stage.run("notify", "list", "--config", config, "--json")).out)["targets"]
    assert chat["filters"] == {"connections": ["Orders, daily"], "statuses": ["failed"]}
    assert chat["signals"] == ["stalled"]
    assert events == {"name": "events", "type": "cloudevents", "url": f"{server.url}/…", "filters": {}, "signals": []}
    assert SECRET not in done.out + json.dumps(chat)


async def test_a_test_goes_to_all(stage: CommandStage, server: ScriptedServer, config: str) -> None:
    for path in (SECRET, "events"):
        server.on(f"POST /{path}", server.reply())
    done = await stage.run("notify", "test", "--config", config)
    assert (done.code, done.err) == (0, "")
    assert [line.split() for line in done.out.splitlines()[1:]] == [["chat", "ok"], ["events", "ok"]]
    chat, event = server.requests
    assert chat.json()["text"] == "Sync succeeded: a test by airbyte-events notify test"
    assert Webhook(SIGNING_KEY).verify(event.body, event.headers)["data"]["instance"] == "notify-test"


async def test_a_failure_is_shown_without_the_url(stage: CommandStage, server: ScriptedServer, config: str) -> None:
    server.on(f"POST /{SECRET}", server.reply(404, body=b"no_service"))
    done = await stage.run("notify", "test", "chat", "--config", config)
    assert done.code == 1
    assert [line.split(maxsplit=2) for line in done.out.splitlines()[1:]] == [
        ["chat", "failure", "it responded 404 (no_service)"]
    ]
    found = await stage.run("notify", "test", "chat", "--config", config, "--json")
    assert json.loads(found.out) == {
        "targets": [{"name": "chat", "sent": False, "error": "it responded 404 (no_service)"}],
        "right": False,
    }
    assert SECRET not in done.out + done.err + found.out


async def test_a_name_that_is_none_is_refused(stage: CommandStage, server: ScriptedServer, config: str) -> None:
    done = await stage.run("notify", "test", "chats", "--config", config)
    assert (done.code, done.err) == (
        2,
        "airbyte-events: NAME: no target has the name chats; use one of chat, events\n",
    )
    done = await stage.run("notify", "test")
    assert done.code == 2
    assert "the settings have no [[notify]] table" in done.err
    assert server.requests == []
