"""The text that a notification has for people, and the body for a chat that takes nothing else. Without any I/O."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from airbyte_events._utils import json_values

LONGEST_TEXT = 15_000
"""Bytes of text in a message to Google Chat. It refuses a message of over 32,000 bytes, and in JSON a text grows
(https://developers.google.com/workspace/chat/create-messages)."""


def readable(body: bytes) -> str | None:
    """The text that a notification's body carries for people: ``text``, else that of its blocks.

    Links in it are in Slack's notation, ``<URL|NAME>``, which is Google Chat's, too
    (https://developers.google.com/workspace/chat/format-messages).

    :return: None if it has none, or can't be read.
    """
    try:
        document = json_values.parse_object(body)
    except ValueError:
        return json_values.loose_text(body)
    return json_values.text(document.get("text")) or json_values.text("\n".join(_texts(document.get("blocks"))))


def text_only(body: bytes) -> bytes:
    """Return a body with the text alone: for Google Chat, which refuses fields that it does not know.

    What Chat would read as a mention (``<users/all>``) is shown as text: in Airbyte's texts it is a name or an error
    message that looks like one, and Slack's mentions are written otherwise.

    :raises ValueError: if the notification carries no text.
    """
    text = readable(body)
    if text is None:
        raise ValueError("it carries no text")
    text = text.replace("<users/", "< users/")
    encoded = text.encode()
    if len(encoded) > LONGEST_TEXT:
        text = encoded[:LONGEST_TEXT].decode(errors="ignore") + "…"
    return json.dumps({"text": text}, ensure_ascii=False).encode()


def valid(body: bytes) -> bytes:
    """Return the body as it is, if it is JSON, and its text alone as JSON otherwise: chats refuse anything else.

    :raises ValueError: if it carries no text.
    """
    try:
        json_values.parse_object(body)
    except ValueError:
        return text_only(body)
    return body


def _texts(blocks: object) -> Iterator[str]:
    """The texts of blocks and of their fields, in order."""
    for block in blocks if isinstance(blocks, list) else []:
        held = json_values.mapping(block)
        fields = held.get("fields")
        for element in (held.get("text"), *(fields if isinstance(fields, list) else [])):
            if text := _text(element):
                yield text


def _text(element: Any) -> str | None:
    return json_values.text(element if isinstance(element, str) else json_values.mapping(element).get("text"))
