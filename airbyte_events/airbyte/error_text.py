"""The text of an error response in one line: bounded, printable, without secrets."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx

from airbyte_events._utils import json_values

_LONGEST = 300
_MOST_ERRORS = 3
_PAGE = re.compile(rb"\s*<(!doctype html|html)\b", re.IGNORECASE)
_TITLE = re.compile(rb"<title[^>]{0,200}>([^<]{1,200})</title", re.IGNORECASE)
_LOGIN = re.compile(r"log-?in|sign-?in|auth|sso|saml|adfs", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorText:
    """The text of an error.

    :param message: its reason, else the status phrase.
    :param type: the type of a problem document, such as ``state-conflict``.
    :param page: whether it is a web page, so a response of a proxy in front of Airbyte.
    """

    message: str
    type: str | None = None
    page: bool = False

    @classmethod
    def of(cls, response: httpx.Response, body: bytes, hide: tuple[str, ...]) -> ErrorText:
        """Read a response with an error status.

        :param hide: secrets to mask if the server repeats them.
        """
        if (page := web_page(response.headers, body, hide)) is not None:
            return cls(message=one_line(f"{_phrase(response)} (the response is {page})", hide), page=True)
        try:
            document = json_values.parse_object(body)
        except ValueError:
            return cls(message=one_line(_plain(response, body) or _phrase(response), hide))
        return cls(
            message=one_line(_said(document) or _phrase(response), hide),
            type=_tail(one_line(json_values.text(document.get("type")) or "", hide)),
        )


def web_page(headers: httpx.Headers, body: bytes, hide: tuple[str, ...]) -> str | None:
    """Return the description of a web page, with its title; None for another body."""
    if "html" not in headers.get("content-type", "").lower() and _PAGE.match(body) is None:
        return None
    match = _TITLE.search(body[:65536])
    title = "" if match is None else one_line(html.unescape(match[1].decode(errors="replace")), hide)[:80]
    return f"a web page titled «{title}»" if title else "a web page"


def redirection(url: str, response: httpx.Response) -> str:
    """Return where a redirect leads, with the remedy."""
    if "location" not in response.headers:
        return f"redirected ({response.status_code}): write the URL that needs no redirect"
    origin = httpx.URL(url)
    target = origin.join(_location(response.headers["location"]))
    where = f"redirected to {target.scheme}://{target.netloc.decode('ascii')} ({response.status_code})"
    if target.host != origin.host or _LOGIN.search(target.path):
        return f"{where}, a login: let requests to the API pass without one"
    return f"{where}: write the URL that needs no redirect"


def one_line(text: str, hide: tuple[str, ...]) -> str:
    for secret in hide:
        for spelling in (secret, quote(secret, safe="")):
            text = text.replace(spelling, "***")
    text = " ".join(re.sub(r"[^\w\s!-~…«»]", "?", text).split())
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _said(document: dict[str, Any]) -> str | None:
    """Return the reason from any of Airbyte's shapes of errors.

    Problem documents have it in ``data.message``, and a constant sentence in ``detail``; the web framework in
    ``_embedded.errors[].message``, and the status phrase in ``message``; OAuth in ``error_description``.
    """
    data = json_values.mapping(document.get("data"))
    errors = json_values.mapping(document.get("_embedded")).get("errors")
    embedded = (
        [json_values.text(json_values.mapping(each).get("message")) for each in errors]
        if isinstance(errors, list)
        else []
    )
    named = " ".join(filter(None, (json_values.text(data.get(name)) for name in ("resourceType", "resourceId"))))
    detail = json_values.text(document.get("detail"))
    candidates = (
        json_values.text(data.get("message")),
        "; ".join(list(dict.fromkeys(filter(None, embedded)))[:_MOST_ERRORS]),
        f"{detail} ({named})" if detail and named else detail,
        json_values.text(document.get("error_description")),
        json_values.text(document.get("message")),
        json_values.text(document.get("title")),
        json_values.text(document.get("error")),
    )
    return next((said for said in candidates if said), None)


def _tail(type: str) -> str | None:
    """Return ``state-conflict`` of ``https://reference.airbyte.com/reference/errors#409-state-conflict``.

    Some have the status before their name, and releases differ in it.
    """
    match = re.search(r"(?<![A-Za-z0-9_.-])(?:[1-5][0-9]{2}-)?([A-Za-z0-9_.-]{1,60})$", type)
    return None if match is None or match[1] == "blank" else match[1]


def _plain(response: httpx.Response, body: bytes) -> str | None:
    """Return a proxy's plain text, such as *no healthy upstream*."""
    plain = response.headers.get("content-type", "").lower().startswith("text/plain")
    return f"{_phrase(response)} ({said})" if plain and (said := body[:1000].decode(errors="replace").strip()) else None


def _phrase(response: httpx.Response) -> str:
    try:
        return HTTPStatus(response.status_code).phrase
    except ValueError:
        return "no reason given"


def _location(value: str) -> str:
    try:
        return str(httpx.URL(value).copy_with(userinfo=b"", query=None, fragment=None))
    except httpx.InvalidURL:
        return ""
