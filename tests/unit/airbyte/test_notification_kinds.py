"""The table of notification kinds: each row is complete, and everything that tells kinds apart reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from airbyte_events.airbyte.notification_kinds import SETTINGS, NotificationKind
from airbyte_events.listener.forwarding.targets import Targets
from airbyte_events.listener.settings.instance import InstanceSettings
from airbyte_events.simulator.notification_bodies import SAMPLES

ROOT = Path(__file__).parents[3]
KNOWN = [kind for kind in NotificationKind if kind is not NotificationKind.UNKNOWN]
URL = "https://chat.example.com/a"
# How the public API of Airbyte spells them.
AIRBYTE = {
    "success": NotificationKind.SUCCESS,
    "failure": NotificationKind.FAILURE,
    "connectionUpdate": NotificationKind.SCHEMA_CHANGE,
    "connectionUpdateActionRequired": NotificationKind.SCHEMA_CHANGE,
    "syncDisabled": NotificationKind.DISABLED,
    "syncDisabledWarning": NotificationKind.DISABLED_WARNING,
}


def test_the_settings_are_airbyte_s() -> None:
    assert SETTINGS == AIRBYTE


@pytest.mark.parametrize("kind", KNOWN)
def test_a_kind_is_recognised_has_a_sample_and_is_forwarded(kind: NotificationKind) -> None:
    assert kind.meaning
    assert kind.titles or kind.text
    assert any(sample.kind is kind for sample in SAMPLES.values())
    for setting in kind.settings or ("success",):
        (target,) = Targets([f"{setting}={URL}"]).values()
        assert target.accepts(kind)
    # What has no URL of its own in Airbyte goes to every target.
    others = [Targets([f"{name}={URL}"]) for name, other in SETTINGS.items() if other is not kind]
    assert all(target.accepts(kind) is not bool(kind.settings) for each in others for target in each.values())


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_is_documented(setting: str) -> None:
    assert f"`{setting}`" in str(InstanceSettings.model_fields["forward_urls"].description)
    for page in ("docs/forwarding.md", "docs/settings.md", "docs/simulator.md"):
        assert setting in (ROOT / page).read_text(encoding="utf-8"), page


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_documented(name: str) -> None:
    assert f"`{name}`" in (ROOT / "docs/simulator.md").read_text(encoding="utf-8")
