"""A session with one Airbyte: access token, back-off, and retry rules of all requests."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any

import anyio
import httpx

from airbyte_events.airbyte.auth import Credentials, HeldToken, TokenCache, as_refusal
from airbyte_events.airbyte.circuit_breaker import Backoff, transient
from airbyte_events.airbyte.gateway import same_origin, secrets_in
from airbyte_events.airbyte.transport import NO_HEADERS, ApiResponse, Observer, Request, exchange
from airbyte_events.airbyte.url import normalise_url, token_endpoint
from airbyte_events.errors import (
    AirbyteError,
    AirbyteUnreachable,
    NotFound,
    NotSent,
    RateLimited,
    SettingsError,
    Unauthorized,
)

logger = logging.getLogger(__name__)


@dataclass(eq=False, repr=False)
class Session:
    """Sends requests to one Airbyte.

    :param http: for TLS, proxies and connection limits; its time-outs and redirect setting are not used. It should
        accept no cookies (:func:`~airbyte_events._utils.http.no_cookies`): after one that is not ASCII, every request
        of httpx fails.
    :param url: in any spelling that :func:`normalise_url` accepts; the API's base afterwards.
    :param credentials: of an application; None for an Airbyte without authentication.
    :param token_url: see :func:`~airbyte_events.airbyte.url.token_endpoint`.
    :param held: the access token, if several sessions share it; its own by default.
    :param headers: for a gateway, see :mod:`airbyte_events.airbyte.gateway`.
    :param timeout: seconds for one attempt, from the connection to the last byte.
    :param attempts: of a read, at least one.
    :param base_delay: seconds, the longest delay after the first failure.
    :param max_delay: seconds, the longest delay, unless Airbyte asks for more.
    :param random: from 0 to 1, for the jitter.
    :raises SettingsError: if a URL or ``attempts`` is invalid.
    """

    http: httpx.AsyncClient
    url: str
    _: KW_ONLY
    credentials: Credentials | None = None
    token_url: str | None = None
    held: HeldToken = field(default_factory=HeldToken)
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 20.0
    attempts: int = 5
    base_delay: float = 1.0
    max_delay: float = 60.0
    random: Callable[[], float] = random.random
    on_request: Observer | None = None

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise SettingsError("attempts must be at least 1")
        self.url = normalise_url(self.url)
        self._token_url = token_endpoint(self.url, self.token_url)
        self._backoff = Backoff(base=self.base_delay, cap=self.max_delay, random=self.random)
        self._tokens = self._new_tokens()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    def _new_tokens(self) -> TokenCache | None:
        return None if self.credentials is None else TokenCache(partial(self._fetch_token, self.credentials), self.held)

    def authenticate(self, credentials: Credentials | None, headers: Mapping[str, str] = NO_HEADERS) -> bool:
        """Use these credentials and headers from now on.

        :param credentials: None: the previous ones.
        :return: whether they differ from the previous ones.
        """
        changed = headers != self.headers
        self.headers = headers
        if credentials is not None and credentials != self.credentials:
            self.credentials, self.held, changed = credentials, HeldToken(), True
            self._tokens = self._new_tokens()
        return changed

    @property
    def backing_off(self) -> float:
        """Seconds until the next attempt, 0 if Airbyte responds. Read it inside the event loop."""
        return self._backoff.remaining

    @property
    def failing_for(self) -> float:
        """Seconds from the first failure in a row to the last; 0 if Airbyte responds."""
        return self._backoff.failing_for

    def request(self, method: str, path: str, route: str | None = None, **given: Any) -> Request:
        """Return a request; ``given`` are further fields of it. Query parameters that are None are left out."""
        usual: dict[str, Any] = {"url": self.url + path, "timeout": self.timeout, "connect_timeout": self.timeout}
        params = {name: value for name, value in given.pop("params", {}).items() if value is not None}
        return Request(method=method, route=route or path, params=params, **(usual | given))

    async def read(self, request: Request) -> ApiResponse:
        """Send a read, with retries while it fails transiently."""
        return await self._authorised(
            lambda token: self._backoff.attempt(partial(self._send, token, request)),
            self.attempts,
            transient,
        )

    async def read_once(self, request: Request) -> ApiResponse:
        """Send a read once. A 500 is that request's own failure: others need not wait."""
        return await self._authorised(
            lambda token: self._backoff.attempt(partial(self._send, token, request), isolated=500), 1, transient
        )

    async def read_aside(self, request: Request) -> ApiResponse:
        """Send an optional read once, within its time-out also if it needs a new token: it delays no other request."""
        with anyio.move_on_after(request.timeout):
            return await self._authorised(lambda token: self._send(token, request), 1, transient)
        raise AirbyteUnreachable(f"{request}: no response within {request.timeout:g} s")

    async def write(self, request: Request) -> ApiResponse:
        """Send a write; retry only if Airbyte surely did not act on it."""
        return await self._authorised(
            lambda token: self._backoff.attempt_alone(partial(self._send, token, request)),
            self.attempts,
            lambda error: isinstance(error, (NotSent, RateLimited)),
        )

    async def write_once(self, request: Request) -> ApiResponse:
        """Send a write now; retry only if its token was refused."""
        return await self._authorised(
            lambda token: self._backoff.observe(partial(self._send, token, request)), 1, lambda _: False
        )

    async def ask(self, request: Request) -> ApiResponse:
        """Send once, without a token."""
        return await self._send(None, request)

    async def _authorised(
        self,
        send: Callable[[str | None], Awaitable[ApiResponse]],
        attempts: int,
        retryable: Callable[[AirbyteError], bool],
    ) -> ApiResponse:
        renewed = False
        refused: str | None = None
        while True:
            token = None if self._tokens is None else await self._tokens.get(refused=refused)
            try:
                return await send(token)
            except Unauthorized:
                if token is None or renewed:
                    raise
                renewed, refused = True, token
            except AirbyteError as exc:
                attempts -= 1
                if attempts < 1 or not retryable(exc):
                    raise
                logger.info("retrying: attempts_left=%d error=%s", attempts, exc)
                renewed, refused = False, None

    async def _fetch_token(self, credentials: Credentials) -> ApiResponse:
        request = self.request("POST", "/applications/token", url=self._token_url, json=credentials.grant())
        attempts = self.attempts
        while True:
            try:
                return await self._backoff.attempt(partial(self._send, None, request))
            except NotFound as exc:
                raise NotFound(
                    404, f"{exc} (for an Airbyte without authentication set neither client id nor secret)"
                ) from exc
            except AirbyteError as exc:
                if (refused := as_refusal(exc)) is not None:
                    raise refused from exc
                attempts -= 1
                if attempts < 1 or not transient(exc):
                    raise
                logger.info("retrying: attempts_left=%d error=%s", attempts, exc)

    async def _send(self, token: str | None, request: Request) -> ApiResponse:
        hide: tuple[str, ...] = () if self.credentials is None else (self.credentials.client_secret,)
        # The token endpoint, and the internal API of Cloud, can be on another server.
        headers = self.headers if self.headers and same_origin(request.url, self.url) else NO_HEADERS
        hide += secrets_in(headers.values())
        return await exchange(self.http, request, token=token, headers=headers, hide=hide, observe=self.on_request)
