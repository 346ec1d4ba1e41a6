"""What Airflow's provider manager is told."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """The provider, as Airflow's ``provider_info.schema.json`` has it."""
    integration = "Airbyte Events"
    return {
        "package-name": "airbyte-events",
        "name": integration,
        "description": "Tasks that complete the moment an `Airbyte <https://airbyte.com/>`__ job ends, "
        "because they are told.\n",
        "integrations": [
            {"integration-name": integration, "external-doc-url": "https://airbyte.com/", "tags": ["service"]}
        ],
        "operators": [
            {"integration-name": integration, "python-modules": ["airbyte_events_provider.operators.airbyte"]}
        ],
        "sensors": [{"integration-name": integration, "python-modules": ["airbyte_events_provider.sensors.airbyte"]}],
        "triggers": [{"integration-name": integration, "python-modules": ["airbyte_events_provider.triggers.airbyte"]}],
        "hooks": [
            {
                "integration-name": integration,
                "python-modules": [
                    "airbyte_events_provider.hooks.airbyte",
                    "airbyte_events_provider.hooks.listener",
                ],
            }
        ],
        "connection-types": [
            {
                "connection-type": "airbyte",
                "hook-class-name": "airbyte_events_provider.hooks.airbyte.AirbyteHook",
                "hook-name": "Airbyte",
                "ui-field-behaviour": {
                    "hidden-fields": ["port"],
                    "relabeling": {
                        "host": "Server URL",
                        "login": "Client ID (optional)",
                        "password": "Client Secret (optional)",
                        "schema": "Token URL",
                    },
                    "placeholders": {"host": "http://localhost:8000/api/public/v1"},
                },
                "conn-fields": {
                    "listener_conn_id": _field("Listener", "The Airflow connection of the listener, if there is one"),
                    "instance": _field("Instance", "What the listener calls this Airbyte; default if empty"),
                    "proxies": _field("Proxy", "A proxy's URL"),
                    "timeout": _field("Timeout", "Seconds for one request; 20 if empty", "number"),
                    "verify": _field("Certificates", "A file of trusted certificates, or false to trust any server"),
                },
            },
            {
                "connection-type": "airbyte_events",
                "hook-class-name": "airbyte_events_provider.hooks.listener.ListenerHook",
                "hook-name": "Airbyte Events",
                "ui-field-behaviour": {
                    "hidden-fields": ["login", "schema", "port"],
                    "relabeling": {"host": "Listener URL", "password": "API token"},
                    "placeholders": {"host": "http://localhost:8484"},
                },
                "conn-fields": {
                    "verify": _field("Certificates", "A file of trusted certificates, or false to trust any server"),
                },
            },
        ],
        "config": {
            "airbyte_events": {
                "description": "How tasks wait for Airbyte jobs.",
                "options": {
                    "listener_conn_id": _option(
                        "The Airflow connection of the listener, for Airbyte connections that name none. "
                        "Without one, no listener is used: Airbyte is polled.",
                        "string",
                        example="airbyte_events_default",
                    ),
                    "poll_interval": _option(
                        "Seconds between two looks at an Airbyte for all deferred tasks together, "
                        "while no listener tells.",
                        "float",
                        default="10",
                    ),
                    "fallback_after": _option(
                        "Seconds that a listener may be away before Airbyte is polled instead.", "float", default="30"
                    ),
                    "hub_linger": _option(
                        "Seconds that a triggerer stays connected after its last waiting task.", "float", default="60"
                    ),
                },
            }
        },
    }


def _field(label: str, description: str, type: str = "string") -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": [type, "null"]}}


def _option(description: str, type: str, *, example: str | None = None, default: str | None = None) -> dict[str, Any]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": type,
        "example": example,
        "default": default,
    }
