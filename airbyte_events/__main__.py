"""``python -m airbyte_events``: the command line."""

from airbyte_events.cli.main import main

if __name__ == "__main__":
    main()
