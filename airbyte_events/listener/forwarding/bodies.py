"""The bodies that are forwarded to chats: with the text of a notification, as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from airbyte_events._utils import json_values

LONGEST_TEXT = 15_000
"""Bytes of text in a message to Google Chat. It refuses a message of over 32,000 bytes, and in JSON a text grows
(https://developers.google.com/workspace/chat/create-messages)."""


def readable(body: bytes) -> str | None:
    """Return the text of a notification: ``text``, else that of its blocks.

    Links in it are in Slack's notation, ``<URL|NAME>``, which is Google Chat's, too
    (https://developers.google.com/workspace/chat/format-messages).

    :return: None if it has no text or can't be read.
    """
    try:
        document = json_values.parse_object(body)
    except ValueError:
        return json_values.loose_text(body)
    return json_values.text(document.get("text")) or json_values.text("\n".join(_texts(document.get("blocks"))))


def text_only(body: bytes) -> bytes:
    """Return a body with the text alone, for Google Chat, which refuses unknown fields.

    ``<users/all>`` would be a mention in Chat. In Airbyte's texts it is part of a name or an error message, so it is
    changed to show as text.

    :raises ValueError: if the notification has no text.
    """
    text = readable(body)
    if text is None:
        raise ValueError("it has no text")
    text = text.replace("<users/", "< users/")
    encoded = text.encode()
    if len(encoded) > LONGEST_TEXT:
        text = encoded[:LONGEST_TEXT].decode(errors="ignore") + "…"
    return json.dumps({"text": text}, ensure_ascii=False).encode()


def valid(body: bytes) -> bytes:
    """Return the body if it is JSON, else a JSON body with its text: chats accept nothing else.

    :raises ValueError: if it has no text.
    """
    try:
        json_values.parse_object(body)
    except ValueError:
        return text_only(body)
    return body


def _texts(blocks: object) -> Iterator[str]:
    for block in blocks if isinstance(blocks, list) else []:
        held = json_values.mapping(block)
        fields = held.get("fields")
        for element in (held.get("text"), *(fields if isinstance(fields, list) else [])):
            if text := _text(element):
                yield text


def _text(element: Any) -> str | None:
    return json_values.text(element if isinstance(element, str) else json_values.mapping(element).get("text"))
