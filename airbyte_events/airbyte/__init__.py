"""Airbyte's public API: :class:`AirbyteClient` and its values."""

from airbyte_events.airbyte.auth import Credentials
from airbyte_events.airbyte.client import AirbyteClient
from airbyte_events.airbyte.models import says_unknown
from airbyte_events.airbyte.pagination import PAGE, JobPages
from airbyte_events.airbyte.url import normalise_url
from airbyte_events.jobs import Job, JobPage

__all__ = ["PAGE", "AirbyteClient", "Credentials", "Job", "JobPage", "JobPages", "normalise_url", "says_unknown"]
