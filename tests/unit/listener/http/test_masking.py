from __future__ import annotations

import json

import pytest

from airbyte_events.listener.http.masking import MOST_CHARACTERS, masked_text, shown_body

END = "-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("jdbc:postgresql://u:p@h/db", "jdbc:postgresql://***@h/db"),
        ("GET https://h/x?token=abc&page=2", "GET https://h/x?token=***&page=2"),
        ('{"client_secret": "abc"}', '{"client_secret": "***"}'),
        ("Authorization: Bearer abcdefgh.ijkl", "Authorization: Bearer ***"),
        ("https://h/webhooks/default/abcdefghijkl", "https://h/webhooks/default/***"),
        (
            "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----***" + END,
        ),
        (
            "17 records, https://airbyte.example.com/connections/5",
            "17 records, https://airbyte.example.com/connections/5",
        ),
    ],
)
def test_secrets_in_texts_are_masked(text: str, shown: str) -> None:
    assert masked_text(text) == shown


def test_values_of_keys_that_name_a_secret_are_masked_whatever_they_are() -> None:
    body = {"data": [{"Password": {"a": "x"}, "apiKey": 7, "secretless": None, "name": "x"}]}
    text, truncated = shown_body(json.dumps(body).encode())
    assert json.loads(text) == {"data": [{"Password": "***", "apiKey": "***", "secretless": None, "name": "x"}]}
    assert not truncated


@pytest.mark.parametrize("body", [b"\xff no json, password=x", b"[" * 100_000, b""])
def test_what_is_no_json_is_text(body: bytes) -> None:
    text, _ = shown_body(body)
    assert "password=x" not in text


def test_a_long_body_is_cut_off() -> None:
    text, truncated = shown_body(json.dumps({"text": "ä" * 500_000}).encode())
    assert len(text) == MOST_CHARACTERS
    assert truncated
