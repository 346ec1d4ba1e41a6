"""Checks of an Airbyte: its address, credentials, permissions, clock and webhooks."""

from __future__ import annotations

import base64
import contextlib
from datetime import timedelta

import httpx

from airbyte_events._utils import json_values
from airbyte_events._utils.times import duration, utcnow
from airbyte_events.airbyte import AirbyteClient
from airbyte_events.airbyte.auth import as_refusal
from airbyte_events.airbyte.transport import ApiResponse
from airbyte_events.airbyte.url import token_endpoint
from airbyte_events.cli.airbyte import open_airbyte
from airbyte_events.cli.doctor.findings import Level, Report, Row
from airbyte_events.cli.webhooks.airbyte_test import prove_by_airbyte
from airbyte_events.cli.webhooks.workspaces import (
    REQUIRED,
    NoNotifications,
    ReceiverURLs,
    Workspace,
    read_workspaces,
    redacted,
)
from airbyte_events.errors import (
    AirbyteError,
    AirbyteProtocolError,
    AirbyteUnreachable,
    Forbidden,
    NotFound,
    RateLimited,
    Unauthorized,
)
from airbyte_events.feed.client import FeedClient
from airbyte_events.listener.secrets import credentials_of
from airbyte_events.listener.settings import InstanceSettings
from airbyte_events.monitor.monitor import OVERLAP

SHORT_TOKEN_SECONDS = 60.0
"""Tokens with a shorter lifetime are renewed with almost every poll."""

_READ_LOG = "read Airbyte's log"
_CREATE_APPLICATION = (
    "create an application in Airbyte (User settings, Applications), and set AIRBYTE_EVENTS_CLIENT_ID and "
    "AIRBYTE_EVENTS_CLIENT_SECRET to its id and secret"
)
_LOGIN = "a proxy in front of it requires a login"
_BYPASS_LOGIN = (
    "let requests to the API pass without a login, set AIRBYTE_EVENTS_HEADERS to the headers that it requires, or "
    "AIRBYTE_EVENTS_AIRBYTE_URL to an address behind it"
)
_UNREADABLE = "the notification settings can't be read"
_SHEDS_LOAD = Row(
    RateLimited,
    "sheds load",
    "the same user sends too many requests; the listener backs off: try again later",
    Level.WARNING,
)


async def check_airbyte(
    report: Report,
    name: str,
    instance: InstanceSettings,
    receiver: ReceiverURLs,
    listener: FeedClient | None,
    *,
    several: bool = False,
) -> None:
    """Report on an Airbyte, until a fault prevents further checks.

    :param receiver: its webhook URLs at the listener.
    :param listener: has the inbox; None if that can't be read.
    :param several: whether commands need the instance's name.
    """
    about, credentials = report.about(f"Airbyte {name}"), credentials_of(instance)
    async with open_airbyte(instance, attempts=1) as airbyte:
        if not await responds(about, airbyte):
            return
        if credentials is None:
            about.ok("needs no credentials")
        elif not await issues_token(about, airbyte, instance):
            return
        if await lists_jobs(about, airbyte, known=credentials is not None):
            await _explains_failures(about, airbyte)
            install = f"run airbyte-events webhooks install{f' --instance {name}' if several else ''}"
            await _check_webhooks(report.about(f"webhooks {name}"), airbyte, instance, receiver, listener, install)


async def responds(about: Report, airbyte: AirbyteClient) -> bool:
    try:
        await airbyte.health()
    except AirbyteError as exc:
        about.error(
            exc,
            Row(
                AirbyteUnreachable,
                f"does not respond at {airbyte.url}",
                "check scheme, host and port of AIRBYTE_EVENTS_AIRBYTE_URL, and the proxies of the environment "
                "(HTTPS_PROXY, NO_PROXY)",
            ),
            Row(Unauthorized, _LOGIN, _BYPASS_LOGIN),
            Row(
                (AirbyteProtocolError, NotFound),
                f"{airbyte.url} is not Airbyte's public API",
                "set AIRBYTE_EVENTS_AIRBYTE_URL to http(s)://HOST/api/public/v1, or for Cloud "
                "https://api.airbyte.com/v1",
            ),
            _SHEDS_LOAD,
            Row(AirbyteError, "responds with an error", _READ_LOG),
        )
        return False
    about.ok(f"responds at {airbyte.url}")
    return True


