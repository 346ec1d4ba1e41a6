"""What is looked at of an Airbyte: whether it answers, lets us in, tells the time, and sends its webhooks to us."""

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
from airbyte_events.airbyte.transport import Answer, Request, exchange
from airbyte_events.airbyte.url import token_endpoint
from airbyte_events.cli.airbyte import open_airbyte
from airbyte_events.cli.api_client import Listener, http_client
from airbyte_events.cli.doctor.findings import Finding, failure, ok, warning
from airbyte_events.cli.output import duration
from airbyte_events.cli.webhooks import probe
from airbyte_events.cli.webhooks.workspaces import NEEDED, NoNotifications, Ours, Workspace, masked
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
"""A token that holds no longer is asked for almost with every look."""

_ANSWER_SECONDS = 20.0

_MAKE_APPLICATION = (
    "make an application in Airbyte (User settings, Applications), and set AIRBYTE_EVENTS_CLIENT_ID and "
    "AIRBYTE_EVENTS_CLIENT_SECRET to its two"
)

_GO_AROUND = "let the API's requests pass without one, or give AIRBYTE_EVENTS_AIRBYTE_URL an address behind it"


class AirbyteChecks:
    """:param name: the instance's.
    :param ours: its webhook URLs at the listener.
    :param listener: to look into its inbox; None if it can't be asked.
    """

    def __init__(self, name: str, instance: InstanceSettings, ours: Ours, listener: Listener | None) -> None:
        self._name = name
        self._instance = instance
        self._ours = ours
        self._listener = listener

    async def run(self) -> AsyncIterator[Finding]:
        """Look at one thing after the other, as far as the one before allows."""
        part = f"Airbyte {self._name}"
        async with open_airbyte(self._instance, attempts=1) as airbyte:
            found = await _answers(airbyte, part)
            yield found
            if found.remedy:
                return
            if self._instance.client_id is None:
                yield ok(part, "is asked without credentials")
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
            answer = await self._token()
            life = _life(answer)
        except NotFound as exc:
            yield failure(
                part,
                f"has no tokens: {exc}",
                "an Airbyte without authentication wants neither AIRBYTE_EVENTS_CLIENT_ID nor _CLIENT_SECRET; for one "
                "behind a path of its own there is AIRBYTE_EVENTS_TOKEN_URL",
            )
        except AirbyteError as exc:
            if (refused := as_refusal(exc)) is None:
                yield failure(part, f"gives no token: {exc}", "Airbyte's own log tells why")
            elif refused.page:
                yield failure(part, f"something in front of it wants a login of its own: {exc}", _GO_AROUND)
            else:
                yield failure(part, f"does not accept client id and client secret: {exc}", _MAKE_APPLICATION)
        else:
            if life is not None and life < SHORT_TOKEN_SECONDS:
                yield warning(
                    part,
                    f"accepts the credentials; a token holds {duration(life)} only",
                    "have Airbyte's tokens live for some minutes, so that not every look wants a new one",
                )
            else:
                held = "" if life is None else f"; a token holds {duration(life)}"
                yield ok(part, f"accepts the credentials{held}")

    async def _token(self) -> Answer:
        credentials = credentials_of(self._instance)
        assert credentials is not None  # noqa: S101 -- client id and secret go together
        url = token_endpoint(self._instance.airbyte_url, self._instance.token_url)
        fields = {
            "client_id": credentials.client_id,
            "client_secret": credentials.client_secret,
            "grant_type": "client_credentials",
        }
        request = Request(method="POST", url=url, route="/applications/token", json=fields, timeout=_ANSWER_SECONDS)
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
                "set AIRBYTE_EVENTS_WORKSPACE_IDS to ids of its own, which stand in the addresses of its pages",
            )
            return
        except Forbidden as exc:
            yield warning(
                part,
                f"where they go can't be seen: {exc}",
                "have the application's user read the workspaces, or look in Airbyte under Settings, Notifications; if "
                "AIRBYTE_EVENTS_WORKSPACE_IDS is set, are they those?",
            )
            return
        except NoNotifications as exc:
            yield warning(part, f"where they go can't be seen: {exc}", exc.remedy(self._ours))
            return
        except AirbyteError as exc:
            yield warning(part, f"where they go can't be seen: {exc}", "try again when Airbyte is well")
            return
        ours: dict[str, None] = {}
        for workspace in found:
            finding, urls = self._judged(part, workspace)
            ours |= dict.fromkeys(urls)
            yield finding
        for url in ours:
            yield await self._reaches(part, url)

    def _judged(self, part: str, workspace: Workspace) -> tuple[Finding, list[str]]:
        """Whether a workspace tells of ends, and the URLs of ours that it does so by."""
        webhooks = {kind: workspace.webhooks[kind] for kind in NEEDED}
        live = {kind: each.url for kind, each in webhooks.items() if each.live and each.url}
        urls = [url for url in live.values() if self._ours.has(url)]
        others = [kind for kind in NEEDED if kind not in live or not self._ours.has(live[kind])]
        if not others:
            strays = [kind for kind, url in live.items() if not self._ours.right(url)]
            if strays:
                return warning(
                    part,
                    f"{workspace.name}: {' and '.join(strays)} go to {masked(webhooks[strays[0]], self._ours)}, not to "
                    f"{self._ours.base}",
                    "airbyte-events webhooks install sets the public address",
                ), urls
            return ok(part, f"{workspace.name}: {' and '.join(NEEDED)} go to the listener"), urls
        if not self._ours.tokens and all(f"/webhooks/{self._name}/" in live.get(kind, "") for kind in NEEDED):
            return warning(
                part,
                f"{workspace.name}: they go to a listener; whether to this one can't be told",
                "set AIRBYTE_EVENTS_WEBHOOK_TOKENS here as well: the last part of that URL",
            ), urls
        where = ", ".join(f"{kind} goes {_to(masked(webhooks[kind], self._ours))}" for kind in others)
        return failure(
            part,
            f"{workspace.name}: {where}; ends are found by polling alone",
            f"airbyte-events webhooks install --workspace {workspace.id} --url {self._ours.base or 'URL'}",
        ), urls

    async def _reaches(self, part: str, url: str) -> Finding:
        """Send to the URL what Airbyte would."""
        posted = await probe.post(url, probe.harmless())
        host = httpx.URL(url)
        where = f"{host.scheme}://{host.netloc.decode('ascii')}"
        if posted.fault or posted.id is None:
            empty = " (the body was lost on the way: the server in front of the listener takes Java's offer of HTTP/2 "
            fault = posted.fault + (f"{empty}for the request itself)" if "empty" in posted.fault else "")
            return failure(
                part,
                f"a POST as Airbyte's, from here to the URL that it has ({where}/…): {fault}",
                "does the listener run, is that its address, and does a proxy on the way pass POST and body on?",
            )
        if self._listener is not None:
            with contextlib.suppress(FeedError):
                kept = await probe.found(self._listener, posted.id)
                if kept is None or kept.get("kind") != "test":
                    return failure(
                        part,
                        f"{where} leads to another listener than {self._listener.address.url}",
                        "install the right address, or ask the right listener (--listener)",
                    )
        return ok(part, f"a POST as Airbyte's of {posted.bytes} bytes, from here to {where}, arrives whole")


