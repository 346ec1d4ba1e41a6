"""Secrets that change while a listener runs: read anew, and taken over without a restart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import anyio
import anyio.to_thread
from pydantic import SecretStr

from airbyte_events.airbyte import Credentials
from airbyte_events.errors import SettingsError
from airbyte_events.listener.settings import InstanceSettings, Settings
from airbyte_events.web.auth import Tokens, digest_of
from airbyte_events.web.tls import Certificate

logger = logging.getLogger(__name__)

ROTATION_SECONDS = 5.0
"""So often settings and files are read. They are compared by content: links that are swapped, as Kubernetes does it,
have been a trap to whatever watches files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """The secrets in use.

    :param metrics_tokens: None where anybody may read the metrics.
    :param authenticate: by instance name; takes its credentials, and returns whether they are others than before.
    :param certificate: None without TLS.
    """

    webhook_tokens: Tokens
    api_tokens: Tokens
    authenticate: Mapping[str, Callable[[Credentials], bool]]
    metrics_tokens: Tokens | None = None
    certificate: Certificate | None = None

    def renew(self, settings: Settings) -> None:
        """Take over the secrets among these settings. Everything else stays what it was at the start.

        :raises SettingsError: if the certificate can't be used; everything before it was taken over.
        """
        # Without configured tokens there are those that were made at the first start.
        for what, tokens, given in (
            ("webhook tokens", self.webhook_tokens, settings.webhook_tokens),
            ("API tokens", self.api_tokens, settings.api_tokens),
            ("metrics tokens", self.metrics_tokens, settings.metrics_tokens),
        ):
            if given and tokens is not None and tokens.replace(digests_of(given)):
                logger.info("the %s are others now: %d are valid", what, len(given))
        for name, authenticate in self.authenticate.items():
            credentials = credentials_of(settings.instances[name]) if name in settings.instances else None
            if credentials is not None and authenticate(credentials):
                logger.info("the credentials of %s are others now", name)
        if self.certificate is not None and self.certificate.renew():
            logger.info("the certificate is another one now")

    async def follow(self, load: Callable[[], Settings], *, every: float = ROTATION_SECONDS) -> None:
        """Take over what changes, until cancelled. What can't be used changes nothing, and is told of once.

        :param load: reads the settings; called in a thread.
        :param every: seconds.
        """
        told = ""
        while True:
            await anyio.sleep(every)
            try:
                self.renew(await anyio.to_thread.run_sync(load))
                told = ""
            except SettingsError as exc:
                if str(exc) != told:
                    logger.error("what was in use stays in use, as it can't be renewed: %s", exc)
                told = str(exc)


def digests_of(tokens: tuple[SecretStr, ...]) -> list[str]:
    """What is kept of configured tokens."""
    return [digest_of(token.get_secret_value()) for token in tokens]


def credentials_of(instance: InstanceSettings) -> Credentials | None:
    """What an instance's access tokens are got by; None where it runs without authentication."""
    if instance.client_id is None or instance.client_secret is None:
        return None
    return Credentials(client_id=instance.client_id, client_secret=instance.client_secret.get_secret_value())
