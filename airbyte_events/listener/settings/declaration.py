"""How a setting is declared, with what its reference and its errors say of it."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import Field
from pydantic.fields import FieldInfo


class About(NamedTuple):
    """What a setting's reference and its errors say.

    :param must_be: what a value that is refused is not.
    :param by_default: the default in words, where the value does not tell it.
    """

    meaning: str
    must_be: str
    example: str
    by_default: str | None


def about(field: FieldInfo) -> About:
    """What there is to say of a setting."""
    extra = field.json_schema_extra
    return About(**extra) if isinstance(extra, dict) else About("", "not right", "", None)  # type: ignore[arg-type]


def setting(
    default: object = ..., *, meaning: str, must_be: str, example: str, by_default: str | None = None, **more: Any
) -> Any:
    more["default_factory" if callable(default) else "default"] = default
    extra = About(meaning, must_be, example, by_default)._asdict()
    return Field(description=meaning, validate_default=True, json_schema_extra=extra, **more)


class Spelt(ValueError):
    """A fault that tells the right spelling: no example is needed."""
