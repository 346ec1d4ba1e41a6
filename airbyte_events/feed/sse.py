"""Server-sent events, sans I/O (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

from dataclasses import dataclass

MAX_FRAME = 1 << 20
"""The maximum size of a frame in bytes, far above that of any event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One event of a stream.

    :param data: one line of JSON.
    :param id: the cursor after this event; None: unchanged.
    """

    event: str
    data: str
    id: str | None = None

    def encode(self) -> bytes:
        id_ = "" if self.id is None else f"id: {self.id}\n"
        return f"event: {self.event}\n{id_}data: {self.data}\n\n".encode()


class Decoder:
    """Parses chunks of bytes into frames."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._size = 0
        self._event = "message"
        self._data: list[str] = []
        self._id: str | None = None

    def feed(self, chunk: bytes) -> list[Frame]:
        """Return the frames that this chunk completes.

        :raises ValueError: if a frame is longer than :data:`MAX_FRAME` or not UTF-8.
        """
        frames = []
        # Only new bytes are searched: a long frame in many small chunks costs hardly more than one in a single chunk.
        *lines, rest = chunk.split(b"\n")
        if lines:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
        self._rest += rest
        for line in (each.removesuffix(b"\r") for each in lines):
            self._size += len(line)
            if self._size > MAX_FRAME:
                break
            if not line:
                if self._data:
                    frames.append(Frame(event=self._event, data="\n".join(self._data), id=self._id))
                self._event, self._data, self._id, self._size = "message", [], None, 0
            else:
                self._field(line.decode())
        if self._size + len(self._rest) > MAX_FRAME:
            raise ValueError(f"a frame of more than {MAX_FRAME} bytes")
        return frames

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)
        elif name == "id":
            self._id = value