async def issues_token(about: Report, airbyte: AirbyteClient, instance: InstanceSettings) -> bool:
    url = token_endpoint(instance.airbyte_url, instance.token_url)
    grant = None if airbyte.credentials is None else airbyte.credentials.grant()
    try:
        life = _life(await airbyte.ask(airbyte.request("POST", "/applications/token", url=url, json=grant)))
    except AirbyteError as exc:
        page = (refused := as_refusal(exc)) is not None and refused.page
        about.error(
            exc if refused is None else refused,
            Row(
                NotFound,
                "has no token endpoint",
                "for an Airbyte without authentication set neither AIRBYTE_EVENTS_CLIENT_ID nor _CLIENT_SECRET; for "
                "another token endpoint set AIRBYTE_EVENTS_TOKEN_URL",
            ),
            Row(
                (Unauthorized, Forbidden),
                _LOGIN if page else "rejects the client id and secret",
                _BYPASS_LOGIN if page else _CREATE_APPLICATION,
            ),
            Row(AirbyteError, "issues no token", _READ_LOG),
        )
        return False
    text = "accepts the credentials" + ("" if life is None else f"; a token expires after {duration(life)}")
    if life is not None and life < SHORT_TOKEN_SECONDS:
        about.warning(
            text, "give Airbyte's tokens a lifetime of some minutes, so that not every poll requests a new one"
        )
    else:
        about.ok(text)
    return True


