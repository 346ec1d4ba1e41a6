"""Server-sent events, cut anywhere."""

from __future__ import annotations

import json

import pytest

from airbyte_events.feed.sse import MAX_FRAME, Decoder, Frame

FRAMES = [
    Frame(event="hello", data="{}", id="ab-0"),
    Frame(event="job", data=json.dumps({"name": "Zürich → ☃", "text": "a\nb"}, ensure_ascii=False), id="ab-1"),
    Frame(event="bookmark", data=""),
    Frame(event="goaway", data='{"reason": "drain"}'),
]
STREAM = b"".join(frame.encode() for frame in FRAMES)


def decoded(*chunks: bytes) -> list[Frame]:
    decoder = Decoder()
    return [frame for chunk in chunks for frame in decoder.feed(chunk)]


def test_what_is_encoded_is_decoded() -> None:
    assert decoded(STREAM) == FRAMES


@pytest.mark.parametrize("stream", [STREAM, STREAM.replace(b"\n", b"\r\n")], ids=["lf", "crlf"])
def test_cut_at_every_byte(stream: bytes) -> None:
    for cut in range(len(stream) + 1):
        assert decoded(stream[:cut], stream[cut:]) == FRAMES
    assert decoded(*(stream[at : at + 1] for at in range(len(stream)))) == FRAMES


def test_a_frame_comes_out_with_its_last_byte() -> None:
    decoder = Decoder()
    frame = FRAMES[1].encode()
    assert decoder.feed(frame[:-1]) == []
    assert decoder.feed(frame[-1:]) == [FRAMES[1]]


def test_lines_of_data_are_joined() -> None:
    assert decoded(b"data: a\ndata:b\ndata:  c\ndata\n\n") == [Frame(event="message", data="a\nb\n c\n")]


def test_comments_unknown_fields_and_frames_without_data_are_passed_over() -> None:
    stream = b": hello\nretry: 5\nwhat: ever\nevent: x\n\nevent: job\ndata: 1\n\n\n\n"
    assert decoded(stream) == [Frame(event="job", data="1")]


def test_nothing_of_a_frame_is_left_for_the_next() -> None:
    first, second = decoded(b"event: job\nid: ab-1\ndata: 1\n\ndata: 2\n\n")
    assert (first.event, first.id) == ("job", "ab-1")
    assert (second.event, second.id) == ("message", None)


@pytest.mark.parametrize("size", [16, 20_000, 1 << 22])
def test_an_oversized_frame_is_refused_however_it_is_cut(size: int) -> None:
    for body in (b"x" * (2 * MAX_FRAME), b"x\ndata: " * (MAX_FRAME // 4)):
        stream = b"data: " + body + b"\n\n"
        with pytest.raises(ValueError, match=str(MAX_FRAME)):
            decoded(*(stream[at : at + size] for at in range(0, len(stream), size)))


def test_many_frames_in_one_chunk_are_not_one_oversized_frame() -> None:
    frame = Frame(event="job", data="x" * 100_000)
    assert decoded(frame.encode() * 30) == [frame] * 30


def test_what_is_not_text_is_refused() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        decoded(b"data: \xff\n\n")
