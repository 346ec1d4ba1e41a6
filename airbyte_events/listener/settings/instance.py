"""The settings of one Airbyte."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationInfo, field_validator

from airbyte_events.airbyte.url import normalise_url, token_endpoint
from airbyte_events.errors import SettingsError
from airbyte_events.listener.settings.declaration import Spelt, setting
from airbyte_events.listener.settings.values import A_LIST, A_TEXT, ForwardURLs, Workspaces, together


class InstanceSettings(BaseModel):
    """One Airbyte."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, str_strip_whitespace=True)

    airbyte_url: str = setting(
        meaning="Airbyte's public API: its root, or the address of the server.",
        must_be="not set",
        example="http://localhost:8000/api/public/v1",
        by_default="required",
    )
    client_id: str | None = setting(
        None,
        meaning="Of an application in Airbyte (User settings, Applications). Leave it out where Airbyte runs without "
        "authentication.",
        must_be=A_TEXT,
        example="6a2f0d1c-52a4-4c6e-9d4b-0e6f3c1b7a90",
        min_length=1,
    )
    client_secret: SecretStr | None = setting(
        None,
        meaning="That application's secret.",
        must_be=A_TEXT,
        example="what Airbyte showed when the application was made",
        min_length=1,
    )
    workspace_ids: Workspaces = setting(
        (),
        meaning="The workspaces to look at.",
        must_be=A_LIST,
        example="18dccc91-0ab1-4f72-9ed7-0b8fc27c5826",
        by_default="all that the application sees",
    )
    token_url: str | None = setting(
        None,
        meaning="Where access tokens come from.",
        must_be=A_TEXT,
        example="https://airbyte.example.com/api/public/v1/applications/token",
        by_default="`/applications/token` of the API",
    )
    forward_urls: ForwardURLs = setting(
        (),
        meaning="Where notifications are forwarded to, such as a Slack channel. URLs, or `KIND=URL` for one kind "
        "alone: `success`, `failure`, `connectionUpdate`, `connectionUpdateActionRequired`, `syncDisabled`, "
        "`syncDisabledWarning`.",
        must_be=A_LIST,
        example="failure=https://hooks.slack.com/services/T000/B000/XXXX",
        by_default="nowhere",
    )

    @field_validator("airbyte_url")
    @classmethod
    def _spelt_right(cls, url: str) -> str:
        try:
            return normalise_url(url)
        except SettingsError as exc:
            raise Spelt(str(exc)) from None

    @field_validator("token_url")
    @classmethod
    def _resolved(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is None or "airbyte_url" not in info.data:
            return url
        try:
            return token_endpoint(info.data["airbyte_url"], url)
        except SettingsError as exc:
            raise Spelt(str(exc)) from None

    @field_validator("client_secret")
    @classmethod
    def _both_or_none(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        together(secret, info, "client_id")
        return secret
