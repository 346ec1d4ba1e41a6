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
                    "web_url": _field(
                        "Web app", "Where people reach Airbyte, for links; if empty, where it stands beside its API"
                    ),
                    **_connecting(),
                    "timeout": _field("Timeout", "Seconds for one request; 20 if empty", "number"),
                    "proxies": _field(
                        "Proxies",
                        'A proxy\'s URL, or one for each scheme: {"https": "http://proxy:3128"}',
                        format="password",
                    ),
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
                    "dashboard_url": _field(
                        "Dashboard", "Where people reach the listener, for links; if empty, where the workers do"
                    ),
                    **_connecting(),
                },
            },
        ],
        "extra-links": [
            "airbyte_events_provider.links.airbyte.AirbyteConnectionLink",
            "airbyte_events_provider.links.airbyte.AirbyteJobLink",
            "airbyte_events_provider.links.airbyte.ListenerJobLink",
        ],
        "plugins": [
            {"name": "airbyte_events", "plugin-class": "airbyte_events_provider.plugins.plugin.AirbyteEventsPlugin"},
        ],
        "queues": ["airbyte_events_provider.queues.airbyte.AirbyteEventsMessageQueueProvider"],
        "config": {
            "airbyte_events": {
                "description": "How tasks wait for Airbyte jobs, and what Airflow's web interface has of it.",
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
                    "min_deferral": _option(
                        "Seconds that a deferral takes at least, where the task continues in a worker: Airflow fails "
                        "tasks whose deferral is shorter (apache/airflow#72716). If empty, [workers] "
                        "min_heartbeat_interval and 5, more where workers are slow. 0 where your Airflow has that "
                        "mended.",
                        "float",
                        example="10",
                    ),
                    "dashboard_url": _option(
                        "Where people reach the listener. Given, Airflow 3.1 and newer has an entry of that name in "
                        "its navigation.",
                        "string",
                        example="https://airbyte-events.example.com",
                    ),
                    "mount_receiver": _option(
                        "Whether the API server is the listener, too: it takes Airbyte's webhooks at "
                        "/airbyte-events/webhooks/INSTANCE/TOKEN. It wants the extra 'server' of airbyte-events and "
                        "the listener's own settings, the environment variables AIRBYTE_EVENTS_*.",
                        "boolean",
                        default="False",
                    ),
                },
            }
        },
    }


def _connecting() -> dict[str, Any]:
    return {
        "verify": _field("Certificates", "A file of trusted certificates, or false to trust any server"),
        "client_cert": _field("Client certificate", "A file with a certificate and its key, if the server wants one"),
    }


def _field(label: str, description: str, type: str = "string", **schema: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": [type, "null"], **schema}}


def _option(description: str, type: str, *, example: str | None = None, default: str | None = None) -> dict[str, Any]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": type,
        "example": example,
        "default": default,
    }
