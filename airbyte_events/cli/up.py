"""``airbyte-events up``: sets up a listener for an Airbyte, and runs it."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
import typer
from pydantic import SecretStr

from airbyte_events._utils.files import read_fault
from airbyte_events.cli import options
from airbyte_events.cli.airbyte import open_airbyte
from airbyte_events.cli.api_client import address_of, own_url
from airbyte_events.cli.doctor.airbyte import issues_token, lists_jobs, responds
from airbyte_events.cli.doctor.doctor import show
from airbyte_events.cli.doctor.findings import Finding, Report
from airbyte_events.cli.options import flag, option, whole
from airbyte_events.cli.output import Output
from airbyte_events.cli.questions import ask, ask_secret, can_ask, confirmed
from airbyte_events.cli.runner import CUT_OFF, INTERRUPTED, command
from airbyte_events.cli.webhooks.plan import Plan, Workspaces
from airbyte_events.cli.webhooks.webhooks import CHANGE_THIS, note_replaced, show_changes, show_proof
from airbyte_events.cli.webhooks.workspaces import REQUIRED, Change, Workspace, plan_install, read_workspaces
from airbyte_events.errors import AirbyteError, AirbyteEventsError, SettingsError, Unauthorized
from airbyte_events.listener.secrets import credentials_of
from airbyte_events.listener.settings import InstanceSettings, Settings, check_address, is_loopback, load
from airbyte_events.listener.settings.declaration import DEFAULT_INSTANCE
from airbyte_events.listener.settings.saved import save, saved_secret, secret_file, settings_file
from airbyte_events.listener.settings.sources import read_environment
from airbyte_events.web.auth import new_token
from airbyte_events.web.server import bind

CONN_ID = "airbyte_events_default"
"""The Airflow connection that it prints."""


@command(
    "up",
    "  airbyte-events up",
    "Without questions, in a script:",
    "  airbyte-events up --airbyte-url http://localhost:8000 --client-id ID --client-secret-file secret "
    "--webhooks http://listener.example.com:8484",
    "Then in another terminal:",
    "  airbyte-events doctor",
    "  airbyte-events jobs",
    codes={
        0: "stopped",
        1: "Airbyte does not respond or refuses",
        INTERRUPTED: "Ctrl-C before the listener runs",
        CUT_OFF: "the reader of the output has closed it",
    },
)
def up(
    airbyte_url: Annotated[
        str | None, option("URL", "Airbyte's address. [AIRBYTE_EVENTS_AIRBYTE_URL, else stored or asked for]")
    ] = None,
    client_id: Annotated[
        str | None,
        option(
            "ID",
            "Client id of an application in Airbyte (User settings, Applications). [AIRBYTE_EVENTS_CLIENT_ID, "
            "else stored or asked for]",
        ),
    ] = None,
    client_secret_file: Annotated[
        Path | None,
        option(
            "FILE", "File with its client secret. [AIRBYTE_EVENTS_CLIENT_SECRET or _FILE, else stored or asked for]"
        ),
    ] = None,
    webhooks: Annotated[
        str | None,
        option(
            "URL",
            "Set Airbyte's webhooks to the listener, which Airbyte reaches at this address. [on a terminal: asked for]",
        ),
    ] = None,
    workspace: Workspaces = None,
    host: options.Host = None,
    port: Annotated[
        int | None, option("PORT", "Port to listen on. [AIRBYTE_EVENTS_PORT, else 8484]", parse=whole(1, 65535))
    ] = None,
    show_secrets: Annotated[bool, flag("Print the log-in link and the API token in a pipe, too.", "--show")] = False,
) -> int:
    """Set up a listener for your Airbyte, and run it. Asks for Airbyte's address and, if Airbyte requires them, client
    id and secret, and checks them. Generates the tokens. Offers to set Airbyte's webhooks. Prints the dashboard's
    address and the Airflow connection. Settings and secrets stay in files of your data folder that only you can read.
    So the next up asks nothing, and serve, jobs, tail, trigger, webhooks and doctor need no settings. Ctrl-C stops
    it."""
    from airbyte_events.listener.process import run

    output = Output()
    given = {"airbyte_url": airbyte_url, "client_id": client_id, "client_secret": _read(client_secret_file)}
    try:
        _check_environment()
        known = {name: value for name, value in given.items() if value}
        answers = connect(output, known, host=host, port=port)
        settings = load(host=host, port=port, airbyte=answers, listens=False)
        settings = store(settings, answers)
        installation = plan_webhooks(output, settings, webhooks, workspace)
        if installation is not None and installation.plan.receiver.base != settings.public_url:
            settings = store(settings.model_copy(update={"public_url": installation.plan.receiver.base}), answers)
    except (KeyboardInterrupt, EOFError):
        return INTERRUPTED
    shows = show_secrets or sys.stdout.isatty()

    async def greet() -> None:
        if installation is not None:
            await installation.run(output)
        for line in next_steps(settings, secrets=shows):
            output.line(line)

    reload = partial(load, host=host, port=port, airbyte=answers)
    return run(settings, reload, log_in=shows, greet=greet)


def check_free(settings: Settings) -> None:
    """Check that the address can be bound, before anything is kept or changed in Airbyte.

    :raises SettingsError: if it can't; in most cases, a listener runs there already.
    """
    try:
        bind(settings.host, settings.port).close()
    except OSError as exc:
        raise SettingsError(
            f"--port: can't listen on {settings.host} port {settings.port}: {exc.strerror}. Does this listener run "
            "already? If another program has the port: airbyte-events up --port 8485"
        ) from exc


def _read(file: Path | None) -> str | None:
    try:
        return None if file is None else file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(
            f"--client-secret-file: {file}: {read_fault(exc)}; name the file that has the secret"
        ) from None


Fault = Literal["address", "access"]
"""What is wrong with the settings of an Airbyte."""


def connect(
    output: Output, given: dict[str, Any], *, host: str | None = None, port: int | None = None
) -> dict[str, Any]:
    """Return the settings of the Airbyte that are not in the environment or kept, once Airbyte accepts them all.

    :param given: by options; what is missing or refused is asked for on a terminal.
    :raises SettingsError: if a setting is missing or wrong, and there is no terminal to ask at.
    :raises typer.Exit: if Airbyte does not respond or refuses.
    """
    asks, answers = can_ask(), dict(given)
    while True:
        try:
            settings = load(host=host, port=port, airbyte=answers, listens=False)
        except SettingsError as exc:
            if not asks and _lacks_secret(answers):
                raise SettingsError(
                    "--client-secret-file: not set, nor AIRBYTE_EVENTS_CLIENT_SECRET, but --client-id is; name the "
                    "file that has the secret"
                ) from None
            if not asks or (answers == given and not _lacks_secret(answers)):
                raise
            output.note(str(exc))
            answers = answers | _ask_secret() if _lacks_secret(answers) else _ask_url(given)
            continue
        instance = settings.instances.get(DEFAULT_INSTANCE)
        if instance is None and not asks:
            raise SettingsError(
                "--airbyte-url: not set, nor AIRBYTE_EVENTS_AIRBYTE_URL, and there is no terminal to ask at; for "
                "example --airbyte-url http://localhost:8000"
            )
        if instance is None:
            answers = _ask_url(given)
            continue
        fault = anyio.run(_check, output, instance)
        if fault is None:
            check_free(settings)
            return answers
        if not asks:
            raise typer.Exit(1)
        if fault == "address":
            answers = _ask_url(given, instance.airbyte_url)
        else:
            answers |= {"airbyte_url": instance.airbyte_url} | _ask_credentials(instance.client_id)


def _check_environment() -> None:
    environment = read_environment()
    if "config" in environment:
        raise SettingsError(
            "AIRBYTE_EVENTS_CONFIG: set, but up keeps settings of its own; run airbyte-events serve, or unset it"
        )
    if others := sorted(set(environment.get("instances", {})) - {DEFAULT_INSTANCE}):
        raise SettingsError(
            f"AIRBYTE_EVENTS_INSTANCES__{others[0].upper()}__…: set, but up sets up one Airbyte; run airbyte-events "
            "serve"
        )


def _lacks_secret(answers: dict[str, Any]) -> bool:
    return "client_id" in answers and "client_secret" not in answers


def _ask_url(given: dict[str, Any], known: str | None = None) -> dict[str, Any]:
    hint = "for example https://airbyte.example.com" if known is None else f"Enter: {known} again"
    url = ask(f"Airbyte's address ({hint}): ") or known
    return given | {"airbyte_url": url or ""}


def _ask_credentials(known: str | None) -> dict[str, Any]:
    hint = f" (Enter: {known})" if known else ", of an application in Airbyte (User settings, Applications)"
    while not (id_ := ask(f"Client id{hint}: ") or known):
        pass
    return {"client_id": id_, **_ask_secret()}


def _ask_secret() -> dict[str, Any]:
    while not (secret := ask_secret("Client secret (not shown): ")):
        pass
    return {"client_secret": secret}


async def _check(output: Output, instance: InstanceSettings) -> Fault | None:
    """Show whether Airbyte responds, and whether it accepts the credentials."""
    about, credentials = Report(partial(_show, output)).about("Airbyte"), credentials_of(instance)
    async with open_airbyte(instance, attempts=1) as airbyte:
        if not await responds(about, airbyte):
            return "address"
        if credentials is None and can_ask():
            try:
                await airbyte.list_jobs(limit=1)
            except Unauthorized:
                about.warning("requires a client id and secret")
                return "access"
            except AirbyteError:
                pass  # shown below
        if credentials is not None and not await issues_token(about, airbyte, instance):
            return "access"
        return None if await lists_jobs(about, airbyte, known=credentials is not None) else "access"


def _show(output: Output, finding: Finding) -> None:
    """Show a finding with a remedy by this command's options."""
    remedy = finding.remedy
    for variable, name in _OPTIONS.items():
        remedy = remedy.replace(variable, name)
    show(output, replace(finding, remedy=remedy))


