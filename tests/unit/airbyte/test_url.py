"""Addresses of Airbyte: every usual spelling leads to the API, every wrong one to the right one."""

from __future__ import annotations

import re

import pytest

from airbyte_events.airbyte import normalise_url
from airbyte_events.airbyte.url import token_endpoint
from airbyte_events.errors import SettingsError

SELF_HOSTED = "http://localhost:8000/api/public/v1"
CLOUD = "https://api.airbyte.com/v1"


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://localhost:8000", SELF_HOSTED),
        ("http://localhost:8000/", SELF_HOSTED),
        ("  http://localhost:8000/  ", SELF_HOSTED),
        ("HTTP://LOCALHOST:8000", SELF_HOSTED),
        ("http://localhost:8000/api/public/v1", SELF_HOSTED),
        ("http://localhost:8000/api/public/v1/", SELF_HOSTED),
        ("http://localhost:8000//api/public/v1//", SELF_HOSTED),
        ("https://airbyte.example", "https://airbyte.example/api/public/v1"),
        ("https://airbyte.example:443", "https://airbyte.example/api/public/v1"),
        ("http://airbyte.example:80/", "http://airbyte.example/api/public/v1"),
        ("https://airbyte.example:8443", "https://airbyte.example:8443/api/public/v1"),
        ("https://proxy.example/data/airbyte", "https://proxy.example/data/airbyte/api/public/v1"),
        ("https://proxy.example/airbyte/api/public/v1/", "https://proxy.example/airbyte/api/public/v1"),
        ("https://proxy.example/api/airbyte", "https://proxy.example/api/airbyte/api/public/v1"),
        ("http://localhost:8006/v1", "http://localhost:8006/v1"),
        ("http://[::1]:8000", "http://[::1]:8000/api/public/v1"),
        ("http://airbyte_server:8001", "http://airbyte_server:8001/api/public/v1"),
        ("https://api.airbyte.com", CLOUD),
        ("https://api.airbyte.com/", CLOUD),
        ("https://api.airbyte.com/v1", CLOUD),
        ("https://api.airbyte.com/v1/", CLOUD),
        ("https://API.airbyte.com:443/v1/", CLOUD),
    ],
)
def test_a_usual_spelling_leads_to_the_api(url: str, base: str) -> None:
    assert normalise_url(url) == base
    assert normalise_url(base) == base


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("http://localhost:8000/api/v1", SELF_HOSTED),
        ("http://localhost:8000/api/v1/", SELF_HOSTED),
        ("http://localhost:8000/api/v1/jobs/get", SELF_HOSTED),
        ("https://proxy.example/airbyte/api/v1", "https://proxy.example/airbyte/api/public/v1"),
        ("http://localhost:8000/api", SELF_HOSTED),
        ("http://localhost:8000/api/public", SELF_HOSTED),
        ("http://localhost:8000/api/public/v1/jobs", SELF_HOSTED),
        ("http://localhost:8000/workspaces/1f3a/connections", SELF_HOSTED),
        ("localhost:8000", "http://localhost:8000"),
        ("//localhost:8000", "http://localhost:8000"),
        ("http:/localhost:8000", "http://localhost:8000"),
        ("localhost:8000/api/public/v1", SELF_HOSTED),
        ("api.airbyte.com/v1", CLOUD),
        ("ftp://localhost:8000/api/public/v1", SELF_HOSTED),
        ("unix:///run/airbyte", SELF_HOSTED),
        ("http://api.airbyte.com/v1", CLOUD),
        ("https://api.airbyte.com/api/public/v1", CLOUD),
        ("https://api.airbyte.com/v1/jobs", CLOUD),
        ("https://cloud.airbyte.com", CLOUD),
        ("https://cloud.airbyte.com/workspaces/1f3a/connections", CLOUD),
        ("https://user:hunter2@airbyte.example/api/public/v1", "https://airbyte.example/api/public/v1"),
        ("https://user:hunt/er2@airbyte.example/", SELF_HOSTED),
        ("https://user:12/hunter2@airbyte.example/", SELF_HOSTED),
        ("user:hunter2@airbyte.example", SELF_HOSTED),
        ("ftp://user:hunter2@airbyte.example", SELF_HOSTED),
        ("https://airbyte.example/api/public/v1?token=hunter2", "https://airbyte.example/api/public/v1"),
        ("https://airbyte.example/#hunter2", "https://airbyte.example/"),
        ("https://airbyte.example?", "https://airbyte.example"),
        ("", SELF_HOSTED),
        ("   ", SELF_HOSTED),
        ("http://", SELF_HOSTED),
        ("http://host:port", SELF_HOSTED),
        ("http://host:99999", SELF_HOSTED),
        ("http://host:0", SELF_HOSTED),
        ("http://two words", SELF_HOSTED),
        ("http://host\n/x", SELF_HOSTED),
        ("http://[::1", SELF_HOSTED),
        ("http://\u2100", SELF_HOSTED),
    ],
)
def test_a_wrong_spelling_is_refused_with_the_right_one(url: str, right: str) -> None:
    with pytest.raises(SettingsError) as caught:
        normalise_url(url)

    message = str(caught.value)
    assert re.search(rf"(write (for example )?|is ){re.escape(right)}$", message), message
    assert "\n" not in message
    assert "hunt" not in message
    assert "er2" not in message
    # The right one is right.
    normalise_url(right)


