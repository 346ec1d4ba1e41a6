"""Targets of outgoing notifications."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr

from airbyte_events.listener.settings.notify import NotifySettings

SIGNING_KEY = "whsec_" + "c2VjcmV0" * 5


def table(name: str = "events", *, url: str = "https://example.com/canary", **values: Any) -> NotifySettings:
    """Return a table ``[[notify]]``: of a target of CloudEvents, unless a ``type`` is given."""
    if "type" not in values:
        values |= {"type": "cloudevents", "secret": SecretStr(SIGNING_KEY)}
    return NotifySettings(name=name, url=SecretStr(url), **values)
