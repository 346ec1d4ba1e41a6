"""``airbyte-events tail``: shows events as they happen."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import anyio
from rich.text import Text

from airbyte_events._utils.backoff import pause
from airbyte_events._utils.files import check_writable, read_fault, write_private
from airbyte_events._utils.printable import shown
from airbyte_events._utils.times import duration
from airbyte_events._utils.until import until
from airbyte_events.cli import options
from airbyte_events.cli.api_client import Address, connection_ids, open_listener
from airbyte_events.cli.options import flag, option
from airbyte_events.cli.output import Output, amount, moment, status
from airbyte_events.cli.runner import command
from airbyte_events.errors import FeedError, FeedRefused, SettingsError
from airbyte_events.events import Cursor, EventFilter, JobEvent
from airbyte_events.feed import client
from airbyte_events.feed.client import FeedClient, FeedFrame
from airbyte_events.listener.settings import load

RECONNECT_SECONDS = 15.0
"""The longest delay between two attempts to reconnect."""

_READER_SECONDS = 0.5


@command(
    "tail",
    "Completions, as they happen:",
    "  airbyte-events tail --ended",
    "Failures of one connection for a program, none missed between two runs:",
    "  airbyte-events tail --status failed --connection Orders --json --cursor-file cursor | ./alert",
    "Also what is late or stalled:",
    "  airbyte-events tail --ended --signals",
    "Each line of --json is a CloudEvents object: jq .data.status",
    codes={1: "the listener refused, or did not respond at the start"},
)
async def tail(
    instance: options.Instances = None,
    connection: options.Connections = None,
    job: options.Jobs = None,
    status: options.Statuses = None,
    ended: options.Ended = None,
    signals: Annotated[bool, flag("Also show what is late, slow, stalled or failing.", "--signals")] = False,
    after: Annotated[str | None, option("CURSOR", "Start after this event.")] = None,
    cursor_file: Annotated[
        Path | None, option("FILE", "Store the cursor here, and start after the one stored.")
    ] = None,
    listener: options.ListenerURL = None,
    config: options.Config = None,
    json: options.JSON = False,
) -> int:
    """Show job events as they happen. After a restart of the listener it shows what happened meanwhile. Ctrl-C stops it
    and prints the cursor to resume from; --cursor-file stores the cursor, and the next tail resumes there."""
    wanted = replace(options.event_filter(instance, job, status, ended), signals=signals)
    address = Address.of(load(config, listens=False), listener)
    output = Output(json=json)
    begin = _cursor("--after", after) if after else _stored(cursor_file)
    if cursor_file is not None:
        with _writing(cursor_file):
            check_writable(cursor_file)
    following = Tail(output, address, wanted, connection or (), begin, cursor_file)
    try:
        return await following.run()
    finally:
        following.print_cursor()


@dataclass(eq=False)
class Tail:
    """A reader of a feed that shows its events.

    :param wanted: the events to show, of any connection.
    :param connections: the ids or names of their connections; by default all.
    :param cursor: where to start; None: with the next event. It advances.
    """

    output: Output
    address: Address
    wanted: EventFilter
    connections: Collection[str]
    cursor: Cursor | None
    cursor_file: Path | None
    _connected: bool = field(default=False, init=False)
    _failures: int = field(default=0, init=False)

    async def run(self) -> int:
        """Follow until cancelled.

        :return: never.
        :raises FeedError: if the listener does not respond at the start, or refuses.
        :raises BrokenPipeError: if the reader of the output has gone.
        """
        async with open_listener(self.address) as listener, until(self._reader_gone):
            await self._follow_on(listener)
        raise BrokenPipeError

    async def _reader_gone(self) -> None:
        # Without events nothing is written, so no write fails.
        while not self.output.reader_gone():  # noqa: ASYNC110 -- no event reports it
            await anyio.sleep(_READER_SECONDS)

    async def _follow_on(self, listener: FeedClient) -> None:
        ids = await connection_ids(listener, self.connections, self.wanted.instances)
        self.wanted = replace(self.wanted, connection_ids=ids)
        # A fault at the start is reported as by other commands.
        await listener.request(
            "GET", "/v1/jobs", params=[*client.query(replace(self.wanted, signals=False)), ("limit", "1")]
        )
        while True:
            try:
                await self._follow(listener)
            except FeedError as exc:
                if not self._connected or (isinstance(exc, FeedRefused) and exc.status_code == 401):
                    raise
                self._failures += 1
                if self._failures == 1:
                    self.output.note(f"{exc}; reconnecting")
            await anyio.sleep(pause(self._failures, first=0.5, longest=RECONNECT_SECONDS, least=0))

    async def _follow(self, feed: FeedClient) -> None:
        async with feed.stream(after=self.cursor, wanted=self.wanted) as frames:
            async for frame in frames:
                if frame.name == "hello":
                    if self._failures:
                        self.output.note("reconnected")
                    elif not self._connected:
                        self.output.note(f"following {self.address.url}; Ctrl-C stops it")
                    self._connected, self._failures = True, 0
                self._take(frame)
                if frame.name == "goaway":
                    break

    def _take(self, frame: FeedFrame) -> None:
        if frame.event is not None:
            if self.output.json:
                self.output.object(frame.data)
            else:
                self.output.line(*_line(frame.event))
        elif frame.name == "reset":
            self.output.note(
                f"events may be missing here ({frame.data.get('reason')}): airbyte-events jobs shows the current states"
            )
        # After the event: a reader that resumes from here has seen it.
        if frame.cursor is not None and frame.cursor != self.cursor:
            self.cursor = frame.cursor
            if self.cursor_file is not None:
                with _writing(self.cursor_file):
                    write_private(self.cursor_file, f"{frame.cursor}\n", durable=False)

    def print_cursor(self) -> None:
        if self._connected and self.cursor is not None and self.cursor_file is None:
            sys.stderr.write(f"to resume from here: --after {self.cursor}\n")


def _line(event: JobEvent) -> list[str | Text]:
    name = event.names.get("connection") or event.connection_id or ""
    if (signal := event.signal) is not None:
        what = Text(signal.kind.value if signal.raised else f"no longer {signal.kind.value}", style="yellow")
        ref = event.ref.instance if signal.job_id is None else f"{event.ref.instance}/{signal.job_id}"
        return [moment(event.observed_at), ref, what, name, shown(signal.message)]
    parts: list[str | Text] = [
        moment(event.finished_at or event.observed_at),
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


def _stored(file: Path | None) -> Cursor | None:
    if file is None:
        return None
    try:
        return _cursor(f"--cursor-file {file}", file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"--cursor-file: {file}: {read_fault(exc)}") from None


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise SettingsError(
            f"--cursor-file: {file} can't be written ({exc.strerror}); name a file in a folder that exists and that "
            "you may write"
        ) from exc
