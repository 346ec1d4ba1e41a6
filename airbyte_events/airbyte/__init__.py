"""Airbyte's public API: :class:`AirbyteClient`, and the values that it takes and gives."""

from airbyte_events.airbyte.client import AirbyteClient
from airbyte_events.airbyte.exchange import charged
from airbyte_events.airbyte.jobs import Job, JobPage, says_unknown
from airbyte_events.airbyte.pages import PAGE, JobPages
from airbyte_events.airbyte.tokens import Credentials
from airbyte_events.airbyte.url import normalise_url

__all__ = [
    "PAGE",
    "AirbyteClient",
    "Credentials",
    "Job",
    "JobPage",
    "JobPages",
    "charged",
    "normalise_url",
    "says_unknown",
]
