"""Airbyte's webhook bodies, read without I/O.

A notification must be confirmed: anybody who knows the URL can send one, Airbyte's *Test* button sends one that looks
like a success of job 10, and the *queued* one has ``"success": false``. So its ``expected_status`` is used only if the
API confirms it.

Field names, titles and texts are those of the platform's ``SlackNotificationClient`` and ``SyncSummary``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from airbyte_events._utils import json_values
from airbyte_events.airbyte.notification_kinds import NotificationKind, recognise, split_tags
from airbyte_events.errors import NotificationError
from airbyte_events.events import NAMED, JobError, JobStatus
from airbyte_events.jobs import Announcement

LONGEST_REASON = 10_000
"""The most characters of a failure reason in an event; Airbyte's can have 50,000, which the inbox keeps."""

LONGEST_NAME = 500
LONGEST_WORD = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification(Announcement):
    """One webhook body.

    :param kind: what it announces. A test contains a made-up job id.
    :param success: the field of that name, which is also false for a job that is only queued.
    """

    kind: NotificationKind
    success: bool | None = None

    @property
    def needs_confirmation(self) -> bool:
        """Whether to request the job: it announces a completion, or has a job id.

        Title and data may disagree, and a newer Airbyte may have kinds that are unknown to this version.
        """
        return self.kind.status is not None or (self.job_id is not None and self.kind is not NotificationKind.TEST)


@lru_cache(maxsize=16)  # the inbox reads what the receiver has just read
def parse(body: bytes) -> Notification:
    """Read a webhook body.

    Missing and invalid fields are unknown, and so may be the kind. Airbyte up to 0.63.0 does not escape quotes and
    newlines in some bodies; of these, the text is read.

    :raises NotificationError: if the body is empty or not a JSON object; the message is one sentence.
    """
    try:
        document = json_values.parse_object(body)
    except ValueError as exc:
        if (text := json_values.loose_text(body)) is None:
            raise NotificationError(f"the notification's body {exc}") from exc
        document = {"text": text}
    data = json_values.mapping(document.get("data"))
    message = json_values.text(document.get("text")) or ""
    title = _first_block_text(document.get("blocks"))
    success = data.get("success") if isinstance(data.get("success"), bool) else None
    finished_at = json_values.instant(data.get("finishedAt"))
    link_url, link_name = _link(split_tags(title)[1])
    url = json_values.web_page(json_values.mapping(data.get("connection")).get("url")) or link_url or _last_url(message)
    kind = _kind(title, message, success, finished_at)
    return Notification(
        kind=kind,
        expected_status=kind.status,
        job_id=json_values.job_id(data.get("jobId")) or _job_id_in(message),
        workspace_id=_id(data, "workspace") or _find_id("workspace", url, message),
        connection_id=_id(data, "connection") or _find_id("connection", url, message),
        names=_names(data, link_name),
        url=url,
        started_at=json_values.instant(data.get("startedAt")),
        finished_at=finished_at,
        records=json_values.whole(data.get("recordsCommitted")),
        bytes=json_values.whole(data.get("bytesCommitted")),
        duration_seconds=json_values.seconds(data.get("durationInSeconds")),
        error=None if success else _error(data),
        success=success,
    )


def reread(body: bytes) -> Notification:
    """Read a stored body; an unreadable one is of an unknown kind."""
    try:
        return parse(body)
    except NotificationError:
        return Notification(kind=NotificationKind.UNKNOWN)


def _kind(title: str, message: str, success: bool | None, finished_at: datetime | None) -> NotificationKind:
    kind = recognise(title, message)
    if kind is None:
        # A queued job has ``success: false`` and no completion time.
        if success:
            return NotificationKind.SUCCESS
        return NotificationKind.FAILURE if success is False and finished_at else NotificationKind.UNKNOWN
    contradicted = success is not None and kind.status is not None and success != (kind.status is JobStatus.SUCCEEDED)
    return NotificationKind.UNKNOWN if contradicted else kind


def _first_block_text(blocks: object) -> str:
    if not isinstance(blocks, list) or not blocks:
        return ""
    value = json_values.mapping(blocks[0]).get("text")
    return json_values.text(value if isinstance(value, str) else json_values.mapping(value).get("text")) or ""


def _id(data: dict[str, Any], noun: str) -> str | None:
    return json_values.text(json_values.mapping(data.get(noun)).get("id"), LONGEST_WORD)


_UUID = r"([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})"


def _find_id(noun: str, url: str | None, message: str) -> str | None:
    """Return the id from the page's URL, or from the text's last lines (``Connection ID: …``)."""
    match = re.search(rf"/{noun}s/{_UUID}", url or "") or re.search(
        rf"\n{noun.capitalize()} ID: {_UUID}\s*$", message, re.MULTILINE
    )
    return match[1].lower() if match else None


_JOB_ID_LINE = re.compile(r"\nJob ID: ([0-9]{1,19})\s*\Z")


def _job_id_in(message: str) -> int | None:
    match = _JOB_ID_LINE.search(message)
    return json_values.job_id(match[1]) if match else None


def _names(data: dict[str, Any], link_name: str | None) -> dict[str, str]:
    names = {}
    for noun in NAMED:
        name = json_values.text(json_values.mapping(data.get(noun)).get("name"), LONGEST_NAME)
        name = name or (link_name if noun == "connection" else None)
        if name:
            names[noun] = name
    return names


_LINK = re.compile(r"<(https?://[^|<>\s]+)\|([^<>]*)>")


def _link(title: str) -> tuple[str | None, str | None]:
    """Return URL and name of a link in Slack's notation, ``<URL|NAME>``."""
    match = _LINK.search(title)
    if match is None:
        return None, None
    # Airbyte itself writes an ampersand as "$amp;".
    name = match[2].replace("&lt;", "<").replace("&gt;", ">").replace("$amp;", "&").replace("&amp;", "&")
    return json_values.web_page(match[1]), json_values.text(name, LONGEST_NAME)


def _last_url(message: str) -> str | None:
    found = [word for word in message.split() if word.startswith(("http://", "https://")) and "/connections/" in word]
    return json_values.web_page(found[-1]) if found else None


def _error(data: dict[str, Any]) -> JobError | None:
    error = JobError(
        message=json_values.text(data.get("errorMessage"), LONGEST_REASON),
        type=json_values.text(data.get("errorType"), LONGEST_WORD),
        origin=json_values.text(data.get("errorOrigin"), LONGEST_WORD),
    )
    return None if error == JobError(message=None) else error
