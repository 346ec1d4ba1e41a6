"""The settings of a target of outgoing notifications."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, SecretStr, ValidationInfo, field_validator

from airbyte_events.events.signal import SignalKind
from airbyte_events.events.status import JobStatus
from airbyte_events.listener.forwarding.targets import parse_url
from airbyte_events.listener.settings.declaration import INSTANCE_NAME, CompleteError, Declared, setting
from airbyte_events.listener.settings.values import Pace, listed, refused

TargetType = Literal["slack", "google_chat", "teams", "cloudevents"]
SIGNALS = tuple(kind.value for kind in SignalKind)
JOB_TYPES = ("sync", "reset", "clear", "refresh")
COMPLETIONS = tuple(status.value for status in JobStatus if status.terminal)
NOT_A_NAME = "a target's name has 1 to 32 characters: a-z, 0-9, _ and -, the first one a letter or digit"
NEW_SECRET = "the output of: echo whsec_$(openssl rand -base64 32)"  # noqa: S105


def _name(name: str) -> str:
    if not INSTANCE_NAME.fullmatch(name):
        raise ValueError(NOT_A_NAME)
    return name


def _url(url: SecretStr) -> SecretStr:
    parse_url(url.get_secret_value())
    return url


def _secret(secret: SecretStr) -> SecretStr:
    # https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md: 24 to 64 bytes.
    match = re.fullmatch(r"whsec_([A-Za-z0-9+/]+=*)", secret.get_secret_value())
    try:
        size = len(base64.b64decode(match[1], validate=True)) if match else 0
    except binascii.Error:
        size = 0
    if not 24 <= size <= 64:
        raise ValueError("not whsec_ and the Base64 of 24 to 64 bytes")
    return secret


def _one_of(*words: str, none: bool = False) -> BeforeValidator:
    def check(values: object) -> object:
        values = listed(values)
        wrong = f"not a list of {', '.join(words)}"
        if not isinstance(values, (list, tuple)) or not (values or none) or not all(value in words for value in values):
            raise ValueError(wrong)
        return values

    return BeforeValidator(check)


def _names(values: object) -> object:
    # Not split at commas: names of connections contain them.
    values = [values] if isinstance(values, str) else values
    if not isinstance(values, (list, tuple)) or not all(isinstance(value, str) and value.strip() for value in values):
        raise ValueError("not a list of names and ids (UUIDs)")
    return values


_Names = Annotated[tuple[str, ...], BeforeValidator(_names)]


class NotifySettings(Declared):
    """A target of outgoing notifications: a table ``[[notify]]``. A filter that is left out matches everything."""

    name: Annotated[str, AfterValidator(_name)] = setting(example="on-call", by_default="required")
    """The name of the target, unique among the targets. A renamed target is a new one."""
    type: Annotated[TargetType, refused(f"not one of {', '.join(get_args(TargetType))}")] = setting(
        example="slack", by_default="required"
    )
    """What the target is: a webhook of `slack` or `google_chat`, a workflow of `teams`, or any URL that takes
    `cloudevents`."""
    url: Annotated[SecretStr, AfterValidator(_url)] = setting(
        example="https://hooks.slack.com/services/T000/B000/XXXX", by_default="required"
    )
    """The URL to send to. It is treated as a secret."""
    secret: Annotated[SecretStr, AfterValidator(_secret)] | None = setting(
        None, example=NEW_SECRET, by_default="required for `cloudevents`"
    )
    """The key of the signatures, of [Standard Webhooks](https://www.standardwebhooks.com). Only for `cloudevents`."""
    instances: _Names = setting((), example="default", by_default="all")
    """The Airbyte instances whose completions are sent, by name."""
    connections: _Names = setting((), example="Orders to Snowflake", by_default="all")
    """The connections, by name or id."""
    workspaces: _Names = setting((), example="Data team", by_default="all")
    """The workspaces, by name or id."""
    statuses: Annotated[tuple[str, ...], _one_of(*COMPLETIONS)] = setting(
        COMPLETIONS, example="failed", by_default="all"
    )
    """The states: `succeeded`, `failed`, `cancelled`."""
    job_types: Annotated[tuple[str, ...], _one_of(*JOB_TYPES)] = setting(JOB_TYPES, example="refresh", by_default="all")
    """The types of jobs: `sync`, `reset`, `clear`, `refresh`. Airbyte reports a clear as a reset: either means both."""

    signals: Annotated[tuple[str, ...], _one_of(*SIGNALS, none=True)] = setting(
        (), example="stalled", by_default="none"
    )
    """The [signals](progress.md#signals): `stalled`, `slow`, `overdue`, `failing`. They are sent when they are raised
    and when they are resolved, whatever `statuses` and `job_types` say."""
    group_seconds: Pace = setting(60.0, example="300")
    """The least seconds between two turns of a chat. Jobs that complete in between are one message per cause.
    `cloudevents` are sent one by one."""

    @field_validator("secret")
    @classmethod
    def _for_type(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        signed = info.data.get("type") == "cloudevents"
        if signed and secret is None:
            raise CompleteError(f"not set, but cloudevents are signed; write {NEW_SECRET}")
        if "type" in info.data and not signed and secret is not None:
            raise CompleteError(f"set, but {info.data['type']} has no signatures; remove it")
        return secret
