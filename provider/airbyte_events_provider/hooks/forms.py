"""Airflow's connection forms before 3.2, from the provider's metadata, which newer versions use directly."""

from __future__ import annotations

from typing import Any

from airbyte_events_provider.get_provider_info import get_provider_info


def behaviour(connection_type: str) -> dict[str, Any]:
    """Return the result of a hook's ``get_ui_field_behaviour``: the labels of the standard fields."""
    return {name.replace("-", "_"): value for name, value in _form(connection_type)["ui-field-behaviour"].items()}


def widgets(connection_type: str) -> dict[str, Any]:
    """Return the result of a hook's ``get_connection_form_widgets``: the fields of the extra."""
    # Where this is not installed, Airflow's API server provides a substitute during the call.
    from wtforms import PasswordField, StringField  # type: ignore[import-untyped]

    return {
        name: (PasswordField if field["schema"].get("format") == "password" else StringField)(
            field["label"], description=field["description"]
        )
        for name, field in _form(connection_type)["conn-fields"].items()
    }


def _form(connection_type: str) -> dict[str, Any]:
    forms: list[dict[str, Any]] = get_provider_info()["connection-types"]
    return next(form for form in forms if form["connection-type"] == connection_type)