def _life(response: ApiResponse) -> float | None:
    """Return a token's lifetime in seconds: by its claims, else by ``expires_in``, which may be longer."""
    fields = response.object()
    token = fields.get("access_token")
    if not isinstance(token, str):
        raise AirbyteProtocolError(f"{response.request}: the response has no usable access_token")
    with contextlib.suppress(ValueError, IndexError):
        payload = token.split(".")[1]
        claims = json_values.parse_object(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        issued, expires = json_values.seconds(claims.get("iat")), json_values.seconds(claims.get("exp"))
        if issued is not None and expires is not None:
            return expires - issued
    return json_values.seconds(fields.get("expires_in"))


async def lists_jobs(about: Report, airbyte: AirbyteClient, *, known: bool) -> bool:
    """Report whether Airbyte lists jobs, and whether its clock agrees with this machine's.

    :param known: whether there are credentials.
    """
    sent_at = utcnow()
    try:
        page = await airbyte.list_jobs(limit=1)
    except AirbyteError as exc:
        access = "give the application's user access to the workspaces (AIRBYTE_EVENTS_WORKSPACE_IDS, if it is set)"
        about.error(
            exc,
            Row((Unauthorized, Forbidden), "does not permit listing jobs", access if known else _CREATE_APPLICATION),
            _SHEDS_LOAD,
            Row(AirbyteError, "can't list jobs", _READ_LOG),
        )
        return isinstance(exc, RateLimited)
    about.ok("lists jobs")
    ahead = page.ahead(sent_at, utcnow())
    if abs(ahead) > OVERLAP:
        apart = f"{duration(abs(ahead).total_seconds())} {'ahead of' if ahead > timedelta(0) else 'behind'}"
        about.warning(
            f"its clock is {apart} this machine's",
            "synchronise both by NTP: otherwise the times of jobs and of events do not match",
        )
    elif page.served_at is not None:
        about.ok("its clock agrees with this machine's")
    return True


async def _explains_failures(about: Report, airbyte: AirbyteClient) -> None:
    """Check whether the optional internal API returns a job."""
    missing = "so failures that polling detects have no reason"
    try:
        jobs = (await airbyte.list_jobs(limit=1)).jobs
        if not jobs:
            about.ok("has no jobs yet: whether its internal API returns failure reasons is not checked")
            return
        await airbyte.internal.check(jobs[0].job_id)
    except AirbyteError as exc:
        about.error(
            exc,
            Row(
                (Unauthorized, Forbidden),
                f"its internal API refuses access, {missing}",
                "give the application's user the right to read the workspace, or do without these reasons",
                Level.WARNING,
            ),
            Row(
                AirbyteError,
                f"its internal API does not return jobs, {missing}",
                f"let requests to {airbyte.internal.url} pass, or do without these reasons",
                Level.WARNING,
            ),
        )
    else:
        about.ok("returns failure reasons, also of failures that polling detects")


async def _check_webhooks(
    about: Report,
    airbyte: AirbyteClient,
    instance: InstanceSettings,
    receiver: ReceiverURLs,
    listener: FeedClient | None,
    install: str,
) -> None:
    try:
        workspaces = await read_workspaces(airbyte, instance.workspace_ids)
    except AirbyteError as exc:
        about.error(
            exc,
            Row(
                NotFound,
                "Airbyte has no such workspace",
                "set AIRBYTE_EVENTS_WORKSPACE_IDS to ids from the URLs of Airbyte's pages",
            ),
            Row(
                Forbidden,
                _UNREADABLE,
                "let the application's user read the workspaces of AIRBYTE_EVENTS_WORKSPACE_IDS, or check in Airbyte "
                "under Settings, Notifications",
                Level.WARNING,
            ),
            Row(NoNotifications, _UNREADABLE, NoNotifications.remedy(receiver), Level.WARNING),
            Row(AirbyteError, _UNREADABLE, "try again when Airbyte responds", Level.WARNING),
        )
        return
    urls: dict[str, None] = {}
    for workspace in workspaces:
        urls |= dict.fromkeys(_check_workspace(about, workspace, receiver, install))
    for url in urls:
        host = httpx.URL(url)
        proof = await prove_by_airbyte(airbyte, url, f"{host.scheme}://{host.netloc.decode('ascii')}/…", listener)
        if proof.remedy:
            about.failure(proof.text, proof.remedy)
        else:
            about.ok(proof.text)


def _check_workspace(about: Report, workspace: Workspace, receiver: ReceiverURLs, install: str) -> list[str]:
    """Report whether a workspace announces completions to the listener, and return its webhook URLs that do."""
    webhooks = {kind: workspace.webhooks[kind] for kind in REQUIRED}
    live = {kind: each.live for kind, each in webhooks.items() if each.live is not None}
    others = [kind for kind in REQUIRED if not receiver.includes(live.get(kind))]
    strays = [kind for kind, url in live.items() if not receiver.is_current(url)]
    if not others and not strays:
        about.ok(f"{workspace.name}: {' and '.join(REQUIRED)} go to the listener")
    elif not others:
        about.warning(
            f"{workspace.name}: {' and '.join(strays)} go to {redacted(webhooks[strays[0]], receiver)}, not to "
            f"{receiver.base}",
            f"{install}, which sets the public address",
        )
    elif not receiver.tokens and all(f"/webhooks/{receiver.instance}/" in live.get(kind, "") for kind in REQUIRED):
        about.warning(
            f"{workspace.name}: they go to a listener, maybe to another one",
            "set AIRBYTE_EVENTS_WEBHOOK_TOKENS here, too: the last part of that URL",
        )
    else:
        places = ((kind, redacted(webhooks[kind], receiver)) for kind in others)
        where = ", ".join(f"{kind} goes {'' if at.startswith('nowhere') else 'to '}{at}" for kind, at in places)
        about.failure(
            f"{workspace.name}: {where}; completions are detected by polling only",
            f"{install} --workspace {workspace.id} --url {receiver.base or 'URL'}",
        )
    return [url for url in live.values() if receiver.includes(url)]