@pytest.mark.parametrize(
    ("base", "token_url", "endpoint"),
    [
        (SELF_HOSTED, None, f"{SELF_HOSTED}/applications/token"),
        (SELF_HOSTED, "", f"{SELF_HOSTED}/applications/token"),
        (SELF_HOSTED, "applications/token", f"{SELF_HOSTED}/applications/token"),
        (SELF_HOSTED, "/applications/token", f"{SELF_HOSTED}/applications/token"),
        # As the official provider's connection has it, and as it resolves it.
        (SELF_HOSTED, "v1/applications/token", f"{SELF_HOSTED}/applications/token"),
        (SELF_HOSTED, "/api/public/v1/applications/token", f"{SELF_HOSTED}/applications/token"),
        (CLOUD, "v1/applications/token", f"{CLOUD}/applications/token"),
        (SELF_HOSTED, "/api/v1/applications/token", "http://localhost:8000/api/v1/applications/token"),
        (SELF_HOSTED, "http://localhost:8000/token", "http://localhost:8000/token"),
        (SELF_HOSTED, "https://login.example/token", "https://login.example/token"),
    ],
)
def test_token_endpoint(base: str, token_url: str | None, endpoint: str) -> None:
    assert token_endpoint(base, token_url) == endpoint


@pytest.mark.parametrize(
    "token_url",
    [
        "http://elsewhere.example/token",
        "//elsewhere.example/token",
        "http://localhost:8001/token",
        "ftp://localhost:8000/token",
        "http://user:hunter2@localhost:8000/token",
        "/token?secret=hunter2",
        "javascript:hunter2",
    ],
)
def test_a_token_endpoint_that_would_leak_the_secret_is_refused(token_url: str) -> None:
    with pytest.raises(SettingsError, match="token URL") as caught:
        token_endpoint(SELF_HOSTED, token_url)
    assert "hunter2" not in str(caught.value)


def test_no_spelling_makes_it_fail_otherwise() -> None:
    pieces = [
        "http",
        "https:",
        "://",
        "//",
        "/",
        "host",
        "[",
        "]",
        ":",
        "8000",
        "@",
        "?",
        "#",
        "%",
        "api",
        "v1",
        " ",
        "é",
    ]
    for first in pieces:
        for second in pieces:
            for third in pieces:
                for url in (f"{first}{second}{third}", f"http://{first}{second}{third}"):
                    try:
                        assert normalise_url(normalise_url(url)) == normalise_url(url)
                    except SettingsError as exc:
                        assert "\n" not in str(exc)  # noqa: PT017
