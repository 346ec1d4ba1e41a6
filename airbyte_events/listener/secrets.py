"""Reload secrets while the listener runs, without a restart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread
import httpx
from pydantic import SecretStr

from airbyte_events.airbyte import AirbyteClient, Credentials
from airbyte_events.airbyte.gateway import parse_headers
from airbyte_events.errors import SettingsError
from airbyte_events.listener.settings import InstanceSettings, Settings
from airbyte_events.web.auth import Tokens, digest_of
from airbyte_events.web.tls import Certificate

logger = logging.getLogger(__name__)

RELOAD_SECONDS = 5.0
"""The time between two reads of settings and files. They are compared by content: Kubernetes swaps links, which file
watchers miss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """The secrets in use.

    :param metrics_tokens: None if the metrics are public.
    :param authenticate: by instance name; sets credentials and headers, and returns whether they changed.
    :param certificate: None without TLS.
    """

    webhook_tokens: Tokens
    api_tokens: Tokens
    metrics_tokens: Tokens | None
    operator_tokens: Tokens
    authenticate: Mapping[str, Callable[[Credentials | None, Mapping[str, str]], bool]]
    certificate: Certificate | None

    def apply(self, settings: Settings) -> None:
        """Use the secrets of these settings. All other settings keep the values of the start.

        :raises SettingsError: if the certificate can't be used; everything else has been applied.
        """
        # Without configured tokens, those that were generated at the first start stay valid.
        for name, tokens, given in (
            ("webhook tokens", self.webhook_tokens, settings.webhook_tokens),
            ("API tokens", self.api_tokens, settings.api_tokens),
            ("metrics tokens", self.metrics_tokens, settings.metrics_tokens),
        ):
            if given and tokens is not None and tokens.replace(digests_of(given)):
                logger.info("reloaded %s: valid=%d", name, len(given))
        # Unlike those, all of these can be taken away.
        if self.operator_tokens.replace(digests_of(settings.operator_tokens)):
            logger.info("reloaded operator tokens: valid=%d", len(settings.operator_tokens))
        for name, authenticate in self.authenticate.items():
            instance = settings.instances.get(name)
            if instance is not None and authenticate(credentials_of(instance), headers_of(instance)):
                logger.info("reloaded the Airbyte credentials: instance=%s", name)
        if self.certificate is not None and self.certificate.reload():
            logger.info("reloaded the TLS certificate")

    async def follow(self, load: Callable[[], Settings], *, every: float = RELOAD_SECONDS) -> None:
        """Apply changes until cancelled. An unusable secret changes nothing and is logged once.

        :param load: reads the settings; called in a thread.
        :param every: seconds.
        """
        logged = ""
        while True:
            await anyio.sleep(every)
            try:
                self.apply(await anyio.to_thread.run_sync(load))
                logged = ""
            except SettingsError as exc:
                if str(exc) != logged:
                    logger.error("could not reload secrets, the old ones stay in use: error=%s", exc)
                logged = str(exc)


def digests_of(tokens: tuple[SecretStr, ...]) -> list[str]:
    """Return the digests by which configured tokens are recognised."""
    return [digest_of(token.get_secret_value()) for token in tokens]


def credentials_of(instance: InstanceSettings) -> Credentials | None:
    """Return the credentials of an instance; None if it runs without authentication."""
    if instance.client_id is None or instance.client_secret is None:
        return None
    return Credentials(client_id=instance.client_id, client_secret=instance.client_secret.get_secret_value())


def headers_of(instance: InstanceSettings) -> dict[str, str]:
    """Return the headers for the gateway in front of an instance."""
    lines = (line.get_secret_value() for line in instance.headers)
    headers = parse_headers(lines, authorized=instance.client_id is not None)
    if instance.bearer_token is not None:
        headers["Authorization"] = f"Bearer {instance.bearer_token.get_secret_value()}"
    return headers


def airbyte_client(http: httpx.AsyncClient, instance: InstanceSettings, **options: Any) -> AirbyteClient:
    """Return the client of an instance.

    :param options: further ones of :class:`AirbyteClient`.
    """
    return AirbyteClient(
        http,
        instance.airbyte_url,
        credentials=credentials_of(instance),
        token_url=instance.token_url,
        headers=headers_of(instance),
        workspace_ids=instance.workspace_ids,
        **options,
    )
