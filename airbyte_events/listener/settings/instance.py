"""The settings of one Airbyte instance."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from airbyte_events.airbyte.notification_kinds import SETTINGS
from airbyte_events.airbyte.url import normalise_url, token_endpoint
from airbyte_events.errors import SettingsError
from airbyte_events.listener.settings import values
from airbyte_events.listener.settings.declaration import CompleteError, Declared, setting


class InstanceSettings(Declared):
    """One Airbyte instance."""

    airbyte_url: str = setting(example="http://localhost:8000/api/public/v1", by_default="required")
    """The root of Airbyte's public API, or the address of the Airbyte server."""
    client_id: str | None = setting(None, example="6a2f0d1c-52a4-4c6e-9d4b-0e6f3c1b7a90", min_length=1)
    """The client id of an application in Airbyte (User settings, Applications). Leave it out if Airbyte runs without
    authentication."""
    client_secret: Annotated[Annotated[SecretStr, Field(min_length=1)] | None, values.paired("client_id")] = setting(
        None, example="shown by Airbyte when the application is created"
    )
    """The client secret of that application."""
    headers: values.Headers = setting((), example="CF-Access-Client-Id: 0b1c.access", by_default="none")
    """Headers for a gateway in front of Airbyte, one `Name: value` per line ([Gateways](several.md#gateways)). They are
    sent to the origin of `AIRBYTE_URL` only."""
    bearer_token: values.Sendable | None = setting(None, example="issued by the gateway")
    """A token for a gateway, sent as `Authorization: Bearer` to the same origin, if no client id is set."""
    workspace_ids: values.Workspaces = setting(
        (), example="18dccc91-0ab1-4f72-9ed7-0b8fc27c5826", by_default="all that the application can read"
    )
    """The workspaces whose jobs are listed."""
    token_url: str | None = setting(
        None,
        example="https://airbyte.example.com/api/public/v1/applications/token",
        by_default="`/applications/token` of the API",
    )
    """The endpoint that issues access tokens."""
    forward_urls: values.ForwardURLs = setting(
        (),
        example="failure=https://hooks.slack.com/services/T000/B000/XXXX",
        by_default="none",
        description="The URLs that notifications are forwarded to, such as a Slack channel. `KIND=URL` forwards one"
        f" kind only: {', '.join(f'`{kind}`' for kind in SETTINGS)}.",
    )

    connections: values.Connections = setting(dict, example='[instances.default.connections."Orders"]')
    """When jobs of single connections are late or stalled."""

    @field_validator("airbyte_url")
    @classmethod
    def _normalised(cls, url: str) -> str:
        try:
            return normalise_url(url)
        except SettingsError as exc:
            raise CompleteError(str(exc)) from None

    @field_validator("token_url")
    @classmethod
    def _resolved(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is None or "airbyte_url" not in info.data:
            return url
        try:
            return token_endpoint(info.data["airbyte_url"], url)
        except SettingsError as exc:
            raise CompleteError(str(exc)) from None

    @field_validator("bearer_token")
    @classmethod
    def _alone(cls, token: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        lines = [line.get_secret_value().lower() for line in info.data.get("headers", ())]
        if token is not None and (
            info.data.get("client_id") or any(each.startswith("authorization") for each in lines)
        ):
            raise CompleteError(
                "set, but client_id or headers use the header Authorization, too; leave one of them out"
            )
        return token
