"""The kinds of notification that Airbyte sends, one row each.

Titles, texts and the names of settings are those of the platform's ``SlackNotificationClient`` and public API.
docs/architecture.md says what a new kind needs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from airbyte_events.events import JobStatus

TEST_TAG = "THIS IS A TEST NOTIFICATION"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A kind's attributes.

    :param meaning: for people.
    :param status: the terminal status that it announces; None if it announces no completion.
    :param settings: its names in a workspace's ``notifications`` in Airbyte's API and in ``forward_urls``; each has a
        URL of its own. Empty if Airbyte has no URL for it.
    :param titles: the beginnings of the first block's text, after the tag.
    :param text: a pattern of the first line of ``text``; platforms before 0.59 send nothing else. As names that users
        choose are in its middle, success and failure are matched at its end.
    """

    value: str
    meaning: str
    status: JobStatus | None = None
    settings: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    text: str | None = None


class NotificationKind(StrEnum):
    """What a notification announces."""

    _value_: str
    meaning: str
    status: JobStatus | None
    settings: tuple[str, ...]
    titles: tuple[str, ...]
    text: re.Pattern[str] | None

    def __new__(cls, row: _Row) -> Self:
        kind = str.__new__(cls, row.value)
        kind._value_ = row.value
        kind.meaning, kind.status, kind.settings, kind.titles = row.meaning, row.status, row.settings, row.titles
        kind.text = None if row.text is None else re.compile(row.text)
        return kind

    SUCCESS = _Row(
        value="success",
        meaning="sync succeeded",
        status=JobStatus.SUCCEEDED,
        settings=("success",),
        titles=("Sync completed",),
        text=r"Your connection .* succeeded\W*\Z",
    )
    FAILURE = _Row(
        value="failure",
        meaning="sync failed",
        status=JobStatus.FAILED,
        settings=("failure",),
        titles=("Sync failure occurred",),
        text=r"Your connection .* (?:just )?failed\W*\Z",
    )
    QUEUED = _Row(
        value="queued",
        meaning="sync queued",  # It waits for capacity; it has not failed.
        titles=("Sync queued",),
        text=r"Your sync for connection .* is queued\b",
    )
    TEST = _Row(value="test", meaning="Test button", text=r"Hello World!")
    SCHEMA_CHANGE = _Row(
        value="schema_change",
        meaning="schema changed",
        # The body does not say whether the change needs an action.
        settings=("connectionUpdate", "connectionUpdateActionRequired"),
        titles=("Airbyte detected schema changes", "The schema of '"),
        text=r"Your source schema has changed\b",
    )
    DISABLED = _Row(
        value="disabled",
        meaning="connection disabled",
        settings=("syncDisabled",),
        titles=("Connection disabled",),
        text=r"Your connection .* was automatically disabled\b",
    )
    DISABLED_WARNING = _Row(
        value="disabled_warning",
        meaning="connection will be disabled",
        settings=("syncDisabledWarning",),
        titles=("Warning - repeated connection failures",),
        text=r"Your connection .* is scheduled to be automatically disabled\b",
    )
    UNKNOWN = _Row(value="unknown", meaning="unknown")


SETTINGS = {setting: kind for kind in NotificationKind for setting in kind.settings}
"""The kind of each notification setting of a workspace."""


def recognise(title: str, text: str) -> NotificationKind | None:
    """Return the kind of a notification; None if it is unknown.

    :param title: the first block's text.
    :param text: the body's ``text``.
    """
    tags, headline = split_tags(title)
    if TEST_TAG in tags or TEST_TAG in split_tags(text)[0]:
        return NotificationKind.TEST
    for kind in NotificationKind:
        if headline.startswith(kind.titles):
            return kind
    line = text.partition("\n")[0].rstrip()
    return next((kind for kind in NotificationKind if kind.text is not None and kind.text.match(line)), None)


_MOST_TAGS = 4


def split_tags(text: str) -> tuple[list[str], str]:
    """Return the tags before a headline, ``[TAG] ``, and the headline."""
    tags: list[str] = []
    while len(tags) < _MOST_TAGS and text.startswith("[") and (end := text.find("] ")) > 0:
        tags.append(text[1:end])
        text = text[end + 2 :]
    return tags, text
