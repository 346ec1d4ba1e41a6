"""Access tokens by client credentials: fetched once for all callers, renewed when one is refused."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio

from airbyte_events._utils import json_values
from airbyte_events.airbyte.circuit_breaker import again
from airbyte_events.airbyte.transport import ApiResponse
from airbyte_events.errors import (
    AirbyteError,
    AirbyteProtocolError,
    AirbyteStatusError,
    Forbidden,
    SettingsError,
    Unauthorized,
)

_RENEW_AT = 0.9

_LONGEST_TOKEN = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The credentials of an Airbyte application (*User settings > Applications* in Airbyte).

    :raises SettingsError: if one of the two is empty.
    """

    client_id: str
    client_secret: str = field(repr=False)

    def __post_init__(self) -> None:
        for name, other in (("client_id", "client_secret"), ("client_secret", "client_id")):
            if not getattr(self, name):
                raise SettingsError(
                    f"{name.replace('_', ' ')} is empty, though {other.replace('_', ' ')} is set: set both"
                )

    def grant(self) -> dict[str, str]:
        """Return the body of a request for a token."""
        return {
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "grant_type": "client_credentials",
        }


def as_refusal(error: AirbyteError) -> AirbyteStatusError | None:
    """Return a token endpoint's error as a refusal of the credentials; None if it is another error.

    Keycloak refuses them with 401, Airbyte's own simple authentication (``abctl``) with 400. The refusal has no type,
    as callers would take that for the type of their own request's error.
    """
    if not isinstance(error, AirbyteStatusError) or error.status_code not in (400, 401, 403):
        return None
    kind = Forbidden if error.status_code == 403 else Unauthorized
    means = "" if error.page else " (Airbyte rejects this client id and secret)"
    return kind(error.status_code, f"{error}{means}", page=error.page)


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token, and when to renew it on the event loop's clock; None: once it is refused."""

    value: str = field(repr=False)
    renew_at: float | None = None


@dataclass(eq=False, slots=True)
class HeldToken:
    """Holds the current token. Sessions of one application may share it, also in other threads and event loops, whose
    clock has to be the same: asyncio's is, trio's is not.
    """

    current: AccessToken | None = None


class TokenCache:
    """Fetches tokens as they are needed.

    :param fetch: requests a new one from the token endpoint.
    :param held: holds the current one.
    """

    def __init__(self, fetch: Callable[[], Awaitable[ApiResponse]], held: HeldToken) -> None:
        self._fetch = fetch
        self._held = held
        self._lock = anyio.Lock()
        self._fetches = 0
        self._failure: AirbyteError | None = None

    async def get(self, *, refused: str | None = None) -> str:
        """Return the token; fetch one if there is none, if it is about to expire, or if it is the refused one.

        Airbyte's ``expires_in`` can be longer than a token's life (900 s against 180 s), so it is an upper bound; a 401
        of the API invalidates the token earlier.

        :raises AirbyteError: if none can be fetched. Callers that waited for another's fetch share its failure.
        """
        if (token := self._usable(refused)) is not None:
            return token
        fetches = self._fetches
        async with self._lock:
            if (token := self._usable(refused)) is not None:
                return token
            if self._fetches != fetches and self._failure is not None:
                raise again(self._failure)
            self._failure = None
            try:
                return self._accept(await self._fetch())
            except AirbyteError as exc:
                self._failure = exc
                raise
            finally:
                self._fetches += 1

    def _usable(self, refused: str | None) -> str | None:
        token = self._held.current
        if token is None or token.value == refused:
            return None
        if token.renew_at is not None and anyio.current_time() >= token.renew_at:
            return None
        return token.value

    def _accept(self, response: ApiResponse) -> str:
        fields = response.object()
        token = fields.get("access_token")
        if not isinstance(token, str) or re.fullmatch(rf"[!-~]{{1,{_LONGEST_TOKEN}}}", token) is None:
            raise AirbyteProtocolError(f"{response.request}: the response has no usable access_token")
        life = json_values.seconds(fields.get("expires_in"))
        renew_at = None if not life else anyio.current_time() + _RENEW_AT * life
        self._held.current = AccessToken(token, renew_at)
        return token
