"""Secrets in files that change while the listener runs."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import anyio
import httpx
import pytest

from airbyte_events.listener.assembly import assemble
from airbyte_events.listener.settings import load
from airbyte_events.simulator import Simulator, serve_simulator
from airbyte_events.web.server import serving
from support.exposed import API_TOKENS, WEBHOOK_TOKENS
from support.listener import bearer
from support.waiting import until

pytestmark = pytest.mark.anyio


def reported(caplog: pytest.LogCaptureFixture, times: int) -> bool:
    return caplog.text.count("could not reload secrets") == times


class TestRotation:
    """Kubernetes writes a secret into a new folder and swaps a link to it."""

    @staticmethod
    def mount(folder: Path, version: int, **files: str) -> None:
        data = folder / f"..{version}"
        data.mkdir(parents=True)
        for name, text in files.items():
            (data / name).write_text(text)
            link = folder / name
            if not link.is_symlink():
                link.symlink_to(Path("..data") / name)
        (folder / "..tmp").symlink_to(data.name)
        (folder / "..tmp").rename(folder / "..data")

    async def test_without_a_restart(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "airbyte_events")
        self.mount(tmp_path, 1, api=API_TOKENS[0], webhook=WEBHOOK_TOKENS[0], client="first-secret")
        async with serve_simulator(Simulator(client_id="id", client_secret="second-secret")) as sim:
            for name, value in {
                "AIRBYTE_URL": sim.url,
                "CLIENT_ID": "id",
                "CLIENT_SECRET_FILE": tmp_path / "client",
                "API_TOKENS_FILE": tmp_path / "api",
                "WEBHOOK_TOKENS_FILE": tmp_path / "webhook",
                "STORE": "memory:",
                "POLL_INTERVAL_IDLE": 0.1,
                "POLL_INTERVAL": 0.1,
            }.items():
                monkeypatch.setenv(f"AIRBYTE_EVENTS_{name}", str(value))
            async with (
                assemble(load()) as listener,
                serving(listener.app) as url,
                httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as http,
                anyio.create_task_group() as tasks,
            ):

                async def opens(*tokens: str) -> list[int]:
                    headers = [bearer(token) for token in tokens]
                    return [(await http.get("/v1/jobs", headers=each)).status_code for each in headers]

                async def second_opens() -> bool:
                    return await opens(API_TOKENS[1]) == [200]

                async def follow() -> None:
                    await listener.secrets.follow(load, every=0.02)

                tasks.start_soon(follow)
                assert await opens(*API_TOKENS) == [200, 401]
                both = ",".join(API_TOKENS)
                self.mount(tmp_path, 2, api=both, webhook=WEBHOOK_TOKENS[0], client="second-secret")
                await until(second_opens)
                assert await opens(*API_TOKENS) == [200, 200]
                # What the first secret was refused, the second gets.
                await until(lambda: sim.traffic.counts["GET /jobs"] > 0)
                # Nothing is lost while a file is not there or holds nonsense; it is told of once.
                for version, text in enumerate(("", "too-short"), 3):
                    self.mount(tmp_path, version, api=text, webhook=WEBHOOK_TOKENS[0], client="second-secret")
                    await until(partial(reported, caplog, version - 2))
                    assert await opens(*API_TOKENS) == [200, 200]
                self.mount(tmp_path, 9, api=API_TOKENS[1], webhook=WEBHOOK_TOKENS[1], client="second-secret")
                await until(lambda: "reloaded webhook tokens" in caplog.text)
                assert await opens(*API_TOKENS) == [401, 200]
                posts = [await http.post(f"/webhooks/default/{token}", content=b"{}") for token in WEBHOOK_TOKENS]
                assert [each.status_code for each in posts] == [404, 200]
                listener.drain()
                tasks.cancel_scope.cancel()
        for secret in (*API_TOKENS, *WEBHOOK_TOKENS, "first-secret", "second-secret", "too-short"):
            assert secret not in caplog.text
