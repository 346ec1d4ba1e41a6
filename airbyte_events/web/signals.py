"""How a process ends that is told to: orderly and in time, or at once when it is told twice."""

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
"""An end that takes longer is cut short: a thread that waits for a disk, a lock or a name server can't be cancelled,
and the process would wait for it. What was acknowledged is stored by then, so nothing but order is lost."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def on_signal(begin: Callable[[], object]) -> None:
    """Heed SIGTERM and SIGINT from now on, in the main thread's event loop. The last call counts.

    :param begin: called at the first signal, to begin an orderly end. The second one ends the process at once.
    """
    for each in _SIGNALS:
        asyncio.get_running_loop().add_signal_handler(each, _begin, each, begin)


def _begin(which: signal.Signals, begin: Callable[[], object]) -> None:
    # The second one is not left to the event loop: it works whatever that is busy with, and when that is closed.
    for each in _SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(each)
        signal.signal(each, _at_once)
    limit = threading.Timer(LONGEST_SECONDS, _cut_short)
    limit.daemon = True
    limit.start()
    logger.info("%s: finishing what is under way; once more to stop at once", which.name)
    begin()


def _cut_short() -> None:
    logger.error("what is under way does not finish, as the store, a disk or the network hangs: stopping all the same")
    os._exit(0)


def _at_once(number: int, frame: object) -> None:
    os.write(sys.stderr.fileno(), f"{signal.Signals(number).name} again: stopping at once\n".encode())
    os._exit(128 + number)
