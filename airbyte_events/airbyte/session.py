"""A session with one Airbyte: access token, back-off, and retry rules of all requests."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import httpx

from airbyte_events.airbyte.auth import Credentials, TokenCache, as_refusal
from airbyte_events.airbyte.circuit_breaker import Backoff, transient
from airbyte_events.airbyte.transport import ApiResponse, Observer, Request, exchange
from airbyte_events.airbyte.url import normalise_url, token_endpoint
from airbyte_events.errors import AirbyteError, NotFound, NotSent, RateLimited, ServerError, SettingsError, Unauthorized

logger = logging.getLogger(__name__)


class _Isolated(AirbyteError):
    """A failure of one request that says nothing about the server."""

    def __init__(self, error: ServerError) -> None:
        super().__init__(str(error))
        self.error = error


class Session:
    """Sends requests; the parameters are those of :class:`~airbyte_events.airbyte.AirbyteClient`."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        url: str,
        *,
        credentials: Credentials | None,
        token_url: str | None,
        timeout: float,
        attempts: int,
        base_delay: float,
        max_delay: float,
        random: Callable[[], float],
        on_request: Observer | None,
    ) -> None:
        if attempts < 1:
            raise SettingsError("attempts must be at least 1")
        self.url = normalise_url(url)
        self._http = http
        self._token_url = token_endpoint(self.url, token_url)
        self._timeout = timeout
        self._attempts = attempts
        self._observe = on_request
        self._backoff = Backoff(base=base_delay, cap=max_delay, random=random)
        self._credentials: Credentials | None = None
        self._tokens: TokenCache | None = None
        if credentials is not None:
            self.authenticate(credentials)

    def authenticate(self, credentials: Credentials) -> bool:
        """Use these credentials from now on.

        :return: whether they differ from the previous ones.
        """
        if credentials == self._credentials:
            return False
        self._credentials = credentials
        self._tokens = TokenCache(partial(self._fetch_token, credentials))
        return True

    @property
    def backing_off(self) -> float:
        """Seconds until the next attempt, 0 if Airbyte responds."""
        return self._backoff.remaining

    @property
    def failing_for(self) -> float:
        """Seconds from the first failure in a row to the last; 0 without failures."""
        return self._backoff.failing_for

    def request(self, method: str, path: str, route: str | None = None) -> Request:
        return Request(
            method=method,
            url=self.url + path,
            route=route or path,
            timeout=self._timeout,
            connect_timeout=self._timeout,
        )

    async def read(self, request: Request, attempts: int | None = None) -> ApiResponse:
        """Send a read, with retries while it fails transiently."""
        return await self._authorised(
            lambda token: self._backoff.attempt(partial(self._send, token, request)),
            attempts or self._attempts,
            transient,
        )

    async def read_once(self, request: Request) -> ApiResponse:
        """Send a read once. A 500 is that request's own failure: others need not wait."""

        async def send(token: str | None) -> ApiResponse:
            try:
                return await self._send(token, request)
            except ServerError as exc:
                if exc.status_code == 500:
                    raise _Isolated(exc) from exc
                raise

        try:
            return await self._authorised(lambda token: self._backoff.attempt(partial(send, token)), 1, transient)
        except _Isolated as exc:
            raise exc.error from None

    async def write(self, request: Request) -> ApiResponse:
        """Send a write; retry only if Airbyte surely did not act on it."""
        return await self._authorised(
            lambda token: self._backoff.attempt_alone(partial(self._send, token, request)),
            self._attempts,
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
        request = replace(
            self.request("POST", "", "/applications/token"),
            url=self._token_url,
            json={
                "client_id": credentials.client_id,
                "client_secret": credentials.client_secret,
                "grant_type": "client_credentials",
            },
        )
        attempts = self._attempts
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
        hide = () if self._credentials is None else (self._credentials.client_secret,)
        return await exchange(self._http, request, token=token, hide=hide, observe=self._observe)
