"""What all requests to one Airbyte share: the access token, the back-off, and which are sent again."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import httpx

from airbyte_events.airbyte.auth import Credentials, TokenCache, as_refusal
from airbyte_events.airbyte.circuit_breaker import Backoff, transient
from airbyte_events.airbyte.transport import Answer, Observer, Request, exchange
from airbyte_events.airbyte.url import normalise_url, token_endpoint
from airbyte_events.errors import (
    AirbyteError,
    NotFound,
    NotSent,
    RateLimited,
    ServerError,
    SettingsError,
    Unauthorized,
)

logger = logging.getLogger(__name__)


class _Own(AirbyteError):
    """A failure that says nothing of the server as a whole."""

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

        :return: whether they are others than before.
        """
        if credentials == self._credentials:
            return False
        self._credentials = credentials
        self._tokens = TokenCache(partial(self._fetch_token, credentials))
        return True

    @property
    def backing_off(self) -> float:
        """Seconds until the next attempt may set out, 0 if Airbyte answers."""
        return self._backoff.remaining

    @property
    def failing_for(self) -> float:
        """Seconds for which every request has failed, from the first to the last; 0 if the server answers."""
        return self._backoff.failing_for

    def request(self, method: str, path: str, route: str | None = None) -> Request:
        return Request(
            method=method,
            url=self.url + path,
            route=route or path,
            timeout=self._timeout,
            connect_timeout=self._timeout,
        )

    async def read(self, request: Request, attempts: int | None = None) -> Answer:
        """Send what changes nothing: again and again if it fails for a while."""
        return await self._authorised(
            lambda token: self._backoff.attempt(partial(self._send, token, request)),
            attempts or self._attempts,
            transient,
        )

    async def read_once(self, request: Request) -> Answer:
        """Send what changes nothing once. A 500 is the trouble of what was asked for: nobody else waits for its end."""

        async def send(token: str | None) -> Answer:
            try:
                return await self._send(token, request)
            except ServerError as exc:
                if exc.status_code == 500:
                    raise _Own(exc) from exc
                raise

        try:
            return await self._authorised(lambda token: self._backoff.attempt(partial(send, token)), 1, transient)
        except _Own as exc:
            raise exc.error from None

    async def write(self, request: Request) -> Answer:
        """Send what changes something: again only if it surely was not acted upon."""
        return await self._authorised(
            lambda token: self._backoff.attempt_alone(partial(self._send, token, request)),
            self._attempts,
            lambda error: isinstance(error, (NotSent, RateLimited)),
        )

    async def write_once(self, request: Request) -> Answer:
        """Send what changes something now, and once: again only if its token was refused."""
        return await self._authorised(
            lambda token: self._backoff.observe(partial(self._send, token, request)), 1, lambda _: False
        )

    async def ask(self, request: Request) -> Answer:
        """Send once, without a token."""
        return await self._send(None, request)

    async def _authorised(
        self,
        send: Callable[[str | None], Awaitable[Answer]],
        attempts: int,
        worth_repeating: Callable[[AirbyteError], bool],
    ) -> Answer:
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
                if attempts < 1 or not worth_repeating(exc):
                    raise
                logger.info("%s; %d attempts left", exc, attempts)
                renewed, refused = False, None

    async def _fetch_token(self, credentials: Credentials) -> Answer:
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
                    404, f"{exc} (an Airbyte without authentication wants neither client id nor client secret)"
                ) from exc
            except AirbyteError as exc:
                if (refused := as_refusal(exc)) is not None:
                    raise refused from exc
                attempts -= 1
                if attempts < 1 or not transient(exc):
                    raise
                logger.info("%s; %d attempts left", exc, attempts)

    async def _send(self, token: str | None, request: Request) -> Answer:
        hide = () if self._credentials is None else (self._credentials.client_secret,)
        return await exchange(self._http, request, token=token, hide=hide, observe=self._observe)
