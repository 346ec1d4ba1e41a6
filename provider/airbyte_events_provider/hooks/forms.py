"""Airflow's connection forms before 3.2, from the provider's metadata, which newer versions use directly."""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.providers.common.compat.sdk import BaseHook

from airbyte_events_provider.get_provider_info import get_provider_info


class FormHook(BaseHook):
    """A hook whose connection form is in the provider's metadata."""

    conn_type: ClassVar[str]

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the labels of the connection form's standard fields."""
        return {name.replace("-", "_"): value for name, value in cls._form()["ui-field-behaviour"].items()}

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the extra fields of the connection form."""
        # Where this is not installed, Airflow's API server provides a substitute during the call.
        from wtforms import PasswordField, StringField  # type: ignore[import-untyped]

        return {
            name: (PasswordField if field["schema"].get("format") == "password" else StringField)(
                field["label"], description=field["description"]
            )
            for name, field in cls._form()["conn-fields"].items()
        }

    @classmethod
    def _form(cls) -> dict[str, Any]:
        forms: list[dict[str, Any]] = get_provider_info()["connection-types"]
        return next(form for form in forms if form["connection-type"] == cls.conn_type)
