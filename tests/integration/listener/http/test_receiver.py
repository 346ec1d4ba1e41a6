"""The webhook receiver on the server that serves it, and clients of every kind, Airbyte's own among them."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import h11
import httpx
import pytest
from anyio.abc import SocketStream

from airbyte_events.listener.http.receiver import MAX_BODY, Receiver
from airbyte_events.store.base import EventStore
from airbyte_events.store.memory.store import MemoryStore
from airbyte_events.store.records import Outcome, StoredNotification
from airbyte_events.store.sqlite.store import SQLiteStore
from airbyte_events.web.auth import Tokens, digest_of, new_token
from airbyte_events.web.server import serving
from support.servers import connect

pytestmark = pytest.mark.anyio

UPGRADE = (
    "Connection: Upgrade, HTTP2-Settings\r\n"
    "Host: localhost\r\n"
    "HTTP2-Settings: AAMAAABkAAQBAAAAAAIAAAAA\r\n"
    "Upgrade: h2c\r\n"
    "User-Agent: Java-http-client/17.0.15\r\n"
    "Content-Type: application/json\r\n"
)


def body(job_id: int = 7, title: str = "Sync completed: <https://x/connections/1|Orders>", **data: Any) -> bytes:
    block = {"type": "section", "text": {"type": "mrkdwn", "text": title}}
    times = {"startedAt": "2024-01-01T00:00:00Z", "finishedAt": "2024-01-01T01:00:00Z"}
    return json.dumps(
        {"text": "x", "blocks": [block], "data": {"jobId": job_id, "success": True, **times, **data}}
    ).encode()


QUEUED = body(title="Sync queued: <https://x|Orders>", success=False, finishedAt=None)
TEST = body(10, title="[THIS IS A TEST NOTIFICATION] Sync completed: <https://x|Orders>")


@dataclass
class ServedReceiver:
    """A served receiver of two instances with two tokens."""

    url: str
    http: httpx.AsyncClient
    store: EventStore
    tokens: tuple[str, str]

    def path(self, instance: str = "default", token: str | None = None) -> str:
        return f"/webhooks/{instance}/{self.tokens[0] if token is None else token}"

    async def post(self, content: Any, **path: str) -> httpx.Response:
        return await self.http.post(self.path(**path), content=content)

    async def kept(self) -> list[StoredNotification]:
        return await self.store.notifications()

    async def connect(self) -> SocketStream:
        return await connect(self.url)


@asynccontextmanager
async def receiving(store: EventStore) -> AsyncIterator[ServedReceiver]:
    tokens = (new_token(), new_token())
    async with store:
        app = Receiver(store, ("default", "other"), Tokens(map(digest_of, tokens)))
        async with (
            serving(app, timeout_graceful_shutdown=2) as url,
            httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as http,
        ):
            yield ServedReceiver(url, http, store, tokens)


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for client in ("httpx", "httpcore"):
        caplog.set_level(logging.WARNING, client)


@pytest.fixture
async def receiver(caplog: pytest.LogCaptureFixture) -> AsyncIterator[ServedReceiver]:
    async with receiving(MemoryStore()) as receiver:
        yield receiver
    # Whatever happened: nothing went wrong inside, and I7 holds.
    logged = caplog.get_records("call")
    # (The server's own complaint that it can't answer what was no HTTP is not ours.)
    failures = [record.exc_info[1] for record in logged if record.exc_info]
    assert not [failure for failure in failures if not isinstance(failure, h11.LocalProtocolError)]
    for token in receiver.tokens:
        assert not [record for record in logged if token in record.getMessage()]


async def read_answer(stream: SocketStream) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive()
    head, _, rest = data.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(rest) < length:
        rest += await stream.receive()
    return head + b"\r\n\r\n" + rest


class TestAnswers:
    async def test_i1_202_once_it_is_stored_and_200_for_the_same_again(self, receiver: ServedReceiver) -> None:
        first = await receiver.post(body())
        (stored,) = await receiver.kept()
        assert (first.status_code, first.json()) == (202, {"event": stored.id})
        assert (stored.instance, stored.job_id, stored.outcome) == ("default", 7, Outcome.PENDING)
        assert stored.body == body()
        again = await receiver.post(body(), token=receiver.tokens[1])
        assert (again.status_code, again.json()) == (200, {"event": stored.id})
        other = await receiver.post(body(), instance="other")
        assert other.status_code == 202
        assert [each.instance for each in await receiver.kept()] == ["other", "default"]

    async def test_whatever_names_a_job_is_a_reason_to_ask_once(self, receiver: ServedReceiver) -> None:
        contents = {
            QUEUED: "queued",
            body(7, title="Sync completed: x", success=False): "unknown",
            body(7, title="Sync failure occurred: x", success=True): "unknown",
            body(7, title="Sync rejoiced: x", success="perhaps"): "unknown",
            b'{"text": "Something of a newer Airbyte\\n\\nJob ID: 7"}': "unknown",
            b'{"text": "Your "connection" failed\n\nJob ID: 7"}': "unknown",
        }
        for number, (content, kind) in enumerate(contents.items(), 1):
            for status in (202, 200, 200):
                answer = await receiver.post(content)
                stored, *earlier = await receiver.kept()
                assert len(earlier) == number - 1
                assert (answer.status_code, answer.json()) == (status, {"event": stored.id})
                assert (stored.kind, stored.outcome, stored.job_id) == (kind, Outcome.PENDING, 7)
        assert len(await receiver.store.pending("default")) == len(contents)

    async def test_the_invalid_json_of_old_releases_is_kept(self, receiver: ServedReceiver) -> None:
        said = b'{"text":"Your source schema has changed for connection ID: 1.\n\nThe stream "orders" is new.\n"}'
        answer = await receiver.post(said)
        (stored,) = await receiver.kept()
        assert (answer.status_code, answer.json()) == (200, {"event": stored.id})
        assert (stored.kind, stored.outcome, stored.body) == ("schema_change", Outcome.IGNORED, said)

    async def test_a_failure_with_a_reason_of_50000_characters_is_kept_whole(self, receiver: ServedReceiver) -> None:
        reason = "x" * 50_000
        document = json.loads(body(7, title="Sync failure occurred: x", success=False, errorMessage=reason))
        long = json.dumps({**document, "text": reason, "more": reason}).encode()
        assert len(long) > 150_000
        assert (await receiver.post(long)).status_code == 202
        assert [stored.body for stored in await receiver.kept()] == [long]

    async def test_200_for_what_tells_of_no_job(self, receiver: ServedReceiver) -> None:
        contents = {
            TEST: "test",
            b'{"text": "Hello World! This is a test from Airbyte"}': "test",
            b'{"what": "ever"}': "unknown",
        }
        for number, (content, kind) in enumerate(contents.items(), 1):
            for _ in range(2):
                answer = await receiver.post(content)
                stored, *earlier = await receiver.kept()
                assert len(earlier) == number - 1
                assert (answer.status_code, answer.json()) == (200, {"event": stored.id})
                assert (stored.kind, stored.outcome) == (kind, Outcome.IGNORED)
        assert await receiver.store.pending("default") == []

    async def test_400_for_what_is_no_json_object_and_it_is_kept(self, receiver: ServedReceiver) -> None:
        deep = b"[" * 30_000
        wrong = [b"", b" \r\n", b"hello", b"[1]", b"null", b"\xff{}", b'{"a": NaN}', deep, b'{"a":' * 9_000, b"{} {}"]
        for number, content in enumerate(wrong, 1):
            for _ in range(2):
                answer = await receiver.post(content)
                assert answer.status_code == 400, content[:20]
                assert answer.json()["error"].startswith("the notification's body is ")
            kept = await receiver.kept()
            assert len(kept) == number
            assert (kept[0].outcome, kept[0].kind, kept[0].body) == (Outcome.REJECTED, "rejected", content)

    async def test_nested_json_below_the_limit_is_no_fault(self, receiver: ServedReceiver) -> None:
        nested = body()[:-1] + b', "more": ' + b"[" * 500 + b"]" * 500 + b"}"
        assert (await receiver.post(nested)).status_code == 202

    async def test_413_for_too_much(self, receiver: ServedReceiver) -> None:
        async def chunks(size: int) -> AsyncIterator[bytes]:
            for _ in range(0, size, 1024):
                yield b" " * 1024

        largest = body() + b" " * (MAX_BODY - len(body()))
        assert (await receiver.post(largest)).status_code == 202
        for content in (largest + b" ", chunks(MAX_BODY + 1024), b" " * 10_000_000):
            assert (await receiver.post(content)).status_code == 413
        assert len(await receiver.kept()) == 1
        # The announced length counts, however much of it comes; the connection is not waited upon.
        for length in (str(MAX_BODY + 1), "9" * 18):
            async with await receiver.connect() as stream:
                await stream.send(
                    f"POST {receiver.path()} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{{".encode()
                )
                with anyio.fail_after(30):
                    assert b" 413 " in (await read_answer(stream))[:20]

    async def test_404_is_one_and_the_same(self, receiver: ServedReceiver) -> None:
        token = receiver.tokens[0]
        asked = [
            ("POST", "/nowhere"),
            ("GET", "/"),
            ("POST", receiver.path(token="wrong")),
            ("POST", receiver.path(token=token[:-1])),
            ("POST", receiver.path(token=token + "x")),
            ("POST", receiver.path(token=token.swapcase())),
            ("POST", receiver.path(token="%00")),
            ("POST", receiver.path(token="%ff%ed%a0%80")),
            ("POST", receiver.path(token="t" * 5_000)),
            ("POST", receiver.path(instance="nobody")),
            ("POST", receiver.path(instance="Default")),
            ("POST", receiver.path() + "/"),
            ("POST", "//webhooks/default/" + token),
            ("POST", f"/webhooks/{token}"),
            ("POST", f"/webhooks/default?token={token}"),
            *((method, receiver.path()) for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND")),
        ]
        answers = set()
        for method, path in asked:
            answer = await receiver.http.request(method, receiver.url + path, content=body())
            headers = [(name, value) for name, value in answer.headers.multi_items() if name != "date"]
            answers.add((answer.status_code, str(headers), answer.content))
        assert len(answers) == 1
        assert answers.pop()[0] == 404
        head = await receiver.http.head(receiver.path())
        assert (head.status_code, head.content) == (404, b"")
        assert await receiver.kept() == []

    async def test_never_redirects(self, receiver: ServedReceiver) -> None:
        for path in (
            "/webhooks",
            "/webhooks/",
            "/webhooks/default",
            receiver.path() + "/",
            receiver.path() + "//",
            "/WEBHOOKS",
        ):
            assert (await receiver.http.post(path, content=body())).status_code == 404

    async def test_i7_says_nothing_of_the_token(self, receiver: ServedReceiver) -> None:
        for content in (body(), b"", b"x" * (MAX_BODY + 1)):
            answer = await receiver.post(content)
            assert receiver.tokens[0] not in answer.text + str(answer.headers)
        assert receiver.tokens[0] not in (await receiver.http.get(receiver.path())).text


class TestFailingStore:
    async def test_503_when_storing_fails(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        async with receiving(SQLiteStore(tmp_path / "events.db")) as receiver:
            with sqlite3.connect(tmp_path / "events.db") as other:
                other.execute("ALTER TABLE notifications RENAME TO gone")
            other.close()
            answer = await receiver.post(body())
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert "error" in answer.json()
            with sqlite3.connect(tmp_path / "events.db") as other:
                other.execute("ALTER TABLE gone RENAME TO notifications")
            other.close()
            assert (await receiver.post(body())).status_code == 202
        assert "could not store a notification" in caplog.text
        assert receiver.tokens[0] not in caplog.text

    async def test_503_when_storing_takes_longer_than_2_s(self, tmp_path: Path) -> None:
        async with receiving(SQLiteStore(tmp_path / "events.db")) as receiver:
            other = sqlite3.connect(tmp_path / "events.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            began = anyio.current_time()
            with anyio.fail_after(4):
                answer = await receiver.post(body())
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert anyio.current_time() - began >= 1.9
            other.execute("ROLLBACK")
            other.close()
            # It may have been stored after all: then it is a duplicate, and confirmed in either case.
            assert (await receiver.post(body())).status_code in (200, 202)
            (stored,) = await receiver.store.pending("default")
            assert stored.body == body()


class TestClients:
    async def test_bodies_in_chunks_arrive_whole(self, receiver: ServedReceiver) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            for at in range(0, len(body()), 7):
                yield body()[at : at + 7]

        assert (await receiver.post(chunks())).status_code == 202
        assert (await receiver.kept())[0].body == body()

    async def test_a_body_that_comes_byte_by_byte_arrives_whole(self, receiver: ServedReceiver) -> None:
        async with await receiver.connect() as stream:
            request = (
                f"POST {receiver.path()} HTTP/1.1\r\n{UPGRADE}Content-Length: {len(body())}\r\n\r\n".encode() + body()
            )
            for at in range(len(request)):
                await stream.send(request[at : at + 1])
            assert b" 202 " in (await read_answer(stream))[:20]
        assert (await receiver.kept())[0].body == body()

    async def test_no_later_webhook_meets_the_close_of_a_kept_connection(self, receiver: ServedReceiver) -> None:
        head = f"POST {receiver.path()} HTTP/1.1\r\n{UPGRADE}Content-Length: {len(body())}\r\n\r\n"
        received = b""
        with anyio.fail_after(10), contextlib.suppress(anyio.EndOfStream):
            async with await receiver.connect() as stream:
                await stream.send(head.encode() + body())
                while True:
                    received += await stream.receive()
        assert b"\r\nconnection: close\r\n" in received.lower()

    async def test_who_leaves_within_the_body_is_not_stored(self, receiver: ServedReceiver) -> None:
        for framing in ("Content-Length: 500", "Transfer-Encoding: chunked"):
            async with await receiver.connect() as stream:
                head = f"POST {receiver.path()} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n"
                await stream.send(head.encode() + b"5\r\n{    \r\n")
                await anyio.wait_all_tasks_blocked()
        assert (await receiver.post(body())).status_code == 202
        assert len(await receiver.kept()) == 1

    async def test_what_is_no_http_harms_nobody(self, receiver: ServedReceiver) -> None:
        path = receiver.path().encode()
        for garbage in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 that is TLS\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"POST " + path + b" HTTP/1.1\r\nContent-Length: 5\r\n\r\n{}   ",
            b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
            b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 4_000 + b"\r\n\r\n",
            b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"POST " + path + b"\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        ):
            async with await receiver.connect() as stream:
                await stream.send(garbage)
                with anyio.fail_after(30), contextlib.suppress(anyio.EndOfStream):
                    assert b" 40" in (await stream.receive())[:20], garbage
        assert (await receiver.post(body())).status_code == 202
        assert len(await receiver.kept()) == 1

    async def test_many_at_once_are_all_stored(self, tmp_path: Path) -> None:
        async with receiving(SQLiteStore(tmp_path / "events.db")) as receiver:
            statuses: list[int] = []

            async def post(job_id: int) -> None:
                statuses.append((await receiver.post(body(job_id))).status_code)

            async with anyio.create_task_group() as tasks:
                for job_id in range(1, 101):
                    tasks.start_soon(post, job_id)
            assert statuses == [202] * 100
            pending = await receiver.store.pending("default")
            assert sorted(stored.job_id or 0 for stored in pending) == list(range(1, 101))


class TestJava:
    """Airbyte's client offers an upgrade to HTTP/2 with every POST; some servers drop the body then."""

    @pytest.mark.parametrize("size", [0, 1_300, 60_000])
    async def test_i9_the_bytes_that_it_sends_arrive_whole(self, receiver: ServedReceiver, size: int) -> None:
        content = body(names="x" * size)
        for number, sent in enumerate([content, content, body(8)]):
            head = f"POST {receiver.path()} HTTP/1.1\r\n{UPGRADE}Content-Length: {len(sent)}\r\n\r\n"
            async with await receiver.connect() as stream:
                await stream.send(head.encode() + sent)
                answer = await read_answer(stream)
                assert answer.startswith(b"HTTP/1.1 200 " if number == 1 else b"HTTP/1.1 202 ")
                assert b"upgrade" not in answer.lower()
        assert [stored.body for stored in await receiver.kept()] == [body(8), content]

    @pytest.mark.skipif(shutil.which("java") is None, reason="there is no java here")
    async def test_i9_the_real_one_delivers_the_body(self, receiver: ServedReceiver, tmp_path: Path) -> None:
        source = tmp_path / "Notify.java"
        source.write_text(JAVA)
        done = await anyio.run_process(
            ["java", str(source), receiver.url + receiver.path(), body().decode()], check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout.split() == [b"202", b"200", b"HTTP_1_1"]
        (stored,) = await receiver.kept()
        assert stored.body == body()


JAVA = """
import java.net.URI;
import java.net.http.*;

public class Notify {
    public static void main(String[] args) throws Exception {
        HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_2).build();
        HttpRequest request = HttpRequest.newBuilder(URI.create(args[0]))
            .header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString(args[1])).build();
        HttpResponse<String> first = client.send(request, HttpResponse.BodyHandlers.ofString());
        HttpResponse<String> second = client.send(request, HttpResponse.BodyHandlers.ofString());
        System.out.println(first.statusCode() + " " + second.statusCode() + " " + second.version());
    }
}
"""