_OPTIONS = {
    "AIRBYTE_EVENTS_AIRBYTE_URL": "--airbyte-url",
    "AIRBYTE_EVENTS_CLIENT_ID": "--client-id",
    "AIRBYTE_EVENTS_CLIENT_SECRET": "--client-secret-file",
}


def store(settings: Settings, answers: dict[str, Any]) -> Settings:
    """Keep the settings that all commands need, with tokens, and return them.

    :param answers: options of the Airbyte.
    """
    instance = settings.instances[DEFAULT_INSTANCE]
    tokens = {
        name: getattr(settings, name) or saved_secret(name) or (SecretStr(new_token()),)
        for name in ("api_tokens", "webhook_tokens")
    }
    others = {name: getattr(settings, name) for name in ("host", "port", "public_url")}
    changed = {name: value for name, value in others.items() if value != Settings.model_fields[name].default}
    save({name: getattr(instance, name) for name in InstanceSettings.model_fields}, **tokens, **changed)
    return load(host=settings.host, port=settings.port, airbyte=answers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """Changes of Airbyte's webhooks that the user has confirmed."""

    plan: Plan
    changes: Sequence[Change]
    workspaces: int

    async def run(self, output: Output) -> None:
        """Make them, and prove that a notification arrives."""
        try:
            async with open_airbyte(self.plan.instance) as airbyte:
                await self.plan.make(airbyte, self.changes)
            note_replaced(output, self.plan, self.workspaces)
            show_proof(output, await self.plan.prove())
        except AirbyteEventsError as exc:
            output.note(f"the webhooks are not set: {exc}; to try again: {_INSTALL} --url {self.plan.receiver.base}")


_INSTALL = "airbyte-events webhooks install"


def plan_webhooks(output: Output, settings: Settings, url: str | None, named: list[str] | None) -> Installation | None:
    """Return the changes that point Airbyte's webhooks at the listener, if the user confirms them.

    :param url: the address at which Airbyte reaches the listener: to give it is to agree.
    :return: None if nobody agrees, or Airbyte can't be changed by its API.
    """
    agreed = url is not None
    if url is not None:
        url = address_of("--webhooks", url, "http://listener.example.com:8484")
    elif can_ask():
        url = settings.public_url or _ask_public_url(output)
    if url is None:
        return None
    plan = Plan.of(settings, DEFAULT_INSTANCE, named, url, own_url(settings), None)

    async def read() -> list[Workspace]:
        async with open_airbyte(plan.instance) as airbyte:
            if agreed or plan.workspaces:
                return await plan.find_workspaces(airbyte)
            return await read_workspaces(airbyte, plan.workspaces)

    try:
        workspaces = anyio.run(read)
    except AirbyteError as exc:
        output.note(f"{exc}; the webhook token is in {secret_file('webhook_tokens')}")
        return None
    if not agreed and len(workspaces) > 1 and not plan.workspaces:
        workspaces = _choose(output, workspaces)
    changes = list(plan_install(workspaces, REQUIRED, plan.receiver))
    if changes:
        show_changes(output, [change.data(plan.receiver) for change in changes])
        if not agreed and not confirmed(CHANGE_THIS):
            return None
    return Installation(plan=plan, changes=changes, workspaces=len(workspaces)) if workspaces else None


def _ask_public_url(output: Output) -> str | None:
    while True:
        url = ask(
            "Webhooks report completions at once. At which address does Airbyte reach this machine (for example "
            "http://listener.example.com:8484)? Enter: set no webhooks now: "
        )
        try:
            return check_address(url) if url else None
        except ValueError as exc:
            output.note(str(exc))


def _choose(output: Output, workspaces: Sequence[Workspace]) -> list[Workspace]:
    """Return the workspaces that the user chooses, possibly none."""
    for number, workspace in enumerate(workspaces, 1):
        output.note(f"{number}  {workspace.name} ({workspace.id})")
    while True:
        words = ask("Workspaces whose webhooks are set, by number (for example 1,2; Enter: none): ").split(",")
        numbers = [int(word) for word in map(str.strip, words) if word.isascii() and word.isdigit()]
        if all(1 <= number <= len(workspaces) for number in numbers) and (numbers or words == [""]):
            return [workspaces[number - 1] for number in dict.fromkeys(numbers)]


def next_steps(settings: Settings, *, secrets: bool) -> list[str]:
    """Return how Airflow is connected, and what to do next.

    :param secrets: whether the API token is shown; else the shell reads it from its file.
    """
    url = own_url(settings)
    token = settings.api_tokens[0].get_secret_value()
    shown = token if secrets else f'"$(head -n 1 {shlex.quote(str(secret_file("api_tokens")))})"'
    uri = f"airbyte-events://:{token if secrets else 'TOKEN'}@{url.partition('://')[2]}"
    uri += "/https" if url.startswith("https") else ""
    lines = [
        "The Airflow connection of this listener, by one of:",
        f"  airflow connections add {CONN_ID} --conn-type airbyte_events --conn-host {url} --conn-password {shown}",
        f"  URI: {uri}",
    ]
    variable = json.dumps({"conn_type": "airbyte_events", "host": url, "password": "TOKEN"})
    before, _, after = variable.partition("TOKEN")
    lines += [
        f"  export AIRFLOW_CONN_{CONN_ID.upper()}='{before}{shown if secrets else chr(39) + shown + chr(39)}{after}'",
        "and in Airflow's configuration, for tasks to use it:",
        f"  export AIRFLOW__AIRBYTE_EVENTS__LISTENER_CONN_ID={CONN_ID}",
    ]
    if is_loopback(settings.host):
        lines.append(
            f"Only this machine reaches {url}. For Airflow or Airbyte on others: airbyte-events up --host 0.0.0.0"
        )
    lines.append(f"Settings and tokens are kept in {settings_file().parent}. Next, in another terminal:")
    if settings.public_url is None:
        lines.append(f"  {_INSTALL} --url URL")
    return [*lines, "  airbyte-events doctor", "  airbyte-events jobs"]
