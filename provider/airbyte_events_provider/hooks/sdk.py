"""Airbyte's own Python SDK, for code that was written for the official provider's hook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
from airflow.providers.common.compat.sdk import AirflowException

from airbyte_events._utils.proxies import async_client, blocking_client
from airbyte_events.airbyte.gateway import same_origin
from airbyte_events.airbyte.url import token_endpoint
from airbyte_events_provider.connections.clients import make_tls, translating_proxy_errors
from airbyte_events_provider.connections.settings import AirbyteSettings

if TYPE_CHECKING:
    from airbyte_api import AirbyteAPI


def open_sdk(settings: AirbyteSettings) -> AirbyteAPI:
    """Return the SDK's client for these settings.

    :raises AirflowException: if the SDK is not installed.
    :raises SettingsError: if the certificates or proxies can't be used.
    """
    try:
        from airbyte_api import AirbyteAPI
        from airbyte_api.models import SchemeClientCredentials, Security
    except ImportError as exc:
        raise AirflowException(
            "Airbyte's SDK is not installed, which only airbyte_api and create_api_session() need: "
            "pip install 'airbyte-api>=1,<2', or use the hook's own methods, or hook.open()"
        ) from exc
    security = None
    if settings.credentials is not None:
        security = Security(
            client_credentials=SchemeClientCredentials(
                client_id=settings.credentials.client_id,
                client_secret=settings.credentials.client_secret,
                token_url=token_endpoint(settings.url, settings.token_url),
            )
        )
    # The SDK requests tokens without its own timeout, so the clients have one.
    options: dict[str, Any] = {
        "verify": make_tls(settings.verify, settings.client_cert),
        "given": settings.proxies,
        "timeout": settings.timeout,
        "follow_redirects": True,
    }

    def send_headers(request: httpx.Request) -> None:
        # Also before a redirect is followed, which may lead to another server.
        for name, value in settings.headers:
            if same_origin(request.url, settings.url):
                request.headers[name] = value
            elif request.headers.get(name) == value:
                del request.headers[name]

    async def asend_headers(request: httpx.Request) -> None:
        send_headers(request)

    with translating_proxy_errors(settings):
        return AirbyteAPI(
            server_url=settings.url,
            security=security,
            client=blocking_client(**options, event_hooks={"request": [send_headers]}),
            async_client=async_client(**options, event_hooks={"request": [asend_headers]}),
        )
