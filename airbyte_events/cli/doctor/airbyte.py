"""Checks of an Airbyte: its address, credentials, permissions, clock and webhooks."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx

from airbyte_events._utils import json_values
from airbyte_events._utils.times import utcnow
from airbyte_events.airbyte import AirbyteClient
from airbyte_events.airbyte.auth import as_refusal
from airbyte_events.airbyte.transport import ApiResponse, Request, exchange
from airbyte_events.airbyte.url import token_endpoint
from airbyte_events.cli.airbyte import open_airbyte
from airbyte_events.cli.api_client import Listener, http_client
from airbyte_events.cli.doctor.findings import Finding, failure, ok, warning
from airbyte_events.cli.output import duration
from airbyte_events.cli.webhooks import probe
from airbyte_events.cli.webhooks.workspaces import REQUIRED, NoNotifications, ReceiverURLs, Workspace, redacted
from airbyte_events.errors import (
    AirbyteError,
    AirbyteProtocolError,
    AirbyteUnreachable,
    FeedError,
    Forbidden,
    NotFound,
    RateLimited,
    Unauthorized,
)
from airbyte_events.listener.secrets import credentials_of
from airbyte_events.listener.settings import InstanceSettings
from airbyte_events.monitor.monitor import OVERLAP

SHORT_TOKEN_SECONDS = 60.0
"""Tokens with a shorter life are renewed with almost every poll."""

_RESPONSE_SECONDS = 20.0

_READ_LOG = "read Airbyte's log"

_CREATE_APPLICATION = (
    "create an application in Airbyte (User settings, Applications), and set AIRBYTE_EVENTS_CLIENT_ID and "
    "AIRBYTE_EVENTS_CLIENT_SECRET to its id and secret"
)

_BYPASS_LOGIN = (
    "let requests to the API pass without a login, or set AIRBYTE_EVENTS_AIRBYTE_URL to an address behind it"
)


class AirbyteChecks:
    """:param name: of the instance.
    :param receiver: its webhook URLs at the listener.
    :param listener: has the inbox; None if that can't be read.
    """

    def __init__(
        self, name: str, instance: InstanceSettings, receiver: ReceiverURLs, listener: Listener | None
    ) -> None:
        self._name = name
        self._instance = instance
        self._receiver = receiver
        self._listener = listener

    async def run(self) -> AsyncIterator[Finding]:
        """Yield findings, until a fault prevents further checks."""
        part = f"Airbyte {self._name}"
        async with open_airbyte(self._instance, attempts=1) as airbyte:
            found = await _answers(airbyte, part)
            yield found
            if found.remedy:
                return
            if self._instance.client_id is None:
                yield ok(part, "needs no credentials")
            else:
                async for found in self._tokens(part):
                    yield found
                    if found.level.value == "failure":
                        return
            lists = True
            async for found in _lists_jobs(airbyte, part, known=self._instance.client_id is not None):
                yield found
                lists = lists and found.level.value != "failure"
            if lists:
                async for found in self._webhooks(airbyte):
                    yield found

    async def _tokens(self, part: str) -> AsyncIterator[Finding]:
        try:
            response = await self._token()
            life = _life(response)
        except NotFound as exc:
            yield failure(
                part,
                f"has no token endpoint: {exc}",
                "for an Airbyte without authentication set neither AIRBYTE_EVENTS_CLIENT_ID nor _CLIENT_SECRET; for "
                "another token endpoint set AIRBYTE_EVENTS_TOKEN_URL",
            )
        except AirbyteError as exc:
            if (refused := as_refusal(exc)) is None:
                yield failure(part, f"issues no token: {exc}", _READ_LOG)
            elif refused.page:
                yield failure(part, f"a proxy in front of it requires a login: {exc}", _BYPASS_LOGIN)
            else:
                yield failure(part, f"rejects the client id and secret: {exc}", _CREATE_APPLICATION)
        else:
            if life is not None and life < SHORT_TOKEN_SECONDS:
                yield warning(
                    part,
                    f"accepts the credentials; a token expires after {duration(life)}",
                    "give Airbyte's tokens a life of some minutes, so that not every poll fetches a new one",
                )
            else:
                held = "" if life is None else f"; a token expires after {duration(life)}"
                yield ok(part, f"accepts the credentials{held}")

    async def _token(self) -> ApiResponse:
        credentials = credentials_of(self._instance)
        assert credentials is not None  # noqa: S101 -- client id and secret go together
        url = token_endpoint(self._instance.airbyte_url, self._instance.token_url)
        fields = {
            "client_id": credentials.client_id,
            "client_secret": credentials.client_secret,
            "grant_type": "client_credentials",
        }
        request = Request(method="POST", url=url, route="/applications/token", json=fields, timeout=_RESPONSE_SECONDS)
        async with http_client(url) as http:
            return await exchange(http, request, hide=(credentials.client_secret,))

    async def _webhooks(self, airbyte: AirbyteClient) -> AsyncIterator[Finding]:
        part = f"webhooks {self._name}"
        try:
            found = await _workspaces(airbyte, self._instance)
        except NotFound as exc:
            yield failure(
                part,
                f"Airbyte has no such workspace: {exc}",
                "set AIRBYTE_EVENTS_WORKSPACE_IDS to ids from the URLs of Airbyte's pages",
            )
            return
        except Forbidden as exc:
            yield warning(
                part,
                f"the notification settings can't be read: {exc}",
                "let the application's user read the workspaces of AIRBYTE_EVENTS_WORKSPACE_IDS, or check in Airbyte "
                "under Settings, Notifications",
            )
            return
        except NoNotifications as exc:
            yield warning(part, f"the notification settings can't be read: {exc}", exc.remedy(self._receiver))
            return
        except AirbyteError as exc:
            yield warning(part, f"the notification settings can't be read: {exc}", "try again when Airbyte answers")
            return
        receiver: dict[str, None] = {}
        for workspace in found:
            finding, urls = self._judged(part, workspace)
            receiver |= dict.fromkeys(urls)
            yield finding
        for url in receiver:
            yield await self._reaches(part, url)

    def _judged(self, part: str, workspace: Workspace) -> tuple[Finding, list[str]]:
        """Check whether a workspace announces completions to the listener, and return its webhook URLs that do."""
        webhooks = {kind: workspace.webhooks[kind] for kind in REQUIRED}
        live = {kind: each.url for kind, each in webhooks.items() if each.live and each.url}
        urls = [url for url in live.values() if self._receiver.includes(url)]
        others = [kind for kind in REQUIRED if kind not in live or not self._receiver.includes(live[kind])]
        if not others:
            strays = [kind for kind, url in live.items() if not self._receiver.is_current(url)]
            if strays:
                return warning(
                    part,
                    f"{workspace.name}: {' and '.join(strays)} go to {redacted(webhooks[strays[0]], self._receiver)}, "
                    f"not to {self._receiver.base}",
                    "run airbyte-events webhooks install, which sets the public address",
                ), urls
            return ok(part, f"{workspace.name}: {' and '.join(REQUIRED)} go to the listener"), urls
        if not self._receiver.tokens and all(f"/webhooks/{self._name}/" in live.get(kind, "") for kind in REQUIRED):
            return warning(
                part,
                f"{workspace.name}: they go to a listener, maybe to another one",
                "set AIRBYTE_EVENTS_WEBHOOK_TOKENS here, too: the last part of that URL",
            ), urls
        where = ", ".join(f"{kind} goes {_to(redacted(webhooks[kind], self._receiver))}" for kind in others)
        return failure(
            part,
            f"{workspace.name}: {where}; completions are detected by polling only",
            f"run airbyte-events webhooks install --workspace {workspace.id} --url {self._receiver.base or 'URL'}",
        ), urls

    async def _reaches(self, part: str, url: str) -> Finding:
        """Post to the URL as Airbyte does."""
        posted = await probe.post(url, probe.harmless())
        host = httpx.URL(url)
        where = f"{host.scheme}://{host.netloc.decode('ascii')}"
        if posted.fault or posted.id is None:
            lost = " (a proxy lost the body: it takes the offered upgrade to HTTP/2 for the request)"
            fault = posted.fault + (lost if "empty" in posted.fault else "")
            return failure(
                part,
                f"a test posted from here to Airbyte's webhook URL ({where}/…) failed: {fault}",
                "check that the listener runs at that address, and that proxies pass POST requests with their bodies",
            )
        if self._listener is not None:
            with contextlib.suppress(FeedError):
                stored = await probe.found(self._listener, posted.id)
                if stored is None or stored.get("kind") != "test":
                    return failure(
                        part,
                        f"{where} leads to another listener than {self._listener.address.url}",
                        "run airbyte-events webhooks install with the right --url, or name the right --listener",
                    )
        return ok(part, f"a test of {posted.bytes} bytes, posted from here to {where} as Airbyte does, arrives whole")


def _to(place: str) -> str:
    return place if place.startswith("nowhere") else f"to {place}"


async def _answers(airbyte: AirbyteClient, part: str) -> Finding:
    try:
        await airbyte.health()
    except AirbyteUnreachable as exc:
        return failure(
            part,
            f"does not answer at {airbyte.url}: {exc}",
            "check scheme, host and port of AIRBYTE_EVENTS_AIRBYTE_URL, and the proxies of the environment "
            "(HTTPS_PROXY, NO_PROXY)",
        )
    except Unauthorized as exc:
        return failure(part, f"a proxy in front of it requires a login: {exc}", _BYPASS_LOGIN)
    except (AirbyteProtocolError, NotFound) as exc:
        return failure(
            part,
            f"{airbyte.url} is not Airbyte's public API: {exc}",
            "set AIRBYTE_EVENTS_AIRBYTE_URL to http(s)://HOST/api/public/v1, or for Cloud https://api.airbyte.com/v1",
        )
    except RateLimited as exc:
        return _sheds_load(part, exc)
    except AirbyteError as exc:
        return failure(part, f"answers with an error: {exc}", _READ_LOG)
    return ok(part, f"answers at {airbyte.url}")


async def _lists_jobs(airbyte: AirbyteClient, part: str, *, known: bool) -> AsyncIterator[Finding]:
    sent_at = utcnow()
    try:
        page = await airbyte.list_jobs(limit=1)
    except (Unauthorized, Forbidden) as exc:
        remedy = "give the application's user access to the workspaces (AIRBYTE_EVENTS_WORKSPACE_IDS, if it is set)"
        yield failure(part, f"does not permit listing jobs: {exc}", remedy if known else _CREATE_APPLICATION)
        return
    except RateLimited as exc:
        yield _sheds_load(part, exc)
        return
    except AirbyteError as exc:
        yield failure(part, f"can't list jobs: {exc}", _READ_LOG)
        return
    yield ok(part, "lists jobs")
    if page.served_at is None:
        return
    ahead = page.ahead(sent_at, utcnow())
    if abs(ahead) > OVERLAP:
        yield warning(
            part,
            f"its clock is {duration(abs(ahead).total_seconds())} {'ahead of' if ahead > timedelta(0) else 'behind'} "
            "this machine's",
            "synchronise both by NTP: otherwise the times of jobs and of events do not match",
        )
    else:
        yield ok(part, "its clock agrees with this machine's")


def _sheds_load(part: str, exc: RateLimited) -> Finding:
    return warning(
        part, f"sheds load: {exc}", "the same user sends too many requests; the listener backs off: try again later"
    )


async def _workspaces(airbyte: AirbyteClient, instance: InstanceSettings) -> list[Workspace]:
    if instance.workspace_ids:
        return [Workspace.of(await airbyte.get_workspace(id_)) for id_ in instance.workspace_ids]
    return [Workspace.of(each) for each in await airbyte.list_workspaces()]


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
