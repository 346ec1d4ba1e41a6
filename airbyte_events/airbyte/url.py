"""The URL of Airbyte's public API, from any of its common spellings."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, quote, urlencode, urljoin, urlsplit

import httpx

from airbyte_events.errors import SettingsError

CLOUD_URL = "https://api.airbyte.com/v1"
SELF_HOSTED_PATH = "/api/public/v1"

_CLOUD_HOST = "api.airbyte.com"
_CLOUD_PAGES = frozenset({"cloud.airbyte.com", "cloud.airbyte.io", "app.airbyte.com", "airbyte.com", "www.airbyte.com"})
_EXAMPLE = f"http://localhost:8000{SELF_HOSTED_PATH}"


def normalise_url(url: str) -> str:
    """Return the base URL of the public API, without a trailing slash.

    A server's URL without the API's path gets that of a self-hosted Airbyte, ``/api/public/v1``, also behind a proxy's
    path prefix; ``https://api.airbyte.com`` gets ``/v1``. A path that ends in ``/v1`` and is not the internal API's is
    kept (old releases serve ``http://localhost:8006/v1``).

    :param url: for example ``http://localhost:8000``, ``http://localhost:8000/api/public/v1/`` or
        ``https://api.airbyte.com/v1/``.
    :raises SettingsError: if it can't be the public API's; the message has the right spelling, and neither user
        information nor query.
    """
    parts = _split(url, "Airbyte URL", _EXAMPLE)
    origin = _origin(parts)
    path = re.sub(r"/{2,}", "/", parts.path).rstrip("/")
    if parts.hostname in _CLOUD_PAGES:
        raise SettingsError(f"the Airbyte URL {origin} is a web page; the API of Airbyte Cloud is {CLOUD_URL}")
    if parts.hostname == _CLOUD_HOST:
        if origin != f"https://{_CLOUD_HOST}" or path not in {"", "/v1"}:
            raise SettingsError(f"the Airbyte URL {origin}{path} is not the API of Airbyte Cloud: write {CLOUD_URL}")
        return CLOUD_URL
    return origin + _self_hosted_path(origin, path)


def _self_hosted_path(origin: str, path: str) -> str:
    match = re.fullmatch(r"(.*?)(/api(?:/public(?:/v1(?:/.*)?)?|/v1(?:/.*)?)?|/workspaces(?:/.*)?)", path)
    if match is None:
        return path if path.endswith("/v1") else path + SELF_HOSTED_PATH
    prefix, rest = match.groups()
    if rest == SELF_HOSTED_PATH:
        return path
    if rest.startswith("/api/v1"):
        fault = "is of the internal configuration API"
    elif rest.startswith("/workspaces"):
        fault = "is a page of the web interface"
    else:
        fault = "is not the base of the public API"
    raise SettingsError(f"the Airbyte URL {origin}{path} {fault}: write {origin}{prefix}{SELF_HOSTED_PATH}")


def internal_url(base: str) -> str:
    """Return the base URL of the internal API, which Airbyte's own pages use.

    :param base: from :func:`normalise_url`.
    """
    if base == CLOUD_URL:
        return "https://cloud.airbyte.com/api/v1"
    return base.removesuffix("/v1").removesuffix("/api/public") + "/api/v1"


def web_url(base: str) -> str | None:
    """Return the URL of Airbyte's web app; None if the API's does not show it.

    :param base: from :func:`normalise_url`.
    """
    if base == CLOUD_URL:
        return "https://cloud.airbyte.com"
    return base.removesuffix(SELF_HOSTED_PATH) if base.endswith(SELF_HOSTED_PATH) else None


def connection_page(web: str, workspace_id: str, connection_id: str) -> str:
    """Return the URL of a connection in the web app."""
    return f"{web}/workspaces/{quote(workspace_id, safe='')}/connections/{quote(connection_id, safe='')}"


def job_log_page(connection_page: str, job_id: int) -> str:
    """Return the URL of a job in the connection's timeline, its log open."""
    return f"{connection_page}/timeline?{urlencode({'openLogs': 'true', 'jobId': job_id})}"


def token_endpoint(base: str, token_url: str | None = None) -> str:
    """Return the URL of the token endpoint.

    :param base: from :func:`normalise_url`.
    :param token_url: if it is not ``<base>/applications/token``: absolute, or relative as in the ``schema`` field of
        the official Airflow provider (``v1/applications/token``, ``/api/public/v1/applications/token``).
    :raises SettingsError: if the URL is invalid, or would send the client secret to another server without TLS.
    """
    usual = f"{base}/applications/token"
    wanted = (token_url or "").strip()
    if wanted.strip("/") in {"", "applications/token"}:
        return usual
    try:
        address = urljoin(base, wanted)
    except ValueError as exc:
        raise SettingsError(f"the token URL has no usable host and port: write for example {usual}") from exc
    parts = _split(address, "token URL", usual)
    origin = _origin(parts)
    if parts.scheme != "https" and origin != _origin(urlsplit(base)):
        raise SettingsError(
            f"the token URL {origin} is another server without TLS: write {usual}, or an https:// address"
        )
    return origin + parts.path


def _split(url: str, noun: str, example: str) -> SplitResult:
    url = url.strip()
    if not url:
        raise SettingsError(f"the {noun} is empty: write for example {example}")
    if re.search(r"[\x00-\x20\x7f\\]", url):
        raise SettingsError(f"the {noun} has a space or another character that no URL has: write for example {example}")
    scheme, separator, rest = url.partition("://")
    if not separator:
        bare = re.sub(r"^(?:https?:)?/*", "", url)
        raise SettingsError(f"the {noun} has no scheme: write {_respelt('//' + bare, example)}")
    if scheme.lower() not in {"http", "https"}:
        raise SettingsError(f"the {noun} is neither http:// nor https://: write {_respelt('//' + rest, example)}")
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0 and bool(httpx.URL(_origin(parts)).host)
    except (ValueError, httpx.InvalidURL) as exc:
        raise SettingsError(f"the {noun} has no usable host and port: write for example {example}") from exc
    if not usable:
        raise SettingsError(f"the {noun} has no usable host and port: write for example {example}")
    if "@" in url:
        # A password that contains a slash can look like a path: only the part after the last "@" is shown.
        right = f"{_origin(parts)}{parts.path}" if "@" not in parts.path + parts.query + parts.fragment else example
        raise SettingsError(
            f"the {noun} has a user name in it, but client id and secret have own settings: write {right}"
        )
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise SettingsError(f"the {noun} has a query or fragment: write {_origin(parts)}{parts.path}")
    return parts


def _respelt(url: str, example: str) -> str:
    """Return the URL with a scheme, if it has a host and nothing that might be secret."""
    try:
        parts = urlsplit(url)
        origin = _origin(parts._replace(scheme="https" if parts.hostname == _CLOUD_HOST else "http"))
    except ValueError:
        return f"for example {example}"
    if not parts.hostname or "@" in url:
        return f"for example {example}"
    return origin + parts.path


def _origin(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{host}" + ("" if parts.port in {None, default} else f":{parts.port}")
