"""Which listener a command asks, and what it is shown."""

from __future__ import annotations

from typing import Any

import pytest

from airbyte_events.cli.api_client import Address, own_url, receiver_url
from airbyte_events.errors import SettingsError
from airbyte_events.listener.settings import InstanceSettings, Settings
from airbyte_events.store.registry import store_location

OWN, GIVEN, HOOK = (f"canary-that-is-a-token-{number:02}" for number in range(3))


def settings(**values: Any) -> Settings:
    instances = {"default": InstanceSettings(airbyte_url="http://localhost:8000")}
    return Settings(instances=instances, store=store_location("memory:"), **values)


@pytest.mark.parametrize(
    ("values", "given", "url", "token"),
    [
        ({}, None, "http://127.0.0.1:8484", None),
        ({"api_tokens": [OWN]}, None, "http://127.0.0.1:8484", OWN),
        ({"api_tokens": [OWN], "listener_token": GIVEN}, None, "http://127.0.0.1:8484", GIVEN),
        ({"api_tokens": [OWN], "port": 9000}, "http://localhost:9001/", "http://localhost:9001", OWN),
        ({"listener_url": "https://events.example.com/"}, None, "https://events.example.com", None),
        # Its own tokens are for itself.
        ({"api_tokens": [OWN], "listener_url": "https://events.example.com"}, None, "https://events.example.com", None),
        ({"api_tokens": [OWN]}, "https://events.example.com", "https://events.example.com", None),
        ({"listener_token": GIVEN}, "https://events.example.com", "https://events.example.com", GIVEN),
    ],
)
def test_address(values: dict[str, Any], given: str | None, url: str, token: str | None) -> None:
    address = Address.of(settings(**values), given)
    assert (address.url, address.token) == (url, token)
    assert "canary" not in repr(address)


def test_everywhere_is_here_too() -> None:
    tokens = {"api_tokens": [OWN], "webhook_tokens": [HOOK]}
    assert own_url(settings(host="0.0.0.0", **tokens)) == "http://127.0.0.1:8484"
    assert own_url(settings(host="::1", **tokens)) == "http://[::1]:8484"


def test_the_receiver() -> None:
    for values, url in (
        ({}, "http://127.0.0.1:8484"),
        ({"webhook_port": 8485}, "http://127.0.0.1:8485"),
        ({"webhook_port": 8485, "public_url": "https://events.example.com/"}, "https://events.example.com"),
    ):
        made = settings(**values)
        assert receiver_url(made, Address.of(made)) == url


@pytest.mark.parametrize(
    "url",
    ["events.example.com", "ftp://x", "http://", "http://u:canary@x", "http://x/?canary", "http://x/webhooks/a/canary"],
)
def test_what_is_no_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(SettingsError, match="--listener") as refused:
        Address.of(settings(), url)
    assert "canary" not in str(refused.value)
