"""How a setting is declared, with the words of its reference and of its errors."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

PREFIX = "AIRBYTE_EVENTS_"
DEFAULT_INSTANCE = "default"
"""The instance that environment variables describe."""

INSTANCE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")

SECRETS = frozenset(
    [
        *("client_secret", "forward_urls", "store", "listener_token"),
        *("api_tokens", "webhook_tokens", "metrics_tokens", "operator_tokens"),
        *("url", "secret", "headers", "bearer_token"),
    ]
)
"""The settings that can also be given by file, and that are never shown."""


class Declared(BaseModel):
    """A table of settings. The docstring of each is its meaning."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        str_strip_whitespace=True,
        use_attribute_docstrings=True,
    )


def setting(default: object = ..., *, example: str, by_default: str | None = None, **more: Any) -> Any:
    """Declare a setting.

    :param by_default: the default in words, where the value itself does not explain it.
    """
    more["default_factory" if callable(default) else "default"] = default
    return Field(validate_default=True, examples=[example], json_schema_extra={"by_default": by_default}, **more)


def example_of(field: FieldInfo) -> str:
    return str((field.examples or [""])[0])


class CompleteError(ValueError):
    """An error whose message already says what to write: no example is added to it."""
