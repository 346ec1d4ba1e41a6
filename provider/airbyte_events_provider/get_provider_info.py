"""The provider's metadata, for Airflow's provider manager."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Return the metadata in the form of Airflow's ``provider_info.schema.json``."""
    integration = "Airbyte Events"
    return {
        "package-name": "airbyte-events",
        "name": integration,
        "description": "Notifies Airflow milliseconds after an `Airbyte <https://airbyte.com/>`__ job completes: "
        "webhooks instead of polling.\n",
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
                "python-modules": ["airbyte_events_provider.hooks.airbyte", "airbyte_events_provider.hooks.listener"],
            }
        ],
        "connection-types": [
            {
                "connection-type": "airbyte",
                "hook-class-name": "airbyte_events_provider.hooks.airbyte.AirbyteHook",
                "hook-name": "Airbyte",
                "ui-field-behaviour": {
                    "relabeling": {
                        "host": "Server URL",
                        "port": "Port (unless the URL has it)",
                        "login": "Client ID (optional)",
                        "password": "Client Secret (optional)",
                        "schema": "Token URL",
                    },
                    "placeholders": {"host": "http://localhost:8000/api/public/v1"},
                },
                "conn-fields": {
                    "listener_conn_id": _field(
                        "Listener", "ID of the Airflow connection of the listener, if there is one"
                    ),
                    "instance": _field(
                        "Instance", "Name of this Airbyte in the listener's settings; if empty, default"
                    ),
                    "web_url": _field(
                        "Web app", "URL of Airbyte's web app, for links; if empty, derived from the server URL"
                    ),
                    **_connecting(),
                    "timeout": _field("Timeout", "Seconds for one request; if empty, 20", "number"),
                    "proxies": _field(
                        "Proxies",
                        'A proxy URL, or one for each scheme: {"https": "http://proxy:3128"}',
                        format="password",
                    ),
                    "headers": _field(
                        "Headers",
                        'Headers for a gateway in front of Airbyte: {"CF-Access-Client-Id": "0b1c.access"}',
                        format="password",
                    ),
                },
            },
            {
                "connection-type": "airbyte_events",
                "hook-class-name": "airbyte_events_provider.hooks.listener.ListenerHook",
                "hook-name": "Airbyte Events",
                "ui-field-behaviour": {
                    "hidden-fields": ["login", "schema"],
                    "relabeling": {
                        "host": "Listener URL",
                        "port": "Port (unless the URL has it)",
                        "password": "API token",
                    },
                    "placeholders": {"host": "http://localhost:8484"},
                },
                "conn-fields": {
                    "dashboard_url": _field(
                        "Dashboard", "URL of the listener's dashboard, for links; if empty, the listener URL"
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
            {"name": "airbyte_events", "plugin-class": "airbyte_events_provider.plugins.plugin.AirbyteEventsPlugin"}
        ],
        "queues": ["airbyte_events_provider.queues.airbyte.AirbyteEventsMessageQueueProvider"],
        "config": {
            "airbyte_events": {
                "description": "How tasks wait for Airbyte jobs, and what is added to Airflow's web interface.",
                "options": {
                    "listener_conn_id": _option(
                        "ID of the Airflow connection of the listener, for connections of type airbyte that name none. "
                        "If empty, those poll Airbyte.",
                        "string",
                        example="airbyte_events_default",
                    ),
                    "poll_interval": _option(
                        "Seconds between two polls of an Airbyte, one poll for all deferred tasks together, "
                        "while no listener is connected. More where Airbyte responds slowly: polls take at most a "
                        "twentieth of the time.",
                        "float",
                        default="3",
                    ),
                    "fallback_after": _option(
                        "Seconds without a connection to the listener after which Airbyte is polled instead.",
                        "float",
                        default="30",
                    ),
                    "progress_interval": _option(
                        "Seconds between two lines with a job's progress in the log of a waiting task; 0: no lines.",
                        "float",
                        default="180",
                    ),
                    "hub_linger": _option(
                        "Seconds for which a triggerer stays connected after its last waiting task.",
                        "float",
                        default="60",
                    ),
                    "min_deferral": _option(
                        "Minimum seconds of a deferral after which the task continues in a worker: Airflow fails tasks "
                        "whose deferral is shorter (apache/airflow#72716). If empty, [workers] "
                        "min_heartbeat_interval plus 5, more where workers are slow. Set it to 0 if your Airflow has "
                        "that fixed.",
                        "float",
                        example="10",
                    ),
                    "dashboard_url": _option(
                        "URL of the listener's dashboard. If set, Airflow 3.1 and newer links to it in its navigation.",
                        "string",
                        example="https://airbyte-events.example.com",
                    ),
                    "job_page": _option(
                        "Whether Airflow 3.1 and newer has the page *Airbyte job* beside each task instance, for those "
                        "who may read its DAG.",
                        "boolean",
                        default="True",
                    ),
                    "mount_receiver": _option(
                        "Whether the API server runs the listener, too: it receives Airbyte's webhooks at "
                        "/airbyte-events/webhooks/INSTANCE/TOKEN. It needs [api] workers = 1, the extra 'server' of "
                        "airbyte-events, and the listener's settings, the environment variables AIRBYTE_EVENTS_*.",
                        "boolean",
                        default="False",
                    ),
                },
            }
        },
    }


def _connecting() -> dict[str, Any]:
    return {
        "verify": _field("Certificates", "File or folder of trusted certificates, or false to trust any server"),
        "client_cert": _field("Client certificate", "File with a certificate and its key, if the server requires one"),
    }


def _field(label: str, description: str, type: str = "string", **schema: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": [type, "null"], **schema}}


def _option(description: str, type: str, *, example: str | None = None, default: str | None = None) -> dict[str, Any]:
    option = {"description": description, "version_added": "0.1.0", "type": type}
    return {**option, "example": example, "default": default}
