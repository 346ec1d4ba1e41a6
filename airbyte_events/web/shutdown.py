"""Shut a process down by signals: orderly at the first, at once at the second."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)

LONGEST_SECONDS = 4.8
"""A shutdown that takes longer is cut short: a thread that waits for a disk, a lock or a name server can't be
cancelled, and the process would wait for it. Acknowledged data is stored by then."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def on_signal(begin: Callable[[], object]) -> None:
    """Handle SIGTERM and SIGINT in the main thread's event loop. The last call counts.

    :param begin: starts the shutdown at the first signal. The second signal ends the process at once.
    """
    for each in _SIGNALS:
        asyncio.get_running_loop().add_signal_handler(each, _begin, each, begin)


def _begin(which: signal.Signals, begin: Callable[[], object]) -> None:
    # The second signal must work without the event loop, which may be busy or closed.
    for each in _SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(each)
        signal.signal(each, _at_once)
    limit = threading.Timer(LONGEST_SECONDS, _cut_short)
    limit.daemon = True
    limit.start()
    logger.info("received %s, finishing requests in progress; a second signal stops at once", which.name)
    begin()


def _cut_short() -> None:
    logger.error("shutdown takes too long, as the store, a disk or the network hangs: stopping now")
    os._exit(0)


def _at_once(number: int, frame: object) -> None:
    os.write(sys.stderr.fileno(), f"{signal.Signals(number).name} again: stopping at once\n".encode())
    os._exit(128 + number)
