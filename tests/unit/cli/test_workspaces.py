"""Where notifications go: whose a URL is, what has to change, and the backup of what stood there."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from airbyte_events.cli.webhooks.backup import Backup, plan_uninstall
from airbyte_events.cli.webhooks.workspaces import ReceiverURLs, Webhook, Workspace, plan_install, redacted
from airbyte_events.errors import SettingsError

AIRBYTE = "http://localhost:8000/api/public/v1"
TOKEN = "canary-that-is-a-webhook-token"
URL = f"https://events.example.com/webhooks/default/{TOKEN}"
SLACK = "https://hooks.slack.com/services/T000/B000/canary"

RECEIVER = ReceiverURLs(
    instance="default", tokens=(TOKEN, "an-older-token-of-the-webhooks"), base="https://events.example.com"
)


def workspace(**urls: str | None) -> Workspace:
    told = {kind: {"webhook": {"enabled": True, "url": url}} for kind, url in urls.items()}
    return Workspace.of({"workspaceId": "w", "name": "Main", "notifications": told})


@pytest.mark.parametrize(
    ("url", "has", "right"),
    [
        (URL, True, True),
        (URL.replace(TOKEN, "an-older-token-of-the-webhooks"), True, True),
        (URL.replace("events.", "old."), True, False),
        (URL.replace("https://events.example.com", "https://events.example.com/airbyte"), True, False),
        (URL.replace("default", "cloud"), False, False),
        (URL.replace(TOKEN, "another"), False, False),
        (f"{URL}?x", False, False),
        (SLACK, False, False),
        (None, False, False),
    ],
)
def test_whose_a_url_is(url: str | None, has: bool, right: bool) -> None:
    assert (RECEIVER.includes(url), RECEIVER.is_current(url)) == (has, right)


def test_i7_nothing_shows_a_token_or_a_chat() -> None:
    for url in (URL, SLACK, f"https://user:{TOKEN}@example.com/canary", "canary", f"http://[{TOKEN}"):
        webhook = Webhook(enabled=True, url=url)
        shown = f"{redacted(webhook, RECEIVER)} {webhook!r} {RECEIVER!r} {workspace(success=url)!r}"
        assert "canary" not in shown
    assert redacted(Webhook(enabled=True, url=URL), RECEIVER) == "https://events.example.com/webhooks/default/…"
    assert redacted(Webhook(enabled=False, url=SLACK), RECEIVER).startswith(
        "nowhere (switched off: https://hooks.slack.com/… ("
    )


def test_install_changes_what_is_other() -> None:
    changes = list(plan_install([workspace(success=URL, failure=SLACK)], ("success", "failure"), RECEIVER))
    assert [(each.kind, each.before.url, each.after.url) for each in changes] == [("failure", SLACK, URL)]


class TestKept:
    def test_what_stood_there_comes_back(self, tmp_path: Path) -> None:
        file = tmp_path / "new" / "kept.json"
        before = workspace(failure=SLACK)
        backup = Backup(file, AIRBYTE)
        backup.add(plan_install([before], ("success", "failure"), RECEIVER), RECEIVER)
        backup.save()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert backup.forward_file.read_text() == f"failure={SLACK}\n"
        again = Backup(file, AIRBYTE)
        # Whatever the tokens are by now.
        receiver = ReceiverURLs(instance="default", tokens=(), digests=again.digests)
        changes = list(plan_uninstall([workspace(success=URL, failure=URL, syncDisabled=SLACK)], receiver, again))
        assert [(each.kind, each.after.live, each.after.url) for each in changes] == [
            ("success", None, None),
            ("failure", SLACK, SLACK),
        ]

    def test_installed_twice_it_is_still_what_stood_there(self, tmp_path: Path) -> None:
        backup = Backup(tmp_path / "kept.json", AIRBYTE)
        backup.add(plan_install([workspace(failure=SLACK)], ("failure",), RECEIVER), RECEIVER)
        moved = ReceiverURLs(
            instance="default", tokens=(TOKEN,), base="https://new.example.com", digests=backup.digests
        )
        backup.add(plan_install([workspace(failure=URL)], ("failure",), moved), moved)
        before = backup.before("w", "failure")
        assert before is not None
        assert before.url == SLACK

    def test_is_none_of_another_airbyte(self, tmp_path: Path) -> None:
        file = tmp_path / "kept.json"
        Backup(file, AIRBYTE).save()
        with pytest.raises(SettingsError, match=r"keeps the URLs of another Airbyte.*--keep"):
            Backup(file, "https://api.airbyte.com/v1")

    @pytest.mark.parametrize(
        "text", ["", "[]", "{}", json.dumps({"airbyte": AIRBYTE, "workspaces": {"w": {"success": 1}}})]
    )
    def test_what_is_no_such_file_is_refused(self, tmp_path: Path, text: str) -> None:
        file = tmp_path / "kept.json"
        file.write_text(text)
        with pytest.raises(SettingsError, match=r"was not written by webhooks install.*--keep"):
            Backup(file, AIRBYTE)