def _to(place: str) -> str:
    return place if place.startswith("nowhere") else f"to {place}"


async def _answers(airbyte: AirbyteClient, part: str) -> Finding:
    try:
        await airbyte.health()
    except AirbyteUnreachable as exc:
        return failure(
            part,
            f"nobody answers at {airbyte.url}: {exc}",
            "is AIRBYTE_EVENTS_AIRBYTE_URL reached from here, by this host, port and scheme, and through the proxy if "
            "there is one (HTTPS_PROXY, NO_PROXY)?",
        )
    except Unauthorized as exc:
        return failure(part, f"something in front of it wants a login of its own: {exc}", _GO_AROUND)
    except (AirbyteProtocolError, NotFound) as exc:
        return failure(
            part,
            f"what answers at {airbyte.url} is not Airbyte's public API: {exc}",
            "write AIRBYTE_EVENTS_AIRBYTE_URL as http(s)://HOST/api/public/v1, or https://api.airbyte.com/v1 for Cloud",
        )
    except RateLimited as exc:
        return _sheds_load(part, exc)
    except AirbyteError as exc:
        return failure(part, f"is there, and in trouble: {exc}", "Airbyte's own log tells why")
    return ok(part, f"answers at {airbyte.url}")


async def _lists_jobs(airbyte: AirbyteClient, part: str, *, known: bool) -> AsyncIterator[Finding]:
    asked = utcnow()
    try:
        page = await airbyte.list_jobs(limit=1)
    except (Unauthorized, Forbidden) as exc:
        remedy = (
            "give the application's user access to the workspaces, and see that AIRBYTE_EVENTS_WORKSPACE_IDS are those"
        )
        yield failure(part, f"jobs may not be listed: {exc}", remedy if known else _MAKE_APPLICATION)
        return
    except RateLimited as exc:
        yield _sheds_load(part, exc)
        return
    except AirbyteError as exc:
        yield failure(part, f"can't list jobs: {exc}", "Airbyte's own log tells why")
        return
    yield ok(part, "lists jobs")
    if page.served_at is None:
        return
    ahead = page.ahead(asked, utcnow())
    if abs(ahead) > OVERLAP:
        yield warning(
            part,
            f"its clock is {duration(abs(ahead).total_seconds())} {'ahead of' if ahead > timedelta(0) else 'behind'} "
            "this machine's",
            "set both by NTP: times of jobs and of what was learnt do not fit together otherwise",
        )
    else:
        yield ok(part, "its clock agrees with this machine's")


def _sheds_load(part: str, exc: RateLimited) -> Finding:
    return warning(
        part, f"sheds load: {exc}", "other users of the same credentials cause it; the listener waits: try again later"
    )


async def _workspaces(airbyte: AirbyteClient, instance: InstanceSettings) -> list[Workspace]:
    if instance.workspace_ids:
        return [Workspace.of(await airbyte.get_workspace(id_)) for id_ in instance.workspace_ids]
    return [Workspace.of(each) for each in await airbyte.list_workspaces()]


def _life(answer: Answer) -> float | None:
    """Seconds that a token holds: as it says itself, or else as Airbyte promises, which is more at times."""
    fields = answer.object()
    token = fields.get("access_token")
    if not isinstance(token, str):
        raise AirbyteProtocolError(f"{answer.request}: the answer has no usable access_token")
    with contextlib.suppress(ValueError, IndexError):
        payload = token.split(".")[1]
        claims = json_values.parse_object(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        issued, expires = json_values.seconds(claims.get("iat")), json_values.seconds(claims.get("exp"))
        if issued is not None and expires is not None:
            return expires - issued
    return json_values.seconds(fields.get("expires_in"))
