"""What a listener is told: by environment variables and a TOML file.

An option of the command line stands above an environment variable, and that above the file. Secrets can be given as
they are or by the name of a file that holds them (``…_FILE``). :func:`load` is the way in: whatever is wrong with a
setting it says in one line, and that line, like the ``repr`` of what it returns, holds no value that was given.
"""

from airbyte_events.listener.settings.instance import InstanceSettings
from airbyte_events.listener.settings.listener import Settings
from airbyte_events.listener.settings.load import load
from airbyte_events.listener.settings.store_url import StoreLocation
from airbyte_events.listener.settings.values import check_address, is_loopback

__all__ = ["InstanceSettings", "Settings", "StoreLocation", "check_address", "is_loopback", "load"]
