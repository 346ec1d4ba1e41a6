"""Load the listener's settings from environment variables and a TOML file.

An option of the command line overrides an environment variable, which overrides the file. A secret can be given by
value or as the name of a file that holds it (``…_FILE``). Use :func:`load`: it reports a wrong setting in one line.
Neither that line nor the ``repr`` of the settings holds a value that was given.
"""

from airbyte_events.listener.settings.instance import InstanceSettings
from airbyte_events.listener.settings.listener import Settings
from airbyte_events.listener.settings.load import load
from airbyte_events.listener.settings.values import check_address, is_loopback

__all__ = ["InstanceSettings", "Settings", "check_address", "is_loopback", "load"]
