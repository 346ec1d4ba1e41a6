"""Mask secrets in a webhook's body before a person reads it."""

from __future__ import annotations

import json
import re
from typing import Any

MOST_CHARACTERS = 64 * 1024
"""The largest part of a body that is shown."""

MASK = "***"

_NAMES = r"(?:pass(?:word|wd|phrase)|pwd|secret|token|(?:api|access|private)[-_]?key|credentials?|signature)"
_SECRET_KEY = re.compile(rf"{_NAMES}|authorization|cookie", re.IGNORECASE)
_IN_TEXT = (
    # The user and password of a URL.
    (re.compile(r"(://)[^/\s@\"']{1,500}@"), rf"\g<1>{MASK}@"),
    # password=…, "token": "…", also in a URL's query.
    (
        re.compile(
            rf"({_NAMES}[a-z_-]{{0,20}}[\"']?\s{{0,3}}[=:]\s{{0,3}}[\"']?)[^\s\"'&,;}}]{{1,2000}}", re.IGNORECASE
        ),
        rf"\g<1>{MASK}",
    ),
    (re.compile(r"\b(Bearer|Basic)\s{1,3}[\w.~+/=-]{8,2000}", re.IGNORECASE), rf"\g<1> {MASK}"),
    (re.compile(r"(/webhooks/[\w-]{1,40}/)[\w-]{8,200}"), rf"\g<1>{MASK}"),
    (
        re.compile(r"(-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----)(?:(?!-----END).){0,20000}", re.DOTALL),
        rf"\g<1>{MASK}",
    ),
)


def shown_body(body: bytes) -> tuple[str, bool]:
    """Return a body as text without secrets, indented if it is JSON, and whether its end was left out.

    Masked are the values of keys that name a secret, such as ``password`` or ``api_key``, and in texts: the user part
    of URLs, assignments such as ``password=…``, ``Bearer …``, private keys, and the listener's webhook URLs.
    """
    try:
        text = json.dumps(_masked(json.loads(body)), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        text = masked_text(body.decode(errors="replace"))
    return text[:MOST_CHARACTERS], len(text) > MOST_CHARACTERS


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            masked_text(key): MASK if _SECRET_KEY.search(key) and each not in (None, "") else _masked(each)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [_masked(each) for each in value]
    return masked_text(value) if isinstance(value, str) else value


def masked_text(text: str) -> str:
    """Return a text without the secrets that are recognised by what surrounds them."""
    for pattern, replacement in _IN_TEXT:
        text = pattern.sub(replacement, text)
    return text
