"""The connections that a listener knows by name."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from airbyte_events._utils import json_values
from airbyte_events.airbyte.connection_search import Named, only
from airbyte_events.cli.api_client import pages
from airbyte_events.feed.client import FeedClient

MOST_JOBS = 10_000
"""The number of jobs, the last changed ones, whose connections can be named."""


async def connection_ids(
    listener: FeedClient, given: Collection[str], instances: Collection[str] = ()
) -> frozenset[str]:
    """Return the ids of connections.

    :param given: their ids or names. A name is that of the connection's last changed job.
    :param instances: where names are looked up; by default everywhere.
    :raises UnknownConnection: if no connection, or several, have a name; the message lists candidates.
    :raises FeedError: if the listener does not respond or refuses.
    """
    ids = {each: id_ for each in given if (id_ := _uuid(each)) is not None}
    if named := [each for each in dict.fromkeys(given) if each not in ids]:
        by_name = await _by_name(listener, instances)
        for name in named:
            ids[name] = await only(
                by_name,
                name,
                owner="the listener knows",
                several="write the id of one, or its --instance",
                nothing="it has no job of a named connection yet: write the id in the URL of its page in Airbyte",
            )
    return frozenset(ids.values())


def _uuid(text: str) -> str | None:
    try:
        return str(UUID(text))
    except ValueError:
        return None


async def _by_name(listener: FeedClient, instances: Collection[str]) -> dict[str, list[Named]]:
    jobs, *_ = await pages(listener, "jobs", MOST_JOBS, None, [("instance", name) for name in sorted(instances)])
    names: dict[tuple[str, str], str] = {}
    for job in jobs:
        instance, id_ = json_values.text(job.get("instance")), json_values.text(job.get("connection_id"))
        name = json_values.text(json_values.mapping(job.get("names")).get("connection"))
        if instance is not None and id_ is not None and name is not None:
            names.setdefault((instance, id_), name)
    by_name: dict[str, list[Named]] = {}
    for (instance, id_), name in names.items():
        by_name.setdefault(name, []).append(Named(connection_id=id_, place=f"of {instance}"))
    return by_name
