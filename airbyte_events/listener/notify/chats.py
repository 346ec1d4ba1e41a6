"""The bodies that chats accept for a message. In each, names and reasons show as they are, whatever they contain."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from typing import Any

from airbyte_events.listener.notify.messages import Line, Message


def slack(message: Message) -> dict[str, Any]:
    """Return a body for a Slack webhook: rich text, in which no character has a meaning.

    (https://docs.slack.dev/reference/block-kit/blocks/rich-text-block)
    """
    head = [_text(message.title, bold=True)]
    for label, value in message.facts:
        head += [_text(f"\n{label}: ", bold=True), _text(value)]
    jobs = [{"type": "rich_text_section", "elements": [_link(job)]} for job in _jobs(message)]
    elements = [
        {"type": "rich_text_section", "elements": head},
        {"type": "rich_text_list", "style": "bullet", "elements": jobs},
    ]
    # The text of notifications on a phone, for which these three are escaped:
    # https://docs.slack.dev/messaging/formatting-message-text#escaping
    return {"text": html.escape(message.title, quote=False), "blocks": [{"type": "rich_text", "elements": elements}]}


def _text(text: str, *, bold: bool = False) -> dict[str, Any]:
    return {"type": "text", "text": text, **({"style": {"bold": True}} if bold else {})}


def _link(job: Line) -> dict[str, Any]:
    return _text(job.text) if job.url is None else {"type": "link", "url": job.url, "text": job.text}


def google_chat(message: Message) -> dict[str, Any]:
    """Return a body for a Google Chat webhook: a card, whose text is HTML.

    (https://developers.google.com/workspace/chat/format-messages#card-formatting)
    """
    facts = [f"<b>{label}:</b> {html.escape(value)}" for label, value in message.facts]
    jobs = [
        html.escape(job.text) if job.url is None else f'<a href="{html.escape(job.url)}">{html.escape(job.text)}</a>'
        for job in _jobs(message)
    ]
    widgets = [{"textParagraph": {"text": "<br>".join(lines)}} for lines in (facts, jobs) if lines]
    card = {"header": {"title": message.title}, "sections": [{"widgets": widgets}]}
    return {"fallbackText": message.title, "cardsV2": [{"cardId": "completion", "card": card}]}


def teams(message: Message) -> dict[str, Any]:
    """Return a body for a workflow of Microsoft Teams: an Adaptive Card of rich text blocks, which know no Markdown.

    (https://learn.microsoft.com/en-us/adaptive-cards/authoring-cards/rich-text, and for the envelope
    https://learn.microsoft.com/en-us/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using)
    """
    blocks = [[_run(message.title, weight="Bolder", size="Medium")]]
    blocks += [[_run(f"{label}: ", weight="Bolder"), _run(value)] for label, value in message.facts]
    for job in _jobs(message):
        blocks.append([_run(job.text, **({} if job.url is None else {"selectAction": _open(job.url)}))])
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [{"type": "RichTextBlock", "inlines": inlines} for inlines in blocks],
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def _run(text: str, **values: Any) -> dict[str, Any]:
    return {"type": "TextRun", "text": text, **values}


def _open(url: str) -> dict[str, str]:
    return {"type": "Action.OpenUrl", "url": url}


def _jobs(message: Message) -> list[Line]:
    more = [Line(text=f"and {message.more:,} more")] if message.more else []
    return [*message.jobs, *more]


CHATS: Mapping[str, Callable[[Message], dict[str, Any]]] = {"slack": slack, "google_chat": google_chat, "teams": teams}
"""The chats, by the ``type`` of a target."""
