"""The entry point of the command line, which also runs in a base install to name the missing extra."""

from __future__ import annotations

import sys

_SERVER = frozenset(
    [
        *("h11", "platformdirs", "prometheus_client", "pydantic", "pydantic_core"),
        *("rich", "starlette", "standardwebhooks", "structlog", "typer", "uvicorn"),
    ]
)


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        from airbyte_events.cli.app import run

        code = run()
    except KeyboardInterrupt:  # while modules are loaded; commands handle it later
        code = 130
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] not in _SERVER:
            raise
        sys.stderr.write(
            "airbyte-events: the command line needs the server extra: pip install 'airbyte-events[server]'\n"
        )
        code = 2
    sys.exit(code)
