"""``airbyte-events tail``: events as they happen."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import anyio
import typer
from rich.text import Text

from airbyte_events._utils.backoff import pause
from airbyte_events._utils.printable import shown
from airbyte_events.cli import options
from airbyte_events.cli.api_client import Address, Listener, explained, open_listener
from airbyte_events.cli.output import Output, amount, duration, moment_of, status
from airbyte_events.cli.runner import run
from airbyte_events.errors import AirbyteEventsError, FeedError, FeedRefused, SettingsError
from airbyte_events.events import Cursor, EventFilter, JobEvent
from airbyte_events.feed import client
from airbyte_events.feed.client import FeedClient, FeedFrame
from airbyte_events.listener.settings import load

RECONNECT_SECONDS = 15.0
"""The longest rest between two attempts to come back."""

_READER_SECONDS = 0.5

HELP = (
    "Show job events as they happen. Goes on when the listener restarts, with what happened meanwhile. Ctrl-C ends it "
    "and tells the cursor to go on from; with --cursor-file it is kept, and the next tail begins there."
)
EPILOG = (
    "Ends of jobs, as they come:",
    "  airbyte-events tail --ended",
    "Failures of one connection, for programs, none missed between two runs:",
    "  airbyte-events tail --status failed --connection ID --json --cursor-file cursor | ./alert",
    "Each line of --json is a CloudEvents object: jq .data.status",
    "Exit codes: 1 the listener refuses or was not there at the start, 2 wrong usage or settings, 130 after Ctrl-C.",
)


def tail(
    instance: options.Instances = None,
    connection: options.Connections = None,
    job: options.Jobs = None,
    status: options.Statuses = None,
    ended: options.Ended = None,
    after: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="Begin behind this one, with what has happened since.")
    ] = None,
    cursor_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the cursor here, and begin behind the one that it holds.")
    ] = None,
    listener: options.ListenerURL = None,
    config: options.Config = None,
    json: options.JSON = False,
) -> None:
    wanted = options.event_filter(instance, connection, job, status, ended)
    address = Address.of(load(config, listens=False), listener)
    output = Output(json=json)
    begin = _cursor("--after", after) if after else _kept(cursor_file)
    following = Tail(output, address, wanted, begin, cursor_file)
    try:
        run(following.run)
    finally:
        following.leave()


class Tail:
    """Follows a feed, and shows what it tells.

    :param wanted: which events.
    :param after: where to begin; None: with what happens from now on.
    :param keep: the file that holds the cursor.
    """

    def __init__(
        self, output: Output, address: Address, wanted: EventFilter, after: Cursor | None, keep: Path | None
    ) -> None:
        self.cursor = after
        self._output = output
        self._address = address
        self._wanted = wanted
        self._keep = keep
        self._met = False
        self._failures = 0

    async def run(self) -> int:
        """Follow until cancelled.

        :return: never.
        :raises FeedError: if the listener is not there at the start, or refuses.
        :raises BrokenPipeError: if whoever reads the output has gone.
        """
        failure: Exception = BrokenPipeError()

        async def follow() -> None:
            nonlocal failure
            try:
                await self._follow_on(listener)
            except (AirbyteEventsError, BrokenPipeError) as exc:  # its own affair: a task group would wrap it
                failure = exc
                tasks.cancel_scope.cancel()

        async with open_listener(self._address) as listener, anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            # Where nothing happens, nothing is written that would tell.
            while not self._output.reader_gone():  # noqa: ASYNC110 -- no event tells of it
                await anyio.sleep(_READER_SECONDS)
            tasks.cancel_scope.cancel()
        raise failure

    async def _follow_on(self, listener: Listener) -> None:
        """Follow one stream after the other."""
        # What is wrong from the start is told as other commands tell it.
        await listener.get("/v1/jobs", [*client.query(self._wanted), ("limit", "1")])
        while True:
            try:
                await self._follow(listener.feed)
            except FeedError as exc:
                if isinstance(exc, FeedRefused) and exc.status_code == 401:
                    raise explained(401, self._address, "unauthorized") from exc
                if not self._met:
                    raise
                self._failures += 1
                if self._failures == 1:
                    self._output.say(f"{exc}; trying again until it is back")
            await anyio.sleep(pause(self._failures, first=0.5, longest=RECONNECT_SECONDS, least=0))

    async def _follow(self, feed: FeedClient) -> None:
        """Follow one stream to its end."""
        async with feed.stream(after=self.cursor, wanted=self._wanted) as frames:
            async for frame in frames:
                if frame.name == "hello":
                    if self._failures:
                        self._output.say("it is back")
                    elif not self._met:
                        self._output.say(f"following {self._address.url}; Ctrl-C ends it")
                    self._met, self._failures = True, 0
                self._take(frame)
                if frame.name == "goaway":
                    break

    def _take(self, frame: FeedFrame) -> None:
        if frame.event is not None:
            if self._output.json:
                self._output.object(frame.data)
            else:
                self._output.line(*_line(frame.event))
        elif frame.name == "reset":
            self._output.say(
                f"events may be missing here ({frame.data.get('reason')}): airbyte-events jobs shows what is now"
            )
        # Behind the event: whoever goes on from here has it.
        if frame.cursor is not None and frame.cursor != self.cursor:
            self.cursor = frame.cursor
            if self._keep is not None:
                _write(self._keep, f"{frame.cursor}\n")

    def leave(self) -> None:
        """Tell where to go on."""
        if self._met and self.cursor is not None and self._keep is None:
            sys.stderr.write(f"to go on from here: --after {self.cursor}\n")


def _line(event: JobEvent) -> list[str | Text]:
    name = event.names.get("connection") or event.connection_id or ""
    parts: list[str | Text] = [
        moment_of(event.finished_at or event.observed_at),
        f"{event.ref}",
        status(event.status.value),
        event.job_type or "",
        name,
        f"{amount(event.records)} records" if event.records is not None else "",
        duration(event.duration_seconds),
        Text(f"({event.origin.value})", style="dim"),
        Text("" if event.error is None else shown(str(event.error)), style="red"),
    ]
    return [part for part in parts if str(part)]


def _cursor(label: str, text: str) -> Cursor:
    try:
        return Cursor.parse(text.strip())
    except ValueError as exc:
        raise SettingsError(f"{label}: {exc}") from None


def _kept(file: Path | None) -> Cursor | None:
    if file is None:
        return None
    try:
        return _cursor(f"--cursor-file {file}", file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"--cursor-file: can't be read ({exc})") from None


def _write(file: Path, text: str) -> None:
    """Replace it as a whole: whoever ends in between leaves the old one."""
    try:
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(name).replace(file)
    except OSError as exc:
        raise SettingsError(f"--cursor-file: {file} can't be written ({exc.strerror})") from exc
