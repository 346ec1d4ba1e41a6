"""``airbyte-events serve`` as a process that is killed and started again, on the same port and store."""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import httpx
import psutil  # type: ignore[import-untyped]

from support.command import fresh_command
from support.process import environ_of
from support.servers import free_port

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

API_TOKEN = "api-token-of-the-soak-tests-0001"
WEBHOOK_TOKEN = "webhook-token-of-the-soak-tests1"
START_SECONDS = 60.0
_SERVE = [*fresh_command(), "serve"]


class Listener:
    """``async with Listener(...) as listener``: not started yet, and not running any more at the end.

    :param folder: for its log, and its store unless ``STORE`` is given.
    :param airbyte: the URL of the Airbyte that it watches.
    :param settings: ``AIRBYTE_EVENTS_*``, without that.
    """

    def __init__(self, folder: Path, airbyte: str, *, port: int | None = None, **settings: str) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.webhooks = f"{self.url}/webhooks/default/{WEBHOOK_TOKEN}"
        self.log = folder / f"listener-{self.port}.log"
        self.store = settings.get("STORE", f"sqlite:///{folder}/events.db")
        ours = {
            "AIRBYTE_URL": airbyte,
            "PORT": str(self.port),
            "STORE": self.store,
            "API_TOKENS": API_TOKEN,
            "WEBHOOK_TOKENS": WEBHOOK_TOKEN,
            "POLL_INTERVAL": "1",
            "POLL_INTERVAL_PROVEN": "1",
            "POLL_INTERVAL_IDLE": "1",
            "LOG_LEVEL": "warning",
        }
        self._env = environ_of(**ours | settings)
        self._process: subprocess.Popen[bytes] | None = None
        self._files = ExitStack()

    async def __aenter__(self) -> Self:
        self._output = self._files.enter_context(self.log.open("ab"))
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._files.close()

    def start(self, *, files: int | None = None) -> None:
        """Begin to start it. See :meth:`ready`.

        :param files: how many it may have open, unless as many as the tests.
        """
        assert self._process is None
        limit = () if files is None else ("sh", "-c", f'ulimit -n {files}; exec "$@"', "sh")
        self._process = subprocess.Popen([*limit, *_SERVE], env=self._env, stdout=self._output, stderr=self._output)

    async def ready(self, within: float = START_SECONDS, *, supervised: bool = False) -> None:
        """Returns when it says that it is ready.

        :param supervised: start it again if it ends by itself, as it does when there is no store to start with.
        """
        async with httpx.AsyncClient(trust_env=False) as http:
            with anyio.fail_after(within):
                while True:
                    if self._running.poll() is not None:
                        assert supervised, self.log.read_text()[-2000:]
                        await self._ended(1)
                        self.start()
                    try:
                        if (await http.get(f"{self.url}/readyz", timeout=1)).status_code == 200:
                            return
                    except httpx.TransportError:
                        pass
                    await anyio.sleep(0.02)

    async def kill(self) -> None:
        """``kill -9``, as it stands."""
        self._running.kill()
        await self._ended(5)

    async def stop(self, within: float = 30) -> tuple[int, float]:
        """SIGTERM; its exit code and how many seconds it took."""
        began = time.monotonic()
        self._running.send_signal(signal.SIGTERM)
        return await self._ended(within), time.monotonic() - began

    def signal(self, which: signal.Signals) -> None:
        self._running.send_signal(which)

    @property
    def resident(self) -> int:
        """Bytes of memory that it takes."""
        return int(psutil.Process(self._running.pid).memory_info().rss)

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    async def _ended(self, within: float) -> int:
        code = await anyio.to_thread.run_sync(self._running.wait, within)
        self._process = None
        return code
