"""Airflow's connection forms, from the provider's metadata.

Airflow 3.2 and newer makes the forms from the metadata, older versions from what the hooks return.
"""

from __future__ import annotations

from typing import Any

from airbyte_events_provider.get_provider_info import get_provider_info


def behaviour(connection_type: str) -> dict[str, Any]:
    """Return what a hook's ``get_ui_field_behaviour`` returns: the labels of the usual fields."""
    return {name.replace("-", "_"): value for name, value in _form(connection_type)["ui-field-behaviour"].items()}


def widgets(connection_type: str) -> dict[str, Any]:
    """Return what a hook's ``get_connection_form_widgets`` returns: the fields of the extra."""
    # Airflow's API server has a stand-in where this is not installed, only while it calls for the form.
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
